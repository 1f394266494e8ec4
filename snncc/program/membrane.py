"""Numbers of membranes that stay over timesteps: decays as integers, and how far they reach."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

__all__ = ["Reach", "fixed_decay", "is_simple", "membrane_reach"]

#: Bits of a decay that is no simple binary fraction.
_SHIFT = 16
_SIMPLE = 8


def fixed_decay(decay: float) -> tuple[int, int]:
    """(numerator, shift) of a decay in 0..1: exact for k / 256, else rounded to 16 bits.

    >>> fixed_decay(0.75), fixed_decay(1.0)
    ((3, 2), (1, 0))
    """
    exact = Fraction(decay)
    if exact.denominator <= 1 << _SIMPLE:
        return exact.numerator, exact.denominator.bit_length() - 1
    return round(exact * (1 << _SHIFT)), _SHIFT


def is_simple(decay: tuple[int, int]) -> bool:
    """Whether a decay is one that is not rounded to 16 bits."""
    return decay[1] <= _SIMPLE


class Reach(NamedTuple):
    """The largest absolute numbers of a membrane.

    Attributes:
        compared: What is compared with the levels.
        widest: That, numerator * what stays, and what spikes leave of it.
    """

    compared: int
    widest: int


def membrane_reach(
    timesteps: int,
    decay: tuple[int, int],
    drive: int,
    loss: int,
    delayed: bool = False,
    current: tuple[int, int] = (0, 0),
) -> Reach:
    """How far a membrane reaches that stays over timesteps.

    Args:
        timesteps: T.
        decay: (numerator, shift).
        drive: Largest absolute potential, in units of the membrane.
        loss: The most that spikes take in a timestep.
        delayed: They take it in the next one, after the decay.
        current: (numerator, shift) of the decay of the current that the potential goes into.
    """
    numerator, shift = decay
    before, after = (0, loss) if delayed else (loss, 0)
    reach = widest = flow = drive
    for _ in range(timesteps - 1):
        flown = current[0] * flow
        product = numerator * (reach + before)
        flows = (flown >> current[1]) + drive + (current[0] > 0)
        new = (product >> shift) + 1 + flows + after
        widest = max(widest, product, flown, new)
        if (new, flows) == (reach, flow):
            break
        reach, flow = new, flows
    return Reach(reach, max(widest, reach + loss))
