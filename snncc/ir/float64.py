"""A float graph computed in float64: what a network means where float32 is not sure.

ONNX Runtime has no convolution, no average and no quantiser of float64. Here a convolution is a sum
over its taps, each a matrix product with the input shifted; an average is one with equal taps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from snncc.errors import UnsupportedModelError
from snncc.ir.exact import Exact
from snncc.ir.graphs import (
    Edit,
    attribute,
    explicit_pads,
    integer_range,
    nodes,
    replace_value,
    static_shape,
)
from snncc.ir.ops import DOMAIN, NEURONS, function_of
from snncc.ir.standard_ops import DOMAINS, ROUNDINGS

__all__ = ["in_float64"]

_FLOAT, _DOUBLE = ir.DataType.FLOAT, ir.DataType.DOUBLE
#: Larger weights, in bytes, stay float32 and are widened where they are read.
_SMALL = 1 << 16
_END = np.iinfo(np.int64).max
#: A drive is rounded to 1 / _STEPS, so that float64's own rounding decides no tie.
_STEPS = 2.0**32
_MADE_BY = "float64"


def in_float64(model: ir.Model) -> ir.Model:
    """The graph with float64 in place of float32, under the same names; inputs are float64, too.

    The drive of each rounding is rounded to 2^-32 first: what is a tie in exact arithmetic is one
    here, although float64 rounds as well.

    Args:
        model: Of ONNX's own operators and ours, with the functions of any others; not changed.
            Of constants the numbers that they stand for are taken (``ir/exact``).

    Raises:
        UnsupportedModelError: A quantiser's scales vary in blocks, which no network of ours has.
    """
    copy = model.clone()
    known = {str(v.name): (v.shape, v.type) for node in model.graph for v in node.outputs}
    for node in nodes(copy, *NEURONS):
        node.replace_input_with(0, _snapped(_Build(node), _given(node, 0)))
    _inline(copy)
    for node in nodes(copy):
        if node.domain in DOMAINS and (rule := _RULES.get(node.op_type)) is not None:
            out, new = node.outputs[0], rule(node, _Build(node))
            new.shape = out.shape  # rules of later nodes read it
            replace_value(out, new)
    for value in (out for node in copy.graph for out in node.outputs):
        value.shape, value.type = known.get(str(value.name), (value.shape, value.type))
    for graph in (copy.graph, *_inner_graphs(copy.graph)):
        _widen(graph)
    return copy


def _inline(model: ir.Model) -> None:
    """Our operators become their bodies, and so do those that the model has functions for."""
    for name in {node.op_type for node in model.graph if node.domain == DOMAIN}:
        function = ir.serde.deserialize_function(function_of(name))
        model.functions[function.identifier()] = function
    if model.functions:
        common.InlinePass()(model)


def _inner_graphs(graph: ir.Graph) -> Iterator[ir.Graph]:
    """The bodies of loops and branches, however deep."""
    for node in graph:
        for found in node.attributes.values():
            if found.type == ir.AttributeType.GRAPH:
                yield found.as_graph()
                yield from _inner_graphs(found.as_graph())


class _Build:
    """New nodes before one, each with a name of its own."""

    def __init__(self, node: ir.Node) -> None:
        self.edit, self.base, self.count = Edit(node, _MADE_BY), str(node.outputs[0].name), 0

    def op(self, kind: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """The result of a new node."""
        self.count += 1
        name = f"{self.base}/f64.{self.count}"
        return self.edit.op(kind, *inputs, name=name, attributes=attributes)

    def const(self, array: Any, dtype: Any = np.int64) -> ir.Value:
        """A new constant."""
        return self.edit.const(f"{self.base}.f64", np.asarray(array, dtype))

    def number(self, value: float) -> ir.Value:
        """A float64 number."""
        return self.const(value, np.float64)


def _given(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


def _wide(build: _Build, value: ir.Value) -> ir.Value:
    return build.op("Cast", value, to=_DOUBLE.value)


# -- convolutions and averages ---------------------------------------------------------------


class _Window:
    """A window that goes over the axes after samples and channels."""

    def __init__(self, node: ir.Node, kernel: Sequence[int]) -> None:
        rank, size = len(kernel), static_shape(_given(node, 0)) or ()
        self.kernel = kernel
        self.strides = list(attribute(node, "strides") or [1] * rank)
        self.dilations = list(attribute(node, "dilations") or [1] * rank)
        self.spans = [d * (k - 1) + 1 for d, k in zip(self.dilations, kernel, strict=True)]
        self.pads = explicit_pads(node, self.spans, self.strides, size[1:])
        self.axes = list(range(1, rank + 1))
        self.last, self.first = [0, *range(2, rank + 2), 1], [0, rank + 1, *self.axes]

    def taps(self, build: _Build, x: ir.Value) -> Iterator[tuple[tuple[int, ...], ir.Value]]:
        """Place in the kernel, and what it meets: [N, ..., C], channels last."""
        x = build.op("Transpose", x, perm=self.last)
        if any(self.pads):
            rank = len(self.kernel)
            pads = [0, *self.pads[:rank], 0, 0, *self.pads[rank:], 0]
            x = build.op("Pad", x, build.const(pads))
        axes, steps = build.const(self.axes), build.const(self.strides)
        for place in product(*map(range, self.kernel)):
            starts = [i * d for i, d in zip(place, self.dilations, strict=True)]
            rest = [span - 1 - s for span, s in zip(self.spans, starts, strict=True)]
            ends = [-r if r else _END for r in rest]
            yield place, build.op("Slice", x, build.const(starts), build.const(ends), axes, steps)

    def sum(self, build: _Build, x: ir.Value) -> ir.Value:
        """Sum of each window, channels last."""
        return _added(build, [tap for _, tap in self.taps(build, x)])


def _added(build: _Build, parts: Sequence[ir.Value]) -> ir.Value:
    total = parts[0]
    for part in parts[1:]:
        total = build.op("Add", total, part)
    return total


def _conv(node: ir.Node, build: _Build) -> ir.Value:
    """A sum over taps of matrix products, channels last."""
    x, weight, group = _given(node, 0), _given(node, 1), attribute(node, "group", 1)
    outs, ins, *kernel = (int(d) for d in weight.shape or ())  # type: ignore[arg-type]
    window, wide = _Window(node, kernel), _wide(build, weight)
    parts = []
    for place, tap in window.taps(build, x):
        matrix = _tap_of(build, wide, place)
        if group == 1:
            parts.append(build.op("MatMul", tap, build.op("Transpose", matrix, perm=[1, 0])))
        elif outs == group and ins == 1:
            parts.append(build.op("Mul", tap, build.op("Reshape", matrix, build.const([outs]))))
        else:
            parts.append(_by_group(build, tap, matrix, (group, outs // group, ins), len(kernel)))
    total = _added(build, parts)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        total = build.op("Add", total, _wide(build, _given(node, 2)))
    return build.op("Transpose", total, perm=window.first)


def _tap_of(build: _Build, weight: ir.Value, place: Sequence[int]) -> ir.Value:
    """The weights (out, in) of one place of the kernel."""
    axes = build.const(range(2, 2 + len(place)))
    ends = build.const([i + 1 for i in place])
    return build.op("Squeeze", build.op("Slice", weight, build.const(place), ends, axes), axes)


def _by_group(
    build: _Build, tap: ir.Value, matrix: ir.Value, sizes: tuple[int, int, int], rank: int
) -> ir.Value:
    """Each group of channels times weights of its own; sizes: groups, outs and ins of one."""
    group, outs, ins = sizes
    lead = [0] * (rank + 1)
    apart = build.op("Reshape", tap, build.const([*lead, group, 1, ins]))
    rows = build.op("Reshape", matrix, build.const([group, outs, ins]))
    found = build.op("MatMul", apart, build.op("Transpose", rows, perm=[0, 2, 1]))
    return build.op("Reshape", found, build.const([*lead, group * outs]))


def _average_pool(node: ir.Node, build: _Build) -> ir.Value:
    """The sum of a window over how many it holds."""
    x, kernel = _given(node, 0), attribute(node, "kernel_shape")
    window = _Window(node, kernel)
    total = window.sum(build, x)
    if attribute(node, "count_include_pad", 0) or not any(window.pads):
        mean = build.op("Div", total, build.number(prod(kernel)))
    else:
        ones = build.op("Add", build.op("Sub", x, x), build.number(1))
        mean = build.op("Div", total, window.sum(build, ones))
    return build.op("Transpose", mean, perm=window.first)


def _global_average_pool(node: ir.Node, build: _Build) -> ir.Value:
    x = _given(node, 0)
    return build.op("ReduceMean", x, build.const(range(2, len(x.shape or ()))), keepdims=1)


# -- roundings -------------------------------------------------------------------------------


def _snapped(build: _Build, x: ir.Value) -> ir.Value:
    """The value in steps of 1 / _STEPS."""
    steps = build.number(_STEPS)
    return build.op("Div", build.op("Round", build.op("Mul", x, steps)), steps)


def _rounding(node: ir.Node, build: _Build) -> ir.Value:
    return build.op(node.op_type, _snapped(build, _given(node, 0)))


def _spread(node: ir.Node, build: _Build, index: int) -> ir.Value:
    """A scale or zero point as it meets the elements of what is quantised, float64."""
    value, rank = _given(node, index), len(_given(node, 0).shape or ())
    if attribute(node, "block_size", 0):
        raise UnsupportedModelError(f"'{node.name}' quantises in blocks")
    wide = _wide(build, value)
    if len(value.shape or ()) != 1 or value.shape[0] == 1:  # type: ignore[index]
        return build.op("Reshape", wide, build.const([], np.int64))
    axis = attribute(node, "axis", 1) % rank
    return build.op("Reshape", wide, build.const([-1 if i == axis else 1 for i in range(rank)]))


def _quantize(node: ir.Node, build: _Build) -> ir.Value:
    out = node.outputs[0]
    limits, dtype = integer_range(out.dtype), out.dtype
    assert limits is not None
    steps = build.op("Div", _given(node, 0), _spread(node, build, 1))
    q = build.op("Round", _snapped(build, steps))
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        q = build.op("Add", q, _spread(node, build, 2))
    q = build.op("Clip", q, *map(build.number, limits))
    assert dtype is not None
    return build.op("Cast", q, to=dtype.value)


def _dequantize(node: ir.Node, build: _Build) -> ir.Value:
    steps = _wide(build, _given(node, 0))
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        steps = build.op("Sub", steps, _spread(node, build, 2))
    return build.op("Mul", steps, _spread(node, build, 1))


_RULES: dict[str, Callable[[ir.Node, _Build], ir.Value]] = {
    "Conv": _conv,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average_pool,
    **dict.fromkeys(ROUNDINGS, _rounding),
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}


# -- types -----------------------------------------------------------------------------------


def _widen(graph: ir.Graph) -> None:
    """Constants, casts and declared types of a graph that say float32 say float64."""
    for value in list(graph.initializers.values()):
        _widen_constant(graph, value)
    for node in graph:
        _widen_attributes(node)
    for value in (*graph.inputs, *(out for node in graph for out in node.outputs)):
        if value.dtype == _FLOAT:
            value.type = ir.TensorType(_DOUBLE)


def _widen_constant(graph: ir.Graph, value: ir.Value) -> None:
    known = Exact.of(value)
    if known is None or value.dtype != _FLOAT or value.is_graph_output():
        return
    readers = [(user, index) for user, index in value.uses() if user.op_type != "Cast"]
    if known.values.nbytes <= _SMALL or known.units is not None:
        value.const_value = ir.tensor(known.real, name=value.name)
        value.type = ir.TensorType(_DOUBLE)
    elif readers:
        node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", _DOUBLE.value)])
        node.outputs[0].name = f"{value.name}/f64"
        graph.insert_before(graph[0], node)
        for user, index in readers:
            user.replace_input_with(index, node.outputs[0])


def _widen_attributes(node: ir.Node) -> None:
    if node.op_type == "Cast" and attribute(node, "to") == _FLOAT.value:
        node.attributes["to"] = ir.AttrInt64("to", _DOUBLE.value)
    elif node.op_type == "Constant":
        found = next(iter(node.attributes.values()))
        if (array := _floats(found)) is not None:
            node.attributes.clear()
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(array.astype(np.float64)))
    elif node.op_type == "ConstantOfShape":
        fill = attribute(node, "value")
        array = np.zeros(1, np.float32) if fill is None else fill.numpy()
        if array.dtype == np.float32:
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(array.astype(np.float64)))


def _floats(found: ir.Attr) -> Any:
    """What a Constant of float32 holds; None of any other."""
    if found.name in ("value_float", "value_floats"):
        return np.asarray(found.value, np.float32)
    array = found.value.numpy() if found.type == ir.AttributeType.TENSOR else None
    return array if array is not None and array.dtype == np.float32 else None
