"""Timing by turns: everything in one run, so that what disturbs the machine disturbs all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Times", "by_turns"]

Array = npt.NDArray[Any]
Call = Callable[[Array], object]

_MIN_ROUNDS, _MAX_ROUNDS = 3, 400
_MAX_CALLS = 50
#: A call of so many seconds does not gain from warm caches; it is not made twice.
_LONG = 0.1


@dataclass(frozen=True)
class Times:
    """Seconds per sample of one engine.

    Attributes:
        median: Over all timed calls.
        least: The shortest.
        calls: How many.
    """

    median: float
    least: float
    calls: int


def by_turns(
    calls: Mapping[str, Call], batches: Sequence[Array], seconds: float
) -> dict[str, Times]:
    """Times of every engine, in rounds in which each has a turn of about the same length.

    A turn begins with a call that is not timed, so that caches hold the engine's own data again.
    Every call gets the next batch: no branch predictor learns a single input.

    Args:
        calls: Name -> what is timed.
        batches: uint8 (N, *shape) each, of one N.
        seconds: Of all, about.
    """
    per_turn = {name: _calls_per_turn(call, batches, seconds) for name, call in calls.items()}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    gc.collect()
    gc.disable()
    try:
        for done in range(_MAX_ROUNDS):
            if done >= _MIN_ROUNDS and time.perf_counter() > end:
                break
            for name in _rotated(list(calls), done):
                taken[name] += _turn(calls[name], batches, len(taken[name]), per_turn[name])
    finally:
        gc.enable()
    samples = len(batches[0])
    return {name: _summary(np.array(found) / samples) for name, found in taken.items()}


def _calls_per_turn(call: Call, batches: Sequence[Array], seconds: float) -> int:
    one = _timed(call, batches[0])
    if one < _LONG:
        one = _timed(call, batches[-1])
    return int(np.clip(seconds / 100 / one, 1, _MAX_CALLS))


def _turn(call: Call, batches: Sequence[Array], first: int, count: int) -> list[float]:
    """Times of calls ``first``, ``first + 1``, … after one that counts only if it is long."""
    taken = [_timed(call, batches[(first - 1) % len(batches)])]
    if taken[0] < _LONG:
        taken = [_timed(call, batches[i % len(batches)]) for i in range(first, first + count)]
    return taken


def _timed(call: Call, batch: Array) -> float:
    start = time.perf_counter()
    call(batch)
    return time.perf_counter() - start


def _rotated(names: list[str], by: int) -> list[str]:
    """Another order every round: nobody always follows the same neighbour."""
    at = by % len(names)
    return names[at:] + names[:at]


def _summary(taken: npt.NDArray[np.float64]) -> Times:
    return Times(float(np.median(taken)), float(taken.min()), len(taken))
