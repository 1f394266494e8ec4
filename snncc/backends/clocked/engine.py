"""The clocked engine: binary spikes, tick by tick, under one global clock.

Neurons at depth p fire in the firing window [p * D, (p + 1) * D) of their timestep, at most one
spike per tick. What is emitted crosses pools and projections within the tick. An accumulator is
complete, and takes its bias, at the first tick of the window that follows its last upstream burst.
Spike counts are recorded but never used: every projection sees the spikes of one tick.

Pipelined, a timestep of the next samples enters every D ticks, as soon as the first neurons are
free. A neuron works on one of them at a time; an accumulator, into which residual branches of
several depths lead, holds a potential for each that is under way.

Inside, channels are the last axis: (N, H, W, C).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import count
from math import prod
from typing import Any, ClassVar

import numpy as np

from snncc.backends.base import (
    Abilities,
    Activity,
    Batch,
    Engine,
    Wanted,
    check_memory,
    runner,
)
from snncc.backends.clocked.attention_cells import AttentionCell, RelayCell
from snncc.backends.clocked.cell import Cell
from snncc.backends.clocked.dynamics import DYNAMICS, Carried, Dynamics, SoftReset, dynamics_of
from snncc.backends.clocked.gate_cell import GateCell
from snncc.backends.clocked.synapses import Ints, all_synapses, reshaped
from snncc.program import (
    Accumulator,
    Array,
    Attention,
    Gate,
    Neuron,
    Node,
    Pool,
    Program,
    Readout,
    Relay,
    Shape,
    Source,
    Sum,
    walk_projections,
)
from snncc.program.timing import completion_windows
from snncc.program.windows import channels_first, channels_last

__all__ = ["DYNAMICS", "Carried", "ClockedEngine", "Dynamics", "SoftReset"]


class ClockedEngine(Engine):
    """Simulates a Program under a global clock.

    Args:
        program: A valid Program.
        pipelined: Samples that are simulated together follow each other every D ticks, instead
            of when all neurons are done. The activity is the same.

    Raises:
        BadInputError: The sums of a projection may exceed 2**53, or the values of a sample take
            more than all memory of this machine.
    """

    name: ClassVar[str] = "clocked"
    abilities: ClassVar[Abilities] = Abilities(clock=True)

    def __init__(self, program: Program, pipelined: bool = False) -> None:
        check_memory(self.name, _sample_bytes(program))
        self.program, self.pipelined = program, pipelined
        self._cells = [(node, runner(_CELLS, node, self.name)) for node in program.nodes]
        self._windows = completion_windows(program)
        self._synapses = all_synapses(program)

    def _activities(self, batches: Iterable[Batch], wanted: Wanted) -> Iterator[Activity]:
        """See Engine; pipelined, a batch enters before the one before it is done."""
        scenes = (_Scene(self, batch, wanted.probes) for batch in batches)
        before = 0
        for now, scene in _simulated(scenes, self.program, self._interval):
            scene.activity.ticks, before = now - before, now
            yield scene.activity

    def _activity(self, batch: Batch, wanted: Wanted) -> Activity:
        """See Engine."""
        return next(self._activities([batch], wanted))

    @property
    def _interval(self) -> int:
        """Ticks from one timestep's entry to the next one's."""
        return self.program.ticks if self.pipelined else max(self.program.latency, 1)


def _sample_bytes(program: Program) -> int:
    """What is held of one sample: values of all nodes, results over time, the largest patches."""
    sizes = {node.name: prod(node.shape) for node in program.nodes}
    kept = [*(n.name for n in program.neurons), *(r.name for r in program.readouts)]
    patches = (
        sizes[a.name]
        // a.shape[0]
        * prod(p.weights[0].shape[2:])
        * program.by_name[p.source].shape[0]
        for a, p in walk_projections(program)
        if p.kind == "conv"
    )
    over_time = program.timesteps * sum(sizes[name] for name in kept)
    return 8 * (sum(sizes.values()) + over_time + max(patches, default=0))


# -- the clock ------------------------------------------------------------------------------


class _Scene:
    """What the cells of one batch share: the engine, the input and the activity they fill."""

    def __init__(self, engine: ClockedEngine, batch: Batch, probes: Collection[str]) -> None:
        self.program = engine.program
        self.windows, self.synapses = engine._windows, engine._synapses
        self.steps, self.samples = batch.steps, batch.samples
        self.probes = frozenset(probes)
        self.activity = Activity()
        self.cells = {node.name: cell(node, self) for node, cell in engine._cells}

    def begin(self, t: int) -> None:
        """Timestep ``t`` enters."""
        self.turn_to(t)
        for cell in self.cells.values():
            cell.begin(t)

    def turn_to(self, t: int) -> None:
        """What follows concerns timestep ``t``."""
        for cell in self.cells.values():
            cell.t = t

    def end(self, t: int) -> None:
        """Timestep ``t`` is done."""
        for cell in self.cells.values():
            cell.held.pop(t, None)

    def inside(self, shape: Shape) -> Shape:
        """The shape of a node's values in this batch."""
        return (self.samples, *shape[1:], shape[0])

    def record(self, shape: Shape, dtype: type[Any], *ticks: int) -> Array:
        """Zeros (T, [D,] N, *shape)."""
        return np.zeros((self.program.timesteps, *ticks, self.samples, *shape), dtype=dtype)


def _simulated(
    scenes: Iterable[_Scene], program: Program, interval: int
) -> Iterator[tuple[int, _Scene]]:
    """The scenes, with the tick in which each is done; timesteps enter every ``interval`` ticks."""
    entering = ((scene, t) for scene in scenes for t in range(program.timesteps))
    under_way: deque[tuple[int, _Scene, int]] = deque()  # since when, what; the oldest first
    following = next(entering, None)
    for now in count():
        if following is not None and now % interval == 0:
            following[0].begin(following[1])
            under_way.append((now, *following))
            following = next(entering, None)
        for start, scene, t in under_way:
            scene.turn_to(t)
            _tick(scene.cells, now - start)
        # One tick after the last firing: the barrier at which the last potentials are complete.
        if under_way and now - under_way[0][0] == program.latency:
            _, scene, t = under_way.popleft()
            scene.end(t)
            if t == program.timesteps - 1:
                yield now, scene
        if following is None and not under_way:
            return


# libraries compute beyond the edge of small matrices, and warn of what lies there
@np.errstate(all="ignore")
def _tick(cells: Mapping[str, Cell], now: int) -> None:
    emitted: dict[str, Array] = {}
    for name, cell in cells.items():
        values = cell.tick(now, emitted)
        if values is not None:
            emitted[name] = values


# -- cells: nodes while a batch is simulated ------------------------------------------------


class _SourceCell(Cell):
    """Emits the sample in the first tick."""

    def __init__(self, node: Source, scene: _Scene) -> None:
        super().__init__()
        self.steps = scene.steps

    def tick(self, now: int, emitted: Mapping[str, Array]) -> Array | None:
        return channels_last(self.steps[self.t]) if now == 0 else None


class _AccumulatorCell(Cell):
    """Sums currents; when they are complete it takes its bias and emits the potential, once.

    What arrived in masked patches is dropped then.
    """

    def __init__(self, node: Accumulator, scene: _Scene) -> None:
        super().__init__()
        synapses = scene.synapses[node.name]
        self.inputs = [(p.source, s) for p, s in zip(node.projections, synapses, strict=True)]
        self.complete = scene.windows[node.name] * scene.program.ticks
        self.shape = scene.inside(node.shape)
        self.bias = channels_last(node.bias_map()[np.newaxis])
        self.node, self.steps = node, scene.steps
        self.record: Array | None = None
        if node.name in scene.probes:
            self.record = scene.record(node.shape, np.int64)
            scene.activity.potentials[node.name] = self.record

    def begin(self, t: int) -> None:
        self.held[t] = np.zeros(self.shape, dtype=np.int64)

    @property
    def potential(self) -> Ints:
        """Of the timestep in hand."""
        held: Ints = self.held[self.t]
        return held

    @potential.setter
    def potential(self, values: Ints) -> None:
        self.held[self.t] = values

    def tick(self, now: int, emitted: Mapping[str, Array]) -> Array | None:
        for source, deliver in self.inputs:
            if source in emitted:
                deliver(emitted[source], self.potential)
        return self.emit() if now == self.complete else None

    def emit(self) -> Array:
        self.potential += self.bias
        if self.node.masked is not None:
            active = _active_positions(self.steps[self.t], self.node.shape, self.node.masked)
            self.potential *= channels_last(active)
        if self.record is not None:
            self.record[self.t] = channels_first(self.potential)
        self.potential.flags.writeable = False  # a spike after the barrier would be a fault
        return self.potential


def _active_positions(step: Array, shape: Shape, patches: tuple[int, int]) -> Array:
    """Where a masked accumulator keeps its potential: bool (N, 1, H, W).

    Args:
        step: Samples of one timestep (N, C', H', W'); not 0 in the last channel: masked.
        shape: Of the accumulator, (C, H, W).
        patches: Of the mask, (h, w).
    """
    rows, columns = (step.shape[i + 2] // n for i, n in enumerate(patches))
    active = step[:, -1:, ::rows, ::columns] == 0
    for axis in (0, 1):
        active = np.repeat(active, shape[axis + 1] // patches[axis], axis=axis + 2)
    return np.asarray(active)


class _NeuronCell(Cell):
    """Loads its accumulator's potential at the first tick of its window, then fires D ticks."""

    def __init__(self, node: Neuron, scene: _Scene) -> None:
        super().__init__()
        self.node, self.first = node, node.depth * scene.program.ticks
        self.shape = scene.inside(node.shape)
        self.dynamics = dynamics_of(node)
        record, activity = scene.record, scene.activity
        self.counts = activity.counts[node.name] = record(node.shape, np.uint8)
        self.sums = np.zeros((scene.program.timesteps, node.D), dtype=np.int64)
        activity.tick_spikes[node.name] = self.sums
        self.trains: Array | None = None
        if node.name in scene.probes:
            self.trains = activity.spikes[node.name] = record(node.shape, np.uint8, node.D)

    def begin(self, t: int) -> None:
        self.held[t] = np.zeros(self.shape, dtype=np.int64)

    def tick(self, now: int, emitted: Mapping[str, Array]) -> Array | None:
        if self.node.source in emitted:
            self.held[self.t] = reshaped(emitted[self.node.source], self.shape)
        tick = now - self.first
        if tick == 0:
            self.dynamics.load(self.held.pop(self.t))
            self.count = np.zeros(self.shape, dtype=np.uint8)
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


class _PoolCell(Cell):
    """Hands on the maximum or the sum over windows of what arrives in the tick."""

    def __init__(self, node: Pool, scene: _Scene) -> None:
        super().__init__()
        self.node = node

    def tick(self, now: int, emitted: Mapping[str, Array]) -> Array | None:
        arrived = emitted.get(self.node.source)
        return None if arrived is None else self.node.pooled(arrived)


class _SumCell(Cell):
    """Hands on the sum of what arrives in the tick."""

    def __init__(self, node: Sum, scene: _Scene) -> None:
        super().__init__()
        self.node = node

    def tick(self, now: int, emitted: Mapping[str, Array]) -> Array | None:
        a, b = (emitted.get(name) for name in self.node.sources)
        if a is None or b is None:
            return a if b is None else b
        return np.add(a, b, dtype=np.int64)


class _ReadoutCell(Cell):
    """Sums what arrives: spikes to spike counts, a potential to itself."""

    def __init__(self, node: Readout, scene: _Scene) -> None:
        super().__init__()
        self.source = node.source
        self.shape = scene.inside(node.shape)
        self.result = scene.record(node.shape, np.int64)
        scene.activity.readouts[node.name] = self.result

    def tick(self, now: int, emitted: Mapping[str, Array]) -> Array | None:
        if self.source in emitted:
            self.result[self.t] += channels_first(reshaped(emitted[self.source], self.shape))
        return None


_CELLS: dict[type[Node], Callable[[Any, _Scene], Cell]] = {
    Source: _SourceCell,
    Accumulator: _AccumulatorCell,
    Neuron: _NeuronCell,
    Pool: _PoolCell,
    Relay: RelayCell,
    Attention: AttentionCell,
    Gate: GateCell,
    Sum: _SumCell,
    Readout: _ReadoutCell,
}
