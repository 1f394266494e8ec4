"""Operands that do not fit their operator, of kinds that ONNX's own shape inference lets pass.

It looks at the shapes that decide a result's: not at a bias of too many channels, at scales of too
few, or at groups that do not divide them. ONNX Runtime refuses these files when it runs them, and
all that reads a layer here takes for granted that there are none.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import onnx

from snncc.errors import BadInputError, Fault

__all__ = ["require_fitting"]

#: Sizes of axes, None where one is free; None if nothing is known.
_Shape = tuple[int | None, ...] | None


def require_fitting(proto: onnx.ModelProto) -> None:
    """Weights, biases, scales and lists of axes have the sizes that their operators read.

    Args:
        proto: With the shapes that were inferred.

    Raises:
        BadInputError: Some have not; with all of them.
    """
    shapes = _shapes(proto)
    faults = []
    for node in proto.graph.node:
        check = _CHECKS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        why = check(node, [shapes.get(name) for name in node.input]) if check is not None else ""
        if why:
            faults.append(Fault(why, node=node.name or node.output[0], kind=node.op_type))
    if faults:
        raise BadInputError("operands do not fit their operators; export it again", faults)


def _shapes(proto: onnx.ModelProto) -> dict[str, _Shape]:
    graph = proto.graph
    found: dict[str, _Shape] = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            dims = kind.shape.dim
            found[value.name] = tuple(
                d.dim_value if d.HasField("dim_value") else None for d in dims
            )
    return found | {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    given = next((a for a in node.attribute if a.name == name), None)
    return default if given is None else onnx.helper.get_attribute_value(given)


def _differ(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and one != other


def _at(shapes: list[_Shape], index: int) -> _Shape:
    """The shape of an input that may be left out."""
    return shapes[index] if index < len(shapes) else None


def _conv(node: onnx.NodeProto, shapes: list[_Shape]) -> str:
    x, weight, bias = (_at(shapes, i) for i in range(3))
    if weight is None:
        return ""
    if len(weight) < 3:
        return f"weights of shape {list(weight)}"
    groups, outs, ins = _attribute(node, "group", 1), weight[0], weight[1]
    if groups < 1 or (outs is not None and outs % groups):
        return f"{outs} output channels in {groups} groups"
    if x is not None and len(x) != len(weight):
        return f"input of rank {len(x)}, weights of shape {list(weight)}"
    if x is not None and ins is not None and _differ(x[1], ins * groups):
        return f"input of {x[1]} channels, weights of shape {list(weight)} in {groups} groups"
    if bias is not None and (len(bias) != 1 or _differ(bias[0], outs)):
        return f"bias of shape {list(bias)} for {outs} channels"
    kernel = _attribute(node, "kernel_shape", weight[2:])
    if any(_differ(a, b) for a, b in zip(kernel, weight[2:], strict=False)):
        return f"kernel_shape {list(kernel)}, weights of shape {list(weight)}"
    steps = (*_attribute(node, "strides", ()), *_attribute(node, "dilations", ()))
    return "strides and dilations must be positive" if any(step < 1 for step in steps) else ""


def _gemm(node: onnx.NodeProto, shapes: list[_Shape]) -> str:
    one, two, bias = (_at(shapes, i) for i in range(3))
    if one is None or two is None or bias is None or (len(one), len(two)) != (2, 2):
        return ""
    rows = one[1 if _attribute(node, "transA", 0) else 0]
    columns = two[0 if _attribute(node, "transB", 0) else 1]
    full = (1,) * (2 - len(bias)) + bias
    fits = len(full) == 2 and all(
        size == 1 or not _differ(size, whole)
        for size, whole in zip(full, (rows, columns), strict=True)
    )
    return "" if fits else f"bias of shape {list(bias)} for {columns} features"


def _batch_norm(node: onnx.NodeProto, shapes: list[_Shape]) -> str:
    x = _at(shapes, 0)
    channels = x[1] if x is not None and len(x) > 1 else None
    for what, shape in zip(("scale", "bias", "mean", "variance"), shapes[1:5], strict=False):
        if shape is not None and (len(shape) != 1 or _differ(shape[0], channels)):
            return f"{what} of shape {list(shape)} for {channels} channels"
    return ""


def _quantiser(node: onnx.NodeProto, shapes: list[_Shape]) -> str:
    x, scale, zero = (_at(shapes, i) for i in range(3))
    if scale is None:
        return ""
    if zero is not None and _size(zero) != _size(scale):
        return f"zero point of shape {list(zero)}, scale of shape {list(scale)}"
    if _size(scale) == 1 or x is None:
        return ""
    axis = _attribute(node, "axis", 1)
    if not -len(x) <= axis < len(x):
        return f"axis {axis} of an input of rank {len(x)}"
    if len(scale) == 1:
        fits = not _differ(scale[0], x[axis])
    else:
        fits = _fits_in_blocks(x, scale, axis % len(x), _attribute(node, "block_size", 0))
    return "" if fits else f"scale of shape {list(scale)} along axis {axis} of {x[axis]}"


def _fits_in_blocks(x: _Shape, scale: _Shape, axis: int, block: int) -> bool:
    """Whether there is one scale for each ``block`` elements along the axis."""
    assert x is not None
    assert scale is not None
    if len(scale) != len(x) or block < 1:
        return False
    blocks = [None if n is None else -(-n // block) if i == axis else n for i, n in enumerate(x)]
    return not any(_differ(a, b) for a, b in zip(scale, blocks, strict=True))


def _size(shape: tuple[int | None, ...]) -> int | None:
    """Elements, or None where an axis is free."""
    sizes = [size for size in shape if size is not None]
    return prod(sizes) if len(sizes) == len(shape) else None


def _lists(*places: int) -> Callable[[onnx.NodeProto, list[_Shape]], str]:
    """Inputs at these places are lists of numbers."""

    def check(node: onnx.NodeProto, shapes: list[_Shape]) -> str:
        for place in places:
            shape = _at(shapes, place)
            if shape is not None and len(shape) != 1:
                return f"input {place} is to be a list, and has shape {list(shape)}"
        return ""

    return check


def _clip(node: onnx.NodeProto, shapes: list[_Shape]) -> str:
    for shape in shapes[1:3]:
        if shape is not None and _size(shape) not in (None, 1):
            return f"bound of shape {list(shape)}; it is to be one number"
    return ""


_CHECKS: dict[str, Callable[[onnx.NodeProto, list[_Shape]], str]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "BatchNormalization": _batch_norm,
    "QuantizeLinear": _quantiser,
    "DequantizeLinear": _quantiser,
    "Clip": _clip,
    **dict.fromkeys(("Squeeze", "Unsqueeze", "Reshape", "Expand", "Tile", "Split"), _lists(1)),
    **dict.fromkeys(
        (f"Reduce{kind}" for kind in ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2")), _lists(1)
    ),
    "Slice": _lists(1, 2, 3, 4),
    "Pad": _lists(1, 3),
}
