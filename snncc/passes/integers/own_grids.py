"""Grids that weights have of their own: fixed point, and the integers of quantised files.

Where the weights of a channel are whole multiples of one fraction, nothing needs to round: the
potential of one spike is one over that fraction, odd, even or no integer at all, and levels decide
its ties; what is left of a bias goes into levels, too. Float weights are whole multiples of a power
of two, always: what counts is whether the bits hold the integers. Layers that are added have one
unit, channel by channel, and each stores its weights divided by 2**shift.

Weights that were integers times a scale, and became float32 by that, are found again up to 127.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod

import numpy as np
import numpy.typing as npt

from snncc.ir.exact import fraction_gcd, steps_of
from snncc.passes.reading import Linear

__all__ = ["Demands", "Kept", "Row", "common_step", "kept_channels", "shifts_for"]

Integers = npt.NDArray[np.int64]

#: Integers of a bias: beyond it what levels can take is left to them.
_MOST = 2**40
#: Integers that are sought in float32, and how far products of them and a scale may be off,
#: relative: by the rounding of the product, of a batch norm and of a scale that were folded in.
_SOUGHT, _ROUNDING = 127, 2.0**-22
#: Weights that a row needs for that, and how many are looked at first.
_ENOUGH, _FEW = 3, 8
#: Largest distance of a result's bias from whole units that passes for the rounding of its scale.
_NEAR = Fraction(1, 20)


@dataclass(frozen=True)
class Demands:
    """What the readers of a potential need of its grid.

    Attributes:
        one: One threshold for all channels.
        shift: Levels take what is left of a bias.
        rounds: The bias of a result may round by a twentieth of a unit.
        threshold: Thresholds must be integers up to this; None: any fractions.
    """

    one: bool = False
    shift: bool = True
    rounds: bool = False
    threshold: int | None = None


@dataclass(frozen=True, eq=False)
class Row:
    """One channel of one layer: weights ``whole * step``, bias ``first + more * size``.

    Attributes:
        layer, channel: Which.
        whole: Coprime integers; all 0 where ``step`` is.
        more: How a bias map differs from its first place, integers (H, W), or () where none does.
    """

    layer: int
    channel: int
    whole: Integers
    step: Fraction
    first: Fraction
    more: Integers
    size: Fraction


@dataclass(frozen=True, eq=False)
class Kept:
    """Rows that share a threshold, 1 / ``unit``; their integers count units."""

    rows: tuple[Row, ...]
    unit: Fraction
    demands: Demands

    def weight(self, row: Row) -> Integers:
        """The weights in units."""
        return row.whole * int(row.step / self.unit)

    def bias(self, row: Row) -> npt.NDArray[np.object_]:
        """The bias in whole units, Python's integers."""
        return np.asarray(row.more.astype(object) * int(row.size / self.unit) + self._start(row))

    def left(self, row: Row) -> Fraction:
        """What is left of the bias, in spikes."""
        return row.first - self._start(row) * self.unit if self.demands.shift else Fraction(0)

    def _start(self, row: Row) -> int:
        start = round(row.first / self.unit)
        return 0 if self.demands.shift and abs(start) > _MOST else start

    def largest(self, row: Row) -> int:
        """The largest weight in units."""
        return abs(int(row.step / self.unit)) * int(np.abs(row.whole).max(initial=0))

    def at(self, shifts: Sequence[int], largest: int) -> Kept | None:
        """The grid made so fine that weights divide by 2**shift of their layer; None: too large.

        Args:
            shifts: Of the layers.
            largest: Largest integer that the bits hold.
        """
        halves = [shifts[r.layer] - _twos(int(r.step / self.unit)) for r in self.rows if r.step]
        made = Kept(self.rows, self.unit / 2 ** max([0, *halves]), self.demands)
        most = self.demands.threshold
        fits = all(made.largest(r) <= largest << shifts[r.layer] for r in made.rows)
        whole = all(max(map(abs, made.bias(r).flat)) <= _MOST for r in made.rows)
        return made if fits and whole and (most is None or 1 / made.unit <= most) else None


def _twos(number: int) -> int:
    """How often a number can be halved."""
    return (number & -number).bit_length() - 1


def shifts_for(kept: Sequence[Kept], layers: int, largest: int) -> list[int]:
    """The least shift of each layer with which its weights fit, of those that ``kept`` has."""
    shifts = [0] * layers
    for one in kept:
        for row in one.rows:
            needed = max(one.largest(row) - 1, 0) // largest
            shifts[row.layer] = max(shifts[row.layer], needed.bit_length())
    return shifts


def kept_channels(layers: Sequence[Linear], demands: Demands, largest: int = 2**23) -> list[Kept]:
    """Channels of layers that share a grid, where all of them lie on one of their own.

    Args:
        layers: After all folding.
        demands: Of what reads their sum.
        largest: No layer alone may need larger integers.
    """
    found = [_rows(layer, i, demands.one, largest) for i, layer in enumerate(layers)]
    rows = [{row.channel: row for row in one} for one in found]
    if demands.one:
        pairs = zip(rows, layers, strict=True)
        whole = all(len(found) == len(layer.weights.values) for found, layer in pairs)
        sets = [[row for found in rows for row in found.values()]] if whole else []
    else:
        shared = sorted(set.intersection(*(set(found) for found in rows)))
        sets = [[found[c] for found in rows] for c in shared]
    return [_kept(tuple(chosen), demands) for chosen in sets]


def _rows(layer: Linear, index: int, one: bool, largest: int) -> Iterator[Row]:
    """Channels whose weights, and a bias map if there is one, are whole multiples of something."""
    firsts = layer.biases.fractions()
    for c, (whole, size) in sorted(_steps(layer, one, largest).items()):
        step = size * layer.weights.row_units[c]
        if (border := _border(layer, c)) is not None:
            start, more, unit = border
            yield Row(index, c, whole, step, firsts[c] + start, more, unit)


def _steps(layer: Linear, one: bool, largest: int) -> dict[int, tuple[Integers, Fraction]]:
    """Integers and step of each channel that has some; of ``one`` scale all have the same."""
    steps, weights = layer.steps, layer.weights.values
    tops = np.abs(steps.whole.reshape(len(steps.whole), prod(weights.shape[1:])))
    small = np.flatnonzero(tops.max(axis=1, initial=0) <= largest).tolist()
    channels = np.flatnonzero(steps.found).tolist()
    found = {channels[i]: (steps.whole[i], steps.size(i)) for i in small}
    off = np.flatnonzero(~steps.found)
    if one and off.size:
        for whole, size in _rounded_steps(weights.reshape(1, -1)).values():
            return {c: (row, size) for c, row in enumerate(whole.reshape(weights.shape))}
        return {}
    rows = weights[off].reshape(len(off), prod(weights.shape[1:]))
    for i, (whole, size) in _rounded_steps(rows).items():
        found[int(off[i])] = whole.reshape(weights.shape[1:]), size
    return found


def _rounded_steps(rows: npt.NDArray[np.float64]) -> dict[int, tuple[Integers, Fraction]]:
    """Rows that are integers up to 127 times a scale, but for the rounding of float32."""
    if not rows.size:
        return {}
    top = np.maximum(np.abs(rows).max(axis=1), 1e-300)
    few = (rows[:, :_FEW] / top[:, None]).astype(np.float64)[:, :, None] * np.arange(1, _SOUGHT + 1)
    likely = (np.abs(few - np.rint(few)) <= 4 * _ROUNDING * np.abs(few)).all(axis=1)
    found = {}
    for i in np.flatnonzero(likely.any(axis=1)).tolist():
        tried = (_of_scale(rows[i], top[i], int(m) + 1) for m in np.flatnonzero(likely[i]))
        if (first := next((one for one in tried if one is not None), None)) is not None:
            found[i] = first
    return found


def _of_scale(
    row: npt.NDArray[np.float64], top: float, most: int
) -> tuple[Integers, Fraction] | None:
    """The row as integers, ``most`` for the largest, times a scale: a float32 if one serves."""
    numbers = row.astype(np.float64)
    whole = np.rint(numbers * (most / top))
    if np.count_nonzero(whole) < _ENOUGH:
        return None
    scale = float(numbers @ whole) / float(whole @ whole)  # averages what float32 rounded
    for one in (float(np.float32(scale)), scale):
        if (np.abs(numbers - whole * one) <= _ROUNDING * np.abs(numbers)).all():
            return whole.astype(np.int64), Fraction(one)
    return None


def _border(layer: Linear, channel: int) -> tuple[Fraction, Integers, Fraction] | None:
    """A channel's bias map: its first number, the others in steps from there, and their size."""
    if layer.border is None:
        return Fraction(0), np.zeros((), dtype=np.int64), Fraction(0)
    values, unit = layer.border.values[channel], layer.border.row_units[channel]
    found = steps_of(values.reshape(1, -1), largest=_MOST)
    if not found.found.all():
        return None
    whole, size = found.whole.reshape(values.shape), found.size(0) * unit
    return int(whole.flat[0]) * size, whole - whole.flat[0], size


def _kept(rows: tuple[Row, ...], demands: Demands) -> Kept:
    """The rows in the coarsest unit that serves them all."""
    needed = [abs(number) for row in rows for number in (row.step, row.size)]
    needed += [Fraction(1)] if demands.threshold is not None else []
    rough = Kept(rows, fraction_gcd(needed) or Fraction(1), demands)
    far = [abs(row.first - rough._start(row) * rough.unit) for row in rows]
    if demands.shift or (demands.rounds and max(far) <= _NEAR * rough.unit):
        return rough
    unit = fraction_gcd([*needed, *(abs(row.first) for row in rows)]) or Fraction(1)
    return Kept(rows, unit, demands)


def common_step(taps: npt.NDArray[np.float64], largest: int) -> Fraction:
    """The threshold at which positive weights are nearest to integers up to ``largest``.

    Branches of spikes that are added have one weight each, a ratio of two scales; the largest of
    them is exact.
    """
    k = np.arange(max(1, largest - 4095), largest + 1)
    theta = k / taps.max()
    found = np.rint(np.outer(theta, taps)) / theta[:, None]
    return Fraction(float(theta[np.abs(found - taps).max(axis=1).argmin()]))
