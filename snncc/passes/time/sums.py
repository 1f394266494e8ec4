"""Sums and means: over timesteps, at once or one by one in a loop, and over other axes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from snncc.errors import Option, Words
from snncc.ir.axes import Group, View
from snncc.ir.graphs import attribute, constant, is_zero
from snncc.passes.time.forms import OWN, Form, groups_of, template
from snncc.passes.time.lay_out import Laid, laid_out
from snncc.passes.time.layout import SAMPLES, TIME, Seen, When, Work, sizes_of

__all__ = ["REDUCTIONS", "reduced", "running_sum"]

REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2")
_OVER_SAMPLES = (
    "averages or adds up samples",
    Words(
        "over timesteps instead; a network that reads [N, T, ...] needs ",
        Option("batch_first", True),
        ", one that reads [T, N, ...] must not have it",
    ),
)


# -- one by one ------------------------------------------------------------------------------


def running_sum(work: Work, node: ir.Node) -> bool:
    """Whether it adds to a running sum over timesteps, which may begin with zeros."""
    out, (left, right) = node.outputs[0], node.inputs
    for zero, value in ((left, right), (right, left)):
        found = work.seen.get(value) if value is not None else None
        if value is None or found is None or not _steps(work, found):
            continue
        if is_zero(zero) and sizes_of(value) == sizes_of(out):
            work.seen[out] = found
            return True
    if left not in work.seen or right not in work.seen:
        return False
    one, two = work.seen[left], work.seen[right]
    steps = [_steps(work, one), _steps(work, two)]
    if not all(steps) or steps[0] == steps[1]:
        return False
    both = sorted([*steps[0], *steps[1]])
    is_alike = one.twin is two.twin and one.view.groups == two.view.groups
    if not is_alike or len(set(both)) < len(both):
        work.mixed(node, [left] if is_alike else [left, right])
        return True
    view = View(one.view.groups)
    if len(both) < work.T:
        work.seen[out] = Seen(view, one.twin, When.PART, tuple(both))
    else:
        work.seen[out] = Seen(view, work.times(node, one.twin, work.T), When.MEAN)
    return True


def _steps(work: Work, found: Seen) -> list[int]:
    """The timesteps that a value is the sum of; none if it is no such sum."""
    if found.when is When.PART:
        return list(found.summed)
    times = found.timesteps()
    return times if found.when is When.EACH and len(times) == 1 < work.T else []


# -- at once ---------------------------------------------------------------------------------


def reduced(work: Work, node: ir.Node) -> tuple[Form | None, Seen] | None:
    """A mean or sum as it is on folded values, over other axes, and what it is of then.

    Returns:
        No form where nothing but timesteps is reduced, and then the value before; None where it
        cannot be said, of which there is a fault.
    """
    x = node.inputs[0]
    given = constant(node.inputs[1]) if len(node.inputs) > 1 else attribute(node, "axes")
    laid = laid_out(work, x) if x is not None else None
    if x is None or laid is None:
        work.mixed(node, [v for v in (x,) if v is not None])
        return None
    rank = len(laid.own)
    axes = sorted({int(a) % rank for a in (range(rank) if given is None else given)})
    over = [d for axis in axes for d in laid.groups[axis]]
    if any(d.axis == SAMPLES for d in over):
        work.fault(node, *_OVER_SAMPLES)
        work.lose(node, [x])
        return None
    is_over_time = any(d.axis == TIME for d in over)
    others = [d for i, g in enumerate(laid.groups) if i not in axes for d in g]
    is_part = is_over_time and any(d.axis == TIME for d in others)
    if is_part or (is_over_time and node.op_type not in ("ReduceMean", "ReduceSum")):
        work.mixed(node, [x])
        return None
    seen = replace(laid.seen, when=When.MEAN) if is_over_time else laid.seen
    groups, sizes = _left(node, laid, axes)
    along = [own for axis, own in enumerate(laid.own) if axis in axes and own is not None]
    keep = {"keepdims": attribute(node, "keepdims", 1)}
    inputs = [laid.twin, work.const(node, "folded", np.array(along, np.int64))] if along else []
    form = Form(inputs, groups, sizes, keep)
    if along:
        return form, seen
    return None, replace(seen, view=replace(seen.view, groups=groups_of(form)))


def _left(
    node: ir.Node, laid: Laid, axes: list[int]
) -> tuple[tuple[Group, ...], tuple[int | None, ...]]:
    """The axes after it: those that are reduced have size one, or go."""
    is_kept = attribute(node, "keepdims", 1)
    groups: list[Group] = []
    sizes: list[int | None] = []
    for axis, own in enumerate(laid.own):
        if axis in axes and is_kept:
            groups.append(() if own is None else (OWN,))
            sizes.append(None if own is None else 1)
        elif axis not in axes:
            groups.append(template(laid, axis))
            sizes.append(None if own is None else laid.size(axis))
    return tuple(groups), tuple(sizes)
