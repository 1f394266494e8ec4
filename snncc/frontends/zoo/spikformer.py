"""Spikformer as published, and with pools before neurons (CML): residual streams add spikes.

Neurons stand after batch norms, so every branch ends with one, streams are sums of spikes, and
layers read their counts. Three spellings were published: for ImageNet convolutions, for CIFAR
linear layers, for event frames ``Conv1d`` with parameters that nothing reads.

Source: Zhou et al., "Spikformer: When Spiking Neural Network Meets Transformer", arXiv:2209.15425;
Zhou et al., "Enhancing the Performance of Transformer-based Spiking Neural Networks by
SNN-optimized Downsampling with Precise Gradient Backpropagation", arXiv:2305.05954 (CML); and the
keys of their checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snncc.frontends.zoo.keys import Stored
from snncc.frontends.zoo.over_time import (
    Mlp,
    Neurons,
    OverTime,
    by_head,
    layer_of,
    mixed,
    pool,
    stepwise,
)

__all__ = ["Shape", "Spikformer", "read"]

#: How the four convolutions of stems are called, with batch norm and neuron, by the first one:
#: by Spikformer's authors and by those of CML.
_STEMS = {
    "proj": [(f"proj_conv{i}", f"proj_bn{i}", f"proj_lif{i}") for i in ("", 1, 2, 3)],
    "block1": [(f"block{i}_conv", f"block{i}_bn", f"block{i}_lif") for i in (1, 2, 3, 4)],
}
_KINDS = {2: "linear", 3: "conv1d", 4: "conv2d"}


@dataclass(frozen=True)
class Shape:
    """What the weights tell about a Spikformer.

    Attributes:
        depth: Blocks.
        stem: Channels of the stem's four convolutions; the last is the network's width.
        hidden: Channels within MLPs.
        channels: Of the input.
        classes: Rows of the head.
        attention: Kind of the layers of attention: conv1d or linear.
        mlp: Kind of the layers of MLPs: conv2d, conv1d or linear.
        bias: Those for q, k and v have one.
        names: What the stem's first convolution is called.
        norms: Blocks have layer norms, which nothing reads.
        tokens: Of the position embedding, which nothing reads either; 0: there is none.
    """

    depth: int
    stem: tuple[int, ...]
    hidden: int
    channels: int = 3
    classes: int = 1000
    attention: str = "conv1d"
    mlp: str = "conv2d"
    bias: bool = False
    names: str = "proj"
    norms: bool = True
    tokens: int = 0

    @property
    def widths(self) -> tuple[int, ...]:
        """Blocks and width, as names have them."""
        return self.depth, self.stem[-1]

    @property
    def attended(self) -> tuple[int, ...]:
        """Widths with attention."""
        return self.stem[-1:]

    @property
    def frames(self) -> bool:
        """Whether it is the network for event frames."""
        return self.mlp == "conv1d"

    @property
    def told_pooling(self) -> str | None:
        """Where the pools stand in networks with these keys; none: keys do not tell."""
        if self.names == "block1":
            return "potentials"
        return "spikes" if self.attention == "linear" else None

    @property
    def published_pooling(self) -> str:
        """Where they stand in all code with these keys that was published."""
        return self.told_pooling or "spikes"


def read(tensors: Mapping[str, Any]) -> Shape:
    """The shape of a network that has these tensors.

    Raises:
        BadInputError: They are not those of a Spikformer.
    """
    stems = {f"patch_embed.{name}_conv.weight": name for name in _STEMS}
    stored = Stored(tensors, tuple(stems), "Spikformer")
    names = stems[stored.stem]
    stem = [f"patch_embed.{conv}.weight" for conv, _, _ in _STEMS[names]]
    attention = "linear" if "block.0.attn.q_linear.weight" in stored else "conv1d"
    suffix = "linear" if attention == "linear" else "conv"
    q, fc1 = f"block.0.attn.q_{suffix}", f"block.0.mlp.fc1_{suffix}.weight"
    stored.shape("patch_embed.rpe_bn.weight")
    stored.require_axes(f"{q}.weight", (2, 3))
    stored.require_axes(fc1, (2,) if attention == "linear" else (3, 4))
    return Shape(
        depth=stored.blocks("block"),
        stem=tuple(stored.rows(key) for key in stem),
        hidden=stored.rows(fc1),
        channels=stored.channels(),
        classes=stored.rows("head.weight"),
        attention=attention,
        mlp=_KINDS[len(stored.shape(fc1))],
        bias=f"{q}.bias" in stored,
        names=names,
        norms="block.0.norm1.weight" in stored,
        tokens=stored.size("pos_embed", 1) if "pos_embed" in stored else 0,
    )


class Stem(nn.Module):
    """Four convolutions and a fifth whose spikes are added to those of the fourth.

    Args:
        neurons: Makes the neurons.
        shape: Its channels and names.
        pools: Whether a pool follows each of the four, as ``"0011"``.
        pooling: ``spikes``: pools stand after neurons; ``potentials``: before.
    """

    def __init__(self, neurons: Neurons, shape: Shape, pools: str, pooling: str) -> None:
        super().__init__()
        self.parts = _STEMS[shape.names]
        self.pools, self.pooling = pools, pooling
        inputs = (shape.channels, *shape.stem)
        rows = [*zip(self.parts, inputs, inputs[1:], strict=False)]
        width = shape.stem[-1]
        for part, fan_in, outputs in [*rows, (("rpe_conv", "rpe_bn", "rpe_lif"), width, width)]:
            conv = nn.Conv2d(fan_in, outputs, 3, padding=1, bias=False)
            for name, module in zip(
                part, (conv, nn.BatchNorm2d(outputs), neurons.lif()), strict=True
            ):
                self.add_module(name, module)
        self.pool = pool()

    def forward(self, x: Tensor) -> Tensor:
        """Returns sums of spikes ``[T, N, width, H', W']`` of values ``[T, N, C, H, W]``."""
        for part, flag in zip(self.parts, self.pools, strict=True):
            x = self._fired(part, x, is_pooled=flag == "1")
        return x + self._fired(("rpe_conv", "rpe_bn", "rpe_lif"), x, is_pooled=False)

    def _fired(self, part: tuple[str, str, str], x: Tensor, is_pooled: bool) -> Tensor:
        conv, norm, lif = (self.get_submodule(name) for name in part)
        x = stepwise(x, conv, norm)
        if is_pooled and self.pooling == "potentials":
            x = stepwise(x, self.pool)
        x = lif(x)
        return stepwise(x, self.pool) if is_pooled and self.pooling == "spikes" else x


class Attention(nn.Module):
    """``fire(fire((q kᵀ) v scale) W)`` of spikes, with a neuron after q, k and v, too.

    Args:
        neurons: Makes the neurons.
        shape: Kind of the layers.
        heads: They divide the width.
        scale: Factor of the product.
    """

    def __init__(self, neurons: Neurons, shape: Shape, heads: int, scale: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale
        self.suffix = "linear" if shape.attention == "linear" else "conv"
        width = shape.stem[-1]
        for name in ("q", "k", "v", "proj"):
            bias = shape.bias or name == "proj"
            layer, norm = layer_of(shape.attention, width, width, bias)
            self.add_module(f"{name}_{self.suffix}", layer)
            self.add_module(f"{name}_bn", norm)
            self.add_module(f"{name}_lif", neurons.lif())
        self.attn_lif = neurons.of_products()

    def forward(self, x: Tensor) -> Tensor:
        """Returns spikes, which are added to the stream ``x``, of its shape."""
        q, k, v = (by_head(self._fired(name, x), self.heads) for name in ("q", "k", "v"))
        y = q @ (k.transpose(-2, -1) @ v) * self.scale
        potential = y.transpose(-2, -1).reshape(x.shape)
        return self._fired("proj", self.attn_lif(potential))

    def _fired(self, name: str, x: Tensor) -> Tensor:
        paths = (f"{name}_{self.suffix}", f"{name}_bn", f"{name}_lif")
        layer, norm, lif = (self.get_submodule(path) for path in paths)
        fired: Tensor = lif(mixed(layer, norm, x))
        return fired


class Block(nn.Module):
    """Adds the spikes of attention and those of an MLP to the stream."""

    def __init__(self, neurons: Neurons, shape: Shape, heads: int, scale: float) -> None:
        super().__init__()
        width = shape.stem[-1]
        self.attn = Attention(neurons, shape, heads, scale)
        self.mlp = Mlp(neurons, shape.mlp, width, shape.hidden, fires_first=False)
        if shape.norms:
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns sums of spikes of the shape of ``x``, ``[T, N, C, H, W]``."""
        x = x + self.attn(x)
        added: Tensor = self.mlp(x)
        return x + added


class Spikformer(OverTime):
    """The whole network; the head reads sums of spikes, averaged over tokens and timesteps.

    Args:
        shape: What weights tell.
        options: What they do not: ``T``, ``heads``, ``scale``, ``tau``, ``pools``, ``pooling``.
        cfg: Of the input.
    """

    left_out = ("norm1", "norm2", "pos_embed", "norm")

    def __init__(self, shape: Shape, options: Mapping[str, Any], cfg: Mapping[str, Any]) -> None:
        super().__init__(cfg, options["T"])
        neurons, width = Neurons(options["tau"]), shape.stem[-1]
        self.patch_embed = Stem(neurons, shape, options["pools"], options["pooling"])
        self.block = nn.Sequential(
            *(Block(neurons, shape, options["heads"], options["scale"]) for _ in range(shape.depth))
        )
        self.head = nn.Linear(width, shape.classes)
        if shape.tokens:
            self.pos_embed = nn.Parameter(torch.zeros(1, shape.tokens, width))
            self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns class scores ``[N, classes]``; see ``timed`` for what ``x`` is."""
        x = self.block(self.patch_embed(self.timed(x)))
        scores: Tensor = self.head(x.flatten(3).mean(3).mean(0))
        return scores
