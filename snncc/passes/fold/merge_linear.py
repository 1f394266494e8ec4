"""merge-linear: between two neurons one linear layer is left.

Scales and shifts join the layer before or after them; two linear layers without a neuron between
become one where that is exact and wanted (see no_neuron_between), else the second reads the first
one's potential; an affine map with no layer to join becomes a 1x1 depthwise one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.exact import Exact
from snncc.ir.graphs import Edit, is_op, nodes, only_reader, replace_value, static_shape
from snncc.ir.names import NEW, SCALED
from snncc.ir.ops import having, traits
from snncc.passes.base import Pass
from snncc.passes.fold.no_neuron_between import (
    AUTO,
    POTENTIAL_BITS,
    Between,
    Cost,
    choose,
    cost_of_weights,
    left,
    reading_potentials,
    write_pairs,
)
from snncc.passes.padding import absorb_padding
from snncc.passes.reading import (
    Affine,
    Linear,
    absorb_affine_after,
    absorb_affine_before,
    convolve,
    fold_after,
    is_branch_sum,
    read_affine,
    read_linear,
    write_linear,
)
from snncc.passes.recognise.recognise_integer_fire import is_inside

__all__ = ["MergeLinear"]

_AFFINE = having("imported", lambda t: t.is_affine)
#: What an affine map may change places with.
_MOVERS = having("imported", lambda t: t.takes_maximum or t.averages or t.regroups)


@dataclass(frozen=True)
class MergeLinear(Pass):
    """Affine maps and chains of linear layers become single linear layers, where that is wanted.

    Attributes:
        form: ``merge``: always, and others are refused; ``graded``: never; ``auto``: where no other
            form is cheaper.
        bits: Of weights.
        room: Bits that potentials may have, with sign.
    """

    form: str = AUTO
    bits: int = 16
    room: int = POTENTIAL_BITS

    name: ClassVar[str] = "merge-linear"
    stage_in: ClassVar[str] = "imported"
    stage_out: ClassVar[str] = "imported"

    def run(self, model: ir.Model) -> int:
        """Repeat the rules until none applies."""
        total, merged = 0, list[Between]()
        while count := self._sweep(model, merged):
            total += count
        pairs = [*merged, *(self._left(linear) for linear in reading_potentials(model))]
        write_pairs(model, self.form, pairs)
        return total

    def _sweep(self, model: ir.Model, merged: list[Between]) -> int:
        count = 0
        for node in nodes(model, *_AFFINE, *_MOVERS):
            if is_op(node, *_MOVERS):
                count += _affine_ahead(node, self.name)
            elif not is_inside(node):  # of a rounding that recognise-integer-fire left
                count += any(rule(node, self.name) for rule in _AFFINE_RULES)
        for node in nodes(model, "Conv", "Gemm", "Add"):
            count += self._merge_pair(node, merged)
        if not count:
            count = sum(absorb_padding(node, self.name) for node in nodes(model, "Conv"))
        if not count:
            rest = [node for node in nodes(model, *_AFFINE) if not is_inside(node)]
            count = sum(_materialise(node, self.name) for node in rest)
        return count

    def _merge_pair(self, node: ir.Node, merged: list[Between]) -> bool:
        """First -> second, nobody else reading first: one layer, if that is the form to take."""
        second = read_linear(node.outputs[0])
        if second is None or (node.op_type != "Add" and _with_border(second.out) is not second.out):
            return False
        first = _read_alone(second)
        chosen = self._choice(first, second)
        if first is None or (chosen is not None and chosen.form == "graded"):
            return False
        if (made := _merge(first, second)) is None:
            return False
        merged += [chosen] if chosen is not None else []
        write_linear(made, self.name)
        return True

    def _choice(self, first: Linear | None, second: Linear) -> Between | None:
        """What becomes of both; None: they are merged without a choice, or are never."""
        whole = _merged_cost(first, second, self.bits) if first is not None else None
        if first is None or whole is None:
            return None
        return choose(first, second, whole, self.form, self.bits, self.room)

    def _left(self, second: Linear) -> Between:
        """What became of a layer that reads a potential."""
        return self._choice(_read_alone(second), second) or left(
            read_linear(second.x), second, self.bits
        )


def _read_alone(second: Linear) -> Linear | None:
    """The layer that a layer reads, if nobody else does."""
    if len(second.x.uses()) != 1 or second.x.is_graph_output():
        return None
    return read_linear(second.x)


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
    """The value after the bias map if ``value`` has one."""
    after = only_reader(value)
    if is_op(after, "Add") and after is not None and read_linear(after.outputs[0]) is not None:
        return after.outputs[0]
    return value


def _affine_ahead(node: ir.Node, made_by: str) -> bool:
    """An affine map of pooled potentials is moved to the pool's input, where a layer takes it."""
    out, source = node.outputs[0], node.inputs[0]
    after = only_reader(out)
    found = _affine_of(after) if after is not None and after.op_type in _AFFINE else None
    if found is None or after is None or source is None or not _is_potential(source):
        return False
    affine = _through(node, found[1], static_shape(out), static_shape(source))
    if affine is None or len(source.uses()) > 1:
        return False
    result = after.outputs[0]
    edit = Edit(node, made_by)
    moved = _scaled(edit, source, affine, f"{result.name}/ahead")
    attributes = {k: a.value for k, a in node.attributes.items()}
    pooled = edit.op(
        node.op_type, moved, *node.inputs[1:], name=f"{result.name}{NEW}", like=out,
        attributes=attributes,
    )  # fmt: skip
    replace_value(result, pooled)
    return True


def _affine_behind(node: ir.Node, made_by: str) -> bool:
    """An affine map of spikes or of the input is moved past pools and reshapes, to a layer."""
    found, reader = _affine_of(node), only_reader(node.outputs[0])
    if found is None or reader is None or not is_op(reader, *_MOVERS):
        return False
    (x, affine), result = found, reader.outputs[0]
    before, after = static_shape(x), static_shape(result)
    spread = _through(reader, affine, before, after)
    if spread is None or _is_potential(x):
        return False
    edit = Edit(reader, made_by)
    attributes = {k: a.value for k, a in reader.attributes.items()}
    moved = edit.op(
        reader.op_type, x, *reader.inputs[1:], name=f"{result.name}/plain", like=result,
        attributes=attributes,
    )  # fmt: skip
    replace_value(result, _scaled(edit, moved, spread, f"{result.name}{NEW}"))
    return True


def _affine_through_sum(node: ir.Node, made_by: str) -> bool:
    """S (a + b) + t = (s a + t) + s b, where layers take both."""
    found = _affine_of(node)
    total = found[0].producer() if found is not None else None
    if found is None or total is None or not _absorbs(found[0]):
        return False
    left, right = total.inputs
    if left is None or right is None or not is_branch_sum(total):
        return False
    affine, out, edit = found[1], node.outputs[0], Edit(total, made_by)
    first = _scaled(edit, left, affine, f"{out.name}/left")
    second = _scaled(edit, right, affine.unshifted, f"{out.name}/right")
    replace_value(out, edit.op("Add", first, second, name=f"{out.name}{NEW}", like=out))
    return True


def _affine_through_mask(node: ir.Node, made_by: str) -> bool:
    """S mask(y) + t = mask(S y) + t, where the layer takes S; t is there in masked patches, too."""
    found = _affine_of(node)
    masked = found[0].producer() if found is not None else None
    if found is None or masked is None or not is_op(masked, "PatchMask"):
        return False
    (x, affine), (y, mask), out = found, masked.inputs, node.outputs[0]
    if y is None or (affine.scale == 1).all() or not _absorbs(y) or only_reader(x) is None:
        return False
    edit = Edit(node, made_by)
    scaled = _scaled(edit, y, affine.unshifted, f"{out.name}{SCALED}")
    again = edit.own("PatchMask", scaled, mask, name=f"{out.name}/masked", like=out)
    shift = edit.const(f"{out.name}.shift", affine.shifts.moved(lambda v: v.reshape(-1, 1, 1)))
    replace_value(out, edit.op("Add", again, shift, name=f"{out.name}{NEW}", like=out))
    return True


def _absorbs(value: ir.Value | None) -> bool:
    """Whether a scale of ``value`` ends in layers that nobody else reads."""
    if value is None or only_reader(value) is None:
        return False
    node = value.producer()
    if node is not None and is_branch_sum(node):
        return all(_absorbs(v) for v in node.inputs)
    return read_linear(value) is not None


def _is_potential(value: ir.Value | None) -> bool:
    """Whether ``value`` is made of layers' results: added, scaled, pooled, regrouped."""
    node = value.producer() if value is not None else None
    if node is None or value is None or read_linear(value) is not None:
        return node is not None
    if traits(node).multiplies:
        return not traits(node).makes_counts
    if is_branch_sum(node):
        return all(_is_potential(v) for v in node.inputs)
    inner = read_affine(node)
    x = inner[0] if inner is not None else node.inputs[0]
    asked = traits(node)  # one that is affine by its name alone multiplies, or shifts, by elements
    keeps = asked.takes_maximum or (asked.keeps_grid and not asked.is_affine)
    return (inner is not None or keeps) and _is_potential(x)


def _through(
    node: ir.Node, affine: Affine, near: tuple[int, ...] | None, far: tuple[int, ...] | None
) -> Affine | None:
    """The map on the far side of a pool or reshape, where it commutes with that."""
    if traits(node).takes_maximum:
        return affine if (affine.scale > 0).all() else None
    if traits(node).averages:
        return None if any(node.attributes["pads"].value) and affine.shift.any() else affine
    return None if near is None or far is None else _regrouped(affine, near, far)


def _scaled(edit: Edit, x: ir.Value, affine: Affine, name: str) -> ir.Value:
    """``scale * x + shift`` as two nodes."""
    count, tail = (static_shape(x) or (1,))[0], (1,) * (len(x.shape or ()) - 2)
    scale, shift = (
        numbers.spread(count).moved(lambda v: v.reshape(-1, *tail))
        for numbers in (affine.scales, affine.shifts)
    )
    scaled = edit.op("Mul", x, edit.const(f"{name}.scale", scale), name=f"{name}/scale", like=x)
    return edit.op("Add", scaled, edit.const(f"{name}.shift", shift), name=name, like=x)


def _regrouped(affine: Affine, before: tuple[int, ...], after: tuple[int, ...]) -> Affine | None:
    """The map per channel of the new shape, if there is one."""
    tail, count = (1,) * (len(before) - 1), before[0]
    channels = np.broadcast_to(np.arange(count).reshape(-1, *tail), before).reshape(after[0], -1)
    both = [numbers.spread(count) for numbers in (affine.scales, affine.shifts)]
    if any(np.ptp(numbers.real[channels], axis=1).any() for numbers in both):
        return None
    return Affine(*(numbers.rows(channels[:, 0]) for numbers in both))


def _merge(first: Linear, second: Linear) -> Linear | None:
    """One layer that does both, or None where there is no exact one."""
    if first.kind == second.kind == "gemm":
        weights = _product(second, first, lambda two, one: two @ one)
        return _joined(replace(second, x=first.x), weights, _carried(second, first.bias))
    if first.kind != "conv" or second.kind != "conv":
        return None
    if second.pointwise and second.border is None:
        return _pointwise_last(first, second)
    if first.weights.values.shape[2:] == (1, 1) and first.strides == (1, 1):
        return _pointwise_first(first, second)
    return None


def _merged_cost(first: Linear, second: Linear, bits: int) -> Cost | None:
    """What ``_merge`` would make of both, or None where it makes nothing."""
    one, two = first.weights.values.shape, second.weights.values.shape
    size, is_mapped = static_shape(second.out) or (1,), first.border is not None
    if first.kind == second.kind == "gemm":
        return cost_of_weights((two[0], one[1]), size, bits, False)
    if first.kind != "conv" or second.kind != "conv":
        return None
    if second.pointwise and second.border is None:
        return cost_of_weights((two[0], one[1] * first.group, *one[2:]), size, bits, is_mapped)
    if one[2:] != (1, 1) or first.strides != (1, 1):
        return None
    is_mapped = second.border is not None or (second.padded and bool(first.bias.any()))
    if _is_depthwise(first):
        return cost_of_weights(two, size, bits, is_mapped)
    return cost_of_weights((two[0], one[1] * first.group, *two[2:]), size, bits, is_mapped)


def _is_depthwise(linear: Linear) -> bool:
    """Of one output for each channel."""
    return linear.group == len(linear.weights.values) and linear.weights.values.shape[1] == 1


def _product(second: Linear, first: Linear, combine: Callable[[Any, Any], Any]) -> Exact:
    """Weights of both layers, groups written out, by ``combine``; units stay with the rows."""
    two, one = (_written_out(linear) for linear in (second, first))
    inner = first.weights.row_units
    if len(set(inner)) > 1:
        column = np.array(inner, dtype=np.float64).reshape(-1, *(1,) * (one.ndim - 1))
        one, inner = one * column, [Fraction(1)]
    return Exact.in_rows(combine(two, one), [unit * inner[0] for unit in second.weights.row_units])


def _written_out(linear: Linear) -> npt.NDArray[np.float64]:
    if linear.kind == "conv":
        return linear.dense()
    return linear.weights.values.astype(np.float64)


def _carried(second: Linear, bias: npt.NDArray[np.float64]) -> Exact:
    """What a bias (C,) or map (C, H, W) before a pointwise layer is after it."""
    mix = _written_out(second)
    values = np.tensordot(mix.reshape(mix.shape[:2]), bias, axes=1)
    return Exact.in_rows(values, second.weights.row_units)


def _joined(linear: Linear, weights: Exact, more: Exact) -> Linear:
    """The layer with other weights and a further bias."""
    return replace(linear, weights=weights).biased(more)


def _pointwise_last(first: Linear, second: Linear) -> Linear:
    whole = replace(first, out=second.out, node=second.node)
    if second.group == len(second.weights.values) == len(first.weights.values):  # depthwise
        scales = second.weights.moved(lambda v: v.reshape(-1))
        own = absorb_affine_after(whole, Affine(scales, Exact(np.zeros(1))))
        return own.biased(second.biases)
    weights = _product(
        second, first, lambda two, one: np.einsum("om,mcyx->ocyx", two[:, :, 0, 0], one)
    )
    mixed = replace(whole, weights=weights, biases=second.biases, border=None, group=1)
    return mixed.biased(_carried(second, first.bias))


def _pointwise_first(first: Linear, second: Linear) -> Linear | None:
    """The first layer's bias is not there in the second's padding: a bias map says so.

    What the first layer pads itself is zeros to both: the padding of the one layer.
    """
    size = static_shape(second.x)
    if size is None:
        return None
    if _is_depthwise(first):
        scales = Affine(first.weights.moved(lambda v: v.reshape(-1)), Exact(np.zeros(1)))
        weights, group = absorb_affine_before(second, scales, size).weights, second.group
    else:
        weights = _product(
            second, first,
            lambda two, one: np.einsum("omyx,mc->ocyx", two, one[:, :, 0, 0], optimize=True),
        )  # fmt: skip
        group = 1
    top, left, bottom, right = (a + b for a, b in zip(first.pads, second.pads, strict=True))
    whole = replace(second, x=first.x, group=group, pads=(top, left, bottom, right))
    return _joined(whole, weights, _reached(first, second, size))


def _reached(first: Linear, second: Linear, size: tuple[int, ...]) -> Exact:
    """What the first layer's bias adds after the second."""
    tail = (1,) * (3 - first.bias.ndim)
    border = convolve(np.broadcast_to(first.bias.reshape(*first.bias.shape, *tail), size), second)
    uniform = not second.padded and first.bias.ndim == 1
    if uniform or not np.ptp(border.values, axis=(1, 2)).any():
        return border.moved(lambda v: v[:, 0, 0])
    return border


def _affine_apart(node: ir.Node, made_by: str) -> bool:
    """An affine map of spikes that several read is there once for each: layers take theirs.

    Else it were a layer of its own, and those that follow it had no neuron between.
    """
    found, out = _affine_of(node), node.outputs[0]
    readers = list(out.uses())
    if found is None or len(readers) < 2 or _is_potential(found[0]):
        return False
    edit, attributes = Edit(node, made_by), {k: a.value for k, a in node.attributes.items()}
    for i, (user, place) in enumerate(readers[1:]):
        name = f"{out.name}/apart{i}"
        own = edit.op(node.op_type, *node.inputs, name=name, like=out, attributes=attributes)
        user.replace_input_with(place, own)
    return True


_AFFINE_RULES = (
    fold_after,
    _fold_before,
    _affine_behind,
    _affine_through_sum,
    _affine_through_mask,
    _affine_apart,
)


def _materialise(node: ir.Node, made_by: str) -> bool:
    """An affine map of spikes becomes a layer of its own; of a potential, Mul and Add.

    What stays before neurons ends in their levels, exactly.
    """
    found = _affine_of(node)
    out = node.outputs[0]
    if found is None or (_is_potential(found[0]) and is_op(node, "Mul", "Add")):
        return False
    x, affine = found
    size = static_shape(x)
    if _is_potential(x):
        replace_value(out, _scaled(Edit(node, made_by), x, affine, f"{out.name}{NEW}"))
        return True
    if size is None or len(size) not in (1, 3):
        return False
    scales, shifts = (numbers.spread(size[0]) for numbers in (affine.scales, affine.shifts))
    if len(size) == 3:
        weights = scales.moved(lambda v: v.reshape(-1, 1, 1, 1))
        layer = Linear("conv", x, out, node, weights, shifts, group=size[0])
    else:
        units = None if scales.units is None else scales.units.reshape(-1, 1)
        layer = Linear("gemm", x, out, node, Exact(np.diag(scales.values), units), shifts)
    write_linear(layer, made_by)
    return True
