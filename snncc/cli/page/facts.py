"""The Program's nodes with what is known of each: levels, weights, bounds, what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snncc.cli import tables
from snncc.errors import BadInputError
from snncc.program import Accumulator, Neuron, Node

if TYPE_CHECKING:
    from snncc.runtime.artifact import CompiledModel

__all__ = ["facts"]

_BINS = 64
_RANKS = 16  # levels of so many spikes are told; of more, evenly spaced ones
_SAME = ("module", "population", "shape", "D", "norm", "rounding")  # fields of the node as well


def facts(model: CompiledModel) -> list[dict[str, Any]]:
    """Every node of the Program: its own fields but for arrays, and by its kind.

    - neuron: ``levels``, and the row of ``inspect neurons``;
    - accumulator: ``bias``, ``projections`` (rows of ``inspect weights``, each with a
      ``histogram``), and the row of ``inspect bounds``.

    Raises:
        BadInputError: The report is not of this network.
    """
    told = {layer.population for layer in model.report.layers}
    if missing := [n.name for n in model.program.neurons if n.name not in told]:
        raise BadInputError(f"report.json says nothing of population '{missing[0]}'; compile again")
    stored, _ = model.program.to_json()
    more = _Rows(model)
    pairs = zip(stored["nodes"], model.program.nodes, strict=True)
    return [{**_plain_fields(fields), **more.of(node)} for fields, node in pairs]


def _plain_fields(fields: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in fields.items() if not isinstance(v, dict) and k != "projections"}


class _Rows:
    """Rows of the views of ``inspect``, by the node that they are about."""

    def __init__(self, model: CompiledModel) -> None:
        self.neurons = {row["population"]: row for row in tables.rows(model, "neurons")}
        self.bounds = {row["accumulator"]: row for row in tables.rows(model, "bounds")}
        self.weights = iter(tables.rows(model, "weights"))  # of accumulators, in their order

    def of(self, node: Node) -> dict[str, Any]:
        """What is known of a node beside its own fields; to be asked in the Program's order."""
        if isinstance(node, Neuron):
            row = self.neurons[node.name]
            known = {key: value for key, value in row.items() if key not in _SAME}
            return {**known, "D": node.D, "levels": _levels(node.levels)}
        if isinstance(node, Accumulator):
            return {
                **{k: v for k, v in self.bounds[node.name].items() if k != "accumulator"},
                "module": node.module,
                "bias": [int(node.bias.min()), int(node.bias.max())] if node.bias.size else [0, 0],
                "projections": [self._projection(p) for p in node.projections],
            }
        return {}

    def _projection(self, projection: Any) -> dict[str, Any]:
        row = next(self.weights)
        found = {"source": projection.source, **{k: v for k, v in row.items() if k != "module"}}
        if projection.weights:
            found["histogram"] = _histogram(projection.total())
        return found


def _levels(levels: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Of the k-th spike over channels: the lowest level, the median, the highest."""
    D = levels.shape[1]
    ranks = np.unique(np.linspace(0, D - 1, min(D, _RANKS)).round().astype(int))
    held = np.sort(levels[:, ranks], axis=0)
    return {
        "channels": len(levels),
        "spike": (ranks + 1).tolist(),
        "low": held[0].tolist(),
        "median": held[(len(held) - 1) // 2].tolist(),
        "high": held[-1].tolist(),
    }


def _histogram(weights: npt.NDArray[np.int64]) -> list[int]:
    """How many weights are in each of equally wide bins from the lowest to the highest."""
    low, high = int(weights.min()), int(weights.max())
    bins = min(_BINS, high - low + 1)
    place = (weights - low).astype(np.float64) * bins / (high - low + 1)
    counts = np.bincount(place.astype(np.int64).ravel().clip(max=bins - 1), minlength=bins)
    return [int(count) for count in counts]
