"""choose-bits: layers get 16 weight bits where 8 change most, until few activations change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.graphs import nodes
from snncc.ir.ops import having
from snncc.ir.oracle import evaluate, teacher_forced
from snncc.passes.base import Law, Pass
from snncc.passes.integers.fit_weights import Fit
from snncc.passes.integers.precision import Precision
from snncc.passes.integers.quantise_weights import QuantiseWeights
from snncc.passes.integers.shared_grids import shared_grids

__all__ = ["LOW", "ChooseBits"]

Array = npt.NDArray[Any]

#: One slice, where it is enough; two elsewhere.
LOW, _HIGH = 8, 16
_SAMPLES = 256


@dataclass(frozen=True)
class ChooseBits(Pass):
    """Measured teacher-forced, so that layers do not depend on each other.

    Layers that share a grid have the same bits. The layers of the result are judged by the class.

    Attributes:
        feeds: Inputs of the graph under all their names.
        fit: How weights will be rounded.
        goal: Share of activations (of classes) that may change.
    """

    feeds: Mapping[str, Array] = field(default_factory=dict, repr=False)
    fit: Fit | None = None
    goal: float = 1e-3

    name: ClassVar[str] = "choose-bits"
    stage_in: ClassVar[str] = "integer"
    stage_out: ClassVar[str] = "integer"
    law: ClassVar[Law] = Law.EXACT

    def run(self, model: ir.Model) -> int:
        """Write the bits into the model's metadata; how many grids got more."""
        few = {name: x[:_SAMPLES] for name, x in self.feeds.items()}
        low, high = (_Changes.of(model, few, bits, self.fit) for bits in (LOW, _HIGH))
        grids = shared_grids(model)
        owner = {neuron: _grid_of(neuron, grids) for neuron in low.counts}
        gains = [
            _sum(low.counts, owner, i) - _sum(high.counts, owner, i) for i in range(len(grids))
        ]
        left, raised = sum(low.counts.values()), set()
        for i in sorted(range(len(grids)), key=lambda i: -gains[i]):
            if left > self.goal * low.total and gains[i] > 0:
                raised.add(i)
                left -= gains[i]
        if low.classes > self.goal * low.samples:
            results = (_grid_of(out, grids) for out in model.graph.outputs)
            raised |= {grid for grid in results if grid is not None}
        names = [str(v.name) for i in sorted(raised) for v in grids[i]]
        Precision(LOW, dict.fromkeys(names, _HIGH)).write(model)
        return len(raised)


@dataclass(frozen=True)
class _Changes:
    """Changed activations by the potential that neurons read, and changed classes."""

    counts: dict[ir.Value, int]
    total: int
    classes: int
    samples: int

    @staticmethod
    def of(model: ir.Model, feeds: Mapping[str, Array], bits: int, fit: Fit | None) -> _Changes:
        """Every layer with ``bits``, fed with what the float network gives it."""
        forgetful = having("integer", lambda t: t.fires and not t.remembers)
        fires = [n for n in nodes(model, *forgetful) if n.inputs[0] is not None]
        names, outs = [str(n.outputs[0].name) for n in fires], _results(model)
        quantised = model.clone()
        QuantiseWeights(bits, fit).run(quantised)
        real = evaluate(model, feeds, list(dict.fromkeys([*names, *outs])))
        given = {name: real[name] for name in names}
        pairs = zip(outs, _results(quantised), strict=True)
        results = {after: real[before] for before, after in pairs if after not in given}
        # the results' own values are read by nobody; they only say that they are wanted
        wanted = given | {name: np.zeros_like(x) for name, x in results.items()}
        forced = teacher_forced(quantised, feeds, wanted)
        counts: dict[ir.Value, int] = {}
        for fire, name in zip(fires, names, strict=True):
            potential = fire.inputs[0]
            changed = int((given[name] != forced[name]).sum())
            if potential is not None:
                counts[potential] = counts.get(potential, 0) + changed
        classes = sum(_changed_classes(x, forced[name]) for name, x in results.items())
        return _Changes(counts, sum(v.size for v in given.values()), classes, len(real[outs[0]]))


def _results(model: ir.Model) -> list[str]:
    return [str(value.name) for value in model.graph.outputs]


def _changed_classes(one: Array, two: Array) -> int:
    flat = (v.reshape(len(v), -1).argmax(axis=1) for v in (one, two))
    return int(np.not_equal(*flat).sum())


def _sum(counts: Mapping[ir.Value, int], owner: Mapping[ir.Value, int | None], grid: int) -> int:
    return sum(count for value, count in counts.items() if owner[value] == grid)


def _grid_of(value: ir.Value, grids: list[list[ir.Value]]) -> int | None:
    """Which grid a potential is on: that of any layer that writes into it."""
    pending, seen = [value], set()
    while pending:
        at = pending.pop()
        found = next((i for i, grid in enumerate(grids) if at in grid), None)
        node = at.producer()
        if found is not None:
            return found
        if node is not None and at not in seen:
            pending += [v for v in node.inputs if v is not None]
        seen.add(at)
    return None
