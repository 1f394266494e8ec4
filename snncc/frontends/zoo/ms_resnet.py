"""MS-ResNet as published for ImageNet: residual blocks add membrane potentials.

Every branch begins with a neuron and ends with a batch norm; shortcuts that change the shape are
layers over potentials, with no neuron before them. Neurons keep a quarter of their potential and
fire above their threshold.

Source: Hu et al., "Advancing Spiking Neural Networks towards Deep Residual Learning",
arXiv:2112.08954; and the keys of their checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from snncc.frontends.zoo.keys import Stored
from snncc.frontends.zoo.over_time import OverTime, Stepwise, kept
from snncc.nn import LIF

__all__ = ["MSResNet", "Shape", "read"]

_STAGES = ("conv2_x", "conv3_x", "conv4_x", "conv5_x")
_CONV1 = "residual_function.1.weight"


@dataclass(frozen=True)
class Shape:
    """What the weights tell about an MS-ResNet.

    Attributes:
        blocks: Of each stage.
        stem: Channels of the first convolutions: one of 7x7, or three of 3x3 with a bias.
        outputs: Channels of each stage.
        channels: Of the input.
        classes: Rows of the head.
        pooled: Shortcuts average 2x2 positions before their layer; without, it has a stride.
    """

    blocks: tuple[int, ...]
    stem: tuple[int, ...] = (64,)
    outputs: tuple[int, ...] = (64, 128, 256, 512)
    channels: int = 3
    classes: int = 1000
    pooled: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """Convolutions of the stem and blocks of each stage, which names stand for."""
        return len(self.stem), *self.blocks

    @property
    def frames(self) -> bool:
        """It reads pictures."""
        return False


def read(tensors: Mapping[str, Any]) -> Shape:
    """The shape of a network that has these tensors.

    Raises:
        BadInputError: They are not those of an MS-ResNet.
    """
    stored = Stored(tensors, ("conv1.0.weight",), "MS-ResNet")
    stem = [stored.rows("conv1.0.weight")]
    while f"conv1.{len(stem)}.weight" in stored:
        stem.append(stored.rows(f"conv1.{len(stem)}.weight"))
    return Shape(
        blocks=tuple(stored.blocks(stage) for stage in _STAGES),
        stem=tuple(stem),
        outputs=tuple(stored.rows(f"{stage}.0.{_CONV1}") for stage in _STAGES),
        channels=stored.channels(),
        classes=stored.rows("fc.weight"),
        pooled="conv2_x.0.shortcut.1.weight" in stored,
    )


class Norm(nn.Module):
    """A batch norm whose keys have ``bn`` before their own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Returns maps of the shape of ``x``, ``[N, C, H, W]``."""
        normed: Tensor = self.bn(x)
        return normed


class Block(nn.Module):
    """Adds what two convolutions, with a neuron before each, make of potentials to the shortcut.

    Args:
        neuron: Makes a neuron.
        inputs: Channels read.
        outputs: Channels handed on.
        stride: Of the first convolution, and of the shortcut.
        pooled: The shortcut averages 2x2 positions before its layer, whatever the stride.
    """

    def __init__(
        self,
        neuron: Callable[[], LIF],
        inputs: int,
        outputs: int,
        stride: int,
        pooled: bool,
    ) -> None:
        super().__init__()
        self.residual_function = Stepwise(
            neuron(),
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            Norm(outputs),
            neuron(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            Norm(outputs),
        )
        self.shortcut = Stepwise()
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, 1 if pooled else stride, bias=False)
            self.shortcut = Stepwise(*_pools(pooled), conv, Norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Returns potentials, ``[T, N, C', H', W']`` of ``[T, N, C, H, W]``."""
        summed: Tensor = self.residual_function(x) + self.shortcut(x)
        return summed


def _pools(pooled: bool) -> list[nn.Module]:
    return [nn.AvgPool2d(2)] if pooled else []


class MSResNet(OverTime):
    """The whole network; a neuron stands before the head, which reads its rates.

    Args:
        shape: What weights tell.
        options: What they do not: ``T``, ``decay`` and ``threshold``.
        cfg: Of the input.
    """

    def __init__(self, shape: Shape, options: Mapping[str, Any], cfg: Mapping[str, Any]) -> None:
        super().__init__(cfg, options["T"])
        neuron = partial(kept, options["decay"], options["threshold"])
        self.conv1 = nn.Sequential(*_stem(shape))
        inputs = shape.stem[-1]
        for stage, blocks, outputs in zip(_STAGES, shape.blocks, shape.outputs, strict=True):
            strides = [2] + [1] * (blocks - 1)
            widths = [inputs] + [outputs] * (blocks - 1)
            made = (
                Block(neuron, width, outputs, stride, shape.pooled)
                for width, stride in zip(widths, strides, strict=True)
            )
            self.add_module(stage, nn.Sequential(*made))
            inputs = outputs
        self.mem_update = neuron()
        self.fc = nn.Linear(inputs, shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns class scores ``[N, classes]`` of pictures ``[N, C, H, W]``."""
        x = self.timed(self.conv1(x))
        for stage in _STAGES:
            x = self.get_submodule(stage)(x)
        scores: Tensor = self.fc(self.mem_update(x).mean((3, 4)).mean(0))
        return scores


def _stem(shape: Shape) -> list[nn.Module]:
    """One convolution of 7x7, or several of 3x3, the first with a stride; then the batch norm."""
    if len(shape.stem) == 1:
        convs = [nn.Conv2d(shape.channels, shape.stem[0], 7, 2, 3, bias=False)]
    else:
        inputs = (shape.channels, *shape.stem)
        convs = [
            nn.Conv2d(fan_in, outputs, 3, 1 if i else 2, 1)
            for i, (fan_in, outputs) in enumerate(zip(inputs, shape.stem, strict=False))
        ]
    return [*convs, Norm(shape.stem[-1])]
