"""Networks for Fashion-MNIST whose activations are spike counts.

Every network takes normalised images: float32 ``[N, 1, 28, 28]``, ``(pixel / 255 - MEAN) / STD``.
The compiler folds that normalisation into the first convolution, so the compiled network reads raw
uint8 pixels.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from snncc.nn import IntegerFire

__all__ = ["CNN", "MEAN", "STD", "cnn"]

MEAN = 0.2860
STD = 0.3530
_CLASSES = 10


class CNN(nn.Module):
    """Five 3x3 convolutions, each with batch norm and a neuron, then a linear readout.

    Args:
        D: Largest spike count of every neuron.
        width: Channels of the first convolution; the others have 2, 2, 4 and 4 times as many.
    """

    #: What the compiler takes as default for --input-shape, --mean and --std.
    default_cfg: ClassVar = {"input_size": (1, 28, 28), "mean": (MEAN,), "std": (STD,)}

    def __init__(self, D: int, width: int) -> None:
        super().__init__()
        narrow, middle, wide = width, 2 * width, 4 * width
        self.conv1 = _conv3x3(1, narrow)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.fire1 = IntegerFire(D)
        self.conv2 = _conv3x3(narrow, middle, stride=2)
        self.bn2 = nn.BatchNorm2d(middle)
        self.fire2 = IntegerFire(D)
        self.conv3 = _conv3x3(middle, middle)
        self.bn3 = nn.BatchNorm2d(middle)
        self.fire3 = IntegerFire(D)
        self.conv4 = _conv3x3(middle, wide, stride=2)
        self.bn4 = nn.BatchNorm2d(wide)
        self.fire4 = IntegerFire(D)
        self.conv5 = _conv3x3(wide, wide)
        self.bn5 = nn.BatchNorm2d(wide)
        self.fire5 = IntegerFire(D)
        self.head = nn.Linear(wide * 7 * 7, _CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Returns class scores ``[N, 10]`` of normalised images ``[N, 1, 28, 28]``."""
        x = self.fire1(self.bn1(self.conv1(x)))
        x = self.fire2(self.bn2(self.conv2(x)))
        x = self.fire3(self.bn3(self.conv3(x)))
        x = self.fire4(self.bn4(self.conv4(x)))
        x = self.fire5(self.bn5(self.conv5(x)))
        return self.head(x.flatten(1))


def cnn(D: int = 4, width: int = 16) -> CNN:
    """Returns an untrained ``CNN``; 101,050 parameters at width 16."""
    return CNN(D, width)


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Returns a padded convolution without bias: the batch norm behind it has one."""
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
