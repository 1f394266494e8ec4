"""The Lava engine: emits a Program once, and runs samples through it in a worker."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import replace
from math import prod
from typing import Any, ClassVar

from snncc.backends.base import Abilities, Activity, Batch, Engine, PerProcess, Wanted
from snncc.backends.lava import emit
from snncc.backends.lava.interpreter import find_python
from snncc.backends.lava.kinds.base import FEWER_WEIGHT_BITS
from snncc.backends.lava.limits import unsupported
from snncc.backends.lava.worker import EXECUTORS, TIMEOUT, Ran, run
from snncc.backends.processors import processors
from snncc.errors import Option, TargetError, UsageError, Words
from snncc.program import Array, Program
from snncc.system.temporary import TemporaryFolder

__all__ = ["MOST_PROCESSES", "LavaEngine", "refusal"]

#: Above it Lava's runtime, an operating system process for each, is slow and takes much memory.
MOST_PROCESSES = 60

#: What makes the compiler keep to the bits of Lava's processes.
_FOR_IT = Option("target", "loihi2")
_CHUNK = 1 << 28  # bytes that a run gives back


def refusal(program: Program) -> str:
    """Why Lava's processes cannot take a Program, and how to compile it for them; or nothing."""
    faults = unsupported(program)
    if not faults:
        return ""
    others = [fault for fault in faults if fault.todo != FEWER_WEIGHT_BITS]
    if not others:
        told = "takes 8-bit weights and 24-bit potentials, so compile the network again with "
        return Words(told, _FOR_IT)
    first = replace(others[0], todo="")
    more = (", and with ", _FOR_IT) if len(others) < len(faults) else ()
    return Words(f"cannot take {first}; ", others[0].todo, *more)


class LavaEngine(Engine):
    """Runs a Program on Lava, in a Python 3.10 of its own.

    It may be used from several threads at a time: as many runs as there are processors have workers
    at a time, further ones wait.

    Args:
        program: A valid Program.
        executor: ``lava``: Lava's runtime; ``direct``: the same process models one after the other,
            in one thread. Default: ``lava`` up to ``MOST_PROCESSES`` processes.
        python: An interpreter with Lava; default: see ``find_python``.
        timeout: Seconds that a run may take; default: ``TIMEOUT``.

    Raises:
        TargetError: The Program does not fit Lava's processes.
        MissingDependencyError: No Python with Lava is found; with what to type.
        UsageError: No such executor, or a time that is not positive.
    """

    name: ClassVar[str] = "lava"
    abilities: ClassVar[Abilities] = Abilities(potentials=False, clock=True)

    def __init__(
        self,
        program: Program,
        executor: str | None = None,
        python: str | None = None,
        timeout: float | None = None,
    ) -> None:
        if executor is not None and executor not in EXECUTORS:
            raise UsageError(f"lava: no executor '{executor}'; there are {', '.join(EXECUTORS)}")
        if timeout is not None and not timeout > 0:
            raise UsageError(f"lava: a time limit of {timeout} s is not positive")
        if why := refusal(program):
            raise TargetError(Words("engine 'lava' ", why), unsupported(program))
        self.program = program
        self.timeout = TIMEOUT if timeout is None else timeout
        self.python = find_python(python)
        self._folder = TemporaryFolder("lava")
        #: The emitted network; it goes when the engine goes.
        self.directory = self._folder.path
        emit.write(program, self.directory, name=program.name)
        #: How many Lava processes the network is.
        self.processes = emit.processes(self.directory)
        self.is_chosen = executor is not None
        self.executor = executor or ("lava" if self.processes <= MOST_PROCESSES else "direct")
        self._ran: list[dict[str, Any]] = []
        self._workers: PerProcess[int, threading.Semaphore] = PerProcess()

    @property
    def run_report(self) -> dict[str, Any]:
        """Executor and why, processes, samples, ticks, seconds: see Engine."""
        why = "given" if self.is_chosen else "default"
        if not self.is_chosen and self.executor == "direct":
            why = f"default above {MOST_PROCESSES} processes"
        sums = {
            key: sum(report[key] for report in self._ran)
            for key in ("samples", "ticks", "startup_s", "run_s", "wall_s")
        }
        return {"executor": self.executor, "why": why, "processes": self.processes, **sums}

    def _together(self, batch: int, samples: int, wanted: Wanted) -> int:
        """As many as results can be read of at once: samples follow each other, see Engine."""
        bursts = [n.D if wanted.probes else 1 for n in self.program.neurons]
        sizes = [prod(n.shape) * d for n, d in zip(self.program.neurons, bursts, strict=True)]
        return max(1, _CHUNK // max(1, self.program.timesteps * sum(sizes)))

    def _activity(self, batch: Batch, wanted: Wanted) -> Activity:
        """See Engine."""
        kind = ("trains" if wanted.probes else "counts") if wanted.counts else "readouts"
        with self._workers.get(processors(), threading.Semaphore):
            ran = run(self.directory, batch.x, self.python, self.executor, kind, self.timeout)
        self._ran.append(ran.report)
        return _activity(ran, wanted.probes)


def _activity(ran: Ran, probes: Collection[str]) -> Activity:
    return Activity(
        counts=_of(ran, "counts"),
        readouts=_of(ran, "readout"),
        tick_spikes=_of(ran, "tick_spikes"),
        spikes={name: train for name, train in _of(ran, "trains").items() if name in probes},
        ticks=int(ran.report["ticks"]),
    )


def _of(ran: Ran, kind: str) -> dict[str, Array]:
    """Arrays of a kind by the node's name."""
    prefix = f"{kind}/"
    return {k.removeprefix(prefix): v for k, v in ran.arrays.items() if k.startswith(prefix)}
