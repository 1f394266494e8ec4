"""One case from beginning to end: build, check that all outputs are equal, time by turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from snncc.backends.base import Activity, Engine
from snncc.backends.clocked.engine import ClockedEngine
from snncc.backends.engines import ENGINES, make_engine
from snncc.errors import Fault, SnnccError, UnsupportedModelError, VerificationError
from snncc.ir.fed import FedGraph
from snncc.program import Program
from versus.cases import Case
from versus.measure import Call, Times, by_turns
from versus.peers import EQUAL, INT8, Peer, peer
from versus.work import Work, dense_macs, weighted, work_of

__all__ = ["OURS", "Result", "Settings", "View", "infer_with", "run_case"]

Array = npt.NDArray[Any]

OURS = "snncc"
#: Samples on which our engine is compared with ``clocked``, and on which peers are with ours.
_CLOCKED, _COMPARED = 2, 4


@dataclass(frozen=True)
class Settings:
    """How it is measured.

    Attributes:
        engine: Ours, a name of ``ENGINES``.
        options: Of our engine.
        threads: Of everything.
        batch: Samples per call.
        seconds: Of measuring, per case.
    """

    engine: str = "event"
    options: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1
    batch: int = 1
    seconds: float = 4.0


@dataclass(frozen=True)
class Result:
    """What a case gave.

    Attributes:
        case: Which.
        title: The network's.
        work: What one sample costs.
        times: Name -> seconds per sample; ours is ``OURS``.
        peers: Name -> the peer that was timed.
        missing: Name -> why it was not.
        isa: Instruction set that our engine uses.
        by_event: Share of the work in layers that it computed event by event, if it says so.
    """

    case: Case
    title: str
    work: Work
    times: Mapping[str, Times]
    peers: Mapping[str, Peer]
    missing: Mapping[str, str]
    isa: str
    by_event: float | None

    @property
    def best_int8(self) -> str:
        """The fastest peer that gives the same integers in int8, if there is one."""
        found = [n for n in INT8 if n in self.peers and self.peers[n].outputs == EQUAL]
        return min(found, key=lambda name: self.times[name].median, default="")

    def ratios(self, least: bool = False) -> dict[str, float]:
        """Their time / ours, of medians or of the shortest times."""
        ours = self.times[OURS]
        return {
            name: round(t.least / ours.least if least else t.median / ours.median, 3)
            for name, t in self.times.items()
            if name != OURS
        }

    def summary(self) -> dict[str, float]:
        """``ratios`` of medians, and that of ``best_int8`` under this name."""
        found = self.ratios()
        return found | ({"best_int8": found[self.best_int8]} if self.best_int8 else {})

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "section": self.case.section,
            "key": self.case.key,
            "network": self.title,
            "work": asdict(self.work),
            "isa": self.isa,
            "by_event": self.by_event,
            "ms": {name: _milliseconds(t) for name, t in self.times.items()},
            "ratio": self.ratios(),
            "ratio_least": self.ratios(least=True),
            "form": {name: p.form for name, p in self.peers.items()},
            "best_int8": self._best_int8(),
            "outputs": {name: p.outputs for name, p in self.peers.items()},
            "missing": dict(self.missing),
        }

    def _best_int8(self) -> dict[str, Any] | None:
        name = self.best_int8
        if not name:
            return None
        ratio = self.ratios()[name]
        return {"peer": name, "form": self.peers[name].form, "ratio": ratio}


def _milliseconds(t: Times) -> dict[str, float]:
    return {"median": round(1e3 * t.median, 5), "least": round(1e3 * t.least, 5), "calls": t.calls}


@dataclass
class View:
    """A Program without graphs, as a backend sees it."""

    program: Program

    def fed(self, stage: str) -> FedGraph:
        """There is none.

        Raises:
            UnsupportedModelError: Always.
        """
        raise UnsupportedModelError(f"networks of the benchmark have no graph '{stage}'")


def run_case(case: Case, settings: Settings) -> Result:
    """Builds, checks and times a case.

    Raises:
        SnnccError: The network or our engine cannot be had, or our engine disagrees with clocked.
    """
    network = case.build()
    program, inputs = network.program, network.inputs
    engine = _engine(program, settings, settings.threads)
    activity = engine.run(inputs, batch=len(inputs))
    _check_with_clocked(program, inputs[:_CLOCKED], activity)
    calls: dict[str, Call] = {OURS: infer_with(engine)}
    _check_inference(infer_with(engine), inputs, activity)
    if settings.threads > 1:
        calls[f"{OURS}_1_thread"] = infer_with(_engine(program, settings, 1))
    peers, missing = _peers(case, program, inputs, activity, settings.threads)
    calls |= {name: p.run for name, p in peers.items()}
    times = by_turns(calls, _batches(inputs, settings.batch), settings.seconds)
    work = work_of(program, inputs, activity)
    isa = str(getattr(engine, "isa", "numpy"))
    share = _share_by_event(program, engine)
    return Result(case, network.title, work, times, peers, missing, isa, share)


def _engine(program: Program, settings: Settings, threads: int) -> Engine:
    options = dict(settings.options)
    if "threads" in ENGINES[settings.engine].options:
        options["threads"] = threads
    return make_engine(settings.engine, View(program), **options)


def infer_with(engine: Engine) -> Call:
    """Readouts alone."""
    return engine.infer


def _check_with_clocked(program: Program, x: Array, activity: Activity) -> None:
    """Counts of all populations and all readouts are those of the clocked engine."""
    reference = ClockedEngine(program).run(x)
    n = len(x)
    expected: dict[str, Array] = {**reference.counts, **reference.readouts}
    got: dict[str, Array] = {**activity.counts, **activity.readouts}
    wrong = [name for name in expected if not np.array_equal(expected[name], got[name][:, :n])]
    if wrong:
        faults = [Fault("differs from the clocked engine", node=name) for name in wrong]
        raise VerificationError(f"{program.name}: our engine is wrong", faults)


def _check_inference(infer: Call, x: Array, activity: Activity) -> None:
    got: Any = infer(x[:_COMPARED])
    for name, expected in activity.readouts.items():
        part = expected[:, :_COMPARED]
        if not np.array_equal(np.reshape(got[name], part.shape), part):
            raise VerificationError(f"readout '{name}' of the fast call differs from that of run")


def _share_by_event(program: Program, engine: Engine) -> float | None:
    """The share of dense multiply-adds in layers whose work was done event by event."""
    said = getattr(engine, "work", None)
    if said is None:
        return None
    macs = {(a.name, p.source): dense_macs(a, p) for a, p in weighted(program)}
    shares = {(w.accumulator, w.source): float(w.event_share) for w in said()}
    return sum(macs[at] * share for at, share in shares.items() if at in macs) / sum(macs.values())


def _peers(
    case: Case, program: Program, inputs: Array, activity: Activity, threads: int
) -> tuple[dict[str, Peer], dict[str, str]]:
    x = inputs[:_COMPARED]
    expected = [activity.readouts[r.name][0, :_COMPARED] for r in program.readouts]
    found, missing = {}, {}
    for name in case.peers:
        try:
            found[name] = peer(name, program, x, expected, threads)
        except SnnccError as e:
            missing[name] = " ".join(str(e).split())
    return found, missing


def _batches(inputs: Array, size: int) -> Sequence[Array]:
    """The samples in batches, repeated as often as needed, as contiguous arrays."""
    count = max(len(inputs) // size, 4)
    order = np.arange(count * size) % len(inputs)
    return [np.ascontiguousarray(inputs[order[i : i + size]]) for i in range(0, len(order), size)]
