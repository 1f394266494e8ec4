"""Reading padding, however it is spelled, and handing it on to the layers around it.

A border of constants is written as Pad, as slice assignments after a Pad, with Concat or with
Where. All these only move elements, so two runs of them on marked elements tell what they do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from snncc.ir.exact import Exact
from snncc.ir.graphs import (
    Edit,
    attribute,
    constant,
    is_op,
    nodes,
    replace_value,
    static_shape,
)
from snncc.ir.names import NEW
from snncc.ir.ops import OPSET
from snncc.ir.oracle import session
from snncc.passes.reading import Linear, convolve, linear_behind, read_linear, write_linear

__all__ = [
    "Padding",
    "absorb_padding",
    "bordering",
    "emit_padding",
    "paddings",
    "read_padding",
    "restate",
]

Array = npt.NDArray[np.float64]
Pads = tuple[int, int, int, int]

_MOVERS = frozenset(
    {"Pad", "Slice", "ScatterND", "ScatterElements", "Transpose", "Expand", "Concat", "Where"}
)
_INDICES = frozenset(
    {"Range", "Gather", "Squeeze", "Unsqueeze", "Reshape", "Cast", "Add", "Sub", "Mul", "Concat"}
    | {"Slice", "ConstantOfShape", "Shape"}
)
_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)
#: Samples that a probe moves at once, in each timestep; more than one, so that their axis shows.
_BATCH = 2


@dataclass(frozen=True)
class Padding:
    """``out`` is ``x`` with a border of constants.

    Attributes:
        x: (N, C, H, W).
        out: (N, C, top + H + bottom, left + W + right).
        pads: (top, left, bottom, right).
        values: Of the border, float64 (C,).
    """

    x: ir.Value
    out: ir.Value
    pads: Pads
    values: Array

    def ring(self, size: tuple[int, ...]) -> Array:
        """The border alone, zero inside, float64 (C, H, W) of ``out``; ``size`` is that of x."""
        top, left, bottom, right = self.pads
        inside = np.pad(np.ones(size), ((0, 0), (top, bottom), (left, right)))
        return np.where(inside > 0, 0.0, self.values[:, None, None])


def read_padding(value: ir.Value | None) -> Padding | None:
    """The padding whose result is ``value``, or None."""
    node = value.producer() if value is not None else None
    if value is None or node is None or node.op_type not in _MOVERS:
        return None
    if node.op_type == "Pad" and (plain := _plain(node)) is not None:
        return plain
    return None if (found := _region(value)) is None else _probed(value, *found)


def _plain(node: ir.Node) -> Padding | None:
    """A Pad with one constant over height and width."""
    x, out = node.inputs[0], node.outputs[0]
    size, pads = static_shape(x) if x is not None else None, constant(node.inputs[1])
    given = node.inputs[2] if len(node.inputs) > 2 else None
    value = np.zeros(1) if given is None else constant(given)
    if x is None or size is None or len(size) != 3 or pads is None or value is None:
        return None
    if len(node.inputs) > 3 or len(pads) != 8 or attribute(node, "mode", "constant") != "constant":
        return None
    if pads.min() < 0 or pads[[0, 1, 4, 5]].any() or not np.isfinite(value).all():
        return None
    top, left, bottom, right = (int(pads[i]) for i in (2, 3, 6, 7))
    values = np.full(size[0], float(value.reshape(-1)[0]))
    return Padding(x, out, (top, left, bottom, right), values)


# -- borders in many steps ------------------------------------------------------------------


def _region(out: ir.Value) -> tuple[ir.Value, list[ir.Node]] | None:
    """The one live value that ``out`` is moved from, and the nodes that move it."""
    found: set[ir.Node] = set()
    live: set[ir.Value] = set()
    pending = [out]
    while pending:
        value = pending.pop()
        node = value.producer()
        if constant(value) is not None or node in found:
            continue
        if node is None or not _moves(node):
            live.add(value)
            continue
        found.add(node)
        if node.op_type != "Shape":
            pending += [v for v in node.inputs if v is not None]
    if len(live) != 1 or out.producer() is None:
        return None
    graph = out.producer().graph  # type: ignore[union-attr]
    return live.pop(), [node for node in graph or () if node in found]


def _moves(node: ir.Node) -> bool:
    """Whether a node takes elements elsewhere, untouched, or computes where."""
    if node.domain != "" or attribute(node, "reduction", "none") != "none":
        return False
    if node.outputs[0].dtype in _INTEGERS:
        return node.op_type in _INDICES
    joins = node.op_type == "Concat" and attribute(node, "axis") in (1, -3)
    return node.op_type in _MOVERS and not joins


def _probed(out: ir.Value, x: ir.Value, region: list[ir.Node]) -> Padding | None:
    """What the region does with marked elements: those of one sign moved, the rest are constant."""
    before, after = static_shape(x), static_shape(out)
    shapes = [static_shape(v) for n in region if n.op_type == "Shape" for v in n.inputs if v]
    known = before is not None and after is not None and None not in shapes
    if not known or before is None or after is None or len(before) != 3 or len(after) != 3:
        return None
    samples = _samples(x)
    count = samples * int(np.prod(before))
    if x.dtype != ir.DataType.FLOAT or count >= 2**24:
        return None
    marks = np.arange(1, 1 + count, dtype=np.float32).reshape(samples, *before)
    try:
        runner = session(_model(out, x, region))
        plus, minus = (runner.run(None, {"x": m})[0] for m in (marks, -marks))
    except Exception:  # ONNX Runtime's errors have no common base: what does not run is not known
        return None
    if plus.shape != (samples, *after):
        return None
    return _border(out, x, marks, plus, plus != minus)


def _border(
    out: ir.Value, x: ir.Value, marks: npt.NDArray[Any], got: npt.NDArray[Any], moved: Any
) -> Padding | None:
    rows, columns = (np.flatnonzero(moved.any(axis=axes)) for axes in ((0, 1, 3), (0, 1, 2)))
    if not rows.size or got.shape[1] != marks.shape[1]:
        return None
    inside = np.s_[:, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if got[inside].shape != marks.shape or not (got[inside] == marks).all():
        return None
    height, width = got.shape[2:]
    pads = (rows[0], columns[0], height - 1 - rows[-1], width - 1 - columns[-1])
    ring = np.ones(got.shape[2:], dtype=bool)
    ring[inside[2:]] = False
    if not ring.any():
        return Padding(x, out, (0, 0, 0, 0), np.zeros(got.shape[1]))
    values = got[:, :, ring]
    if not np.isfinite(values).all() or (values != values[:1, :, :1]).any():
        return None
    return Padding(x, out, tuple(int(p) for p in pads), values[0, :, 0].astype(np.float64))  # type: ignore[arg-type]


def _model(out: ir.Value, x: ir.Value, region: list[ir.Node]) -> onnx.ModelProto:
    """The region as a model of its own, with shapes as constants."""
    shaped = [n for n in region if n.op_type == "Shape"]
    weights = {str(v.name): v for n in region for v in n.inputs if constant(v) is not None and v}
    tensors = [onnx.numpy_helper.from_array(constant(v), name) for name, v in weights.items()]  # type: ignore[arg-type]
    tensors += [onnx.numpy_helper.from_array(_sizes(n), str(n.outputs[0].name)) for n in shaped]
    body = [ir.to_proto(n) for n in region if n.op_type != "Shape"]
    for node in body:
        node.input[:] = ["x" if name == x.name else name for name in node.input]
    float32 = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        body,
        "padding",
        [onnx.helper.make_tensor_value_info("x", float32, [_samples(x), *(static_shape(x) or ())])],
        [onnx.helper.make_tensor_value_info(str(out.name), float32, None)],
        tensors,
    )
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _samples(value: ir.Value) -> int:
    """Its first axis in a probe: 3 * N of one that holds three timesteps of N samples."""
    first = str(value.shape[0]) if value.shape is not None else ""
    times = re.match(r"(\d+)\s*\*", first)
    return _BATCH * int(times.group(1) if times else 1)


def _sizes(node: ir.Node) -> npt.NDArray[np.int64]:
    x = node.inputs[0]
    sizes = [_samples(x), *(static_shape(x) or ())] if x is not None else []
    start, end = attribute(node, "start", 0), attribute(node, "end", len(sizes))
    return np.array(sizes[start:end], dtype=np.int64)


# -- handing it on --------------------------------------------------------------------------


def emit_padding(edit: Edit, x: ir.Value, pads: Pads, name: str) -> ir.Value:
    """Zeros around ``x``."""
    c, h, w = static_shape(x) or (1, 1, 1)
    top, left, bottom, right = pads
    array = np.array([0, 0, top, left, 0, 0, bottom, right], dtype=np.int64)
    batch = x.shape[0] if x.shape is not None else None
    return edit.op(
        "Pad", x, edit.const(f"{name}.pads", array), name=name, dtype=x.dtype,
        shape=[batch, c, top + h + bottom, left + w + right], attributes={"mode": "constant"},
    )  # fmt: skip


def restate(model: ir.Model, made_by: str) -> int:
    """Borders that are written in many steps, which read sizes, as two nodes that do not."""
    count = 0
    for padding in paddings(model):
        node = padding.out.producer()
        if node is not None and node.op_type != "Pad":
            replace_value(padding.out, _two_nodes(padding, Edit(node, made_by)))
            count += 1
    return count


def _two_nodes(padding: Padding, edit: Edit) -> ir.Value:
    """Zeros around the map, and the border's values in their place."""
    out, (top, left, bottom, right) = padding.out, padding.pads
    _, height, width = static_shape(out) or (1, 1, 1)
    ring = np.ones((1, 1, height, width), dtype=bool)
    ring[:, :, top : height - bottom, left : width - right] = False
    zeros = emit_padding(edit, padding.x, padding.pads, f"{out.name}/padded")
    values = edit.const(f"{out.name}.values", padding.values.astype(np.float32)[:, None, None])
    where = edit.const(f"{out.name}.ring", ring)
    return edit.op("Where", where, values, zeros, name=f"{out.name}{NEW}", like=out)


def padded_layer(padding: Padding) -> Linear | None:
    """The 1x1 convolution after which the border stands, padding by itself.

    Zeros before it leave its bias at the border; where that is not the border wanted, the bias
    becomes a map.
    """
    linear, size = read_linear(padding.x), static_shape(padding.x)
    if linear is None or linear.kind != "conv" or not linear.pointwise or size is None:
        return None
    own = replace(linear, out=padding.out, pads=padding.pads)
    if linear.bias.ndim == 1 and np.array_equal(linear.bias, padding.values):
        return own
    top, left, bottom, right = padding.pads
    inside = np.broadcast_to(_as_map(linear.bias), size)
    inside = np.pad(inside, ((0, 0), (top, bottom), (left, right)))
    nothing = Exact(np.zeros(len(linear.weights.values)))
    return replace(own, biases=nothing, border=Exact(inside + padding.ring(size)))


def absorb_padding(node: ir.Node, made_by: str) -> bool:
    """Padding before a convolution goes into the layer before, or into its own pads.

    Constants other than zero reach the border alone: there the bias becomes a map.
    """
    linear = linear_behind(node) if is_op(node, "Conv") else None
    padding = read_padding(linear.x) if linear is not None else None
    if linear is None or padding is None:
        return False
    if (before := padded_layer(padding)) is not None:
        write_linear(before, made_by)
        return True
    size = static_shape(padding.x)
    if size is None:
        return False
    own = replace(linear, x=padding.x, pads=_sum(linear.pads, padding.pads))
    if padding.values.any():
        own = own.biased(convolve(padding.ring(size), linear))
    write_linear(own, made_by)
    return True


def _as_map(bias: Array) -> Array:
    return bias if bias.ndim == 3 else bias[:, None, None]


def _sum(one: Pads, two: Pads) -> Pads:
    top, left, bottom, right = (a + b for a, b in zip(one, two, strict=True))
    return top, left, bottom, right


def paddings(model: ir.Model) -> list[Padding]:
    """All that convolutions read with a border around it, each once."""
    read = dict.fromkeys(node.inputs[0] for node in nodes(model, "Conv"))
    return [padding for value in read if (padding := read_padding(value)) is not None]


def bordering(model: ir.Model) -> set[ir.Node]:
    """The nodes that put borders around what convolutions read, arithmetic on places included."""
    regions = (_region(padding.out) for padding in paddings(model))
    return {node for region in regions if region is not None for node in region[1]}
