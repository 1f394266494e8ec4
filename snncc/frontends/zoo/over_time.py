"""What spiking networks over timesteps are made of: neurons, layers, heads, attention.

Values are ``[T, N, C, H, W]``. Layers run over ``T * N`` maps at once, neurons over T. Attributes
carry the names that published checkpoints use as keys; what checkpoints hold and no network reads
is built, too, so that every key is accounted for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from torch import Tensor, nn

from snncc.nn import LIF, Stateful

__all__ = [
    "Mlp",
    "Neurons",
    "OverTime",
    "Stepwise",
    "by_head",
    "kept",
    "layer_of",
    "mixed",
    "pool",
    "stepwise",
]

#: Threshold of neurons that read products of spikes.
_OF_PRODUCTS = 0.5


@dataclass(frozen=True)
class Neurons:
    """Makes the neurons of one network: LIF with hard reset, the drive divided by tau, too.

    Attributes:
        tau: Time constant, in timesteps.
        learnt: Each neuron layer has learnt its own, under the key ``w``.
    """

    tau: float = 2.0
    learnt: bool = False

    def lif(self) -> LIF:
        """Returns a neuron layer that fires at 1."""
        return LIF(self.tau, learn_tau=self.learnt)

    def of_products(self) -> LIF:
        """Returns one that reads products of spikes and fires at 0.5."""
        return LIF(self.tau, _OF_PRODUCTS, learn_tau=self.learnt)


def kept(decay: float, threshold: float) -> LIF:
    """Returns a neuron layer that fires above its threshold and takes its whole drive.

    Of its potential it keeps ``decay``, or nothing after a spike.
    """
    return LIF(1 / (1 - decay), threshold, decay_input=False, compare=">")


def stepwise(x: Tensor, *layers: nn.Module) -> Tensor:
    """Returns what layers in a row make of every timestep's maps, ``[T, N, C', H', W']``."""
    y = x.flatten(0, 1)
    for layer in layers:
        y = layer(y)
    return y.reshape(*x.shape[:2], *y.shape[1:])


class Stepwise(nn.Sequential):
    """Layers in a row: neurons see all timesteps, the others every timestep's maps alike."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns what the last one makes of ``x``, ``[T, N, C', H', W']`` of ``[T, N, C, H, W]``.

        Layers between two neurons run over the maps without unfolding them.
        """
        for is_neuron, found in groupby(self, lambda module: isinstance(module, Stateful)):
            modules = [*found]
            for neuron in modules if is_neuron else ():
                x = neuron(x)
            x = x if is_neuron else stepwise(x, *modules)
        return x


def pool() -> nn.MaxPool2d:
    """Returns the pool that halves height and width, 3x3."""
    return nn.MaxPool2d(3, 2, 1)


def layer_of(kind: str, inputs: int, outputs: int, bias: bool) -> tuple[nn.Module, nn.Module]:
    """Returns a layer over channels and its batch norm; ``kind``: conv2d, conv1d or linear."""
    if kind == "conv2d":
        return nn.Conv2d(inputs, outputs, 1, bias=bias), nn.BatchNorm2d(outputs)
    layer = nn.Conv1d(inputs, outputs, 1, bias=bias)
    made = nn.Linear(inputs, outputs, bias) if kind == "linear" else layer
    return made, nn.BatchNorm1d(outputs)


def mixed(layer: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """Returns ``norm(layer(x))`` of every token, ``[T, N, C', H, W]`` of ``[T, N, C, H, W]``."""
    steps, samples, _, height, width = x.shape
    maps = x.flatten(0, 1)
    if isinstance(layer, nn.Conv2d):
        y = norm(layer(maps))
    elif isinstance(layer, nn.Linear):
        y = norm(layer(maps.flatten(2).transpose(1, 2)).transpose(1, 2))
    else:
        y = norm(layer(maps.flatten(2)))
    added: Tensor = y.reshape(steps, samples, -1, height, width)
    return added


def by_head(x: Tensor, heads: int) -> Tensor:
    """Returns ``[T, N, heads, tokens, C / heads]``: heads take equal, contiguous shares."""
    steps, samples, channels, height, width = x.shape
    split = x.reshape(steps, samples, heads, channels // heads, height * width)
    return split.transpose(-2, -1)


class Mlp(nn.Module):
    """Two layers over the channels of each token; keys ``fc1_conv``, ``fc1_bn`` and so on.

    Args:
        neurons: Makes the two neuron layers.
        kind: Of the layers: conv2d, conv1d or linear.
        width: Channels of the stream.
        hidden: Channels between the layers.
        names: What both layers are called.
        fires_first: Neurons stand before the layers; otherwise after their batch norms.
    """

    def __init__(
        self,
        neurons: Neurons,
        kind: str,
        width: int,
        hidden: int,
        names: tuple[str, str] = ("fc1", "fc2"),
        fires_first: bool = True,
    ) -> None:
        super().__init__()
        suffix = "linear" if kind == "linear" else "conv"
        self.fires_first = fires_first
        self.parts: list[tuple[str, str, str]] = []
        for name, inputs, outputs in ((names[0], width, hidden), (names[1], hidden, width)):
            layer, norm = layer_of(kind, inputs, outputs, bias=True)
            part = f"{name}_{suffix}", f"{name}_bn", f"{name}_lif"
            for path, module in zip(part, (layer, norm, neurons.lif()), strict=True):
                self.add_module(path, module)
            self.parts.append(part)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what is added to the stream ``x``, of its shape."""
        for part in self.parts:
            x = self.step(part, x)
        return x

    def step(self, part: tuple[str, str, str], x: Tensor) -> Tensor:
        """Returns one of the two layers with its neuron, of ``x``."""
        layer, norm, lif = (self.get_submodule(path) for path in part)
        if self.fires_first:
            return mixed(layer, norm, lif(x))
        fired: Tensor = lif(mixed(layer, norm, x))
        return fired


class OverTime(nn.Module):
    """A network whose first layer reads T timesteps: a picture T times, or T frames.

    Args:
        cfg: Size of the input, mean and deviation of its values, and timesteps if it reads frames.
        T: Timesteps.
    """

    #: Modules and parameters that checkpoints hold and ``forward`` does not read.
    left_out: tuple[str, ...] = ()

    def __init__(self, cfg: Mapping[str, Any], T: int) -> None:
        super().__init__()
        self.default_cfg = dict(cfg)
        self.T = T

    def timed(self, x: Tensor) -> Tensor:
        """Returns ``[T, N, C, H, W]`` of pictures ``[N, C, H, W]``, or of frames, samples first."""
        if "timesteps" in self.default_cfg:
            return x.transpose(0, 1)
        return x.unsqueeze(0).repeat(self.T, 1, 1, 1, 1)
