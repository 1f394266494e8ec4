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
from snncc.ir.lineage import Lineage
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
    lineage = Lineage.of(model)
    faults = [fault for node in nodes(model) if (fault := _standardise(node, lineage)) is not None]
    lineage.write(model)
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


def _standardise(node: ir.Node, lineage: Lineage) -> Fault | None:
    """Rewrite one node, or say why that is not possible."""
    if node.domain == _MICROSOFT and node.op_type in _LINEAR:
        node.domain = ""
    if node.domain in QONNX and node.op_type in _BITS:
        return _rewrite(node, lineage)
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
_BITS = ("Quant", "IntQuant", "BipolarQuant", "Trunc")
_NEURON = "a quantiser that rounds with ROUND, HALF_EVEN or FLOOR, or unsigned with HALF_UP or DOWN"
_FIXED = "export with fixed scale, zero point and bit width, the same for all channels"
_NARROWER = "a quantiser of 1 to 8 bits"
_ABOVE_ZERO = "a positive scale"
_SHIFT = "bit widths and scales by which its integers lose whole bits"


@dataclass(frozen=True)
class _Quant:
    """Attributes and constants of a Quant or Trunc node; integers run from low to high.

    ``lost``: bits that a Trunc drops of the integers that it makes first; of these ``scale`` and
    ``zero`` are, and ``after`` is the scale of what is left.
    """

    scale: Array
    zero: Array
    low: int
    high: int
    mode: str
    is_bipolar: bool
    lost: int = 0
    after: Array | None = None

    @property
    def rule(self) -> str | None:
        """``even``, ``up`` or ``floor``, as spikes can round; None: any other."""
        if self.mode in _EVEN:
            return "even"
        if self.mode == "FLOOR":
            return "floor"
        is_above = self.low >= 0 and not self.zero.any()
        return {"HALF_UP": "up", "DOWN": "floor"}.get(self.mode) if is_above else None

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
        if scale is not None and not (scale > 0).all():
            return f"scale {float(scale.min()):g} is not positive", _ABOVE_ZERO
        found = None if scale is None else _Quant(scale, np.zeros(()), -1, 1, "ROUND", True)
        return found or ("computes its scale while it runs", _FIXED)
    if node.op_type == "Trunc":
        return _read_trunc(node)
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


def _read_trunc(node: ir.Node) -> _Quant | tuple[str, str]:
    """A Trunc of version 1, or of version 2, which says the scale after it."""
    names = ["scale", "zero point", "input bit width", "output bit width"]
    if len(node.inputs) > 5:
        names.insert(3, "output scale")
    given = dict(zip(names, map(constant, node.inputs[1:]), strict=False))
    if live := [name for name in names if given.get(name) is None]:
        return f"computes its {', '.join(live)} while it runs", _FIXED
    known = {name: np.asarray(array, np.float64) for name, array in given.items()}
    if any(array.size != 1 for array in known.values()):
        return "has settings of each channel", _FIXED
    scale, zero, bits, left = (float(known[n].reshape(())) for n in names if n != "output scale")
    after = float(known.get("output scale", known["scale"]).reshape(()))
    mode = str(attribute(node, "rounding_mode", "FLOOR")).upper()
    if mode not in _MODES:
        return f"rounding mode {mode} is not known", _NEURON
    if not scale > 0 or not after > 0:
        return f"scale {min(scale, after):g} is not positive", _ABOVE_ZERO
    if not (left >= 1 and left % 1 == 0 and bits % 1 == 0 and 1 <= bits <= 32):
        return f"from {bits:g} to {left:g} bits: these are no bit widths", _SHIFT
    is_old = "output scale" not in known
    lost = bits - left if is_old else float(np.rint(np.log2(after / scale)))
    if not 0 <= lost <= 24:
        return f"from {bits:g} to {left:g} bits loses {lost:g} bits", _SHIFT
    if zero:
        return f"zero point {zero:g}; what is left of it after bits are lost is not known", _FIXED
    signed, narrow = bool(attribute(node, "signed", 1)), bool(attribute(node, "narrow", 0))
    low, high = (int(end) for end in _ends(signed, narrow, np.float32(left)))
    if is_old and lost and mode != "FLOOR":
        high += 1  # it has no clamp, and the largest integer may be rounded up
    return _Quant(
        np.float32(scale), np.zeros(()), low, high, mode if lost else "ROUND", False,
        int(lost), np.float32(after),
    )  # fmt: skip


def _ends(signed: bool, narrow: bool, width: Array) -> tuple[Any, Any]:
    """Where QONNX clamps, before it rounds: no integers where the width is none."""
    if signed:
        return -(2 ** (width - 1)) + narrow, 2 ** (width - 1) - 1
    return np.float32(0), 2**width - 1 - narrow


def _rewrite(node: ir.Node, lineage: Lineage) -> Fault | None:
    """A Quant as ONNX's own operators, or why it has no such form."""
    found, x = _read_quant(node), constant(node.inputs[0])
    if isinstance(found, tuple):
        return _fault(node, *found)
    if x is not None and node.op_type != "Trunc":
        _write_constant(node, found, x)
    elif found.is_bipolar and not found.zero.any():
        _write_signs(node, found, lineage)
    elif (why := _not_counted(found)) is not None:
        return _fault(node, *why)
    elif _is_linear(found, node.inputs[0]):
        _write_linear(node, found, _axis_of(found.scale) or 1)
    else:
        _write_float(node, found, lineage)
    remove_dead(node)
    return None


def _not_counted(found: _Quant) -> tuple[str, str] | None:
    """Why a quantiser of activations is no neuron, and what to do; None: it is one."""
    zero = found.zero.reshape(-1)
    if (bits := (found.high - found.low).bit_length()) > 8:
        return f"quantiser of {bits} bits; activations have 8 at most", _NARROWER
    if (zero % 1).any():
        return f"zero point {zero[zero % 1 != 0][0]:g} is no integer", _FIXED
    if len(set(zero.tolist())) > 1:
        return f"zero points {zero.min():g} to {zero.max():g}, not one for all channels", _FIXED
    if not found.low <= zero[0] <= found.high:
        return f"zero point {zero[0]:g} outside of its integers {found.low}..{found.high}", _FIXED
    if found.is_bipolar:
        return f"zero point {zero[0]:g} of a quantiser to -1 and 1", _FIXED
    if found.rule is None:
        kind = "signed" if found.low < 0 else f"zero point {zero[0]:g}"
        return f"{kind}, rounding mode {found.mode}, which spikes cannot", _NEURON
    return None


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


def _is_linear(found: _Quant, x: ir.Value | None) -> bool:
    """Whether a QuantizeLinear does the same.

    That adds the zero point after rounding: where it is odd, ties would fall otherwise. Of samples
    that is allowed: no other form of them is known, and what their rounding changes is measured.
    """
    is_sample = x is not None and x.is_graph_input()
    is_even = is_sample or not found.zero.reshape(-1)[0] % 2
    one_scale = _axis_of(found.scale) is not None
    return found.mode in _EVEN and is_even and one_scale and not found.lost


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


def _write_float(node: ir.Node, found: _Quant, lineage: Lineage) -> None:
    """The formula as it is written, in ONNX's own operators."""
    zero, share = found.zero.reshape(-1)[0], 2.0**found.lost
    after = found.scale if found.after is None else found.after
    steps: list[_Step] = [("Div", [found.scale])]
    steps += [("Add", [zero])] if zero else []
    if found.lost and found.rule == "floor":  # integers, rounded first, reach k * share half early
        steps += [("Add", [0.5]), ("Div", [share])]
    elif found.lost:
        steps += [("Round", []), ("Div", [share])]
    steps += [("Clip", [found.low, found.high]), *_ROUND[found.rule or "even"]]
    whole = len(steps) - 1
    steps += [("Sub", [zero])] if zero else []
    base = str(node.outputs[0].name)
    names = _write_steps(node, [*steps, ("Mul", [after])])
    _note_counts(names[whole], base, after, -int(zero), lineage)


_Step = tuple[str, list[Any]]
#: How the rules of ``_Quant.rule`` are spelled.
_ROUND: dict[str, list[_Step]] = {
    "even": [("Round", [])],
    "up": [("Add", [0.5]), ("Floor", [])],
    "floor": [("Floor", [])],
}


def _write_signs(node: ir.Node, found: _Quant, lineage: Lineage) -> None:
    """-scale below 0, else scale."""
    above: list[_Step] = [
        ("Div", [found.scale]), ("Add", [1]), ("Clip", [0, 1]), ("Floor", []), ("Mul", [2])
    ]  # fmt: skip
    base = str(node.outputs[0].name)
    names = _write_steps(node, [*above, ("Sub", [1]), ("Mul", [found.scale])])
    _note_counts(names[4], base, found.scale, -1, lineage)


def _write_steps(node: ir.Node, steps: list[_Step]) -> list[str]:
    """One operator after the other, each with constants besides; together in place of ``node``."""
    out, edit, x, names = node.outputs[0], Edit(node, _MADE_BY), node.inputs[0], list[str]()
    for i, (op, numbers) in enumerate(steps):
        names.append(f"{out.name}/{op.lower()}{i}")
        given = [np.asarray(number, np.float32) for number in numbers]
        args = [edit.const(f"{names[-1]}.{j}", array) for j, array in enumerate(given)]
        x = edit.op(op, x, *args, name=names[-1], like=out)
    if x is not None:
        replace_value(out, x)
    return names


def _note_counts(name: str, of: str, scale: Array, low: int, lineage: Lineage) -> None:
    """Say that a value counts what a quantiser has made, ``of``, in steps of ``scale``."""
    units = [str(Fraction(float(v))) for v in scale.reshape(-1)]
    lineage.note(name, "counts", of, steps=units, low=low)
