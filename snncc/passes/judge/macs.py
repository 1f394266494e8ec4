"""Multiply-accumulates of a graph: of layers, of layers over tokens, of attention and products."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import onnx_ir as ir

from snncc.ir.graphs import attribute, constant, static_shape
from snncc.ir.metadata import MAP_OF
from snncc.passes.integers.products import PRODUCTS

__all__ = ["macs_of", "multiplying"]


def multiplying(model: ir.Model) -> list[ir.Node]:
    """The nodes that have any, each computation once: on its map, where tokens have one, too."""
    made = {node.metadata_props.get(MAP_OF) for node in model.graph if node.op_type in _COUNTS}
    return [
        node
        for node in model.graph
        if node.op_type in _COUNTS
        and any(v is not None and constant(v) is None for v in node.inputs)
        and (MAP_OF in node.metadata_props or node.outputs[0].name not in made)
    ]


def macs_of(node: ir.Node) -> int:
    """Those of one node, per sample; 0 where shapes are not known.

    Heads that are folded into the axis of samples are not known here.
    """
    return _COUNTS[node.op_type](node) if node.op_type in _COUNTS else 0


def _sizes(value: ir.Value | None) -> list[int | None]:
    """Of all axes, None where a size is not known, as that of samples."""
    shape = value.shape if value is not None else None
    return [d if isinstance(d, int) else None for d in shape or ()]


def _layer(node: ir.Node) -> int:
    weight, out = _sizes(node.inputs[1]), static_shape(node.outputs[0])
    is_turned = node.op_type == "Gemm" and not attribute(node, "transB", 0)
    per_output = weight[:1] if is_turned else weight[1:]
    return prod(d or 0 for d in per_output) * prod(out) if weight and out else 0


def _matmul(node: ir.Node) -> int:
    summed, out = _sizes(node.inputs[0])[-1:], static_shape(node.outputs[0])
    return (summed[0] or 0) * prod(out) if summed and out else 0


def _einsum(node: ir.Node) -> int:
    terms = str(attribute(node, "equation", "")).replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, value in zip(terms, node.inputs, strict=False):
        axes = _sizes(value)
        if len(term) != len(axes):  # an ellipsis
            return 0
        sizes |= {label: size for label, size in zip(term, axes, strict=True) if size is not None}
    return prod(sizes.values()) if sizes else 0


_COUNTS: dict[str, Callable[[ir.Node], int]] = {
    "Conv": _layer,
    "Gemm": _layer,
    "MatMul": _matmul,
    "Einsum": _einsum,
    **{name: product.macs for name, product in PRODUCTS.items()},
}
