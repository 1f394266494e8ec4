"""sparse-to-vanilla-conv: a network trained on patches runs on whole images.

SpikeSparseConv has the weights of the convolution it becomes. Under a mask of ones, which is what
a whole image is, nothing changes. To run it under other masks as well, see keep-mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from snncc.ir.graphs import Edit, attribute, nodes, replace_value, static_shape
from snncc.ir.names import NEW
from snncc.passes.base import Feeds, Pass

__all__ = ["SparseToVanillaConv", "vanilla_conv"]


@dataclass(frozen=True)
class SparseToVanillaConv(Pass):
    """Masks go, and the input they came from."""

    name: ClassVar[str] = "sparse-to-vanilla-conv"
    stage_in: ClassVar[str] = "imported"
    stage_out: ClassVar[str] = "imported"

    def inputs(self, model: ir.Model, feeds: Feeds) -> Feeds:
        """A whole image is one whose mask is all ones; after the pass there is no mask."""
        size = len(next(iter(feeds.values())))
        masks = [v for v in model.graph.inputs[1:] if v.name not in feeds]
        ones = {str(v.name): np.ones((size, *(static_shape(v) or ())), np.float32) for v in masks}
        return {**feeds, **ones}

    def run(self, model: ir.Model) -> int:
        """Drop every mask."""
        count = 0
        for node in nodes(model, *_RULES):
            count += _RULES[node.op_type](node, self.name)
        if count:
            _drop_inputs(model)
            common.ShapeInferencePass(check_type=False, strict_mode=False)(model)
        return count


def vanilla_conv(node: ir.Node, made_by: str, name: str) -> ir.Value:
    """The convolution of a SpikeSparseConv, without its mask."""
    x, weight, bias, _ = node.inputs
    geometry = {key: attribute(node, key) for key in ("strides", "pads", "dilations", "group")}
    return Edit(node, made_by).op(
        "Conv", x, weight, bias, name=name, like=node.outputs[0], attributes=geometry
    )


def _vanilla(node: ir.Node, made_by: str) -> bool:
    out = node.outputs[0]
    replace_value(out, vanilla_conv(node, made_by, f"{out.name}{NEW}"))
    return True


def _plain(node: ir.Node, made_by: str) -> bool:
    out, x = node.outputs[0], node.inputs[0]
    if x is None:
        return False
    alone = x.producer() is not None and len(x.uses()) == 1 and not x.is_graph_output()
    if out.is_graph_output() and not alone:
        x, alone = Edit(node, made_by).op("Identity", x, name=f"{out.name}{NEW}", like=out), True
    replace_value(out, x, keep_name=alone)
    return True


def _drop_inputs(model: ir.Model) -> None:
    """Inputs after the first that nothing reads any more; the first has the batch's size too."""
    common.RemoveUnusedNodesPass()(model)
    first, *others = model.graph.inputs
    for value in others:
        for user, index in list(value.uses()):
            if user.op_type == "Shape" and attribute(user, "end") == 1:
                user.replace_input_with(index, first)
    model.graph.inputs[:] = [first, *(v for v in others if v.uses() or v.is_graph_output())]


_RULES: dict[str, Callable[[ir.Node, str], bool]] = {
    "SpikeSparseConv": _vanilla,
    "PatchMask": _plain,
}
