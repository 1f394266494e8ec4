"""What only moves elements of a value over timesteps: its results are other views.

A loop in a network's code picks timesteps out and stacks them again: these are moves, too. Parts of
axes after timesteps and samples are computed, not moved: slices of the folded value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import numpy as np
import onnx_ir as ir

from snncc.ir.axes import REPEATED, Digit, View, joined
from snncc.ir.graphs import Edit, attribute, constant
from snncc.ir.names import NEW
from snncc.ir.ops import having
from snncc.passes.time.lay_out import laid_out
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
from snncc.passes.time.sizes import Size, sizes_in

__all__ = ["moved"]

#: What each result is; None: the node computes.
Found = list[Seen] | None


def moved(work: Work, node: ir.Node) -> Found:
    """What becomes of the results if the node only moves elements; None if it does not."""
    rule, x = _RULES.get(node.op_type), node.inputs[0]
    if rule is None or x is None or x not in work.seen:
        return None
    found = rule(work, node, work.seen[x])
    if isinstance(found, View):
        return [replace(work.seen[x], view=found)]
    return found


# -- other axes for the same elements --------------------------------------------------------


def _reshape(work: Work, node: ir.Node, x: Seen) -> View | None:
    sizes = sizes_of(node.outputs[0])
    return None if sizes is None else x.view.reshaped(sizes)


def _transpose(work: Work, node: ir.Node, x: Seen) -> View:
    order = attribute(node, "perm") or list(range(len(x.view.groups)))[::-1]
    return x.view.transposed(order)


def _expand(work: Work, node: ir.Node, x: Seen) -> View | None:
    sizes = sizes_of(node.outputs[0])
    return None if sizes is None else x.view.expanded(sizes)


def _tile(work: Work, node: ir.Node, x: Seen) -> View | None:
    repeats = constant(node.inputs[1])
    if repeats is None or len(repeats) != len(x.view.groups):
        return None
    groups = [
        (Digit(REPEATED, int(count), 0), *group) if count > 1 else group
        for count, group in zip(repeats, x.view.groups, strict=True)
    ]
    return replace(x.view, groups=tuple(groups))


# -- parts of an axis ------------------------------------------------------------------------


def _gather(work: Work, node: ir.Node, x: Seen) -> View | None:
    """x[t] or x[:, t]."""
    index, axis = constant(node.inputs[1]), attribute(node, "axis", 0)
    if index is None or index.ndim or not (_is_of_time(x, axis) or x.view.sizes[axis] == 1):
        return None
    return x.view.taken(axis % len(x.view.groups), int(index))


def _slice(work: Work, node: ir.Node, x: Seen) -> Found | View:
    """Ranges of timesteps; and whatever is the whole of its axis."""
    given = [sizes_in(work, v) for v in node.inputs[1:]]
    if len(given) < 3 or any(g is None for g in given):
        return None
    starts, ends, axes, *more = (g for g in given if g is not None)
    steps = more[0] if more else [Size(0, 1)] * len(axes)
    view: View | None = x.view
    for start, end, along, by in zip(starts, ends, axes, steps, strict=True):
        axis, step = along.rest, by.rest
        size = x.view.sizes[axis]
        if size is None:
            view = view and _batches(view, axis % len(view.groups), start, end, step)
            continue
        if start.fixed is None or end.fixed is None or not (_is_of_time(x, axis) or step == 1):
            return None
        chosen = range(size)[start.fixed : end.fixed : step]
        if chosen == range(size):
            continue
        if view is None or not _is_of_time(x, axis) or step < 1 or not chosen:
            return None
        view = view.sliced(axis % len(view.groups), chosen[0], chosen[-1] + 1, step)
    return view


def _batches(view: View, axis: int, start: Size, end: Size, step: int) -> View | None:
    """Whole batches of an axis of timesteps and samples, x[t * N : (t + 1) * N]."""
    sizes, group = list(view.sizes), view.groups[axis]
    times = prod(d.size or 1 for d in group)
    is_last = end.batches == 0 and end.rest >= _LAST
    stop = times if is_last else end.batches
    if start.rest or step != 1 or (end.rest and not is_last):
        return None
    if (start.batches, stop) == (0, times):
        return view
    apart = view.reshaped([*sizes[:axis], times, None, *sizes[axis + 1 :]])
    if apart is None or any(d.axis != TIME for d in apart.groups[axis]):
        return None
    found = apart.sliced(axis, start.batches, stop)
    return None if found is None else found.reshaped(sizes)


#: A slice to here takes all, however many there are.
_LAST = 2**31 - 1


def _split(work: Work, node: ir.Node, x: Seen) -> Found:
    """Timesteps one by one or in groups, from an axis of theirs or next to the samples."""
    axis, parts = attribute(node, "axis", 0), len(node.outputs)
    axis %= len(x.view.groups)
    if parts == 1:
        return [x]
    if not outer(x.view.groups[axis]):
        return _parted(work, node, axis)
    if not _is_of_time(x, axis):
        found = _chunks(x.view, axis, parts)
        is_even = attribute(node, "num_outputs") == parts
        return [replace(x, view=v) for v in found] if found and is_even else None
    sizes = [(sizes_of(out) or ())[axis : axis + 1] for out in node.outputs]
    start, views = 0, []
    for size in sizes:
        stop = start + (size[0] or 0 if size else 0)
        if (view := x.view.sliced(axis, start, stop)) is None:
            return None
        views.append(replace(x, view=view))
        start = stop
    return views


def _chunks(view: View, axis: int, parts: int) -> list[View] | None:
    """Equal parts of an axis that has samples, as its first digits count them."""
    sizes, groups = list(view.sizes), view.groups[axis]
    known = prod(d.size or 1 for d in groups)
    rest = None if sizes[axis] is None else known // parts
    apart = view.reshaped([*sizes[:axis], parts, rest, *sizes[axis + 1 :]])
    if apart is None or any(d.axis != TIME for d in apart.groups[axis]):
        return None
    found = [apart.taken(axis, i) for i in range(parts)]
    return [v for v in found if v is not None]


def _parted(work: Work, node: ir.Node, axis: int) -> Found:
    """A split along another axis: a slice of the folded value for each part."""
    x = node.inputs[0]
    laid = laid_out(work, x) if x is not None else None
    sizes = [(sizes_of(out) or ())[axis : axis + 1] for out in node.outputs]
    if laid is None or laid.own[axis] is None or any(not s or s[0] is None for s in sizes):
        return None
    start, found = 0, []
    for out, (size,) in zip(node.outputs, sizes, strict=True):
        end, along = start + (size or 0), laid.own[axis] or 0
        group = (Digit(str(along), size),) if size != 1 else ()
        groups = (*laid.groups[:axis], group, *laid.groups[axis + 1 :])
        part = replace(laid.seen, view=replace(laid.seen.view, groups=groups))
        key = "part", id(laid.twin), start, end, along
        if key not in work.made:
            work.made[key] = _part(work, node, out, part, (start, end, along))
        found.append(replace(part, twin=work.made[key]))
        work.note(out, found[-1])
        start = end
    return found


def _part(
    work: Work, node: ir.Node, out: ir.Value, found: Seen, bounds: tuple[int, int, int]
) -> ir.Value:
    edit = Edit(node, work.made_by)
    given = [
        edit.const(f"{out.name}.{what}", np.array([number], np.int64))
        for what, number in zip(("start", "end", "axis"), bounds, strict=True)
    ]
    start, end, along = bounds
    sizes = list((found.twin.shape or ())[1:])
    sizes[along - 1] = end - start
    part = edit.op(
        "Slice", found.twin, *given, name=f"{out.name}{NEW}", dtype=out.dtype,
        shape=folded_shape(sizes),
    )  # fmt: skip
    part.name = work.name_of(out, found)
    return part


def _is_of_time(x: Seen, axis: int) -> bool:
    """Whether an axis holds timesteps alone, or one value again and again."""
    group = x.view.groups[axis]
    return bool(group) and all(d.axis in (TIME, REPEATED) for d in group)


# -- put together ----------------------------------------------------------------------------


def _concat(work: Work, node: ir.Node, x: Seen) -> Found:
    """torch.stack of timesteps, along any axis, or torch.cat of them along an axis."""
    parts = [work.seen[v] for v in node.inputs if v is not None and v in work.seen]
    if len(parts) < len(node.inputs) or {s.when for s in parts} - {When.EACH, When.STILL}:
        return None
    axis = attribute(node, "axis", 0) % len(x.view.groups)
    same = all(s.twin is x.twin and s.when is x.when for s in parts)
    view = joined([s.view for s in parts], axis) if same else None
    if view is not None and not _repeats_own(view, axis, work.T):
        found = replace(x, view=view)
        times = found.timesteps()
        if times == sorted(times):
            return [found]
    if (fault := _disorder(work, parts, axis)) is None:
        return None
    work.fault(node, fault, "the same layers, in the same order, in every timestep")
    group = (Digit(TIME, work.T), *x.view.groups[axis])
    groups = (*x.view.groups[:axis], group, *x.view.groups[axis + 1 :])
    return [Seen(View(groups), x.twin)]


def _repeats_own(view: View, axis: int, T: int) -> bool:
    """Whether an axis repeats what is no timestep."""
    group = view.groups[axis]
    return any(d.axis == REPEATED for d in group) and (bool(inner(group[1:])) or group[0].size != T)


def _disorder(work: Work, parts: Sequence[Seen], axis: int) -> str | None:
    """What keeps values of single timesteps from being one value of all; None: not theirs."""
    times = [s.timesteps() for s in parts]
    is_stack = all(not g or Digit(SAMPLES, None) in g for g in (s.view.groups[axis] for s in parts))
    is_loop = len(parts) == work.T > 1 and all(len(found) == 1 for found in times)
    if not is_stack or not is_loop or any(inner(s.view.groups[axis]) for s in parts):
        return None
    steps = [found[0] for s, found in zip(parts, times, strict=True) if s.when is When.EACH]
    if len(steps) > 1 and len(set(steps)) == 1:  # of one timestep: no loop's
        return None
    if any(s.when is When.EACH and found != [t]
           for t, (s, found) in enumerate(zip(parts, times, strict=True))):  # fmt: skip
        return "has timesteps in another order"
    other = next((t for t, s in enumerate(parts) if s.twin is not parts[0].twin), None)
    if other is not None:
        return f"timestep {other} is not computed as timestep 0 is"
    groups = [s.view.groups for s in parts]
    other = next((t for t, g in enumerate(groups) if g != groups[0]), None)
    return None if other is None else f"timestep {other} is laid out otherwise than timestep 0"


_Rule = Callable[[Work, ir.Node, Seen], "Found | View"]
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(having("imported", lambda t: t.regroups), _reshape),
    "Concat": _concat,
    "Expand": _expand,
    "Gather": _gather,
    "Slice": _slice,
    "Split": _split,
    "Tile": _tile,
    "Transpose": _transpose,
}
