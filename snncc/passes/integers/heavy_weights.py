"""Weights so heavy that one spike decides alone: they must not set the grid of all others.

A batch norm that never saw a spike has variance 0 and a gain of 316; four in a row make 10^10. What
stands after such norms mostly stays silent, and yet, on the grid that a residual stream shares,
its weights would leave nothing of the others' bits. So the grid is made for the light weights, and
heavy ones count 2^shift times, with as large a shift as they need: each has all its bits, whichever
of them fire. What limits that is how far potentials can reach.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from snncc.passes.integers.products import largest_input
from snncc.passes.reading import Linear

__all__ = ["heavy", "needed_shifts", "reach", "row_maxima"]

Reals = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

#: A weight is heavy that takes a potential so many times through all levels of its readers.
_THROUGH = 4.0
#: And that is so many times larger than what is usual: next to it others have lost 4 bits.
_UNUSUAL = 16.0
#: Likewise of results, which have no levels; there what is heavy is few, or all of a layer.
_UNUSUAL_RESULT = 128.0
_FEW = 0.25
#: What lies so far above the rest of its row and column is heavy by itself.
_ALONE = 8.0
#: Heavy weights of one part share a shift; the smallest of them have fewer bits by less than this.
_BAND = 4
#: A bias beyond so many times all that inputs can do decides anyway, however large it is.
_DECIDES = 2.0**10


def heavy(layers: Sequence[Linear], levels: int) -> list[Mask]:
    """Which weights are heavy, of the shape of each layer's.

    They are whole layers, rows of silent filters, columns of silent inputs, or single ones. Where a
    layer reads a potential none are: payloads are rounded instead, and weights of the whole chain.

    Args:
        layers: Writers of one potential.
        levels: The most levels that a reader has; 0: it is read as a result alone.
    """
    if any(x.payload is not None for x in layers):  # how far potentials usually get is not known
        return [np.zeros(x.weight.shape, dtype=bool) for x in layers]
    payloads = [largest_input(x) for x in layers]
    farthest = max(p * np.abs(x.weight).max() for p, x in zip(payloads, layers, strict=True))
    if levels and farthest <= _THROUGH * levels:
        return [np.zeros(x.weight.shape, dtype=bool) for x in layers]
    carried = [p * _importance(x) for p, x in zip(payloads, layers, strict=True)]
    usual = min(map(_usual, carried))
    if levels:
        return [size > max(_UNUSUAL * usual, _THROUGH * levels) for size in carried]
    masks = [size > _UNUSUAL_RESULT * usual for size in carried]
    return [mask & _is_clear(mask, size > 0) for mask, size in zip(masks, carried, strict=True)]


def _is_clear(mask: Mask, there: Mask) -> bool:
    """Whether few weights of a layer are heavy, or all of them."""
    return bool(mask.sum() <= _FEW * there.sum() or mask.sum() == there.sum())


def _importance(linear: Linear) -> Reals:
    """For each weight what is usual in its row and column, or itself where it is far beyond."""
    size = np.abs(linear.weight)
    outs = len(size) // linear.group
    with np.errstate(divide="ignore"):
        logs = np.log2(size).reshape(linear.group, outs, size.shape[1], -1)
    logs[np.isneginf(logs)] = np.nan
    rows = _medians(logs, (2, 3))
    columns = _medians(logs - rows, (1, 3))
    usual = np.broadcast_to(2.0 ** (rows + columns), logs.shape).reshape(size.shape)
    return np.maximum(np.where(size > 0, usual, 0.0), size / _ALONE)


def _medians(logs: Reals, axes: tuple[int, ...]) -> Reals:
    """Medians of what is there, 0 of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all of a row may be zero
        return np.nan_to_num(np.nanmedian(logs, axis=axes, keepdims=True))


def _usual(size: Reals) -> float:
    """The median of what is there."""
    found = size[size > 0]
    return float(np.median(found)) if found.size else np.inf


def reach(linear: Linear, chosen: Mask | None = None) -> Reals:
    """How far a layer takes a potential, in spikes; (channels,).

    Args:
        linear: The layer.
        chosen: Count these of its weights alone, and no bias.
    """
    size = np.abs(linear.weight)
    moved = largest_input(linear) * _rows(size if chosen is None else size * chosen).sum(axis=1)
    if chosen is not None:
        return np.asarray(moved)
    bias = _rows(np.abs(linear.bias)).max(axis=1, initial=0.0)
    return np.asarray(moved + np.minimum(bias, _DECIDES * (moved + 1)))


def row_maxima(linear: Linear, chosen: Mask) -> Reals:
    """The largest absolute weight of those chosen, row by row."""
    return np.asarray(_rows(np.abs(linear.weight) * chosen).max(axis=1))


def _rows(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.reshape(len(array), -1)


def needed_shifts(
    linear: Linear, heavy_ones: Mask, theta: Reals, light: int, largest: int
) -> int | npt.NDArray[np.int64]:
    """Shifts under which every weight fits its bits: one for all, or one for each.

    Args:
        linear: The layer.
        heavy_ones: Of its weights.
        theta: Potential of one spike, (channels,).
        light: The shift of light weights, which fit with it.
        largest: Largest integer weight.
    """
    column = theta.reshape(-1, *(1,) * (linear.weight.ndim - 1)) / largest
    needed = _bits(_importance(linear) * column)
    held = _bits(np.abs(linear.weight) * column)
    there = linear.weight != 0
    short = _rows(there & ~heavy_ones & (held > light)).any(axis=1)  # rows of many steps a bit
    left = there & (heavy_ones | short.reshape(-1, *(1,) * (there.ndim - 1)))
    shifts = np.full(needed.shape, light)
    while left.any():
        part = left & (needed > needed[left].max() - _BAND)
        shifts[part] = max(light, int(held[part].max()))
        left &= ~part
    used = np.unique(shifts[there])
    return int(used.max(initial=light)) if len(used) < 2 else shifts


def _bits(size: Reals) -> npt.NDArray[np.int64]:
    """How many halvings take each number to 1 or below; of 0 next to none."""
    with np.errstate(divide="ignore"):
        return np.ceil(np.log2(np.maximum(size, 2.0**-60))).astype(np.int64)
