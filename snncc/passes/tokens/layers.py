"""Layers over tokens, and products of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.axes import Group
from snncc.ir.exact import Exact
from snncc.ir.graphs import attribute, constant, static_shape
from snncc.ir.ops import DOMAIN
from snncc.passes.tokens.products import (
    Labels,
    NotAttentionError,
    Product,
    Tokens,
    attended,
    multiplied,
)
from snncc.passes.tokens.views import indices, of_map
from snncc.passes.tokens.work import Rule, View, Views, Work, attributes_of, first_of, sizes_of
from snncc.program.attention import cheaper_order

__all__ = ["LAYERS"]

Array = npt.NDArray[Any]

# -- layers ----------------------------------------------------------------------------------


def _conv(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    """Conv1d of kernel 1 over tokens [N, C, P]: one by one over the map."""
    view, weight = first_of(seen), Exact.of(node.inputs[1])
    if not isinstance(view, Tokens) or weight is None or weight.values.ndim != 3:
        return None
    plain = {"strides": [1], "pads": [0, 0], "dilations": [1]}
    if weight.values.shape[2] != 1 or any(attribute(node, k, v) != v for k, v in plain.items()):
        return None
    group = attribute(node, "group", 1)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return _layer(work, node, view, 1, weight.moved(lambda v: v[:, :, 0]), bias, group)


def _matmul(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    """A linear layer over tokens [..., C], or a product of two views."""
    one, two = seen
    if one is not None and two is not None:
        return _product(work, node, one, two, _matrix_labels(node))
    weight = Exact.of(node.inputs[1])
    if not isinstance(one, Tokens) or weight is None or weight.values.ndim != 2:
        return None
    return _layer(work, node, one, len(one.groups) - 1, weight.moved(np.transpose), None, 1)


def _gemm(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    """A linear layer over tokens [N * P, C]."""
    view, weight = first_of(seen), Exact.of(node.inputs[1])
    if not isinstance(view, Tokens) or weight is None or not attribute(node, "transB", 0):
        return None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return _layer(work, node, view, 1, weight, bias, 1)


def _layer(
    work: Work,
    node: ir.Node,
    view: Tokens,
    axis: int,
    weight: Exact,
    bias: ir.Value | None,
    group: int,
) -> Views:
    """Weights (out, in) along one axis, which must hold all channels, in any order."""
    order, sizes = indices(view.groups[axis], "C"), sizes_of(view)
    rows = weight.by_row()
    if order is None or len(order) != sizes[0] or rows.values.shape[1] * group != sizes[0]:
        return None
    if group > 1 and not np.array_equal(order, np.arange(len(order))):
        return None
    columns = np.zeros_like(rows.values)
    columns[:, order if group == 1 else slice(None)] = rows.values
    kernel = Exact(columns, rows.units).moved(lambda v: v[:, :, None, None])
    args = [work.scaled(view, node), work.const(node, "weight", kernel)]
    twin = work.map(
        node, "Conv", *args, *([bias] if bias is not None else []),
        shape=(len(columns), *sizes[1:]),
        attributes={
            "kernel_shape": [1, 1], "strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1],
            "group": group,
        },
    )  # fmt: skip
    made: Group = of_map((len(columns),))[1]
    groups = tuple(made if i == axis else g for i, g in enumerate(view.groups))
    return [Tokens(groups, twin)]


def _batch_norm(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    view, arrays = first_of(seen), [constant(v) for v in node.inputs[1:5]]
    if not isinstance(view, Tokens) or len(view.groups) < 2:
        return None
    order = indices(view.groups[1], "C")
    if order is None or len(order) != view.channels or any(a is None for a in arrays):
        return None
    inverse = np.argsort(order)
    args = [work.const(node, f"norm{i}", a[inverse]) for i, a in enumerate(arrays) if a is not None]
    twin = work.map(
        node, "BatchNormalization", work.scaled(view, node), *args, shape=sizes_of(view),
        attributes=attributes_of(node),
    )  # fmt: skip
    return [Tokens(view.groups, twin)]


def _mean(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    """The mean or sum over all positions: a global pool, flattened. Or a sum over channels."""
    view, axes = first_of(seen), _reduced(node)
    if not isinstance(view, Tokens) or axes is None:
        return None
    rank = len(view.groups)
    gone = {a % rank for a in axes}
    if all(view.groups[a] == () for a in gone) and not attribute(node, "keepdims", 1):
        return [replace(view, groups=tuple(g for i, g in enumerate(view.groups) if i not in gone))]
    summed, sizes = [d for a in gone for d in view.groups[a]], sizes_of(view)
    if node.op_type == "ReduceSum" and {d.axis for d in summed} == {"C"}:
        return _sum_of_channels(work, node, view, gone)
    positions = prod(d.size or 1 for d in summed)
    if any(d.axis != "P" for d in summed) or positions != prod(sizes[1:]):
        return None
    pooled = work.map(
        node, "AveragePool", work.scaled(view, node), shape=(sizes[0], 1, 1),
        name=f"{node.outputs[0].name}/pool",
        attributes={
            "kernel_shape": list(sizes[1:]), "strides": list(sizes[1:]), "pads": [0] * 4,
            "ceil_mode": 0, "count_include_pad": 1,
        },
    )  # fmt: skip
    groups = tuple(g for i, g in enumerate(view.groups) if i not in gone)
    if attribute(node, "keepdims", 1):
        groups = tuple(() if i in gone else g for i, g in enumerate(view.groups))
    scale = Fraction(positions) if node.op_type == "ReduceSum" else Fraction(1)
    return [Tokens(groups, pooled, scale)]


def _sum_of_channels(work: Work, node: ir.Node, view: Tokens, gone: set[int]) -> Views:
    """A sum over the channels of heads that lie side by side, once for each of these channels.

    So what it is multiplied with, channel by channel, meets it where it is.
    """
    digits = [d for a in gone for d in view.groups[a]]
    channels, *rest = sizes_of(view)
    if view.has_copies or len(digits) != 1 or digits[0].stride != 1:
        return None
    (size,) = (d.size or 1 for d in digits)
    twin = work.map(
        node, "Conv", work.scaled(view, node),
        work.const(node, "ones", np.ones((channels, size, *(1 for _ in rest)))),
        shape=(channels, *rest),
        attributes={
            "kernel_shape": [1, 1], "strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1],
            "group": channels // size,
        },
    )  # fmt: skip
    if attribute(node, "keepdims", 1):
        groups = tuple(() if i in gone else g for i, g in enumerate(view.groups))
    else:
        groups = tuple(g for i, g in enumerate(view.groups) if i not in gone)
    return [Tokens(groups, twin)]


def _reduced(node: ir.Node) -> list[int] | None:
    if node.op_type == "GlobalAveragePool":
        return list(range(2, len(node.outputs[0].shape or ())))
    given = constant(node.inputs[1]) if len(node.inputs) > 1 else attribute(node, "axes")
    return None if given is None else [int(a) for a in given]


# -- products --------------------------------------------------------------------------------


def _matrix_labels(node: ir.Node) -> tuple[Labels, Labels, Labels] | None:
    one, two = (len(v.shape or ()) if v is not None else 0 for v in node.inputs)
    if one != two or one < 2:
        return None
    batch = tuple(f"b{i}" for i in range(one - 2))
    return (*batch, "m", "x"), (*batch, "x", "n"), (*batch, "m", "n")


def _einsum(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    terms = str(attribute(node, "equation", "")).replace(" ", "").replace("->", ",").split(",")
    plain = all(len(set(t)) == len(t) and "." not in t for t in terms)
    if len(terms) != 3 or len(seen) != 2 or not plain or None in seen:
        return None
    first, second, out = (tuple(t) for t in terms)
    if not set(out) <= set(first) | set(second) or (set(first) ^ set(second)) - set(out):
        return None
    one, two = seen
    assert one is not None
    assert two is not None
    return _product(work, node, one, two, (first, second, out))


def _product(
    work: Work,
    node: ir.Node,
    one: View,
    two: View,
    labels: tuple[Labels, Labels, Labels] | None,
) -> Views:
    if labels is None:
        return None
    if isinstance(one, Tokens) and isinstance(two, Tokens):
        return [multiplied(one, two, labels)]
    first, second, out = labels
    if isinstance(one, Product) and isinstance(two, Tokens):
        found = attended(one, two, labels, product_first=True)
    elif isinstance(two, Product) and isinstance(one, Tokens):
        found = attended(two, one, (second, first, out), product_first=False)
    else:
        raise NotAttentionError("multiplies four maps")
    q, k, v = found.q.twin, found.k.twin, found.v.twin
    of_q, of_k, of_v = (static_shape(x) or () for x in (q, k, v))
    order = cheaper_order(of_q, of_k, of_v, found.heads)
    twin = work.map(
        node, "Attention", q, k, v, shape=(of_v[0], *of_q[1:]), domain=DOMAIN,
        attributes={"heads": found.heads, "order": order},
    )  # fmt: skip
    whole = Tokens(found.groups, twin, found.scale)
    return [replace(whole, scale=Fraction(1), twin=work.scaled(whole, node))]


LAYERS: dict[str, Rule] = {
    "Conv": _conv,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "BatchNormalization": _batch_norm,
    **dict.fromkeys(("ReduceMean", "ReduceSum", "GlobalAveragePool"), _mean),
    "Einsum": _einsum,
}
