"""Quantised ONNX files in one spelling: QuantizeLinear, perhaps Clip, DequantizeLinear.

Operators of other domains (QONNX's ``Quant``, ONNX Runtime's own 4-bit and 16-bit quantisers) are
rewritten to ONNX's, and what quantises constants is computed. Constants are dequantised last, when
shapes are known: as float32 for ONNX Runtime, and exactly, integers times the file's own scales.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from snncc.errors import BadInputError, Fault, UnsupportedModelError
from snncc.ir.exact import Exact
from snncc.ir.graphs import (
    Edit,
    attribute,
    constant,
    integer_range,
    nodes,
    remove_dead,
    replace_value,
)
from snncc.ir.names import NEW

__all__ = ["QONNX", "dequantise", "require_qdq", "standardised"]

Array = npt.NDArray[Any]

QONNX = ("qonnx.custom_op.general", "onnx.brevitas")
_MICROSOFT = "com.microsoft"
_LINEAR = ("QuantizeLinear", "DequantizeLinear")
_NARROW = (ir.DataType.UINT4, ir.DataType.INT4)
_MADE_BY = "import"


def require_qdq(proto: onnx.ModelProto) -> None:
    """Refuse files whose operators compute in integers: of them no floats can be read.

    Raises:
        UnsupportedModelError: Listing all such operators.
    """
    todo = "quantise with quant_format=QuantFormat.QDQ"
    faults = [
        Fault("computes in integers", node.name or node.output[0], node.op_type, todo=todo)
        for node in proto.graph.node
        if node.op_type.startswith("QLinear")
        or (node.domain == _MICROSOFT and node.op_type == "QGemm")
    ]
    if faults:
        raise UnsupportedModelError(
            f"the file is in ONNX Runtime's QOperator format, {len(faults)} operators of it", faults
        )


def standardised(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with ONNX's own quantisers only, none of them on constants.

    Args:
        proto: At the compiler's opset; untouched where it has no quantisers.

    Raises:
        BadInputError: Scales or weights are NaN or infinite; all of them.
        UnsupportedModelError: Quantisers of QONNX that cannot be read or have no spiking form; all.
    """
    if not any(n.op_type in (*_LINEAR, *_BITS) for n in proto.graph.node):
        return proto
    model = ir.from_proto(proto)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _require_finite(model)
    faults = [fault for node in nodes(model) if (fault := _standardise(node)) is not None]
    if faults:
        raise UnsupportedModelError(f"quantisers without a spiking form: {len(faults)}", faults)
    for domain in (*QONNX, _MICROSOFT):
        if all(node.domain != domain for node in model.graph):
            model.opset_imports.pop(domain, None)
    return ir.to_proto(model)


def _require_finite(model: ir.Model) -> None:
    """Scales, and weights that are quantised, are finite: there are no integers of others."""
    faults = [
        Fault(f"{what} NaN or infinite", str(node.outputs[0].name), node.op_type)
        for node in nodes(model)
        if node.op_type in (*_LINEAR, *_BITS)
        for value, what in zip(node.inputs, ("its weights hold", "its scale is"), strict=False)
        if (given := constant(value)) is not None
        and not np.isfinite(given.astype(np.float64)).all()
    ]
    if faults:
        raise BadInputError("quantisers cannot be computed; quantise again", faults)


def _standardise(node: ir.Node) -> Fault | None:
    """Rewrite one node, or say why that is not possible."""
    if node.domain == _MICROSOFT and node.op_type in _LINEAR:
        node.domain = ""
    if node.domain in QONNX and node.op_type in _BITS:
        return _rewrite(node)
    if not node.domain and (value := _computed(node)) is not None:
        _become(node, value)
    elif node.op_type in _LINEAR and _type_of(node) in _NARROW:
        _widen(node, _type_of(node))
    return None


def _type_of(node: ir.Node) -> ir.DataType | None:
    """The integer type of a QuantizeLinear's result or a DequantizeLinear's input."""
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if zero is not None and zero.const_value is not None:
        return zero.const_value.dtype
    if node.op_type == "DequantizeLinear":
        return None if node.inputs[0] is None else node.inputs[0].dtype
    return ir.DataType(attribute(node, "output_dtype", 0) or ir.DataType.UINT8.value)


def _wide(narrow: ir.DataType | None) -> ir.DataType:
    return ir.DataType.INT8 if narrow == ir.DataType.INT4 else ir.DataType.UINT8


def _widen(node: ir.Node, narrow: ir.DataType | None) -> None:
    """4-bit integers in 8 bits, clamped: tools know few operators of 4 bits."""
    wide, x = _wide(narrow), node.inputs[0]
    out, edit = node.outputs[0], Edit(node, _MADE_BY)
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    scale = constant(node.inputs[1])
    if scale is None:
        return
    centre = np.zeros(scale.shape, np.int64) if zero is None else zero.astype(np.int64)
    args = [node.inputs[1], edit.const(f"{out.name}.zero_point", centre.astype(wide.numpy()))]
    attributes = {k: a.value for k, a in node.attributes.items() if k != "output_dtype"}
    if node.op_type == "DequantizeLinear":
        if (given := constant(x)) is not None:
            x = edit.const(f"{out.name}.integers", given.astype(wide.numpy()))
        name, dtype = f"{out.name}{NEW}", ir.DataType.FLOAT
        real = edit.op(node.op_type, x, *args, name=name, dtype=dtype, attributes=attributes)
        replace_value(out, real)
        return
    q = edit.op(node.op_type, x, *args, name=f"{out.name}/wide", dtype=wide, attributes=attributes)
    ends = [
        edit.const(f"{out.name}.end", np.array(v, wide.numpy()))
        for v in integer_range(narrow) or ()
    ]
    replace_value(out, edit.op("Clip", q, *ends, name=f"{out.name}{NEW}", dtype=wide))


def _become(node: ir.Node, array: Array | Exact) -> None:
    out = node.outputs[0]
    replace_value(out, Edit(node, _MADE_BY).const(f"{out.name}:folded", array), keep_name=False)


def _computed(node: ir.Node) -> Array | None:
    """The result of a quantiser or clamp of constants."""
    rule = _CONSTANT.get(node.op_type)
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


def _quantize(node: ir.Node, x: Array, scale: Array, zero: Array | None = None) -> Array | None:
    """Ties are decided exactly: the quotient of two float32 is none in float64 if it is none."""
    limits, kind = integer_range(_type_of(node)), _type_of(node)
    if limits is None or kind is None:
        return None
    centre = np.zeros((), np.int32) if zero is None else zero.astype(np.int32)
    steps = np.rint(x.astype(np.float64) / _spread(node, scale, x)) + _spread(node, centre, x)
    stored = _wide(kind) if kind in _NARROW else kind
    return np.asarray(np.clip(steps, *limits).astype(stored.numpy()))


def _clip(node: ir.Node, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    found = x if x.dtype == np.float32 else x.astype(np.int64)
    if low is not None:
        found = np.maximum(found, low.astype(found.dtype))
    if high is not None:
        found = np.minimum(found, high.astype(found.dtype))
    return found.astype(x.dtype)


_CONSTANT: dict[str, Callable[..., Array | None]] = {"QuantizeLinear": _quantize, "Clip": _clip}


def dequantise(model: ir.Model) -> int:
    """Compute what dequantises constants, exactly, and what only moves them; how many there were.

    Args:
        model: With known shapes.
    """
    count = 0
    for node in nodes(model, "DequantizeLinear", *_MOVES):
        is_move = node.op_type in _MOVES
        found = _moved(node, Exact.of(node.inputs[0])) if is_move else _dequantised(node)
        if found is not None:
            _become(node, found)
            count += 1
    return count


def _dequantised(node: ir.Node) -> Exact | None:
    q, scale, zero = (constant(v) for v in (*node.inputs, None)[:3])
    if q is None or scale is None or (zero is None and len(node.inputs) > 2):
        return None
    centre = np.zeros((), np.int64) if zero is None else zero.astype(np.int64)
    whole = (q.astype(np.int64) - _spread(node, centre, q)).astype(np.float64)
    by = _spread(node, scale, q).astype(np.float64)
    if scale.ndim > 1:  # one for each block of elements
        return Exact((whole * by).astype(np.float32))
    units = [Fraction(unit) for unit in by.reshape(-1).tolist()]
    return Exact(whole, np.array(units, object).reshape(by.shape or (1,) * q.ndim))


def _moved(node: ir.Node, numbers: Exact | None) -> Exact | None:
    """Numbers that are not float32 in another order or shape."""
    if numbers is None or numbers.units is None:
        return None
    if node.op_type == "Transpose":
        order = attribute(node, "perm", [*range(numbers.values.ndim)][::-1])
        return numbers.moved(lambda v: v.transpose(order))
    shape = node.outputs[0].shape
    if numbers.units.size > 1 or shape is None or not shape.is_static():
        return None
    units = numbers.units.reshape((1,) * len(shape))
    return Exact(numbers.values.reshape(shape.numpy()), units)


#: What moves constants.
_MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")

# -- QONNX ---------------------------------------------------------------------------------


def _away(x: Array) -> Array:
    return np.sign(x) * np.ceil(np.abs(x))


def _half_up(x: Array) -> Array:
    return np.sign(x) * np.floor(np.abs(x) + 0.5)


def _half_down(x: Array) -> Array:
    return np.sign(x) * np.ceil(np.abs(x) - 0.5)


#: What QONNX makes integers with, by the name of its mode.
_MODES: dict[str, Callable[[Array], Array]] = {
    "ROUND": np.rint,
    "HALF_EVEN": np.rint,
    "HALF_UP": _half_up,
    "HALF_DOWN": _half_down,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": _away,
    "DOWN": np.fix,
}
_EVEN = ("ROUND", "HALF_EVEN")
_BITS = ("Quant", "IntQuant", "BipolarQuant")
_NEURON = "an unsigned quantiser of zero point 0 that rounds with ROUND, HALF_EVEN or HALF_UP"
_FIXED = "export with fixed scale, zero point and bit width, the same for all channels"
_NARROWER = "an unsigned quantiser of 1 to 8 bits"
_ABOVE_ZERO = "a positive scale"


@dataclass(frozen=True)
class _Quant:
    """Attributes and constants of a Quant node; integers run from low to high."""

    scale: Array
    zero: Array
    low: int
    high: int
    mode: str
    is_bipolar: bool

    def integers(self, x: Array) -> Array:
        """What the node makes of constants, before scale and zero point."""
        steps = x / self.scale.astype(np.float32) + self.zero.astype(np.float32)  # as runtimes do
        if self.is_bipolar:
            return np.where(steps >= 0, 1.0, -1.0)
        whole = _MODES[self.mode](steps).astype(np.float64)
        return np.asarray(np.clip(whole, self.low, self.high))


def _read_quant(node: ir.Node) -> _Quant | tuple[str, str]:
    """The node, or what keeps it from being read, and what to do."""
    if node.op_type == "BipolarQuant":
        scale = constant(node.inputs[1])
        found = None if scale is None else _Quant(scale, np.zeros(()), -1, 1, "ROUND", True)
        return found or ("computes its scale while it runs", _FIXED)
    scale, zero, bits = (constant(v) for v in node.inputs[1:4])
    mode = str(attribute(node, "rounding_mode", "ROUND")).upper()
    if scale is None or zero is None or bits is None:
        named = zip(("scale", "zero point", "bit width"), (scale, zero, bits), strict=True)
        which = ", ".join(what for what, array in named if array is None)
        return f"computes its {which} while it runs", _FIXED
    if bits.size != 1:
        return f"has {bits.size} bit widths", _FIXED
    if not bits >= 1:
        return f"bit width {bits.item():g}: it has one level, and nothing to count", _NARROWER
    if mode not in _MODES:
        return f"rounding mode {mode} is not known", _NEURON
    if not (scale > 0).all():
        return f"scale {float(scale.min()):g} is not positive", _ABOVE_ZERO
    signed, width = bool(attribute(node, "signed", 1)), bits.reshape(()).astype(np.float32)
    ends = _ends(signed, bool(attribute(node, "narrow", 0)), width)
    low, high = (int(_MODES[mode](np.asarray(end))) for end in ends)
    return _Quant(scale, zero.astype(np.float64), low, high, mode, signed and width == 1)


def _ends(signed: bool, narrow: bool, width: Array) -> tuple[Any, Any]:
    """Where QONNX clamps, before it rounds: no integers where the width is none."""
    if signed:
        return -(2 ** (width - 1)) + narrow, 2 ** (width - 1) - 1
    return np.float32(0), 2**width - 1 - narrow


def _rewrite(node: ir.Node) -> Fault | None:
    """A Quant as ONNX's own operators, or why it has no such form."""
    found, x = _read_quant(node), constant(node.inputs[0])
    if isinstance(found, tuple):
        return _fault(node, *found)
    if x is not None:
        _write_constant(node, found, x)
    elif found.is_bipolar:
        return _fault(node, "quantises to -1 and 1; spikes count from 0", _NEURON)
    elif (bits := (found.high - found.low).bit_length()) > 8:
        return _fault(node, f"quantiser of {bits} bits; activations have 8 at most", _NARROWER)
    elif found.zero.any() and not _is_linear(found):
        return _fault(node, _off_zero(found), _NEURON)
    elif found.mode not in (*_EVEN, "HALF_UP"):
        return _fault(node, f"rounding mode {found.mode}; neurons round to the nearest", _NEURON)
    elif found.mode == "HALF_UP" and found.low < 0:
        what = f"signed quantiser {found.low}..{found.high}, rounding mode HALF_UP"
        return _fault(node, f"{what}; spikes count from 0", _NEURON)
    else:
        _write_activation(node, found)
    remove_dead(node)
    return None


def _off_zero(found: _Quant) -> str:
    """What is wrong with zero points that no QuantizeLinear can have."""
    zero = found.zero.reshape(-1)
    if (zero % 1).any():
        return f"zero point {zero[zero % 1 != 0][0]:g} is no integer"
    if len(set(zero.tolist())) > 1:
        return f"zero points {zero.min():g} to {zero.max():g}; spikes count from 0"
    return f"zero point {zero[0]:g}, rounding mode {found.mode}; spikes count from 0"


def _fault(node: ir.Node, what: str, todo: str) -> Fault:
    return Fault(what, str(node.name or node.outputs[0].name), node.op_type, todo=todo)


def _write_constant(node: ir.Node, found: _Quant, x: Array) -> None:
    """Integers and a DequantizeLinear where it can say so, else floats."""
    whole, axis = found.integers(x) - found.zero, _axis_of(found.scale)
    if axis is None or (whole % 1).any() or np.abs(whole).max(initial=0) >= 2**31:
        _become(node, (whole * found.scale).astype(np.float32))
        return
    out, edit = node.outputs[0], Edit(node, _MADE_BY)
    scale = edit.const(f"{out.name}.scale", _along(found.scale))
    q = edit.const(f"{out.name}.integers", whole.astype(np.int32))
    real = edit.op(
        "DequantizeLinear", q, scale, name=f"{out.name}{NEW}", dtype=ir.DataType.FLOAT,
        shape=whole.shape, attributes={"axis": axis},
    )  # fmt: skip
    replace_value(out, real)


def _is_linear(found: _Quant) -> bool:
    """Whether a QuantizeLinear does the same."""
    centre = found.zero.reshape(-1)[0]
    whole = bool((found.zero == centre).all()) and centre % 1 == 0
    inside = whole and found.low <= centre <= found.high
    return found.mode in _EVEN and inside and _axis_of(found.scale) is not None


def _write_activation(node: ir.Node, found: _Quant) -> None:
    axis = _axis_of(found.scale)
    if axis is not None and _is_linear(found):
        _write_linear(node, found, axis)
    else:
        _write_float(node, found)


def _along(scale: Array) -> Array:
    return scale.reshape(-1) if scale.size > 1 else scale.reshape(())


def _axis_of(scale: Array) -> int | None:
    """The one axis along which the scales vary, from the last; 1 if none; None for several."""
    long = [i for i, n in enumerate(scale.shape) if n > 1]
    return None if len(long) > 1 else long[0] - scale.ndim if long else 1


def _write_linear(node: ir.Node, found: _Quant, axis: int) -> None:
    """QuantizeLinear, Clip where the range is not the type's, DequantizeLinear."""
    out, edit = node.outputs[0], Edit(node, _MADE_BY)
    signed = found.low < 0
    kind, dtype = (np.int8, ir.DataType.INT8) if signed else (np.uint8, ir.DataType.UINT8)
    scale = _along(found.scale)
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
        "DequantizeLinear", q, s, z, name=f"{out.name}{NEW}", like=out, attributes={"axis": axis}
    )
    replace_value(out, new)


def _write_float(node: ir.Node, found: _Quant) -> None:
    """The formula as written, of zero point 0: Div, Clip, a rounding, Mul."""
    out, edit, x = node.outputs[0], Edit(node, _MADE_BY), node.inputs[0]
    scale, low, high, half = (
        edit.const(f"{out.name}.{what}", np.asarray(v, np.float32))
        for what, v in (("scale", found.scale), ("low", found.low), ("high", found.high),
                        ("half", 0.5))
    )  # fmt: skip
    rule = [("Round", [])] if found.mode in _EVEN else [("Add", [half]), ("Floor", [])]
    steps: list[tuple[str, list[ir.Value]]] = [
        ("Div", [scale]), ("Clip", [low, high]), *rule, ("Mul", [scale])
    ]  # fmt: skip
    for i, (op, args) in enumerate(steps):
        x = edit.op(op, x, *args, name=f"{out.name}/{op.lower()}{i}", like=out)
    if x is not None:
        replace_value(out, x)
