"""A Program as Lava processes: which there are, what they read, and in which tick each answers.

All bursts of one timestep of one sample take at most a frame, D ticks, and frames follow each other
without a gap. Lava's Conv and Dense deliver a tick later; everything else hands on at once. An
accumulator is complete in the tick in which the last of its inputs ends, and sums what arrived in
the D ticks that end with it. Inputs that would arrive before those wait in a relay.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from snncc.backends.base import runner
from snncc.backends.lava.kernels import lava_kernel, symmetric
from snncc.backends.lava.limits import reachable_levels
from snncc.program import (
    Accumulator,
    Array,
    Attention,
    Neuron,
    Node,
    Pool,
    Program,
    Projection,
    Readout,
    Relay,
    Shape,
    Source,
)

__all__ = ["Emission", "Entry", "Schedule", "schedule"]

#: Of potentials, and of what Conv and Dense deliver, as graded spikes.
_GRADED_BITS = 24
#: Lava counts time steps from 1.
_START = 1

Entry = dict[str, Any]


@dataclass(frozen=True)
class Emission:
    """What a process sends of frame 0.

    Attributes:
        process: Its name.
        shape: In Lava's order.
        first: Tick of the first message.
        burst: Ticks of all messages.
        bits: Of a message; 0: binary.
    """

    process: str
    shape: Shape
    first: int
    burst: int
    bits: int

    @property
    def last(self) -> int:
        """Tick of the last message."""
        return self.first + self.burst - 1


@dataclass
class Schedule:
    """Processes, each after those that it reads, and the tensors they name.

    Attributes:
        program: What they compute.
        entries: What graph.json says of each process.
        tensors: Arrays by name, in Lava's order.
        emissions: Node name -> what its process sends.
    """

    program: Program
    entries: list[Entry] = field(default_factory=list)
    tensors: dict[str, Array] = field(default_factory=dict)
    emissions: dict[str, Emission] = field(default_factory=dict)
    _relays: dict[tuple[str, int], Emission] = field(default_factory=dict)

    @property
    def latency(self) -> int:
        """Ticks until all of the first timestep is written down."""
        ends = [e["first"] + e["burst"] - 1 for e in self.entries if e["process"] == "ReadOut"]
        return int(max(ends)) - _START + 1

    def add(self, process: str, emission: Emission, *inputs: Emission, **fields: Any) -> Emission:
        """A process; what it sends, under a name made unique."""
        name = _unique(emission.process, {entry["name"] for entry in self.entries})
        entry = {"name": name, "process": process, "shape": list(emission.shape)}
        if inputs:
            entry["inputs"] = [e.process for e in inputs]
        self.entries.append(entry | fields)
        return Emission(name, emission.shape, emission.first, emission.burst, emission.bits)

    def tensor(self, name: str, values: Array) -> str:
        """Keeps weights of 8 bits, or numbers of 24; the name, made unique."""
        narrow = np.int8 if values.dtype == np.int8 else np.int32
        unique = _unique(name, self.tensors)
        self.tensors[unique] = np.ascontiguousarray(values, dtype=narrow)
        return unique

    def relayed(self, source: Emission, delay: int) -> Emission:
        """The emission so many ticks later."""
        if delay == 0:
            return source
        key = source.process, delay
        if key not in self._relays:
            self._relays[key] = self.relay(source, delay)
        return self._relays[key]

    def relay(self, source: Emission, delay: int) -> Emission:
        """A new relay."""
        name, first = f"{source.process} + {delay}", source.first + delay
        late = Emission(name, source.shape, first, source.burst, source.bits)
        times = {"delay": delay, "first": source.first, "burst": source.burst}
        return self.add("Relay", late, source, **times)


def _unique(name: str, taken: Collection[str]) -> str:
    others = (f"{name} #{i}" for i in count(2))
    return name if name not in taken else next(other for other in others if other not in taken)


def schedule(program: Program) -> Schedule:
    """The processes of a Program that ``unsupported`` finds nothing wrong with."""
    plan = Schedule(program)
    for node in program.nodes:
        runner(_ADD, node, "lava")(plan, node)
    for neuron in program.neurons:
        _read_out(plan, neuron, neuron.name, "counts")
    return plan


# -- nodes ---------------------------------------------------------------------------------


def _source(plan: Schedule, node: Source) -> None:
    bits = node.payload.bit_length()
    emission = Emission(node.name, node.shape[::-1], _START, 1, bits)
    plan.emissions[node.name] = plan.add("FrameSource", emission)


def _accumulator(plan: Schedule, node: Accumulator) -> None:
    """A process of its own, unless one neuron alone reads it and can integrate by itself."""
    inputs, complete = _inputs(plan, node)
    bias = plan.tensor(f"{node.name}.bias", node.bias_map().T)
    readers = plan.program.readers(node.name)
    if len(readers) == 1 and isinstance(readers[0], Neuron) and readers[0].shape == node.shape:
        _population(plan, readers[0], inputs, complete, bias)
        return
    emission = Emission(node.name, node.shape[::-1], complete, 1, _GRADED_BITS)
    fields = {"module": node.module, "first": complete, "bias": bias}
    plan.emissions[node.name] = plan.add("Accumulate", emission, *inputs, **fields)


def _neuron(plan: Schedule, node: Neuron) -> None:
    if node.name in plan.emissions:
        return
    source = plan.emissions[node.source]
    bias = plan.tensor(f"{node.name}.bias", np.zeros(1, dtype=np.int64))
    _population(plan, node, [source], source.last, bias)


def _population(
    plan: Schedule, node: Neuron, inputs: list[Emission], first: int, bias: str
) -> None:
    levels = plan.tensor(f"{node.name}.levels", reachable_levels(plan.program, node).T)
    fields = {"module": node.module, "first": first, "bias": bias, "levels": levels}
    process = "IFSoftReset" if node.threshold is None else "IFMemory"
    if node.threshold is not None:
        fields["threshold"] = plan.tensor(f"{node.name}.threshold", node.threshold)
        fields |= {"reset": node.carry, "decay": list(node.decay), "fraction": node.fraction}
        fields["timesteps"] = plan.program.timesteps
    emission = Emission(node.name, node.shape[::-1], first, node.D, 0)
    plan.emissions[node.name] = plan.add(process, emission, *inputs, **fields)


def _pool(plan: Schedule, node: Pool) -> None:
    source = plan.emissions[node.source]
    if node.kind == "sum":
        plan.emissions[node.name] = _sum_pool(plan, node, source)
        return
    geometry = {
        "input_shape": list(source.shape),
        "kernel": list(node.kernel[::-1]),
        "stride": list(node.strides[::-1]),
        "padding": [node.pads[i] for i in (1, 0, 3, 2)],
    }
    emission = Emission(node.name, node.shape[::-1], source.first, source.burst, source.bits)
    plan.emissions[node.name] = plan.add("MaxPool", emission, source, **geometry)


def _sum_pool(plan: Schedule, node: Pool, source: Emission) -> Emission:
    """Sums over windows are a depthwise convolution with ones."""
    channels = node.shape[0]
    ones = np.ones((channels, 1, *node.kernel), dtype=np.int8)
    same = Projection(node.source, "conv", (ones,), 1, node.strides, node.pads, groups=channels)
    return _convolved(plan, node.name, node, same, source)


def _relay(plan: Schedule, node: Relay) -> None:
    """Who reads it decides how much later: whatever comes too early waits there."""
    plan.emissions[node.name] = plan.emissions[node.source]


def _attention(plan: Schedule, node: Attention) -> None:
    """The last train begins when the matrix of the other two is complete."""
    first, last = [plan.emissions[name] for name in node.first], plan.emissions[node.last]
    complete = max(*(e.last for e in first), last.first)
    opens = complete - plan.program.ticks + 1
    inputs = [plan.relayed(e, max(0, opens - e.first)) for e in first]
    inputs.append(plan.relayed(last, complete - last.first))
    shape = node.shape[::-1]
    emission = Emission(node.name, shape, complete, last.burst, _GRADED_BITS)
    fields = {"shapes": [list(e.shape) for e in inputs], "heads": node.heads}
    fields |= {"order": node.order, "first": complete, "module": node.module}
    plan.emissions[node.name] = plan.add("SpikeAttention", emission, *inputs, **fields)


def _readout(plan: Schedule, node: Readout) -> None:
    _read_out(
        plan,
        node,
        node.source,
        "readout",
        scale=node.scale,
        over_time=node.over_time,
        host=node.host,
    )


def _read_out(
    plan: Schedule, node: Neuron | Readout, source: str, writes: str, **fields: Any
) -> None:
    read = plan.emissions[source]
    fields |= {"of": node.name, "writes": writes, "result_shape": list(node.shape)}
    times = {"first": read.first, "burst": read.burst}
    nothing = Emission(f"{writes} of {node.name}", read.shape, read.first, read.burst, 0)
    plan.add("ReadOut", nothing, read, **fields, **times)


_ADD: Mapping[type[Node], Callable[[Schedule, Any], None]] = {
    Source: _source,
    Accumulator: _accumulator,
    Neuron: _neuron,
    Pool: _pool,
    Relay: _relay,
    Attention: _attention,
    Readout: _readout,
}


# -- what feeds an accumulator -------------------------------------------------------------


def _inputs(plan: Schedule, node: Accumulator) -> tuple[list[Emission], int]:
    """What arrives, all of it within one frame's ticks, and the last of these."""
    lags = [0 if p.kind == "identity" else 1 for p in node.projections]
    sources = [plan.emissions[p.source] for p in node.projections]
    complete = max(s.last + lag for s, lag in zip(sources, lags, strict=True))
    opens = complete - plan.program.ticks + 1
    arriving = []
    for p, source, lag in zip(node.projections, sources, lags, strict=True):
        late = plan.relayed(source, max(0, opens - source.first - lag))
        current = _PROJECT[p.kind](plan, node, p, late)
        if current in arriving:  # Lava connects two ports but once
            current = plan.relay(current, 0)
        arriving.append(current)
    return arriving, complete


def _identity(plan: Schedule, node: Accumulator, p: Projection, source: Emission) -> Emission:
    return source


def _linear(plan: Schedule, node: Accumulator, p: Projection, source: Emission) -> Emission:
    name = f"{p.source} -> {node.name}"
    weight = plan.tensor(name, p.weights[0])
    emission = Emission(name, node.shape, source.first + 1, source.burst, _GRADED_BITS)
    fields = {"weight": weight, "shift": p.shift, "message_bits": source.bits}
    return plan.add("Dense", emission, source, module=node.module, **fields)


def _conv(plan: Schedule, node: Accumulator, p: Projection, source: Emission) -> Emission:
    return _convolved(plan, f"{p.source} -> {node.name}", node, p, source)


def _convolved(
    plan: Schedule, name: str, node: Accumulator | Pool, p: Projection, source: Emission
) -> Emission:
    kernel, padding, dilations = symmetric(p.weights[0], p.pads, p.dilations)
    fields = {
        "weight": plan.tensor(name, lava_kernel(kernel)),
        "input_shape": list(source.shape),
        "stride": list(p.strides[::-1]),
        "padding": list(padding[::-1]),
        "dilation": list(dilations[::-1]),
        "groups": p.groups,
        "shift": p.shift,
        "message_bits": source.bits,
    }
    emission = Emission(name, node.shape[::-1], source.first + 1, source.burst, _GRADED_BITS)
    return plan.add("Conv", emission, source, module=node.module, **fields)


_PROJECT: Mapping[str, Callable[[Schedule, Accumulator, Projection, Emission], Emission]] = {
    "identity": _identity,
    "linear": _linear,
    "conv": _conv,
}
