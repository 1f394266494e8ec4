"""What the weights of a published network do not carry, with the families' values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from snncc.errors import Option, UsageError, Words
from snncc.frontends.zoo.e_spikeformer import TAPS

__all__ = ["BACKBONE", "BASE", "DVS", "LARGE", "MASKED", "chosen"]

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


_RANGES: dict[str, tuple[_Judge, str]] = {
    "D": (_integer(1, 255), "an integer from 1 to 255"),
    "norm": (_positive, "a number above 0"),
    "rounding": (lambda value: value in ("half-even", "half-up"), "half-even or half-up"),
    "heads": (_integer(1, 1024), "an integer from 1 to 1024"),
    "scale": (_positive, "a number above 0"),
    "patches": (_pair, "[H, W], how many there are down and across"),
    "tap": (_tap, f"1 to 4, for strides 2, 4, 8 and 16, or one of {', '.join(TAPS)}"),
}


def _fits(key: str, value: Any, defaults: Mapping[str, Any]) -> bool:
    """Whether a value is in its range, or null where that means something."""
    return _RANGES[key][0](value) or (value is None and defaults[key] is None)


def chosen(
    name: str, defaults: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, tuple[Any, str]]:
    """All options of a network -> (value, origin).

    Args:
        name: Of the network, for messages.
        defaults: The family's values.
        given: The user's.

    Raises:
        UsageError: An option is unknown, or a value is outside its range; all are named.
    """
    unknown = [key for key in given if key not in defaults]
    if unknown:
        told = f": no {', '.join(unknown)}; it takes {', '.join(defaults)}"
        raise UsageError(Words(Option("arch", name), " ", Option("arch_args"), told))
    wrong = [
        f"{key} is {value!r}, give {_RANGES[key][1]}"
        for key, value in given.items()
        if not _fits(key, value, defaults)
    ]
    if wrong:
        told = f": {'; '.join(wrong)}"
        raise UsageError(Words(Option("arch", name), " ", Option("arch_args"), told))
    return {
        key: (given.get(key, value), "given" if key in given else "the family's")
        for key, value in defaults.items()
    }
