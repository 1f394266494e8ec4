"""What the weights of a published network do not carry, with the families' values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from snncc.errors import Option, UsageError, Words
from snncc.frontends.zoo.danet import ORDERS, RULES
from snncc.frontends.zoo.e_spikeformer import TAPS

__all__ = [
    "BACKBONE",
    "BASE",
    "CIFAR",
    "DVS",
    "IMAGENET",
    "LARGE",
    "MASKED",
    "ToTell",
    "chosen",
    "told_by",
]

#: Size and normalisation of pictures.
IMAGENET: Mapping[str, Any] = {
    "size": 224, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]
}  # fmt: skip
CIFAR: Mapping[str, Any] = {
    "size": 32, "mean": [0.4914, 0.4822, 0.4465], "std": [0.247, 0.2435, 0.2616]
}  # fmt: skip

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


@dataclass(frozen=True)
class ToTell:
    """Stands for the value of an option of which a family has none: somebody must tell.

    Attributes:
        what: It is that must be told, for messages.
        choices: Its values.
    """

    what: str
    choices: tuple[str, ...]


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


def _rising(value: Any) -> bool:
    return _positives(value) and list(value) == sorted({*value})


def _share(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and 0 <= value < 1


def _among(*words: str) -> tuple[_Judge, str]:
    """The judge of a value that is one of these words, and the words."""
    choice = f"{', '.join(words[:-1])} or {words[-1]}"
    return lambda value: value in words, choice


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _tau(value: Any) -> bool:
    return _positive(value) and value >= 1


_RANGES: dict[str, tuple[_Judge, str]] = {
    "D": (_integer(1, 255), "an integer from 1 to 255"),
    "norm": (_positive, "a number above 0"),
    "rounding": _among("half-even", "half-up"),
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
    "spreads": (_flag, "true or false"),
    "connect": _among("add", "and", "iand"),
    "decay": (_share, "a number from 0 to below 1"),
    "threshold": (_positive, "a number above 0"),
    "thresholds": (_rising, "a list of rising numbers above 0"),
    "domain": _among(*ORDERS),
    "order": _among(*(order for orders in ORDERS.values() for order in orders)),
    "projections": _among(*RULES),
    "neuron": _among("if", "lif"),
    "fires": (_flag, "true or false"),
    "stem_stride": (_integer(1, 4), "an integer from 1 to 4"),
    "pool": (_flag, "true or false"),
    "tap": (_tap, f"1 to 4, for strides 2, 4, 8 and 16, or one of {', '.join(TAPS)}"),
}


def _fits(key: str, value: Any, defaults: Mapping[str, Any]) -> bool:
    """Whether a value is in its range, or null where that means something."""
    return _RANGES[key][0](value) or (value is None and defaults[key] is None)


#: What options are called in the arguments of published training scripts, which their files hold.
_IN_FILES: Mapping[str, tuple[str, ...]] = {
    "T": ("time_step", "time_steps", "T"),
    "connect": ("connect_f",),
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
        told = _as_here(option, values[0]) if values else None
        if told is not None and _RANGES[option][0](told):
            found[option] = told
    return found


def _as_here(option: str, value: Any) -> Any:
    """A value of a training's arguments as it is spelled here: ADD is add."""
    return value.lower() if option == "connect" and isinstance(value, str) else value


def chosen(
    name: str,
    defaults: Mapping[str, Any],
    given: Mapping[str, Any],
    told: Mapping[str, Any],
    origin: str = "the family's",
) -> dict[str, tuple[Any, str]]:
    """All options of a network -> (value, origin).

    Args:
        name: Of the network, for messages.
        defaults: The family's values.
        given: The user's.
        told: The file's.
        origin: Of the defaults.

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
    known = {key: (value, "the file's args") for key, value in told.items()}
    known |= {key: (value, "given") for key, value in given.items()}
    return {key: known.get(key, (value, origin)) for key, value in defaults.items()}
