"""Exact numbers beside float32: what a constant stands for, and what one spike is worth.

Graphs of float stages run in float32, which holds neither a third nor the quotient of two scales.
Where the true number is known, it stays with what ONNX Runtime computes with: a constant is
``values * units``, floats times fractions that differ along some axes only, and a neuron has its
unit as attribute. Rounding borders are decided from these, never from their float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import gcd, lcm
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = [
    "Exact",
    "Steps",
    "fraction_gcd",
    "fraction_of",
    "steps_of",
    "unit_attributes",
    "unit_of",
]

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

#: Integers of a grid: beyond 24 bits no weights are kept.
_LARGEST = 2**23
#: Bits of an integer while it is sought.
_WIDEST = 62
#: Elements of a row that are looked at first.
_FEW = 8
#: Largest denominator of a number that is written in somebody's code.
_SIMPLE = 2**16


@dataclass(frozen=True, eq=False)
class Exact:
    """Numbers ``values * units``.

    Attributes:
        values: float32 or float64; each is the binary number that it is.
        units: Fractions (dtype object) of the same rank, 1 along axes where they do not vary; None:
            all are 1.
    """

    values: Array
    units: Array | None = None

    @staticmethod
    def of_fractions(numbers: Iterable[Fraction]) -> Exact:
        """A vector of any fractions."""
        units = [*numbers]
        values = np.array([float(unit != 0) for unit in units])
        return Exact(values, np.array([unit or Fraction(1) for unit in units], dtype=object))

    @staticmethod
    def in_rows(values: Array, units: Sequence[Fraction]) -> Exact:
        """Values (C, ...) times one fraction per row."""
        if all(unit == 1 for unit in units):
            return Exact(values)
        column = np.array(units, dtype=object).reshape(-1, *(1,) * (values.ndim - 1))
        return Exact(values, column)

    @staticmethod
    def number(value: Fraction) -> Exact:
        """One number, of rank 0."""
        return Exact.of_fractions([value]).moved(lambda array: array.reshape(()))

    @cached_property
    def real(self) -> npt.NDArray[np.float64]:
        """The nearest float64, in effect."""
        values = self.values.astype(np.float64)
        return values if self.units is None else values * self.units.astype(np.float64)

    @cached_property
    def row_units(self) -> list[Fraction]:
        """The unit of each row (axis 0); they may vary along no other axis."""
        count = len(self.values)
        if self.units is None:
            return [Fraction(1)] * count
        found: list[Fraction] = self.units.reshape(-1).tolist()
        return found * count if len(found) == 1 else found

    def fractions(self) -> tuple[Fraction, ...]:
        """All numbers in C order, for vectors."""
        values = [Fraction(v) for v in self.values.reshape(-1).astype(np.float64).tolist()]
        if self.units is None:
            return tuple(values)
        units = np.broadcast_to(self.units, self.values.shape).reshape(-1).tolist()
        return tuple(v * unit for v, unit in zip(values, units, strict=True))

    def moved(self, move: Callable[[Array], Array]) -> Exact:
        """Elements elsewhere: ``move`` must treat axes of size 1 as it treats whole ones."""
        return Exact(move(self.values), None if self.units is None else move(self.units))

    def rows(self, index: Array) -> Exact:
        """Some elements along axis 0."""
        units = self.units
        if units is not None and len(units) > 1:
            units = units[index]
        return Exact(self.values[index], units)

    def spread(self, count: int) -> Exact:
        """A vector of ``count`` numbers, of one for all or of so many."""
        values = np.broadcast_to(self.values.reshape(-1), count)
        return Exact(values, None if self.units is None else self.units.reshape(-1))

    def only(self, mask: Mask) -> Exact:
        """These rows, and zeros in others."""
        rows = mask.reshape(-1, *(1,) * (self.values.ndim - 1))
        return Exact(np.where(rows, self.values, 0), self.units)

    def by_row(self) -> Exact:
        """The same numbers, units varying along axis 0 alone; others are multiplied out."""
        if self.units is None or self.units.size == max(len(self.units), 1):
            return self
        return Exact(self.real)

    def tensor(self, name: str) -> ir.TensorProtocol:
        """A float32 initializer that knows its exact numbers."""
        single = self.values.astype(np.float32, copy=False)
        if self.units is None and (single is self.values or (single == self.values).all()):
            return ir.tensor(np.asarray(single, order="C"), name=name)
        return _ExactTensor(self, name)

    @staticmethod
    def of(value: ir.Value | None) -> Exact | None:
        """The numbers of a constant: as known, or else its elements."""
        if value is None or value.const_value is None:
            return None
        if value.producer() is None and not value.is_initializer():
            return None
        if isinstance(value.const_value, _ExactTensor):
            known = value.const_value.exact
            return Exact(known.values, known.units)  # what it computes once is not kept here
        return Exact(np.asarray(value.const_value.numpy()))


class _ExactTensor(ir.Tensor[npt.NDArray[np.float32]]):
    """A tensor of float32 and the numbers it stands for."""

    def __init__(self, exact: Exact, name: str) -> None:
        single = exact.values.astype(np.float32)
        small = Exact(single) if (single == exact.values).all() else exact
        self.exact = Exact(small.values, exact.units)
        array = np.asarray(exact.real.astype(np.float32), order="C")
        super().__init__(array, ir.DataType.FLOAT, shape=ir.Shape(array.shape), name=name)


def fraction_of(number: float) -> Fraction:
    """What a number in somebody's code means: a tenth of 0.1, a third of 1 / 3.

    Args:
        number: float64. Where no simple fraction is that, it is the binary number that it is.
    """
    simple = Fraction(number).limit_denominator(_SIMPLE)
    return simple if float(simple) == number else Fraction(number)


# -- what one spike is worth ---------------------------------------------------------------


def unit_of(node: ir.Node) -> Fraction:
    """Real value of one spike of a neuron: its ``unit``, else 1 / norm."""
    unit = node.attributes.get("unit")
    if unit is not None and unit.as_string():
        return Fraction(unit.as_string())
    return 1 / Fraction(node.attributes["norm"].as_float())


def unit_attributes(unit: Fraction) -> dict[str, Any]:
    """``norm``, and ``unit`` where float32 does not hold the norm: attributes of a neuron."""
    norm = np.float32(float(1 / unit))
    known = np.isfinite(norm) and norm > 0 and 1 / Fraction(float(norm)) == unit
    return {"norm": float(norm)} if known else {"norm": float(norm), "unit": str(unit)}


# -- grids of rows -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Steps:
    """Rows as whole multiples of a step of their own, where they are.

    Attributes:
        found: Rows that have one, bool (C,).
        whole: Their integers, int64 (rows found, ...), coprime in a row.
        common, exponents: Their steps are ``common * 2**exponents``; 0 of a row of zeros.
    """

    found: Mask
    whole: npt.NDArray[np.int64]
    common: npt.NDArray[np.int64]
    exponents: npt.NDArray[np.int64]

    def size(self, index: int) -> Fraction:
        """The step of the row of ``whole[index]``."""
        return int(self.common[index]) * Fraction(2) ** int(self.exponents[index])


def steps_of(values: Array, largest: int = _LARGEST) -> Steps:
    """The largest step of each row: floats are whole multiples of a power of two, exactly.

    Args:
        values: float32 or float64 (C, ...).
        largest: Rows with larger integers have no step.
    """
    flat = values.reshape(len(values), -1)
    likely = np.flatnonzero(_may_have_steps(flat, largest))
    integers, low, fits = _integers(flat[likely])
    common = np.gcd.reduce(integers, axis=1, initial=0)
    whole = integers // np.maximum(common, 1)[:, None]
    kept = fits & (np.abs(whole).max(axis=1, initial=0) <= largest)
    found = np.zeros(len(flat), dtype=bool)
    found[likely[kept]] = True
    return Steps(found, whole[kept].reshape(-1, *values.shape[1:]), common[kept], low[kept])


def _may_have_steps(rows: Array, largest: int) -> Mask:
    """Rows (C, n) that are not ruled out by their first few elements, bool (C,)."""
    few, _, fits = _integers(rows[:, :_FEW])
    common = np.maximum(np.gcd.reduce(few, axis=1, initial=0), 1)
    return np.asarray(fits & (np.abs(few).max(axis=1, initial=0) <= largest * common))


def _integers(rows: Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Mask]:
    """Rows as integers times 2**exponent, the exponent of each, and whether 62 bits hold them."""
    mantissa, exponent = np.frexp(rows.astype(np.float64))
    digits = (mantissa * 2.0**53).astype(np.int64)
    lowest = np.frexp((digits & -digits).astype(np.float64))[1] - 1  # trailing zeros
    is_zero = digits == 0
    ends = np.where(is_zero, 2**20, exponent - 53 + lowest)
    low = ends.min(axis=1, initial=2**20)
    high = np.where(is_zero, -(2**20), exponent).max(axis=1, initial=-(2**20))
    low = np.where(low == 2**20, 0, low).astype(np.int64)
    fits = high - low <= _WIDEST
    scaled = np.ldexp(rows.astype(np.float64), np.where(fits, -low, 0)[:, None])
    return np.where(fits[:, None], scaled, 0).astype(np.int64), low, fits


def fraction_gcd(numbers: Sequence[Fraction]) -> Fraction:
    """The largest fraction of which all are whole multiples; 0 where all are 0."""
    return Fraction(gcd(*(n.numerator for n in numbers)), lcm(*(n.denominator for n in numbers)))
