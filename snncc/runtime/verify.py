"""Do all engines fire the same spikes? The check behind ``snncc verify`` and every compile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from snncc.backends.engine import Activity, Progress
from snncc.backends.target import TARGETS, make_engine
from snncc.errors import UsageError
from snncc.ir.program import Program
from snncc.runtime.artifact import CompiledModel
from snncc.runtime.contract import by_timestep
from snncc.runtime.result import Coverage, Mismatch, coverage, mismatch

__all__ = ["EngineVerdict", "Verification", "verify"]

Array = npt.NDArray[Any]
_ENGINES = ("spike-form", "clocked", "event")


@dataclass
class EngineVerdict:
    """One engine against ``integer``.

    Attributes:
        populations: Compared.
        spikes: Fired by ``integer`` over all samples.
        elements: Counts and readouts compared.
        mismatched: Of them differ, summed over samples.
        worst: The populations and readouts that differ, in topological order.
    """

    populations: int = 0
    spikes: int = 0
    elements: int = 0
    mismatched: int = 0
    worst: dict[str, Mismatch] = field(default_factory=dict)

    def add(self, found: Sequence[Mismatch], spikes: int, offset: int) -> None:
        """Count one batch, whose first sample is number ``offset``."""
        self.populations = sum(m.kind == "counts" for m in found)
        self.spikes += spikes
        self.elements += sum(m.total for m in found)
        self.mismatched += sum(m.mismatched for m in found)
        for m in sorted(found, key=lambda m: m.kind != "spikes"):  # trains first: they say the tick
            if m.mismatched and m.name not in self.worst:
                self.worst[m.name] = _shifted(m, offset)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        head = {k: getattr(self, k) for k in ("populations", "spikes", "elements", "mismatched")}
        return {**head, "differences": [m.to_json() for m in self.worst.values()]}


@dataclass
class Verification:
    """All engines, and what the samples covered.

    Attributes:
        samples: Compared.
        stored: Differences of ``integer``, recomputed, from the vectors in the file.
        engines: By name.
        coverage: Which populations fired and which levels they reached.
    """

    samples: int
    stored: list[Mismatch]
    engines: dict[str, EngineVerdict]
    coverage: Coverage

    @property
    def mismatched(self) -> int:
        """Over all engines and the stored vectors."""
        live = sum(v.mismatched for v in self.engines.values())
        return live + sum(m.mismatched for m in self.stored)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "samples": self.samples,
            "mismatched": self.mismatched,
            "stored": [m.to_json() for m in self.stored if m.mismatched],
            "engines": {name: v.to_json() for name, v in self.engines.items()},
            "coverage": self.coverage.to_json(),
        }


def verify(
    model: CompiledModel,
    x: Array | None = None,
    engines: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Run ``integer`` anew, compare it with the stored vectors, then every engine with it.

    Counts and readouts are compared; of engines that have ticks also every spike train, with the
    thermometer of the count: spikes in the first ticks of the window.

    Args:
        model: Compiled or loaded.
        x: Integers of the source, uint8 (N, *shape), sequences (N, T, *shape); default: the stored
            samples.
        engines: To compare, by name; default: spike-form, clocked and event, as far as they can
            run the network.
        progress: Called with the number of samples done, per engine.

    Raises:
        UsageError: No such engine.
        TargetError: One of ``engines`` cannot run the network.
    """
    if engines is None:
        engines = [n for n in _ENGINES if not TARGETS[n].refusal(model.program)]
    shape = model.input.shape
    judge = make_engine("integer", model)
    others = {name: make_engine(name, model) for name in engines if name != "integer"}
    kept = model.reference
    stored = kept.compare(judge.run(by_timestep(kept.x, shape))) if kept else []
    samples = x if x is not None else kept.x if kept else None
    if samples is None:
        raise UsageError("the file holds no samples; give some with --input")
    verdicts = {name: EngineVerdict() for name in others}
    peaks: list[Activity] = []
    populations = [n.name for n in model.program.neurons]
    batch = _batch(model.program)
    for start in range(0, len(samples), batch):
        part = by_timestep(samples[start : start + batch], shape)
        expected = judge.run(part, batch=batch)
        peaks.append(_peaks(expected))
        spikes = sum(int(c.sum(dtype=np.int64)) for c in expected.counts.values())
        expected.spikes = _thermometers(expected, model.program)
        for name, engine in others.items():
            got = engine.run(part, probes=populations, batch=batch)
            verdicts[name].add(mismatch(expected, got), spikes, start)
            if progress is not None:
                progress(min(batch, len(samples) - start))
    covered = coverage(Activity.join(peaks) if peaks else Activity(), model.program)
    total = max((v.spikes for v in verdicts.values()), default=covered.spikes)
    covered = replace(covered, spikes=total, samples=len(samples))
    return Verification(len(samples), stored, verdicts, covered)


def _batch(program: Program) -> int:
    """Samples whose spike trains fit comfortably in memory."""
    trains = sum(prod(n.shape) * n.D for n in program.neurons) * program.timesteps
    return max(1, min(32, 2**25 // max(trains, 1)))


def _peaks(activity: Activity) -> Activity:
    """Enough for coverage: the largest count of each neuron over the batch."""
    return Activity(counts={k: c.max(axis=1, keepdims=True) for k, c in activity.counts.items()})


def _thermometers(activity: Activity, program: Program) -> dict[str, npt.NDArray[np.uint8]]:
    """Spike trains (T, D, N, ...) that the counts (T, N, ...) stand for."""
    trains = {}
    for neuron in program.neurons:
        counts = activity.counts[neuron.name]
        ticks = np.arange(neuron.D).reshape(-1, *(1,) * (counts.ndim - 1))
        trains[neuron.name] = (counts[:, None] > ticks).astype(np.uint8)
    return trains


def _shifted(found: Mismatch, offset: int) -> Mismatch:
    if found.first is None:
        return found
    return replace(found, first=replace(found.first, sample=found.first.sample + offset))
