"""What each operator does to tokens: the same on the map they are a view of, or a new view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.attention import cheaper_order
from snncc.ir.graphs import Edit, attribute, constant, static_shape
from snncc.ir.ops import DOMAIN, NEURONS
from snncc.passes.channel_parts import Parts
from snncc.passes.token_products import (
    Labels,
    NotAttentionError,
    Product,
    Tokens,
    attended,
    multiplied,
)
from snncc.passes.token_views import (
    BATCH,
    Group,
    indices,
    of_map,
    regrouped,
    selected,
    spread,
)

__all__ = ["MAP", "RULES", "SCALED", "Work"]

Array = npt.NDArray[Any]
View = Tokens | Product
Views = Sequence[View | None] | None

#: What follows the name of a value of tokens in that of its map.
MAP = "/map"
#: In that of a map times a number.
SCALED = "/scaled"


@dataclass
class Work:
    """Nodes on maps, ahead of those on tokens."""

    parts: Parts
    made_by: str

    def map(
        self, node: ir.Node, op_type: str, *inputs: ir.Value | None, shape: Sequence[int],
        domain: str = "", attributes: dict[str, Any] | None = None, name: str = "",
    ) -> ir.Value:  # fmt: skip
        """A new map (C, H, W), or a new vector, ahead of ``node`` and named after its result."""
        out, x = node.outputs[0], inputs[0]
        samples = x.shape[0] if x is not None and x.shape is not None else None
        return Edit(node, self.made_by).op(
            op_type, *inputs, name=name or f"{out.name}{MAP}", dtype=ir.DataType.FLOAT,
            shape=[samples, *shape], domain=domain, attributes=attributes or {},
        )  # fmt: skip

    def const(self, node: ir.Node, what: str, array: Array) -> ir.Value:
        """A new constant, float32 unless it is of integers."""
        kept = array.dtype.kind in "iu"
        return Edit(node, self.made_by).const(
            f"{node.outputs[0].name}.{what}", array if kept else array.astype(np.float32)
        )

    def scaled(self, view: Tokens, node: ir.Node) -> ir.Value:
        """The map times the view's scale."""
        if view.scale == 1.0:
            return view.twin
        factor = self.const(node, "scale", np.array(view.scale))
        name = f"{node.outputs[0].name}{SCALED}"
        return self.map(node, "Mul", view.twin, factor, shape=_sizes(view), name=name)

    def flattened(self, view: Tokens, node: ir.Node, out: ir.Value) -> ir.Value | None:
        """The map as one axis of features, in its own order; None if the view has another."""
        sizes = _sizes(view)
        whole = regrouped(of_map(sizes), (None, prod(sizes)))
        if view.groups != whole:
            return None
        target = self.const(node, "flat", np.array([-1, prod(sizes)]))
        return self.map(node, "Reshape", self.scaled(view, node), target, shape=[prod(sizes)])


def _sizes(view: Tokens) -> tuple[int, ...]:
    return static_shape(view.twin) or ()


def _attributes(node: ir.Node) -> dict[str, Any]:
    return {name: a.value for name, a in node.attributes.items()}


def _axes(value: ir.Value) -> list[int | None]:
    """Sizes of a value's axes, None for the one of samples."""
    return [d if isinstance(d, int) else None for d in value.shape or ()]


def _only(seen: Sequence[View | None]) -> View | None:
    return seen[0] if seen else None


# -- what regroups ---------------------------------------------------------------------------


def _reshape(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    """Reshape, Flatten, Squeeze and Unsqueeze, and repetitions that repeat nothing."""
    view, out = _only(seen), node.outputs[0]
    if view is None or out.shape is None:
        return None
    groups = regrouped(view.groups, _axes(out))
    if groups is None or _is_plain_flatten(view, node):
        return None
    return [replace(view, groups=groups)]


def _is_plain_flatten(view: View, node: ir.Node) -> bool:
    """A map flattened as it is has a form already."""
    rank = len(node.outputs[0].shape or ())
    return rank == 2 and isinstance(view, Tokens) and view.twin is node.inputs[0]


def _repeat(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    view, x = _only(seen), node.inputs[0]
    if view is None or x is None or _axes(x) != _axes(node.outputs[0]):
        return None
    return [view]


def _transpose(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    view = _only(seen)
    if view is None:
        return None
    order = attribute(node, "perm") or list(range(len(view.groups)))[::-1]
    return [replace(view, groups=tuple(view.groups[i] for i in order))]


def _slice(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    given = [constant(v) for v in node.inputs[1:]]
    if any(g is None or g.size != 1 for g in given) or len(given) < 3:
        return None
    start, stop, axis, *step = (int(g.item()) for g in given if g is not None)
    if step and step[0] != 1:
        return None
    return _ranges(work, node, seen, axis, [(start, stop)])


def _split(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    axis = attribute(node, "axis", 0)
    sizes = [_axes(out)[axis] for out in node.outputs]
    if any(s is None for s in sizes):
        return None
    ends = np.cumsum([s for s in sizes if s is not None]).tolist()
    return _ranges(work, node, seen, axis, list(zip([0, *ends], ends, strict=False)))


def _gather(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    index, axis = constant(node.inputs[1]), attribute(node, "axis", 0)
    if index is None or index.ndim != 0:
        return None
    at = int(index)
    found = _ranges(work, node, seen, axis, [(at, at + 1)] if at >= 0 else [(at, 0)])
    if not found or not isinstance(found[0], Tokens):
        return None
    groups = list(found[0].groups)
    del groups[axis]
    return [replace(found[0], groups=tuple(groups))]


def _ranges(
    work: Work,
    node: ir.Node,
    seen: Sequence[View | None],
    axis: int,
    ranges: Sequence[tuple[int, int]],
) -> Views:
    """Parts of an axis of channels: maps of these channels alone."""
    view, x = _only(seen), node.inputs[0]
    size = _axes(x)[axis] if x is not None else None
    if not isinstance(view, Tokens) or size is None:
        return None
    found: list[Tokens | None] = []
    for start, stop in ranges:
        start, stop = (min(i + size if i < 0 else i, size) for i in (start, stop or size))
        part = selected(view.groups, axis % len(view.groups), start, stop)
        twin = work.parts.of(view.twin, part[1], node) if part is not None else None
        if part is None or twin is None:
            return None
        found.append(replace(view, groups=part[0], twin=twin))
    return found


# -- what computes, element by element -------------------------------------------------------


def _neuron(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    view = _only(seen)
    if isinstance(view, Product):
        raise NotAttentionError("a neuron between the first and the second product")
    if view is None:
        return None
    twin = work.map(
        node, node.op_type, work.scaled(view, node), shape=_sizes(view), domain=node.domain,
        attributes=_attributes(node),
    )  # fmt: skip
    return [Tokens(view.groups, twin)]


def _arithmetic(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    """Sums of two views of one kind; sums, differences and multiples with constants."""
    arrays = [constant(v) for v in node.inputs]
    index = next((i for i, view in enumerate(seen) if view is not None), 0)
    view, array = seen[index], arrays[1 - index]
    if array is None:
        return _sum(work, node, seen)
    if view is None or (index == 1 and node.op_type == "Div"):
        return None
    by_number = array.size == 1 and node.op_type in ("Mul", "Div") and float(array.item()) != 0
    if by_number and (isinstance(view, Product) or _holds_spikes(view.twin)):
        factor = float(array.item())
        scale = view.scale * factor if node.op_type == "Mul" else view.scale / factor
        return [replace(view, scale=scale)]
    if isinstance(view, Product):
        raise NotAttentionError(f"{node.op_type} of the product of two of q, k and v")
    other = _constant_of(work, node, array, view)
    pair = [work.scaled(view, node), other]
    twin = work.map(node, node.op_type, *(pair if index == 0 else pair[::-1]), shape=_sizes(view))
    return [Tokens(view.groups, twin)]


def _constant_of(work: Work, node: ir.Node, array: Array, view: Tokens) -> ir.Value:
    """A constant as it meets the map: one number, one a channel, or a whole map."""
    if array.size == 1:
        return work.const(node, "number", array.reshape(()))
    sizes = _sizes(view)
    whole = spread(array, view.groups, sizes)
    by_channel = whole.reshape(sizes[0], -1)
    if (by_channel == by_channel[:, :1]).all():
        return work.const(node, "by_channel", by_channel[:, :1].reshape(-1, 1, 1))
    return work.const(node, "map", whole[None])


def _sum(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    one, two = seen
    if isinstance(one, Product) or isinstance(two, Product):
        raise NotAttentionError(f"{node.op_type} of the product of two of q, k and v")
    if one is None or two is None or node.op_type != "Add":
        return None
    if one.groups != two.groups or _sizes(one) != _sizes(two):
        return None
    pair = [work.scaled(view, node) for view in (one, two)]
    return [Tokens(one.groups, work.map(node, "Add", *pair, shape=_sizes(one)))]


def _holds_spikes(value: ir.Value) -> bool:
    node = value.producer()
    if node is not None and node.op_type == "MaxPool":
        return node.inputs[0] is not None and _holds_spikes(node.inputs[0])
    return node is not None and node.op_type in NEURONS


def _on_grid(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    view, theta = _only(seen), constant(node.inputs[1])
    if not isinstance(view, Tokens) or theta is None:
        return None
    other = _constant_of(work, node, theta, view)
    twin = work.map(
        node, "OnGrid", work.scaled(view, node), other, shape=_sizes(view), domain=node.domain
    )
    return [Tokens(view.groups, twin)]


# -- layers ----------------------------------------------------------------------------------


def _conv(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    """Conv1d of kernel 1 over tokens [N, C, P]: one by one over the map."""
    view, weight = _only(seen), constant(node.inputs[1])
    if not isinstance(view, Tokens) or weight is None or weight.ndim != 3:
        return None
    plain = {"strides": [1], "pads": [0, 0], "dilations": [1]}
    if weight.shape[2] != 1 or any(attribute(node, k, v) != v for k, v in plain.items()):
        return None
    group = attribute(node, "group", 1)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return _layer(work, node, view, 1, weight[:, :, 0], bias, group)


def _matmul(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    """A linear layer over tokens [..., C], or a product of two views."""
    one, two = seen
    if one is not None and two is not None:
        return _product(work, node, one, two, _matrix_labels(node))
    weight = constant(node.inputs[1])
    if not isinstance(one, Tokens) or weight is None or weight.ndim != 2:
        return None
    return _layer(work, node, one, len(one.groups) - 1, weight.T, None, 1)


def _gemm(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    """A linear layer over tokens [N * P, C]."""
    view, weight = _only(seen), constant(node.inputs[1])
    if not isinstance(view, Tokens) or weight is None or not attribute(node, "transB", 0):
        return None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return _layer(work, node, view, 1, weight, bias, 1)


def _layer(
    work: Work,
    node: ir.Node,
    view: Tokens,
    axis: int,
    weight: Array,
    bias: ir.Value | None,
    group: int,
) -> Views:
    """Weights (out, in) along one axis, which must hold all channels, in any order."""
    order, sizes = indices(view.groups[axis], "C"), _sizes(view)
    if order is None or len(order) != sizes[0] or weight.shape[1] * group != sizes[0]:
        return None
    if group > 1 and not np.array_equal(order, np.arange(len(order))):
        return None
    columns = np.zeros_like(weight)
    columns[:, order if group == 1 else slice(None)] = weight
    args = [work.scaled(view, node), work.const(node, "weight", columns[:, :, None, None])]
    twin = work.map(
        node, "Conv", *args, *([bias] if bias is not None else []),
        shape=(len(weight), *sizes[1:]),
        attributes={
            "kernel_shape": [1, 1], "strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1],
            "group": group,
        },
    )  # fmt: skip
    made: Group = of_map((len(weight),))[1]
    groups = tuple(made if i == axis else g for i, g in enumerate(view.groups))
    return [Tokens(groups, twin)]


def _batch_norm(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    view, arrays = _only(seen), [constant(v) for v in node.inputs[1:5]]
    if not isinstance(view, Tokens) or len(view.groups) < 2:
        return None
    order = indices(view.groups[1], "C")
    if order is None or len(order) != view.channels or any(a is None for a in arrays):
        return None
    inverse = np.argsort(order)
    args = [work.const(node, f"norm{i}", a[inverse]) for i, a in enumerate(arrays) if a is not None]
    twin = work.map(
        node, "BatchNormalization", work.scaled(view, node), *args, shape=_sizes(view),
        attributes=_attributes(node),
    )  # fmt: skip
    return [Tokens(view.groups, twin)]


def _mean(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    """The mean over all positions: a global pool, flattened."""
    view, axes = _only(seen), _reduced(node)
    if not isinstance(view, Tokens) or axes is None:
        return None
    rank = len(view.groups)
    gone = {a % rank for a in axes}
    if all(view.groups[a] == () for a in gone) and not attribute(node, "keepdims", 1):
        return [replace(view, groups=tuple(g for i, g in enumerate(view.groups) if i not in gone))]
    left = [g for i, g in enumerate(view.groups) if i not in gone and g]
    sizes = _sizes(view)
    positions = prod(d.size for a in gone for d in view.groups[a] if d.axis == "P")
    if left != [(BATCH,), *of_map(sizes[:1])[1:]] or positions != prod(sizes[1:]):
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
    return [Tokens(groups, pooled)]


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
    return [replace(whole, scale=1.0, twin=work.scaled(whole, node))]


_Rule = Callable[[Work, ir.Node, Sequence[View | None]], Views]
RULES: dict[str, _Rule] = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("Expand", "Tile", "Identity", "Dropout"), _repeat),
    "Transpose": _transpose,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    **dict.fromkeys(NEURONS, _neuron),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic),
    "OnGrid": _on_grid,
    "Conv": _conv,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "BatchNormalization": _batch_norm,
    **dict.fromkeys(("ReduceMean", "GlobalAveragePool"), _mean),
    "Einsum": _einsum,
}
