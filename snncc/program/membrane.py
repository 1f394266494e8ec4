"""Numbers of membranes that stay over timesteps: decays as integers, and how far they reach."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

__all__ = [
    "Factor",
    "Reach",
    "fixed_decay",
    "fixed_decays",
    "is_simple",
    "membrane_reach",
]

#: (numerator, shift): numerator / 2**shift, of all channels or with a numerator of each.
Factor = tuple[int | tuple[int, ...], int]

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


def fixed_decays(decays: Sequence[float]) -> Factor:
    """The decay of all channels, or of each, with one shift: that of the one that needs most.

    >>> fixed_decays([0.75]), fixed_decays([0.75, 0.5])
    ((3, 2), ((3, 2), 2))
    """
    found = [fixed_decay(decay) for decay in decays]
    if len(set(found)) == 1:
        return found[0]
    most = max(shift for _, shift in found)
    return tuple(numerator << most - shift for numerator, shift in found), most


def _largest(decay: Factor) -> tuple[int, int]:
    """The decay of the channel that keeps most."""
    numerator, shift = decay
    return numerator if isinstance(numerator, int) else max(numerator), shift


def is_simple(decay: Factor) -> bool:
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
    decay: Factor,
    drive: int,
    loss: int,
    delayed: bool = False,
    current: Factor = (0, 0),
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
    (numerator, shift), (slow, slow_shift) = _largest(decay), _largest(current)
    before, after = (0, loss) if delayed else (loss, 0)
    reach = widest = flow = drive
    for _ in range(timesteps - 1):
        flown = slow * flow
        product = numerator * (reach + before)
        flows = (flown >> slow_shift) + drive + (slow > 0)
        new = (product >> shift) + 1 + flows + after
        widest = max(widest, product, flown, new)
        if (new, flows) == (reach, flow):
            break
        reach, flow = new, flows
    return Reach(reach, max(widest, reach + loss))
