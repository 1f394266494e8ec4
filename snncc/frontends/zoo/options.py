"""What the weights of a published network do not carry, with the families' values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from snncc.errors import Option, UsageError, Words
from snncc.frontends.zoo.e_spikeformer import TAPS

__all__ = ["BACKBONE", "BASE", "DVS", "LARGE", "MASKED", "chosen", "told_by"]

#: norm none: D itself. scale none: 2 / sqrt(channels of a head).
BASE: Mapping[str, Any] = {
    "D": 4,
    "norm": None,
    "rounding": "half-even",
    "heads": 8,
    "scale": None,
}
DVS: Mapping[str, Any] = {**BASE, "norm": 1.0}
BACKBONE: Mapping[str, Any] = {**BASE, "tap": 4}
LARGE: Mapping[str, Any] = {**BASE, "rounding": "half-up", "scale": 0.125}
#: patches none: those of a square image.
MASKED: Mapping[str, Any] = {**LARGE, "patches": None}

_Judge = Callable[[Any], bool]


def _integer(low: int, high: int) -> _Judge:
    return lambda value: type(value) is int and low <= value <= high


def _positive(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0


def _pair(value: Any) -> bool:
    is_list = isinstance(value, (list, tuple)) and len(value) == 2
    return is_list and all(type(number) is int and 1 <= number <= 1024 for number in value)


def _tap(value: Any) -> bool:
    return value in TAPS if isinstance(value, str) else _integer(1, 4)(value)


def _numbers(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and 1 <= len(value) <= 16
        and all(isinstance(number, (int, float)) and math.isfinite(number) for number in value)
    )


def _positives(value: Any) -> bool:
    return _numbers(value) and all(map(_positive, value))


def _flags(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 4 and set(value) <= {"0", "1"}


def _tau(value: Any) -> bool:
    return _positive(value) and value >= 1


_RANGES: dict[str, tuple[_Judge, str]] = {
    "D": (_integer(1, 255), "an integer from 1 to 255"),
    "norm": (_positive, "a number above 0"),
    "rounding": (lambda value: value in ("half-even", "half-up"), "half-even or half-up"),
    "heads": (_integer(1, 1024), "an integer from 1 to 1024"),
    "scale": (_positive, "a number above 0"),
    "patches": (_pair, "[H, W], how many there are down and across"),
    "T": (_integer(1, 1024), "an integer from 1 to 1024"),
    "tau": (_tau, "a number of at least 1"),
    "size": (_integer(1, 4096), "an integer from 1 to 4096, for height and width"),
    "mean": (_numbers, "a list of numbers, one per channel"),
    "std": (_positives, "a list of numbers above 0, one per channel"),
    "pools": (_flags, "four of 0 and 1, as '0011': a pool at that place of the stem, or none"),
    "pooling": (
        lambda value: value in ("spikes", "potentials"),
        "spikes, for pools after neurons, or potentials, for pools before",
    ),
    "spreads": (lambda value: isinstance(value, bool), "true or false"),
    "tap": (_tap, f"1 to 4, for strides 2, 4, 8 and 16, or one of {', '.join(TAPS)}"),
}


def _fits(key: str, value: Any, defaults: Mapping[str, Any]) -> bool:
    """Whether a value is in its range, or null where that means something."""
    return _RANGES[key][0](value) or (value is None and defaults[key] is None)


#: What options are called in the arguments of published training scripts, which their files hold.
_IN_FILES: Mapping[str, tuple[str, ...]] = {
    "T": ("time_step", "time_steps", "T"),
    "heads": ("num_heads",),
    "pools": ("pooling_stat",),
    "spreads": ("dvs_mode",),
    "size": ("img_size",),
    "mean": ("mean",),
    "std": ("std",),
}


def told_by(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Options among the arguments of a training, as far as they are in range.

    Args:
        arguments: What the file holds under ``args``.
    """
    found = {}
    for option, spellings in _IN_FILES.items():
        values = [arguments[key] for key in spellings if arguments.get(key) is not None]
        if values and _RANGES[option][0](values[0]):
            found[option] = values[0]
    return found


def chosen(
    name: str,
    defaults: Mapping[str, Any],
    given: Mapping[str, Any],
    told: Mapping[str, Any],
) -> dict[str, tuple[Any, str]]:
    """All options of a network -> (value, origin).

    Args:
        name: Of the network, for messages.
        defaults: The family's values.
        given: The user's.
        told: The file's.

    Raises:
        UsageError: An option is unknown, or a value is outside its range; all are named.
    """
    unknown = [key for key in given if key not in defaults]
    if unknown:
        words = f": no {', '.join(unknown)}; it takes {', '.join(defaults)}"
        raise UsageError(Words(Option("arch", name), " ", Option("arch_args"), words))
    wrong = [
        f"{key} is {value!r}, give {_RANGES[key][1]}"
        for key, value in given.items()
        if not _fits(key, value, defaults)
    ]
    if wrong:
        words = f": {'; '.join(wrong)}"
        raise UsageError(Words(Option("arch", name), " ", Option("arch_args"), words))
    return {key: _first(key, value, given, told) for key, value in defaults.items()}


def _first(
    key: str, default: Any, given: Mapping[str, Any], told: Mapping[str, Any]
) -> tuple[Any, str]:
    """The value that counts, and who gave it."""
    if key in given:
        return given[key], "given"
    return (told[key], "the file's args") if key in told else (default, "the family's")
