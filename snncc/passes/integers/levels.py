"""Integer levels of a neuron: the smallest potentials at which its spikes 1..D are due."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, floor

import numpy as np
import numpy.typing as npt

__all__ = ["levels"]

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
    only for even k, half-odd only for odd k. Everything is rational, so ties are decided, not
    approximated.

    Args:
        thresholds: Potential of one spike, per channel, positive.
        D: Largest count.
        rounding: ``half-even``, ``half-odd`` or ``half-up``; with ``>=`` or ``>`` spike k is due at
            k, not k - 1/2.
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
    parity = {"half-even": 0, "half-odd": 1}.get(rounding)
    takes_tie = rounding in ("half-up", ">=") or parity == k % 2
    level = ceil(border) if takes_tie else floor(border) + 1
    return min(max(level, -_FAR), _FAR)
