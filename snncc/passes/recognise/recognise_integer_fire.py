"""recognise-integer-fire: clamp-and-round in any of its spellings becomes one IntegerFire.

A quantiser is one rounding with any number of clamps on either side of it, so it is found by
peeling: from each rounding upwards and downwards. Clamps at integers commute with rounding, and
both rounding rules are monotone, so the order of the author does not matter. Nor does it matter
whether a scale is before a clamp or after it: round(clamp(x, 0, 1) * D), as in DoReFa and PACT.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import floor, inf, prod
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from snncc.ir.exact import Exact, unit_attributes, unit_of
from snncc.ir.graphs import Edit, attribute, constant, is_op, nodes, only_reader, replace_value
from snncc.ir.lineage import Lineage
from snncc.ir.names import NEW
from snncc.ir.ops import traits
from snncc.ir.standard_ops import ROUNDINGS
from snncc.passes.base import Pass

__all__ = [
    "RecogniseIntegerFire",
    "clamp_of",
    "is_inside",
    "is_part",
    "quantiser_at",
    "unclamped",
]

#: A limit of a clamp, exactly; infinite where there is none.
_Bound = float | Fraction


@dataclass(frozen=True)
class RecogniseIntegerFire(Pass):
    """Round, Floor(x + 0.5), Clip, Relu, Min, Max, scales, detours, Div by the norm."""

    name: ClassVar[str] = "recognise-integer-fire"
    stage_in: ClassVar[str] = "imported"
    stage_out: ClassVar[str] = "imported"

    def run(self, model: ir.Model) -> int:
        """Replace every quantiser low..high; what is nearly one is left for the diagnosis."""
        count, lineage = (
            sum(_drop_detour(node) for node in nodes(model, "Add", "Sub")),
            Lineage.of(model),
        )
        for node in nodes(model, "Round", "Floor"):
            if is_op(node, "Round") and _is_whole(node, self.name):
                count += 1
                continue
            found = quantiser_at(node)
            if found is not None and found.fault is None:
                _replace(found, self.name, lineage)
                count += 1
        for node in nodes(model, "IntegerFire"):
            count += _take_norm(node, self.name, lineage)
        lineage.write(model)
        return count


@dataclass(frozen=True)
class Quantiser:
    """A rounding with its clamps: integers low..high of x, or why it is none of ours.

    ``scales`` are multiplications and divisions of x between clamps and rounding.
    """

    x: ir.Value
    out: ir.Value
    low: float
    high: float
    rule: str
    anchor: ir.Node
    scales: tuple[ir.Node, ...] = ()

    @property
    def levels(self) -> int:
        """D."""
        return int(self.high - self.low)

    @property
    def fault(self) -> str | None:
        """Why this is not an SFA neuron, or None."""
        if self.high == inf:
            return "rounds without an upper bound"
        if self.low == -inf:
            return "rounds without a lower bound"
        if not 1 <= self.levels <= 255 or self.low % 1 or self.high % 1:
            return f"quantiser {_span(self)} has not 1 to 255 whole steps"
        return None


def _span(q: Quantiser) -> str:
    low = "-inf" if q.low == -inf else f"{q.low:g}"
    return f"{low}..{q.high:g}"


def _round(value: _Bound, rule: str) -> float:
    if abs(value) == inf:
        return float(value)
    exact = Fraction(value)
    if rule == "half-even":
        return float(round(exact))
    return float(floor(exact if rule == "down" else exact + Fraction(1, 2)))


def _scalar(value: ir.Value | None) -> float | None:
    array = constant(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def _limits_clip(node: ir.Node) -> tuple[float, float] | None:
    given = [*node.inputs[1:], None, None][:2]
    low, high = (_scalar(v) for v in given)
    if any(v is not None and s is None for v, s in zip(given, (low, high), strict=True)):
        return None
    return (-inf if low is None else low, inf if high is None else high)


def _limits_relu(node: ir.Node) -> tuple[float, float]:
    return 0.0, inf


def _limits_min(node: ir.Node) -> tuple[float, float] | None:
    bound = _other(node)
    return None if bound is None else (-inf, bound)


def _limits_max(node: ir.Node) -> tuple[float, float] | None:
    bound = _other(node)
    return None if bound is None else (bound, inf)


def _other(node: ir.Node) -> float | None:
    """The constant operand of a binary node."""
    return next((s for v in node.inputs if (s := _scalar(v)) is not None), None)


def _exact_other(node: ir.Node) -> Fraction | None:
    """The constant operand of a binary node, exactly."""
    numbers = [e for v in node.inputs if (e := Exact.of(v)) is not None and e.values.size == 1]
    return numbers[0].fractions()[0] if numbers else None


_CLAMPS: dict[str, Callable[[ir.Node], tuple[float, float] | None]] = {
    "Clip": _limits_clip,
    "Relu": _limits_relu,
    "Min": _limits_min,
    "Max": _limits_max,
}


def clamp_of(node: ir.Node | None) -> tuple[ir.Value, float, float] | None:
    """Input and limits of a clamp with constant limits."""
    if node is None or node.op_type not in _CLAMPS or node.domain:
        return None
    limits = _CLAMPS[node.op_type](node)
    inputs = [v for v in node.inputs if v is not None and constant(v) is None]
    return None if limits is None or len(inputs) != 1 else (inputs[0], *limits)


def rounding_of(node: ir.Node) -> tuple[ir.Value, str, float, float] | None:
    """Input, rule and limits of a rounding: Round is half-even, Floor(x + 0.5) half-up.

    The limits are those of clamps between the addition and the Floor; of a Floor without one,
    ``down``, there are none.
    """
    x = node.inputs[0]
    if x is None or node.op_type == "Round":
        return None if x is None else (x, "half-even", -inf, inf)
    inside, low, high = unclamped(x)
    half = inside.producer()
    if half is None or half.op_type != "Add" or _other(half) != 0.5:
        return x, "down", -inf, inf
    inner = next((v for v in half.inputs if constant(v) is None), None)
    limits = (v if abs(v) == inf else float(floor(v)) for v in (low, high))
    return (inner, "half-up", *limits) if inner is not None else None  # type: ignore[return-value]


def is_half(node: ir.Node | None) -> bool:
    """Whether a node is the addition in Floor(x + 0.5), perhaps with clamps between."""
    if node is None or node.op_type != "Add" or _other(node) != 0.5:
        return False
    reader = only_reader(node.outputs[0])
    while reader is not None and clamp_of(reader) is not None:
        reader = only_reader(reader.outputs[0])
    return reader is not None and reader.op_type == "Floor"


def quantiser_at(node: ir.Node) -> Quantiser | None:
    """Peel the clamps around the rounding ``node``."""
    found = rounding_of(node)
    if found is None:
        return None
    inner, rule, lower, upper = found
    x, first, last, scales = _unclamped_through_scales(inner)
    low, high = (_inside(_round(v, rule), lower, upper) for v in (first, last))
    out = node.outputs[0]
    while (clamp := clamp_of(only_reader(out))) is not None:
        _, lower, upper = clamp
        low, high = _inside(low, lower, upper), _inside(high, lower, upper)
        out = only_reader(out).outputs[0]  # type: ignore[union-attr]
    return Quantiser(x, out, low, high, rule, node, scales)


def unclamped(x: ir.Value) -> tuple[ir.Value, float, float]:
    """What a chain of clamps reads, and its limits altogether."""
    low, high = -inf, inf
    while (clamp := clamp_of(x.producer())) is not None:
        x, lower, upper = clamp
        low, high = _inside(lower, low, high), _inside(upper, low, high)
    return x, low, high


def _unclamped_through_scales(
    x: ir.Value,
) -> tuple[ir.Value, _Bound, _Bound, tuple[ir.Node, ...]]:
    """As ``unclamped``, also through scales that follow a clamp; limits are those after them."""
    low: _Bound
    high: _Bound
    x, low, high = unclamped(x)
    scales: list[ir.Node] = []
    at, factor, between = x, Fraction(1), list[ir.Node]()
    while (found := _scale_of(at.producer())) is not None:
        at, one, node = found
        factor, between = factor * one, [node, *between]
        ahead, lower, upper = unclamped(at)
        if ahead is not at:
            low, high = (min(max(_scaled(v, factor), low), high) for v in (lower, upper))
            x, scales = ahead, [*between, *scales]
            at, factor, between = x, factor, []
    return x, low, high, tuple(scales)


def _scaled(bound: _Bound, factor: Fraction) -> _Bound:
    return bound if abs(bound) == inf else Fraction(bound) * factor


def _scale_of(node: ir.Node | None) -> tuple[ir.Value, Fraction, ir.Node] | None:
    """Input and factor of a multiplication with, or division by, a positive number."""
    if node is None or node.op_type not in ("Mul", "Div") or node.domain:
        return None
    factor = _exact_other(node)
    inputs = [v for v in node.inputs if v is not None and constant(v) is None]
    if factor is None or factor <= 0 or len(inputs) != 1:
        return None
    if node.op_type == "Div" and inputs[0] is not node.inputs[0]:
        return None
    return inputs[0], factor if node.op_type == "Mul" else 1 / factor, node


def _reader_of(value: ir.Value) -> ir.Node | None:
    """The one node that reads ``value``, perhaps scaled, if there is exactly one."""
    reader = only_reader(value)
    while reader is not None and _scale_of(reader) is not None:
        reader = only_reader(reader.outputs[0])
    return reader


def is_inside(node: ir.Node) -> bool:
    """Whether a node is the addition in Floor(x + 0.5), or a scale between clamp and rounding."""
    found, reader = _scale_of(node), _reader_of(node.outputs[0])
    if found is None or not (is_op(reader, *ROUNDINGS) or is_half(reader)):
        return is_half(node)
    while (scale := _scale_of(found[0].producer())) is not None:
        found = scale
    return clamp_of(found[0].producer()) is not None


def is_part(node: ir.Node) -> bool:
    """Whether a clamp, scale or addition belongs to a rounding near it, or to a further clamp."""
    if clamp_of(node) is None:
        return is_inside(node)
    reader = _reader_of(node.outputs[0])
    if clamp_of(reader) is not None or is_half(reader) or is_op(reader, *ROUNDINGS):
        return True
    return is_op(unclamped(node.outputs[0])[0].producer(), *ROUNDINGS)


def _inside(bound: float, lower: float, upper: float) -> float:
    """What a clamp after it makes of a bound."""
    return min(max(bound, lower), upper)


def _replace(found: Quantiser, made_by: str, lineage: Lineage) -> None:
    """A neuron; one that counts from elsewhere than 0, and what it counts from added after it."""
    edit, x, base = Edit(found.anchor, made_by), found.x, str(found.out.name)
    for i, scale in enumerate(found.scales):  # those that a clamp follows
        args = [v if constant(v) is not None else x for v in scale.inputs]
        x = edit.op(scale.op_type, *args, name=f"{base}.scaled{i}", like=found.out)
    settings: dict[str, Any] = {"D": found.levels, "norm": 1.0, "rounding": found.rule}
    name = f"{base}/count" if found.low else f"{base}{NEW}"
    settings |= {"low": int(found.low)} if found.low else {}
    new = edit.own("IntegerFire", x, name=name, like=found.out, attributes=settings)
    if found.low:
        lineage.note(f"{base}/count", "counts", base, steps=["1"], low=int(found.low))
        low = edit.const(f"{base}.low", np.array(found.low, np.float32))
        new = edit.op("Add", new, low, name=f"{base}{NEW}", like=found.out)
    replace_value(found.out, new)


def _is_whole(node: ir.Node, made_by: str) -> bool:
    """A Round of integers goes; of integers but for what a scale has lost, that is put right.

    So a Trunc makes integers of a mean of spikes, before it drops bits of them.
    """
    x, out = node.inputs[0], node.outputs[0]
    found = _multiples(x)
    if x is None or found is None or out.is_graph_output():
        return False
    step, most = found
    if most * abs(step - 1) >= Fraction(1, 2):
        return False
    edit = Edit(node, made_by)
    factor = edit.const(f"{out.name}.whole", Exact.number(1 / step))
    replace_value(out, edit.op("Mul", x, factor, name=f"{out.name}{NEW}", like=out))
    return True


def _multiples(value: ir.Value | None) -> tuple[Fraction, int] | None:
    """What ``value`` holds whole multiples of, and the most of them, of either sign."""
    node = value.producer() if value is not None else None
    if node is None:
        return None
    if node.op_type == "IntegerFire":
        return unit_of(node), attribute(node, "D")
    if (scale := _scale_of(node)) is not None:
        found = _multiples(scale[0])
        return None if found is None else (found[0] * scale[1], found[1])
    asked = traits(node)
    if asked.takes_maximum or asked.regroups:
        return _multiples(node.inputs[0])
    if node.op_type == "AveragePool" and attribute(node, "count_include_pad", 0):
        found, count = _multiples(node.inputs[0]), prod(attribute(node, "kernel_shape"))
        return None if found is None else (found[0] / count, found[1] * count)
    return None


def _drop_detour(node: ir.Node) -> bool:
    """Straight-through spellings x + (q - x) and x - (x - q) are q."""
    left, right = node.inputs
    pairs = [(left, right), (right, left)] if node.op_type == "Add" else [(left, right)]
    for x, inner in pairs:
        sub = inner.producer() if inner is not None else None
        if sub is None or sub.op_type != "Sub":
            continue
        first, second = sub.inputs
        q, again = (first, second) if node.op_type == "Add" else (second, first)
        if x is not None and again is x and q is not None:
            replace_value(node.outputs[0], q, keep_name=False)
            return True
    return False


def _take_norm(fire: ir.Node, made_by: str, lineage: Lineage) -> bool:
    """A division (or multiplication) by a positive number right after becomes the norm."""
    if (only := only_reader(fire.outputs[0])) is None or only.op_type not in ("Div", "Mul"):
        return False
    factor = _exact_other(only)
    if (
        factor is None
        or factor <= 0
        or (only.op_type == "Div" and only.inputs[0] is not fire.outputs[0])
    ):
        return False
    unit = unit_of(fire) / factor if only.op_type == "Div" else unit_of(fire) * factor
    out, share = only.outputs[0], 1 / factor if only.op_type == "Div" else factor
    lineage.note(str(out.name), "times", str(fire.outputs[0].name), factor=str(share))
    attributes = {
        "D": fire.attributes["D"].as_int(),
        "rounding": fire.attributes["rounding"].as_string(),
        **({"low": fire.attributes["low"].as_int()} if "low" in fire.attributes else {}),
        **unit_attributes(unit),
    }
    edit = Edit(fire, made_by)
    new = edit.own(
        "IntegerFire", fire.inputs[0], name=f"{out.name}{NEW}", like=out, attributes=attributes
    )
    replace_value(out, new)
    return True
