"""The clocked engine: binary spikes, tick by tick, under one global clock.

Neurons at depth p fire in the firing window [p * D, (p + 1) * D) of their timestep, at most one
spike per tick. What is emitted crosses pools and projections within the tick. An accumulator is
complete, and takes its bias, at the first tick of the window that follows its last upstream burst.
Spike counts are recorded but never used: every projection sees the spikes of one tick.

Inside, channels are the last axis: (N, H, W, C).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from snncc.backends.engine import Activity, Progress
from snncc.backends.synapses import (
    Ints,
    all_synapses,
    channels_first,
    channels_last,
    reshaped,
    windows_of,
)
from snncc.errors import BadInputError, Fault, UsageError
from snncc.ir.program import (
    Accumulator,
    Array,
    Neuron,
    Node,
    Pool,
    Program,
    Readout,
    Shape,
    Source,
    sources_of,
)

__all__ = ["DYNAMICS", "Carried", "ClockedEngine", "Dynamics", "SoftReset"]


class ClockedEngine:
    """Simulates a Program under a global clock.

    Args:
        program: A valid Program.

    Raises:
        BadInputError: The sums of a projection may exceed 2**53.
    """

    name: ClassVar[str] = "clocked"

    def __init__(self, program: Program) -> None:
        self.program = program
        self._windows = _completion_windows(program)
        self._synapses = all_synapses(program)

    def run(
        self,
        x: npt.NDArray[Any],
        probes: Collection[str] = (),
        batch: int = 32,
        progress: Progress | None = None,
    ) -> Activity:
        """Activity of all populations and readouts for the samples.

        Args:
            x: Integers 0..payload, (N, *shape), shown in every timestep, or (T, N, *shape).
            probes: Populations and accumulators whose spike trains and potentials to record.
            batch: Samples simulated together.
            progress: Called after each batch with its number of samples.

        Returns:
            The activity. ``tick_spikes`` and ``spikes`` have the D of their population.

        Raises:
            BadInputError: Wrong shape, dtype or range of ``x``.
            UsageError: An unknown probe, or a batch that is not positive.
        """
        _check_probes(self.program, probes)
        if batch < 1:
            raise UsageError(f"clocked: batch {batch} is not positive")
        steps = _timesteps(self.program, x)
        parts = []
        for start in range(0, steps.shape[1], batch):
            scene = _Scene(self, steps[:, start : start + batch], probes)
            parts.append(_simulate(scene))
            if progress is not None:
                progress(scene.samples)
        return Activity.join(parts)


def _check_probes(program: Program, probes: Collection[str]) -> None:
    probed: tuple[Accumulator | Neuron, ...] = (*program.accumulators, *program.neurons)
    known = {node.name: node.module for node in probed}
    unknown = [repr(name) for name in probes if name not in known]
    if unknown:
        names = ", ".join(
            f"{name} ({module})" if module else name for name, module in known.items()
        )
        raise UsageError(f"clocked: cannot probe {', '.join(unknown)}; there are: {names}")


def _timesteps(program: Program, x: npt.NDArray[Any]) -> Array:
    """The input as (T, N, *shape), checked."""
    source, T = program.source, program.timesteps
    lead = x.ndim - len(source.shape)
    if lead not in (1, 2) or x.shape[lead:] != source.shape or 0 in x.shape:
        sample = ", ".join(map(str, source.shape))
        raise _wrong_input(source, f"shape {x.shape}, not (N, {sample}) or ({T}, N, {sample})")
    if lead == 2 and len(x) != T:
        raise _wrong_input(source, f"{len(x)} timesteps; the network has {T}")
    if x.dtype.kind not in "ui":
        raise _wrong_input(source, f"{x.dtype}, not integers")
    if x.min() < 0 or x.max() > source.payload:
        raise _wrong_input(source, f"values {x.min()}..{x.max()}, not in 0..{source.payload}")
    return x if lead == 2 else np.broadcast_to(x, (T, *x.shape))


def _wrong_input(source: Source, what: str) -> BadInputError:
    return BadInputError("clocked: wrong input", [Fault(what, node=source.name, kind="Source")])


# -- the clock ------------------------------------------------------------------------------


class _Scene:
    """What the cells of one batch share: the engine, the input and the activity they fill."""

    def __init__(self, engine: ClockedEngine, steps: Array, probes: Collection[str]) -> None:
        self.program = engine.program
        self.windows, self.synapses = engine._windows, engine._synapses
        self.steps, self.samples = steps, steps.shape[1]
        self.probes = frozenset(probes)
        self.activity = Activity()

    def inside(self, shape: Shape) -> Shape:
        """The shape of a node's values in this batch."""
        return (self.samples, *shape[1:], shape[0])

    def record(self, shape: Shape, dtype: type[Any], *ticks: int) -> Array:
        """Zeros (T, [D,] N, *shape)."""
        return np.zeros((self.program.timesteps, *ticks, self.samples, *shape), dtype=dtype)


def _simulate(scene: _Scene) -> Activity:
    cells = {node.name: _CELLS[type(node)](node, scene) for node in scene.program.nodes}
    for t in range(scene.program.timesteps):
        for cell in cells.values():
            cell.begin(t)
        # One tick after the last firing: the barrier at which the last potentials are complete.
        for now in range(scene.program.latency + 1):
            _tick(cells, now)
    return scene.activity


def _tick(cells: Mapping[str, _Cell], now: int) -> None:
    emitted: dict[str, Array] = {}
    for name, cell in cells.items():
        values = cell.tick(now, emitted)
        if values is not None:
            emitted[name] = values


def _completion_windows(program: Program) -> dict[str, int]:
    """For each node the first window at whose start all that it reads has been emitted."""
    windows: dict[str, int] = {}
    for node in program.nodes:
        sources = [program.by_name[name] for name in sources_of(node)]
        ends = [s.depth + 1 if isinstance(s, Neuron) else windows[s.name] for s in sources]
        windows[node.name] = max(ends, default=0)
    return windows


# -- cells: nodes while a batch is simulated ------------------------------------------------


class _Cell(Protocol):
    def begin(self, t: int) -> None:
        """Timestep ``t`` begins."""

    def tick(self, now: int, emitted: Mapping[str, Array]) -> Array | None:
        """What the node emits in tick ``now`` of the timestep, given what others emit in it."""


class _SourceCell:
    """Emits the sample in the first tick."""

    def __init__(self, node: Source, scene: _Scene) -> None:
        self.steps = scene.steps

    def begin(self, t: int) -> None:
        self.t = t

    def tick(self, now: int, emitted: Mapping[str, Array]) -> Array | None:
        return channels_last(self.steps[self.t]) if now == 0 else None


class _AccumulatorCell:
    """Sums currents; when they are complete it takes its bias and emits the potential, once."""

    def __init__(self, node: Accumulator, scene: _Scene) -> None:
        synapses = scene.synapses[node.name]
        self.inputs = [(p.source, s) for p, s in zip(node.projections, synapses, strict=True)]
        self.complete = scene.windows[node.name] * scene.program.ticks
        self.shape = scene.inside(node.shape)
        self.bias = channels_last(node.bias_map()[np.newaxis])
        self.record: Array | None = None
        if node.name in scene.probes:
            self.record = scene.record(node.shape, np.int64)
            scene.activity.potentials[node.name] = self.record

    def begin(self, t: int) -> None:
        self.t = t
        self.potential: Ints = np.zeros(self.shape, dtype=np.int64)

    def tick(self, now: int, emitted: Mapping[str, Array]) -> Array | None:
        for source, deliver in self.inputs:
            if source in emitted:
                deliver(emitted[source], self.potential)
        return self.emit() if now == self.complete else None

    def emit(self) -> Array:
        self.potential += self.bias
        if self.record is not None:
            self.record[self.t] = channels_first(self.potential)
        self.potential.flags.writeable = False  # a spike after the barrier would be a fault
        return self.potential


class _NeuronCell:
    """Loads its accumulator's potential at the first tick of its window, then fires D ticks."""

    def __init__(self, node: Neuron, scene: _Scene) -> None:
        self.node, self.first = node, node.depth * scene.program.ticks
        self.shape = scene.inside(node.shape)
        self.dynamics = DYNAMICS[node.carry](node)
        record, activity = scene.record, scene.activity
        self.counts = activity.counts[node.name] = record(node.shape, np.uint8)
        self.sums = np.zeros((scene.program.timesteps, node.D), dtype=np.int64)
        activity.tick_spikes[node.name] = self.sums
        self.trains: Array | None = None
        if node.name in scene.probes:
            self.trains = activity.spikes[node.name] = record(node.shape, np.uint8, node.D)

    def begin(self, t: int) -> None:
        self.t = t
        self.drive: Ints = np.zeros(self.shape, dtype=np.int64)
        self.count = np.zeros(self.shape, dtype=np.uint8)

    def tick(self, now: int, emitted: Mapping[str, Array]) -> Array | None:
        if self.node.source in emitted:
            self.drive = reshaped(emitted[self.node.source], self.shape)
        tick = now - self.first
        if tick == 0:
            self.dynamics.load(self.drive)
        return self.fire(tick) if 0 <= tick < self.node.D else None

    def fire(self, tick: int) -> Array | None:
        fired = self.dynamics.fire(tick)
        self.sums[self.t, tick] = spikes = np.count_nonzero(fired)
        self.count += fired
        if self.trains is not None:
            self.trains[self.t, tick] = channels_first(fired)
        if tick == self.node.D - 1:
            self.counts[self.t] = channels_first(self.count)
        return fired if spikes else None


class _PoolCell:
    """Hands on the maximum or the sum over windows of what arrives in the tick."""

    def __init__(self, node: Pool, scene: _Scene) -> None:
        self.node = node

    def begin(self, t: int) -> None:
        pass

    def tick(self, now: int, emitted: Mapping[str, Array]) -> Array | None:
        node = self.node
        if node.source not in emitted:
            return None
        # Zero padding is neutral for maxima too: spikes and pixels are never negative.
        windows = windows_of(emitted[node.source], node.kernel, node.strides, node.pads)
        if node.kind == "max":
            return np.asarray(windows.max(axis=(3, 4)))
        return np.asarray(windows.sum(axis=(3, 4), dtype=np.int64))


class _ReadoutCell:
    """Sums what arrives: spikes to spike counts, a potential to itself."""

    def __init__(self, node: Readout, scene: _Scene) -> None:
        self.source = node.source
        self.shape = scene.inside(node.shape)
        self.result = scene.record(node.shape, np.int64)
        scene.activity.readouts[node.name] = self.result

    def begin(self, t: int) -> None:
        self.t = t

    def tick(self, now: int, emitted: Mapping[str, Array]) -> Array | None:
        if self.source in emitted:
            self.result[self.t] += channels_first(reshaped(emitted[self.source], self.shape))
        return None


_CELLS: dict[type[Node], Callable[[Any, _Scene], _Cell]] = {
    Source: _SourceCell,
    Accumulator: _AccumulatorCell,
    Neuron: _NeuronCell,
    Pool: _PoolCell,
    Readout: _ReadoutCell,
}


# -- neurons --------------------------------------------------------------------------------


class Dynamics(Protocol):
    """How a population integrates and fires; it lives for a batch, over all its timesteps."""

    def load(self, potential: Ints) -> None:
        """Takes the complete potential of a timestep, (N, [H, W,] C)."""

    def fire(self, tick: int) -> npt.NDArray[np.bool_]:
        """Who fires in tick 0..D-1 of the window, (N, [H, W,] C)."""


class SoftReset:
    """IF with soft reset and no memory over timesteps: the SFA neuron.

    The membrane potential is counted from the first level. In each tick a neuron fires iff it is
    not negative; firing lowers it by the distance to the next level.
    """

    def __init__(self, neuron: Neuron) -> None:
        self.first = neuron.levels[:, 0]
        self.distances = np.diff(neuron.levels, axis=1).T

    def load(self, potential: Ints) -> None:
        """See Dynamics."""
        self.membrane = potential - self.first

    def fire(self, tick: int) -> npt.NDArray[np.bool_]:
        """See Dynamics."""
        fired: npt.NDArray[np.bool_] = self.membrane >= 0
        if tick < len(self.distances):
            self.membrane -= fired * self.distances[tick]
        return fired


class Carried:
    """A membrane that remembers: decay at the border of timesteps, soft reset within the ticks.

    ``membrane`` is counted from the level that the next spike needs; ``rest`` is what will stay.
    """

    def __init__(self, neuron: Neuron) -> None:
        self.first = neuron.levels[:, 0]
        self.distances = np.diff(neuron.levels, axis=1).T
        self.numerator, self.shift = neuron.decay
        self.fraction, self.threshold = neuron.fraction, np.asarray(neuron.threshold)
        self.is_hard = neuron.carry == "hard"
        self.rest: Ints = np.zeros((), dtype=np.int64)

    def load(self, potential: Ints) -> None:
        """See Dynamics."""
        kept = (self.rest * self.numerator) >> self.shift  # rounds down, also below zero
        self.rest = kept + (potential << self.fraction)
        self.membrane = self.rest - self.first

    def fire(self, tick: int) -> npt.NDArray[np.bool_]:
        """See Dynamics."""
        fired: npt.NDArray[np.bool_] = self.membrane >= 0
        if tick < len(self.distances):
            self.membrane -= fired * self.distances[tick]
        if self.is_hard:
            self.rest[fired] = 0
        else:
            self.rest -= fired * self.threshold
        return fired


#: Neuron dynamics by ``Neuron.carry``: a new kind of neuron is one class and one line here.
DYNAMICS: dict[str, Callable[[Neuron], Dynamics]] = {
    "none": SoftReset,
    "soft": Carried,
    "hard": Carried,
}
