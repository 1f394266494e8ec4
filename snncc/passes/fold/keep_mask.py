"""keep-mask: a network trained on patches runs on patches; the mask stays its second input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from snncc.ir.graphs import Edit, nodes, only_reader, replace_value
from snncc.ir.names import NEW
from snncc.passes.base import Pass
from snncc.passes.fold.sparse_to_vanilla_conv import vanilla_conv
from snncc.passes.reading import read_affine

__all__ = ["KeepMask"]


@dataclass(frozen=True)
class KeepMask(Pass):
    """SpikeSparseConv is a convolution and a mask; of a mask on both sides of a norm one stays.

    Convolution and batch norm stand together then, and fold as in the vanilla network; the mask
    is after both, so after the folded bias.
    """

    name: ClassVar[str] = "keep-mask"
    stage_in: ClassVar[str] = "imported"
    stage_out: ClassVar[str] = "imported"

    def run(self, model: ir.Model) -> int:
        """Split the convolutions, then drop masks that another one repeats."""
        count = sum(_split(node, self.name) for node in nodes(model, "SpikeSparseConv"))
        return count + sum(_drop_repeated(node) for node in nodes(model, "PatchMask"))


def _split(node: ir.Node, made_by: str) -> bool:
    out, mask = node.outputs[0], node.inputs[3]
    whole = vanilla_conv(node, made_by, f"{out.name}/whole")
    edit = Edit(node, made_by)
    replace_value(out, edit.own("PatchMask", whole, mask, name=f"{out.name}{NEW}", like=out))
    return True


def _drop_repeated(node: ir.Node) -> bool:
    """mask(affine(mask(y))) = mask(affine(y)); what lies between gets a new name, being new."""
    x, mask = node.inputs
    value, between = node.outputs[0], []
    reader = only_reader(value)
    while reader is not None and (found := read_affine(reader)) and found[0] is value:
        between.append(reader)
        value = reader.outputs[0]
        reader = only_reader(value)
    repeats = reader is not None and reader.op_type == "PatchMask" and reader.inputs[1] is mask
    if x is None or not repeats:
        return False
    for affine in between:
        affine.name = affine.outputs[0].name = f"{affine.outputs[0].name}/whole"
    replace_value(node.outputs[0], x, keep_name=False)
    return True
