"""Programs with attention: one by hand, and random ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from networks import _Builder, half_even_levels, samples

from snncc.program import (
    Accumulator,
    Attention,
    Neuron,
    Node,
    Pool,
    Program,
    Projection,
    Readout,
    Relay,
    Source,
)
from snncc.program.attention import cheaper_order, reach_of
from snncc.program.bounds import bounded, emitted_payload
from snncc.program.timing import required_depth

__all__ = ["attention_cases", "attention_programs", "one_attention"]


@st.composite
def attention_programs(draw: st.DrawFn) -> Program:
    """A stem, q, k and v of it, their products, a neuron, perhaps more layers; both orders."""
    net = _AttentionBuilder(draw)
    net.source()
    net.layer()
    for _ in range(draw(st.integers(1, 2))):
        net.attention()
        if net.flip():
            net.layer()
    net.readouts()
    program = Program("net", tuple(net.nodes), net.timesteps, net.ticks)
    program.validate()
    return program


@st.composite
def attention_cases(draw: st.DrawFn) -> tuple[Program, np.ndarray]:
    """A Program with attention and an input for it."""
    program = draw(attention_programs())
    return program, draw(samples(program))


class _AttentionBuilder(_Builder):
    """Adds attention over the node that was last made."""

    def attention(self) -> None:
        """Three populations, at depths of their own; a relay where one must come later."""
        start = self.last
        heads, d, e = (self.draw(st.integers(1, 3)) for _ in range(3))
        trains = [self.train(start, heads * size) for size in (d, d, e)]
        if self.flip(5):
            trains[self.draw(st.integers(0, 1))] = trains[0]  # of q and k one population
        if self.flip(4):
            trains[1], trains[2] = self.pooled(trains[1]), self.pooled(trains[2])
        q, k, v = trains
        wanted = cheaper_order(q.shape, k.shape, v.shape, heads)
        order = wanted if self.flip() else self.draw(st.sampled_from(["kv", "qk"]))
        last = self.relayed({"kv": q, "qk": v}[order], [n for n in self.nodes if n in trains])
        q, v = (last, v) if order == "kv" else (q, last)
        payloads = (emitted_payload(q), emitted_payload(k), emitted_payload(v))
        _, reach = reach_of(order, q.shape, k.shape, heads, payloads)
        name, shape = self.name("a"), (v.shape[0], *q.shape[1:])
        made = Attention(name, shape, q.name, k.name, v.name, heads, order, reach, "m.attention")
        self.nodes.append(made)
        self.relay()
        self.neuron()

    def train(self, start: Node, channels: int) -> Node:
        """A population of so many channels, on a layer of its own that keeps the positions."""
        payload = emitted_payload(start)
        if len(start.shape) == 3:
            weights = (self.weights((channels, start.shape[0], 1, 1)),)
            p, shape = Projection(start.name, "conv", weights, payload), start.shape[1:]
        else:
            weights = (self.weights((channels, start.shape[0])),)
            p, shape = Projection(start.name, "linear", weights, payload), ()
        self.add_accumulator((channels, *shape), [p])
        self.neuron()
        return self.last if self.last.shape[0] == channels else self.reshaped((channels, *shape))

    def reshaped(self, shape: tuple[int, ...]) -> Node:
        """The last population, made flat by chance, in this shape again."""
        node = self.nodes.pop()
        assert isinstance(node, Neuron)
        self.nodes.append(replace(node, shape=shape))
        return self.last

    def pooled(self, train: Node) -> Node:
        """The train max-pooled, the same for all that are."""
        if len(train.shape) != 3:
            return train
        size = (train.shape[0], (train.shape[1] + 1) // 2, (train.shape[2] + 1) // 2)
        name, payload = self.name("p"), emitted_payload(train)
        at = Pool(name, size, train.name, "max", (1, 1), (2, 2), (0, 0, 0, 0), payload)
        self.nodes.append(at)
        return at

    def relayed(self, last: Node, trains: list[Node]) -> Node:
        """``last`` in a window after all ``trains``."""
        name, seen = self.name("r"), {n.name: n for n in self.nodes}
        made = Relay(name, last.shape, last.name, 0, emitted_payload(last), "m.relay")
        depths = (required_depth(replace(made, source=n.name), seen) for n in trains)
        self.nodes.append(replace(made, depth=max(depths) + int(self.flip(8))))
        return self.last


def one_attention(order: str = "kv", seed: int = 0) -> tuple[Program, np.ndarray]:
    """A stem and attention of 2 heads, d = 3, e = 5, over 3 by 4 positions; every D is 4."""
    rng = np.random.default_rng(seed)
    nodes: list[Any] = [Source("x", (2, 3, 4), 255)]

    def population(name: str, source: str, channels: int, depth: int, scale: int) -> None:
        reads = next(n for n in nodes if n.name == source)
        payload = emitted_payload(reads)
        w = rng.integers(-3, 6, (channels, reads.shape[0], 1, 1)).astype(np.int8)
        p = Projection(source, "conv", (w,), payload)
        bias = rng.integers(0, scale, channels)
        made = Accumulator(f"{name}:v", (channels, 3, 4), (p,), bias, 0, 0, f"m.{name}")
        levels = half_even_levels(np.full(channels, scale), 4)
        nodes.append(bounded(made, {source: reads}))
        nodes.append(Neuron(name, (channels, 3, 4), f"{name}:v", levels, depth, module=f"m.{name}"))

    population("stem", "x", 6, 0, 301)
    for name, channels in (("q", 6), ("k", 6), ("v", 10)):
        population(name, "stem", channels, 1, 7)
    late = {"kv": "q", "qk": "v"}[order]
    channels = {"q": 6, "v": 10}[late]
    nodes.append(Relay(f"{late}:again", (channels, 3, 4), late, 2, 4))
    reads = {n: f"{n}:again" if n == late else n for n in "qkv"}
    reach = 3 * 12 * 4**3
    nodes.append(Attention("a", (10, 3, 4), *(reads[n] for n in "qkv"), 2, order, reach, "m.attn"))
    whole = Projection("a", "identity", (), reach)
    none = np.zeros(10, np.int64)
    nodes.append(Accumulator("a:v", (10, 3, 4), (whole,), none, -reach, reach, "m.attn"))
    levels = half_even_levels(np.full(10, 128), 4)  # even: ties are common, as in trained networks
    nodes.append(Neuron("fire", (10, 3, 4), "a:v", levels, 3, module="m.fire"))
    program = Program("attention", (*nodes, Readout("y", (10, 3, 4), "fire", 1.0)), ticks=4)
    program.validate()
    return program, rng.integers(0, 256, (5, 2, 3, 4)).astype(np.uint8)
