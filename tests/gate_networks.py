"""Random Programs with gates, sums of spikes, maxima of potentials and layers that read those."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
from hypothesis import strategies as st
from networks import _Builder, samples

from snncc.program import (
    Accumulator,
    Gate,
    Neuron,
    Node,
    Pool,
    Program,
    Projection,
    Relay,
    Source,
    Sum,
)
from snncc.program.bounds import emitted_payload
from snncc.program.membrane import Factor
from snncc.program.nodes.gate import MOST_COUNT
from snncc.program.timing import firing_window

__all__ = ["gate_cases", "gate_programs", "parts_of"]

#: What sums come to at most, so that layers can read them.
_LARGE = 2**20
#: What accumulators come to at most that layers read.
_MOST_PAYLOAD = 2**33


@st.composite
def gate_programs(draw: st.DrawFn, max_meetings: int = 4, payloads: bool = False) -> Program:
    """A stem, then what meets in gates, sums and maxima, with layers between and after.

    Args:
        draw: Of hypothesis.
        max_meetings: Of those.
        payloads: Potentials are read by layers, too.
    """
    net = _GateBuilder(draw, payloads)
    net.source()
    net.layer()
    for _ in range(draw(st.integers(1, max_meetings))):
        net.meeting()
        if net.flip(3):
            net.layer()
    if not isinstance(net.last, Neuron):
        net.layer()
    net.readouts()
    program = Program("net", tuple(net.nodes), net.timesteps, net.ticks)
    program.validate()
    return program


@st.composite
def gate_cases(draw: st.DrawFn, payloads: bool = False) -> tuple[Program, np.ndarray]:
    """A Program with gates, sums or maxima, and an input for it; ``payloads``: see there."""
    program = draw(gate_programs(payloads=payloads))
    return program, draw(samples(program))


def parts_of(program: Program) -> set[str]:
    """What a Program has of gates, sums of spikes, maxima of potentials and graded payloads."""
    nodes = program.by_name
    maxima = [n for n in program.nodes if isinstance(n, Pool) and n.kind == "max"]
    read = [p for a in program.accumulators for p in a.projections if p.weights]
    found = {
        "gate": any(isinstance(n, Gate) for n in program.nodes),
        "sum of spikes": any(isinstance(n, Sum) for n in program.nodes),
        "maximum of potentials": any(n.is_signed(nodes) for n in maxima),
        "graded payload": any(nodes[p.source].is_signed(nodes) for p in read),
    }
    return {part for part, is_there in found.items() if is_there}


class _GateBuilder(_Builder):
    """Adds what two nodes come to, of those there are."""

    def __init__(self, draw: st.DrawFn, payloads: bool) -> None:
        super().__init__(draw)
        self.payloads = payloads

    def meeting(self) -> None:
        rules = [self.gate, self.gate, self.sum, self.sum, self.maximum]
        self.draw(st.sampled_from(rules + [self.payload, self.maximum] * (2 * self.payloads)))()

    def payload(self) -> None:
        """A layer of potentials, which were summed or of which maxima were taken."""
        if emitted_payload(self.last) >= _LARGE:
            return
        self.accumulator()
        if len(self.last.shape) == 3 and self.flip(3):
            self.pool(self.draw(st.sampled_from(["max", "sum"])))
        for _ in range(self.draw(st.integers(1, 2))):
            if emitted_payload(self.last) < self.most_read():
                self.accumulator()
        if not isinstance(self.last, Accumulator):
            self.relay()
        self.neuron()

    @property
    def seen(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    def window(self, node: Node) -> int | None:
        return firing_window(node, self.seen)

    def pick(self, nodes: list[Node]) -> Node:
        return self.draw(st.sampled_from(nodes))

    def population(self, shape: tuple[int, ...], most: int) -> Node:
        """One that fires so often at most, on a linear layer of its own."""
        source = next(n for n in reversed(self.nodes) if isinstance(n, Neuron | Source))
        weights = (self.weights((prod(shape), prod(source.shape))),)
        payload = emitted_payload(source)
        self.add_accumulator((prod(shape),), [Projection(source.name, "linear", weights, payload)])
        ticks, self.ticks = self.ticks, min(self.ticks, most)
        self.neuron()
        self.ticks = ticks
        made = self.nodes.pop()
        assert isinstance(made, Neuron)
        one = made.threshold if made.threshold is None else made.threshold[:1]
        decays = {k: _largest(getattr(made, k)) for k in ("decay", "current")}
        levels = made.levels[:1]
        self.nodes.append(replace(made, shape=shape, levels=levels, threshold=one, **decays))
        return self.last

    def gate(self) -> None:
        """Of a train there is and another, of its shape or of one position."""
        trains = [n for n in self.nodes if self.window(n) is not None]
        fitting = [n for n in trains if emitted_payload(n) <= MOST_COUNT]
        if not fitting:
            return
        one = self.pick(fitting)
        most = MOST_COUNT // emitted_payload(one)
        single = (one.shape[0], *(1 for _ in one.shape[1:]))
        others = [n for n in fitting if emitted_payload(n) <= most and n.shape == one.shape]
        shape = single if self.flip(3) else one.shape
        two = self.pick(others) if others and self.flip() else self.population(shape, most)
        a, b = self.together(*((one, two) if self.flip() else (two, one)))
        binary = b.tick_reach(self.seen) == 1
        kind = "and-not" if binary and self.flip() else "and"
        payload = emitted_payload(a) * emitted_payload(b)
        self.nodes.append(Gate(self.name("g"), one.shape, a.name, b.name, kind, payload, "m.gate"))

    def together(self, *nodes: Node) -> list[Node]:
        """The nodes, those relayed that fire before the others."""
        late = max(self.window(node) or 0 for node in nodes)
        return [self.relayed(node, late) for node in nodes]

    def relayed(self, node: Node, window: int) -> Node:
        payload = emitted_payload(node)
        if self.window(node) == window:
            return node
        self.nodes.append(Relay(self.name("r"), node.shape, node.name, window, payload, "m.relay"))
        return self.last

    def sum(self) -> None:
        """Of spikes, or of sums of them; of one node with itself, too."""
        whole = [
            node
            for node in self.nodes
            if not node.is_signed(self.seen) and emitted_payload(node) < _LARGE
        ]
        one = self.pick(whole)
        alike = [node for node in whole if node.shape == one.shape]
        two = self.pick(alike) if self.flip() else self.population(one.shape, MOST_COUNT)
        payload = emitted_payload(one) + emitted_payload(two)
        self.nodes.append(Sum(self.name("s"), one.shape, one.name, two.name, payload, "m.sum"))

    def most_read(self) -> int:
        """What a layer may read at most: of accumulators parts, of anything else all at once."""
        return _MOST_PAYLOAD if isinstance(self.last, Accumulator) else _LARGE

    def maximum(self) -> None:
        """Of potentials, or of a maximum of those."""
        if emitted_payload(self.last) >= _LARGE:
            return
        self.accumulator()
        if isinstance(self.last, Accumulator) and len(self.last.shape) == 3:
            for _ in range(self.draw(st.integers(1, 2))):
                self.pool("max")
            self.relay()
        self.neuron()


def _largest(decay: Factor) -> Factor:
    """That of the channel that keeps most."""
    numerator, shift = decay
    return max(numerator) if isinstance(numerator, tuple) else numerator, shift
