"""Graphs as text that people read and diff: one node a line, weights summarised."""

from __future__ import annotations

import difflib
import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.graphs import constant, provenance
from snncc.ir.stages import stage_of

__all__ = ["attribute_text", "declared", "describe_array", "diff", "dump"]

_TYPES = {
    "FLOAT": "f32",
    "DOUBLE": "f64",
    "UINT8": "u8",
    "INT8": "i8",
    "INT32": "i32",
    "INT64": "i64",
    "BOOL": "bool",
}


def dump(model: ir.Model) -> str:
    """The graph as text: stage, inputs, weights, nodes in order, outputs."""
    lines = [f"stage {stage_of(model)}"]
    lines += [f"input  {_declare(v)}" for v in model.graph.inputs]
    lines += [
        f"weight %{name}: {describe_array(array)}"
        for name, value in model.graph.initializers.items()
        if (array := constant(value)) is not None and array.size > 4
    ]
    lines += [_node(node) for node in model.graph]
    lines += [f"output %{v.name}" for v in model.graph.outputs]
    return "\n".join(lines) + "\n"


def diff(before: ir.Model, after: ir.Model) -> str:
    """A unified diff of two dumps."""
    names = stage_of(before), stage_of(after)
    old, new = dump(before).splitlines(), dump(after).splitlines()
    return "\n".join(difflib.unified_diff(old, new, *names, lineterm="", n=1)) + "\n"


def describe_array(array: npt.NDArray[Any]) -> str:
    """Dtype, shape, range and content hash, e.g. ``i8[16,1,3,3] -127..127 #3fa9c1``."""
    kind = _TYPES.get(ir.DataType.from_numpy(array.dtype).name, str(array.dtype))
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:6]
    size = ",".join(str(s) for s in array.shape)
    if not array.size:
        return f"{kind}[{size}] empty"
    return f"{kind}[{size}] {_number(array.min())}..{_number(array.max())} #{digest}"


def _number(value: Any) -> str:
    return f"{float(value):.4g}" if np.issubdtype(type(value), np.floating) else str(int(value))


def declared(value: ir.Value) -> str:
    """Dtype and shape, e.g. ``u8[N,16,28,28]``."""
    kind = _TYPES.get(value.dtype.name, value.dtype.name.lower()) if value.dtype else "?"
    sizes = [str(d) for d in value.shape] if value.shape is not None else ["?"]
    shape = ",".join("?" if d == "None" else d for d in sizes)
    return f"{kind}[{shape}]"


def _declare(value: ir.Value) -> str:
    return f"%{value.name}: {declared(value)}"


def _node(node: ir.Node) -> str:
    out = ", ".join(_declare(o) for o in node.outputs)
    args = ", ".join(_argument(v) for v in node.inputs)
    attributes = " ".join(
        f"{k}={attribute_text(v)}" for k, v in sorted(node.attributes.items()) if v.name != "body"
    )
    text = f"{out} = {node.op_type}({args})" + (f" {{{attributes}}}" if attributes else "")
    origin = provenance(node)
    where = "  ".join(p for p in (origin.module, origin.source) if p)
    return f"{text}    # {where}" if where else text


def _argument(value: ir.Value | None) -> str:
    if value is None:
        return "-"
    array = constant(value)
    if array is not None and array.size <= 4:
        return np.array2string(array, separator=",", precision=5).replace("\n", "")
    return f"%{value.name}"


def attribute_text(found: ir.Attr) -> str:
    """The value of an attribute."""
    value = found.value
    if isinstance(value, tuple):
        return "[" + ",".join(str(v) for v in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
