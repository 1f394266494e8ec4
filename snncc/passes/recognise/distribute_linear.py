"""distribute-linear: a layer that reads a sum of spikes or a concatenation becomes a sum of layers.

W (a + b) = W a + W b, and W [a; b] = W_a a + W_b b, of spikes as of potentials. After this pass
layers read the spikes of a population or a gate, or a sum that recognise-sum has made; other
branches meet in potentials, and spikes that are added to a potential do so through an identity
layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.exact import Exact
from snncc.ir.graphs import Edit, attribute, nodes, remove_dead, replace_value, static_shape
from snncc.ir.lineage import Lineage
from snncc.ir.names import NEW
from snncc.ir.ops import having, traits
from snncc.passes.base import Pass
from snncc.passes.reading import (
    Linear,
    emit_linear,
    has_identity,
    identity_layer,
    is_branch_sum,
    linear_behind,
    read_affine,
    rename,
)
from snncc.passes.recognise.channel_moves import moved_channels

__all__ = ["DistributeLinear", "carries_spikes"]


@dataclass(frozen=True)
class DistributeLinear(Pass):
    """Sums are moved past averages and regrouping, concatenations past neurons, into layers."""

    name: ClassVar[str] = "distribute-linear"
    stage_in: ClassVar[str] = "imported"
    stage_out: ClassVar[str] = "imported"

    def run(self, model: ir.Model) -> int:
        """Repeat the rules until none applies."""
        total, lineage = 0, Lineage.of(model)
        while count := sum(_RULES[n.op_type](n, self.name, lineage) for n in nodes(model, *_RULES)):
            total += count
        lineage.write(model)
        return total


def _is_sum(node: ir.Node | None) -> bool:
    """Whether it adds two values number by number: one that is repeated is none of its own."""
    if node is None or not is_branch_sum(node):
        return False
    sizes = {static_shape(v) for v in node.inputs if v is not None}
    return len(sizes) == 1


def carries_spikes(value: ir.Value | None) -> bool:
    """Whether ``value`` is made of spike counts: of neurons, pooled, added, joined, regrouped."""
    pending, seen = [value], set()
    while pending:  # thousands may be added up: this is no recursion
        one = pending.pop()
        node = one.producer() if one is not None else None
        if node is None:
            return False
        asked = traits(node)
        if one in seen or asked.makes_counts:
            continue
        seen.add(one)
        if not asked.joins and not asked.keeps_counts:
            return False
        pending += node.inputs if asked.joins else node.inputs[:1]
    return True


def _joined(value: ir.Value | None) -> ir.Node | None:
    """The concatenation along channels that makes ``value``."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Concat" or value is None:
        return None
    axis = attribute(node, "axis") % len(value.shape or (1,))
    return node if axis == 1 else None


def _move_concat(node: ir.Node, made_by: str, lineage: Lineage) -> bool:
    """op(concat(a, b)) = concat(op(a), op(b)) for what works on each channel, and flattening."""
    place = next((i for i, x in enumerate(node.inputs) if _joined(x) is not None), 0)
    concat, out = _joined(node.inputs[place]), node.outputs[0]
    if concat is None or (traits(node).regroups and len(static_shape(out) or ()) != 1):
        return False
    read = [part for part in concat.inputs if part is not None]
    sizes = [(static_shape(part) or (1,))[0] for part in read]
    ends = np.cumsum(sizes).tolist()
    given = [_constants(node, place, end - n, end) for n, end in zip(sizes, ends, strict=True)]
    parts = [
        _apply(node, part, i, made_by, place, others)
        for i, (part, others) in enumerate(zip(read, given, strict=True))
        if others is not None
    ]
    if len(parts) < len(read):
        return False
    start = 0
    for part in parts:  # along axis 1 one follows the other, flattened or not
        width = (static_shape(part) or (1,))[0]
        kept = list(range(start, start + width))
        lineage.note(str(part.name), "channels", str(out.name), kept=kept)
        start += width
    new = Edit(node, made_by).op(
        "Concat", *parts, name=f"{out.name}{NEW}", like=out, attributes={"axis": 1}
    )
    replace_value(out, new)
    return True


def _move_sum(node: ir.Node, made_by: str) -> bool:
    """op(a + b) = op(a) + op(b) for averages and regrouping; not for maxima."""
    x, out, asked = node.inputs[0], node.outputs[0], traits(node)
    total = x.producer() if x is not None else None
    if total is None or not _is_sum(total) or not carries_spikes(x):
        return False
    if not (asked.averages or asked.sums or asked.regroups):
        return False
    edit, attributes = Edit(node, made_by), {k: a.value for k, a in node.attributes.items()}
    parts = [
        edit.op(
            node.op_type, v, *node.inputs[1:], name=f"{out.name}/{i}", like=out,
            domain=node.domain, attributes=attributes,
        )
        for i, v in enumerate(total.inputs)
    ]  # fmt: skip
    replace_value(out, edit.op("Add", *parts, name=f"{out.name}{NEW}", like=out))
    return True


def _move(node: ir.Node, made_by: str, lineage: Lineage) -> bool:
    return _move_concat(node, made_by, lineage) or _move_sum(node, made_by)


def _drive_sum(node: ir.Node, made_by: str) -> bool:
    """A neuron over a sum of spikes: an identity layer for each, added."""
    x = node.inputs[0]
    total = x.producer() if x is not None else None
    if total is None or not _is_sum(total) or not carries_spikes(x):
        return False
    drives = [
        identity_layer(node, v, static_shape(v) or (1,), made_by, name=f"{node.name}/drive{i}")
        for i, v in enumerate(total.inputs)
        if v is not None
    ]
    name = f"{node.name}/drive"
    node.replace_input_with(0, Edit(node, made_by).op("Add", *drives, name=name, like=x))
    remove_dead(total)  # else a sum that nobody reads is left, which has no spiking form
    return True


def _shortcut(node: ir.Node, made_by: str, _: Lineage) -> bool:
    """Spikes added to a potential, as by a ResNet's shortcut: they get an identity layer."""
    if not _is_sum(node):
        return False
    spikes = [carries_spikes(v) for v in node.inputs]
    at = spikes.index(True) if True in spikes else 0
    x, potential = node.inputs[at], node.inputs[1 - at]
    size = static_shape(x) if x is not None else None
    if all(spikes) or not any(spikes) or not size or potential is None:
        return False
    if x is None or potential.producer() is None or not has_identity(size):
        return False
    name = f"{node.name}/shortcut"
    node.replace_input_with(at, identity_layer(node, x, size, made_by, name=name))
    return True


def _norm_shared(node: ir.Node, made_by: str) -> bool:
    """A neuron with memory whose norm has no layer of its own to join: it gets one.

    Levels of the potential itself may be shifted, a membrane may not.
    """
    if not traits(node).remembers:
        return False
    shifts, reader, x = False, node, node.inputs[0]
    while x is not None and (maker := x.producer()) is not None:
        is_alone = len(x.uses()) == 1
        if is_alone and traits(maker).weighs:
            return False
        if not is_alone or (found := read_affine(maker)) is None:
            break
        x, affine = found
        shifts, reader = shifts or bool(affine.shifts.values.any()), maker
    size = static_shape(x) if x is not None else None
    if x is None or not shifts or not size or not has_identity(size) or carries_spikes(x):
        return False
    place = list(reader.inputs).index(x)
    layer = identity_layer(reader, x, size, made_by, name=f"{reader.name}/alone")
    reader.replace_input_with(place, layer)
    return True


def _fire(node: ir.Node, made_by: str, lineage: Lineage) -> bool:
    x = node.inputs[0]
    places = moved_channels(x) if x is not None else None
    if x is not None and places is not None and _picked(node, 0, x, places, made_by):
        return True
    moved = _move_concat(node, made_by, lineage) or _drive_sum(node, made_by)
    return moved or _norm_shared(node, made_by)


def _constants(node: ir.Node, place: int, start: int, end: int) -> list[Exact] | None:
    """What a node reads besides, for some channels; None: something else than constants."""
    if traits(node).regroups:
        return []
    found, rank = [], len(node.outputs[0].shape or ())
    for i, value in enumerate(node.inputs):
        if i == place or value is None:
            continue
        numbers = Exact.of(value)
        if numbers is None:
            return None
        at = 0 if node.op_type == "BatchNormalization" else 1 - rank + numbers.values.ndim
        found.append(numbers.moved(partial(_some, start=start, end=end, axis=at)))
    return found


def _some(array: npt.NDArray[Any], start: int, end: int, axis: int) -> npt.NDArray[Any]:
    """Some of its channels; all of an array that has the same for each."""
    is_same = axis < 0 or array.shape[axis] == 1
    return array if is_same else array.take(range(start, end), axis)


def _apply(
    node: ir.Node, part: ir.Value, index: int, made_by: str, place: int, others: list[Exact]
) -> ir.Value:
    out, edit = node.outputs[0], Edit(node, made_by)
    name, before, after = f"{out.name}/{index}", static_shape(part) or (1,), static_shape(out)
    attributes = {k: a.value for k, a in node.attributes.items()}
    batch = out.shape[0] if out.shape is not None else None
    if traits(node).regroups:
        size = (int(np.prod(before)),)
        target = edit.const(f"{name}.shape", np.array([-1, *size], dtype=np.int64))
        return edit.op("Reshape", part, target, name=name, dtype=out.dtype, shape=[batch, *size])
    read = [edit.const(f"{name}.{i}", numbers) for i, numbers in enumerate(others)]
    read.insert(place, part)
    return edit.op(
        node.op_type, *read, name=name, dtype=out.dtype, domain=node.domain,
        shape=[batch, before[0], *(after or ())[1:]], attributes=attributes,
    )  # fmt: skip


def _spread_layer(node: ir.Node, made_by: str, _: Lineage) -> bool:
    """A layer over a sum of spikes or a concatenation: one layer each, added."""
    linear = linear_behind(node)
    source = linear.x.producer() if linear is not None else None
    if linear is None or source is None:
        return False
    if (moved := moved_channels(linear.x)) is not None:
        parts = _from_sources(linear, moved)
    elif _is_sum(source) and carries_spikes(linear.x):
        parts = [replace(linear, x=v) for v in source.inputs if v is not None]
    elif _joined(linear.x) is not None and linear.group == 1:
        parts = _split(linear, source)
    elif _joined(linear.x) is not None:
        parts = _from_sources(linear, _joined_channels(source))
    else:
        return False
    _write_sum(linear, parts, made_by)
    remove_dead(source)
    return True


def _joined_channels(concat: ir.Node) -> list[tuple[ir.Value, int]]:
    """Of each channel of a concatenation the part that it is of, and its place there."""
    parts = [(v, (static_shape(v) or (1,))[0]) for v in concat.inputs if v is not None]
    return [(value, place) for value, width in parts for place in range(width)]


def _from_sources(linear: Linear, moved: list[tuple[ir.Value, int]]) -> list[Linear]:
    """The layer over each value that channels of its input come from; others' weights are 0."""
    dense = linear.dense() if linear.kind == "conv" else linear.weights.values.astype(np.float64)
    parts = []
    for source in dict.fromkeys(value for value, _ in moved):
        width = (static_shape(source) or (1,))[0]
        columns = np.zeros((len(dense), width, *dense.shape[2:]))
        for i, (value, place) in enumerate(moved):
            if value is source:
                columns[:, place] += dense[:, i]  # a channel may be there twice
        weights = Exact.in_rows(columns, linear.weights.row_units)
        parts.append(replace(linear, x=source, weights=weights, group=1))
    return parts


def _select(node: ir.Node, made_by: str, _: Lineage) -> bool:
    """A sum that reads moved channels: a layer that picks them, where they are spikes."""
    for index, x in enumerate(node.inputs):
        moved = moved_channels(x) if x is not None and is_branch_sum(node) else None
        if x is not None and moved is not None and _picked(node, index, x, moved, made_by):
            return True
    return False


def _picked(
    node: ir.Node, index: int, x: ir.Value, moved: list[tuple[ir.Value, int]], made_by: str
) -> bool:
    """A 1x1 layer of ones in front of a reader of moved spikes; others stay as they are."""
    size, sources = static_shape(x) or (1,), [*dict.fromkeys(value for value, _ in moved)]
    if len(size) != 3 or not all(carries_spikes(value) for value in sources):
        return False
    layer = identity_layer(node, x, size, made_by, name=f"{node.name}/picked{index}")
    node.replace_input_with(index, layer)
    return True


def _split(linear: Linear, concat: ir.Node) -> list[Linear]:
    """The layer's columns for each part of its input."""
    found, start = [], 0
    for part in concat.inputs:
        if part is None:
            continue
        width = (static_shape(part) or (1,))[0]
        end = start + width
        columns = Exact(linear.weights.values[:, start:end], linear.weights.units)
        found.append(replace(linear, x=part, weights=columns))
        start = end
    return found


def _write_sum(linear: Linear, parts: list[Linear], made_by: str) -> None:
    """Only the first part keeps the bias: it enters once."""
    out, edit = linear.out, Edit(linear.node, made_by)
    nothing = Exact(np.zeros(len(linear.weights.values)))
    total: ir.Value | None = None
    for i, part in enumerate(parts):
        layer = part if i == 0 else replace(part, biases=nothing)
        made = emit_linear(layer, edit, f"{out.name}/{i}")
        rename(made, f"{out.name}/{i}")
        total = (
            made
            if total is None
            else edit.op("Add", total, made, name=f"{out.name}/sum{i}", like=out)
        )
    if total is not None:
        replace_value(out, total)


def _add(node: ir.Node, made_by: str, lineage: Lineage) -> bool:
    if _select(node, made_by, lineage):
        return True
    return _move_concat(node, made_by, lineage) or _shortcut(node, made_by, lineage)


_RULES: dict[str, Callable[[ir.Node, str, Lineage], bool]] = {
    **dict.fromkeys(having("imported", lambda t: t.is_affine), _move_concat),
    "Add": _add,
    **dict.fromkeys(having("imported", lambda t: t.pools or t.regroups), _move),
    **dict.fromkeys(having("imported", lambda t: t.fires), _fire),
    **dict.fromkeys(having("imported", lambda t: t.weighs), _spread_layer),
}
