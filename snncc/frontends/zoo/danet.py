"""DANet, reconstructed: ResNets whose stages add up what all older tensors hand on.

Its authors published no code, and no table of layers; known are the name of the connection,
densely additive, and ResNets of 18 to 152 layers over 4 timesteps. So the family is declared:
what is added (spikes or membrane potentials), in which order a layer, its batch norm and its
neuron stand, which older tensors have a layer of their own into a stage, and which neuron. Within
a stage a block reads the sum of all that came before it there; that is the running sum of ordinary
shortcuts. At the border of a stage it is not.

Source: Li et al., "Densely Additive" spiking ResNets, arXiv:2311.05171, of which the abstract alone
was read. The keys are our own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from snncc.errors import BadInputError, Option, UsageError, Words
from snncc.frontends.zoo.keys import Stored
from snncc.frontends.zoo.over_time import OverTime, pool, stepwise
from snncc.nn import LIF

__all__ = ["ORDERS", "RULES", "DANet", "Shape", "Spec", "read"]

#: What blocks add -> how a layer, its batch norm and its neuron may stand.
ORDERS: Mapping[str, tuple[str, ...]] = {
    "spikes": ("conv-bn-fire",),
    "potentials": ("fire-conv-bn", "bn-fire-conv"),
}
#: What has a layer of its own into a stage: the sum of all, the sums of all older stages, or each
#: older tensor.
RULES = ("sum", "stages", "blocks")


@dataclass(frozen=True)
class Spec:
    """What declares a network of the family, beside its shape.

    Attributes:
        domain: What blocks and shortcuts add: ``spikes`` or ``potentials``.
        order: One of ``ORDERS[domain]``.
        projections: One of ``RULES``.
        fires: Shortcuts that are layers have a neuron.
        neuron: ``lif`` or ``if``, with hard reset at threshold 1.
        tau: Time constant of LIF neurons, in timesteps.
        learnt: Each neuron layer has learnt its own.
    """

    domain: str = "spikes"
    order: str = "conv-bn-fire"
    projections: str = "stages"
    fires: bool = True
    neuron: str = "lif"
    tau: float = 2.0
    learnt: bool = False

    def fire(self) -> LIF:
        """Returns a neuron layer."""
        return LIF(math.inf if self.neuron == "if" else self.tau, learn_tau=self.learnt)


@dataclass(frozen=True)
class Shape:
    """What the weights tell about a DANet.

    Attributes:
        blocks: Of each stage.
        outer: Channels that the blocks of each stage hand on.
        inner: Channels within them.
        stem: Channels of the first convolution.
        kernel: Its size.
        layers: Of a block: 2, or 3 with a bottleneck.
        shortcuts: Layers into each stage, besides its blocks.
        channels: Of the input.
        classes: Rows of the head.
        learnt_tau: Neurons have learnt their time constants.
    """

    blocks: tuple[int, ...]
    outer: tuple[int, ...]
    inner: tuple[int, ...]
    stem: int = 64
    kernel: int = 7
    layers: int = 2
    shortcuts: tuple[int, ...] = ()
    channels: int = 3
    classes: int = 1000
    learnt_tau: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """Layers of a block and blocks of each stage, which names stand for."""
        return self.layers, *self.blocks

    @property
    def frames(self) -> bool:
        """It reads pictures."""
        return False

    def shortcuts_by(self, rule: str) -> tuple[int, ...]:
        """How many layers into each stage one of ``RULES`` asks for."""
        first = int(self.outer[0] != self.stem)
        return (first, *(len(_sources(rule, self.blocks[:i])) for i in range(1, len(self.blocks))))


def _sources(rule: str, blocks: Sequence[int]) -> list[int]:
    """Stages, 0 for the stem, of the tensors that have a layer of their own after these stages."""
    stages = list(range(len(blocks) + 1))
    if rule == "sum":
        return stages[-1:]
    if rule == "stages":
        return stages
    return [0, *(stage for stage, count in enumerate(blocks, start=1) for _ in range(count))]


def read(tensors: Mapping[str, Any]) -> Shape:
    """The shape of a network that has these tensors.

    Raises:
        BadInputError: They are not those of a DANet.
    """
    stored = Stored(tensors, ("stem.conv.weight",), "DANet")
    stages = [f"stages.{i}" for i in range(stored.blocks("stages"))]
    layers = stored.blocks("stages.0.blocks.0.units")
    convs = [f"{stage}.blocks.0.units.{{}}.conv.weight" for stage in stages]
    return Shape(
        blocks=tuple(stored.blocks(f"{stage}.blocks") for stage in stages),
        outer=tuple(stored.rows(conv.format(layers - 1)) for conv in convs),
        inner=tuple(stored.rows(conv.format(0)) for conv in convs),
        stem=stored.rows("stem.conv.weight"),
        kernel=stored.size("stem.conv.weight", 2),
        layers=layers,
        shortcuts=tuple(stored.blocks(f"{stage}.shortcuts") for stage in stages),
        channels=stored.channels(),
        classes=stored.rows("head.weight"),
        learnt_tau=any(key.endswith(".fire.w") for key in stored.shapes),
    )


def _spec_of(shape: Shape, options: Mapping[str, Any]) -> Spec:
    """What options declare, held against what the weights tell.

    Raises:
        UsageError: An order does not go with what is added.
        BadInputError: The weights have other shortcuts than the rule asks for.
    """
    domain, order, rule = (options[key] for key in ("domain", "order", "projections"))
    order = order or ORDERS[domain][0]
    fires = domain == "spikes" if options["fires"] is None else options["fires"]
    if order not in ORDERS[domain] or (domain == "spikes" and not fires):
        choice = " or ".join(ORDERS[domain])
        wrong = f"order is {order}" if order not in ORDERS[domain] else "fires is false"
        told = f": blocks that add {domain} have the order {choice}"
        more = ", and neurons in shortcuts" if domain == "spikes" else ""
        raise UsageError(Words(Option("arch_args"), f"{told}{more}; {wrong}"))
    if shape.shortcuts != shape.shortcuts_by(rule):
        raise BadInputError(Words(*_another_rule(shape, rule)))
    if shape.learnt_tau and options["neuron"] == "if":
        told = ": the weights are those of neurons with time constants; leave neuron out"
        raise BadInputError(Words(Option("arch_args"), told))
    neuron = options["neuron"], options["tau"], shape.learnt_tau
    return Spec(domain, order, rule, fires, *neuron)


def _another_rule(shape: Shape, rule: str) -> list[str | Option]:
    """What says that the weights are not by this rule, and by which they are."""
    counts = ", ".join(map(str, shape.shortcuts))
    told = f"the weights have {counts} layers into stages, which is not the rule {rule}"
    fitting = [other for other in RULES if shape.shortcuts_by(other) == shape.shortcuts]
    if not fitting:
        return [told]
    instead = " or ".join(f'\'{{"projections": "{other}"}}\'' for other in fitting)
    return [told, "; take ", Option("arch_args"), f" {instead}"]


class Unit(nn.Module):
    """A convolution with its batch norm and its neuron, in the order of the network.

    Args:
        spec: Of the network.
        inputs: Channels read.
        outputs: Channels handed on.
        kernel: Of the convolution, padded by half of it.
        stride: Of the convolution.
        fires: It has a neuron.
        order: Instead of the network's.
    """

    def __init__(
        self,
        spec: Spec,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        fires: bool = True,
        order: str = "",
    ) -> None:
        super().__init__()
        names = {"conv": "conv", "bn": "norm", "fire": "fire"}
        parts = [names[part] for part in (order or spec.order).split("-")]
        self.parts = [part for part in parts if fires or part != "fire"]
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        norm_first = parts.index("norm") < parts.index("conv")
        self.norm = nn.BatchNorm2d(inputs if norm_first else outputs)
        if fires:
            self.fire = spec.fire()

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``[T, N, C', H', W']`` of ``[T, N, C, H, W]``."""
        for part in self.parts:
            module = self.get_submodule(part)
            x = module(x) if part == "fire" else stepwise(x, module)
        return x


class Block(nn.Module):
    """Two or three units in a row.

    Args:
        spec: Of the network.
        widths: Channels read, within and handed on.
        stride: Of the block.
        layers: 2, or 3 with a bottleneck.
    """

    def __init__(self, spec: Spec, widths: tuple[int, int, int], stride: int, layers: int) -> None:
        super().__init__()
        inputs, inner, outer = widths
        if layers == 2:
            units = [Unit(spec, inputs, inner, 3, stride), Unit(spec, inner, outer, 3)]
        else:
            middle = Unit(spec, inner, inner, 3, stride)
            units = [Unit(spec, inputs, inner, 1), middle, Unit(spec, inner, outer, 1)]
        self.units = nn.Sequential(*units)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what is added, ``[T, N, C', H', W']`` of ``[T, N, C, H, W]``."""
        added: Tensor = self.units(x)
        return added


class Stage(nn.Module):
    """Blocks that each read the sum of all that is there, and shortcuts into that sum.

    Args:
        blocks: Each adds one tensor.
        shortcuts: One of each older tensor; none: the newest is added as it is.
    """

    def __init__(self, blocks: Sequence[nn.Module], shortcuts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks, self.shortcuts = nn.ModuleList(blocks), nn.ModuleList(shortcuts)

    def forward(self, x: Tensor, older: Sequence[Tensor]) -> list[Tensor]:
        """Returns the sum at the end, and before it what each block added.

        Args:
            x: What the first block reads.
            older: What the shortcuts read.
        """
        total, added = x, []
        for i, block in enumerate(self.blocks):
            added.append(block(total))
            if i == 0 and self.shortcuts:
                pairs = zip(self.shortcuts, older, strict=True)
                total = sum((shortcut(tensor) for shortcut, tensor in pairs), start=added[0])
            else:
                total = total + added[-1]
        return [*added, total]


class DANet(OverTime):
    """The whole network; the head reads spikes, or sums of them, averaged.

    Args:
        shape: What weights tell.
        options: What they do not: ``T``, ``stem_stride``, ``pool`` and those of ``Spec``.
        cfg: Of the input.

    Raises:
        UsageError: An order does not go with what is added.
        BadInputError: The shape has other shortcuts than the rule asks for.
    """

    def __init__(self, shape: Shape, options: Mapping[str, Any], cfg: Mapping[str, Any]) -> None:
        super().__init__(cfg, options["T"])
        self.spec = spec = _spec_of(shape, options)
        has_spikes = spec.domain == "spikes"
        stride = options["stem_stride"]
        self.stem = Unit(
            spec, shape.channels, shape.stem, shape.kernel, stride, has_spikes, "conv-bn-fire"
        )
        self.pool = pool() if options["pool"] else None
        self.stages = nn.ModuleList(_stage(spec, shape, i) for i in range(len(shape.blocks)))
        if not has_spikes:
            self.fire = spec.fire()
        self.head = nn.Linear(shape.outer[-1], shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns class scores ``[N, classes]`` of pictures ``[N, C, H, W]``."""
        x = self.stem(self.timed(x))
        if self.pool is not None:
            x = stepwise(x, self.pool)
        by_stage, by_block = [x], [x]
        for stage in self.stages:
            older = {"sum": [x], "stages": by_stage, "blocks": by_block}[self.spec.projections]
            *added, x = stage(x, older)
            by_stage, by_block = [*by_stage, x], [*by_block, *added]
        if self.spec.domain == "potentials":
            x = self.fire(x)
        scores: Tensor = self.head(x.mean((3, 4)).mean(0))
        return scores


def _stage(spec: Spec, shape: Shape, i: int) -> Stage:
    """The stage of this number, its first block of stride 2 where it is not the first stage."""
    outputs = (shape.stem, *shape.outer)
    strides = [2 if i else 1] + [1] * (shape.blocks[i] - 1)
    inputs = [outputs[i]] + [shape.outer[i]] * (shape.blocks[i] - 1)
    blocks = [
        Block(spec, (width, shape.inner[i], shape.outer[i]), stride, shape.layers)
        for width, stride in zip(inputs, strides, strict=True)
    ]
    sources = _sources(spec.projections, shape.blocks[:i]) if shape.shortcuts[i] else []
    shortcuts = [
        Unit(spec, outputs[source], shape.outer[i], 1, _stride(source, i), spec.fires)
        for source in sources
    ]
    return Stage(blocks, shortcuts)


def _stride(source: int, stage: int) -> int:
    """From the end of stage number ``source`` (0: the stem) to that after stage ``stage``."""
    halved = stage if source == 0 else stage - source + 1
    return int(2**halved)
