"""ONNX models evaluated with fractions: the judge of what rounds to what.

Every float32 constant is the binary number that it is, and nothing rounds but roundings. Slow, for
small networks.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import floor, prod
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["evaluated", "fractions", "rounded"]

Array = np.ndarray


def fractions(array: Any) -> Array:
    """Any numbers as fractions, an array of dtype object."""
    given = np.asarray(array)
    flat = [Fraction(float(v)) for v in given.reshape(-1).astype(np.float64).tolist()]
    made = np.empty(len(flat), dtype=object)
    made[:] = flat
    return made.reshape(given.shape)


def rounded(x: Array) -> Array:
    """Half to even, elementwise."""
    return np.vectorize(lambda v: Fraction(round(v)), otypes=[object])(x)


def evaluated(model: onnx.ModelProto, x: Array) -> dict[str, Array]:
    """All values of a model over ``x`` by name, fractions; QONNX's Quant included."""
    values = {t.name: fractions(numpy_helper.to_array(t)) for t in model.graph.initializer}
    limits = {t.name: t.data_type for t in model.graph.initializer}
    values[model.graph.input[0].name] = x if x.dtype == object else fractions(x)
    for node in model.graph.node:
        settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        inputs = [values[name] if name else None for name in node.input]
        if node.op_type == "QuantizeLinear":
            settings["kind"] = limits[node.input[2]]
        values[node.output[0]] = _RULES[node.op_type](settings, *inputs)
    return values


def _along(settings: dict[str, Any], values: Array, like: Array) -> Array:
    if values.size == 1:
        return values.reshape(())
    axis = settings.get("axis", 1) % like.ndim
    return values.reshape([-1 if i == axis else 1 for i in range(like.ndim)])


_ENDS = {onnx.TensorProto.UINT8: (0, 255), onnx.TensorProto.INT8: (-128, 127)}


def _quantize(settings: dict[str, Any], x: Array, scale: Array, zero: Array) -> Array:
    steps = rounded(x / _along(settings, scale, x)) + _along(settings, zero, x)
    return _clip({}, steps, *map(Fraction, _ENDS[settings["kind"]]))


def _dequantize(settings: dict[str, Any], q: Array, scale: Array, zero: Any = None) -> Array:
    centre = Fraction(0) if zero is None else _along(settings, zero, q)
    return (q - centre) * _along(settings, scale, q)


def _clip(settings: dict[str, Any], x: Array, low: Any = None, high: Any = None) -> Array:
    x = x if low is None else np.maximum(x, np.asarray(low, object))
    return x if high is None else np.minimum(x, np.asarray(high, object))


def _quant(settings: dict[str, Any], x: Array, scale: Array, zero: Array, bits: Array) -> Array:
    """Of QONNX: unsigned or signed, half-even or half-up."""
    width = np.float32(float(bits))
    low, high = Fraction(0), Fraction(float(2**width - 1 - settings["narrow"]))
    if settings["signed"]:
        low = Fraction(float(-(2 ** (width - 1)) + settings["narrow"]))
        high = Fraction(float(2 ** (width - 1) - 1))
    steps = _clip({}, x / scale + zero, low, high)
    if settings["rounding_mode"] == b"HALF_UP":
        return (_floor(steps + Fraction(1, 2)) - zero) * scale  # below 0 for none
    if settings["rounding_mode"] == b"FLOOR":
        return (_floor(steps) - zero) * scale
    return (rounded(steps) - zero) * scale


def _signs(settings: dict[str, Any], x: Array, scale: Array) -> Array:
    """Of QONNX: 0 is above."""
    return np.where(x >= 0, Fraction(1), Fraction(-1)) * scale


def _trunc(settings: dict[str, Any], x: Array, scale: Array, zero: Array, *more: Array) -> Array:
    """Of QONNX, version 1 or 2: integers, and some bits less of them."""
    whole = rounded(x / scale + zero)
    bits, left = more[0], more[-1]
    after = more[1] if len(more) > 2 else scale
    share = after / scale if len(more) > 2 else Fraction(2) ** int(bits - left)
    share = Fraction(2) ** round(np.log2(float(share)))
    fewer = whole / share
    if len(more) > 2:
        top = Fraction(2) ** int(left) - 1
        fewer = _clip({}, fewer, Fraction(0), top)
    found = _floor(fewer) if settings["rounding_mode"] == b"FLOOR" else rounded(fewer)
    return found * after


def _windows(x: Array, kernel: Any, strides: Any, pads: Any) -> Array:
    """(N, C, H', W', kh, kw)"""
    top, left, bottom, right = pads
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=Fraction(0))
    views = np.lib.stride_tricks.sliding_window_view(x, tuple(kernel), axis=(2, 3))
    return views[:, :, :: strides[0], :: strides[1]]


def _conv(settings: dict[str, Any], x: Array, w: Array, b: Any = None) -> Array:
    pads, group = settings.get("pads", [0] * 4), settings.get("group", 1)
    windows = _windows(x, w.shape[2:], settings.get("strides", [1, 1]), pads)
    outs, ins = len(w) // group, w.shape[1]
    parts = [
        np.tensordot(
            windows[:, g * ins : (g + 1) * ins],
            w[g * outs : (g + 1) * outs],
            axes=((1, 4, 5), (1, 2, 3)),
        )
        for g in range(group)
    ]
    y = np.moveaxis(np.concatenate(parts, axis=3), 3, 1)
    return y if b is None else y + b.reshape(1, -1, 1, 1)


def _gemm(settings: dict[str, Any], x: Array, w: Array, b: Any = None) -> Array:
    y = x @ (w.T if settings.get("transB", 0) else w)
    return y if b is None else y + b


def _average(settings: dict[str, Any], x: Array) -> Array:
    kernel = settings.get("kernel_shape", x.shape[2:])
    windows = _windows(x, kernel, settings.get("strides", kernel), settings.get("pads", [0] * 4))
    return windows.sum(axis=(4, 5)) / Fraction(prod(kernel))


def _maximum(settings: dict[str, Any], x: Array) -> Array:
    kernel = settings["kernel_shape"]
    windows = _windows(x, kernel, settings.get("strides", kernel), settings.get("pads", [0] * 4))
    return windows.reshape(*windows.shape[:4], -1).max(axis=4)


def _norm(settings: dict[str, Any], x: Array, *given: Array) -> Array:
    """As the compiler has it: scale and shift are computed in float64, once."""
    gamma, beta, mean, var = (np.asarray(v, np.float64) for v in given)
    scale = gamma / np.sqrt(var + settings.get("epsilon", 1e-5))
    tail = (1,) * (x.ndim - 2)
    factor, shift = (fractions(v).reshape(1, -1, *tail) for v in (scale, beta - mean * scale))
    return x * factor + shift


def _fire(settings: dict[str, Any], x: Array) -> Array:
    inside = _clip({}, x, Fraction(0), Fraction(settings["D"]))
    up = settings["rounding"] == b"half-up"
    counts = _floor(inside + Fraction(1, 2)) if up else rounded(inside)
    return counts / Fraction(settings["norm"])


def _floor(x: Array) -> Array:
    return np.vectorize(lambda v: Fraction(floor(v)), otypes=[object])(x)


_RULES: dict[str, Callable[..., Array]] = {
    "IntegerFire": _fire,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "Clip": _clip,
    "Quant": _quant,
    "BipolarQuant": _signs,
    "Trunc": _trunc,
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": lambda _, x, w: x @ w,
    "BatchNormalization": _norm,
    "AveragePool": _average,
    "GlobalAveragePool": _average,
    "ReduceMean": lambda _, x, axes: _average({}, x).reshape(x.shape[:2]),
    "MaxPool": _maximum,
    "Relu": lambda _, x: np.maximum(x, Fraction(0)),
    "Flatten": lambda _, x: x.reshape(len(x), -1),
    "Round": lambda _, x: rounded(x),
    "Floor": lambda _, x: _floor(x),
    "Add": lambda _, x, y: x + y,
    "Sub": lambda _, x, y: x - y,
    "Mul": lambda _, x, y: x * y,
    "Div": lambda _, x, y: x / y,
    "Concat": lambda settings, *parts: np.concatenate(parts, axis=settings["axis"]),
}
