"""canonicalise: one spelling for each thing, so that later passes need to know only that one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from snncc.ir.carried import carry_of
from snncc.ir.exact import Exact
from snncc.ir.graphs import (
    Edit,
    attribute,
    constant,
    explicit_pads,
    is_op,
    is_zero,
    nodes,
    replace_value,
    static_shape,
)
from snncc.ir.names import NEW
from snncc.passes.base import Pass
from snncc.passes.padding import read_padding
from snncc.program import pooled_size

__all__ = ["Canonicalise"]

#: No axis is longer: exporters write such an end for all that there is.
_LONGEST = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Canonicalise(Pass):
    """Reshapes are static, pools explicit, linear layers Conv or Gemm with all attributes."""

    name: ClassVar[str] = "canonicalise"
    stage_in: ClassVar[str] = "imported"
    stage_out: ClassVar[str] = "imported"

    def run(self, model: ir.Model) -> int:
        """Apply the table below once, in topological order."""
        count = 0
        for node in nodes(model, *_RULES):
            new = _RULES[node.op_type](node, Edit(node, self.name))
            if new is not None:
                replace_value(node.outputs[0], new, keep_name=new.producer() is not None)
                count += 1
        return count


def _skip(node: ir.Node, edit: Edit) -> ir.Value | None:
    """Identity: readers take the input. A graph output keeps its node."""
    return None if node.outputs[0].is_graph_output() else node.inputs[0]


def _dropout(node: ir.Node, edit: Edit) -> ir.Value | None:
    """Dropout, unless it drops in eval mode as well."""
    given = node.inputs[2] if len(node.inputs) > 2 else None
    drops = constant(given)
    return None if given is not None and (drops is None or drops.any()) else _skip(node, edit)


def _add(node: ir.Node, edit: Edit) -> ir.Value | None:
    """A sum with zeros, as one over timesteps begins: readers take the other."""
    out = node.outputs[0]
    for value, other in (node.inputs, node.inputs[::-1]):
        alike = value is not None and static_shape(value) == static_shape(out) is not None
        if alike and is_zero(other) and not out.is_graph_output():
            return value
    return None


def _gather(node: ir.Node, edit: Edit) -> ir.Value | None:
    """The only element along an axis of size 1: a reshape, or what had no such axis before."""
    x, index, out = node.inputs[0], constant(node.inputs[1]), node.outputs[0]
    if x is None or x.shape is None or index is None or index.ndim or out.is_graph_output():
        return None
    axis = attribute(node, "axis", 0) % len(x.shape)
    if axis and x.shape[axis] == 1:
        return _static_reshape(node, edit)
    made = x.producer()
    axes = constant(made.inputs[1]) if made is not None and is_op(made, "Unsqueeze") else None
    is_undone = axes is not None and [int(a) % len(x.shape) for a in axes] == [axis]
    return made.inputs[0] if made is not None and is_undone else None


def _slice(node: ir.Node, edit: Edit) -> ir.Value | None:
    """All of each axis: x, as in x[:, 0], whose first part is all samples."""
    x, starts, ends, axes, *rest = (*node.inputs, None, None)[:5]
    steps = constant(rest[0]) if rest[0] is not None else np.ones(1, np.int64)
    ranges = [constant(v) for v in (starts, ends, axes)]
    if x is None or steps is None or any(r is None for r in ranges) or (steps != 1).any():
        return None
    sizes = [d if isinstance(d, int) else _LONGEST for d in x.shape or ()]
    begins, stops, along = (r.tolist() for r in ranges if r is not None)
    whole = all(b == 0 and e >= sizes[a] for b, e, a in zip(begins, stops, along, strict=True))
    return x if whole and not node.outputs[0].is_graph_output() else None


def _static_reshape(node: ir.Node, edit: Edit) -> ir.Value | None:
    """Any op that only regroups axes after the batch: Reshape to [-1, ...]."""
    out, x = node.outputs[0], node.inputs[0]
    if x is not None and is_op(x.producer(), "Reshape"):
        x = x.producer().inputs[0]  # type: ignore[union-attr]
    shape, before = static_shape(out), static_shape(x) if x is not None else None
    if shape is None or before is None or np.prod(shape) != np.prod(before):
        return None
    target = np.array([-1, *shape], dtype=np.int64)
    known = constant(node.inputs[1]) if node.op_type == "Reshape" else None
    same = x is node.inputs[0] and "allowzero" not in node.attributes
    if known is not None and np.array_equal(known, target) and same:
        return None
    if shape == before and not out.is_graph_output():
        return x
    return edit.op(
        "Reshape", x, edit.const(f"{out.name}.shape", target), name=f"{out.name}{NEW}", like=out
    )


def _global_pool(node: ir.Node, edit: Edit) -> ir.Value | None:
    """GlobalAveragePool, and ReduceMean or ReduceSum over exactly height and width."""
    x, out = node.inputs[0], node.outputs[0]
    size = static_shape(x) if x is not None else None
    if x is None or size is None or len(size) != 3 or not _over_plane(node):
        return None
    pooled = edit.op(
        "AveragePool",
        x,
        name=f"{out.name}/pool",
        dtype=out.dtype,
        shape=[x.shape[0] if x.shape else None, size[0], 1, 1],
        attributes={
            **_window(size[1:], size[1:], [0, 0, 0, 0]),
            "ceil_mode": 0,
            "count_include_pad": 1,
        },
    )
    if node.op_type == "ReduceSum":
        count = edit.const(f"{out.name}.count", np.array(np.prod(size[1:]), dtype=np.float32))
        pooled = edit.op("Mul", pooled, count, name=f"{out.name}/sum", like=pooled)
    if len(out.shape or ()) == 4:
        return pooled
    target = edit.const(f"{out.name}.shape", np.array([-1, size[0]], dtype=np.int64))
    return edit.op("Reshape", pooled, target, name=f"{out.name}{NEW}", like=out)


def _over_plane(node: ir.Node) -> bool:
    return node.op_type == "GlobalAveragePool" or _reduced_axes(node, 4) == [2, 3]


def _reduced_axes(node: ir.Node, rank: int) -> list[int] | None:
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else attribute(node, "axes")
    return None if axes is None else sorted(int(a) % rank for a in axes)


def _reduction(node: ir.Node, edit: Edit) -> ir.Value | None:
    """A mean or sum over height and width, or over axes of size 1, as of heads of one channel."""
    x = node.inputs[0]
    size = static_shape(x) if x is not None else None
    axes = _reduced_axes(node, 1 + len(size)) if size else None
    if size and axes and axes[0] > 0 and all(size[axis - 1] == 1 for axis in axes):
        return _static_reshape(node, edit)
    return _global_pool(node, edit)


def _window(kernel: Any, strides: Any, pads: Any) -> dict[str, Any]:
    return {"kernel_shape": list(kernel), "strides": list(strides), "pads": list(pads)}


def _pool(node: ir.Node, edit: Edit) -> ir.Value | None:
    """MaxPool and AveragePool with every attribute written out."""
    x, out = node.inputs[0], node.outputs[0]
    size, after = static_shape(x) if x is not None else None, static_shape(out)
    kernel = attribute(node, "kernel_shape")
    if size is None or after is None or len(size) != 3 or len(node.outputs) > 1:
        return None
    if attribute(node, "dilations", [1, 1]) != [1, 1]:
        return None
    strides = list(attribute(node, "strides") or [1, 1])
    pads = explicit_pads(node, kernel, strides, size[1:])
    missing = [(after[1 + a] - 1) * strides[a] + kernel[a] - size[1 + a] for a in (0, 1)]
    extra = [max(missing[a] - pads[a] - pads[a + 2], 0) for a in (0, 1)]
    average = node.op_type == "AveragePool"
    if average and any(extra):
        return None  # the last windows of ceil_mode have a divisor of their own
    pads = [pads[0], pads[1], pads[2] + extra[0], pads[3] + extra[1]]
    more = {"ceil_mode": 0}
    if average:
        inside = attribute(node, "count_include_pad", 0)
        more["count_include_pad"] = 1 if not any(pads) else inside
    elif not all(_fits(size[1 + a], kernel[a], strides[a], pads, a, after) for a in (0, 1)):
        return None
    wanted = {**_window(kernel, strides, pads), **more}
    if {k: attribute(node, k) for k in node.attributes} == wanted:
        return None
    return edit.op(node.op_type, x, name=f"{out.name}{NEW}", like=out, attributes=wanted)


def _fits(size: int, kernel: int, stride: int, pads: list[int], axis: int, out: Any) -> bool:
    ends = pads[axis] + pads[axis + 2]
    same = pooled_size(size, kernel, stride, ends) == out[1 + axis]
    return same and max(pads[axis], pads[axis + 2]) < kernel


def _conv(node: ir.Node, edit: Edit) -> ir.Value | None:
    """Conv with explicit geometry; 2-d only. A border of zeros before it is its own padding."""
    x, out = node.inputs[0], node.outputs[0]
    weight = node.inputs[1]
    size = static_shape(x) if x is not None else None
    if weight is None or weight.shape is None or size is None or len(weight.shape) != 4:
        return None
    kernel = [int(weight.shape[2]), int(weight.shape[3])]  # type: ignore[arg-type]
    strides = list(attribute(node, "strides") or [1, 1])
    dilations = list(attribute(node, "dilations") or [1, 1])
    span = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    pads, border = explicit_pads(node, span, strides, size[1:]), read_padding(x)
    if border is not None and not border.values.any():
        x, pads = border.x, [a + b for a, b in zip(pads, border.pads, strict=True)]
    wanted = {
        **_window(kernel, strides, pads),
        "dilations": dilations,
        "group": attribute(node, "group", 1),
    }
    if {k: attribute(node, k) for k in node.attributes} == wanted and x is node.inputs[0]:
        return None
    return edit.op(
        "Conv", x, *node.inputs[1:], name=f"{out.name}{NEW}", like=out, attributes=wanted
    )


_GEMM = {"transA": 0, "transB": 1, "alpha": 1.0, "beta": 1.0}


def _gemm(node: ir.Node, edit: Edit) -> ir.Value | None:
    """Gemm as x @ W.T + b with constant 2-d weights."""
    out = node.outputs[0]
    current = {k: attribute(node, k, d) for k, d in {**_GEMM, "transB": 0}.items()}
    weight = Exact.of(node.inputs[1])
    if weight is None or current["transA"] or (current == _GEMM and len(node.attributes) == 4):
        return None
    rows = _times(weight if current["transB"] else weight.moved(np.transpose), current["alpha"])
    args = [node.inputs[0], edit.const(f"{out.name}.weight", rows)]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = Exact.of(node.inputs[2])
        if bias is None or bias.values.size not in (*bias.values.shape[-1:], 1):
            return None  # one for each sample
        full = _times(bias, current["beta"]).spread(len(rows.values))
        args.append(edit.const(f"{out.name}.bias", full))
    return edit.op("Gemm", *args, name=f"{out.name}{NEW}", like=out, attributes=_GEMM)


def _times(numbers: Exact, factor: float) -> Exact:
    """All numbers times a factor, which is 1 in nearly all files."""
    if factor == 1.0:
        return numbers
    one = np.full((1,) * numbers.values.ndim, Fraction(factor), dtype=object)
    return Exact(numbers.values, one if numbers.units is None else numbers.units * one)


def _matmul(node: ir.Node, edit: Edit) -> ir.Value | None:
    """MatMul of a 2-d activation with constant weights becomes a Gemm."""
    x, out = node.inputs[0], node.outputs[0]
    weight = Exact.of(node.inputs[1])
    if weight is None or weight.values.ndim != 2 or x is None or len(x.shape or ()) != 2:
        return None
    rows = edit.const(f"{out.name}.weight", weight.moved(np.transpose))
    return edit.op("Gemm", x, rows, name=f"{out.name}{NEW}", like=out, attributes=_GEMM)


def _stateful(node: ir.Node, edit: Edit) -> ir.Value | None:
    """A neuron with memory in units of its threshold; its gain becomes a factor of its input."""
    x, out, carry = node.inputs[0], node.outputs[0], carry_of(node)
    if carry.gain == 1.0 and carry.threshold == 1.0:
        return None
    factor = Exact.number(Fraction(carry.gain) / Fraction(carry.threshold))
    gain = edit.const(f"{out.name}.gain", factor)
    drive = edit.op("Mul", x, gain, name=f"{out.name}/drive", like=out)
    attributes = replace(carry, gain=1.0, threshold=1.0).numbers()
    return edit.own("StatefulFire", drive, name=f"{out.name}{NEW}", like=out, attributes=attributes)


_RULES: dict[str, Callable[[ir.Node, Edit], ir.Value | None]] = {
    "StatefulFire": _stateful,
    "Identity": _skip,
    "Add": _add,
    "Dropout": _dropout,
    "Gather": _gather,
    "Slice": _slice,
    "Reshape": _static_reshape,
    "Flatten": _static_reshape,
    "Squeeze": _static_reshape,
    "Unsqueeze": _static_reshape,
    "GlobalAveragePool": _global_pool,
    "ReduceMean": _reduction,
    "ReduceSum": _reduction,
    "AveragePool": _pool,
    "MaxPool": _pool,
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
