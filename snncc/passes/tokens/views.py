"""Views: which element of a map [N, C, H, W] each element of a regrouped value is.

Attention is written on tokens: maps whose positions are one axis, channels first or last, heads
apart or in the batch. Such values hold the numbers of a map in another order. An axis of theirs is
a group of digits: an index along channels (``C``) or positions (``P``) written in mixed radix, as
``snncc.ir.axes`` follows them; in products of maps digits also have what products call theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from snncc.ir.axes import Digit, Group, View, merged

__all__ = [
    "BATCH",
    "Groups",
    "covers",
    "indices",
    "of_map",
    "regrouped",
    "selected",
    "spread",
]

Array = npt.NDArray[Any]


Groups = tuple[Group, ...]

BATCH = Digit("N", None)


def of_map(sizes: Sequence[int]) -> Groups:
    """Those of a map itself, (C, H, W) or (C,)."""
    if len(sizes) == 1:
        return ((BATCH,), _whole("C", sizes[0]))
    channels, height, width = sizes
    rows = (Digit("P", height, width),) if height > 1 else ()
    return ((BATCH,), _whole("C", channels), rows, _whole("P", width))


def _whole(axis: str, size: int) -> Group:
    return (Digit(axis, size),) if size > 1 else ()


def covers(group: Group, axis: str, size: int) -> bool:
    """Whether a group is one whole axis, in order."""
    return group == _whole(axis, size)


def regrouped(groups: Groups, sizes: Sequence[int | None]) -> Groups | None:
    """The groups after a reshape to ``sizes``, None for the axis of samples; None if not clear.

    That axis may take digits in, as heads that are folded into the batch.
    """
    found = View(groups).reshaped(sizes)
    return None if found is None else found.groups


def spread(array: Array, groups: Groups, sizes: Sequence[int]) -> Array:
    """A constant that meets a view, as it meets the map: broadcast to (C, H, W) or (C,).

    Args:
        array: As it broadcasts against the view, its axis of samples included.
        groups: Of the view.
        sizes: Of the map.
    """
    axes = [prod(d.size or 1 for d in group) for group in groups]  # one sample
    digits = [d for group in groups for d in group if d != BATCH]
    flat = np.broadcast_to(array, axes).reshape([d.size or 1 for d in digits])
    order = sorted(range(len(digits)), key=lambda i: (digits[i].axis, -digits[i].stride))
    return np.ascontiguousarray(flat.transpose(order)).reshape(sizes)


def indices(group: Group, axis: str) -> Array | None:
    """Index along ``axis`` of the map of each element of a group's axis; None: it has others."""
    return View((group,)).index(0, axis)


def selected(groups: Groups, axis: int, start: int, stop: int) -> tuple[Groups, Array] | None:
    """The view of a range along one axis of channels, and which channels of the map stay.

    The new groups are those of a map of these channels alone, in their order; None where the axis
    is not one digit of the channels.
    """
    group = groups[axis]
    if len(group) != 1 or group[0].axis != "C":
        return None
    digit, count = group[0], stop - start
    size = digit.size or 1
    channels = prod(d.size or 1 for g in groups for d in g if d.axis == "C")
    digits = np.arange(channels) // digit.stride % size
    kept = np.flatnonzero((digits >= start) & (digits < stop))

    def moved(d: Digit) -> Digit:
        outer = d.axis == "C" and d.stride > digit.stride
        return replace(d, stride=d.stride // size * count) if outer else d

    chosen: Group = (replace(digit, size=count),) if count > 1 else ()
    rest = [tuple(map(moved, g)) for g in groups]
    rest[axis] = chosen
    return tuple(merged(g) for g in rest), kept
