"""A network that returns several results, compiled for some of them: ``--results A,B``."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir
import onnx_ir.passes.common as common

from snncc.errors import Option, UsageError, Words
from snncc.ir.results import results_of, write_results

__all__ = ["keep_results"]


def keep_results(model: ir.Model, names: Collection[str]) -> None:
    """Leave out all other results, and what leads to these alone; keep the order of ``names``.

    Raises:
        UsageError: The network has no such result.
    """
    places, outs = results_of(model), [*model.graph.outputs]
    if unknown := [name for name in names if name not in places]:
        told = f": no such result; the network returns {', '.join(places)}"
        raise UsageError(Words(Option("results", unknown[0]), told))
    kept = list(dict.fromkeys(place for name in names for place in places[name]))
    model.graph.outputs[:] = [outs[place] for place in kept]
    write_results(model, {n: [kept.index(place) for place in places[n]] for n in names})
    common.RemoveUnusedNodesPass()(model)
