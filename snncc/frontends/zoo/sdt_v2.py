"""Spike-driven Transformer V2 (Meta-SpikeFormer) as published: streams are potentials.

Two stages of convolution blocks and two of transformer blocks, as in E-SpikeFormer, with LIF
neurons. Separable convolutions have no neuron between their depthwise and pointwise half, and
attention's layers are three convolutions in a row.

Source: Yao et al., "Spike-driven Transformer V2: Meta Spiking Neural Network Architecture Inspiring
the Design of Next-generation Neuromorphic Chips", arXiv:2404.03663, and the keys of its
checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from snncc.frontends.zoo.keys import Stored
from snncc.frontends.zoo.over_time import Mlp, Neurons, OverTime, by_head, stepwise

__all__ = ["Shape", "SpikeDrivenTransformerV2", "read"]

_STEM = "downsample1_1.encode_conv.weight"
_SEPARABLE = "ConvBlock1_1.0.Conv.pwconv1.weight"
_REPEATED = "block3.0.attn.q_conv.0.body.0.weight"


@dataclass(frozen=True)
class Shape:
    """What the weights tell about a Spike-driven Transformer V2.

    Attributes:
        widths: Channels of the stages: half the first one's stand before them, at stride 2; then
            strides 4, 8, 16 and 16.
        blocks: Transformer blocks of the third and of the fourth stage.
        hidden: Channels within their MLPs, likewise.
        channels: Of the input.
        classes: Rows of the head.
        distilled: There is a second head.
    """

    widths: tuple[int, int, int, int]
    blocks: tuple[int, int] = (6, 2)
    hidden: tuple[int, int] = (0, 0)
    channels: int = 3
    classes: int = 1000
    distilled: bool = False

    @property
    def attended(self) -> tuple[int, ...]:
        """Widths with attention."""
        return self.widths[2:]

    @property
    def frames(self) -> bool:
        """No network of the family for event frames was published."""
        return False


def read(tensors: Mapping[str, Any]) -> Shape:
    """The shape of a network that has these tensors.

    Raises:
        BadInputError: They are not those of a Spike-driven Transformer V2.
    """
    stored = Stored(tensors, (_STEM,), "Spike-driven Transformer V2")
    stored.shape(_SEPARABLE)
    stored.shape(_REPEATED)
    names = ("downsample1_2", "downsample2", "downsample3", "downsample4")
    first, second, third, fourth = (stored.rows(f"{name}.encode_conv.weight") for name in names)
    stages = ("block3", "block4")
    three, four = (stored.rows(f"{stage}.0.mlp.fc1_conv.weight") for stage in stages)
    return Shape(
        widths=(first, second, third, fourth),
        blocks=(stored.blocks("block3"), stored.blocks("block4")),
        hidden=(three, four),
        channels=stored.channels(),
        classes=stored.rows("head.weight"),
        distilled="head_kd.weight" in stored,
    )


class Downsampling(nn.Module):
    """Neuron, convolution with bias, batch norm; the first one reads the image without a neuron."""

    def __init__(
        self,
        neurons: Neurons,
        inputs: int,
        outputs: int,
        stride: int = 2,
        reads_image: bool = False,
    ) -> None:
        super().__init__()
        kernel = 7 if reads_image else 3
        self.encode_lif = nn.Identity() if reads_image else neurons.lif()
        self.encode_conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
        self.encode_bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Returns potentials ``[T, N, outputs, H / stride, W / stride]``."""
        return stepwise(self.encode_lif(x), self.encode_conv, self.encode_bn)


class SepConv(nn.Module):
    """Pointwise, depthwise 7x7 and pointwise convolution; no neuron between the last two."""

    def __init__(self, neurons: Neurons, width: int) -> None:
        super().__init__()
        hidden = 2 * width
        self.lif1 = neurons.lif()
        self.pwconv1 = nn.Conv2d(width, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.lif2 = neurons.lif()
        self.dwconv = nn.Conv2d(hidden, hidden, 7, padding=3, groups=hidden, bias=False)
        self.pwconv2 = nn.Conv2d(hidden, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what is added to the potentials ``x``, of their shape."""
        x = stepwise(self.lif1(x), self.pwconv1, self.bn1)
        return stepwise(self.lif2(x), self.dwconv, self.pwconv2, self.bn2)


class ConvBlock(nn.Module):
    """Adds a separable convolution, then a pair of 3x3 convolutions, to the potentials."""

    def __init__(self, neurons: Neurons, width: int) -> None:
        super().__init__()
        hidden = 4 * width
        self.Conv = SepConv(neurons, width)
        self.lif1 = neurons.lif()
        self.conv1 = nn.Conv2d(width, hidden, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.lif2 = neurons.lif()
        self.conv2 = nn.Conv2d(hidden, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns potentials of the shape of ``x``, ``[T, N, C, H, W]``."""
        x = x + self.Conv(x)
        y = stepwise(self.lif1(x), self.conv1, self.bn1)
        return x + stepwise(self.lif2(y), self.conv2, self.bn2)


class _Normed(nn.Module):
    """A batch norm under the key ``bn``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(x)
        return y


class RepConv(nn.Module):
    """Pointwise, depthwise 3x3 and pointwise convolution with batch norms, and no neuron.

    As published the depthwise one reads a border of what the first batch norm makes of 0. The
    first convolution has no bias, so that border comes out by itself where its input is padded.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 1, padding=1, bias=False),
            _Normed(width),
            nn.Sequential(
                nn.Conv2d(width, width, 3, groups=width, bias=False),
                nn.Conv2d(width, width, 1, bias=False),
                nn.BatchNorm2d(width),
            ),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns maps of the shape of ``x``, ``[N, C, H, W]``."""
        y: Tensor = self.body(x)
        return y


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
        self.head_lif = neurons.lif()
        self.q_conv, self.k_conv, self.v_conv, self.proj_conv = (
            nn.Sequential(RepConv(width), nn.BatchNorm2d(width)) for _ in range(4)
        )
        self.q_lif, self.k_lif, self.v_lif = (neurons.lif() for _ in range(3))
        self.attn_lif = neurons.of_products()

    def forward(self, x: Tensor) -> Tensor:
        """Returns what is added to the potentials ``x``, of their shape."""
        spikes = self.head_lif(x)
        q = by_head(self.q_lif(stepwise(spikes, self.q_conv)), self.heads)
        k = by_head(self.k_lif(stepwise(spikes, self.k_conv)), self.heads)
        v = by_head(self.v_lif(stepwise(spikes, self.v_conv)), self.heads)
        y = q @ (k.transpose(-2, -1) @ v) * self.scale
        fired = self.attn_lif(y.transpose(-2, -1).reshape(x.shape))
        return stepwise(fired, self.proj_conv)


class Block(nn.Module):
    """Adds attention and an MLP to the potentials."""

    def __init__(self, neurons: Neurons, width: int, hidden: int, heads: int, scale: float) -> None:
        super().__init__()
        self.attn = Attention(neurons, width, heads, scale)
        self.mlp = Mlp(neurons, "conv1d", width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Returns potentials of the shape of ``x``, ``[T, N, C, H, W]``."""
        x = x + self.attn(x)
        added: Tensor = self.mlp(x)
        return x + added


class SpikeDrivenTransformerV2(OverTime):
    """The whole network; heads read spikes, and scores are averaged over timesteps.

    Args:
        shape: What weights tell.
        options: What they do not: ``T``, ``heads``, ``scale``, ``tau``.
        cfg: Of the input.
    """

    def __init__(self, shape: Shape, options: Mapping[str, Any], cfg: Mapping[str, Any]) -> None:
        super().__init__(cfg, options["T"])
        neurons = Neurons(options["tau"])
        first, second, third, fourth = shape.widths
        self.downsample1_1 = Downsampling(neurons, shape.channels, first // 2, reads_image=True)
        self.ConvBlock1_1 = nn.Sequential(ConvBlock(neurons, first // 2))
        self.downsample1_2 = Downsampling(neurons, first // 2, first)
        self.ConvBlock1_2 = nn.Sequential(ConvBlock(neurons, first))
        self.downsample2 = Downsampling(neurons, first, second)
        self.ConvBlock2_1 = nn.Sequential(ConvBlock(neurons, second))
        self.ConvBlock2_2 = nn.Sequential(ConvBlock(neurons, second))
        self.downsample3 = Downsampling(neurons, second, third)
        self.block3 = _blocks(neurons, shape, 0, options)
        self.downsample4 = Downsampling(neurons, third, fourth, stride=1)
        self.block4 = _blocks(neurons, shape, 1, options)
        self.lif = neurons.lif()
        self.head = nn.Linear(fourth, shape.classes)
        self.head_kd = nn.Linear(fourth, shape.classes) if shape.distilled else None

    def features(self, x: Tensor) -> Tensor:
        """Returns the potentials ``[T, N, C, H / 16, W / 16]`` of values ``[T, N, C, H, W]``."""
        x = self.ConvBlock1_1(self.downsample1_1(x))
        x = self.ConvBlock1_2(self.downsample1_2(x))
        x = self.ConvBlock2_2(self.ConvBlock2_1(self.downsample2(x)))
        x = self.block3(self.downsample3(x))
        last: Tensor = self.block4(self.downsample4(x))
        return last

    def forward(self, x: Tensor) -> Tensor:
        """Returns class scores ``[N, classes]`` of images ``[N, channels, H, W]``.

        Where the network was distilled, the mean of both heads.
        """
        fired = self.lif(self.features(self.timed(x)).flatten(3).mean(3))
        scores: Tensor = self.head(fired).mean(0)
        if self.head_kd is None:
            return scores
        both: Tensor = (scores + self.head_kd(fired).mean(0)) / 2
        return both


def _blocks(
    neurons: Neurons, shape: Shape, stage: int, options: Mapping[str, Any]
) -> nn.Sequential:
    width, hidden = shape.attended[stage], shape.hidden[stage]
    heads, scale = options["heads"], options["scale"]
    made = (Block(neurons, width, hidden, heads, scale) for _ in range(shape.blocks[stage]))
    return nn.Sequential(*made)
