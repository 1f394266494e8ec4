"""Do all engines fire the same spikes? The check behind ``snncc verify`` and every compile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from snncc.backends.base import Activity, Engine, Progress, thermometer
from snncc.backends.engines import make_engine, require_engine
from snncc.errors import Fault, Option, UsageError, VerificationError, Words
from snncc.program import Program, walk_projections
from snncc.runtime.artifact import CompiledModel
from snncc.runtime.contract import by_timestep
from snncc.runtime.result import Coverage, Mismatch, coverage, mismatch

__all__ = [
    "COMPARED",
    "EngineVerdict",
    "Verification",
    "affordable_samples",
    "batch_of",
    "require_agreement",
    "verify",
]

Array = npt.NDArray[Any]
#: What a network is compared on where nobody says more.
COMPARED = ("spike-form", "clocked", "event")
#: Dense multiply-adds, over all samples, that comparing whole networks may take by default; with D
#: ticks, on slow engines, half a minute or so on a core. And the most samples.
_WORK, _MOST = 2**35, 32

#: Samples, and elements of their spike trains, compared at once; more where an engine takes long
#: to start.
_FEW, _MANY = (32, 2**25), (1024, 2**27)


@dataclass
class EngineVerdict:
    """One engine against ``integer``.

    Attributes:
        populations: Compared.
        spikes: Fired by ``integer`` over all samples.
        elements: Counts and readouts compared.
        mismatched: Of them differ, summed over samples.
        worst: The populations and readouts that differ, in topological order.
        ran: What an engine that runs elsewhere says of its runs.
    """

    populations: int = 0
    spikes: int = 0
    elements: int = 0
    mismatched: int = 0
    worst: dict[str, Mismatch] = field(default_factory=dict)
    ran: dict[str, Any] | None = None

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
        ran = {"ran": self.ran} if self.ran else {}
        return {**head, **ran, "differences": [m.to_json() for m in self.worst.values()]}


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
    engines: Sequence[str] = COMPARED,
    progress: Progress | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Verification:
    """Run ``integer`` anew, compare it with the stored vectors, then every engine with it.

    Counts and readouts are compared; of engines that have ticks also every spike train, with the
    thermometer of the count: spikes in the first ticks of the window.

    Args:
        model: Compiled or loaded.
        x: Integers of the source, uint8 (N, *shape), sequences (N, T, *shape); default: the stored
            samples.
        engines: To compare, by name.
        progress: Called with the number of samples done, per engine.
        options: Of engines, by name.

    Raises:
        UsageError: No such engine.
        TargetError: One of ``engines`` cannot run the network.
        MissingDependencyError: An engine cannot run here.
    """
    others = _Engines(model, [n for n in engines if n != "integer"], options or {})
    batch = batch_of(model.program, others.start_slowly)
    judge, kept = make_engine("integer", model), model.reference
    stored = []
    if kept is not None:
        stored = kept.compare(judge.run(by_timestep(kept.x, model.input.shape), batch=batch))
    samples = x if x is not None else kept.x if kept else None
    if samples is None:
        raise UsageError(Words("the file holds no samples; give some with ", Option("x")))
    work = _Comparison(model, judge, others, progress or (lambda _: None))
    for start in range(0, len(samples), batch):
        work.add(samples[start : start + batch], start, is_last=start + batch >= len(samples))
    return Verification(len(samples), stored, work.verdicts, work.covered(len(samples)))


def affordable_samples(program: Program) -> int:
    """Samples on which a network is compared whole by default: 32, of large ones fewer, 1 at least.

    So many that they take 2^35 dense multiply-adds in all: 32 up to 1 G per sample, 4 up to 8 G.
    """
    pairs = walk_projections(program)
    macs = sum(prod(a.shape) * p.fan_in for a, p in pairs if p.weights)
    return max(1, min(_MOST, _WORK // max(macs * program.timesteps, 1)))


def batch_of(program: Program, many: bool = False) -> int:
    """Samples whose spike trains fit comfortably in memory; ``many`` if engines start slowly."""
    samples, elements = _MANY if many else _FEW
    trains = sum(prod(n.shape) * n.D for n in program.neurons) * program.timesteps
    return max(1, min(samples, elements // max(trains, 1)))


def require_agreement(verdict: Verification) -> None:
    """Nothing differs.

    Raises:
        VerificationError: Engines disagree: a fault of the compiler, never of the network.
    """
    faults = [
        Fault(f"{engine}: {m.mismatched} of {m.total} differ, first {m.first}", m.name, m.kind)
        for engine, found in verdict.engines.items()
        for m in found.worst.values()
    ]
    if verdict.mismatched:
        raise VerificationError(
            f"engines disagree in {verdict.mismatched} places; please report this network", faults
        )


class _Engines:
    """Engines by name, made when they are needed.

    After the last samples each goes before the next is made: those of a large network hold a copy
    of all its weights, each its own.
    """

    def __init__(
        self,
        model: CompiledModel,
        names: Sequence[str],
        options: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.model, self.options = model, {name: options.get(name, {}) for name in names}
        targets = [require_engine(name, model, given) for name, given in self.options.items()]
        self.start_slowly = any(target.starts_slowly for target in targets)
        self._made: dict[str, Engine] = {}

    def take(self, name: str, is_last: bool) -> Engine:
        """The engine, for the last time or not."""
        engine = self._made.pop(name, None)
        if engine is None:
            engine = make_engine(name, self.model, **self.options[name])
        if not is_last:
            self._made[name] = engine
        return engine


class _Comparison:
    """All engines against ``judge``, batch by batch."""

    def __init__(
        self, model: CompiledModel, judge: Engine, engines: _Engines, progress: Progress
    ) -> None:
        self.model, self.judge, self.engines, self.progress = model, judge, engines, progress
        self.verdicts = {name: EngineVerdict() for name in engines.options}
        self._peaks: list[Activity] = []
        self._spikes = 0

    def add(self, samples: Array, offset: int, is_last: bool) -> None:
        """Compare one batch, whose first sample is number ``offset``."""
        part = by_timestep(samples, self.model.input.shape)
        expected = self.judge.run(part, batch=len(samples))
        expected.spikes = _thermometers(expected, self.model.program)
        self._peaks.append(_peaks(expected))
        spikes = sum(int(c.sum(dtype=np.int64)) for c in expected.counts.values())
        self._spikes += spikes
        for name, verdict in self.verdicts.items():
            engine = self.engines.take(name, is_last)
            trains = engine.abilities.trains
            probes = list(expected.spikes) if trains else ()
            got = engine.run(part, probes=probes, batch=len(samples))
            verdict.add(mismatch(expected, got, trains), spikes, offset)
            verdict.ran = engine.run_report
            del engine, got  # before the next is made
            self.progress(len(samples))

    def covered(self, samples: int) -> Coverage:
        """What all the samples exercised."""
        peaks = Activity.join(self._peaks) if self._peaks else Activity()
        found = coverage(peaks, self.model.program)
        return replace(found, spikes=self._spikes, samples=samples)


def _peaks(activity: Activity) -> Activity:
    """Enough for coverage: the largest count of each neuron over the batch."""
    return Activity(counts={k: c.max(axis=1, keepdims=True) for k, c in activity.counts.items()})


def _thermometers(activity: Activity, program: Program) -> dict[str, npt.NDArray[np.uint8]]:
    """Spike trains (T, D, N, ...) that the counts (T, N, ...) stand for."""
    return {n.name: thermometer(activity.counts[n.name], n.D) for n in program.neurons}


def _shifted(found: Mismatch, offset: int) -> Mismatch:
    if found.first is None:
        return found
    return replace(found, first=replace(found.first, sample=found.first.sample + offset))
