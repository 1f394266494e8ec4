"""What every engine is: what it can tell, and the loop that makes activities of samples."""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from snncc.errors import BadInputError, Fault, SnnccError, UsageError
from snncc.program import Accumulator, Array, Neuron, Node, Program

__all__ = [
    "Abilities",
    "Activity",
    "Batch",
    "Engine",
    "PerProcess",
    "Progress",
    "Wanted",
    "check_memory",
    "runner",
    "spikes_by_tick",
    "thermometer",
]

K = TypeVar("K")
V = TypeVar("V")

#: Called with the number of samples that have just been finished.
Progress = Callable[[int], None]


@dataclass(repr=False)
class Activity:
    """What a network did with N samples.

    Attributes:
        counts: Population name -> spike counts, uint8 (T, N, *shape).
        readouts: Readout name -> integers, int64 (T, N, *shape).
        tick_spikes: Population name -> spikes per tick, int64 (T, D): sums over samples and
            neurons. Empty for engines without ticks.
        spikes: Probed population name -> spike trains, uint8 (T, D, N, *shape).
        potentials: Probed accumulator name -> membrane potential at the barrier,
            int64 (T, N, *shape).
        ticks: Simulated ticks; 0 for engines without a clock.
    """

    counts: dict[str, npt.NDArray[np.uint8]] = field(default_factory=dict)
    readouts: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    tick_spikes: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    spikes: dict[str, npt.NDArray[np.uint8]] = field(default_factory=dict)
    potentials: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    ticks: int = 0

    @property
    def samples(self) -> int:
        """N; 0 without any counts."""
        return next((counts.shape[1] for counts in self.counts.values()), 0)

    def __repr__(self) -> str:
        parts = ("counts", "readouts", "tick_spikes", "spikes", "potentials")
        held = ", ".join(f"{len(getattr(self, part))} {part}" for part in parts)
        return f"<Activity of {self.samples} samples: {held}>"

    @staticmethod
    def join(parts: list[Activity]) -> Activity:
        """Batches one after the other along the sample axis; tick sums are added."""
        if len(parts) == 1:
            return parts[0]
        return Activity(
            counts=_concatenate([p.counts for p in parts], 1),
            readouts=_concatenate([p.readouts for p in parts], 1),
            tick_spikes={k: sum(p.tick_spikes[k] for p in parts) for k in parts[0].tick_spikes},  # type: ignore[misc]
            spikes=_concatenate([p.spikes for p in parts], 2),
            potentials=_concatenate([p.potentials for p in parts], 1),
            ticks=sum(p.ticks for p in parts),
        )


def thermometer(counts: Array, ticks: int) -> npt.NDArray[np.uint8]:
    """Trains (T, D, N, *shape) of counts (T, N, *shape): a burst is from the first tick on."""
    return np.stack([counts > d for d in range(ticks)], axis=1).view(np.uint8)


def spikes_by_tick(counts: Array, ticks: int) -> npt.NDArray[np.int64]:
    """Spikes per tick (T, D): in tick d all fire whose burst is longer than d."""
    sums = np.empty((len(counts), ticks), dtype=np.int64)
    for t, d in np.ndindex(sums.shape):
        sums[t, d] = np.count_nonzero(counts[t] > d)
    return sums


def _concatenate(parts: list[dict[str, Any]], axis: int) -> dict[str, Any]:
    return {key: np.concatenate([p[key] for p in parts], axis=axis) for key in parts[0]}


class PerProcess(Generic[K, V]):
    """What an engine makes when it is first wanted, once, however many threads want it.

    After a fork the child makes everything anew: threads and owners of locks did not come along.
    """

    def __init__(self) -> None:
        self.forget()
        _PER_PROCESS.add(self)

    def forget(self) -> None:
        """Begin with nothing."""
        self._made: dict[K, V] = {}
        self._lock = threading.Lock()

    def get(self, key: K, make: Callable[[K], V]) -> V:
        """What belongs to the key; a thread that wants it while it is made waits."""
        made = self._made
        if key in made:
            return made[key]
        with self._lock:
            if key not in made:
                made[key] = make(key)
        return made[key]


_PER_PROCESS: weakref.WeakSet[PerProcess[Any, Any]] = weakref.WeakSet()


def _forget_all() -> None:
    for each in list(_PER_PROCESS):
        each.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


@dataclass(frozen=True)
class Abilities:
    """What an engine can tell of a run, besides spike counts and readouts.

    Attributes:
        trains: Spike trains of probed populations.
        potentials: Membrane potentials of probed accumulators.
        tick_spikes: Spikes of all populations, tick by tick.
        clock: How many ticks it simulated.
    """

    trains: bool = True
    potentials: bool = True
    tick_spikes: bool = True
    clock: bool = False


@dataclass(frozen=True)
class Batch:
    """Samples that an engine simulates together.

    Attributes:
        x: Integers of the source: (N, *shape), shown in every timestep, or (T, N, *shape).
        lead: How many axes come before a sample's: 1 or 2.
        timesteps: T.
    """

    x: Array
    lead: int
    timesteps: int

    @property
    def samples(self) -> int:
        """N."""
        return int(self.x.shape[self.lead - 1])

    @property
    def steps(self) -> Array:
        """The samples of each timestep, (T, N, *shape)."""
        if self.lead == 2:
            return self.x
        return np.broadcast_to(self.x, (self.timesteps, *self.x.shape))

    def batches(self, size: int) -> Iterator[Batch]:
        """The same samples in order, at most ``size`` at a time."""
        for at in range(0, self.samples, size):
            part = self.x[at : at + size] if self.lead == 1 else self.x[:, at : at + size]
            yield Batch(part, self.lead, self.timesteps)


@dataclass(frozen=True)
class Wanted:
    """What is asked of a run.

    Attributes:
        counts: Of all populations; False: the readouts alone.
        probes: Names of populations and accumulators to record.
    """

    counts: bool = True
    probes: tuple[str, ...] = ()


class Engine(ABC):
    """Runs samples, also from several threads at a time; an entry in ``engines`` makes it.

    An engine says what it can tell, and computes the activity of a batch; checking, batches,
    progress and joining are here, for all of them.

    Attributes:
        name: As on the command line.
        abilities: What it can tell.
        checks_bytes: Whether it refuses bytes out of range itself, so that nobody need look before.
        program: The network.
    """

    name: ClassVar[str]
    abilities: ClassVar[Abilities]
    checks_bytes: ClassVar[bool] = False
    program: Program

    def run(
        self,
        x: Array,
        probes: Collection[str] = (),
        batch: int = 32,
        progress: Progress | None = None,
    ) -> Activity:
        """Activity of all populations and readouts for the samples.

        Args:
            x: Integers 0..payload of the source: (N, *shape), shown in every timestep, or
                (T, N, *shape).
            probes: Names of populations and accumulators whose spike trains and potentials to
                record, as far as ``abilities`` has them.
            batch: Samples simulated together; an engine may take more, or all.
            progress: Called after each batch with its number of samples.

        Raises:
            BadInputError: Wrong shape, dtype or range of ``x``.
            UsageError: An unknown probe, or one that this engine cannot record; or a batch that is
                not positive.
        """
        check_probes(self.program, probes, self.name)
        self._check_potentials(probes)
        return self._simulated(x, Wanted(True, tuple(probes)), batch, progress)

    def infer(
        self, x: Array, batch: int = 32, progress: Progress | None = None
    ) -> dict[str, npt.NDArray[np.int64]]:
        """The readouts alone, int64 (T, N, *shape): all that an application needs; see ``run``."""
        return self._simulated(x, Wanted(counts=False), batch, progress).readouts

    # -- what it tells of all its runs so far --------------------------------------------------

    @property
    def event_share(self) -> float | None:
        """Share of the multiply-adds that was done event by event; None: it has no choice."""
        return None

    @property
    def run_report(self) -> dict[str, Any] | None:
        """What ran, of an engine that runs elsewhere; None: it runs in this process."""
        return None

    # -- the loop ------------------------------------------------------------------------------

    def _check_potentials(self, probes: Collection[str]) -> None:
        inner = [a.name for a in self.program.accumulators if a.name in probes]
        if inner and not self.abilities.potentials:
            raise UsageError(
                f"{self.name}: records spikes, not potentials such as '{inner[0]}'; take another "
                "engine"
            )

    def _simulated(
        self, x: Array, wanted: Wanted, batch: int, progress: Progress | None
    ) -> Activity:
        if batch < 1:
            raise UsageError(f"{self.name}: batch {batch} is not positive")
        values = not (self.checks_bytes and x.dtype == np.uint8)
        lead = check_input(self.program, x, self.name, values=values)
        whole = Batch(x, lead, self.program.timesteps)
        batches = list(whole.batches(self._together(batch, whole.samples, wanted)))
        parts = []
        for part, activity in zip(batches, self._activities(batches, wanted), strict=True):
            parts.append(activity)
            if progress is not None:
                progress(part.samples)
        return Activity.join(parts)

    def _together(self, batch: int, samples: int, wanted: Wanted) -> int:
        """How many of the samples are simulated together where ``batch`` are asked for."""
        return batch

    def _activities(self, batches: Iterable[Batch], wanted: Wanted) -> Iterator[Activity]:
        """The activity of each batch, in order; an engine may overlap them."""
        return (self._activity(batch, wanted) for batch in batches)

    @abstractmethod
    def _activity(self, batch: Batch, wanted: Wanted) -> Activity:
        """What the network does with a batch; without ``wanted.counts`` the readouts suffice."""


def runner(table: Mapping[type[Any], V], node: Node, engine: str) -> V:
    """What an engine's table has for a node of that kind.

    Raises:
        SnnccError: Nothing, naming the kind and the engine.
    """
    if type(node) not in table:
        kind = type(node).__name__
        raise SnnccError(f"engine '{engine}' has nothing that runs nodes of kind '{kind}'")
    return table[type(node)]


# -- what is settled before a run ----------------------------------------------------------


def check_memory(engine: str, state_bytes: int, threads: int = 1) -> None:
    """A file of a few kilobytes may describe maps of gigabytes.

    Args:
        engine: Name of the engine, for people.
        state_bytes: What the values of one sample take.
        threads: How many samples are computed at once.

    Raises:
        BadInputError: This machine has less memory than that.
    """
    here = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    needed = state_bytes * threads
    if needed > here:
        raise BadInputError(
            f"{engine}: the values of a sample take {state_bytes / 2**30:,.1f} GiB a thread, "
            f"{threads} threads {needed / 2**30:,.1f} GiB; this machine has {here / 2**30:,.1f} GiB"
        )


def check_probes(program: Program, probes: Collection[str], engine: str) -> None:
    """Populations and accumulators alone can be recorded.

    Raises:
        UsageError: Another name, with all that there are.
    """
    probed: tuple[Accumulator | Neuron, ...] = (*program.accumulators, *program.neurons)
    known = {node.name: node.module for node in probed}
    unknown = [repr(name) for name in probes if name not in known]
    if unknown:
        names = ", ".join(
            f"{name} ({module})" if module else name for name, module in known.items()
        )
        raise UsageError(f"{engine}: cannot probe {', '.join(unknown)}; there are: {names}")


def check_input(program: Program, x: npt.NDArray[Any], engine: str, *, values: bool = True) -> int:
    """How many axes come before a sample's: 1 for (N, *shape), 2 for (T, N, *shape).

    Args:
        program: What it is the input of.
        x: Samples.
        engine: Name of the engine, for people.
        values: Look at the range, too.

    Raises:
        BadInputError: Wrong shape, dtype or range of ``x``.
    """
    source, T = program.source, program.timesteps
    lead = x.ndim - len(source.shape)

    def wrong(what: str) -> BadInputError:
        fault = Fault(what, node=source.name, kind="Source")
        return BadInputError(f"{engine}: wrong input", [fault])

    if lead not in (1, 2) or x.shape[lead:] != source.shape or 0 in x.shape:
        sample = ", ".join(map(str, source.shape))
        raise wrong(f"shape {x.shape}, not (N, {sample}) or ({T}, N, {sample})")
    if lead == 2 and len(x) != T:
        raise wrong(f"{len(x)} timesteps; the network has {T}")
    if x.dtype.kind not in "ui":
        raise wrong(f"{x.dtype}, not integers")
    if values and (x.min() < 0 or x.max() > source.payload):
        raise wrong(f"values {x.min()}..{x.max()}, not in 0..{source.payload}")
    return lead
