"""A graph cut short: only what leads to one node."""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as common

from snncc.errors import Option, UsageError, Words
from snncc.ir.graphs import label
from snncc.ir.results import ALONE, write_results

__all__ = ["cut"]


def cut(model: ir.Model, until: str) -> ir.Model:
    """The graph up to a node or module: its last value becomes the result.

    Raises:
        UsageError: There is no such node; all there are, are named.
    """
    names = [label(node) for node in model.graph]
    found = [
        node
        for node in model.graph
        if label(node) == until or label(node).startswith(f"{until}.") or node.name == until
    ]
    if not found:
        told = f": no such node; there are {', '.join(dict.fromkeys(names))}"
        raise UsageError(Words(Option("until", until), told))
    model.graph.outputs[:] = [found[-1].outputs[0]]
    write_results(model, {ALONE: [0]})
    common.RemoveUnusedNodesPass()(model)
    return model
