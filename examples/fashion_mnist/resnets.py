"""Three small spiking ResNets for Fashion-MNIST, T = 4: 28x28 pixels become 4x4 positions.

They differ in what is added, and where:

- ``sew``: shortcuts add spikes of IF neurons, so that layers read sums of spikes (SEW, ADD).
- ``mlf``: they add spike counts of neurons with three thresholds, each with a memory of its own.
- ``danet``: blocks add membrane potentials, and into each stage leads a shortcut from the stem and
  from every older stage (densely additive); the zoo's declared family, reconstructed.

They take normalised images as the networks of ``models`` do. Train one on one thread, four epochs
of one timestep and three of four:

    python resnets.py --arch sew --out sew_t4.pt

Source: Fang et al., arXiv:2102.04159 (SEW-ResNet); Feng et al., arXiv:2210.06386 (MLF); Li et al.,
arXiv:2311.05171 (DANet).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import models
from spikformers import Folded, OverTime, trainer
from torch import Tensor, nn

from snncc.frontends.zoo.danet import DANet, Shape
from snncc.nn import LIF

__all__ = ["MLF", "SpikeResNet", "danet", "mlf", "sew"]

#: Batch norms start so that a fair share of a neuron's drives fire; with 1 too few would.
_DRIVE = 2.0

#: Those at the end of a branch that adds to membrane potentials start smaller.
_BRANCH = 1.0


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    """Returns a convolution, padded to keep positions at stride 1, with its batch norm."""
    norm = nn.BatchNorm2d(outputs)
    nn.init.constant_(norm.weight, _DRIVE)
    return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), norm]


class MLF(nn.Module):
    """Counts the spikes of three LIF neurons on one drive: thresholds 0.6, 1.6 and 2.6.

    Each keeps a quarter of its membrane potential, or nothing after a spike.
    """

    def __init__(self) -> None:
        super().__init__()
        # tau 4/3: a membrane keeps 1 - 3/4 of its potential.
        how = {"tau": 4 / 3, "decay_input": False, "compare": ">"}
        self.levels = nn.ModuleList([LIF(threshold=level, **how) for level in (0.6, 1.6, 2.6)])

    def forward(self, x: Tensor) -> Tensor:
        """Returns counts 0 to 3 of drives ``[T, N, ...]``."""
        low, middle, high = self.levels
        return low(x) + middle(x) + high(x)


class SpikeBlock(nn.Module):
    """Adds the spikes of two convolutions to those of the shortcut. ``[T, N, C, H, W]`` alike.

    Args:
        neuron: Makes a neuron.
        inputs: Channels read.
        outputs: Channels returned.
        stride: Of the first convolution; where it or the channels change the shape, the shortcut
            is a convolution with a neuron.
    """

    def __init__(
        self, neuron: Callable[[], nn.Module], inputs: int, outputs: int, stride: int
    ) -> None:
        super().__init__()
        self.conv1, self.fire1 = Folded(*_conv(inputs, outputs, stride=stride)), neuron()
        self.conv2, self.fire2 = Folded(*_conv(outputs, outputs)), neuron()
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            projection = Folded(*_conv(inputs, outputs, 1, stride))
            self.shortcut = nn.Sequential(projection, neuron())

    def forward(self, x: Tensor) -> Tensor:
        """Returns sums of spikes, one more term than the shortcut has."""
        return self.fire2(self.conv2(self.fire1(self.conv1(x)))) + self.shortcut(x)


class SpikeResNet(OverTime):
    """Stages of blocks whose shortcuts add spikes; the head reads their means.

    Args:
        T: Timesteps.
        neuron: Makes a neuron.
        stages: Channels of each, stride of its first block, and how many blocks it has.
    """

    def __init__(
        self, T: int, neuron: Callable[[], nn.Module], stages: Sequence[tuple[int, int, int]]
    ) -> None:
        inputs = 16
        super().__init__(T, _conv(1, inputs, stride=2))
        self.fire = neuron()
        blocks = []
        for width, stride, count in stages:
            for i in range(count):
                blocks.append(SpikeBlock(neuron, inputs, width, 1 if i else stride))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Returns class scores ``[N, 10]`` of normalised images ``[N, 1, 28, 28]``."""
        x = self.blocks(self.fire(self.shown(x)))
        return self.head(x.flatten(3).mean(3).mean(0))


def sew(T: int = 4) -> SpikeResNet:
    """Returns an untrained ``SpikeResNet`` of IF neurons, at 14x14, 7x7 and 4x4 positions."""
    return SpikeResNet(T, lambda: LIF(tau=math.inf), [(16, 1, 2), (32, 2, 2), (64, 2, 2)])


def mlf(T: int = 4) -> SpikeResNet:
    """Returns an untrained one of neurons with three thresholds, at 7x7 and 4x4 positions."""
    return SpikeResNet(T, MLF, [(32, 2, 1), (64, 2, 1)])


def danet(T: int = 4) -> DANet:
    """Returns an untrained ``DANet`` with a block at 14x14, 7x7 and 4x4 positions each."""
    widths = (16, 32, 64)
    shape = Shape((1, 1, 1), widths, widths, 16, 3, shortcuts=(0, 2, 3), channels=1, classes=10)
    options = {
        "T": T, "domain": "potentials", "order": "fire-conv-bn", "projections": "stages",
        "fires": True, "neuron": "lif", "tau": 2.0, "stem_stride": 2, "pool": False,
    }  # fmt: skip
    cfg = {"input_size": (1, 28, 28), "mean": (models.MEAN,), "std": (models.STD,)}
    net = DANet(shape, options, cfg)
    for path, norm in net.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.constant_(norm.weight, _DRIVE if ".units.0." in path else _BRANCH)
    return net


main = trainer({"sew": sew, "mlf": mlf, "danet": danet})

if __name__ == "__main__":
    main()
