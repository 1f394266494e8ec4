"""Timesteps one by one, as a loop in the network's code makes them: picked out, gathered, summed.

A layer in the loop appears once per timestep in the graph. All of them compute the same from the
folded values, so they have one folded twin; ``key_of`` says what is the same.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import onnx_ir as ir

from snncc.ir.graphs import attribute, constant, is_op, is_zero
from snncc.passes.time.forms import SHAPING, sizes_of
from snncc.passes.time.layout import Layout, Seen, Work

__all__ = ["key_of", "visit"]


def visit(work: Work, node: ir.Node, live: list[ir.Value]) -> bool:
    """Give the results their layouts if the node handles single timesteps; whether it does."""
    rule = _RULES.get(node.op_type)
    return rule(work, node) if rule is not None else False


def key_of(work: Work, node: ir.Node) -> Any:
    """What the node computes from folded values; None where that cannot be compared."""
    shape = sizes_of(node.outputs[0])
    if node.op_type in SHAPING and node.inputs[0] in work.seen and shape is not None:
        return node.op_type, id(work.seen[node.inputs[0]].twin), shape
    inputs = [_input_key(work, v) for v in node.inputs]
    attributes = sorted((k, repr(a.value)) for k, a in node.attributes.items())
    return None if False in inputs else (node.domain, node.op_type, *inputs, *attributes)


def _input_key(work: Work, value: ir.Value | None) -> Any:
    """A folded value is itself, a constant what it holds; False for anything else."""
    if value is None:
        return None
    found = work.seen.get(value)
    if found is not None and found.layout is not Layout.SHAPE:
        return id(found.twin)
    array = constant(value)
    if array is None:
        return False
    return str(array.dtype), array.shape, sha256(array.tobytes()).digest()


# -- picking ---------------------------------------------------------------------------------


def _place(work: Work, value: ir.Value | None, layout: Layout, t: int) -> Seen:
    """A single timestep; the only one of T = 1 is all there is."""
    assert value is not None
    found = work.seen[value]
    if work.T == 1:
        return found.renamed(Layout.FLAT if layout is Layout.STEP else found.layout)
    return found.renamed(layout, t)


def _gather(work: Work, node: ir.Node) -> bool:
    """x[t] or x[:, t]."""
    x, index = node.inputs[0], constant(node.inputs[1])
    if not _is_axis_of_time(work, x, attribute(node, "axis", 0)) or index is None or index.ndim:
        return False
    work.seen[node.outputs[0]] = _place(work, x, Layout.STEP, int(index) % work.T)
    return True


def _slice(work: Work, node: ir.Node) -> bool:
    """x[t : t + 1] or x[:, t : t + 1]."""
    x, out = node.inputs[0], node.outputs[0]
    bounds = [constant(v) for v in node.inputs[1:]]
    if len(bounds) < 3 or any(b is None or b.size != 1 for b in bounds):
        return False
    start, end, axis, *step = (int(b.reshape(-1)[0]) for b in bounds if b is not None)
    if not _is_axis_of_time(work, x, axis) or step not in ([], [1]):
        return False
    chosen = range(work.T)[start:end]
    if len(chosen) != 1:
        return False
    work.seen[out] = _place(work, x, Layout.CUT, chosen[0])
    return True


def _split(work: Work, node: ir.Node) -> bool:
    """All timesteps of x, one by one."""
    x, axis = node.inputs[0], attribute(node, "axis", 0)
    is_flat = x in work.seen and work.seen[x].layout is Layout.FLAT and axis == 0
    if len(node.outputs) != work.T or not (is_flat or _is_axis_of_time(work, x, axis)):
        return False
    if not is_flat and any((sizes_of(out) or ())[axis : axis + 1] != (1,) for out in node.outputs):
        return False
    if is_flat and attribute(node, "num_outputs") != work.T:
        return False
    for t, out in enumerate(node.outputs):
        work.seen[out] = _place(work, x, Layout.STEP if is_flat else Layout.CUT, t)
    return True


def _squeeze(work: Work, node: ir.Node) -> bool:
    x, out = node.inputs[0], node.outputs[0]
    if x not in work.seen or work.seen[x].layout is not Layout.CUT:
        return False
    if len(x.shape or ()) != len(out.shape or ()) + 1:
        return False
    work.seen[out] = work.seen[x].renamed(Layout.STEP, *work.seen[x].when)
    return True


def _is_axis_of_time(work: Work, x: ir.Value | None, axis: int) -> bool:
    return x in work.seen and work.seen[x].layout.time_axis == axis


# -- gathering -------------------------------------------------------------------------------


def _concat(work: Work, node: ir.Node) -> bool:
    """torch.stack over all timesteps, in either axis, or torch.cat along the samples."""
    axis = attribute(node, "axis", 0)
    stacked = [_unsqueezed(v, axis) for v in node.inputs]
    sources = node.inputs if stacked.count(None) == len(stacked) else stacked
    found = [work.seen[v] for v in sources if v in work.seen]
    if len(node.inputs) != work.T or len(found) != work.T or axis not in (0, 1):
        return False
    if (axis == 1 and None in stacked) or not {s.layout for s in found} <= _ONE_BY_ONE:
        return False
    layout = Layout.FLAT if None in stacked else (Layout.APART, Layout.LINED)[axis]
    if fault := _disorder(found):
        work.fault(node, fault, "the same layers, in the same order, in every timestep")
    work.seen[node.outputs[0]] = found[0].renamed(layout)
    return True


_ONE_BY_ONE = {Layout.STEP, Layout.STILL, Layout.FLAT}


def _disorder(found: list[Seen]) -> str:
    """What keeps values of single timesteps from being one value of all."""
    if any(s.when not in ((), (t,)) for t, s in enumerate(found)):
        return "has timesteps in another order"
    other = next((t for t, s in enumerate(found) if s.twin is not found[0].twin), None)
    return f"timestep {other} is not computed as timestep 0 is" if other is not None else ""


def _unsqueezed(value: ir.Value | None, axis: int) -> ir.Value | None:
    """What got an axis of one timestep."""
    node = value.producer() if value is not None else None
    if node is None or not is_op(node, "Unsqueeze"):
        return None
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else attribute(node, "axes")
    return node.inputs[0] if axes is not None and [int(a) for a in axes] == [axis] else None


# -- summing ---------------------------------------------------------------------------------


def _add(work: Work, node: ir.Node) -> bool:
    """A running sum over timesteps; it may begin with zeros."""
    left, right = node.inputs
    out = node.outputs[0]
    for zero, value in ((left, right), (right, left)):
        found = work.seen.get(value) if value is not None else None
        if value is None or found is None or found.layout not in (Layout.STEP, Layout.PART):
            continue
        if is_zero(zero) and sizes_of(value) == sizes_of(out):
            work.seen[out] = found
            return True
    if left not in work.seen or right not in work.seen:
        return False
    one, two = work.seen[left], work.seen[right]
    if not {one.layout, two.layout} <= {Layout.STEP, Layout.PART} or one.when == two.when:
        return False
    both = tuple(sorted((*one.when, *two.when)))
    if one.twin is not two.twin or len(set(both)) < len(both):
        work.mixed(node, [left])
    elif len(both) < work.T:
        work.seen[out] = one.renamed(Layout.PART, *both)
    else:
        work.seen[out] = one.renamed(Layout.MEAN, twin=work.times(node, one.twin, work.T))
    return True


_RULES = {
    "Add": _add,
    "Concat": _concat,
    "Gather": _gather,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
}
