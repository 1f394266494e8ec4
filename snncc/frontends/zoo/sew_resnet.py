"""SEW-ResNet as published for ImageNet: residual blocks join spikes, element by element.

Both branches of a block end in IF neurons; what joins them is their sum (``add``), their product
(``and``), or the shortcut's spikes where the other branch has none (``iand``). No tensor tells
which.

Source: Fang et al., "Deep Residual Learning in Spiking Neural Networks", arXiv:2102.04159; and the
keys of their checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from snncc.frontends.zoo.keys import Stored
from snncc.frontends.zoo.over_time import OverTime, Stepwise, pool
from snncc.nn import LIF

__all__ = ["SEWResNet", "Shape", "read"]

_STAGES = ("layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True)
class Shape:
    """What the weights tell about a SEW-ResNet.

    Attributes:
        blocks: Of each stage.
        stem: Channels of the first convolution.
        inner: Channels within the blocks of each stage.
        outer: Channels that they hand on.
        channels: Of the input.
        classes: Rows of the head.
        layers: Of a block: 2, or 3 with a bottleneck.
        groups: Of the 3x3 convolutions of bottlenecks.
        projected: Whether the shortcut of the first stage is a layer.
    """

    blocks: tuple[int, ...]
    stem: int = 64
    inner: tuple[int, ...] = (64, 128, 256, 512)
    outer: tuple[int, ...] = (64, 128, 256, 512)
    channels: int = 3
    classes: int = 1000
    layers: int = 2
    groups: int = 1
    projected: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """Layers of a block and blocks of each stage, which names stand for."""
        return self.layers, *self.blocks

    @property
    def frames(self) -> bool:
        """It reads pictures."""
        return False


def read(tensors: Mapping[str, Any]) -> Shape:
    """The shape of a network that has these tensors.

    Raises:
        BadInputError: They are not those of a SEW-ResNet.
    """
    stored = Stored(tensors, ("conv1.weight",), "SEW-ResNet")
    has_bottleneck = "layer1.0.conv3.0.weight" in stored
    last = "conv3" if has_bottleneck else "conv2"
    inner = tuple(stored.rows(f"{stage}.0.conv1.0.weight") for stage in _STAGES)
    return Shape(
        blocks=tuple(stored.blocks(stage) for stage in _STAGES),
        stem=stored.rows("conv1.weight"),
        inner=inner,
        outer=tuple(stored.rows(f"{stage}.0.{last}.0.weight") for stage in _STAGES),
        channels=stored.channels(),
        classes=stored.rows("fc.weight"),
        layers=3 if has_bottleneck else 2,
        groups=max(1, inner[0] // max(1, stored.size("layer1.0.conv2.0.weight", 1))),
        projected="layer1.0.downsample.0.0.weight" in stored,
    )


def _neuron() -> LIF:
    return LIF(tau=math.inf)


def _layer(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> Stepwise:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return Stepwise(conv, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """Two or three layers with a neuron after each, joined with the shortcut's spikes.

    Args:
        widths: Channels read, within and handed on.
        stride: Of the block.
        layers: 2, or 3 with a bottleneck.
        groups: Of the 3x3 convolution of a bottleneck.
        projects: Whether the shortcut is a layer with a neuron.
        connect: ``add``, ``and`` or ``iand``.
    """

    def __init__(
        self,
        widths: tuple[int, int, int],
        stride: int,
        layers: int,
        groups: int,
        projects: bool,
        connect: str,
    ) -> None:
        super().__init__()
        inputs, inner, outer = widths
        self.connect, self.layers = connect, layers
        if layers == 2:
            made = [_layer(inputs, inner, 3, stride), _layer(inner, outer, 3)]
        else:
            middle = _layer(inner, inner, 3, stride, groups)
            made = [_layer(inputs, inner, 1), middle, _layer(inner, outer, 1)]
        for i, layer in enumerate(made, start=1):
            self.add_module(f"conv{i}", layer)
            self.add_module(f"sn{i}", _neuron())
        self.downsample = None
        if projects:
            self.downsample = nn.Sequential(_layer(inputs, outer, 1, stride), _neuron())

    def forward(self, x: Tensor) -> Tensor:
        """Returns spikes, or sums of them, ``[T, N, C', H', W']`` of ``[T, N, C, H, W]``."""
        out = x
        for i in range(1, self.layers + 1):
            out = self.get_submodule(f"sn{i}")(self.get_submodule(f"conv{i}")(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        if self.connect == "add":
            return out + shortcut
        return out * shortcut if self.connect == "and" else shortcut * (1.0 - out)


class SEWResNet(OverTime):
    """The whole network; the head reads what the last block hands on, averaged.

    Args:
        shape: What weights tell.
        options: What they do not: ``T`` and ``connect``.
        cfg: Of the input.
    """

    def __init__(self, shape: Shape, options: Mapping[str, Any], cfg: Mapping[str, Any]) -> None:
        super().__init__(cfg, options["T"])
        self.conv1 = nn.Conv2d(shape.channels, shape.stem, 7, 2, 3, bias=False)
        self.bn1, self.sn1 = nn.BatchNorm2d(shape.stem), _neuron()
        self.maxpool = Stepwise(pool())
        inputs = shape.stem
        for i, stage in enumerate(_STAGES):
            blocks = []
            for block in range(shape.blocks[i]):
                is_first = block == 0
                blocks.append(
                    Block(
                        (inputs, shape.inner[i], shape.outer[i]),
                        2 if i and is_first else 1,
                        shape.layers,
                        shape.groups,
                        is_first and (i > 0 or shape.projected),
                        options["connect"],
                    )
                )
                inputs = shape.outer[i]
            self.add_module(stage, nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns class scores ``[N, classes]`` of pictures ``[N, C, H, W]``."""
        x = self.maxpool(self.sn1(self.timed(self.bn1(self.conv1(x)))))
        for stage in _STAGES:
            x = self.get_submodule(stage)(x)
        scores: Tensor = self.fc(x.mean((3, 4)).mean(0))
        return scores
