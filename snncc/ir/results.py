"""The network's results: their names, and of which of the graph's outputs each is made.

A result is one output; or, where the host computes the network's end, the sum of what the host
makes of several. Two results may be one output.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from snncc.errors import BadInputError
from snncc.ir.metadata import RESULTS

__all__ = ["ALONE", "name_results", "places_of", "results_of", "write_results"]

#: The name of a result that is the only one.
ALONE = "output"


def results_of(model: ir.Model) -> dict[str, tuple[int, ...]]:
    """Name of each result -> places of its outputs; one that was not named is ``output``."""
    stored = model.metadata_props.get(RESULTS)
    return places_of(stored, len(model.graph.outputs))


def places_of(stored: str | None, outputs: int) -> dict[str, tuple[int, ...]]:
    """The results of a graph with so many outputs, as its metadata says.

    Raises:
        BadInputError: What is stored is no such thing.
    """
    if stored is None:
        return {ALONE: tuple(range(outputs))}
    try:
        found = {str(name): tuple(places) for name, places in json.loads(stored).items()}
    except (ValueError, TypeError, AttributeError) as e:
        raise BadInputError(f"graph: results are malformed: {e}") from e
    places = [place for own in found.values() for place in own]
    if any(type(place) is not int for place in places) or {*places} != {*range(outputs)}:
        raise BadInputError(f"graph: results {stored[:80]} are not its {outputs} outputs")
    return found


def write_results(model: ir.Model, places: Mapping[str, Sequence[int]]) -> None:
    """Keep them with the graph; not where there is only ``output``, which needs no words."""
    if [*places] == [ALONE]:
        model.metadata_props.pop(RESULTS, None)
    else:
        model.metadata_props[RESULTS] = json.dumps({k: list(v) for k, v in places.items()})


def name_results(model: ir.Model, names: Sequence[str]) -> None:
    """Give the outputs their names; those that are one value become one output."""
    outs: list[ir.Value] = []
    places = {}
    for name, out in zip(names, model.graph.outputs, strict=True):
        if out not in outs:
            outs.append(out)
        places[name] = [outs.index(out)]
    model.graph.outputs[:] = outs
    write_results(model, places)
