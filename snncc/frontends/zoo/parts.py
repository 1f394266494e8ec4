"""What E-SpikeFormers of all sizes are made of: neurons, convolutions, separable convolution, MLP.

Attributes carry the names that published checkpoints use as keys; neurons have no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snncc.nn import IntegerFire, SparseBatchNorm2d, SpikeSparseConv2d

__all__ = [
    "Downsampling",
    "Layers",
    "Mlp",
    "NormedFire",
    "SepSpike",
    "event_cfg",
    "image_cfg",
    "through",
]


@dataclass(frozen=True)
class Layers:
    """Makes the layers of one network.

    Attributes:
        D: Largest spike count of its neurons.
        norm: Divisor of what they hand on; none: D.
        rounding: ``half-even`` or ``half-up``.
        sparse: Convolutions can be masked by patches, as in masked pretraining; keys are the same.
    """

    D: int = 4
    norm: float | None = None
    rounding: str = "half-even"
    sparse: bool = False

    def fire(self, norm: float | None = None) -> IntegerFire:
        """Returns a neuron; ``norm`` overrides the network's."""
        given = next((n for n in (norm, self.norm) if n is not None), self.D)
        return IntegerFire(self.D, float(given), self.rounding)

    def conv(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> nn.Conv2d:
        """Returns a convolution padded by half its kernel."""
        cls = SpikeSparseConv2d if self.sparse else nn.Conv2d
        return cls(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)

    def bn(self, channels: int) -> nn.BatchNorm2d:
        """Returns a batch norm for ``conv``."""
        return SparseBatchNorm2d(channels) if self.sparse else nn.BatchNorm2d(channels)

    def conv_bn(
        self, inputs: int, outputs: int, kernel: int = 1, groups: int = 1, bias: bool = False
    ) -> nn.Sequential:
        """Returns a convolution with its batch norm, keys ``0`` and ``1``."""
        conv = self.conv(inputs, outputs, kernel, groups=groups, bias=bias)
        return nn.Sequential(conv, self.bn(outputs))


class NormedFire(nn.Module):
    """A neuron whose spike counts are divided by learnt numbers, mostly one for each channel.

    Args:
        fire: The neuron; its norm is replaced.
        shape: Of the numbers, which broadcasts against what the neuron reads.
    """

    def __init__(self, fire: IntegerFire, shape: Sequence[int]) -> None:
        super().__init__()
        self.fire = IntegerFire(fire.D, 1.0, fire.rounding)
        self.Norm = nn.Parameter(torch.full(tuple(shape), float(fire.D)))

    def forward(self, x: Tensor) -> Tensor:
        """Returns spike counts over their norms, of the shape of ``x``."""
        fired: Tensor = self.fire(x) / self.Norm
        return fired


class Downsampling(nn.Module):
    """Neuron, convolution with bias, batch norm; the first one reads the image without a neuron."""

    def __init__(
        self, layers: Layers, inputs: int, outputs: int, stride: int = 2, reads_image: bool = False
    ) -> None:
        super().__init__()
        kernel = 7 if reads_image else 3
        self.encode_spike = nn.Identity() if reads_image else layers.fire()
        self.encode_conv = layers.conv(inputs, outputs, kernel, stride, bias=True)
        self.encode_bn = layers.bn(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Returns membrane potentials ``[N, outputs, H / stride, W / stride]``."""
        potential: Tensor = self.encode_bn(self.encode_conv(self.encode_spike(x)))
        return potential


class SepSpike(nn.Module):
    """Pointwise, depthwise and pointwise convolution, a neuron in front of each."""

    def __init__(self, layers: Layers, width: int, kernel: int, expansion: int = 2) -> None:
        super().__init__()
        hidden = expansion * width
        self.spike1 = layers.fire()
        self.pwconv1 = layers.conv_bn(width, hidden)
        self.spike2 = layers.fire()
        self.dwconv = layers.conv_bn(hidden, hidden, kernel, groups=hidden)
        self.spike3 = layers.fire()
        self.pwconv2 = layers.conv_bn(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what is added to the membrane potential ``x``, of its shape."""
        x = self.pwconv1(self.spike1(x))
        x = self.dwconv(self.spike2(x))
        added: Tensor = self.pwconv2(self.spike3(x))
        return added


class Mlp(nn.Module):
    """Two linear layers over the channels of each token, a neuron in front of both."""

    def __init__(self, layers: Layers, width: int, expansion: int = 4) -> None:
        super().__init__()
        hidden = expansion * width
        self.fc1_spike = layers.fire()
        self.fc1_conv = nn.Conv1d(width, hidden, 1)
        self.fc1_bn = nn.BatchNorm1d(hidden)
        self.fc2_spike = layers.fire()
        self.fc2_conv = nn.Conv1d(hidden, width, 1)
        self.fc2_bn = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what is added to the membrane potential ``x``, ``[N, C, tokens]``."""
        x = self.fc1_bn(self.fc1_conv(self.fc1_spike(x)))
        added: Tensor = self.fc2_bn(self.fc2_conv(self.fc2_spike(x)))
        return added


def through(blocks: nn.ModuleList, x: Tensor) -> Tensor:
    """Returns what the last of the blocks hands on when the first is given ``x``."""
    for block in blocks:
        x = block(x)
    return x


def image_cfg(channels: int) -> dict[str, Any]:
    """Returns size and normalisation of ImageNet's pictures; nothing for other than 3 channels."""
    if channels != 3:
        return {}
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return {"input_size": (3, 224, 224), "mean": mean, "std": std}


def event_cfg(channels: int) -> dict[str, Any]:
    """Returns what says: eight frames of 128 by 128 event counts, taken as they are."""
    size = (channels, 128, 128)
    return {
        "input_size": size, "timesteps": 8, "batch_first": True, "mean": (0.0,), "std": (1 / 255,)
    }  # fmt: skip
