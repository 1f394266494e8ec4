"""recognise-integer-fire: clamp-and-round in any of its spellings becomes one IntegerFire.

A quantiser is one rounding with any number of clamps on either side of it, so it is found by
peeling: from each rounding upwards and downwards. Clamps at integers commute with rounding, and
both rounding rules are monotone, so the order of the author does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import floor, inf
from typing import ClassVar

import onnx_ir as ir

from snncc.ir.graphs import Edit, constant, nodes, only_reader, replace_value
from snncc.passes.base import Pass

__all__ = [
    "RecogniseIntegerFire",
    "clamp_of",
    "is_half",
    "quantiser_at",
    "rounding_of",
    "unclamped",
]


@dataclass(frozen=True)
class RecogniseIntegerFire(Pass):
    """Round, Floor(x + 0.5), Clip, Relu, Min, Max, straight-through detours, Div by the norm."""

    name: ClassVar[str] = "recognise-integer-fire"
    stage_in: ClassVar[str] = "imported"
    stage_out: ClassVar[str] = "imported"

    def run(self, model: ir.Model) -> int:
        """Replace every quantiser 0..D; what is nearly one is left for the diagnosis."""
        count = sum(_drop_detour(node) for node in nodes(model, "Add", "Sub"))
        for node in nodes(model, "Round", "Floor"):
            found = quantiser_at(node)
            if found is not None and found.fault is None:
                _replace(found, self.name)
                count += 1
        for node in nodes(model, "IntegerFire"):
            count += _take_norm(node, self.name)
        return count


@dataclass(frozen=True)
class Quantiser:
    """A rounding with its clamps: integers low..high of x, or why it is none of ours."""

    x: ir.Value
    out: ir.Value
    low: float
    high: float
    rule: str
    anchor: ir.Node

    @property
    def levels(self) -> int:
        """D."""
        return int(self.high)

    @property
    def fault(self) -> str | None:
        """Why this is not an SFA neuron, or None."""
        if self.high == inf:
            return "rounds without an upper bound"
        if self.low < 0:
            return f"signed quantiser {_span(self)}; spikes count from 0"
        if self.low > 0 or not 1 <= self.high <= 255 or not self.high.is_integer():
            return f"quantiser {_span(self)} is not 0..D with D in 1..255"
        return None


def _span(q: Quantiser) -> str:
    low = "-inf" if q.low == -inf else f"{q.low:g}"
    return f"{low}..{q.high:g}"


def _round(value: float, rule: str) -> float:
    if abs(value) == inf:
        return value
    return float(round(value)) if rule == "half-even" else float(floor(value + 0.5))


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

    The limits are those of clamps between the addition and the Floor.
    """
    x = node.inputs[0]
    if x is None or node.op_type == "Round":
        return None if x is None else (x, "half-even", -inf, inf)
    x, low, high = unclamped(x)
    half = x.producer()
    if half is None or half.op_type != "Add" or _other(half) != 0.5:
        return None
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
    x, low, high = unclamped(inner)
    low, high = (_inside(_round(v, rule), lower, upper) for v in (low, high))
    out = node.outputs[0]
    while (clamp := clamp_of(only_reader(out))) is not None:
        _, lower, upper = clamp
        low, high = _inside(low, lower, upper), _inside(high, lower, upper)
        out = only_reader(out).outputs[0]  # type: ignore[union-attr]
    return Quantiser(x, out, low, high, rule, node)


def unclamped(x: ir.Value) -> tuple[ir.Value, float, float]:
    """What a chain of clamps reads, and its limits altogether."""
    low, high = -inf, inf
    while (clamp := clamp_of(x.producer())) is not None:
        x, lower, upper = clamp
        low, high = _inside(lower, low, high), _inside(upper, low, high)
    return x, low, high


def _inside(bound: float, lower: float, upper: float) -> float:
    """What a clamp behind it makes of a bound."""
    return min(max(bound, lower), upper)


def _replace(found: Quantiser, made_by: str) -> None:
    edit = Edit(found.anchor, made_by)
    attributes = {"D": found.levels, "norm": 1.0, "rounding": found.rule}
    new = edit.own(
        "IntegerFire", found.x, name=f"{found.out.name}~new", like=found.out, attributes=attributes
    )
    replace_value(found.out, new)


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


def _take_norm(fire: ir.Node, made_by: str) -> bool:
    """A division (or multiplication) by a positive number right behind becomes the norm."""
    if (only := only_reader(fire.outputs[0])) is None or only.op_type not in ("Div", "Mul"):
        return False
    factor = _other(only)
    if (
        factor is None
        or factor <= 0
        or (only.op_type == "Div" and only.inputs[0] is not fire.outputs[0])
    ):
        return False
    norm = fire.attributes["norm"].as_float() * (factor if only.op_type == "Div" else 1 / factor)
    out = only.outputs[0]
    attributes = {
        "D": fire.attributes["D"].as_int(),
        "norm": norm,
        "rounding": fire.attributes["rounding"].as_string(),
    }
    edit = Edit(fire, made_by)
    new = edit.own(
        "IntegerFire", fire.inputs[0], name=f"{out.name}~new", like=out, attributes=attributes
    )
    replace_value(out, new)
    return True
