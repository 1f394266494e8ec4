"""What every engine is: a network's activity, computed from samples."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["Activity", "Engine", "PerProcess", "Progress"]

K = TypeVar("K")
V = TypeVar("V")

#: Called with the number of samples that have just been finished.
Progress = Callable[[int], None]


@dataclass
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


class Engine(Protocol):
    """Runs samples, also from several threads at a time; built from a network by its Target."""

    name: ClassVar[str]

    def run(
        self,
        x: npt.NDArray[Any],
        probes: Collection[str] = (),
        batch: int = 32,
        progress: Progress | None = None,
    ) -> Activity:
        """Activity of all populations and readouts for the samples.

        Args:
            x: Integers of the source: uint8 (N, *shape), or (T, N, *shape) for a sequence.
            probes: Names of populations and accumulators to record tick by tick.
            batch: Samples simulated together.
            progress: Called after each batch with its number of samples.
        """
        ...

    def infer(
        self, x: npt.NDArray[Any], batch: int = 32, progress: Progress | None = None
    ) -> dict[str, npt.NDArray[np.int64]]:
        """The readouts alone, int64 (T, N, *shape): all that an application needs; see ``run``."""
        ...
