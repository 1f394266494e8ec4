"""Views: which element of a map [N, C, H, W] each element of a regrouped value is.

Attention is written on tokens: maps whose positions are one axis, channels first or last, heads
apart or in the batch. Such values hold the numbers of a map in another order. An axis of theirs is
a group of digits: an index along channels (``C``) or positions (``P``) written in mixed radix, each
digit with its size and the stride it has in the map. Transposing permutes groups, reshaping
regroups digits, and both are undone by knowing them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "BATCH",
    "Digit",
    "Group",
    "Groups",
    "covers",
    "indices",
    "of_map",
    "regrouped",
    "selected",
    "spread",
]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Digit:
    """A digit of an index along one axis of the map.

    Attributes:
        axis: ``N`` (samples), ``C`` or ``P``; in products of maps also what they call theirs.
        size: How many values it has; 0 for samples.
        stride: How far the index goes with one step of it.
    """

    axis: str
    size: int
    stride: int = 1


Group = tuple[Digit, ...]
Groups = tuple[Group, ...]

BATCH = Digit("N", 0)


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
    known = prod(d.size for group in groups for d in group if d != BATCH)
    rest, extra = divmod(known, max(prod(s for s in sizes if s is not None), 1))
    if extra or sum(s is None for s in sizes) != 1:
        return None
    pending = deque(digit for group in groups for digit in group)
    found = []
    for size in sizes:
        group = _taken(pending, rest if size is None else size, size is None)
        if group is None:
            return None
        found.append(_merged(group))
    return tuple(found)


def _taken(pending: deque[Digit], need: int, batch: bool) -> list[Digit] | None:
    """As many digits as an axis of ``need`` elements has, the last one split where that fits."""
    group: list[Digit] = []
    while need > 1 or batch:
        if not pending:
            return None
        digit = pending.popleft()
        if digit == BATCH:
            if not batch:
                return None
            batch = False
            group.append(digit)
        elif need % digit.size == 0:
            need //= digit.size
            group.append(digit)
        elif need > 1 and digit.size % need == 0:
            low = digit.size // need
            group.append(replace(digit, size=need, stride=digit.stride * low))
            pending.appendleft(replace(digit, size=low))
            need = 1
        else:
            return None
    return group


def _merged(group: Sequence[Digit]) -> Group:
    """Neighbours that are one digit of a larger base, written as one."""
    found: list[Digit] = []
    for digit in group:
        last = found[-1] if found else None
        joins = last is not None and last.axis == digit.axis and digit != BATCH
        if last is not None and joins and last.stride == digit.stride * digit.size:
            found[-1] = replace(digit, size=last.size * digit.size)
        else:
            found.append(digit)
    return tuple(found)


def spread(array: Array, groups: Groups, sizes: Sequence[int]) -> Array:
    """A constant that meets a view, as it meets the map: broadcast to (C, H, W) or (C,).

    Args:
        array: As it broadcasts against the view, its axis of samples included.
        groups: Of the view.
        sizes: Of the map.
    """
    axes = [prod(d.size for d in group if d != BATCH) for group in groups]
    flat = np.broadcast_to(array, axes).reshape([d.size for g in groups for d in g if d != BATCH])
    digits = [d for group in groups for d in group if d != BATCH]
    order = sorted(range(len(digits)), key=lambda i: (digits[i].axis, -digits[i].stride))
    return np.ascontiguousarray(flat.transpose(order)).reshape(sizes)


def indices(group: Group, axis: str) -> Array | None:
    """Index along ``axis`` of the map of each element of a group's axis; None: it has others."""
    if any(d.axis != axis for d in group):
        return None
    index = np.zeros(1, dtype=np.int64)
    for d in group:
        index = (index[:, None] + np.arange(d.size) * d.stride).reshape(-1)
    return index


def selected(groups: Groups, axis: int, start: int, stop: int) -> tuple[Groups, Array] | None:
    """The view of a range along one axis of channels, and which channels of the map stay.

    The new groups are those of a map of these channels alone, in their order; None where the axis
    is not one digit of the channels.
    """
    group = groups[axis]
    if len(group) != 1 or group[0].axis != "C":
        return None
    digit, count = group[0], stop - start
    channels = prod(d.size for g in groups for d in g if d.axis == "C")
    digits = np.arange(channels) // digit.stride % digit.size
    kept = np.flatnonzero((digits >= start) & (digits < stop))

    def moved(d: Digit) -> Digit:
        outer = d.axis == "C" and d.stride > digit.stride
        return replace(d, stride=d.stride // digit.size * count) if outer else d

    chosen: Group = (replace(digit, size=count),) if count > 1 else ()
    rest = [tuple(map(moved, g)) for g in groups]
    rest[axis] = chosen
    return tuple(_merged(g) for g in rest), kept
