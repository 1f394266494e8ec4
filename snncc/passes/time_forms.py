"""Nodes on [T, N, ...] or [N, T, ...]: their form on [T*N, ...]."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from snncc.ir.graphs import attribute, constant, initializer

if TYPE_CHECKING:
    from snncc.passes.fold_time import Folding

__all__ = ["SHAPING", "Form", "form_of", "sizes_of"]

_ELEMENTWISE = {"Add", "Sub", "Mul", "Div", "Relu", "Clip", "Round", "Floor", "Min", "Max", "Cast"}
SHAPING = {"Reshape", "Flatten", "Squeeze", "Unsqueeze"}

#: Attributes, inputs, sizes of the result behind its batch axis.
Form = tuple[dict[str, Any], list["ir.Value | None"], "tuple[int, ...] | None"]


def form_of(work: Folding, node: ir.Node) -> Form | None:
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


def _elementwise(work: Folding, node: ir.Node) -> Form | None:
    """Constants may vary behind the axes of timesteps and samples only."""
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


def _matmul(work: Folding, node: ir.Node) -> Form | None:
    x, weight = node.inputs[0], constant(node.inputs[1])
    if x is None or weight is None or weight.ndim != 2 or len(x.shape or ()) != 3:
        return None
    return {}, [work.seen[x].twin, node.inputs[1]], _behind_batch(node)


def _regrouped(work: Folding, node: ir.Node) -> Form | None:
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


def _reduction(work: Folding, node: ir.Node) -> Form | None:
    """A mean over height and width."""
    x = node.inputs[0]
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else attribute(node, "axes")
    rank = len(x.shape or ()) if x is not None else 0
    if x is None or axes is None or any(int(a) % rank < 2 for a in axes):
        return None
    moved = np.array([int(a) % rank - 1 for a in axes], np.int64)
    keep = {"keepdims": attribute(node, "keepdims", 1)}
    inputs: list[ir.Value | None] = [
        work.seen[x].twin,
        initializer(work.model.graph, f"{node.name}.folded", moved),
    ]
    return keep, inputs, _behind_batch(node)


_RULES: dict[str, Callable[[Folding, ir.Node], Form | None]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(("Identity", "Dropout", "IntegerFire"), _elementwise),
    **dict.fromkeys(SHAPING, _regrouped),
    "MatMul": _matmul,
    "ReduceMean": _reduction,
}
