"""fold-padding: a border of BN(0) after a batch norm is a border of zeros before it.

RepConv pads so: 1x1 convolution, batch norm, border of BN(0), depthwise convolution. A 1x1
convolution without bias makes zeros of zeros, so its own padding is all that is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.graphs import Edit, constant, replace_value
from snncc.passes.base import Pass
from snncc.passes.padding import Padding, emit_padding, paddings
from snncc.passes.reading import emit_linear, read_affine, read_linear, rename

__all__ = ["FoldPadding"]

Array = npt.NDArray[np.float64]

#: The network computed BN(0) in float32: so far off may it be, relative to its terms.
_ROUNDING = 2.0**-21


@dataclass(frozen=True)
class FoldPadding(Pass):
    """A border that affine maps make of zeros is put in front of them, as zeros."""

    name: ClassVar[str] = "fold-padding"
    stage_in: ClassVar[str] = "imported"
    stage_out: ClassVar[str] = "imported"

    def run(self, model: ir.Model) -> int:
        """Move every such border that a convolution reads."""
        return sum(_move_ahead(padding, self.name) for padding in paddings(model))


def _move_ahead(padding: Padding, made_by: str) -> bool:
    maps = _maps_of_zero(padding)
    if not maps:
        return False
    edit, name = Edit(maps[0], made_by), padding.out.name
    value = _padded(edit, _read(maps[0]), padding, f"{name}/zeros")
    for i, node in enumerate(maps):
        args = [value if v is _read(node) else v for v in node.inputs]
        attributes = {k: a.value for k, a in node.attributes.items()}
        value = edit.op(
            node.op_type, *args, name=f"{name}/map{i}", like=padding.out, attributes=attributes
        )
    replace_value(padding.out, value)
    return True


def _maps_of_zero(padding: Padding) -> list[ir.Node]:
    """The affine maps, in order, that make the border's values of zero; none if none do."""
    maps: list[ir.Node] = []
    x, shape = padding.x, padding.values.shape
    scale, shift, size = np.ones(shape), np.zeros(shape), np.zeros(shape)
    while (node := x.producer()) is not None and (found := read_affine(node)) is not None:
        x, affine = found
        maps.insert(0, node)
        shift = shift + scale * affine.shift
        size = size + np.abs(scale) * _terms(node, affine.shift)
        scale = scale * affine.scale
        if (np.abs(padding.values - shift) <= _ROUNDING * size).all():
            return maps
    return []


def _terms(node: ir.Node, shift: Array) -> Array:
    """Sum of the magnitudes that the shift was computed from."""
    if node.op_type != "BatchNormalization":
        return np.abs(shift)
    beta = np.asarray(constant(node.inputs[2]), dtype=np.float64)
    return np.asarray(np.abs(beta) + np.abs(beta - shift))


def _read(node: ir.Node) -> ir.Value:
    found = read_affine(node)
    if found is None:
        raise ValueError(f"{node.name} is no affine map")
    return found[0]


def _padded(edit: Edit, x: ir.Value, padding: Padding, name: str) -> ir.Value:
    """Zeros around ``x``; a 1x1 convolution without bias pads by itself."""
    linear = read_linear(x)
    if linear is None or linear.kind != "conv" or not linear.pointwise or linear.bias.any():
        return emit_padding(edit, x, padding.pads, name)
    own = replace(linear, out=padding.out, pads=padding.pads)
    made = emit_linear(own, edit, name)
    rename(made, name)
    return made
