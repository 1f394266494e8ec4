"""What regroups tokens, and what computes element by element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.exact import Exact
from snncc.ir.graphs import attribute, constant
from snncc.ir.ops import NEURONS, having
from snncc.passes.reading import is_train
from snncc.passes.tokens.products import NotAttentionError, Product, Tokens
from snncc.passes.tokens.views import regrouped, selected, spread
from snncc.passes.tokens.work import (
    Rule,
    View,
    Views,
    Work,
    attributes_of,
    axes_of,
    first_of,
    sizes_of,
)

__all__ = ["MOVES"]

Array = npt.NDArray[Any]


# -- what regroups ---------------------------------------------------------------------------


def _reshape(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    """Reshape, Flatten, Squeeze and Unsqueeze, and repetitions that repeat nothing."""
    view, out = first_of(seen), node.outputs[0]
    if view is None or out.shape is None:
        return None
    groups = regrouped(view.groups, axes_of(out))
    if groups is None or _is_plain_flatten(view, node):
        return None
    return [replace(view, groups=groups)]


def _is_plain_flatten(view: View, node: ir.Node) -> bool:
    """A map flattened as it is has a form already."""
    rank = len(node.outputs[0].shape or ())
    return rank == 2 and isinstance(view, Tokens) and view.twin is node.inputs[0]


def _repeat(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    view, x = first_of(seen), node.inputs[0]
    if view is None or x is None or axes_of(x) != axes_of(node.outputs[0]):
        return None
    return [view]


def _transpose(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    view = first_of(seen)
    if view is None:
        return None
    order = attribute(node, "perm") or list(range(len(view.groups)))[::-1]
    return [replace(view, groups=tuple(view.groups[i] for i in order))]


def _slice(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    given = [constant(v) for v in node.inputs[1:]]
    if any(g is None or g.size != 1 for g in given) or len(given) < 3:
        return None
    start, stop, axis, *step = (int(g.item()) for g in given if g is not None)
    if step and step[0] != 1:
        return None
    return _ranges(work, node, seen, axis, [(start, stop)])


def _split(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    axis = attribute(node, "axis", 0)
    sizes = [axes_of(out)[axis] for out in node.outputs]
    if any(s is None for s in sizes):
        return None
    ends = np.cumsum([s for s in sizes if s is not None]).tolist()
    return _ranges(work, node, seen, axis, list(zip([0, *ends], ends, strict=False)))


def _gather(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    index, axis, x = constant(node.inputs[1]), attribute(node, "axis", 0), node.inputs[0]
    size = axes_of(x)[axis] if x is not None else None
    if index is None or index.ndim != 0 or size is None:
        return None
    at = int(index) % size
    found = _ranges(work, node, seen, axis, [(at, at + 1)])
    if not found or not isinstance(found[0], Tokens):
        return None
    groups = list(found[0].groups)
    del groups[axis]
    return [replace(found[0], groups=tuple(groups))]


def _ranges(
    work: Work,
    node: ir.Node,
    seen: Sequence[View | None],
    axis: int,
    ranges: Sequence[tuple[int, int]],
) -> Views:
    """Parts of an axis of channels: maps of these channels alone."""
    view, x = first_of(seen), node.inputs[0]
    size = axes_of(x)[axis] if x is not None else None
    if not isinstance(view, Tokens) or size is None:
        return None
    found: list[Tokens | None] = []
    for start, stop in ranges:
        start, stop = (min(i + size if i < 0 else i, size) for i in (start, stop))
        if not 0 <= start < stop:
            return None
        part = selected(view.groups, axis % len(view.groups), start, stop)
        twin = work.parts.of(view.twin, part[1], node) if part is not None else None
        if part is None or twin is None:
            return None
        found.append(replace(view, groups=part[0], twin=twin))
    return found


# -- what computes, element by element -------------------------------------------------------


def _neuron(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    view = first_of(seen)
    if isinstance(view, Product):
        raise NotAttentionError("a neuron between the first and the second product")
    if view is None:
        return None
    twin = work.map(
        node, node.op_type, work.scaled(view, node), shape=sizes_of(view), domain=node.domain,
        attributes=attributes_of(node),
    )  # fmt: skip
    return [Tokens(view.groups, twin)]


def _arithmetic(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    """Sums of two views of one kind; sums, differences and multiples with constants."""
    arrays = [constant(v) for v in node.inputs]
    index = next((i for i, view in enumerate(seen) if view is not None), 0)
    view, array = seen[index], arrays[1 - index]
    if array is None:
        return (_gate if node.op_type == "Mul" else _sum)(work, node, seen)
    if view is None or (index == 1 and node.op_type == "Div"):
        return None
    if array.size != 1 and isinstance(view, Tokens) and view.has_copies:
        return None
    by_number = array.size == 1 and node.op_type in ("Mul", "Div") and float(array.item()) != 0
    if by_number and (isinstance(view, Product) or is_train(view.twin)):
        (factor,) = exact.fractions() if (exact := Exact.of(node.inputs[1 - index])) else (1,)
        scale = view.scale * factor if node.op_type == "Mul" else view.scale / factor
        return [replace(view, scale=scale)]
    if isinstance(view, Product):
        raise NotAttentionError(f"{node.op_type} of the product of two of q, k and v")
    other = _constant_of(work, node, array, view)
    pair = [work.scaled(view, node), other]
    twin = work.map(node, node.op_type, *(pair if index == 0 else pair[::-1]), shape=sizes_of(view))
    return [Tokens(view.groups, twin)]


def _constant_of(work: Work, node: ir.Node, array: Array, view: Tokens) -> ir.Value:
    """A constant as it meets the map: one number, one a channel, or a whole map."""
    if array.size == 1:
        return work.const(node, "number", array.reshape(()))
    sizes = sizes_of(view)
    whole = spread(array, view.groups, sizes)
    by_channel = whole.reshape(sizes[0], -1)
    if (by_channel == by_channel[:, :1]).all():
        return work.const(node, "by_channel", by_channel[:, :1].reshape(-1, 1, 1))
    return work.const(node, "map", whole[None])


def _sum(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    one, two = seen
    if isinstance(one, Product) or isinstance(two, Product):
        raise NotAttentionError(f"{node.op_type} of the product of two of q, k and v")
    if one is None or two is None or node.op_type != "Add":
        return None
    if one.groups != two.groups or sizes_of(one) != sizes_of(two):
        return None
    pair = [work.scaled(view, node) for view in (one, two)]
    return [Tokens(one.groups, work.map(node, "Add", *pair, shape=sizes_of(one)))]


def _gate(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    """A product of two views, number by number; one may have one number for all positions."""
    one, two = seen
    if isinstance(one, Product) or isinstance(two, Product):
        raise NotAttentionError("Mul of the product of two of q, k and v")
    if one is None or two is None:
        return None
    whole, other = (one, two) if len(sizes_of(one)) and _covers(one, two) else (two, one)
    if not _covers(whole, other):
        return None
    pair = [work.scaled(view, node) for view in (one, two)]
    return [Tokens(whole.groups, work.map(node, "Mul", *pair, shape=sizes_of(whole)))]


def _covers(whole: Tokens, other: Tokens) -> bool:
    """Whether the other is a view alike, with copies or not, or one alike of one position."""
    sizes, single = sizes_of(whole), sizes_of(other)
    if not whole.has_copies and sizes == single and len(whole.groups) == len(other.groups):
        pairs = zip(whole.groups, other.groups, strict=True)
        return all(b in (a, ()) and {d.axis for d in a if d not in b} <= {"C"} for a, b in pairs)
    if whole.groups == other.groups and sizes == single:
        return True
    bare = tuple(tuple(d for d in group if d.axis != "P") for group in whole.groups)
    return single == (sizes[0], *(1 for _ in sizes[1:])) and bare == other.groups


def _on_grid(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    view, theta = first_of(seen), constant(node.inputs[1])
    if not isinstance(view, Tokens) or theta is None:
        return None
    other = _constant_of(work, node, theta, view)
    twin = work.map(
        node, "OnGrid", work.scaled(view, node), other, shape=sizes_of(view), domain=node.domain
    )
    return [Tokens(view.groups, twin)]


MOVES: dict[str, Rule] = {
    **dict.fromkeys(having("imported", lambda t: t.regroups), _reshape),
    **dict.fromkeys(("Expand", "Tile", "Identity"), _repeat),
    "Transpose": _transpose,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    **dict.fromkeys(NEURONS, _neuron),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic),
    "OnGrid": _on_grid,
}
