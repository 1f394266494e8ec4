"""Reading and writing linear layers: what all the folding passes have in common.

A linear layer is Conv or Gemm, with its bias (C) or, where zero padding meets an offset, a bias
map (C, H, W) that follows as an Add. All folding is done in float64 and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.graphs import Edit, attribute, constant, is_op, replace_value, static_shape

__all__ = [
    "Affine",
    "Linear",
    "absorb_affine_after",
    "absorb_affine_before",
    "convolve",
    "emit_linear",
    "fold_after",
    "identity_layer",
    "is_branch_sum",
    "linear_behind",
    "read_affine",
    "read_linear",
    "write_linear",
]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Linear:
    """A linear layer, float64.

    Attributes:
        kind: ``conv`` or ``gemm``.
        x: Input value.
        out: Value that carries the result (behind the bias map, if there is one).
        node: The Conv or Gemm.
        weight: (C_out, C_in/groups, kH, kW) or (F_out, F_in).
        bias: (C_out,), or (C_out, H, W) as a map.
        strides, pads, dilations, group: Of a conv; pads are (top, left, bottom, right).
    """

    kind: str
    x: ir.Value
    out: ir.Value
    node: ir.Node
    weight: Array
    bias: Array
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    group: int = 1

    @property
    def pointwise(self) -> bool:
        """Whether each output position sees exactly one input position, unpadded."""
        if self.kind == "gemm":
            return True
        return self.weight.shape[2:] == (1, 1) and not any(self.pads) and self.strides == (1, 1)

    @property
    def padded(self) -> bool:
        """Whether zeros are put around the input."""
        return any(self.pads)

    def dense(self) -> Array:
        """The weights with groups written out: (C_out, C_in, kH, kW)."""
        if self.group == 1:
            return self.weight
        outs, ins = self.weight.shape[0] // self.group, self.weight.shape[1]
        full = np.zeros((self.weight.shape[0], ins * self.group, *self.weight.shape[2:]))
        for g in range(self.group):
            rows = slice(g * outs, (g + 1) * outs)
            full[rows, g * ins : (g + 1) * ins] = self.weight[rows]
        return full


@dataclass(frozen=True)
class Affine:
    """y = scale * x + shift per channel (axis 1), float64 (C,) or (1,)."""

    scale: Array
    shift: Array


def read_linear(out: ir.Value | None) -> Linear | None:
    """The linear layer whose result is ``out``, or None; weights must be constants."""
    node = out.producer() if out is not None else None
    if out is None or node is None:
        return None
    if node.op_type == "Add":
        return _with_map(node, out)
    if not is_op(node, "Conv", "Gemm"):
        return None
    weight = constant(node.inputs[1])
    x = node.inputs[0]
    given = node.inputs[2] if len(node.inputs) > 2 else None
    bias = constant(given)
    if weight is None or x is None or (given is not None and bias is None):
        return None
    w = weight.astype(np.float64)
    b = np.zeros(w.shape[0]) if bias is None else bias.astype(np.float64).reshape(-1)
    if node.op_type == "Gemm":
        return Linear("gemm", x, out, node, w, b)
    if w.ndim != 4:
        return None
    geometry = {k: tuple(attribute(node, k)) for k in ("strides", "pads", "dilations")}
    return Linear("conv", x, out, node, w, b, group=attribute(node, "group", 1), **geometry)


def _with_map(node: ir.Node, out: ir.Value) -> Linear | None:
    """Conv followed by the Add of a constant (1, C, H, W) map."""
    for inner, other in (node.inputs, reversed(node.inputs)):
        bias = constant(other)
        if bias is None or inner is None or not is_op(inner.producer(), "Conv"):
            continue
        if len(inner.uses()) != 1 or bias.shape != (1, *(static_shape(inner) or ())):
            continue
        if (linear := read_linear(inner)) is not None:
            total = bias[0].astype(np.float64) + linear.bias.reshape(-1, 1, 1)
            return replace(linear, out=out, bias=total)
    return None


def linear_behind(node: ir.Node) -> Linear | None:
    """The layer of a Conv or Gemm node, its bias map included."""
    out = node.outputs[0]
    for user, _ in out.uses():
        if user.op_type == "Add":
            found = read_linear(user.outputs[0])
            if found is not None and found.node is node:
                return found
    return read_linear(out)


def write_linear(linear: Linear, made_by: str, name: str | None = None) -> ir.Value:
    """Put the layer into the graph in place of the one it was read from; its new result.

    Args:
        linear: Its ``out`` names the value that is replaced.
        made_by: Name of the pass.
        name: New name of the result when its meaning changed.
    """
    base = name or str(linear.out.name)
    new = emit_linear(linear, Edit(linear.node, made_by), base)
    replace_value(linear.out, new)
    if name is not None:
        rename(new, name)
    return new


def emit_linear(linear: Linear, edit: Edit, base: str) -> ir.Value:
    """The layer as new nodes; its result, to be named ``base`` by the caller.

    Args:
        linear: Its ``out`` gives shape and dtype.
        edit: Where the nodes go.
        base: Stem of the names of weights and inner values.
    """
    weight = edit.const(f"{base}.weight", linear.weight.astype(np.float32))
    mapped = linear.bias.ndim == 3
    bias = None if mapped else edit.const(f"{base}.bias", linear.bias.astype(np.float32))
    args = (linear.x, weight) if bias is None else (linear.x, weight, bias)
    inner, like = f"{base}/{edit.made_by}" if mapped else f"{base}~new", linear.out
    if linear.kind == "gemm":
        attributes = {"transA": 0, "transB": 1, "alpha": 1.0, "beta": 1.0}
        return edit.op("Gemm", *args, name=inner, like=like, attributes=attributes)
    new = edit.op("Conv", *args, name=inner, like=like, attributes=_geometry(linear))
    if not mapped:
        return new
    border = edit.const(f"{base}.border", linear.bias[None].astype(np.float32))
    return edit.op("Add", new, border, name=f"{base}~new", like=like)


def rename(value: ir.Value, name: str) -> None:
    """Give a value, and the node that makes it, another name."""
    value.name = name
    if (node := value.producer()) is not None:
        node.name = name


def _geometry(linear: Linear) -> dict[str, Any]:
    return {
        "kernel_shape": list(linear.weight.shape[2:]),
        "strides": list(linear.strides),
        "pads": list(linear.pads),
        "dilations": list(linear.dilations),
        "group": linear.group,
    }


# -- affine maps ---------------------------------------------------------------------------


def read_affine(node: ir.Node) -> tuple[ir.Value, Affine] | None:
    """Input and map of a per-channel affine node: BatchNormalization, Mul, Div, Add, Sub."""
    if node.op_type == "BatchNormalization":
        return _read_batch_norm(node)
    if node.op_type not in ("Mul", "Div", "Add", "Sub") or len(node.inputs) != 2:
        return None
    left, right = node.inputs
    swapped = constant(right) is None
    x, c = (right, constant(left)) if swapped else (left, constant(right))
    if x is None or c is None or x.shape is None or (swapped and node.op_type in ("Div", "Sub")):
        return None
    vector = _per_channel(c, x)
    if vector is None:
        return None
    one, zero = np.ones_like(vector), np.zeros_like(vector)
    if node.op_type == "Mul":
        return x, Affine(vector, zero)
    if node.op_type == "Div":
        return (x, Affine(1.0 / vector, zero)) if (vector != 0).all() else None
    return x, Affine(one, vector if node.op_type == "Add" else -vector)


def _read_batch_norm(node: ir.Node) -> tuple[ir.Value, Affine] | None:
    x = node.inputs[0]
    found = [constant(v) for v in node.inputs[1:5]]
    if x is None or any(f is None for f in found) or attribute(node, "training_mode", 0):
        return None
    gamma, beta, mean, var = (np.asarray(f, dtype=np.float64) for f in found)
    spread = var + attribute(node, "epsilon", 1e-5)
    if not (spread > 0).all():
        return None
    scale = gamma / np.sqrt(spread)
    return x, Affine(scale, beta - mean * scale)


def _per_channel(array: npt.NDArray[Any], x: ir.Value) -> Array | None:
    """``array`` as (C,) or (1,) when it broadcasts along everything but axis 1 of ``x``."""
    if array.size == 1:
        return array.astype(np.float64).reshape(1)
    rank, sizes = len(x.shape or ()), static_shape(x)
    if sizes is None or array.ndim > rank or array.size != sizes[0]:
        return None
    full = (1,) * (rank - array.ndim) + array.shape
    return array.astype(np.float64).reshape(-1) if full[1] == sizes[0] else None


def absorb_affine_after(linear: Linear, affine: Affine) -> Linear:
    """The layer followed by ``affine`` as one layer; exact also behind a bias map."""
    scale = np.broadcast_to(affine.scale, linear.weight.shape[:1])
    tail = (1,) * (linear.bias.ndim - 1)
    weight = linear.weight * scale.reshape(-1, *(1,) * (linear.weight.ndim - 1))
    shift = np.broadcast_to(affine.shift, scale.shape)
    return replace(
        linear,
        weight=weight,
        bias=linear.bias * scale.reshape(-1, *tail) + shift.reshape(-1, *tail),
    )


def absorb_affine_before(linear: Linear, affine: Affine, size: tuple[int, ...]) -> Linear:
    """``affine`` followed by the layer as one layer.

    Zeros are padded *behind* the affine map, so with padding the shift reaches the border less:
    the bias becomes a map (C, H, W).

    Args:
        linear: The layer.
        affine: Per input channel, or per feature for a gemm.
        size: Input shape per sample.
    """
    scale = np.broadcast_to(affine.scale, size[:1])
    shift = np.broadcast_to(affine.shift, size[:1])
    if linear.kind == "gemm":
        return replace(
            linear, weight=linear.weight * scale, bias=linear.bias + linear.weight @ shift
        )
    per_group = linear.weight.shape[1]
    outs = linear.weight.shape[0] // linear.group
    group = np.repeat(np.arange(linear.group), outs)
    columns = group[:, None] * per_group + np.arange(per_group)
    weight = linear.weight * scale[columns][:, :, None, None]
    image = np.broadcast_to(shift[:, None, None], size)
    border = convolve(image, linear)
    if np.ptp(border, axis=(1, 2)).max(initial=0.0) == 0.0 or not linear.padded:
        border = border[:, 0, 0]
    tail = (1,) * (max(border.ndim, linear.bias.ndim) - 1)
    if border.ndim == 1 and linear.bias.ndim == 1:
        return replace(linear, weight=weight, bias=linear.bias + border)
    grow = [a.reshape(-1, *tail) if a.ndim == 1 else a for a in (linear.bias, border)]
    return replace(linear, weight=weight, bias=grow[0] + grow[1])


def convolve(image: Array, linear: Linear) -> Array:
    """The conv's weights over one (C, H, W) image with its padding, without bias, float64."""
    top, left, bottom, right = linear.pads
    padded = np.pad(image, ((0, 0), (top, bottom), (left, right)))
    (dh, dw), (sh, sw) = linear.dilations, linear.strides
    kh, kw = linear.weight.shape[2:]
    span = (dh * (kh - 1) + 1, dw * (kw - 1) + 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, span, axis=(1, 2))
    taps = windows[:, ::sh, ::sw, ::dh, ::dw]
    return np.asarray(np.einsum("chwyx,ocyx->ohw", taps, linear.dense(), optimize=True))


def fold_after(node: ir.Node, made_by: str) -> bool:
    """Fold an affine node into the linear layer it reads, if nobody else reads that."""
    if read_linear(node.outputs[0]) is not None or (found := read_affine(node)) is None:
        return False
    x, affine = found
    linear = read_linear(x)
    if linear is None or len(x.uses()) != 1 or x.is_graph_output():
        return False
    folded = absorb_affine_after(linear, affine)
    write_linear(replace(folded, out=node.outputs[0]), made_by)
    return True


def is_branch_sum(node: ir.Node) -> bool:
    """An Add of two live values: not a layer's bias map, not a shift."""
    return node.op_type == "Add" and all(constant(v) is None for v in node.inputs)


def identity_layer(
    anchor: ir.Node,
    x: ir.Value,
    size: tuple[int, ...],
    made_by: str,
    scale: float = 1.0,
    name: str | None = None,
) -> ir.Value:
    """A linear layer that multiplies each element by ``scale``: 1x1 depthwise, or diagonal."""
    edit, name = Edit(anchor, made_by), name or f"{anchor.name}/drive"
    if len(size) == 3:
        weight = np.full((size[0], 1, 1, 1), scale, dtype=np.float32)
        geometry = {
            "kernel_shape": [1, 1], "strides": [1, 1], "pads": [0, 0, 0, 0],
            "dilations": [1, 1], "group": size[0],
        }  # fmt: skip
        args = (x, edit.const(f"{name}.weight", weight))
        return edit.op("Conv", *args, name=name, like=x, attributes=geometry)
    weight = np.eye(size[0], dtype=np.float32) * np.float32(scale)
    geometry = {"transA": 0, "transB": 1, "alpha": 1.0, "beta": 1.0}
    args = (x, edit.const(f"{name}.weight", weight))
    return edit.op("Gemm", *args, name=name, like=x, attributes=geometry)
