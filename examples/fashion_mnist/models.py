"""Networks for Fashion-MNIST whose activations are spike counts.

Every network takes normalised images: float32 ``[N, 1, 28, 28]``, ``(pixel / 255 - MEAN) / STD``.
The compiler folds that normalisation into the first convolution, so the compiled network reads raw
uint8 pixels.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from snncc.nn import IntegerFire, SparseBatchNorm2d, SpikeSparseConv2d

__all__ = ["CNN", "MEAN", "SSC", "STD", "Residual", "cnn", "residual", "ssc"]

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


class Residual(nn.Module):
    """Two stages of E-SpikeFormer convolution blocks on 14x14 and 7x7 positions.

    Stem, blocks and downsampling hand on membrane potentials; a neuron stands in front of every
    later convolution, and one more reads the mean over the last 4x4 positions before the readout.

    Args:
        D: Largest spike count of every neuron.
        width: Channels of the first stage; the second has three times as many.
        kernel: Side of the depthwise convolutions.
        expansion: Hidden channels of the pairs of 3x3 convolutions, per channel of the stream.
        features: Channels in front of the readout.

    Source: Yao et al., "Scaling Spike-driven Transformer with Efficient Spike Firing
    Approximation Training", arXiv:2411.16061.
    """

    #: What the compiler takes as default for --input-shape, --mean and --std.
    default_cfg: ClassVar = {"input_size": (1, 28, 28), "mean": (MEAN,), "std": (STD,)}

    def __init__(self, D: int, width: int, kernel: int, expansion: int, features: int) -> None:
        super().__init__()
        wide = 3 * width
        self.stem = nn.Conv2d(1, width, kernel_size=7, stride=2, padding=3)
        self.stem_bn = nn.BatchNorm2d(width)
        self.stage1 = _ConvBlock(D, width, kernel, expansion)
        self.fire1 = IntegerFire(D)
        self.down1 = _conv3x3(width, wide, stride=2)
        self.down1_bn = nn.BatchNorm2d(wide)
        self.stage2 = _ConvBlock(D, wide, kernel, expansion)
        self.fire2 = IntegerFire(D)
        self.down2 = _conv3x3(wide, features, stride=2)
        self.down2_bn = nn.BatchNorm2d(features)
        self.head_fire = IntegerFire(D)
        self.head = nn.Linear(features, _CLASSES)
        self._spread(D)

    def forward(self, x: Tensor) -> Tensor:
        """Returns class scores ``[N, 10]`` of normalised images ``[N, 1, 28, 28]``."""
        x = self.stage1(self.stem_bn(self.stem(x)))
        x = self.stage2(self.down1_bn(self.down1(self.fire1(x))))
        x = self.down2_bn(self.down2(self.fire2(x)))
        return self.head(self.head_fire(x.mean((2, 3))))

    def _spread(self, D: int) -> None:
        """Starts batch norms so that potentials span 0 to D and the branches add little at first.

        Without it the network, deep for one whose gradients are surrogates, learns slowly.
        """
        quiet = [bn for s in (self.stage1, self.stage2) for bn in (s.separable.bn3, s.bn2)]
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.weight, 0.3 if module in quiet else D / 2)
        nn.init.constant_(self.down2_bn.weight, D)  # a mean over positions varies less


class _ConvBlock(nn.Module):
    """Adds a separable convolution, then a pair of 3x3 convolutions, to the membrane potential."""

    def __init__(self, D: int, width: int, kernel: int, expansion: int) -> None:
        super().__init__()
        hidden = expansion * width
        self.separable = _SepSpike(D, width, kernel)
        self.fire1 = IntegerFire(D)
        self.conv1 = _conv3x3(width, hidden)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.fire2 = IntegerFire(D)
        self.conv2 = _conv3x3(hidden, width)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the membrane potential, of the shape of ``x``: ``[N, width, h, w]``."""
        x = x + self.separable(x)
        y = self.bn1(self.conv1(self.fire1(x)))
        return x + self.bn2(self.conv2(self.fire2(y)))


class _SepSpike(nn.Module):
    """A separable convolution with a neuron in front of each of its three parts."""

    def __init__(self, D: int, width: int, kernel: int) -> None:
        super().__init__()
        hidden = 2 * width
        padding = kernel // 2
        self.fire1 = IntegerFire(D)
        self.pointwise1 = nn.Conv2d(width, hidden, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.fire2 = IntegerFire(D)
        self.depthwise = nn.Conv2d(
            hidden, hidden, kernel, padding=padding, groups=hidden, bias=False
        )
        self.bn2 = nn.BatchNorm2d(hidden)
        self.fire3 = IntegerFire(D)
        self.pointwise2 = nn.Conv2d(hidden, width, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the branch's membrane potential, of the shape of ``x``."""
        x = self.bn1(self.pointwise1(self.fire1(x)))
        x = self.bn2(self.depthwise(self.fire2(x)))
        return self.bn3(self.pointwise2(self.fire3(x)))


def residual(
    D: int = 4, width: int = 24, kernel: int = 3, expansion: int = 1, features: int = 128
) -> Residual:
    """Returns an untrained ``Residual``; 231,226 parameters with the defaults."""
    return Residual(D, width, kernel, expansion, features)


class SSC(nn.Module):
    """The layers of ``CNN`` as SpikeSparseConv: they can be trained on images with masked patches.

    Without a mask (see ``snncc.nn.masked``) it is the vanilla network.

    Args:
        D: Largest spike count of every neuron.
        width: Channels of the first convolution; the others have 2, 2, 4 and 4 times as many.
    """

    #: What the compiler takes as default for --input-shape, --mean and --std.
    default_cfg: ClassVar = {"input_size": (1, 28, 28), "mean": (MEAN,), "std": (STD,)}

    #: Patches per side, of 4x4 pixels: the last layers have one position for each.
    mask_size: ClassVar = 7

    def __init__(self, D: int, width: int) -> None:
        super().__init__()
        self.layer1 = _SparseLayer(D, 1, width)
        self.layer2 = _SparseLayer(D, width, 2 * width, stride=2)
        self.layer3 = _SparseLayer(D, 2 * width, 2 * width)
        self.layer4 = _SparseLayer(D, 2 * width, 4 * width, stride=2)
        self.layer5 = _SparseLayer(D, 4 * width, 4 * width)
        self.head = nn.Linear(4 * width * 7 * 7, _CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Returns class scores ``[N, 10]`` of normalised images ``[N, 1, 28, 28]``."""
        x = self.layer3(self.layer2(self.layer1(x)))
        x = self.layer5(self.layer4(x))
        return self.head(x.flatten(1))


class _SparseLayer(nn.Module):
    """A 3x3 SpikeSparseConv with batch norm over the active positions, and a neuron."""

    def __init__(self, D: int, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = SpikeSparseConv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn = SparseBatchNorm2d(outputs)
        self.fire = IntegerFire(D)

    def forward(self, x: Tensor) -> Tensor:
        """Returns spike counts ``[N, outputs, h, w]``."""
        return self.fire(self.bn(self.conv(x)))


def ssc(D: int = 4, width: int = 16) -> SSC:
    """Returns an untrained ``SSC``; 101,050 parameters at width 16."""
    return SSC(D, width)


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Returns a padded convolution without bias: the batch norm after it has one."""
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
