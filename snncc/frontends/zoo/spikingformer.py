"""Spikingformer as published, and with pools before neurons (CML): streams are potentials.

Every branch begins with a neuron and ends with a batch norm. The head reads potentials, with no
neuron before it.

Source: Zhou et al., "Spikingformer: Spike-driven Residual Learning for Transformer-based Spiking
Neural Network", arXiv:2304.11954; Zhou et al., "Enhancing the Performance of Transformer-based
Spiking Neural Networks by SNN-optimized Downsampling with Precise Gradient Backpropagation",
arXiv:2305.05954 (CML); and the keys of their checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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

__all__ = ["Shape", "Spikingformer", "read", "read_first"]

#: How the stem's five convolutions and their batch norms are called, by the name of the first: for
#: CIFAR; for all else, among it every network of CML; and in the authors' first files, which have
#: the very keys of Spikformer.
_STEMS = {
    "block0": [(f"block{i}_conv", f"block{i}_bn") for i in range(5)],
    "proj": [(f"proj{i}_conv", f"proj{i}_bn") for i in ("", 1, 2, 3, 4)],
    "first": [(f"proj_conv{i}", f"proj_bn{i}") for i in ("", 1, 2, 3)] + [("rpe_conv", "rpe_bn")],
}


@dataclass(frozen=True)
class Shape:
    """What the weights tell about a Spikingformer.

    Attributes:
        depth: Blocks.
        stem: Channels of the stem's five convolutions; the last is the network's width.
        hidden: Channels within MLPs.
        channels: Of the input.
        classes: Rows of the head.
        names: How the stem's convolutions are called: block0, proj or first.
        norms: Blocks have layer norms, which nothing reads.
    """

    depth: int
    stem: tuple[int, ...]
    hidden: int
    channels: int = 3
    classes: int = 1000
    names: str = "proj"
    norms: bool = True

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
        """Whether it is a network for event frames: two polarities."""
        return self.channels == 2

    @property
    def told_pooling(self) -> str | None:
        """Where the pools stand in networks with these keys; none: keys do not tell."""
        return None if self.names == "proj" else "spikes"

    @property
    def published_pooling(self) -> str | None:
        """Where they stand in all published code with these keys; none: in either place."""
        return self.told_pooling


def read(tensors: Mapping[str, Any]) -> Shape:
    """The shape of a network that has these tensors.

    Raises:
        BadInputError: They are not those of a Spikingformer.
    """
    stems = {f"patch_embed.{name}_conv.weight": name for name in ("block0", "proj")}
    stored = Stored(tensors, tuple(stems), "Spikingformer")
    return _shape(stored, stems[stored.stem], "block.0.mlp.mlp1_conv.weight")


def read_first(tensors: Mapping[str, Any]) -> Shape:
    """Likewise, of a network with the keys of the authors' first files.

    Raises:
        BadInputError: They are not those of one.
    """
    stored = Stored(tensors, ("patch_embed.proj_conv.weight",), "Spikingformer")
    fc1 = "block.0.mlp.fc1_conv.weight"
    stored.require_axes(fc1, (4,))
    return _shape(stored, "first", fc1)


def _shape(stored: Stored, names: str, hidden: str) -> Shape:
    stem = [f"patch_embed.{conv}.weight" for conv, _ in _STEMS[names]]
    stored.require_axes("block.0.attn.q_conv.weight", (3,))
    return Shape(
        depth=stored.blocks("block"),
        stem=tuple(stored.rows(key) for key in stem),
        hidden=stored.rows(hidden),
        channels=stored.channels(),
        classes=stored.rows("head.weight"),
        names=names,
        norms="block.0.norm1.weight" in stored,
    )


class Stem(nn.Module):
    """Five convolutions with batch norms, a neuron between each two.

    Args:
        neurons: Makes the neurons.
        shape: Its channels and names.
        pools: Whether there is a pool between each two, as ``"0011"``.
        pooling: ``spikes``: pools stand after neurons; ``potentials``: before.
    """

    def __init__(self, neurons: Neurons, shape: Shape, pools: str, pooling: str) -> None:
        super().__init__()
        self.names = _STEMS[shape.names]
        self.pools, self.pooling = pools, pooling
        inputs = (shape.channels, *shape.stem)
        for i, ((conv, norm), outputs) in enumerate(zip(self.names, shape.stem, strict=True)):
            if i:
                self.add_module(_lif(conv), neurons.lif())
            self.add_module(conv, nn.Conv2d(inputs[i], outputs, 3, padding=1, bias=False))
            self.add_module(norm, nn.BatchNorm2d(outputs))
        self.pool = pool()

    def forward(self, x: Tensor) -> Tensor:
        """Returns potentials ``[T, N, width, H', W']`` of values ``[T, N, C, H, W]``."""
        x = self._layer(self.names[0], x)
        for name, flag in zip(self.names[1:], self.pools, strict=True):
            if flag == "1" and self.pooling == "potentials":
                x = stepwise(x, self.pool)
            x = self.get_submodule(_lif(name[0]))(x)
            if flag == "1" and self.pooling == "spikes":
                x = stepwise(x, self.pool)
            x = self._layer(name, x)
        return x

    def _layer(self, names: tuple[str, str], x: Tensor) -> Tensor:
        return stepwise(x, *(self.get_submodule(name) for name in names))


def _lif(conv: str) -> str:
    """What the neuron before a convolution is called."""
    return conv.replace("conv", "lif")


class Attention(nn.Module):
    """``fire((q kᵀ) v scale) W`` of spikes, a neuron before all and one after q, k and v each.

    Args:
        neurons: Makes the neurons.
        width: Channels of the stream.
        heads: They divide the width.
        scale: Factor of the product.
    """

    def __init__(self, neurons: Neurons, width: int, heads: int, scale: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale
        self.proj_lif = neurons.lif()
        for name in ("q", "k", "v"):
            layer, norm = layer_of("conv1d", width, width, bias=False)
            self.add_module(f"{name}_conv", layer)
            self.add_module(f"{name}_bn", norm)
            self.add_module(f"{name}_lif", neurons.lif())
        self.attn_lif = neurons.of_products()
        self.proj_conv, self.proj_bn = layer_of("conv1d", width, width, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what is added to the potentials ``x``, of their shape."""
        spikes = self.proj_lif(x)
        q, k, v = (by_head(self._fired(name, spikes), self.heads) for name in ("q", "k", "v"))
        y = q @ (k.transpose(-2, -1) @ v) * self.scale
        fired = self.attn_lif(y.transpose(-2, -1).reshape(x.shape))
        return mixed(self.proj_conv, self.proj_bn, fired)

    def _fired(self, name: str, x: Tensor) -> Tensor:
        layer, norm, lif = (self.get_submodule(f"{name}_{part}") for part in ("conv", "bn", "lif"))
        fired: Tensor = lif(mixed(layer, norm, x))
        return fired


class Block(nn.Module):
    """Adds attention and an MLP to the potentials."""

    def __init__(self, neurons: Neurons, shape: Shape, heads: int, scale: float) -> None:
        super().__init__()
        width = shape.stem[-1]
        self.attn = Attention(neurons, width, heads, scale)
        layers = ("fc1", "fc2") if shape.names == "first" else ("mlp1", "mlp2")
        self.mlp = Mlp(neurons, "conv2d", width, shape.hidden, names=layers)
        if shape.norms:
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns potentials of the shape of ``x``, ``[T, N, C, H, W]``."""
        x = x + self.attn(x)
        added: Tensor = self.mlp(x)
        return x + added


class Spikingformer(OverTime):
    """The whole network; the head reads potentials, averaged over tokens and timesteps.

    Args:
        shape: What weights tell.
        options: What they do not: ``T``, ``heads``, ``scale``, ``tau``, ``pools``, ``pooling``.
        cfg: Of the input.
    """

    left_out = ("norm1", "norm2")

    def __init__(self, shape: Shape, options: Mapping[str, Any], cfg: Mapping[str, Any]) -> None:
        super().__init__(cfg, options["T"])
        neurons, width = Neurons(options["tau"]), shape.stem[-1]
        self.patch_embed = Stem(neurons, shape, options["pools"], options["pooling"])
        self.block = nn.Sequential(
            *(Block(neurons, shape, options["heads"], options["scale"]) for _ in range(shape.depth))
        )
        self.head = nn.Linear(width, shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns class scores ``[N, classes]``; see ``timed`` for what ``x`` is."""
        x = self.block(self.patch_embed(self.timed(x)))
        scores: Tensor = self.head(x.flatten(3).mean(3).mean(0))
        return scores
