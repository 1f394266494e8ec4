"""The event engine from Python: numpy arrays in, activity out."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np

from snncc.backends.base import (
    Abilities,
    Activity,
    Batch,
    Engine,
    PerProcess,
    Wanted,
    check_memory,
    spikes_by_tick,
    thermometer,
)
from snncc.backends.event import _core
from snncc.backends.event.layout import laid_out, layout
from snncc.backends.processors import processors
from snncc.errors import BadInputError, Fault, UsageError
from snncc.program import (
    Accumulator,
    Array,
    Program,
    Projection,
    walk_projections,
)

__all__ = ["KERNELS", "EventEngine", "Work"]

#: How projections are computed: by density, or all of them in one way.
KERNELS = ("auto", "event", "dense")
_MOST_THREADS = 1024

#: Nanoseconds that a thread of the core looks for work before it sleeps. Waking it takes some
#: microseconds, and layers of small networks follow each other in as many; where there are more
#: threads than processors it would only keep others from theirs.
_PATIENCE = 50_000


@dataclass(frozen=True)
class Work:
    """What a projection did, summed over all samples and timesteps so far.

    Attributes:
        accumulator: Name of the accumulator it feeds.
        source: Name of the node it reads.
        macs: Multiply-adds of a dense evaluation, over all samples and timesteps.
        density: Share of the values that arrived that were not zero.
        event_share: Share of its synaptic work that was done event by event.
    """

    accumulator: str
    source: str
    macs: int
    density: float
    event_share: float


class EventEngine(Engine):
    """Runs a Program event by event: a burst of n spikes is one event of payload n.

    It may be used from several threads at a time, which share the network. Each run has values of
    its own, for as many runs as there are processors (or ``threads``, if those are more) and as fit
    into memory; a further one waits for its turn. It may be used after a fork, too.

    Args:
        program: A valid Program.
        threads: That compute one run: the one that calls, and others that all runs share. They get
            samples each, or parts of one sample; results do not depend on it. ``auto``: as many as
            ``processors`` finds.
        kernels: ``auto``: a projection whose input is dense enough is summed over all of it, else
            event by event; ``event`` or ``dense``: always so, where there is such a kernel.

    Raises:
        BadInputError: A sum may overflow, naming the node; or the values of a sample take more than
            all memory of this machine.
        UsageError: Unknown ``kernels``, ``threads`` out of range, or an instruction set in the
            environment variable SNNCC_ISA that this machine lacks.
    """

    name: ClassVar[str] = "event"
    abilities: ClassVar[Abilities] = Abilities()
    checks_bytes: ClassVar[bool] = True

    def __init__(
        self, program: Program, threads: int | Literal["auto"] = 1, kernels: str = "auto"
    ) -> None:
        if kernels not in KERNELS:
            raise UsageError(f"event: no kernels '{kernels}'; there are {', '.join(KERNELS)}")
        self._processors = processors()
        self.program, self.kernels = program, kernels
        self.threads = _number(threads, self._processors)
        self.isa = _isa()
        self._nodes = laid_out(program)
        self._index = {node.name: i for i, node in enumerate(self._nodes)}
        #: Networks and their sessions, by whether these let potentials be read.
        self._networks: dict[bool, _core.Network] = {}
        self._sessions: PerProcess[bool, _core.Session] = PerProcess()
        self._session()

    def _session(self, keep: bool = False) -> _core.Session:
        return self._sessions.get(keep, self._started)

    def _started(self, keep: bool) -> _core.Session:
        if keep not in self._networks:  # else this is a child, which inherits what is never written
            self._networks[keep] = self._network(keep)
        network = self._networks[keep]
        check_memory(self.name, network.state_bytes(), self.threads)
        runs = _runs(network.state_bytes(), self.threads, self._processors)
        patience = _PATIENCE if self.threads <= self._processors else 0
        policy = KERNELS.index(self.kernels)
        return _core.Session(network, self.isa, policy, self.threads, runs, patience)

    def _network(self, keep: bool) -> _core.Network:
        try:
            return _core.Network(layout(self.program, keep))
        except ValueError as e:
            raise self._refused(e) from e

    def _refused(self, error: ValueError) -> BadInputError:
        index, what = error.args
        if index < 0:
            return BadInputError(f"event: the network does not fit: {what}")
        node = self._nodes[index]
        fault = Fault(what, node=node.name, kind=type(node).__name__, module=node.module)
        return BadInputError("event: the network does not fit", [fault])

    def work(self) -> list[Work]:
        """What each projection with weights did so far."""
        done = self._session().work()
        both = zip(walk_projections(self.program), done, strict=True)
        return [
            Work(a.name, p.source, runs * _macs(a, p), events / values, by_event / values)
            for (a, p), (runs, values, events, by_event) in both
            if runs
        ]

    @property
    def event_share(self) -> float:
        """See Engine."""
        found = self.work()
        total = sum(w.macs for w in found)
        return sum(w.macs * w.event_share for w in found) / total if total else 0.0

    # -- one batch -------------------------------------------------------------------------

    def _empty(self, names: Collection[str], samples: int, dtype: type[Any]) -> dict[str, Array]:
        nodes, T = self.program.by_name, self.program.timesteps
        return {name: np.empty((T, samples, *nodes[name].shape), dtype=dtype) for name in names}

    def _together(self, batch: int, samples: int, wanted: Wanted) -> int:
        """All of them, where no array but the readouts' is made: see Engine."""
        return batch if wanted.counts else samples

    def _activity(self, batch: Batch, wanted: Wanted) -> Activity:
        """See Engine."""
        program, n = self.program, batch.samples
        readouts = self._empty([r.name for r in program.readouts], n, np.int64)
        if not wanted.counts:
            self._fill(self._session(), batch, readouts)
            return Activity(readouts=readouts)
        kept = [a.name for a in program.accumulators if a.name in wanted.probes]
        counts = self._empty([neuron.name for neuron in program.neurons], n, np.uint8)
        potentials = self._empty(kept, n, np.int64)
        self._fill(self._session(keep=bool(kept)), batch, counts, readouts, potentials)
        bursts = [(neuron.name, counts[neuron.name], neuron.D) for neuron in program.neurons]
        trains = {k: thermometer(burst, D) for k, burst, D in bursts if k in wanted.probes}
        sums = {k: spikes_by_tick(burst, D) for k, burst, D in bursts}
        return Activity(counts, readouts, sums, trains, potentials)

    def _fill(self, session: _core.Session, batch: Batch, *results: dict[str, Array]) -> None:
        dtype = np.uint8 if self.program.source.payload <= 255 else np.int32
        buffers = {self._index[name]: a for part in results for name, a in part.items()}
        x, repeated = np.ascontiguousarray(batch.x, dtype=dtype), batch.lead == 1
        try:
            session.run(x, batch.samples, repeated, buffers)
        except ValueError as e:
            raise BadInputError(f"event: wrong input: {e}") from e


def _macs(node: Accumulator, p: Projection) -> int:
    return prod(node.shape) * p.fan_in


def _number(threads: int | str, available: int) -> int:
    if threads == "auto":
        return min(available, _MOST_THREADS)
    if not isinstance(threads, int) or not 1 <= threads <= _MOST_THREADS:
        raise UsageError(f"event: {threads} threads, not 1..{_MOST_THREADS} or auto")
    return threads


def _runs(state_bytes: int, threads: int, available: int) -> int:
    """How many runs at a time memory has room for."""
    here = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fitting = here // max(1, state_bytes) - (threads - 1)
    return min(max(threads, available), fitting)


def _isa() -> str:
    """The instruction set asked for, or the best there is."""
    here = _core.isas()
    wanted = os.environ.get("SNNCC_ISA") or here[0]
    if wanted not in here:
        names = ", ".join(here)
        raise UsageError(f"SNNCC_ISA: no instruction set '{wanted}' here; there are {names}")
    return wanted
