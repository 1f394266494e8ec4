"""recognise-qdq: QuantizeLinear -> DequantizeLinear pairs become SFA neurons.

A pair computes s * k, with k = clip(round(x / s) + z, low, high) - z. Where k runs from 0 to D, by
its type, its zero point, a Clip between the two or clamps before and after them, that is an SFA
neuron of D levels. Where k begins elsewhere, as in signed and offset quantisers, the neuron counts
k - low, and k is an affine map of that: what is added ends in the biases of the layers that read
it. At the network's input a pair is the grid of the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import isinf
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.exact import unit_attributes, unit_of
from snncc.ir.graphs import (
    Edit,
    attribute,
    constant,
    integer_range,
    is_op,
    nodes,
    only_reader,
    replace_value,
    static_shape,
)
from snncc.ir.lineage import Lineage
from snncc.ir.names import NEW, PIXELS, SOURCE
from snncc.ir.ops import traits
from snncc.passes.base import Pass
from snncc.passes.reading import identity_layer, is_branch_sum
from snncc.passes.recognise.advice import FEWER_BITS, LEVELS, NO_PAIR, ONE_PAIR, ONE_ZERO, POSITIVE
from snncc.passes.recognise.distribute_linear import carries_spikes
from snncc.passes.recognise.recognise_integer_fire import clamp_of, unclamped

__all__ = ["InputGrid", "Pair", "RecogniseQdq", "input_grid", "why_no_pair"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class RecogniseQdq(Pass):
    """Pairs become IntegerFire, the input's pair QuantizeInput; repeated pairs go."""

    name: ClassVar[str] = "recognise-qdq"
    stage_in: ClassVar[str] = "imported"
    stage_out: ClassVar[str] = "imported"

    def run(self, model: ir.Model) -> int:
        """In topological order, so that a pair knows whether it reads spikes."""
        count, maker = 0, _Maker(self.name, Lineage.of(model))
        for node in nodes(model, "QuantizeLinear"):
            for pair in _parts(node, [*model.graph.inputs]):
                if (new := _lowered(pair, model, maker)) is not None:
                    pair.become(new)
                    count += 1
        maker.lineage.write(model)
        return count


@dataclass(frozen=True)
class Pair:
    """A quantiser with its dequantisers.

    Attributes:
        node: The QuantizeLinear.
        x: What it reads.
        outs: Results of the dequantisers, which all compute the same.
        scale: () or (C,), float32, positive.
        zero_point: The integer that stands for 0.
        low, high: Range of integers.
        axis: Of a scale per channel.
    """

    node: ir.Node
    x: ir.Value
    outs: tuple[ir.Value, ...]
    scale: Array
    zero_point: int
    low: int
    high: int
    axis: int

    @property
    def span(self) -> tuple[ir.Value, int, int]:
        """What is quantised after its clamps, and the smallest and largest k."""
        low, high = self.low - self.zero_point, self.high - self.zero_point
        x, floor, ceiling = unclamped(self.x)
        ends = [{_steps(end, unit) for unit in self.units} for end in (floor, ceiling)]
        if any(len(found) > 1 for found in ends):
            return self.x, low, high  # the clamp means another level for every channel
        lower, upper = (found.pop() for found in ends)
        return x, int(min(max(low, lower), high)), int(max(min(high, upper), low))

    @property
    def units(self) -> list[Fraction]:
        """The scales, exactly."""
        return [Fraction(v) for v in self.scale.reshape(-1).astype(np.float64).tolist()]

    @property
    def fault(self) -> str | None:
        """Why this is not an SFA neuron, or None."""
        _, low, high = self.span
        if 1 <= high - low <= 255:
            return None
        scale = f"{self.scale.flat[0]:.4g}" if self.scale.size == 1 else "per channel"
        where = f"{low}..{high}, scale {scale}, zero point {self.zero_point}"
        if (bits := (high - low).bit_length()) > 8:
            return f"quantiser of {bits} bits, {where}; activations have 8 at most"
        return f"quantiser {where}: it has one level, and nothing to count"

    @property
    def remedy(self) -> str:
        """What to do about the fault."""
        _, low, high = self.span
        return FEWER_BITS if high - low > 255 else LEVELS

    def become(self, new: ir.Value) -> None:
        """Let all readers of the dequantisers read ``new``."""
        for i, out in enumerate(self.outs):
            is_last = i == len(self.outs) - 1
            replace_value(out, new, keep_name=is_last and new.name == f"{out.name}{NEW}")

    def column(self, values: Array) -> Array:
        """Scales as they meet the elements of x."""
        rank = len(self.x.shape or ())
        if values.size == 1:
            return values.reshape(())
        return values.reshape([-1 if i == self.axis else 1 for i in range(1, rank)])


def _steps(end: float, unit: Fraction) -> float:
    """Where a clamp lies in steps of the quantiser, rounded as that rounds."""
    return end if isinf(end) else round(Fraction(end) / unit)


def why_no_pair(node: ir.Node) -> tuple[str, str]:
    """What keeps the QuantizeLinear ``node`` from being a neuron, and what to do."""
    if faulty := [pair for pair in _parts(node) if pair.fault is not None]:
        return faulty[0].fault or "", faulty[0].remedy
    scale, zero = (constant(v) for v in (*node.inputs[1:], None)[:2])
    if scale is not None and not (scale > 0).all():
        return f"scale {float(scale.min()):.4g} is not positive", POSITIVE
    if zero is not None and np.ptp(zero.astype(np.int64)):
        return "zero points that differ from channel to channel", ONE_ZERO
    return NO_PAIR, ONE_PAIR


def pair_at(node: ir.Node) -> Pair | None:
    """The pair that begins with the QuantizeLinear ``node``, if its constants can be read."""
    x, scale = node.inputs[0], constant(node.inputs[1])
    limits = integer_range(node.outputs[0].dtype)
    if x is None or scale is None or limits is None or not (scale > 0).all():
        return None
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros((), np.int64)
    rank = len(x.shape or ())
    if zero is None or np.ptp(zero.astype(np.int64)) or scale.ndim > 1 or not rank:
        return None
    axis = attribute(node, "axis", 1) % rank
    if scale.size > 1 and axis != 1:
        return None
    low, high, quantised = _clipped(node.outputs[0], *limits)
    readers = [user for user, _ in quantised.uses()]
    if not readers or not all(_is_inverse(user, node) for user in readers):
        return None
    outs = tuple(user.outputs[0] for user in readers)
    return Pair(
        node, x, outs, scale.astype(np.float32), int(zero.astype(np.int64).flat[0]), low, high, axis
    )


def _clipped(q: ir.Value, low: int, high: int) -> tuple[int, int, ir.Value]:
    """Range and value after the Clips of the integers ``q``."""
    while is_op(reader := only_reader(q), "Clip") and reader is not None:
        ends = [constant(v) for v in (*reader.inputs[1:], None, None)][:2]
        if any(end is None and v is not None for end, v in zip(ends, reader.inputs[1:])):  # noqa: B905
            break
        lower, upper = (None if end is None else int(end.astype(np.int64).flat[0]) for end in ends)
        low = low if lower is None else min(max(low, lower), high)
        high = high if upper is None else max(min(high, upper), low)
        q = reader.outputs[0]
    return low, high, q


def _is_inverse(node: ir.Node, quantiser: ir.Node) -> bool:
    """Whether ``node`` dequantises with the constants that ``quantiser`` has."""
    if node.op_type != "DequantizeLinear" or len(node.inputs) != len(quantiser.inputs):
        return False
    pairs = zip(node.inputs[1:], quantiser.inputs[1:], strict=True)
    found = [(constant(a), constant(b)) for a, b in pairs]
    same = all(a is not None and b is not None and np.array_equal(a, b) for a, b in found)
    return same and bool(attribute(node, "axis", 1) == attribute(quantiser, "axis", 1))


def _parts(node: ir.Node, inputs: Sequence[ir.Value] = ()) -> list[Pair]:
    """The pair that begins with ``node``, and as others what clamps make of its results."""
    whole = pair_at(node)
    if whole is None or whole.x in inputs:
        return [] if whole is None else [whole]
    apart: dict[tuple[int, int], list[ir.Value]] = {}
    for out in whole.outs:
        for user, _ in list(out.uses()):
            if (found := _clamped(whole, user)) is not None:
                apart.setdefault(found[:2], []).append(found[2])
    left = [v for v in whole.outs if v.is_graph_output() or _others_read(whole, v)]
    ends = [replace(whole, outs=tuple(outs), low=a, high=b) for (a, b), outs in apart.items()]
    return [*ends, *([replace(whole, outs=tuple(left))] if left or not ends else [])]


def _others_read(pair: Pair, out: ir.Value) -> bool:
    return any(_clamped(pair, user) is None for user, _ in out.uses())


def _clamped(pair: Pair, user: ir.Node) -> tuple[int, int, ir.Value] | None:
    """Integers and value after the clamp ``user`` of the pair's result; None: they are no steps."""
    if (clamp := clamp_of(user)) is None or user.outputs[0].is_graph_output():
        return None
    _, lower, upper = clamp
    ends = {(lower if isinf(lower) else Fraction(lower) / unit) for unit in pair.units}
    tops = {(upper if isinf(upper) else Fraction(upper) / unit) for unit in pair.units}
    if len(ends) > 1 or len(tops) > 1:
        return None
    low, high = pair.low - pair.zero_point, pair.high - pair.zero_point
    first, last = max(ends.pop(), low), min(tops.pop(), high)
    if first % 1 or last % 1 or first > last:
        return None
    return int(first) + pair.zero_point, int(last) + pair.zero_point, user.outputs[0]


# -- what a pair becomes -------------------------------------------------------------------


@dataclass(frozen=True)
class _Maker:
    """Who makes nodes, and what it says of where their values come from.

    ``grids``: of what counts from elsewhere than 0, the value of a step, first and last integer.
    """

    name: str
    lineage: Lineage
    grids: dict[ir.Value, tuple[list[Fraction], int, int]] = field(default_factory=dict)

    def edit(self, pair: Pair) -> Edit:
        """New nodes in front of the pair."""
        return Edit(pair.node, self.name)

    def note_counts(self, pair: Pair, count: str, low: int, of: str) -> None:
        """Say that ``count`` counts steps of the dequantised value ``of`` from ``low``."""
        steps = [str(unit) for unit in pair.units]
        self.lineage.note(count, "counts", of, steps=steps, low=low)


def _lowered(pair: Pair, model: ir.Model, maker: _Maker) -> ir.Value | None:
    """The value that takes the pair's place, or None where it is a near miss."""
    if (grid := input_grid(model)) is not None and pair.x in model.graph.inputs:
        return _source(pair, grid, maker)
    x, low, high = pair.span
    if pair.fault is not None:
        return None
    return _neuron(pair, x, high, maker) if low == 0 else _offset(pair, x, low, high, maker)


def _neuron(pair: Pair, x: ir.Value, D: int, maker: _Maker) -> ir.Value:
    if _on_grid(x, pair.units, 0, D, maker):
        return x
    joined = x.producer()
    is_joined = is_op(joined, "Concat") and carries_spikes(x) and pair.scale.size == 1
    if is_joined and joined is not None:
        return _neurons(pair, joined, D, maker)
    return _fire(pair, x, D, f"{pair.outs[-1].name}{NEW}", maker)


def _neurons(pair: Pair, joined: ir.Node, D: int, maker: _Maker) -> ir.Value:
    """A neuron for each of the spikes that are joined, where it has none yet."""
    name, x, axis = str(pair.outs[-1].name), joined.outputs[0], attribute(joined, "axis")
    parts, first = [], 0
    for i, part in enumerate(v for v in joined.inputs if v is not None):
        count = int((static_shape(part) or (0,))[0])
        is_done = _on_grid(part, pair.units, 0, D, maker)
        parts.append(part if is_done else _fire(pair, part, D, f"{name}/{i}", maker))
        if not is_done:
            kept = [*range(first, first + count)]
            maker.lineage.note(f"{name}/{i}", "channels", name, kept=kept)
        first += count
    edit = maker.edit(pair)
    return edit.op("Concat", *parts, name=f"{name}{NEW}", like=x, attributes={"axis": axis})


def _fire(pair: Pair, x: ir.Value, D: int, name: str, maker: _Maker) -> ir.Value:
    """IntegerFire of x / scale, times scale."""
    edit, base = maker.edit(pair), name.removesuffix(NEW)
    is_one = pair.scale.size == 1
    unit = pair.units[0] if is_one else Fraction(1)
    attributes = {"D": D, "rounding": "half-even", **unit_attributes(unit)}
    drive = _drive(pair, x, f"{base}.drive", maker)
    fired = edit.own(
        "IntegerFire", drive, name=name if is_one else f"{base}/count", like=x,
        attributes=attributes,
    )  # fmt: skip
    if is_one:
        return fired
    maker.note_counts(pair, f"{base}/count", 0, base)
    scale = edit.const(f"{name}.scale", pair.column(pair.scale))
    return edit.op("Mul", fired, scale, name=name, like=x)


def _drive(pair: Pair, x: ir.Value, name: str, maker: _Maker) -> ir.Value:
    """The quotient x / scale; over a sum of spikes a layer, which distributes over branches."""
    source, size = x.producer(), static_shape(x)
    is_sum = source is not None and is_branch_sum(source) and carries_spikes(x)
    if is_sum and size is not None and pair.scale.size == 1:
        return identity_layer(pair.node, x, size, maker.name, 1 / pair.units[0], name=name)
    edit = maker.edit(pair)
    return edit.op(
        "Div", x, edit.const(f"{name}.scale", pair.column(pair.scale)), name=name, like=x
    )


def _on_grid(x: ir.Value | None, units: list[Fraction], low: int, high: int, maker: _Maker) -> bool:
    """Whether x is made of such steps from low to high already: quantising again is identity.

    Pools of maxima, regrouping and concatenation pick elements; their padding never wins.
    """
    node = x.producer() if x is not None else None
    if x in maker.grids:
        known, first, last = maker.grids[x]
        return known == units and low <= first and last <= high
    if node is None or len(units) != 1:
        return False
    if node.op_type == "IntegerFire":
        return low <= 0 and bool(attribute(node, "D") <= high) and unit_of(node) == units[0]
    if traits(node).takes_maximum or traits(node).regroups:
        return _on_grid(node.inputs[0], units, low, high, maker)
    return is_op(node, "Concat") and all(_on_grid(v, units, low, high, maker) for v in node.inputs)


def _offset(pair: Pair, x: ir.Value, low: int, high: int, maker: _Maker) -> ir.Value:
    """A neuron of k - low, and the steps k after it."""
    if _on_grid(x, pair.units, low, high, maker):
        return x
    edit, name, like = maker.edit(pair), str(pair.outs[-1].name), pair.outs[-1]
    shift = edit.const(f"{name}.low", np.array(low, np.float32))
    scale = edit.const(f"{name}.scale", pair.column(pair.scale))
    steps = _drive(pair, x, f"{name}/steps", maker)
    attributes = {"D": high - low, "norm": 1.0, "rounding": "half-even", "low": low}
    count = edit.own("IntegerFire", steps, name=f"{name}/count", like=like, attributes=attributes)
    maker.note_counts(pair, f"{name}/count", low, name)
    k = edit.op("Add", count, shift, name=f"{name}/k", like=like)
    made = edit.op("Mul", k, scale, name=f"{name}{NEW}", like=like)
    maker.grids[made] = pair.units, low, high
    return made


# -- the input -----------------------------------------------------------------------------


@dataclass(frozen=True)
class InputGrid:
    """A network's own input quantiser: scale * (q - zero_point), q = 0..top.

    Attributes:
        scale: One number, or one per channel.
        zero_point: 0..top.
        top: Largest q.
    """

    scale: tuple[float, ...]
    zero_point: int
    top: int


def input_grid(model: ir.Model) -> InputGrid | None:
    """The grid on which the network itself puts its input, if it does so before all else."""
    readers = [user for user, _ in model.graph.inputs[0].uses() if user.op_type != "Shape"]
    node = readers[0] if len(readers) == 1 else None
    if is_op(node, "QuantizeInput") and node is not None:
        steps = constant(node.inputs[1])
        settings = attribute(node, "zero_point"), attribute(node, "top")
        return None if steps is None else InputGrid(tuple(steps.reshape(-1).tolist()), *settings)
    pair = pair_at(node) if is_op(node, "QuantizeLinear") and node is not None else None
    if pair is None or not 1 <= pair.high - pair.low <= 255:
        return None
    scale = tuple(pair.scale.reshape(-1).tolist())
    return InputGrid(scale, pair.zero_point - pair.low, pair.high - pair.low)


def _source(pair: Pair, grid: InputGrid, maker: _Maker) -> ir.Value:
    """QuantizeInput, and the affine map that dequantises, which ends in the first layers."""
    edit, x, name = maker.edit(pair), pair.x, str(pair.outs[-1].name)
    tail = (1,) * (len(x.shape or ()) - 2)
    scale = np.array(grid.scale, np.float32).reshape(1, -1, *tail)
    step = edit.const(f"{x.name}.scale", scale)
    q = edit.own(
        "QuantizeInput", x, step, edit.const(f"{x.name}.offset", np.zeros_like(scale)),
        name=f"{x.name}{PIXELS}", dtype=ir.DataType.UINT8, shape=x.shape,
        attributes={"zero_point": grid.zero_point, "top": grid.top},
    )  # fmt: skip
    real = edit.op(
        "Cast", q, name=f"{x.name}/own{SOURCE}", dtype=ir.DataType.FLOAT, shape=x.shape,
        attributes={"to": ir.DataType.FLOAT.value},
    )  # fmt: skip
    if grid.zero_point:
        centre = edit.const(f"{x.name}.zero_point", np.array(grid.zero_point, np.float32))
        real = edit.op("Sub", real, centre, name=f"{name}/k", like=x)
    return edit.op("Mul", real, step, name=f"{name}{NEW}", like=x)
