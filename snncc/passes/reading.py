"""Reading and writing linear layers: what all the folding passes have in common.

A linear layer is Conv or Gemm, with its bias (C) or, where zero padding meets an offset, a bias
map (C, H, W) that follows as an Add. Folding is done in float64 and rounded once; but a channel
whose weights lie on a grid (those of quantised files, fixed point) keeps them as they are, and what
multiplies them is an exact fraction, its unit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.exact import Exact, Steps, fraction_gcd, steps_of
from snncc.ir.graphs import Edit, attribute, constant, is_op, replace_value, static_shape
from snncc.ir.names import NEW
from snncc.ir.ops import traits
from snncc.ir.traits import Numbers

__all__ = [
    "Affine",
    "Linear",
    "absorb_affine_after",
    "absorb_affine_before",
    "convolve",
    "emit_linear",
    "fold_after",
    "has_identity",
    "holds_counts",
    "identity_layer",
    "is_branch_sum",
    "is_train",
    "linear_behind",
    "read_affine",
    "read_linear",
    "rename",
    "write_linear",
]

Array = npt.NDArray[np.float64]

#: Terms of a bias map are added exactly where they are so many of a common unit, at most: sums of
#: weights have up to 36 bits, and float64 holds 53.
_TERMS = 2**16


@dataclass(frozen=True)
class Linear:
    """A linear layer.

    Attributes:
        kind: ``conv`` or ``gemm``.
        x: Input value.
        out: Value that carries the result (after the bias map, if there is one).
        node: The Conv or Gemm.
        weights: (C_out, C_in/groups, kH, kW) or (F_out, F_in); a unit per row.
        biases: (C_out,).
        border: A further bias (C_out, H, W), or none; a unit per row. Channels off a grid have all
            their bias in it where there is one.
        strides, pads, dilations, group: Of a conv; pads are (top, left, bottom, right).
        payload: Of a layer that reads integers of a potential: the largest of them; its weights are
            those that they meet. Of one that reads counts or real numbers: None.
        steps_read: Bits of what is 1 in real numbers among these integers.
        usual: What these integers usually come to, about.
        drop: Lowest bits of the potential that are not among them.
    """

    kind: str
    x: ir.Value
    out: ir.Value
    node: ir.Node
    weights: Exact
    biases: Exact
    border: Exact | None = None
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    group: int = 1
    payload: int | None = None
    steps_read: int = 0
    usual: float = 0.0
    drop: int = 0

    @property
    def weight(self) -> Array:
        """The weights as float64."""
        return self.weights.real

    @property
    def bias(self) -> Array:
        """All bias as float64: (C_out,), or (C_out, H, W)."""
        if self.border is None:
            return self.biases.real
        return np.asarray(self.border.real + self.biases.real.reshape(-1, 1, 1))

    @cached_property
    def steps(self) -> Steps:
        """Channels whose weights lie on a grid of their own, and their integers."""
        return steps_of(self.weights.values)

    @property
    def pointwise(self) -> bool:
        """Whether each output position sees exactly one input position, unpadded."""
        if self.kind == "gemm":
            return True
        one = self.weights.values.shape[2:] == (1, 1)
        return one and not any(self.pads) and self.strides == (1, 1)

    @property
    def padded(self) -> bool:
        """Whether zeros are put around the input."""
        return any(self.pads)

    def dense(self) -> Array:
        """The weights without their units, groups written out: (C_out, C_in, kH, kW)."""
        weight = self.weights.values.astype(np.float64)
        if self.group == 1:
            return weight
        outs, ins = weight.shape[0] // self.group, weight.shape[1]
        full = np.zeros((weight.shape[0], ins * self.group, *weight.shape[2:]))
        for g in range(self.group):
            rows = slice(g * outs, (g + 1) * outs)
            full[rows, g * ins : (g + 1) * ins] = weight[rows]
        return full

    def scaled(self, factor: Fraction) -> Linear:
        """The layer of inputs that are multiplied by ``factor`` first."""
        factors = Exact.of_fractions([factor]).spread(len(self.weights.values))
        return replace(self, weights=_times(self.weights, factors, self.steps.found))

    def biased(self, more: Exact) -> Linear:
        """The layer with a further bias (C_out,), or map (C_out, H, W)."""
        on_grid = self.steps.found
        if more.values.ndim == 1 and self.border is None:
            return replace(self, biases=_sum(self.biases, more, on_grid))
        if more.values.ndim == 1:
            apart, joined = _sum(self.biases, more.only(on_grid), on_grid), more.only(~on_grid)
            return replace(self, biases=apart, border=_sum(self.border, joined, on_grid))
        border = _sum(self.border, more, on_grid)
        apart, joined = self.biases.only(on_grid), self.biases.only(~on_grid)
        return replace(self, biases=apart, border=_sum(border, joined, on_grid))


@dataclass(frozen=True)
class Affine:
    """y = scales * x + shifts per channel (axis 1), (C,) or (1,)."""

    scales: Exact
    shifts: Exact

    @property
    def scale(self) -> Array:
        """Scales as float64."""
        return self.scales.real

    @property
    def shift(self) -> Array:
        """Shifts as float64."""
        return self.shifts.real

    @property
    def unshifted(self) -> Affine:
        """The scales alone."""
        return Affine(self.scales, Exact(np.zeros_like(self.shift)))


def read_linear(out: ir.Value | None) -> Linear | None:
    """The linear layer whose result is ``out``, or None; weights must be constants."""
    node = out.producer() if out is not None else None
    if out is None or node is None:
        return None
    if node.op_type == "Add":
        return _with_map(node, out)
    if not is_op(node, "Conv", "Gemm"):
        return None
    weight = Exact.of(node.inputs[1])
    x = node.inputs[0]
    given = node.inputs[2] if len(node.inputs) > 2 else None
    bias = Exact.of(given)
    if weight is None or x is None or (given is not None and bias is None):
        return None
    if node.op_type == "Gemm" and not _is_by_features(node, bias):
        return None
    w = weight.by_row()
    b = Exact(np.zeros(len(w.values))) if bias is None else bias.spread(len(w.values))
    if node.op_type == "Gemm":
        return Linear("gemm", x, out, node, w, b)
    if w.values.ndim != 4:
        return None
    geometry: Any = {k: tuple(attribute(node, k)) for k in ("strides", "pads", "dilations")}
    return Linear("conv", x, out, node, w, b, group=attribute(node, "group", 1), **geometry)


def _is_by_features(node: ir.Node, bias: Exact | None) -> bool:
    """Whether a Gemm is x @ W.T + b: canonicalise leaves only those others that mix samples."""
    plain = {"transA": 0, "transB": 1, "alpha": 1.0, "beta": 1.0}
    given = {"transA": 0, "transB": 0, "alpha": 1.0, "beta": 1.0}
    is_plain = all(attribute(node, name, given[name]) == plain[name] for name in plain)
    return is_plain and (bias is None or bias.values.size in (*bias.values.shape[-1:], 1))


def _with_map(node: ir.Node, out: ir.Value) -> Linear | None:
    """Conv followed by the Add of a constant (1, C, H, W) map."""
    for inner, other in (node.inputs, reversed(node.inputs)):
        bias = Exact.of(other)
        if bias is None or inner is None or not is_op(inner.producer(), "Conv"):
            continue
        if len(inner.uses()) != 1 or bias.values.shape != (1, *(static_shape(inner) or ())):
            continue
        if (linear := read_linear(inner)) is not None:
            border = bias.moved(lambda array: array[0])
            whole = replace(linear, out=out)
            plain = not linear.biases.values.any()
            return replace(whole, border=border) if plain else whole.biased(border)
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
    weight = edit.const(f"{base}.weight", _stored(linear.weights, linear))
    args, mapped = [linear.x, weight], linear.border is not None
    if not mapped or linear.biases.values.any():
        args.append(edit.const(f"{base}.bias", _stored(linear.biases, linear)))
    inner, like = f"{base}/{edit.made_by}" if mapped else f"{base}{NEW}", linear.out
    if linear.kind == "gemm":
        attributes = {"transA": 0, "transB": 1, "alpha": 1.0, "beta": 1.0}
        return edit.op("Gemm", *args, name=inner, like=like, attributes=attributes)
    new = edit.op("Conv", *args, name=inner, like=like, attributes=_geometry(linear))
    if linear.border is None:
        return new
    border = _stored(linear.border, linear).moved(lambda array: array[None])
    return edit.op("Add", new, edit.const(f"{base}.border", border), name=f"{base}{NEW}", like=like)


def _stored(rows: Exact, linear: Linear) -> Exact:
    """Weights or biases as they are kept: exact in channels on a grid, else one float32 each."""
    found = linear.steps.found
    if not found.any():
        return Exact(rows.real.astype(np.float32))
    values, off = rows.values.astype(np.float64), np.flatnonzero(~found)
    values[off] = rows.real[off].astype(np.float32)
    units = [unit if on else Fraction(1) for unit, on in zip(rows.row_units, found, strict=True)]
    return Exact.in_rows(values, units)


def rename(value: ir.Value, name: str) -> None:
    """Give a value, and the node that makes it, another name."""
    value.name = name
    if (node := value.producer()) is not None:
        node.name = name


def _geometry(linear: Linear) -> dict[str, Any]:
    return {
        "kernel_shape": list(linear.weights.values.shape[2:]),
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
    x, c = (right, Exact.of(left)) if swapped else (left, Exact.of(right))
    if x is None or c is None or x.shape is None or (swapped and node.op_type in ("Div", "Sub")):
        return None
    vector = _per_channel(c, x)
    if vector is None:
        return None
    one, zero = Exact(np.ones(len(vector.values))), Exact(np.zeros(len(vector.values)))
    if node.op_type == "Mul":
        return x, Affine(vector, zero)
    if node.op_type == "Div":
        if not vector.values.all():
            return None
        return x, Affine(Exact.of_fractions(1 / v for v in vector.fractions()), zero)
    return x, Affine(one, vector if node.op_type == "Add" else Exact(-vector.values, vector.units))


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
    return x, Affine(Exact(scale), Exact(beta - mean * scale))


def _per_channel(numbers: Exact, x: ir.Value) -> Exact | None:
    """Numbers as (C,) or (1,), if all that meet a channel of ``x`` are equal; else None."""
    rank, sizes = len(x.shape or ()), static_shape(x)
    if numbers.values.size == 1:
        return numbers.spread(1)
    if sizes is None or numbers.values.ndim > rank:
        return None
    full = numbers.moved(lambda v: v.reshape(*(1,) * (rank - v.ndim), *v.shape))
    axes = zip(full.values.shape, (1, *sizes), strict=True)
    if any(n not in (1, size) for n, size in axes):
        return None  # there is more in the sum than in x
    rows = full.moved(lambda v: v.reshape(v.shape[1], -1))
    varies = rows.units is not None and rows.units.shape[1] > 1
    if varies or (rows.values != rows.values[:, :1]).any():
        return None
    return rows.moved(lambda v: v[:, 0])


# -- arithmetic of rows: exact in channels on a grid, float64 in others --------------------


def _times(rows: Exact, factors: Exact, on_grid: npt.NDArray[np.bool_]) -> Exact:
    """Each row times its factor (C,): into the unit of a channel on a grid."""
    floats = np.where(on_grid, 1.0, factors.real)
    values = rows.values * floats.reshape(-1, *(1,) * (rows.values.ndim - 1))
    if not on_grid.any():
        return Exact(values, rows.units)
    pairs = zip(rows.row_units, factors.fractions(), on_grid, strict=True)
    units = [unit * factor if on else unit for unit, factor, on in pairs]
    values[[unit == 0 for unit in units]] = 0.0
    return Exact.in_rows(values, [unit or Fraction(1) for unit in units])


def _sum(one: Exact | None, two: Exact, on_grid: npt.NDArray[np.bool_]) -> Exact:
    """The sum of two biases, each (C,) or (C, H, W); of one alone where there is no other."""
    if one is None or not two.values.any():
        return one or two
    rank = max(one.values.ndim, two.values.ndim)
    one, two = (a.moved(lambda v: v.reshape(*v.shape, *(1,) * (rank - v.ndim))) for a in (one, two))
    values, units = one.real + two.real, [Fraction(1)] * len(one.values)
    for c in np.flatnonzero(on_grid):
        terms = [(a.values[c].astype(np.float64), a.row_units[c]) for a in (one, two)]
        if (found := _common(terms)) is not None:
            values[c], units[c] = found
    return Exact.in_rows(values, units)


def _common(terms: list[tuple[Array, Fraction]]) -> tuple[Array, Fraction] | None:
    """The sum of arrays times fractions as one such product, or None where that is not exact."""
    if all(array.size == 1 for array, _ in terms):
        total = sum((Fraction(float(a.item())) * u for a, u in terms), Fraction(0))
        single, shape = float(np.float32(total)), terms[0][0].shape
        if np.isfinite(single) and Fraction(single) == total:
            return np.full(shape, single), Fraction(1)
        return np.ones(shape), total
    unit = fraction_gcd([u for a, u in terms if a.any()]) or Fraction(1)
    counts = [u / unit if a.any() else Fraction(0) for a, u in terms]
    if max(abs(count) for count in counts) > _TERMS:
        return None
    one, two = (array * float(count) for (array, _), count in zip(terms, counts, strict=True))
    added = np.asarray(one + two)
    is_exact = ((added - one == two) & (added - two == one)).all()
    return (added, unit) if is_exact else None


def absorb_affine_after(linear: Linear, affine: Affine) -> Linear:
    """The layer followed by ``affine`` as one layer; exact also after a bias map."""
    count, on_grid = len(linear.weights.values), linear.steps.found
    scales = affine.scales.spread(count)
    weights, biases = (_times(rows, scales, on_grid) for rows in (linear.weights, linear.biases))
    border = None if linear.border is None else _times(linear.border, scales, on_grid)
    scaled = replace(linear, weights=weights, biases=biases, border=border)
    return scaled.biased(affine.shifts.spread(count))


def absorb_affine_before(linear: Linear, affine: Affine, size: tuple[int, ...]) -> Linear:
    """``affine`` followed by the layer as one layer.

    Zeros are padded *after* the affine map, so with padding the shift reaches the border less:
    the bias becomes a map (C, H, W).

    Args:
        linear: The layer.
        affine: Per input channel, or per feature for a gemm.
        size: Input shape per sample.
    """
    weights = _scaled_inputs(linear, affine.scales.spread(size[0]))
    more = _reached(linear, affine.shifts.spread(size[0]), size)
    return replace(linear.biased(more) if more is not None else linear, weights=weights)


def _scaled_inputs(linear: Linear, scales: Exact) -> Exact:
    """The weights of inputs that are multiplied first, channel by channel."""
    if (same := _same(scales)) is not None:
        return linear.scaled(same).weights
    weights = linear.weights
    if linear.kind == "gemm":
        return Exact(weights.values * scales.real, weights.units)
    per_group = weights.values.shape[1]
    outs = weights.values.shape[0] // linear.group
    group = np.repeat(np.arange(linear.group), outs)
    columns = group[:, None] * per_group + np.arange(per_group)
    return Exact(weights.values * scales.real[columns][:, :, None, None], weights.units)


def _same(numbers: Exact) -> Fraction | None:
    """The one number that all are, if they are."""
    if np.ptp(numbers.real) != 0:
        return None
    few = numbers.rows(np.arange(1)) if numbers.units is None else numbers
    found = set(few.fractions())
    return found.pop() if len(found) == 1 else None


def _reached(linear: Linear, shifts: Exact, size: tuple[int, ...]) -> Exact | None:
    """What shifts of the inputs add after the layer, (C,) or a map; None: nothing."""
    if not shifts.values.any():
        return None
    image = np.broadcast_to(shifts.real.reshape(-1, *(1,) * (len(size) - 1)), size)
    found, same, on_grid = _response(linear, image), _same(shifts), linear.steps.found
    if same is not None and on_grid.any():  # then so often what the layer makes of ones
        ones = _response(linear, np.ones(size))
        exact = _times(ones, Exact.of_fractions([same]).spread(len(on_grid)), on_grid)
        rows = on_grid.reshape(-1, *(1,) * (found.values.ndim - 1))
        found = Exact(np.where(rows, exact.values, found.values), exact.units)
    if found.values.ndim == 1:
        return found
    uniform = not linear.padded or np.ptp(found.values, axis=(1, 2)).max(initial=0.0) == 0.0
    return found.moved(lambda array: array[:, 0, 0]) if uniform else found


def _response(linear: Linear, image: Array) -> Exact:
    """What the layer makes of one input (C, H, W) or (F,), without bias."""
    if linear.kind == "conv":
        return convolve(image, linear)
    found = linear.weights.values.astype(np.float64) @ image
    return Exact.in_rows(found, linear.weights.row_units)


def convolve(image: Array, linear: Linear) -> Exact:
    """The conv's weights over one (C, H, W) image with its padding, without bias: (C, H, W)."""
    top, left, bottom, right = linear.pads
    padded = np.pad(image, ((0, 0), (top, bottom), (left, right)))
    (dh, dw), (sh, sw) = linear.dilations, linear.strides
    kh, kw = linear.weights.values.shape[2:]
    span = (dh * (kh - 1) + 1, dw * (kw - 1) + 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, span, axis=(1, 2))
    taps = windows[:, ::sh, ::sw, ::dh, ::dw]
    found = np.asarray(np.einsum("chwyx,ocyx->ohw", taps, linear.dense(), optimize=True))
    return Exact.in_rows(found, linear.weights.row_units)


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


def holds_counts(value: ir.Value) -> bool:
    """Whether a value holds counts, of neurons or of the input, and no potential."""
    node = value.producer()
    if node is None or traits(node).emits in (Numbers.COUNTS, Numbers.SOURCE):
        return True
    read = node.inputs if traits(node).joins else node.inputs[:1]
    return traits(node).keeps_counts and all(x is not None and holds_counts(x) for x in read)


def is_train(value: ir.Value | None) -> bool:
    """Whether a value is what neurons or gates fire, or the maximum of that."""
    node = value.producer() if value is not None else None
    while node is not None and traits(node).takes_maximum:
        x = node.inputs[0]
        node = x.producer() if x is not None else None
    return node is not None and traits(node).makes_counts


#: An identity layer over features has as many weights as the square of them.
_MOST_FEATURES = 2048


def has_identity(size: tuple[int, ...]) -> bool:
    """Whether ``identity_layer`` is affordable: on maps, and on some thousand features."""
    return len(size) == 3 or (len(size) == 1 and size[0] <= _MOST_FEATURES)


def identity_layer(
    anchor: ir.Node,
    x: ir.Value,
    size: tuple[int, ...],
    made_by: str,
    scale: Fraction = Fraction(1),
    name: str | None = None,
) -> ir.Value:
    """A linear layer that multiplies each element by ``scale``: 1x1 depthwise, or diagonal."""
    edit, name = Edit(anchor, made_by), name or f"{anchor.name}/drive"
    pointwise = len(size) == 3
    values = np.ones((size[0], 1, 1, 1)) if pointwise else np.eye(size[0])
    weight = edit.const(f"{name}.weight", Exact.in_rows(values, [scale] * size[0]))
    if not pointwise:
        plain = {"transA": 0, "transB": 1, "alpha": 1.0, "beta": 1.0}
        return edit.op("Gemm", x, weight, name=name, like=x, attributes=plain)
    window = {"kernel_shape": [1, 1], "strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1]}
    return edit.op("Conv", x, weight, name=name, like=x, attributes={**window, "group": size[0]})
