"""Integer levels of a neuron: the smallest potentials at which its spikes 1..D are due."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["levels", "rational"]

#: No potential is as large: a level there is always or never reached.
_FAR = 2**61


def levels(
    thresholds: Sequence[Fraction],
    D: int,
    rounding: str,
    shifts: Sequence[Fraction] | None = None,
) -> npt.NDArray[np.int64]:
    """Levels L so that (number of L_k <= v) == clip(round(v / threshold + shift), 0, D), exactly.

    Spike k is due at v / threshold + shift >= k - 1/2; half-even rounding takes the tie itself
    only for even k. Everything is rational, so ties are decided, not approximated.

    Args:
        thresholds: Potential of one spike, per channel, positive.
        D: Largest count.
        rounding: ``half-even`` or ``half-up``; with ``>=`` or ``>`` spike k is due at k, not
            k - 1/2.
        shifts: Added to v / threshold, per channel; default 0.

    Returns:
        int64 (C, D), never decreasing along D.
    """
    offsets = shifts or [Fraction(0)] * len(thresholds)
    table = [
        [_level(threshold, shift, k, rounding) for k in range(1, D + 1)]
        for threshold, shift in zip(thresholds, offsets, strict=True)
    ]
    return np.array(table, dtype=np.int64)


def _level(threshold: Fraction, shift: Fraction, k: int, rounding: str) -> int:
    reaches = rounding in (">=", ">")
    border = threshold * ((Fraction(k) if reaches else Fraction(2 * k - 1, 2)) - shift)
    takes_tie = rounding in ("half-up", ">=") or (rounding == "half-even" and k % 2 == 0)
    level = ceil(border) if takes_tie else floor(border) + 1
    return min(max(level, -_FAR), _FAR)


def rational(value: Any, limit: int = 1 << 16) -> Fraction:
    """The simple fraction a float32 stands for, e.g. 1/36 for float32(1/36), else its own value.

    Args:
        value: A float32 number.
        limit: Largest denominator tried, a power of 16.
    """
    single = np.float32(value)
    exact, size = Fraction(float(single)), 16
    while size <= limit:  # small denominators first: the closest fraction need not be the simplest
        simple = exact.limit_denominator(size)
        if simple != 0 and np.float32(simple.numerator / simple.denominator) == single:
            return simple
        size *= 16
    return exact
