"""DS-ResNet of neurons with several thresholds (MLF) as published, for pictures and event frames.

A neuron counts the spikes of membranes on one drive, each with a threshold and a memory of its
own; residual blocks add such counts. Batch norms are scaled to the lowest threshold, and add their
epsilon to the deviation, not to the variance.

Source: Feng et al., "Multi-Level Firing with Spiking DS-ResNet: Enabling Better and Deeper
Directly-Trained Spiking Neural Networks", arXiv:2210.06386; and the keys of their checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from snncc.frontends.zoo.keys import Stored
from snncc.frontends.zoo.over_time import OverTime, kept, stepwise

__all__ = ["MLF", "MLFDSResNet", "Shape", "read"]

_STAGES = ("layer1", "layer2", "layer3")


@dataclass(frozen=True)
class Shape:
    """What the weights tell about an MLF DS-ResNet.

    Attributes:
        blocks: Of each stage.
        outputs: Channels of each stage.
        stem: Channels of the first convolution.
        channels: Of the input.
        classes: Rows of the head.
        normed_input: A batch norm without weights stands before the first convolution.
    """

    blocks: tuple[int, ...]
    outputs: tuple[int, ...] = (64, 128, 256)
    stem: int = 64
    channels: int = 3
    classes: int = 10
    normed_input: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """Batch norms up to the first neuron and blocks of each stage, which names stand for."""
        return 2 if self.normed_input else 1, *self.blocks

    @property
    def frames(self) -> bool:
        """Whether it is a network for event frames: two polarities."""
        return self.channels == 2


def read(tensors: Mapping[str, Any]) -> Shape:
    """The shape of a network that has these tensors.

    Raises:
        BadInputError: They are not those of an MLF DS-ResNet.
    """
    stored = Stored(tensors, ("conv1.weight",), "MLF DS-ResNet")
    return Shape(
        blocks=tuple(stored.blocks(f"{stage}.execute") for stage in _STAGES),
        outputs=tuple(stored.rows(f"{stage}.execute.0.conv1.weight") for stage in _STAGES),
        stem=stored.rows("conv1.weight"),
        channels=stored.channels(),
        classes=stored.rows("voting.weight"),
        normed_input="bn0.bn.running_mean" in stored,
    )


class MLF(nn.Module):
    """Counts the spikes of several membranes on one drive, ``[T, N, ...]``.

    Each keeps ``decay`` of its potential, or nothing after it fired, and fires above its threshold.

    Args:
        decay: From 0 to 1.
        thresholds: Of the membranes, rising.
    """

    def __init__(self, decay: float, thresholds: Sequence[float]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(kept(decay, threshold) for threshold in thresholds)

    def forward(self, x: Tensor) -> Tensor:
        """Returns counts 0 to as many as there are membranes, of the shape of ``x``."""
        first, *others = self.levels
        counts: Tensor = first(x)
        for level in others:
            counts = counts + level(x)
        return counts


class ThresholdNorm(nn.Module):
    """A batch norm that is scaled to a threshold, in eval mode; ``[N, C, H, W]`` alike.

    Args:
        channels: C.
        threshold: Deviation of what it returns where its weight is 1.
        affine: It has a weight and a bias.
    """

    def __init__(self, channels: int, threshold: float, affine: bool = True) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, affine=affine)
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        """Returns maps of the shape of ``x``; the epsilon is added to the deviation."""
        mean, var = (_by_channel(found) for found in (self.bn.running_mean, self.bn.running_var))
        y = self.threshold * (x - mean) / (torch.sqrt(var) + self.bn.eps)
        if not self.bn.affine:
            return y
        return y * _by_channel(self.bn.weight) + _by_channel(self.bn.bias)


def _by_channel(values: Tensor | None) -> Tensor:
    assert values is not None
    return values[None, :, None, None]


class Block(nn.Module):
    """Adds the counts after two convolutions to those of the shortcut.

    Args:
        neuron: Makes a neuron.
        norm: Makes a batch norm of so many channels.
        inputs: Channels read.
        outputs: Channels handed on.
        stride: Of the first convolution, and of the shortcut.
    """

    def __init__(
        self,
        neuron: Callable[[], nn.Module],
        norm: Callable[[int], nn.Module],
        inputs: int,
        outputs: int,
        stride: int,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1, self.fire1 = norm(outputs), neuron()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2, self.fire2 = norm(outputs), neuron()
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, norm(outputs), neuron())

    def forward(self, x: Tensor) -> Tensor:
        """Returns sums of counts, ``[T, N, C', H', W']`` of ``[T, N, C, H, W]``."""
        out: Tensor = self.fire1(stepwise(x, self.conv1, self.bn1))
        out = self.fire2(stepwise(out, self.conv2, self.bn2))
        if len(self.shortcut) == 0:
            return out + x
        *layers, fire = self.shortcut
        summed: Tensor = out + fire(stepwise(x, *layers))
        return summed


class Stage(nn.Module):
    """Blocks in a row, under the key ``execute``."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.execute = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what the last block makes of ``x``."""
        y: Tensor = self.execute(x)
        return y


class MLFDSResNet(OverTime):
    """The whole network; the head reads each timestep of what the last block hands on.

    Args:
        shape: What weights tell.
        options: What they do not: ``T``, ``decay`` and ``thresholds``.
        cfg: Of the input.
    """

    def __init__(self, shape: Shape, options: Mapping[str, Any], cfg: Mapping[str, Any]) -> None:
        super().__init__(cfg, options["T"])
        thresholds = options["thresholds"]
        neuron = partial(MLF, options["decay"], thresholds)
        norm = partial(ThresholdNorm, threshold=thresholds[0])
        if shape.normed_input:
            self.bn0 = norm(shape.channels, affine=False)
        self.conv1 = nn.Conv2d(shape.channels, shape.stem, 3, 1, 1, bias=False)
        self.bn1, self.fire = norm(shape.stem), neuron()
        inputs = shape.stem
        for i, (stage, count, outputs) in enumerate(
            zip(_STAGES, shape.blocks, shape.outputs, strict=True)
        ):
            strides = [2 if i else 1] + [1] * (count - 1)
            widths = [inputs] + [outputs] * (count - 1)
            blocks = [
                Block(neuron, norm, width, outputs, stride)
                for width, stride in zip(widths, strides, strict=True)
            ]
            self.add_module(stage, Stage(blocks))
            inputs = outputs
        self.voting = nn.Linear(inputs, shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns class scores ``[N, classes]``; see ``timed`` for what ``x`` is."""
        layers = [self.bn0] if hasattr(self, "bn0") else []
        x = self.fire(stepwise(self.timed(x), *layers, self.conv1, self.bn1))
        for stage in _STAGES:
            x = self.get_submodule(stage)(x)
        scores: Tensor = self.voting(x.mean((3, 4))).sum(0) / self.T
        return scores
