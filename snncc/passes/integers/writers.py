"""Layers that write into one membrane potential: how many bits each gets of the grid they share.

Without more, the writer with the largest weights sets the grid, and another, as a stem that reads
pixels of 0..255, is left with few integers for its weights. With a shift per writer,
v += acc << shift, each writer has its own step and uses the whole width of its weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from snncc.passes.integers.products import largest_input
from snncc.passes.reading import Linear

__all__ = ["MOST_SHIFT", "error_of", "writer_shifts"]

#: Beyond that a writer's own rounding is the others' smallest concern.
MOST_SHIFT = 12
#: Shifts must lower the variance of the error to this part, else there are none.
_GAIN = 0.5


def writer_shifts(
    largest: npt.NDArray[Any], errors: Sequence[float], most: int = MOST_SHIFT
) -> list[int]:
    """A shift for each writer, the smallest 0, so that the sum errs least.

    The potential of one spike is then limited by the writer with the largest weight / 2**shift, per
    channel; each writer's weights round to multiples of 2**shift.

    Args:
        largest: Largest absolute weight, (writers, channels).
        errors: What a rounding error of 1 in all its weights does to the potential, squared.
        most: Largest shift. Where some read integers of potentials, which are large, their weights
            are as much smaller than those of others.
    """
    writes = largest.any(axis=1)
    found = np.zeros(len(largest), dtype=int)
    if writes.sum() > 1:
        found[writes] = _least(largest[writes], np.array(errors)[writes], most)
    return [int(s) for s in found]


def _least(largest: npt.NDArray[Any], errors: npt.NDArray[Any], most: int) -> list[int]:
    best = min(_starts(largest, most), key=lambda s: _variance(s, largest, errors))
    while True:
        better = min(_neighbours(best, most), key=lambda s: _variance(s, largest, errors))
        if _variance(better, largest, errors) >= _variance(best, largest, errors):
            break
        best = better
    alone = [0] * len(best)
    gains = _variance(best, largest, errors) < _GAIN * _variance(alone, largest, errors)
    return [s - min(best) for s in best] if gains else alone


def _starts(largest: npt.NDArray[Any], most: int) -> Iterator[list[int]]:
    """For grids finer and finer than the shared one: what each writer needs so as to fit."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.nan_to_num(largest / largest.max(axis=0)).max(axis=1)
        needed = np.ceil(np.log2(np.maximum(share, 2.0**-most)))
    for finer in range(most + 1):
        yield np.maximum(needed + finer, 0).astype(int).tolist()


def _neighbours(shifts: Sequence[int], most: int) -> Iterator[list[int]]:
    for i, shift in enumerate(shifts):
        for other in (shift - 1, shift + 1):
            if 0 <= other <= most:
                yield [*shifts[:i], other, *shifts[i + 1 :]]


def _variance(shifts: Sequence[int], largest: npt.NDArray[Any], errors: npt.NDArray[Any]) -> float:
    """Of the potential in spikes, over all channels, but for a common factor."""
    steps = 2.0 ** np.array(shifts)
    grain = (largest / steps[:, np.newaxis]).max(axis=0)  # one over the potential of a spike
    return float((errors * steps**2).sum() * (grain**2).sum())


def error_of(linear: Linear) -> float:
    """What a rounding error of 1 in all weights does to a potential: its variance, roughly."""
    return float(prod(linear.weight.shape[1:]) * largest_input(linear) ** 2)
