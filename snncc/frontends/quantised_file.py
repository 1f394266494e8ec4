"""Quantised ONNX files in one spelling: QuantizeLinear, perhaps Clip, DequantizeLinear.

Operators of other domains (QONNX's ``Quant``, ONNX Runtime's own 4-bit and 16-bit quantisers) are
rewritten to ONNX's, and whatever quantises or dequantises constants is computed: behind this,
weights are float constants, and quantisers stand on activations only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from snncc.ir.graphs import (
    SOURCE_GRID,
    Edit,
    attribute,
    constant,
    integer_range,
    is_op,
    nodes,
    remove_dead,
    replace_value,
)

__all__ = ["standardised"]

Array = npt.NDArray[Any]

_QONNX = ("qonnx.custom_op.general", "onnx.brevitas")
_MICROSOFT = "com.microsoft"
_LINEAR = ("QuantizeLinear", "DequantizeLinear")
_NARROW = (ir.DataType.UINT4, ir.DataType.INT4)
_MADE_BY = "import"


def standardised(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with ONNX's own quantisers only, none of them on constants.

    Args:
        proto: At the compiler's opset; untouched where it has no quantisers.
    """
    if not any(n.op_type in (*_LINEAR, *_RULES) for n in proto.graph.node):
        return proto
    model = ir.from_proto(proto)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    for node in nodes(model):
        if node.domain == _MICROSOFT and node.op_type in _LINEAR:
            node.domain = ""
        if (value := _computed(node)) is not None:
            _become_constant(node, value)
            model.metadata_props[SOURCE_GRID] = "kept where the bits suffice"
        elif node.domain in _QONNX and node.op_type in _RULES:
            _rewrite(node)
        elif node.op_type in _LINEAR and _type_of(node) in _NARROW:
            _widen(node, _type_of(node))
    for domain in (*_QONNX, _MICROSOFT):
        if all(node.domain != domain for node in model.graph):
            model.opset_imports.pop(domain, None)
    return ir.to_proto(model)


def _type_of(node: ir.Node) -> ir.DataType | None:
    """The integer type of a QuantizeLinear's result or a DequantizeLinear's input."""
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if zero is not None and zero.const_value is not None:
        return zero.const_value.dtype
    if node.op_type == "DequantizeLinear":
        return None if node.inputs[0] is None else node.inputs[0].dtype
    return ir.DataType(attribute(node, "output_dtype", 0) or ir.DataType.UINT8.value)


def _widen(node: ir.Node, narrow: ir.DataType | None) -> None:
    """4-bit integers in 8 bits, clamped: tools know few operators of 4 bits."""
    wide = ir.DataType.INT8 if narrow == ir.DataType.INT4 else ir.DataType.UINT8
    out, edit = node.outputs[0], Edit(node, _MADE_BY)
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    scale = constant(node.inputs[1])
    if scale is None:
        return
    centre = np.zeros(scale.shape, np.int64) if zero is None else zero.astype(np.int64)
    args = [*node.inputs[:2], edit.const(f"{out.name}.zero_point", centre.astype(wide.numpy()))]
    attributes = {k: a.value for k, a in node.attributes.items() if k != "output_dtype"}
    if node.op_type == "DequantizeLinear":
        dtype, name = ir.DataType.FLOAT, f"{out.name}~new"
        replace_value(
            out, edit.op(node.op_type, *args, name=name, dtype=dtype, attributes=attributes)
        )
        return
    q = edit.op(node.op_type, *args, name=f"{out.name}/wide", dtype=wide, attributes=attributes)
    ends = [
        edit.const(f"{out.name}.end", np.array(v, wide.numpy()))
        for v in integer_range(narrow) or ()
    ]
    replace_value(out, edit.op("Clip", q, *ends, name=f"{out.name}~new", dtype=wide))


def _become_constant(node: ir.Node, array: Array) -> None:
    out = node.outputs[0]
    replace_value(out, Edit(node, _MADE_BY).const(f"{out.name}:folded", array), keep_name=False)


def _computed(node: ir.Node) -> Array | None:
    """The result of a quantiser, dequantiser or clamp of constants."""
    rule = (_RULES if node.domain in _QONNX else _CONSTANT).get(node.op_type)
    inputs = [constant(v) for v in node.inputs]
    if rule is None or any(a is None for a, v in zip(inputs, node.inputs, strict=True) if v):
        return None
    return rule(node, *inputs)


# -- ONNX's own, on constants --------------------------------------------------------------


def _spread(node: ir.Node, values: Array, like: Array) -> Array:
    """Scales or zero points as they meet the elements of ``like``: all, per channel or blocks."""
    if values.size == 1:
        return values.reshape(())
    axis = attribute(node, "axis", 1) % like.ndim
    if values.ndim == 1:
        return values.reshape([-1 if i == axis else 1 for i in range(like.ndim)])
    blocks = np.repeat(values, attribute(node, "block_size", 1), axis=axis)
    return np.take(blocks, np.arange(like.shape[axis]), axis=axis)


def _dequantize(node: ir.Node, q: Array, scale: Array, zero: Array | None = None) -> Array:
    centre = np.zeros((), np.int32) if zero is None else zero.astype(np.int32)
    steps = q.astype(np.int32) - _spread(node, centre, q)
    return np.asarray(steps.astype(np.float32) * _spread(node, scale, q), np.float32)


def _quantize(node: ir.Node, x: Array, scale: Array, zero: Array | None = None) -> Array | None:
    limits = integer_range(_type_of(node))
    if limits is None:
        return None
    centre = np.zeros((), np.int32) if zero is None else zero.astype(np.int32)
    steps = np.rint(x / _spread(node, scale, x)) + _spread(node, centre, x)
    return np.asarray(np.clip(steps, *limits).astype(np.int32))


def _clip(node: ir.Node, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    numbers = x if x.dtype == np.float32 else x.astype(np.int32)
    if low is not None:
        numbers = np.maximum(numbers, low.astype(numbers.dtype))
    return numbers if high is None else np.minimum(numbers, high.astype(numbers.dtype))


_CONSTANT: dict[str, Callable[..., Array | None]] = {
    "DequantizeLinear": _dequantize,
    "QuantizeLinear": _quantize,
    "Clip": _clip,
}

# -- QONNX ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Quant:
    """Attributes and constants of a Quant node."""

    scale: Array
    zero: Array
    low: float
    high: float
    rounding: str

    def of(self, x: Array) -> Array:
        """What the node makes of ``x``, float32."""
        steps = np.clip(x / self.scale + self.zero, self.low, self.high).astype(np.float32)
        rounded = {"ROUND": np.rint, "CEIL": np.ceil, "FLOOR": np.floor}[self.rounding](steps)
        return np.asarray((rounded - self.zero) * self.scale, np.float32)


def _read_quant(node: ir.Node) -> _Quant | None:
    scale, zero, bits = (constant(v) for v in node.inputs[1:4])
    rounding = str(attribute(node, "rounding_mode", "ROUND")).upper()
    if scale is None or zero is None or bits is None or bits.size != 1:
        return None
    width = float(bits.reshape(-1)[0])
    signed, narrow = bool(attribute(node, "signed", 1)), bool(attribute(node, "narrow", 0))
    if rounding not in ("ROUND", "CEIL", "FLOOR") or (signed and width == 1):
        return None
    if signed:
        low, high = -(2 ** (width - 1)) + narrow, 2 ** (width - 1) - 1
    else:
        low, high = 0.0, 2**width - 1 - narrow
    return _Quant(scale.astype(np.float32), zero.astype(np.float32), low, high, rounding)


def _quant(node: ir.Node, x: Array, *_: Array) -> Array | None:
    found = _read_quant(node)
    return None if found is None else found.of(x)


def _bipolar(node: ir.Node, x: Array, scale: Array) -> Array:
    return np.asarray(np.where(x >= 0, scale, -scale), np.float32)


_RULES: dict[str, Callable[..., Array | None]] = {
    "Quant": _quant,
    "IntQuant": _quant,
    "BipolarQuant": _bipolar,
}


def _rewrite(node: ir.Node) -> None:
    """A Quant of an activation; what cannot be read stays and is reported by its domain."""
    found = _read_quant(node) if is_op(node, "Quant", "IntQuant") else None
    if found is None or node.inputs[0] is None:
        return
    is_linear = found.rounding == "ROUND" and found.low >= -128 and found.high <= 255
    whole = bool((found.zero == found.zero.reshape(-1)[0]).all()) and found.zero.flat[0] % 1 == 0
    whole = whole and found.low <= found.zero.flat[0] <= found.high
    vector = _axis_of(found.scale)
    if is_linear and whole and vector is not None:
        _write_linear(node, found, vector)
    else:
        _write_float(node, found)
    remove_dead(node)


def _axis_of(scale: Array) -> int | None:
    """The one axis along which the scales vary; 1 if they do not; None for several."""
    long = [i for i, n in enumerate(scale.shape) if n > 1]
    return None if len(long) > 1 else long[0] if long else 1


def _write_linear(node: ir.Node, found: _Quant, axis: int) -> None:
    """QuantizeLinear, Clip where the range is not the type's, DequantizeLinear."""
    out, edit = node.outputs[0], Edit(node, _MADE_BY)
    signed = found.low < 0
    kind, dtype = (np.int8, ir.DataType.INT8) if signed else (np.uint8, ir.DataType.UINT8)
    scale = found.scale.reshape(-1) if found.scale.size > 1 else found.scale.reshape(())
    s = edit.const(f"{out.name}.scale", scale)
    z = edit.const(f"{out.name}.zero_point", np.full(scale.shape, found.zero.flat[0], kind))
    q = edit.op(
        "QuantizeLinear", node.inputs[0], s, z, name=f"{out.name}/q", dtype=dtype,
        attributes={"axis": axis},
    )  # fmt: skip
    if (found.low, found.high) != ((-128, 127) if signed else (0, 255)):
        ends = [edit.const(f"{out.name}.{w}", np.array(v, kind)) for w, v in
                (("low", found.low), ("high", found.high))]  # fmt: skip
        q = edit.op("Clip", q, *ends, name=f"{out.name}/clip", dtype=dtype)
    new = edit.op(
        "DequantizeLinear", q, s, z, name=f"{out.name}~new", like=out, attributes={"axis": axis}
    )
    replace_value(out, new)


def _write_float(node: ir.Node, found: _Quant) -> None:
    """The formula as written: Div, Add, Clip, a rounding, Sub, Mul."""
    out, edit, x = node.outputs[0], Edit(node, _MADE_BY), node.inputs[0]
    scale, zero, low, high = (
        edit.const(f"{out.name}.{what}", np.asarray(v, np.float32))
        for what, v in (("scale", found.scale), ("zero_point", found.zero),
                        ("low", found.low), ("high", found.high))
    )  # fmt: skip
    rounding = {"ROUND": "Round", "CEIL": "Ceil", "FLOOR": "Floor"}[found.rounding]
    steps: tuple[tuple[str, ir.Value | None, ir.Value | None], ...] = (
        ("Div", scale, None), ("Add", zero, None), ("Clip", low, high), (rounding, None, None),
        ("Sub", zero, None), ("Mul", scale, None),
    )  # fmt: skip
    for op, *given in steps:
        if op in ("Add", "Sub") and not found.zero.any():
            continue
        args = [v for v in given if v is not None]
        x = edit.op(op, x, *args, name=f"{out.name}/{op.lower()}", like=out)
    if x is not None:
        replace_value(out, x)
