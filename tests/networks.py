"""Hypothesis strategies: small random valid Programs, with inputs that fit them.

Structure is drawn, so it shrinks; numbers come from a generator with a drawn seed.
"""

from __future__ import annotations

from dataclasses import replace
from math import gcd
from typing import Any

import numpy as np
from hypothesis import strategies as st

from snncc.program import (
    Accumulator,
    Neuron,
    Node,
    Pool,
    Program,
    Projection,
    Readout,
    Source,
    pooled_size,
)
from snncc.program.bounds import bounded, emitted_payload, potential_bounds
from snncc.program.membrane import Factor
from snncc.program.nodes.projection import coarse
from snncc.program.timing import required_depth

__all__ = ["cases", "chain", "changed", "half_even_levels", "programs", "samples"]

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


@st.composite
def programs(draw: st.DrawFn, max_layers: int = 4) -> Program:
    """Valid Programs: 1 to ``max_layers`` layers, D 1 to 15 mixed, T 1 to 4, memory, masks."""
    net = _Builder(draw)
    net.source()
    for _ in range(draw(st.integers(1, max_layers))):
        net.layer()
    net.readouts()
    program = Program("net", tuple(net.nodes), net.timesteps, net.ticks)
    program.validate()
    return program


@st.composite
def samples(draw: st.DrawFn, program: Program) -> np.ndarray:
    """Inputs for ``program``: (N, *shape), or (T, N, *shape) where a sequence is drawn."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    source = program.source
    lead = (program.timesteps,) if draw(st.booleans()) else ()
    shape = (*lead, draw(st.integers(1, 3)), *source.shape)
    x = rng.integers(0, source.payload + 1, shape)
    if any(a.masked for a in program.accumulators):
        x[..., -1, :, :] *= rng.random(x[..., -1, :, :].shape) < 0.5  # 0: an active patch
    return np.where(rng.random(shape) < rng.choice([0.2, 1.0]), x, 0).astype(np.uint8)


@st.composite
def cases(draw: st.DrawFn, max_layers: int = 4) -> tuple[Program, np.ndarray]:
    """A Program and an input."""
    program = draw(programs(max_layers=max_layers))
    return program, draw(samples(program))


def half_even_levels(theta: np.ndarray, D: int) -> np.ndarray:
    """Levels (C, D) of round-half-to-even(v / theta) for thresholds (C,)."""
    k = np.arange(1, D + 1)
    return np.asarray(((2 * k - 1) * theta[:, None] + (k & 1) + 1) // 2)


def chain() -> tuple[Program, np.ndarray]:
    """A fixed network with many ties, conv - n1 - conv - n2 - conv - n3, and 8 samples for it."""
    rng = np.random.default_rng(7)
    nodes: list[Any] = [Source("x", (2, 6, 6), 3)]
    payload, D = 3, 4
    for i in (1, 2, 3):
        weights = (rng.integers(-2, 4, (4, nodes[-1].shape[0], 3, 3)).astype(np.int8),)
        p = Projection(nodes[-1].name, "conv", weights, payload, pads=(1, 1, 1, 1))
        bias = rng.integers(1, 5, 4)
        levels = half_even_levels(np.array([6, 8, 10, 12]), D)
        nodes.append(Accumulator(f"v{i}", (4, 6, 6), (p,), bias, -(2**20), 2**20))
        nodes.append(Neuron(f"n{i}", (4, 6, 6), f"v{i}", levels, i - 1))
        payload = D
    program = Program("chain", (*nodes, Readout("y", (4, 6, 6), "n3", 1.0)), ticks=D)
    program.validate()
    return program, rng.integers(0, 4, (8, 2, 6, 6)).astype(np.uint8)


def changed(program: Program, name: str, **values: Any) -> Program:
    """The Program with fields of one node changed."""
    nodes = tuple(replace(n, **values) if n.name == name else n for n in program.nodes)
    return replace(program, nodes=nodes)


class _Builder:
    """Appends nodes; ``self.last`` is the node that the next layer reads."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.rng = np.random.default_rng(draw(st.integers(0, 2**16)))
        self.ticks = draw(st.sampled_from([1, 2, 3, 4, 4, 8, 15]))
        self.ties = draw(st.booleans())
        self.timesteps = draw(st.integers(1, 4))
        self.nodes: list[Node] = []

    @property
    def last(self) -> Node:
        return self.nodes[-1]

    def flip(self, one_in: int = 2) -> bool:
        return self.draw(st.integers(0, one_in - 1)) == one_in - 1

    def pair(self, low: int, high: int) -> Pair:
        return self.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    def name(self, kind: str) -> str:
        return f"{kind}{len(self.nodes)}"

    def source(self) -> None:
        size = st.integers(1, 5)
        spatial = st.tuples(st.integers(1, 4), size, size)
        shape = self.draw(st.one_of(spatial, spatial, st.tuples(size)))
        self.nodes.append(Source("x", shape, self.draw(st.sampled_from([1, 3, 255]))))

    def layer(self) -> None:
        """Current, perhaps pooled in the membrane domain, neuron, perhaps a pool of its spikes."""
        if isinstance(self.last, Source) and self.flip(6):
            self.pool(self.draw(st.sampled_from(["max", "sum"])))
        if isinstance(self.last, (Source, Pool)) and self.flip(6):
            self.relay()
        else:
            self.accumulator()
        if self.last.is_potential and self.flip(16):
            self.relay()
        small = emitted_payload(self.last) < 2**12
        if small and self.flip(6):
            return  # two linear layers in a row: a graded potential is projected
        if self.flip(4):
            self.membrane_pool()
        self.neuron()
        if self.flip(3):
            self.pool(self.draw(st.sampled_from(["max", "sum"])))
            if isinstance(self.last, Pool) and self.last.kind == "max" and self.flip(4):
                self.pool(self.draw(st.sampled_from(["max", "sum"])))

    # -- accumulators ----------------------------------------------------------------------

    def accumulator(self) -> None:
        source = self.last
        conv = len(source.shape) == 3 and not self.flip(5)
        first, shape = self.conv(source) if conv else self.linear(source)
        projections = [first]
        if self.flip(4):  # a second path with the same geometry
            weights = tuple(self.weights(w.shape) for w in first.weights)
            projections.append(replace(first, weights=weights))
        if self.flip():
            projections += self.shortcut(shape)
        self.add_accumulator(shape, projections)

    def add_accumulator(self, shape: tuple[int, ...], projections: list[Projection]) -> None:
        bias_shape = shape if self.flip(3) else shape[:1]
        none = np.zeros(bias_shape, dtype=np.int64)
        node = Accumulator(
            self.name("v"), shape, tuple(projections), none, 0, 0, "m.linear", self.patches(shape)
        )
        seen = {n.name: n for n in self.nodes}
        fits = [replace(p, shift=min(p.shift, 62 - 8 * len(p.weights))) for p in projections]
        node = replace(node, projections=tuple(fits))
        while max(map(abs, potential_bounds(node, seen))) >= 2**58:
            if not any(p.shift for p in node.projections):
                break  # a potential as it is, which has grown by its bias: 62 bits still hold it
            lower = tuple(replace(p, shift=p.shift * 3 // 4) for p in node.projections)
            node = replace(node, projections=lower)
        reach = max(map(abs, potential_bounds(node, seen))) // 4 + 1
        bias = self.rng.integers(-reach, reach, bias_shape, endpoint=True)
        if self.ties:
            bias = (bias.astype(np.int64) >> 3) << 3
        self.nodes.append(bounded(replace(node, bias=bias.astype(np.int64)), seen))

    def patches(self, shape: tuple[int, ...]) -> Pair | None:
        """Those of a mask that covers both the source and ``shape``; mostly none."""
        source = self.nodes[0].shape
        if len(shape) != 3 or len(source) != 3 or source[0] < 2 or not self.flip(3):
            return None
        sides = [gcd(source[i], shape[i]) for i in (1, 2)]
        h, w = (self.draw(st.sampled_from([n for n in (1, 2, 3, s) if s % n == 0])) for s in sides)
        return h, w

    def shortcut(self, shape: tuple[int, ...]) -> list[Projection]:
        """The identity from the latest accumulator, pool or neuron of this shape."""
        fits = [n for n in self.nodes if n.shape == shape and emitted_payload(n) < 2**40]
        return [Projection(n.name, "identity", (), emitted_payload(n)) for n in fits[-1:]]

    def weights(self, shape: tuple[int, ...]) -> np.ndarray:
        if self.ties:
            w = (1 << self.rng.integers(0, 7, shape)) * self.rng.choice([-1, 0, 1], shape)
        else:
            top = self.rng.choice([1, 127])
            w = self.rng.integers(-top, top, shape, endpoint=True)
        return np.asarray(w, dtype=np.int8)

    def slices(self, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        count = self.draw(st.sampled_from([1, 1, 2, 3]))
        return tuple(self.weights(shape) for _ in range(count))

    def shift(self) -> int:
        """Mostly small; of layers far heavier than others so large that potentials just hold it."""
        return self.draw(st.sampled_from([0, 0, 1, 5, 40]))

    def linear(self, source: Node) -> tuple[Projection, tuple[int, ...]]:
        out = self.draw(st.integers(1, 5))
        weights = self.slices((out, int(np.prod(source.shape))))
        payload = emitted_payload(source)
        return Projection(source.name, "linear", weights, payload, shift=self.shift()), (out,)

    def conv(self, source: Node) -> tuple[Projection, tuple[int, ...]]:
        channels, *size = source.shape
        groups = self.draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
        out = groups * self.draw(st.integers(1, 3 if groups < 3 else 2))
        strides, dilations = self.pair(1, 2), self.pair(1, 2)
        pads = (*self.pair(0, 2), *self.pair(0, 2))
        kernel = [
            k if d * (k - 1) < n + before + after else 1
            for k, d, n, before, after in zip(
                self.pair(1, 3), dilations, size, pads[:2], pads[2:], strict=True
            )
        ]
        weights = self.slices((out, channels // groups, *kernel))
        payload = emitted_payload(source)
        geometry = (strides, pads, dilations, groups, self.shift())
        p = Projection(source.name, "conv", weights, payload, *geometry)
        return p, (out, *_window_sizes(size, kernel, strides, pads, dilations))

    # -- pools and neurons -----------------------------------------------------------------

    def membrane_pool(self) -> None:
        """Sums potentials over windows into a further accumulator."""
        self.pool("sum")
        self.relay()

    def relay(self) -> None:
        """An accumulator of the last node itself, without weights."""
        source = self.last
        is_coarse = source.is_potential and self.flip(8)
        drop = self.draw(st.sampled_from([1, 6, 33])) if is_coarse else 0
        payload = coarse(emitted_payload(source), drop)
        through = Projection(source.name, "identity", (), payload, drop=drop)
        self.add_accumulator(source.shape, [through])

    def pool(self, kind: str) -> None:
        source = self.last
        if len(source.shape) != 3:
            return
        size = source.shape[1:]
        kernel: Any = tuple(map(min, self.pair(1, 3), size))
        pads: Any = tuple(self.draw(st.integers(0, k - 1)) for k in (*kernel, *kernel))
        strides = self.pair(1, 2)
        shape = (source.shape[0], *_window_sizes(size, kernel, strides, pads, (1, 1)))
        payload = emitted_payload(source) * (1 if kind == "max" else kernel[0] * kernel[1])
        if payload < 2**31:
            name = self.name("p")
            self.nodes.append(
                Pool(name, shape, source.name, kind, kernel, strides, pads, payload, "m.pool")
            )

    def neuron(self) -> None:
        source = self.last
        D = self.ticks if self.flip() else self.draw(st.integers(1, self.ticks))
        flat = self.flip(6)
        shape = (int(np.prod(source.shape)),) if flat else source.shape
        levels = self.levels(1 if flat or self.flip(3) else shape[0], emitted_payload(source), D)
        node = Neuron(self.name("n"), shape, source.name, levels, 0, module="m.fire")
        if self.flip() and emitted_payload(source) < 2**36:
            node = self.with_memory(node)
        seen = {n.name: n for n in self.nodes}
        depth = required_depth(node, seen) + int(self.flip(8))
        self.nodes.append(replace(node, depth=depth))

    def with_memory(self, node: Neuron) -> Neuron:
        """The population with a membrane that stays over timesteps, in fixed point."""
        decay = self.draw(st.sampled_from([(1, 1), (3, 2), (1, 2), (1, 0), (0, 0), (28087, 16)]))
        decay = self.of_each(decay, len(node.levels))
        exact = decay[1] * (self.timesteps - 1)
        fraction = exact if exact < 16 and self.flip() else self.draw(st.integers(0, 6))
        gaps = np.maximum(np.abs(node.levels).max(axis=1) // node.D, 1) << fraction
        levels = node.levels << fraction
        if not self.ties:
            levels = levels + self.rng.integers(0, 1 << fraction, (len(levels), 1))
        carry = self.draw(st.sampled_from(["soft", "hard", "delayed", "raised"]))
        current = self.draw(st.sampled_from([(0, 0)] * 4 + [(1, 0), (3, 2), (50000, 16)]))
        current = self.of_each(current, len(node.levels))
        return replace(
            node, levels=levels, carry=carry, decay=decay, fraction=fraction,
            threshold=gaps * self.flip(), current=current,
        )  # fmt: skip

    def of_each(self, decay: Factor, channels: int) -> Factor:
        """A decay of its own for each channel, sometimes; the largest is as it was at most."""
        if channels == 1 or self.flip(3):
            return decay
        numerator, shift = decay
        return tuple(self.rng.integers(0, numerator + 1, channels).tolist()), shift

    def levels(self, channels: int, reach: int, D: int) -> np.ndarray:
        """Levels that potentials of up to ``reach`` do meet, with many ties where wanted."""
        if self.ties:
            octaves = max(1, (reach // (2 * D)).bit_length())
            theta = 1 << self.rng.integers(octaves // 2, octaves, channels)
            return half_even_levels(theta.astype(np.int64), D)
        top = max(1, reach // 2)
        return np.sort(self.rng.integers(-(top // 4), top, (channels, D), endpoint=True), axis=1)

    def readouts(self) -> None:
        """The last node, and perhaps a linear head."""
        if self.flip() and emitted_payload(self.last) < 2**12:
            body = self.last
            projection, shape = self.linear(body)
            self.add_accumulator(shape, [projection])
            if not isinstance(body, Accumulator) and self.flip():
                self.nodes.append(Readout("features", body.shape, body.name, 0.5))
        head = self.nodes[-1] if not isinstance(self.last, Readout) else self.nodes[-2]
        self.nodes.append(Readout("y", head.shape, head.name, 1.0))


def _window_sizes(
    size: Any, kernel: Any, strides: Pair, pads: Pads, dilations: Pair
) -> tuple[int, int]:
    h, w = (
        pooled_size(size[i], kernel[i], strides[i], pads[i] + pads[i + 2], dilations[i])
        for i in (0, 1)
    )
    return h, w
