"""What a network did, counted batch by batch: memory does not grow with the samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from snncc.backends.base import Activity
from snncc.program import Neuron, Pool, Program
from snncc.program.nodes.base import Spikes

__all__ = ["Counted", "PopulationCounts", "clock_ticks"]

Array = npt.NDArray[Any]
_Sums = npt.NDArray[np.int64]


class PopulationCounts:
    """How the neurons of a population fired, over all samples so far.

    Attributes:
        histogram: How often a spike count was 0, 1, … D.
        by_tick: Spikes (T, D).
        fired: Whether a neuron ever fired, (*shape).
    """

    def __init__(self, neuron: Neuron, timesteps: int) -> None:
        self.histogram: _Sums = np.zeros(neuron.D + 1, dtype=np.int64)
        self.by_tick: _Sums = np.zeros((timesteps, neuron.D), dtype=np.int64)
        self.fired: npt.NDArray[np.bool_] = np.zeros(neuron.shape, dtype=bool)

    def add(self, counts: Array) -> _Sums:
        """Take in counts (T, N, *shape); spikes per timestep, tick and sample, (T, D, N)."""
        ticks = self.by_tick.shape[1]
        rows = counts.reshape(*counts.shape[:2], -1)
        by_tick = np.stack([np.count_nonzero(rows > d, axis=2) for d in range(ticks)], axis=1)
        self.histogram += np.bincount(counts.ravel(), minlength=ticks + 1)
        self.by_tick += by_tick.sum(axis=2)
        self.fired |= counts.any(axis=(0, 1))
        return by_tick


class Counted:
    """Adds up activities of one network.

    Args:
        program: What runs.
        is_static: Whether a sample is shown in every timestep; else each has a frame of its own.

    Attributes:
        samples: So far.
        populations: By name.
        spikes: Node that emits spikes -> population -> those that it fired, over all timesteps and
            samples, per element.
        nonzero: Node that emits spikes or pixels -> in how many passes of a network that does not
            spike each element is not 0. Such a network sees a static sample once, so that the
            spikes of all timesteps are one number, and each frame of a sequence.
        per_tick: Spikes in each clock tick, sums over samples.
        peak: The most that one sample had in one tick.
    """

    def __init__(self, program: Program, is_static: bool) -> None:
        self.program, self.is_static = program, is_static
        self.samples = self.peak = 0
        self.populations = {n.name: PopulationCounts(n, program.timesteps) for n in program.neurons}
        self.spikes: dict[str, dict[str, _Sums]] = {}
        self.nonzero: dict[str, _Sums] = {}
        self.per_tick: _Sums = np.zeros(clock_ticks(program), dtype=np.int64)

    def add(self, activity: Activity, x: Array) -> None:
        """Take in the next samples.

        Args:
            activity: With the counts of all populations.
            x: The source's integers for it, (N, *shape) or (T, N, *shape).
        """
        samples = x.shape[0 if self.is_static else 1]
        self.samples += samples
        self._add_pixels(x)
        self._add_populations(activity.counts, samples)
        emitted: dict[str, Spikes] = {}
        for node in self.program.nodes:
            own = node.spikes(activity.counts, emitted, self.program.by_name)
            if own is not None:
                emitted[node.name] = own
                self._add_spikes(node.name, own)

    def _add_populations(self, counts: Mapping[str, Array], samples: int) -> None:
        in_ticks = np.zeros((len(self.per_tick), samples), dtype=np.int64)
        for neuron in self.program.neurons:
            by_tick = self.populations[neuron.name].add(counts[neuron.name])
            for t, spikes in enumerate(by_tick):
                first = (neuron.depth + t) * self.program.ticks
                in_ticks[first : first + neuron.D] += spikes
        self.per_tick += in_ticks.sum(axis=1)
        self.peak = max(self.peak, int(in_ticks.max(initial=0)))

    def _add_spikes(self, name: str, spikes: Spikes) -> None:
        by = self.spikes.setdefault(name, {})
        for population, values in spikes.by.items():
            by[population] = by[population] + values if population in by else values.copy()
        is_there = spikes.values != 0
        if self.is_static:
            steps = is_there.reshape(self.program.timesteps, -1, *is_there.shape[1:])
            is_there = steps.any(axis=0)
        self._add_nonzero(name, is_there)

    def _add_pixels(self, x: Array) -> None:
        """Of the source, and of pools that read pixels alone."""
        source = self.program.source
        pixels = {source.name: x.reshape(-1, *source.shape)}
        for node in self.program.nodes:
            if isinstance(node, Pool) and node.source in pixels:
                pixels[node.name] = node.pooled_maps(pixels[node.source])
        for name, values in pixels.items():
            self._add_nonzero(name, values != 0)

    def _add_nonzero(self, name: str, is_there: npt.NDArray[np.bool_]) -> None:
        found = np.count_nonzero(is_there, axis=0)
        self.nonzero[name] = self.nonzero[name] + found if name in self.nonzero else found


def clock_ticks(program: Program) -> int:
    """Ticks from the first firing of a sample to the last, over all its timesteps."""
    return program.latency + (program.timesteps - 1) * program.ticks
