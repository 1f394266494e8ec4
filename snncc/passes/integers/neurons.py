"""Kinds of neurons: what one of float stages becomes on integers, and what that is in a Program.

A kind is an operator that fires (``snncc.ir.traits``), the borders of its counts
(``snncc.ir.neurons``), and its rules here. To add one, add an entry to ``KINDS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.carried import carry_of
from snncc.ir.graphs import attribute, constant
from snncc.ir.ops import OPS
from snncc.passes.integers.levels import levels
from snncc.passes.integers.membranes import membrane
from snncc.program.membrane import Factor, fixed_decays

if TYPE_CHECKING:
    from snncc.passes.integers.grid import Grid

__all__ = ["KINDS", "Counter", "Kind", "Refusal", "kind_of", "program_fields"]

Integers = npt.NDArray[np.int64]
Words = tuple[str, str]

#: Bits of a membrane beyond its potential that room is kept for.
_MEMBRANE_BITS = 16


@dataclass(frozen=True, eq=False)
class Counter:
    """A neuron of stage ``quantised``, but for its potential.

    Attributes:
        constants: Its further inputs in their order, by what they are called.
        attributes: Of the node.
        D: Its largest count.
        rounding: What people call its rule.
    """

    constants: Mapping[str, Integers]
    D: int
    rounding: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Refusal:
    """Why a neuron has no integers on the grid of its potential.

    Attributes:
        what, todo: As in a fault.
        instead: What to go on with, to find all faults at once; none: nothing.
    """

    what: str
    todo: str
    instead: Counter | None = None


@dataclass(frozen=True)
class Kind:
    """The rules of one kind.

    Attributes:
        fault: Of a node: why its settings are those of no neuron and what to do, or None.
        counter: Of a node and the grid of its potential: what counts, or why nothing does.
        membrane_bits: Of a node: bits of its membrane beyond its potential that need room.
        fields: Of the node that counts: what a Program's neuron has of it beyond its levels.
    """

    fault: Callable[[ir.Node], Words | None]
    counter: Callable[[ir.Node, Grid], Counter | Refusal]
    membrane_bits: Callable[[ir.Node], int]
    fields: Callable[[ir.Node], dict[str, Any]]


def kind_of(node: ir.Node) -> Kind:
    """The rules of a neuron of float stages."""
    return KINDS[node.op_type]


def program_fields(node: ir.Node) -> dict[str, Any]:
    """What a Program's neuron has of a neuron of stage ``quantised`` beyond its levels."""
    kind = next(k for op, k in KINDS.items() if OPS[op].traits.becomes == node.op_type)
    return kind.fields(node)


# -- no memory: levels of the potential itself ---------------------------------------------


_ROUNDINGS = ("half-even", "half-up", "down")
#: No quantiser's integers begin further from 0: they have 16 bits.
_FURTHEST = 2**15


def _integer_fault(node: ir.Node) -> Words | None:
    D, norm, rounding = (attribute(node, name) for name in ("D", "norm", "rounding"))
    low = attribute(node, "low", 0)
    if 1 <= D <= 255 and 0 < norm < inf and rounding in _ROUNDINGS and abs(low) <= _FURTHEST:
        return None
    what = f"D={D} norm={norm:g} rounding='{rounding}'{f' low={low}' if low else ''} is no neuron"
    return what, "D in 1..255, a positive norm, 'half-even' or 'half-up'"


def _integer_counter(node: ir.Node, grid: Grid) -> Counter | Refusal:
    D, rounding, low = attribute(node, "D"), attribute(node, "rounding"), attribute(node, "low", 0)
    rule = _counted_from(rounding, low)
    bad = next((i for i, t in enumerate(grid.thresholds) if t <= 0), None)
    if bad is not None:
        plain = Counter({"levels": levels([Fraction(1)], D, rule)}, D, rounding)
        return Refusal(f"channel {bad}: negative scale before it", "a positive one", plain)
    table = levels(grid.thresholds, D, rule, [shift - low for shift in grid.shifts])
    same = (table == table[:1]).all()
    return Counter({"levels": table[:1] if same else table}, D, rounding)


def _counted_from(rounding: str, low: int) -> str:
    """The rule of counts from ``low``: of these the even ones may be the integers that are odd."""
    if rounding == "half-even" and low % 2:
        return "half-odd"
    return ">=" if rounding == "down" else rounding


# -- a membrane that stays: levels, threshold and decay on a grid of its own, which is finer ---


#: What a reset is on integers, where that has another name: spikes take a threshold of 0.
_CARRIES = {"none": "soft"}


def _stateful_counter(node: ir.Node, grid: Grid) -> Counter | Refusal:
    if any(grid.shifts) or any(t <= 0 for t in grid.thresholds):
        what = "a shift or negative scale before a neuron with memory"
        return Refusal(what, "a layer right before it")
    carry = carry_of(node)
    made = membrane(grid, carry)
    if made is None:
        return Refusal("its membrane does not fit 64 bits", "fewer weight bits")
    (numerators, shift), (slow, slow_shift) = _by_channel(made.decay), _by_channel(made.current)
    attributes = {
        "T": carry.T, "numerator": numerators, "shift": shift, "fraction": made.fraction,
        "reset": _CARRIES.get(carry.reset, carry.reset), "current": slow,
        "current_shift": slow_shift,
    }  # fmt: skip
    constants = {"levels": made.levels, "threshold": made.threshold}
    return Counter(constants, carry.D, carry.rule, attributes)


def _by_channel(decay: Factor) -> tuple[list[int], int]:
    """As a node has it."""
    numerator, shift = decay
    return [numerator] if isinstance(numerator, int) else [*numerator], shift


def _of_program(numerators: Sequence[int], shift: int) -> Factor:
    """As a Program has it."""
    return numerators[0] if len(numerators) == 1 else tuple(numerators), shift


def _stateful_bits(node: ir.Node) -> int:
    """Those in which a simple decay is exact, if they are few.

    Where it is rounded anyway, a finer potential is worth as much.
    """
    carry = carry_of(node)
    shift = max(fixed_decays(decay)[1] for decay in (carry.decay, carry.current))
    exact = shift * (carry.T - 1)
    return shift + (exact if exact <= _MEMBRANE_BITS else 0) + carry.T.bit_length() + 1


def _stateful_fields(node: ir.Node) -> dict[str, Any]:
    return {
        "carry": attribute(node, "reset"),
        "decay": _of_program(attribute(node, "numerator"), attribute(node, "shift")),
        "fraction": attribute(node, "fraction"),
        "current": _of_program(attribute(node, "current"), attribute(node, "current_shift")),
        "threshold": constant(node.inputs[2]),
    }


#: By operator.
KINDS: Mapping[str, Kind] = {
    "IntegerFire": Kind(_integer_fault, _integer_counter, lambda _: 0, lambda _: {}),
    "StatefulFire": Kind(lambda _: None, _stateful_counter, _stateful_bits, _stateful_fields),
}
