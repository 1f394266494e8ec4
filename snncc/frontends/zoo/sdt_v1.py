"""Spike-driven Transformer as published: attention is a gate of spikes, streams are potentials.

Keys and values are multiplied, summed over all tokens and fire; what fires opens the queries of its
channel. In networks for CIFAR10-DVS a maximum is taken over spikes and their neighbours before,
within and after that gate.

Source: Yao et al., "Spike-driven Transformer", arXiv:2307.01694, and the keys of its checkpoints.
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

__all__ = ["Shape", "SpikeDrivenTransformer", "read"]

_STEM = "patch_embed.proj_conv.weight"
_INDICES = ("", "1", "2", "3")


@dataclass(frozen=True)
class Shape:
    """What the weights tell about a Spike-driven Transformer.

    Attributes:
        depth: Blocks.
        stem: Channels of the stem's four convolutions; the last is the network's width.
        hidden: Channels within MLPs.
        channels: Of the input.
        classes: Rows of the head.
        learnt_tau: Every neuron layer has learnt its time constant.
        talking_heads: Heads that a layer has which nothing reads; 0: there is none.
    """

    depth: int
    stem: tuple[int, ...]
    hidden: int
    channels: int = 3
    classes: int = 1000
    learnt_tau: bool = False
    talking_heads: int = 8

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


def read(tensors: Mapping[str, Any]) -> Shape:
    """The shape of a network that has these tensors.

    Raises:
        BadInputError: They are not those of a Spike-driven Transformer.
    """
    stored = Stored(tensors, (_STEM,), "Spike-driven Transformer V1")
    stem = [f"patch_embed.proj_conv{i}.weight" for i in _INDICES]
    stored.require_axes("block.0.attn.q_conv.weight", (4,))
    stored.shape("patch_embed.rpe_bn.weight")
    return Shape(
        depth=stored.blocks("block"),
        stem=tuple(stored.rows(key) for key in stem),
        hidden=stored.rows("block.0.mlp.fc1_conv.weight"),
        channels=stored.channels(),
        classes=stored.rows("head.weight"),
        learnt_tau="patch_embed.proj_lif.w" in stored,
        talking_heads=stored.rows_or_none("block.0.attn.talking_heads.weight"),
    )


class Stem(nn.Module):
    """Four convolutions; a fifth reads the spikes of the fourth and is added to its potentials.

    Args:
        neurons: Makes the neurons.
        shape: Its channels.
        pools: Whether a pool follows each of the four, as ``"0011"``: those of the first three
            read spikes, that of the fourth potentials.
    """

    def __init__(self, neurons: Neurons, shape: Shape, pools: str) -> None:
        super().__init__()
        self.pools, width = pools, shape.stem[-1]
        for i, fan_in, outputs in zip(
            _INDICES, (shape.channels, *shape.stem), shape.stem, strict=False
        ):
            conv = nn.Conv2d(fan_in, outputs, 3, padding=1, bias=False)
            self.add_module(f"proj_conv{i}", conv)
            self.add_module(f"proj_bn{i}", nn.BatchNorm2d(outputs))
            self.add_module(f"proj_lif{i}", neurons.lif())
        self.pool = pool()
        self.rpe_conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.rpe_bn = nn.BatchNorm2d(width)
        if shape.learnt_tau:
            self.rpe_lif = neurons.lif()

    def forward(self, x: Tensor) -> Tensor:
        """Returns potentials ``[T, N, width, H', W']`` of values ``[T, N, C, H, W]``."""
        for i, flag in zip(_INDICES[:3], self.pools, strict=False):
            x = self.get_submodule(f"proj_lif{i}")(self._layer(i, x))
            x = stepwise(x, self.pool) if flag == "1" else x
        potential = self._layer("3", x)
        if self.pools[3] == "1":
            potential = stepwise(potential, self.pool)
        fired = self.get_submodule("proj_lif3")(potential)
        return stepwise(fired, self.rpe_conv, self.rpe_bn) + potential

    def _layer(self, i: str, x: Tensor) -> Tensor:
        return stepwise(x, self.get_submodule(f"proj_conv{i}"), self.get_submodule(f"proj_bn{i}"))


class Attention(nn.Module):
    """``(q · fire(sum of k · v over tokens)) W``, channel by channel.

    Args:
        neurons: Makes the neurons.
        shape: The width, and what is stored and not read.
        heads: They divide the width; they matter only where spikes are spread.
        spreads: As in the code for CIFAR10-DVS. Spikes of k and v are spread to the eight
            neighbours on the map; their products, and the gated q, to those in the table of a
            head's tokens and channels.
    """

    def __init__(self, neurons: Neurons, shape: Shape, heads: int, spreads: bool) -> None:
        super().__init__()
        width = shape.stem[-1]
        self.heads = heads
        self.shortcut_lif = neurons.lif()
        for name in ("q", "k", "v"):
            layer, norm = layer_of("conv2d", width, width, bias=False)
            self.add_module(f"{name}_conv", layer)
            self.add_module(f"{name}_bn", norm)
            self.add_module(f"{name}_lif", neurons.lif())
        self.talking_heads_lif = neurons.of_products()
        self.proj_conv, self.proj_bn = layer_of("conv2d", width, width, bias=True)
        self.spread = nn.MaxPool2d(3, 1, 1) if spreads else None
        if shape.talking_heads:
            self.talking_heads = nn.Conv1d(shape.talking_heads, shape.talking_heads, 1, bias=False)
        if shape.learnt_tau:
            self.attn_lif = neurons.of_products()

    def forward(self, x: Tensor) -> Tensor:
        """Returns what is added to the potentials ``x``, of their shape."""
        spikes = self.shortcut_lif(x)
        q, k, v = (self._fired(name, spikes) for name in ("q", "k", "v"))
        gated = self._gated(q, k, v) if self.spread is None else self._spread(q, k, v, self.spread)
        return mixed(self.proj_conv, self.proj_bn, gated)

    def _gated(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        opened: Tensor = self.talking_heads_lif((k * v).sum((3, 4), keepdim=True))
        return q * opened

    def _spread(self, q: Tensor, k: Tensor, v: Tensor, spread: nn.Module) -> Tensor:
        k, v = (by_head(stepwise(each, spread), self.heads) for each in (k, v))
        both = stepwise(k * v, spread).sum(-2, keepdim=True)
        gated = stepwise(by_head(q, self.heads) * self.talking_heads_lif(both), spread)
        return gated.transpose(-2, -1).reshape(q.shape)

    def _fired(self, name: str, x: Tensor) -> Tensor:
        layer, norm, lif = (self.get_submodule(f"{name}_{part}") for part in ("conv", "bn", "lif"))
        fired: Tensor = lif(mixed(layer, norm, x))
        return fired


class AddingMlp(Mlp):
    """An MLP with what it is added to; the first of its layers is added as well if it can be."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns potentials of the shape of ``x``."""
        first, second = self.parts
        hidden = self.step(first, x)
        if hidden.shape == x.shape:
            hidden = x = x + hidden
        return self.step(second, hidden) + x


class Block(nn.Module):
    """Adds attention and an MLP to the potentials."""

    def __init__(self, neurons: Neurons, shape: Shape, heads: int, spreads: bool) -> None:
        super().__init__()
        self.attn = Attention(neurons, shape, heads, spreads)
        self.mlp = AddingMlp(neurons, "conv2d", shape.stem[-1], shape.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Returns potentials of the shape of ``x``, ``[T, N, C, H, W]``."""
        added: Tensor = self.mlp(x + self.attn(x))
        return added


class SpikeDrivenTransformer(OverTime):
    """The whole network; the head reads spikes, and scores are averaged over timesteps.

    Args:
        shape: What weights tell.
        options: What they do not: ``T``, ``heads``, ``tau``, ``pools``, ``spreads``.
        cfg: Of the input.
    """

    left_out = ("talking_heads", "rpe_lif", "attn_lif")

    def __init__(self, shape: Shape, options: Mapping[str, Any], cfg: Mapping[str, Any]) -> None:
        super().__init__(cfg, options["T"])
        neurons = Neurons(options["tau"], shape.learnt_tau)
        self.patch_embed = Stem(neurons, shape, options["pools"])
        more = options["heads"], options["spreads"]
        self.block = nn.Sequential(*(Block(neurons, shape, *more) for _ in range(shape.depth)))
        self.head_lif = neurons.lif()
        self.head = nn.Linear(shape.stem[-1], shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns class scores ``[N, classes]``; see ``timed`` for what ``x`` is."""
        x = self.block(self.patch_embed(self.timed(x)))
        scores: Tensor = self.head(self.head_lif(x.flatten(3).mean(3)))
        return scores.mean(0)
