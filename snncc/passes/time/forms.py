"""Nodes on [T, N, ...] or [N, T, ...]: their form on [T*N, ...]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from snncc.ir.graphs import attribute, constant, initializer
from snncc.ir.ops import having
from snncc.passes.time.layout import Work

__all__ = ["SHAPING", "form_of", "sizes_of"]

_ELEMENTWISE = {"Add", "Sub", "Mul", "Div", "Relu", "Clip", "Round", "Floor", "Min", "Max", "Cast"}
SHAPING = set(having("imported", lambda t: t.regroups))
#: Neurons that know nothing of other timesteps.
_FORGETFUL = having("imported", lambda t: t.fires and not t.remembers)

#: Attributes, inputs, sizes of the result after its batch axis.
Form = tuple[dict[str, Any], list["ir.Value | None"], "tuple[int, ...] | None"]


def form_of(work: Work, node: ir.Node) -> Form | None:
    """The node as it is on folded values; None if it has no such form."""
    rule = _RULES.get(node.op_type)
    return rule(work, node) if rule is not None else None


def sizes_of(value: ir.Value) -> tuple[int | None, ...] | None:
    """Sizes with None for those that vary."""
    if value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else None for d in value.shape)


def _behind_batch(node: ir.Node) -> tuple[int, ...] | None:
    found = sizes_of(node.outputs[0])
    return found[2:] if found is not None and None not in found[2:] else None  # type: ignore[return-value]


def _elementwise(work: Work, node: ir.Node) -> Form | None:
    """Constants may vary after the axes of timesteps and samples only."""
    inputs: list[ir.Value | None] = []
    rank = len(node.outputs[0].shape or ())
    for v in node.inputs:
        array = constant(v)
        if v is None or v in work.seen:
            inputs.append(None if v is None else work.seen[v].twin)
        elif array is None or any(s != 1 for s in array.shape[: max(array.ndim - rank + 2, 0)]):
            return None
        else:
            slim = array.reshape(array.shape[max(array.ndim - rank + 1, 0) :])
            name = f"{node.outputs[0].name}.folded"
            inputs.append(v if slim is array else initializer(work.model.graph, name, slim))
    attributes = {k: a.value for k, a in node.attributes.items()}
    return attributes, inputs, _behind_batch(node)


def _matmul(work: Work, node: ir.Node) -> Form | None:
    """A product over the last two axes, which timesteps and samples are none of."""
    live = [v for v in node.inputs if v in work.seen]
    ranks = {len(v.shape or ()) for v in live if v is not None}
    others = [constant(v) for v in node.inputs if v not in work.seen]
    least = 3 if len(live) == 1 and node.inputs[0] in work.seen else 4
    if len(ranks) > 1 or min(ranks) < least or any(w is None or w.ndim != 2 for w in others):
        return None
    inputs = [work.seen[v].twin if v in work.seen else v for v in node.inputs]
    return {}, inputs, _behind_batch(node)


def _transpose(work: Work, node: ir.Node) -> Form | None:
    """A transpose that leaves the axes of timesteps and samples in place."""
    x, order = node.inputs[0], list(attribute(node, "perm", []))
    if x is None or order[:2] != [0, 1]:
        return None
    return {"perm": [0, *(a - 1 for a in order[2:])]}, [work.seen[x].twin], _behind_batch(node)


def _inside(node: ir.Node, axes: Sequence[int]) -> list[int] | None:
    """Axes as they are counted on folded values; None if one is that of timesteps or samples."""
    rank = len(node.inputs[0].shape or ()) if node.inputs[0] is not None else 0
    counted = [int(a) % rank for a in axes] if rank else [0]
    return None if min(counted) < 2 else [a - 1 for a in counted]


def _along(work: Work, node: ir.Node) -> Form | None:
    """Concat and Gather along another axis."""
    axes = _inside(node, [attribute(node, "axis", 0)])
    live = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    if axes is None or any(v not in work.seen for v in live):
        return None
    inputs = [work.seen[v].twin if v in work.seen else v for v in node.inputs]
    return {"axis": axes[0]}, inputs, _behind_batch(node)


def _slice(work: Work, node: ir.Node) -> Form | None:
    """Ranges along other axes."""
    x, given = node.inputs[0], [constant(v) for v in node.inputs[1:]]
    if x is None or len(given) < 3 or any(g is None for g in given):
        return None
    axes = _inside(node, given[2].reshape(-1).tolist())  # type: ignore[union-attr]
    if axes is None:
        return None
    name = f"{node.outputs[0].name}.axes"
    moved = initializer(work.model.graph, name, np.array(axes, np.int64))
    inputs = [work.seen[x].twin, *node.inputs[1:3], moved, *node.inputs[4:]]
    return {}, inputs, _behind_batch(node)


def _regrouped(work: Work, node: ir.Node) -> Form | None:
    """[T, N, a...] as [T, N, b...]."""
    x, out = node.inputs[0], node.outputs[0]
    before, after = sizes_of(x) if x is not None else None, sizes_of(out)
    if x is None or before is None or after is None or after[:2] != before[:2]:
        return None
    if None in before[2:] or None in after[2:]:
        return None
    sizes = tuple(d for d in after[2:] if d is not None)
    if prod(d for d in before[2:] if d is not None) != prod(sizes):
        return None
    target = initializer(work.model.graph, f"{out.name}.folded", np.array([-1, *sizes], np.int64))
    node.op_type = "Reshape"
    return {}, [work.seen[x].twin, target], sizes


def _reduction(work: Work, node: ir.Node) -> Form | None:
    """A mean or sum over height and width, or other axes."""
    x = node.inputs[0]
    given = constant(node.inputs[1]) if len(node.inputs) > 1 else attribute(node, "axes")
    axes = None if given is None else _inside(node, list(given))
    if x is None or axes is None:
        return None
    moved = np.array(axes, np.int64)
    keep = {"keepdims": attribute(node, "keepdims", 1)}
    inputs: list[ir.Value | None] = [
        work.seen[x].twin,
        initializer(work.model.graph, f"{node.name}.folded", moved),
    ]
    return keep, inputs, _behind_batch(node)


_RULES: dict[str, Callable[[Work, ir.Node], Form | None]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(("Identity", "Dropout", *_FORGETFUL), _elementwise),
    **dict.fromkeys(SHAPING, _regrouped),
    **dict.fromkeys(("Concat", "Gather"), _along),
    **dict.fromkeys(("ReduceMean", "ReduceSum"), _reduction),
    "MatMul": _matmul,
    "Slice": _slice,
    "Transpose": _transpose,
}
