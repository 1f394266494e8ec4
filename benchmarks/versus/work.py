"""How much there is to do: multiply-adds of dense inference, and those that an event causes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snncc.backends.base import Activity
from snncc.program import Accumulator, Array, Neuron, Pool, Program, Projection, Shape

__all__ = ["Work", "dense_macs", "emitted", "weighted", "work_of"]

Counts = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Work:
    """What one sample costs, on average.

    Attributes:
        macs: Multiply-adds of dense inference, padding included.
        event_macs: An event is a value that is not zero; each at each of its synapses.
        sops: The same for binary spikes: a burst of n is n of them; without the input's.
        density: Fraction of what the layers after the first read that is not zero.
        payload: Mean size of those events.
    """

    macs: float
    event_macs: float
    sops: float
    density: float
    payload: float


def work_of(program: Program, inputs: Array, activity: Activity) -> Work:
    """The work of samples (N, *shape) whose activity is known; T = 1."""
    read = emitted(program, inputs, activity)
    pairs = [(a, p, read[p.source]) for a, p in weighted(program) if p.source in read]
    inner = [(p, x) for _, p, x in pairs if p.source != program.source.name]
    values = [x for _, x in inner] or [inputs]
    events = sum(int(np.count_nonzero(x)) for x in values)
    n = len(inputs)
    return Work(
        macs=sum(dense_macs(a, p) for a, p, _ in pairs),
        event_macs=sum(float((_fan_out(p, x.shape[1:]) * (x > 0)).sum()) for _, p, x in pairs) / n,
        sops=sum(float((_fan_out(p, x.shape[1:]) * x).sum()) for p, x in inner) / n,
        density=events / sum(x.size for x in values),
        payload=sum(int(x.sum(dtype=np.int64)) for x in values) / max(events, 1),
    )


def emitted(program: Program, inputs: Array, activity: Activity) -> Mapping[str, Array]:
    """What source, populations and max-pools emit, by name, (N, *shape)."""
    found: dict[str, Array] = {program.source.name: inputs}
    for node in program.nodes:
        if isinstance(node, Neuron):
            found[node.name] = activity.counts[node.name][0]
        elif isinstance(node, Pool) and node.kind == "max" and node.source in found:
            found[node.name] = _maxima(found[node.source], node)
    return found


def _maxima(x: Array, pool: Pool) -> Array:
    top, left, bottom, right = pool.pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    every = np.lib.stride_tricks.sliding_window_view(padded, pool.kernel, axis=(2, 3))
    return np.asarray(every[:, :, :: pool.strides[0], :: pool.strides[1]].max((4, 5)))


def weighted(program: Program) -> Iterator[tuple[Accumulator, Projection]]:
    """Projections that have weights."""
    for accumulator in program.accumulators:
        for p in accumulator.projections:
            if p.kind != "identity":
                yield accumulator, p


def dense_macs(node: Accumulator, p: Projection) -> int:
    """Multiply-adds of dense inference, padding included."""
    return int(np.prod(node.shape)) * int(np.prod(p.weights[0].shape[1:]))


def _fan_out(p: Projection, shape: Shape) -> Array:
    """Synapses of each element of ``shape``, broadcastable against it."""
    outputs = p.weights[0].shape[0]
    if p.kind == "linear":
        return np.full((1,) * len(shape), outputs)
    h, w = (_windows(p, axis, shape[1 + axis]) for axis in (0, 1))
    return np.asarray(h[:, np.newaxis] * w * (outputs // p.groups))


def _windows(p: Projection, axis: int, size: int) -> Array:
    """For each position of an axis the number of outputs that read it."""
    taps = p.weights[0].shape[2 + axis]
    stride, step = p.strides[axis], p.dilations[axis]
    before, after = p.pads[axis], p.pads[axis + 2]
    found = np.zeros(size + before + after, dtype=np.int64)
    last = len(found) - step * (taps - 1)
    for tap in range(taps):
        found[tap * step : tap * step + last : stride] += 1
    return found[before : before + size]
