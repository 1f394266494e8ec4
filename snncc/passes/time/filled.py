"""Tensors that a network's code fills index by index, ``out[t] = x``: they are what was put in.

Each assignment is a ScatterElements into the tensor as it was before. Once every place of an axis
has been written, nothing is left of what the tensor began with: it is a concatenation.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from snncc.ir.graphs import Edit, attribute, constant, is_op, nodes, replace_value
from snncc.ir.names import NEW
from snncc.passes.time.layout import sizes_of

__all__ = ["restate_filled"]


def restate_filled(model: ir.Model, made_by: str) -> None:
    """Rewrite tensors that are filled whole, and what is read of them before, in place."""
    for node in list(nodes(model, "Gather")):
        _read(node, made_by)
    for node in list(nodes(model, "ScatterElements")):
        _concatenate(node, made_by)


def _concatenate(node: ir.Node, made_by: str) -> None:
    out, axis = node.outputs[0], attribute(node, "axis", 0)
    size = (sizes_of(out) or ())[axis : axis + 1]
    is_last = any(user.op_type != "ScatterElements" for user, _ in out.uses())
    if not size or not (is_last or out.is_graph_output()):
        return
    places = dict(_written(node, axis))
    if set(places) != set(range(size[0] or 0)):
        return
    parts = [places[place] for place in sorted(places)]
    found = Edit(node, made_by).op(
        "Concat", *parts, name=f"{out.name}{NEW}", like=out, attributes={"axis": axis}
    )
    replace_value(out, found)


def _read(node: ir.Node, made_by: str) -> None:
    """One place of a tensor is what was last written there."""
    x, index, axis = node.inputs[0], constant(node.inputs[1]), attribute(node, "axis", 0)
    filled = x.producer() if x is not None else None
    if filled is None or index is None or index.ndim or not is_op(filled, "ScatterElements"):
        return
    size = (sizes_of(filled.outputs[0]) or ())[axis : axis + 1]
    at = int(index) + (size[0] or 0 if size and int(index) < 0 else 0)
    found = next((part for place, part in _written(filled, axis) if place == at), None)
    if found is None:
        return
    out, edit = node.outputs[0], Edit(node, made_by)
    along = edit.const(f"{out.name}.axis", np.array([axis], np.int64))
    replace_value(out, edit.op("Squeeze", found, along, name=f"{out.name}{NEW}", like=out))


def _written(node: ir.Node, axis: int) -> Iterator[tuple[int, ir.Value]]:
    """What was assigned along an axis, each place once, as [.., 1, ..]; the last one first."""
    seen: set[int] = set()
    writer: ir.Node | None = node
    while writer is not None and is_op(writer, "ScatterElements"):
        data, index, part = writer.inputs
        place = _place(index)
        is_plain = attribute(writer, "reduction", "none") == "none"
        if not is_plain or attribute(writer, "axis", 0) != axis or place is None or part is None:
            return
        if (sizes_of(part) or ())[axis : axis + 1] != (1,) or not _covers(writer, axis):
            return
        if place not in seen:
            seen.add(place)
            yield place, part
        writer = data.producer() if data is not None else None


def _covers(node: ir.Node, axis: int) -> bool:
    """Whether an assignment writes all of its place along the other axes."""
    whole, part = (sizes_of(v) if v is not None else None for v in (node.inputs[0], node.inputs[2]))
    if whole is None or part is None:
        return False
    return (*whole[:axis], 1, *whole[axis + 1 :]) == part


def _place(index: ir.Value | None) -> int | None:
    """The one place that an index names for all elements."""
    node = index.producer() if index is not None else None
    array = constant(node.inputs[0] if node is not None and is_op(node, "Expand") else index)
    if array is None or not array.size or (array != array.flat[0]).any():
        return None
    found = int(array.flat[0])
    return found if found >= 0 else None
