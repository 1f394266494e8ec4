"""The grid of a membrane that stays over timesteps: finer than that of its potential.

With a decay k / 2^m, m * (T - 1) further bits hold every membrane of T timesteps exactly. A current
before it does not add to them: what a potential has become after t timesteps has gone through t
decays in all, so that m of the finer of both is enough. Other decays are rounded to 16 bits,
membranes to 16 further bits: part of the quantisation, measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from snncc.ir.carried import Carry
from snncc.passes.integers.levels import levels
from snncc.program import TOTAL_LIMIT
from snncc.program.membrane import Factor, fixed_decays, membrane_reach

if TYPE_CHECKING:
    from snncc.passes.integers.grid import Grid

__all__ = ["Membrane", "membrane"]

_ROUNDED_BITS = 16
_SIMPLE_SHIFT = 8

_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Membrane:
    """What a StatefulFireCount needs: see there; levels (C|1, D), threshold (C|1,), int64."""

    levels: _Ints
    threshold: _Ints
    decay: Factor
    current: Factor
    fraction: int


def membrane(grid: Grid, carry: Carry) -> Membrane | None:
    """The finest grid that 64 bits hold, up to an exact one; None if there is none."""
    decay, current = fixed_decays(carry.decay), fixed_decays(carry.current)
    shift = max(decay[1], current[1])
    wanted = shift * (carry.T - 1) if shift <= _SIMPLE_SHIFT else _ROUNDED_BITS
    takes = carry.reset not in ("hard", "none")
    for fraction in range(wanted, -1, -1):
        thresholds = tuple(t * (1 << fraction) for t in grid.thresholds)
        loss = carry.D * (int(max(thresholds)) + 1) if takes else 0
        drive, is_late = grid.payload << fraction, carry.reset == "delayed"
        reach = membrane_reach(carry.T, decay, drive, loss, is_late, current)
        if reach.widest < TOTAL_LIMIT:
            return Membrane(*_borders(thresholds, carry), decay, current, fraction)
    return None


def _borders(thresholds: tuple[Fraction, ...], carry: Carry) -> tuple[_Ints, _Ints]:
    """Levels, and what a spike takes; one row if all channels have the same."""
    table = levels(thresholds, carry.D, carry.rule)
    takes = carry.reset != "none"
    taken = np.array([max(1, round(t)) * takes for t in thresholds], dtype=np.int64)
    if (table == table[:1]).all() and (taken == taken[:1]).all():
        table, taken = table[:1], taken[:1]
    return table, taken
