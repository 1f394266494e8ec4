"""E-SpikeFormer as published: the base networks of Spike-driven Transformer V3, and their kin.

Residual streams are membrane potentials: every branch begins with a neuron and ends with a batch
norm. Attributes carry the names that published checkpoints use as keys.

Source: Yao et al., "Scaling Spike-driven Transformer with Efficient Spike Firing Approximation
Training", arXiv:2411.16061, and the keys of its checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snncc.frontends.zoo.parts import (
    Downsampling,
    Layers,
    Mlp,
    SepSpike,
    event_cfg,
    image_cfg,
    through,
)

__all__ = [
    "TAPS",
    "Attention",
    "Backbone",
    "ConvBlock",
    "DvsESpikeFormer",
    "ESpikeFormer",
    "Shape",
    "TransformerBlock",
]

_LAYER_SCALE = 1e-6  # what training starts from
#: Modules after which networks are tapped, at strides 2, 4, 8, 16 and 16. Published segmenters
#: read all but ``block3``, published detectors all but ``ConvBlock1_1``.
TAPS = ("ConvBlock1_1", "ConvBlock1_2", "ConvBlock2_2", "block3", "block4")
#: What the numbers 1 to 4 stand for: the places that segmenters read.
_NUMBERED = ("ConvBlock1_1", "ConvBlock1_2", "ConvBlock2_2", "block4")


@dataclass(frozen=True)
class Shape:
    """What the weights of a base network tell about it.

    Attributes:
        widths: Channels of the stages: half the first one's stand before them, at stride 2; then
            strides 4, 8, 16 and 16.
        blocks: Transformer blocks of the third and of the fourth stage.
        channels: Of the input.
        classes: Rows of the head; 0: no head.
        layer_scale: The branches of transformer blocks end in a factor for each channel.
    """

    widths: tuple[int, int, int, int]
    blocks: tuple[int, int] = (6, 2)
    channels: int = 3
    classes: int = 1000
    layer_scale: bool = False

    @property
    def attended(self) -> tuple[int, ...]:
        """Widths of the stages with attention."""
        return self.widths[2:]


class ConvBlock(nn.Module):
    """Adds a separable convolution, then a pair of 3x3 convolutions, to the membrane potential."""

    def __init__(self, layers: Layers, width: int, kernel: int = 7, expansion: int = 4) -> None:
        super().__init__()
        hidden = expansion * width
        self.Conv = SepSpike(layers, width, kernel)
        self.spike1 = layers.fire()
        self.conv1 = layers.conv(width, hidden, 3)
        self.bn1 = layers.bn(hidden)
        self.spike2 = layers.fire()
        self.conv2 = layers.conv(hidden, width, 3)
        self.bn2 = layers.bn(width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns membrane potentials of the shape of ``x``, ``[N, C, H, W]``."""
        x = x + self.Conv(x)
        y = self.bn1(self.conv1(self.spike1(x)))
        added: Tensor = self.bn2(self.conv2(self.spike2(y)))
        return x + added


class Attention(nn.Module):
    """Linear attention of spike counts: ``fire((q kᵀ) v scale)``, no softmax.

    Queries and keys have the width's channels, values ``expand_v`` times as many; heads take equal,
    contiguous shares of both.

    Args:
        layers: Makes neurons and convolutions.
        width: Channels of the stream.
        heads: They divide ``width``.
        expand_v: Channels of the values over those of the stream.
        scale: Factor of the product; default ``2 / sqrt(width / heads)``.
    """

    def __init__(
        self,
        layers: Layers,
        width: int,
        heads: int = 8,
        expand_v: int = 4,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.scale = 2 * (width // heads) ** -0.5 if scale is None else scale
        self.head_spike = layers.fire()
        self.q_conv = layers.conv_bn(width, width)
        self.q_spike = layers.fire()
        self.k_conv = layers.conv_bn(width, width)
        self.k_spike = layers.fire()
        self.v_conv = layers.conv_bn(width, expand_v * width)
        self.v_spike = layers.fire()
        self.attn_spike = layers.fire()
        self.proj_conv = layers.conv_bn(expand_v * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what is added to the membrane potential ``x``, of its shape."""
        spikes = self.head_spike(x)
        q = self._by_head(self.q_spike(self.q_conv(spikes)))
        k = self._by_head(self.k_spike(self.k_conv(spikes)))
        v = self._by_head(self.v_spike(self.v_conv(spikes)))
        y = (q @ k.transpose(-2, -1)) @ v * self.scale
        n, _, height, width = x.shape
        potential = y.transpose(-2, -1).reshape(n, -1, height, width)
        added: Tensor = self.proj_conv(self.attn_spike(potential))
        return added

    def _by_head(self, x: Tensor) -> Tensor:
        """Returns ``[N, heads, H * W, C / heads]`` of ``[N, C, H, W]``."""
        n, channels, height, width = x.shape
        by_head = x.reshape(n, self.heads, channels // self.heads, height * width)
        return by_head.transpose(-2, -1)


class TransformerBlock(nn.Module):
    """Adds a separable convolution, attention and an MLP to the membrane potential."""

    layer_scale1: Tensor | None
    layer_scale2: Tensor | None
    layer_scale3: Tensor | None

    def __init__(
        self,
        layers: Layers,
        width: int,
        heads: int = 8,
        expand_v: int = 4,
        mlp: int = 4,
        scale: float | None = None,
        layer_scale: bool = False,
    ) -> None:
        super().__init__()
        self.conv = SepSpike(layers, width, 3)
        self.attn = Attention(layers, width, heads, expand_v, scale)
        self.mlp = Mlp(layers, width, mlp)
        for i in (1, 2, 3):
            factor = nn.Parameter(torch.full((width,), _LAYER_SCALE)) if layer_scale else None
            self.register_parameter(f"layer_scale{i}", factor)

    def forward(self, x: Tensor) -> Tensor:
        """Returns membrane potentials of the shape of ``x``, ``[N, C, H, W]``."""
        x = x + _scaled(self.conv(x), self.layer_scale1)
        x = x + _scaled(self.attn(x), self.layer_scale2)
        added: Tensor = self.mlp(x.flatten(2)).reshape(x.shape)
        return x + _scaled(added, self.layer_scale3)


def _scaled(y: Tensor, factor: Tensor | None) -> Tensor:
    return y if factor is None else y * factor[:, None, None]


class ESpikeFormer(nn.Module):
    """The base network: two stages of convolution blocks, two of transformer blocks, and a head.

    Args:
        shape: Widths and depths.
        layers: Makes neurons and convolutions.
        heads: Of every attention.
        scale: Likewise; default ``2 / sqrt(channels of a head)``.
    """

    def __init__(
        self, shape: Shape, layers: Layers, heads: int = 8, scale: float | None = None
    ) -> None:
        super().__init__()
        self.default_cfg = image_cfg(shape.channels)
        first, second, third, fourth = shape.widths
        self.downsample1_1 = Downsampling(layers, shape.channels, first // 2, reads_image=True)
        self.ConvBlock1_1 = nn.ModuleList([ConvBlock(layers, first // 2)])
        self.downsample1_2 = Downsampling(layers, first // 2, first)
        self.ConvBlock1_2 = nn.ModuleList([ConvBlock(layers, first)])
        self.downsample2 = Downsampling(layers, first, second)
        self.ConvBlock2_1 = nn.ModuleList([ConvBlock(layers, second)])
        self.ConvBlock2_2 = nn.ModuleList([ConvBlock(layers, second)])
        self.downsample3 = Downsampling(layers, second, third)
        more: dict[str, Any] = {
            "heads": heads, "scale": scale, "layer_scale": shape.layer_scale
        }  # fmt: skip
        self.block3 = _blocks(shape.blocks[0], layers, third, more)
        self.downsample4 = Downsampling(layers, third, fourth, stride=1)
        self.block4 = _blocks(shape.blocks[1], layers, fourth, more)
        if shape.classes:
            self.spike = layers.fire(norm=1.0)
            self.head = nn.Linear(fourth, shape.classes)

    def features(self, x: Tensor) -> list[Tensor]:
        """Returns the membrane potentials at ``TAPS``: strides 2, 4, 8, 16 and 16."""
        taps = [through(self.ConvBlock1_1, self.downsample1_1(x))]
        taps.append(through(self.ConvBlock1_2, self.downsample1_2(taps[-1])))
        x = through(self.ConvBlock2_1, self.downsample2(taps[-1]))
        taps.append(through(self.ConvBlock2_2, x))
        taps.append(through(self.block3, self.downsample3(taps[-1])))
        taps.append(through(self.block4, self.downsample4(taps[-1])))
        return taps

    def forward(self, x: Tensor) -> Tensor:
        """Returns class scores ``[N, classes]`` of images ``[N, channels, H, W]``."""
        pooled = self.features(x)[-1].mean((2, 3))
        scores: Tensor = self.head(self.spike(pooled))
        return scores


def _blocks(count: int, layers: Layers, width: int, more: dict[str, Any]) -> nn.ModuleList:
    return nn.ModuleList(TransformerBlock(layers, width, **more) for _ in range(count))


class DvsESpikeFormer(ESpikeFormer):
    """The base network on the frames of an event camera; scores are averaged over them.

    It takes samples first and timesteps second, as published. Nothing is carried from frame to
    frame: the published neuron is called once with all frames, so each is quantised by itself.
    """

    def __init__(
        self, shape: Shape, layers: Layers, heads: int = 8, scale: float | None = None
    ) -> None:
        super().__init__(shape, layers, heads, scale)
        self.default_cfg = event_cfg(shape.channels)

    def forward(self, x: Tensor) -> Tensor:
        """Returns class scores ``[N, classes]`` of frames ``[N, T, channels, H, W]``."""
        x = x.transpose(0, 1)
        scores = super().forward(x.flatten(0, 1))
        return scores.reshape(*x.shape[:2], -1).mean(0)


class Backbone(ESpikeFormer):
    """The base network up to one of the places that detectors and segmenters read.

    They read potentials after a neuron, and that neuron is part of the network: compile one for
    each place.

    Args:
        shape: Widths and depths.
        layers: Makes neurons and convolutions.
        heads: Of every attention.
        scale: Likewise.
        tap: One of ``TAPS``; or 1 to 4, those at strides 2, 4, 8 and 16 that segmenters read.
    """

    def __init__(
        self, shape: Shape, layers: Layers, heads: int, scale: float | None, tap: int | str
    ) -> None:
        super().__init__(shape, layers, heads, scale)
        self.tap = _NUMBERED[tap - 1] if isinstance(tap, int) else tap
        self.tap_spike = layers.fire()

    @property
    def left_out(self) -> tuple[str, ...]:
        """Modules after the tap, which compiled networks do not have."""
        own = [name for name, _ in self.named_children() if not name.endswith("spike")]
        return tuple(own[own.index(self.tap) + 1 :])

    def forward(self, x: Tensor) -> Tensor:
        """Returns spike counts over norm ``[N, C, H / stride, W / stride]`` of images."""
        fired: Tensor = self.tap_spike(self.features(x)[TAPS.index(self.tap)])
        return fired
