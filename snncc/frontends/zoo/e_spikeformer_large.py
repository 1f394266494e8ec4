"""The large E-SpikeFormers, 12_512 and 12_768: convolution blocks, then twelve transformer blocks.

They are not drawn as the paper draws them: no separable convolutions, no fourth stage, attention
by two-layer projections without a neuron in between, and a head without a neuron. The published
code leaves the shape of its input open in a block with ``rep_conv`` and cannot run there; what is
meant is clear from the layers and is done here.

Source: Yao et al., "Scaling Spike-driven Transformer with Efficient Spike Firing Approximation
Training", arXiv:2411.16061, and the keys of its checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snncc.frontends.zoo.parts import Downsampling, Layers, Mlp, image_cfg, through

__all__ = ["ConvStages", "LargeBlock", "LargeESpikeFormer", "LargeShape"]

_LAYER_SCALE = 1e-6  # what training starts from


@dataclass(frozen=True)
class LargeShape:
    """What the weights of a large network tell about it.

    Attributes:
        widths: Channels at strides 4, 8 and 16; half the first one's stand ahead, at stride 2.
        blocks: Transformer blocks.
        hidden: Channels inside the projections of attention.
        rep_conv: Channels inside the two-layer convolution before attention; 0: there is none.
        channels: Of the input.
        classes: Rows of the head; 0: no head.
        distilled: A second head is there, after a neuron; scores are the mean of both.
        layer_scale: Attention and MLP end in a factor for each channel.
    """

    widths: tuple[int, int, int]
    blocks: int = 12
    hidden: int = 0
    rep_conv: int = 0
    channels: int = 3
    classes: int = 1000
    distilled: bool = False
    layer_scale: bool = True

    @property
    def attended(self) -> tuple[int, ...]:
        """Widths of the stages with attention."""
        return self.widths[2:]


class _ConvPair(nn.Module):
    """Adds two 3x3 convolutions with bias to the membrane potential."""

    def __init__(self, layers: Layers, width: int, expansion: int = 4) -> None:
        super().__init__()
        hidden = expansion * width
        self.spike1 = layers.fire()
        self.conv1 = nn.Sequential(layers.conv_bn(width, hidden, 3, bias=True))
        self.spike2 = layers.fire()
        self.conv2 = nn.Sequential(layers.conv_bn(hidden, width, 3, bias=True))

    def forward(self, x: Tensor) -> Tensor:
        """Returns membrane potentials of the shape of ``x``, ``[N, C, H, W]``."""
        added: Tensor = self.conv2(self.spike2(self.conv1(self.spike1(x))))
        return x + added


class _TwoLayers(nn.Module):
    """Two linear layers over channels, each with a batch norm, and no neuron in between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = _linear_bn(width, hidden)
        self.conv2 = _linear_bn(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``[N, width, tokens]`` of the same."""
        y: Tensor = self.conv2(self.conv1(x))
        return y


def _linear_bn(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(inputs, outputs, 1, bias=False), nn.BatchNorm1d(outputs))


class _Attention(nn.Module):
    """Linear attention ``fire(q (kᵀ v) scale)``, no softmax."""

    def __init__(self, layers: Layers, width: int, hidden: int, heads: int, scale: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale
        self.head_spike = layers.fire()
        self.q_conv, self.q_spike = self._projection(width, hidden), layers.fire()
        self.k_conv, self.k_spike = self._projection(width, hidden), layers.fire()
        self.v_conv, self.v_spike = self._projection(width, hidden), layers.fire()
        self.attn_spike = layers.fire()
        self.proj_conv = self._projection(width, hidden)

    @staticmethod
    def _projection(width: int, hidden: int) -> nn.Sequential:
        return nn.Sequential(_TwoLayers(width, hidden), nn.BatchNorm1d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Returns what is added to the membrane potential ``x``, ``[N, C, tokens]``."""
        spikes = self.head_spike(x)
        q = self._by_head(self.q_spike(self.q_conv(spikes)))
        k = self._by_head(self.k_spike(self.k_conv(spikes)))
        v = self._by_head(self.v_spike(self.v_conv(spikes)))
        y = q @ (k.transpose(-2, -1) @ v) * self.scale
        added: Tensor = self.proj_conv(self.attn_spike(y.transpose(-2, -1).flatten(1, 2)))
        return added

    def _by_head(self, x: Tensor) -> Tensor:
        """Returns ``[N, heads, tokens, C / heads]`` of ``[N, C, tokens]``."""
        n, channels, tokens = x.shape
        return x.reshape(n, self.heads, channels // self.heads, tokens).transpose(-2, -1)


class LargeBlock(nn.Module):
    """Adds, each after a neuron, ``rep_conv`` if there is one, attention and an MLP."""

    layer_scale1: Tensor | None
    layer_scale2: Tensor | None

    def __init__(self, layers: Layers, shape: LargeShape, heads: int, scale: float) -> None:
        super().__init__()
        width = shape.widths[-1]
        self.rep_spike = layers.fire() if shape.rep_conv else None
        self.rep_conv = _TwoLayers(width, shape.rep_conv) if shape.rep_conv else None
        self.attn = _Attention(layers, width, shape.hidden or width * 3 // 2, heads, scale)
        self.mlp = Mlp(layers, width)
        for i in (1, 2):
            given = torch.full((width,), _LAYER_SCALE) if shape.layer_scale else None
            self.register_parameter(
                f"layer_scale{i}", None if given is None else nn.Parameter(given)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Returns membrane potentials of the shape of ``x``, ``[N, C, H, W]``."""
        if self.rep_conv is not None and self.rep_spike is not None:
            x = x + self.rep_conv(self.rep_spike(x.flatten(2))).reshape(x.shape)
        x = x + _scaled(self.attn(x.flatten(2)), self.layer_scale1).reshape(x.shape)
        return x + _scaled(self.mlp(x.flatten(2)), self.layer_scale2).reshape(x.shape)


def _scaled(y: Tensor, factor: Tensor | None) -> Tensor:
    return y if factor is None else y * factor[:, None]


class ConvStages(nn.Module):
    """Everything before the transformer blocks."""

    def __init__(self, layers: Layers, shape: LargeShape) -> None:
        super().__init__()
        self.default_cfg = image_cfg(shape.channels)
        first, second, third = shape.widths
        self.downsample1_1 = Downsampling(layers, shape.channels, first // 2, reads_image=True)
        self.ConvBlock1_1 = nn.ModuleList([_ConvPair(layers, first // 2)])
        self.downsample1_2 = Downsampling(layers, first // 2, first)
        self.ConvBlock1_2 = nn.ModuleList([_ConvPair(layers, first)])
        self.downsample2 = Downsampling(layers, first, second)
        self.ConvBlock2_1 = nn.ModuleList([_ConvPair(layers, second)])
        self.ConvBlock2_2 = nn.ModuleList([_ConvPair(layers, second)])
        self.downsample3 = Downsampling(layers, second, third)

    def embedded(self, x: Tensor) -> Tensor:
        """Returns membrane potentials ``[N, C, H / 16, W / 16]`` of ``[N, channels, H, W]``."""
        x = through(self.ConvBlock1_1, self.downsample1_1(x))
        x = through(self.ConvBlock1_2, self.downsample1_2(x))
        x = through(self.ConvBlock2_1, self.downsample2(x))
        x = through(self.ConvBlock2_2, x)
        potential: Tensor = self.downsample3(x)
        return potential


class LargeESpikeFormer(ConvStages):
    """The network that was fine-tuned for classification.

    Its head reads mean potentials, with no neuron before it: ``--host head``. The second head, of
    distilled networks, reads spike counts; scores are the mean of both.

    Args:
        shape: Widths, depths, and what else the weights tell.
        layers: Makes neurons and convolutions; the published ones round half up.
        heads: Of every attention.
        scale: Of every attention.
    """

    def __init__(
        self,
        shape: LargeShape,
        layers: Layers,
        heads: int = 8,
        scale: float = 0.125,
    ) -> None:
        super().__init__(layers, shape)
        width = shape.widths[-1]
        self.block3 = nn.ModuleList(
            LargeBlock(layers, shape, heads, scale) for _ in range(shape.blocks)
        )
        self.head = nn.Linear(width, shape.classes)
        self.spike = layers.fire(norm=1.0) if shape.distilled else None
        self.head_kd = nn.Linear(width, shape.classes) if shape.distilled else None

    def forward(self, x: Tensor) -> Tensor:
        """Returns class scores ``[N, classes]`` of images ``[N, channels, H, W]``."""
        pooled = through(self.block3, self.embedded(x)).mean((2, 3))
        scores: Tensor = self.head(pooled)
        if self.head_kd is not None and self.spike is not None:
            scores = (scores + self.head_kd(self.spike(pooled))) / 2
        return scores
