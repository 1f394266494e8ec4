"""fold-scale: norms and the 1/N of averages end in weights; between layers only integers remain.

All scales are exact fractions: in layers they multiply the unit of each channel on a grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import ClassVar

import onnx_ir as ir

from snncc.errors import UnsupportedModelError
from snncc.ir.exact import Exact, unit_of
from snncc.ir.graphs import Edit, attribute, label, nodes, replace_value, static_shape
from snncc.ir.lineage import Lineage
from snncc.ir.metadata import NORM, OUTPUT_SCALES
from snncc.ir.names import COUNT, NEW, SUM, stem
from snncc.ir.ops import having, traits
from snncc.passes.base import Pass
from snncc.passes.reading import (
    holds_counts,
    identity_layer,
    linear_behind,
    read_linear,
    write_linear,
)

__all__ = ["FoldScale", "output_scales", "write_output_scales"]

_ONE = Fraction(1)
#: Real value of one unit of each value; of those not named, 1.
_Scales = dict[ir.Value, Fraction]


@dataclass(frozen=True)
class FoldScale(Pass):
    """After it every neuron has norm 1, every average is a sum, every layer reads integers."""

    name: ClassVar[str] = "fold-scale"
    stage_in: ClassVar[str] = "integer"
    stage_out: ClassVar[str] = "integer"

    def run(self, model: ir.Model) -> int:
        """Averages of potentials first, then forward along the spikes."""
        count = sum(_average_of_potential(n, self.name) for n in nodes(model, "AveragePool"))
        scales: _Scales = {}
        for node in nodes(model):
            count += _RULES.get(node.op_type, _pass_on)(node, scales, self.name)
        write_output_scales(model, [float(scales.get(out, 1)) for out in model.graph.outputs])
        _note_units(model, scales)
        return count


def _note_units(model: ir.Model, scales: _Scales) -> None:
    """Say of what each value of counts is the count, and how much a spike of it stands for."""
    lineage = Lineage.of(model)
    for value, scale in scales.items():
        base = stem(str(value.name))
        lineage.note(str(value.name), "times", base, factor=str(1 / scale))
    lineage.write(model)


def output_scales(model: ir.Model) -> list[float]:
    """Real value of one unit of each of the graph's outputs, in their order."""
    stored = model.metadata_props.get(OUTPUT_SCALES)
    return [*map(float, stored.split())] if stored else [1.0] * len(model.graph.outputs)


def write_output_scales(model: ir.Model, scales: Sequence[float]) -> None:
    """Keep them with the graph."""
    model.metadata_props[OUTPUT_SCALES] = " ".join(map(repr, scales))


def _average_of_potential(pool: ir.Node, made_by: str) -> int:
    """mean(v) = sum(v) * 1/N: the factor stays before the neuron and ends in its levels."""
    x, out = pool.inputs[0], pool.outputs[0]
    if x is None or holds_counts(x):
        return 0
    edit = Edit(pool, made_by)
    share = Exact.number(Fraction(1, prod(attribute(pool, "kernel_shape"))))
    total = _sum_pool(edit, pool, f"{out.name}{SUM}")
    factor = edit.const(f"{out.name}.share", share)
    replace_value(out, edit.op("Mul", total, factor, name=f"{out.name}{NEW}", like=out))
    return 1


def _sum_pool(edit: Edit, pool: ir.Node, name: str) -> ir.Value:
    attributes = {k: attribute(pool, k) for k in ("kernel_shape", "strides", "pads")}
    return edit.own(
        "SumPool", pool.inputs[0], name=name, like=pool.outputs[0], attributes=attributes
    )


def _average(node: ir.Node, scales: _Scales, made_by: str) -> int:
    x = node.inputs[0]
    scale = scales.get(x, _ONE) if x is not None else _ONE
    share = prod(attribute(node, "kernel_shape"))
    new = _sum_pool(Edit(node, made_by), node, f"{node.outputs[0].name}{SUM}")
    replace_value(node.outputs[0], new, keep_name=False)
    scales[new] = scale / share
    return 1


def _fire(node: ir.Node, scales: _Scales, made_by: str) -> int:
    x, out, changed = node.inputs[0], node.outputs[0], 0
    if x is not None and read_linear(x) is None and holds_counts(x):
        # pooled or repeated counts: one weight carries their scale, so that levels stay exact
        size = static_shape(x) or (1,)
        node.replace_input_with(0, identity_layer(node, x, size, made_by, scales.get(x, _ONE)))
        changed = 1
    unit = unit_of(node)
    if unit == 1:
        return changed
    settings = {k: a.value for k, a in node.attributes.items() if k != "unit"}
    attributes = {**settings, "norm": 1.0}
    name = f"{out.name}{COUNT}"
    new = Edit(node, made_by).own(
        node.op_type, node.inputs[0], name=name, like=out, attributes=attributes
    )
    replace_value(out, new, keep_name=False)
    new.name = name
    new.producer().metadata_props[NORM] = f"{settings['norm']:g}"  # type: ignore[union-attr]
    scales[new] = unit
    return 1


def _linear(node: ir.Node, scales: _Scales, made_by: str) -> int:
    linear = linear_behind(node)
    if linear is None:
        raise UnsupportedModelError(f"'{label(node)}' is not a layer with constant weights")
    scale = scales.get(linear.x, _ONE)
    if scale == 1:
        return 0
    write_linear(linear.scaled(scale), made_by)
    return 1


def _product(node: ir.Node, scales: _Scales, made_by: str) -> int:
    """The scales of trains multiply their product, all in one: potentials end in levels."""
    scale = prod((scales.get(x, _ONE) for x in node.inputs if x is not None), start=_ONE)
    if scale == 1:
        return 0
    out, edit = node.outputs[0], Edit(node, made_by)
    if traits(node).makes_counts:
        out.name = node.name = f"{out.name}{COUNT}"
        scales[out] = scale
        return 0
    attributes = {k: a.value for k, a in node.attributes.items()}
    name = f"{out.name}{COUNT}"
    counts = edit.own(node.op_type, *node.inputs, name=name, like=out, attributes=attributes)
    factor = edit.const(f"{out.name}.scale", Exact.number(scale))
    replace_value(out, edit.op("Mul", counts, factor, name=f"{out.name}{NEW}", like=out))
    return 1


def _pass_on(node: ir.Node, scales: _Scales, made_by: str) -> int:
    """Pools of maxima, reshapes and sums carry the scale; their values are counts now."""
    x = node.inputs[0] if node.inputs else None
    if not traits(node).keeps_counts or x is None or scales.get(x, _ONE) == 1:
        return 0
    out = node.outputs[0]
    out.name = node.name = f"{out.name}{COUNT}"
    scales[out] = scales[x]
    return 0


_RULES: dict[str, Callable[[ir.Node, _Scales, str], int]] = {
    **dict.fromkeys(having("integer", lambda t: t.fires), _fire),
    **dict.fromkeys(having("integer", lambda t: t.averages), _average),
    **dict.fromkeys(having("integer", lambda t: t.weighs), _linear),
    **dict.fromkeys(having("integer", lambda t: t.multiplies), _product),
}
