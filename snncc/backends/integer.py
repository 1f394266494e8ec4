"""Engines on ONNX Runtime: the quantised graph, which is the baseline, and the spiking graph.

The only backend that reads ONNX. A value of the graph and a node of the Program that have the same
name are the same quantity.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import onnx
from onnx.helper import make_tensor_value_info

from snncc.backends.base import Abilities, Activity, Batch, Engine, PerProcess, Wanted
from snncc.errors import BadInputError, SnnccError, UsageError
from snncc.ir.fed import FedGraph
from snncc.ir.metadata import RESULTS, TIMESTEPS
from snncc.ir.names import SPIKES
from snncc.ir.ops import traits
from snncc.ir.oracle import session
from snncc.ir.results import places_of
from snncc.ir.traits import Numbers
from snncc.program import Accumulator, Array, Neuron, Program, Readout

__all__ = ["IntegerEngine", "SpikeFormEngine"]

UINT8 = onnx.TensorProto.UINT8
_DTYPES = {"tensor(uint8)": np.uint8, "tensor(int64)": np.int64, "tensor(float)": np.float32}


class _OnnxEngine(Engine):
    """Runs a graph timestep by timestep and reads its inner values.

    Args:
        graph: Its model, or that apart from its weights.
        program: The same network; it says what is read.
        threads: Of ONNX Runtime; 0 lets it choose.

    Raises:
        BadInputError: The graph lacks a value the Program names.
    """

    #: What follows a population's name in the name of its value.
    suffix: ClassVar[str]

    def __init__(
        self,
        graph: FedGraph | onnx.ModelProto,
        program: Program,
        threads: int = 0,
    ) -> None:
        self.program, self.threads = program, threads
        given = graph if isinstance(graph, FedGraph) else FedGraph(graph)
        self._model, self._weights = onnx.ModelProto(), given.weights
        self._model.CopyFrom(given.proto)
        self._results = _by_readout(self._model)
        _feed_integers(self._model.graph, program)
        #: Whether the graph itself goes through the timesteps, folded into its batch axis.
        self._folded = any(p.key == TIMESTEPS for p in self._model.metadata_props)
        if self._folded:
            _feed_timesteps(self._model.graph, program)
        self._names = {name for node in self._model.graph.node for name in node.output}
        lost = [n.name for n in program.neurons if n.name + self.suffix not in self._names]
        if lost:
            raise BadInputError(f"{self.name}: the graph has no populations {', '.join(lost)}")
        self._readouts = {
            r.name: self._value_of_readout(i, r) for i, r in enumerate(program.readouts)
        }
        #: By the names of the values that are fetched.
        self._sessions: PerProcess[tuple[str, ...], Any] = PerProcess()

    def _activity(self, batch: Batch, wanted: Wanted) -> Activity:
        """See Engine."""
        names = self._wanted(wanted.probes)
        runner = self._sessions.get(tuple(names), self._session)
        steps, n = batch.steps, batch.samples
        rounds = steps.reshape(1, -1, *steps.shape[2:]) if self._folded else steps
        values = _stacked([self._run_step(runner, step, names) for step in rounds])
        activity = Activity()
        for neuron in self.program.neurons:
            value = values[neuron.name + self.suffix]
            self._record(neuron, value, activity, n, wanted.probes)
        for readout in self.program.readouts:
            result = values[self._readouts[readout.name]].astype(np.int64)
            activity.readouts[readout.name] = result.reshape(-1, n, *readout.shape)
        for accumulator in self._probed(wanted.probes):
            potential = values[self._value_of(accumulator)]
            activity.potentials[accumulator.name] = potential.reshape(-1, n, *accumulator.shape)
        return activity

    def _record(
        self, neuron: Neuron, value: Array, activity: Activity, n: int, probes: Collection[str]
    ) -> None:
        raise NotImplementedError

    # -- values ----------------------------------------------------------------------------

    def _wanted(self, probes: Collection[str]) -> list[str]:
        """Names of the values to fetch, each once."""
        names = [n.name + self.suffix for n in self.program.neurons]
        names += self._readouts.values()
        names += [self._value_of(accumulator) for accumulator in self._probed(probes)]
        return list(dict.fromkeys(names))

    def _probed(self, probes: Collection[str]) -> list[Accumulator]:
        return [a for a in self.program.accumulators if a.name in probes]

    def _value_of(self, accumulator: Accumulator) -> str:
        if accumulator.name in self._names:
            return accumulator.name
        for readout in self.program.readouts:
            if readout.source == accumulator.name:
                return self._readouts[readout.name]
        raise UsageError(f"{self.name}: the graph does not have the potential '{accumulator.name}'")

    def _value_of_readout(self, index: int, readout: Readout) -> str:
        """The output at that place, or of that name, or else the value that is read.

        A result may be named like an inner value, so that its place says more than its name.
        """
        same_number = len(self._results) == len(self.program.readouts)
        by_place = [self._results[index]] if same_number else []
        if readout.over_time == "sum":
            return self._summand(readout, by_place)
        for name in (*by_place, readout.name, readout.source):
            if name in self._names:
                return name
        raise BadInputError(f"{self.name}: the graph has no output '{readout.name}'")

    def _summand(self, readout: Readout, at: list[str]) -> str:
        """What the graph sums over time: the engine gives it timestep by timestep.

        ``at`` has the output at the readout's place, if it is known; it is no other sum.
        """
        sums = {n.output[0]: n.input[0] for n in self._model.graph.node if traits(n).ends_time}
        found = [x for out, x in sums.items() if len(sums) == 1 or out in at]
        if len(found) != 1:
            raise BadInputError(f"{self.name}: the graph has no sum over time '{readout.name}'")
        return str(found[0])

    # -- running ---------------------------------------------------------------------------

    def _run_step(self, runner: Any, step: Array, wanted: list[str]) -> dict[str, Array]:
        entry = runner.get_inputs()[0]
        samples = np.ascontiguousarray(step, dtype=_DTYPES.get(entry.type, np.uint8))
        with _running(self.name):
            found = runner.run(wanted, {entry.name: samples, **self._weights})
        return dict(zip(wanted, found, strict=True))

    def _session(self, wanted: tuple[str, ...]) -> Any:
        outputs = self._model.graph.output
        del outputs[:]
        outputs.extend(onnx.ValueInfoProto(name=name) for name in wanted)
        with _running(self.name):
            graph = FedGraph(self._model, self._weights)
            return session(graph.serialised(), self.threads)


class IntegerEngine(_OnnxEngine):
    """Spike counts of the quantised graph: what all engines must reproduce."""

    name: ClassVar[str] = "integer"
    abilities: ClassVar[Abilities] = Abilities(trains=False, tick_spikes=False)
    suffix: ClassVar[str] = ""

    def _record(
        self, neuron: Neuron, value: Array, activity: Activity, n: int, probes: Collection[str]
    ) -> None:
        counts = value.astype(np.uint8, copy=False)
        activity.counts[neuron.name] = counts.reshape(-1, n, *neuron.shape)


class SpikeFormEngine(_OnnxEngine):
    """Spike trains of the spiking graph, in which linear layers see one tick at a time."""

    name: ClassVar[str] = "spike-form"
    abilities: ClassVar[Abilities] = Abilities()
    suffix: ClassVar[str] = SPIKES

    def _record(
        self, neuron: Neuron, value: Array, activity: Activity, n: int, probes: Collection[str]
    ) -> None:
        spikes = value.astype(np.uint8, copy=False)
        if self._folded:
            trains = spikes.reshape(neuron.D, -1, n, *neuron.shape).swapaxes(0, 1)
        else:
            trains = spikes.reshape(-1, neuron.D, n, *neuron.shape)
        by_tick = trains.reshape(len(trains), neuron.D, -1)
        activity.counts[neuron.name] = trains.sum(axis=1, dtype=np.uint8)
        activity.tick_spikes[neuron.name] = by_tick.sum(axis=2, dtype=np.int64)
        if neuron.name in probes:
            activity.spikes[neuron.name] = trains


def _by_readout(model: onnx.ModelProto) -> list[str]:
    """Names of the outputs, in the order of the Program's readouts; two may read one."""
    names = [str(value.name) for value in model.graph.output]
    stored = next((p.value for p in model.metadata_props if p.key == RESULTS), None)
    return [names[place] for places in places_of(stored, len(names)).values() for place in places]


def _stacked(steps: list[dict[str, Array]]) -> dict[str, Array]:
    """One value per timestep as (T, ...)."""
    return {name: np.stack([step[name] for step in steps]) for name in steps[0]}


def _feed_integers(graph: onnx.GraphProto, program: Program) -> None:
    """Let the graph begin with integers: a QuantizeInput at its input is cut off."""
    inputs = {value.name: value for value in graph.input}
    for node in graph.node:
        if traits(node).emits is Numbers.SOURCE and node.input[0] in inputs:
            graph.input.remove(inputs[node.input[0]])
            shape: list[str | int | None] = ["N", *program.source.shape]
            graph.input.append(make_tensor_value_info(node.output[0], UINT8, shape))
            graph.node.remove(node)
            return


def _feed_timesteps(graph: onnx.GraphProto, program: Program) -> None:
    """Let the graph begin with all timesteps, [T*N, ...]: what makes them so is cut out."""
    for node in [n for n in graph.node if traits(n).begins_time]:
        for reader in graph.node:
            for i, name in enumerate(reader.input):
                if name == node.output[0]:
                    reader.input[i] = node.input[0]
        graph.node.remove(node)
    fed = [(v.name, v.type.tensor_type.elem_type) for v in graph.input]
    del graph.input[:], graph.value_info[:]  # what they say of shapes was of samples
    shape: list[str | int | None] = ["M", *program.source.shape]
    graph.input.extend(make_tensor_value_info(name, kind, shape) for name, kind in fed)


@contextmanager
def _running(name: str) -> Iterator[None]:
    """What ONNX Runtime raises, which has no common base of its own, as our error."""
    try:
        yield
    except SnnccError:
        raise
    except Exception as e:
        reason = str(e).strip().splitlines()[0]
        raise BadInputError(f"{name}: ONNX Runtime refuses the graph: {reason}") from e
