"""Axes: which element of a value each element of another is, when numbers are only moved.

Networks move numbers a lot: they part and join timesteps and samples, make tokens of maps, heads
of channels, and all of it back. An axis of what comes out is a group of *digits*: an index along a
named axis of the value it began with, written in mixed radix, each digit with its size and with the
steps it takes there. Transposing permutes groups, reshaping regroups digits, slicing shortens one
and shifts where its axis starts, stacking adds one. So a chain of moves, however long, is one
``View``, and two chains that do the same are equal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["REPEATED", "Digit", "Group", "View", "joined", "merged"]

Array = npt.NDArray[Any]
Sizes = Sequence[int | None]

#: The axis of digits that only repeat: whatever their value, the element is the same.
REPEATED = ""


@dataclass(frozen=True)
class Digit:
    """A digit of an index along one axis.

    Attributes:
        axis: Its name; empty where elements repeat.
        size: How many values it has; None: not known, as of samples.
        stride: How far the index goes with one step of it.
    """

    axis: str
    size: int | None
    stride: int = 1


Group = tuple[Digit, ...]


@dataclass(frozen=True)
class View:
    """A value whose elements are those of another, its base.

    Attributes:
        groups: The digits of each axis, the first one counts most.
        starts: Index along an axis of the base where all its digits are zero; zeros are left out.
    """

    groups: tuple[Group, ...]
    starts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, axes: Iterable[tuple[str, int | None]]) -> View:
        """Of the base itself: its axes by name, with their sizes, of which one may be unknown."""
        return cls(tuple(merged([Digit(name, size)]) for name, size in axes))

    @property
    def sizes(self) -> tuple[int | None, ...]:
        """Of each axis; None where it holds the digit of unknown size."""
        return tuple(_size(group) for group in self.groups)

    @property
    def digits(self) -> Group:
        """Of all axes in order."""
        return tuple(digit for group in self.groups for digit in group)

    # -- moves -------------------------------------------------------------------------------

    def transposed(self, order: Sequence[int]) -> View:
        """The axes in another order."""
        return replace(self, groups=tuple(self.groups[i] for i in order))

    def reshaped(self, sizes: Sizes) -> View | None:
        """The same elements in the same order, on axes of these sizes.

        Args:
            sizes: None for the axis that takes the digit of unknown size, if there is one; beside
                it that axis may take others.

        Returns:
            None where a digit would have to be cut that cannot be.
        """
        known = prod(d.size for d in self.digits if d.size is not None)
        rest, left = divmod(known, max(prod(s for s in sizes if s is not None), 1))
        unknown = sum(d.size is None for d in self.digits)
        if left or sizes.count(None) != unknown or (not unknown and rest != 1):
            return None
        pending = deque(self.digits)
        groups = [_taken(pending, rest if size is None else size, size is None) for size in sizes]
        found = tuple(merged(group) for group in groups if group is not None)
        return replace(self, groups=found) if len(found) == len(groups) else None

    def sliced(self, axis: int, start: int, stop: int, step: int = 1) -> View | None:
        """The elements from ``start`` to before ``stop`` along one axis, each ``step``-th of them.

        Returns:
            None where these are no digits of their own, or the axis has no known size.
        """
        group, count = self.groups[axis], len(range(start, stop, step))
        size = _size(group)
        if size is None or not 0 <= start < stop <= size or step < 1:
            return None
        found = _range(group, start, count, step)
        return None if found is None else self._with(axis, *found)

    def taken(self, axis: int, index: int) -> View | None:
        """One element along an axis, which goes."""
        size = self.sizes[axis]
        at = index + size if size is not None and index < 0 else index
        found = self.sliced(axis, at, at + 1)
        if found is None:
            return None
        return replace(found, groups=found.groups[:axis] + found.groups[axis + 1 :])

    def expanded(self, sizes: Sizes) -> View | None:
        """Repeated to ``sizes`` by broadcasting; None where an axis is neither equal nor one."""
        new = len(sizes) - len(self.groups)
        groups = ((),) * new + self.groups
        if new < 0 or any(_size(g) not in (1, s) for g, s in zip(groups, sizes, strict=True)):
            return None
        wanted = zip(groups, sizes, strict=True)
        return replace(self, groups=tuple(g if _size(g) == s else _repeated(s) for g, s in wanted))

    def _with(self, axis: int, group: Group, shifts: Mapping[str, int]) -> View:
        """Another group in one place, and axes that start elsewhere."""
        names = {*self.starts, *shifts} - {REPEATED}
        moved = {name: self.starts.get(name, 0) + shifts.get(name, 0) for name in sorted(names)}
        groups = (*self.groups[:axis], merged(group), *self.groups[axis + 1 :])
        return View(groups, {name: start for name, start in moved.items() if start})

    # -- what it says ------------------------------------------------------------------------

    def places(self, name: str) -> list[int]:
        """The axes that hold digits of an axis of the base."""
        return [i for i, group in enumerate(self.groups) if any(d.axis == name for d in group)]

    def index(self, axis: int, name: str) -> Array | None:
        """Index along ``name`` of each element of an axis; None where it has other digits.

        Returns:
            int64, as long as the axis.
        """
        if any(d.axis != name or d.size is None for d in self.groups[axis]):
            return None
        found = np.full(1, self.starts.get(name, 0), dtype=np.int64)
        for d in self.groups[axis]:
            found = (found[:, None] + np.arange(d.size or 0) * d.stride).reshape(-1)
        return found

    def of_array(self, base: Array, names: Sequence[str]) -> Array:
        """The elements themselves.

        Args:
            base: With the axes ``names`` in order.
            names: Of its axes.
        """
        digits = [d if d.size is not None else replace(d, size=base.shape[names.index(d.axis)])
                  for d in self.digits]  # fmt: skip
        sizes = [d.size or 0 for d in digits]
        steps = np.indices(sizes, sparse=True) if sizes else ()
        at = [
            sum((i * d.stride for i, d in zip(steps, digits, strict=True) if d.axis == name),
                np.array(self.starts.get(name, 0)))
            for name in names
        ]  # fmt: skip
        found: Array = base[tuple(np.broadcast_to(i, sizes) for i in at)]
        known = iter(sizes)
        return found.reshape([prod(next(known) for _ in group) for group in self.groups])


def joined(views: Sequence[View], axis: int) -> View | None:
    """Views of one base beside each other along an axis, as one view; None where they are none.

    They must be alike but for where an axis of the base starts, and that by equal steps. What is
    stacked along a new axis has an axis of size one there, as an empty group.
    """
    first = views[0]
    if len(views) == 1:
        return first
    step = _step([view.starts for view in views])
    if step is None or any(view.groups != first.groups for view in views):
        return None
    name, distance = step
    group = (Digit(name, len(views), distance), *first.groups[axis])
    return first._with(axis, group, {})


# -- digits ----------------------------------------------------------------------------------


def _size(group: Group) -> int | None:
    if any(d.size is None for d in group):
        return None
    return prod(d.size for d in group if d.size is not None)


def _repeated(size: int | None) -> Group:
    return (Digit(REPEATED, size, 0),) if size != 1 else ()


def _taken(pending: deque[Digit], need: int, unknown: bool) -> list[Digit] | None:
    """As many digits as an axis of ``need`` elements has, the last one cut where that fits."""
    group: list[Digit] = []
    while need > 1 or unknown:
        if not pending:
            return None
        digit = pending.popleft()
        if digit.size is None:
            if not unknown:
                return None
            unknown = False
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


def merged(group: Iterable[Digit]) -> Group:
    """Neighbours that are one digit of a larger radix as one, and no digits of size one."""
    found: list[Digit] = []
    for digit in group:
        last = found[-1] if found else None
        if digit.size == 1:
            continue
        if last is not None and _continues(last, digit):
            found[-1] = replace(digit, size=(last.size or 1) * (digit.size or 1))
        else:
            found.append(digit)
    return tuple(found)


def _continues(last: Digit, digit: Digit) -> bool:
    if last.axis != digit.axis or last.size is None or digit.size is None:
        return False
    return last.stride == digit.stride * digit.size


def _range(group: Group, start: int, count: int, step: int) -> tuple[Group, dict[str, int]] | None:
    """``count`` elements of a group's axis: their digits, and how far axes of the base shift."""
    if not group:
        return (), {}
    first, rest = group[0], group[1:]
    low = _size(rest)
    if low is None or first.size is None:
        return None
    top, at = divmod(start, low)
    shift = {first.axis: top * first.stride}
    if at + (count - 1) * step < low:  # within one value of the first digit
        found = _range(rest, at, count, step)
        return None if found is None else (found[0], _sum(shift, found[1]))
    if rest and (at or step != 1 or count % low):
        return None
    size = count // low
    return (replace(first, size=size, stride=first.stride * step), *rest), shift


def _sum(one: Mapping[str, int], two: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + two.get(name, 0) for name in {**one, **two}}


def _step(starts: Sequence[Mapping[str, int]]) -> tuple[str, int] | None:
    """The one axis along which starts differ, by which equal step; all equal: they repeat."""
    names = {name for each in starts for name in each}
    moving = [n for n in names if len({each.get(n, 0) for each in starts}) > 1]
    if not moving:
        return REPEATED, 0
    at = [each.get(moving[0], 0) for each in starts]
    steps = {b - a for a, b in pairwise(at)}
    return (moving[0], steps.pop()) if len(moving) == 1 and len(steps) == 1 else None
