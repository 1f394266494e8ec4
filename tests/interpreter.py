"""The third oracle: a Program in plain Python integers, naive on purpose.

A node's values are a dict from index to int, in C order. There are no ticks: a neuron's spike
count is the number of its levels that its potential, or its membrane, reaches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

import numpy as np

from snncc.backends.clocked.engine import ClockedEngine
from snncc.program import (
    Accumulator,
    Attention,
    Gate,
    Neuron,
    Node,
    Pool,
    Program,
    Projection,
    Readout,
    Relay,
    Source,
    Sum,
)

Index = tuple[int, ...]
Values = dict[Index, int]
Results = dict[str, np.ndarray]
#: Per neuron: what is left of its membrane, what the next one is lowered by, and its current.
Memory = dict[tuple[str, Index], tuple[int, int, int]]


def interpret(program: Program, x: np.ndarray) -> tuple[Results, Results, Results]:
    """Spike counts, potentials and readouts by node name, int64 (T, N, *shape)."""
    repeated = x.ndim == len(program.source.shape) + 1
    steps = [x] * program.timesteps if repeated else list(x)
    memories: list[Memory] = [{} for _ in steps[0]]
    runs = [
        [_evaluate(program, sample, m) for sample, m in zip(step, memories, strict=True)]
        for step in steps
    ]

    def collect(nodes: tuple[Any, ...]) -> Results:
        return {n.name: _stacked([[v[n.name] for v in step] for step in runs], n) for n in nodes}

    return collect(program.neurons), collect(program.accumulators), collect(program.readouts)


def _stacked(runs: list[list[Values]], node: Node) -> np.ndarray:
    flat = [[list(values.values()) for values in step] for step in runs]
    return np.array(flat, dtype=np.int64).reshape(len(runs), len(runs[0]), *node.shape)


@dataclass(frozen=True)
class Step:
    """A timestep of a sample: what the nodes so far emitted in it, and what neurons remember."""

    program: Program
    sample: np.ndarray
    memory: Memory
    values: dict[str, Values] = field(default_factory=dict)


def _evaluate(program: Program, sample: np.ndarray, memory: Memory) -> dict[str, Values]:
    step = Step(program, sample, memory)
    for node in program.nodes:
        step.values[node.name] = dict(zip(_indices(node), _emitted(node, step), strict=True))
    return step.values


def _indices(node: Node) -> Iterator[Index]:
    return product(*map(range, node.shape))


def _emitted(node: Node, step: Step) -> list[int]:
    """What a node emits in a timestep, in C order; of a kind that has no rule here an error."""
    if type(node) not in _RULES:
        raise TypeError(f"the interpreter has no rule for nodes of kind '{type(node).__name__}'")
    return _RULES[type(node)](node, step)


def _source(node: Source, step: Step) -> list[int]:
    return [int(v) for v in step.sample.ravel()]


def _accumulator(node: Accumulator, step: Step) -> list[int]:
    return [
        0 if _masked(node, i, step.sample) else _potential(node, step.values, i)
        for i in _indices(node)
    ]


def _neuron(node: Neuron, step: Step) -> list[int]:
    read = step.values[node.source].values()
    return [_fired(node, i, v, step.memory) for i, v in zip(_indices(node), read, strict=True)]


def _pool(node: Pool, step: Step) -> list[int]:
    return [_pooled(node, step.values[node.source], i) for i in _indices(node)]


def _attention(node: Attention, step: Step) -> list[int]:
    return _attended(node, *(list(step.values[name].values()) for name in (node.q, node.k, node.v)))


def _gate(node: Gate, step: Step) -> list[int]:
    """Counts of a times those of b, or times the spikes that b did not fire."""
    top = step.program.by_name[node.b].reach
    found = []
    for index in _indices(node):
        a, b = (_of_channel(step.values[name], index) for name in (node.a, node.b))
        found.append(a * b if node.kind == "and" else a * (top - b))
    return found


def _sum(node: Sum, step: Step) -> list[int]:
    a, b = step.values[node.a], step.values[node.b]
    return [a[index] + b[index] for index in _indices(node)]


def _of_channel(values: Values, index: Index) -> int:
    """What there is at an index, or of all its channel where that has but one number."""
    return values[index] if index in values else values[(index[0], *(0 for _ in index[1:]))]


def _same(node: Relay | Readout, step: Step) -> list[int]:
    return list(step.values[node.source].values())


_RULES: dict[type[Node], Callable[[Any, Step], list[int]]] = {
    Source: _source,
    Accumulator: _accumulator,
    Neuron: _neuron,
    Pool: _pool,
    Relay: _same,
    Attention: _attention,
    Gate: _gate,
    Sum: _sum,
    Readout: _same,
}


def _fired(node: Neuron, index: Index, potential: int, memory: Memory) -> int:
    if node.carry == "none":
        return _count(node, index[0], potential)
    (numerator, shift), (current, current_shift) = (
        (n[index[0]] if isinstance(n, tuple) else n, bits) for n, bits in (node.decay, node.current)
    )
    left, owed, flow = memory.get((node.name, index), (0, 0, 0))
    flow = flow * current // 2**current_shift + potential * 2**node.fraction
    h = left * numerator // 2**shift + flow - owed
    threshold = int(node.threshold[index[0] if len(node.threshold) > 1 else 0])
    raised = threshold if node.carry == "raised" and _count(node, index[0], left) else 0
    count = _count(node, index[0], h - raised)
    taken = count * threshold
    stays = {"hard": (0 if count else h, 0), "delayed": (h, taken)}
    memory[node.name, index] = (*stays.get(node.carry, (h - taken, 0)), flow)
    return count


def _count(node: Neuron, channel: int, potential: int) -> int:
    row = node.levels[channel if len(node.levels) > 1 else 0]
    return sum(potential >= level for level in row.tolist())


def _masked(node: Accumulator, index: Index, sample: np.ndarray) -> bool:
    """Whether the source's last channel is not 0 at the first position of the index's patch."""
    if node.masked is None:
        return False
    sizes = zip(node.masked, node.shape[1:], sample.shape[1:], index[1:], strict=True)
    first = tuple((at * n // own) * (its // n) for n, own, its, at in sizes)
    return int(sample[(-1, *first)]) != 0


def _potential(node: Accumulator, values: dict[str, Values], index: Index) -> int:
    bias = node.bias[index if node.bias.shape == node.shape else index[:1]]
    return int(bias) + sum(_current(p, values[p.source], index) for p in node.projections)


def _weight(p: Projection, index: Index) -> int:
    return sum(int(w[index]) * 256**k for k, w in enumerate(p.weights))


def _current(p: Projection, values: Values, index: Index) -> int:
    if p.kind == "identity":
        half = 2 ** (p.drop - 1) if p.drop else 0
        return (values[index] + half) // 2**p.drop
    return 2**p.shift * _weighted(p, values, index)


def _weighted(p: Projection, values: Values, index: Index) -> int:
    if p.kind == "linear":
        return sum(_weight(p, (*index, k)) * v for k, v in enumerate(values.values()) if v)
    o, y, x = index
    out, per_group, kh, kw = p.weights[0].shape
    first = o // (out // p.groups) * per_group
    total = 0
    for c, i, j in product(range(per_group), range(kh), range(kw)):
        at_y = y * p.strides[0] - p.pads[0] + i * p.dilations[0]
        at_x = x * p.strides[1] - p.pads[1] + j * p.dilations[1]
        if v := values.get((first + c, at_y, at_x), 0):
            total += _weight(p, (o, c, i, j)) * v
    return total


def _pooled(node: Pool, values: Values, index: Index) -> int:
    c, y, x = index
    top, left = y * node.strides[0] - node.pads[0], x * node.strides[1] - node.pads[1]
    window = product(range(top, top + node.kernel[0]), range(left, left + node.kernel[1]))
    inside = [values[(c, i, j)] for i, j in window if (c, i, j) in values]
    return max(inside) if node.kind == "max" else sum(inside)


def _attended(node: Attention, q: list[int], k: list[int], v: list[int]) -> list[int]:
    """Sums over i and m of q[i, n] k[i, m] v[j, m], head by head, in the C order of (h, j, n)."""
    N = prod(node.shape[1:])
    e = node.shape[0] // node.heads
    M, d = len(v) // node.shape[0], len(q) // N // node.heads
    return [
        sum(
            q[(h * d + i) * N + n] * k[(h * d + i) * M + m] * v[(h * e + j) * M + m]
            for i, m in product(range(d), range(M))
        )
        for h, j, n in product(range(node.heads), range(e), range(N))
    ]


def assert_interpreted(program: Program, x: np.ndarray, pipelined: bool = False) -> None:
    """Counts, trains, potentials and results are what plain integers say."""
    expected, potentials, readouts = interpret(program, x)
    probes = [n.name for n in (*program.neurons, *program.accumulators)]
    found = ClockedEngine(program, pipelined).run(x, probes=probes, batch=2)
    for name, values in {**expected, **potentials, **readouts}.items():
        got = {**found.counts, **found.potentials, **found.readouts}[name]
        np.testing.assert_array_equal(got, values, err_msg=name)
    for neuron in program.neurons:
        ticks = np.arange(neuron.D).reshape(-1, *(1,) * (len(neuron.shape) + 1))
        train = expected[neuron.name][:, None] > ticks
        np.testing.assert_array_equal(found.spikes[neuron.name], train, err_msg=neuron.name)
