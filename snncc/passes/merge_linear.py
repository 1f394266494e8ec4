"""merge-linear: between two neurons one linear layer is left.

Scales and shifts join the layer before or behind them; two linear layers without a neuron between
become one where that is exact; an affine map with no layer to join becomes a 1x1 depthwise one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from snncc.ir.graphs import Edit, is_op, nodes, only_reader, replace_value, static_shape
from snncc.passes.base import Pass
from snncc.passes.linear import (
    Affine,
    Linear,
    absorb_affine_before,
    convolve,
    fold_after,
    read_affine,
    read_linear,
    write_linear,
)

__all__ = ["MergeLinear"]

_AFFINE = ("BatchNormalization", "Mul", "Div", "Add", "Sub")


@dataclass(frozen=True)
class MergeLinear(Pass):
    """Affine maps and chains of linear layers become single linear layers."""

    name: ClassVar[str] = "merge-linear"
    stage_in: ClassVar[str] = "imported"
    stage_out: ClassVar[str] = "imported"

    def run(self, model: ir.Model) -> int:
        """Repeat the rules until none applies."""
        total = 0
        while count := self._sweep(model):
            total += count
        return total

    def _sweep(self, model: ir.Model) -> int:
        count = 0
        for node in nodes(model, *_AFFINE, "AveragePool"):
            if node.op_type == "AveragePool":
                count += _affine_ahead_of_pool(node, self.name)
            else:
                count += fold_after(node, self.name) or _fold_before(node, self.name)
        for node in nodes(model, "Conv", "Gemm", "Add"):
            count += _merge_pair(node, self.name)
        if not count:
            count = sum(_materialise(node, self.name) for node in nodes(model, *_AFFINE))
        return count


def _affine_of(node: ir.Node) -> tuple[ir.Value, Affine] | None:
    """The affine map of a node, unless it is a layer's own bias map."""
    return None if read_linear(node.outputs[0]) is not None else read_affine(node)


def _fold_before(node: ir.Node, made_by: str) -> bool:
    """An affine map whose readers are all linear layers joins them (borders stay exact)."""
    found = _affine_of(node)
    out = node.outputs[0]
    readers = [user for user, _ in out.uses()]
    if found is None or not readers or out.is_graph_output():
        return False
    x, affine = found
    size = static_shape(x)
    layers = [_layer_reading(user, out) for user in readers]
    if size is None or any(layer is None for layer in layers):
        return False
    for layer in layers:
        if layer is not None:
            joined = absorb_affine_before(replace(layer, x=x), affine, size)
            write_linear(joined, made_by)
    return True


def _layer_reading(user: ir.Node, value: ir.Value) -> Linear | None:
    if not is_op(user, "Conv", "Gemm") or user.inputs[0] is not value:
        return None
    return read_linear(_with_border(user.outputs[0]))


def _with_border(value: ir.Value) -> ir.Value:
    """The value behind the bias map if ``value`` has one."""
    after = only_reader(value)
    if is_op(after, "Add") and after is not None and read_linear(after.outputs[0]) is not None:
        return after.outputs[0]
    return value


def _affine_ahead_of_pool(pool: ir.Node, made_by: str) -> bool:
    """Average pooling without padding commutes with an affine map: the map goes ahead."""
    out = pool.outputs[0]
    behind = only_reader(out)
    if any(pool.attributes["pads"].value) or behind is None:
        return False
    found = _affine_of(behind) if behind.op_type in _AFFINE else None
    source = pool.inputs[0]
    if found is None or source is None or read_linear(source) is None or len(source.uses()) > 1:
        return False
    name, result = str(behind.outputs[0].name), behind.outputs[0]
    _, affine = found
    edit = Edit(pool, made_by)
    channels = (static_shape(source) or (1,))[0]
    scale = np.broadcast_to(affine.scale, (channels,)).reshape(-1, 1, 1)
    shift = np.broadcast_to(affine.shift, (channels,)).reshape(-1, 1, 1)
    scaled = edit.op(
        "Mul", source, edit.const(f"{name}.scale", scale.astype(np.float32)),
        name=f"{name}/scale", like=source,
    )  # fmt: skip
    moved = edit.op(
        "Add", scaled, edit.const(f"{name}.shift", shift.astype(np.float32)),
        name=f"{name}/shift", like=source,
    )  # fmt: skip
    attributes = {k: a.value for k, a in pool.attributes.items()}
    pooled = edit.op("AveragePool", moved, name=f"{name}~new", like=out, attributes=attributes)
    replace_value(result, pooled)
    return True


def _merge_pair(node: ir.Node, made_by: str) -> bool:
    """First -> second, nobody else reading first: one layer."""
    second = read_linear(node.outputs[0])
    if second is None or (node.op_type != "Add" and _with_border(second.out) is not second.out):
        return False
    first = read_linear(second.x)
    if first is None or len(second.x.uses()) != 1 or second.x.is_graph_output():
        return False
    merged = _merge(first, second)
    if merged is None:
        return False
    write_linear(merged, made_by)
    return True


def _merge(first: Linear, second: Linear) -> Linear | None:
    """One layer that does both, or None where there is no exact one."""
    if first.kind == second.kind == "gemm":
        bias = second.weight @ first.bias + second.bias
        return replace(second, x=first.x, weight=second.weight @ first.weight, bias=bias)
    if first.kind != "conv" or second.kind != "conv":
        return None
    if second.pointwise and second.bias.ndim == 1:
        return _pointwise_last(first, second)
    if first.pointwise and first.bias.ndim == 1:
        return _pointwise_first(first, second)
    return None


def _pointwise_last(first: Linear, second: Linear) -> Linear:
    mix = second.dense()[:, :, 0, 0]
    depthwise = second.group == second.weight.shape[0] == first.weight.shape[0]
    if depthwise:
        weight = first.weight * second.weight.reshape(-1, 1, 1, 1)
        group = first.group
    else:
        weight, group = np.einsum("om,mcyx->ocyx", mix, first.dense()), 1
    bias = np.tensordot(mix, first.bias, axes=1)
    bias += second.bias.reshape(-1, *(1,) * (bias.ndim - 1))
    return replace(first, out=second.out, node=second.node, weight=weight, bias=bias, group=group)


def _pointwise_first(first: Linear, second: Linear) -> Linear | None:
    """The first layer's bias is not there in the second's padding: a bias map says so."""
    size = static_shape(second.x)
    if size is None:
        return None
    mix = first.dense()[:, :, 0, 0]
    depthwise = first.group == first.weight.shape[0]
    if depthwise:
        joined = absorb_affine_before(second, Affine(np.diag(mix).copy(), first.bias), size)
        return replace(joined, x=first.x)
    weight = np.einsum("omyx,mc->ocyx", second.dense(), mix)
    image = np.broadcast_to(first.bias[:, None, None], size)
    border = convolve(image, second)
    bias = border + (second.bias if second.bias.ndim == 3 else second.bias[:, None, None])
    if not second.padded and second.bias.ndim == 1:
        bias = bias[:, 0, 0]
    return replace(second, x=first.x, weight=weight, bias=bias, group=1)


def _materialise(node: ir.Node, made_by: str) -> bool:
    """An affine map between neurons, pools or ports becomes a layer of its own."""
    found = _affine_of(node)
    out = node.outputs[0]
    if found is None:
        return False
    x, affine = found
    size = static_shape(x)
    if size is None or len(size) not in (1, 3):
        return False
    scale = np.broadcast_to(affine.scale, size[:1])
    shift = np.broadcast_to(affine.shift, size[:1]).copy()
    if len(size) == 3:
        weight = scale.reshape(-1, 1, 1, 1).copy()
        layer = Linear("conv", x, out, node, weight, shift, group=size[0])
    else:
        layer = Linear("gemm", x, out, node, np.diag(scale), shift)
    write_linear(layer, made_by)
    return True
