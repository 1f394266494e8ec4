"""How many classes are right, and how far that can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from snncc.cli.screen import percent

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["accuracy", "accuracy_text", "interval"]

_Z = 1.959963984540054  # of a normal distribution, 95 % lie within so many standard deviations
_FEW = 5  # right or wrong samples: below, the standard error says too little, and 0 of none


def accuracy(classes: npt.NDArray[Any], labels: npt.NDArray[Any]) -> dict[str, Any]:
    """The share of right classes, its standard error (None of few samples), its 95 % interval."""
    right, samples = int((classes == labels).sum()), len(labels)
    share = right / samples
    is_enough = min(right, samples - right) >= _FEW
    error = math.sqrt(share * (1 - share) / samples) if is_enough else None
    return {"accuracy": share, "standard_error": error, "interval": interval(right, samples)}


def interval(right: int, samples: int) -> tuple[float, float]:
    """Between which shares the true one lies, at 95 %; it also holds for few samples, or all right.

    Source: Wilson's score interval.
    """
    total = samples + _Z**2
    middle = (right + _Z**2 / 2) / total
    half = _Z / total * math.sqrt(right * (samples - right) / samples + _Z**2 / 4)
    low = middle - half if right else 0.0  # exactly so, but for rounding
    high = middle + half if right < samples else 1.0
    return low, high


def accuracy_text(found: Mapping[str, Any]) -> str:
    """What ``accuracy`` found, or that there were no labels."""
    if found["accuracy"] is None:
        return "not measured: no labels"
    if (error := found["standard_error"]) is not None:
        return f"{percent(found['accuracy'])} (standard error {100 * error:.1f} points)"
    low, high = (f"{100 * share:.1f}" for share in found["interval"])
    return f"{percent(found['accuracy'])} (95 % interval: {low} to {high} %)"
