"""A value as [T*N, ...] with its own axes in its own order, so that nodes compute on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx_ir as ir

from snncc.ir.axes import REPEATED, Digit, Group, View, merged
from snncc.ir.graphs import Edit
from snncc.passes.time.layout import (
    SAMPLES,
    TIME,
    Seen,
    When,
    Work,
    folded_shape,
    inner,
    outer,
    sizes_of,
)

__all__ = ["Laid", "laid_out"]


@dataclass(frozen=True)
class Laid:
    """A value and its twin, axis by axis.

    Attributes:
        seen: Its twin has the value's own axes in order.
        own: Of each axis of the value the twin's axis; None where only timesteps or samples are.
    """

    seen: Seen
    own: tuple[int | None, ...]

    @property
    def twin(self) -> ir.Value:
        """[T*N, ...]."""
        return self.seen.twin

    @property
    def groups(self) -> tuple[Group, ...]:
        """Digits of each axis of the value."""
        return self.seen.view.groups

    def size(self, axis: int) -> int:
        """Of what an axis of the value has besides timesteps and samples."""
        return prod(d.size or 1 for d in inner(self.groups[axis]))


def laid_out(work: Work, value: ir.Value) -> Laid | None:
    """The value as a twin of its own, which is made where elements were moved; None: they are lost.

    Elements of some timesteps, or some samples, alone have no twin.
    """
    found = _with_time(work, work.seen[value])
    times = found.timesteps()
    is_single = not any(d.axis == TIME for d in found.view.digits)
    if not is_single and sorted(times) != list(range(work.T)):
        return None
    if [d for d in found.view.digits if d.axis == SAMPLES] != [Digit(SAMPLES, None)]:
        return None
    own = _own_axes(found.view)
    if any(len(inner(group)) > 1 for group in _renumbered(found.view, own).groups):
        return None  # samples stand between two halves of an axis
    parts = [inner(group) for group, axis in zip(found.view.groups, own, strict=True) if axis]
    sizes = [prod(d.size or 1 for d in part) for part in parts]
    if parts != _whole(sizes) or sizes != list((found.twin.shape or ())[1:]):
        twin = _moved(work, value, found, parts)
        if twin is None:
            return None
        found = replace(found, twin=twin, view=_renumbered(found.view, own))
        work.note(value, found)
    return Laid(found, own)


def _with_time(work: Work, found: Seen) -> Seen:
    """What is the same in every timestep and is repeated T times, where timesteps may be, has T."""
    groups = list(found.view.groups)
    at = next((i for i, group in enumerate(groups) if Digit(SAMPLES, None) in group), None)
    if found.when is not When.STILL or at is None:
        return found
    has_axis = len(groups) == len(found.twin.shape or ()) + 1  # one more than the twin
    places = range(len(groups) if has_axis else at + 1)
    again = Digit(REPEATED, work.T, 0)
    place = next((i for i in places if i < len(groups) and again in groups[i]), None)
    if place is None:
        return found
    time = Digit(TIME, work.T)
    groups[place] = tuple(time if d == again else d for d in groups[place])
    return Seen(replace(found.view, groups=tuple(groups)), found.twin, When.EACH)


def _own_axes(view: View) -> tuple[int | None, ...]:
    """The axes by number that hold anything but timesteps and samples.

    An axis of size one before that of samples is one timestep's, too.
    """
    samples = view.places(SAMPLES)[0]
    count, own = 0, []
    for i, group in enumerate(view.groups):
        is_own = bool(inner(group)) or (not outer(group) and i > samples)
        count += is_own
        own.append(count if is_own else None)
    return tuple(own)


def _whole(sizes: list[int]) -> list[Group]:
    return [merged([Digit(str(axis), size)]) for axis, size in enumerate(sizes, 1)]


def _renumbered(view: View, own: tuple[int | None, ...]) -> View:
    """The same elements, of a twin whose axes are the value's."""
    groups = []
    for group, axis in zip(view.groups, own, strict=True):
        left, digits = prod(d.size or 1 for d in inner(group)), []
        for d in group:
            if d.axis not in (TIME, SAMPLES):
                left //= d.size or 1
                d = Digit(str(axis), d.size, left)
            digits.append(d)
        groups.append(merged(digits))
    starts = {name: start for name, start in view.starts.items() if name == TIME}
    return View(tuple(groups), starts)


def _moved(work: Work, value: ir.Value, found: Seen, parts: list[Group]) -> ir.Value | None:
    """The twin with axes of these digits: reshaped to digits, transposed, repeated, reshaped."""
    key = "moved", id(found.twin), tuple(parts)
    node = value.producer()
    if key in work.made:
        return work.made[key]
    digits = [d for part in parts for d in part]
    base = sorted((d for d in digits if d.axis != REPEATED), key=lambda d: (int(d.axis), -d.stride))
    if node is None or not _is_all_of(base, found):
        return None
    name, edit = work.name_of(value, found), Edit(node, work.made_by)
    if name == found.twin.name:  # that was computed with an axis of size one more
        name = f"{name}/laid"
    twin, known = found.twin, (found.twin.shape or ())[1:]

    def reshaped(twin: ir.Value, sizes: list[int], name: str) -> ir.Value:
        target = edit.const(f"{name}.folded", np.array([-1, *sizes], np.int64))
        shape = folded_shape(sizes)
        return edit.op("Reshape", twin, target, name=name, dtype=value.dtype, shape=shape)

    order = [base.index(d) for d in digits if d.axis != REPEATED]
    if order != sorted(order):
        if [d.size for d in base] != list(known):
            twin = reshaped(twin, [d.size or 1 for d in base], f"{name}/digits")
        moved = [d.size or 1 for d in digits if d.axis != REPEATED]
        twin = edit.op(
            "Transpose", twin, name=f"{name}/turned", dtype=value.dtype,
            shape=folded_shape(moved), attributes={"perm": [0, *(i + 1 for i in order)]},
        )  # fmt: skip
        known = tuple(moved)
    if len(base) < len(digits):
        once = [1 if d.axis == REPEATED else d.size or 1 for d in digits]
        twin = twin if once == list(known) else reshaped(twin, once, f"{name}/once")
        known = tuple(d.size or 1 for d in digits)
        target = edit.const(f"{name}.sizes", np.array([1, *known], np.int64))
        twin = edit.op(
            "Expand", twin, target, name=f"{name}/repeated", dtype=value.dtype,
            shape=folded_shape(known),
        )  # fmt: skip
    sizes = [prod(d.size or 1 for d in part) for part in parts]
    if sizes != list(known):
        twin = reshaped(twin, sizes, name)
    work.made[key] = _named(twin, name)
    return twin


def _named(twin: ir.Value, name: str) -> ir.Value:
    """The last of the moves has the value's name."""
    node = twin.producer()
    assert node is not None
    twin.name = node.name = name
    return twin


def _is_all_of(base: list[Digit], found: Seen) -> bool:
    """Whether these digits, in order, are all elements of the twin's own axes."""
    if any(name != TIME for name in found.view.starts):
        return False
    sizes = (sizes_of(found.twin) or ())[1:]
    whole = [Digit(str(axis), size) for axis, size in enumerate(sizes, 1) if size != 1]
    return list(merged(base)) == whole
