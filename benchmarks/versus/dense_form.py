"""A Program as dense inference sees it: rounded, clipped quotients of potentials and thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from snncc.errors import Fault, UnsupportedModelError
from snncc.program import Accumulator, Neuron, Program, Projection
from snncc.program.bounds import weight_reach

__all__ = ["column", "exact_in_float32", "foldable", "thresholds"]

Array = npt.NDArray[Any]


def thresholds(program: Program) -> dict[str, Array]:
    """Population -> theta int64 (C,) or (1,), where counts are clip(round(v / theta), 0, D).

    round is half to even.

    Raises:
        UnsupportedModelError: Populations with memory, or with levels that no theta gives.
    """
    found = {n.name: _theta(n) for n in program.neurons}
    faults = [
        Fault("its levels are not those of a division", node=n.name, module=n.module)
        for n in program.neurons
        if found[n.name] is None or n.carry != "none" or not _by_channel(program, n)
    ]
    if faults or program.timesteps > 1:
        raise UnsupportedModelError("no dense form of the network", faults)
    return {name: theta for name, theta in found.items() if theta is not None}


def _by_channel(program: Program, neuron: Neuron) -> bool:
    return len(neuron.levels) in (1, program.by_name[neuron.source].shape[0])


def _theta(neuron: Neuron) -> Array | None:
    first = neuron.levels[:, 0]
    for theta in (2 * first - 1, 2 * first - 2):  # odd, even
        if (theta > 0).all() and np.array_equal(_half_even(theta, neuron.D), neuron.levels):
            return np.asarray(theta)
    return None


def _half_even(theta: Array, D: int) -> Array:
    k = np.arange(1, D + 1)
    return np.asarray(((2 * k - 1) * theta[:, np.newaxis] + (k & 1) + 1) // 2)


def column(values: Array, rank: int) -> Array:
    """Values per channel, (C,) or (1,), broadcastable against (N, C, ...) or (C, ...).

    Args:
        values: One per channel, or one for all.
        rank: Of a sample, channels included.
    """
    return values.reshape(-1, *(1,) * (rank - 1))


def exact_in_float32(program: Program) -> bool:
    """Whether no sum, in whatever order, leaves the integers that float32 holds."""
    return all(_reach(node) < 2**24 for node in program.accumulators)


def _reach(node: Accumulator) -> int:
    synapses = sum(p.payload * _weight_reach(p) for p in node.projections)
    return synapses + int(np.abs(node.bias).max(initial=0))


def _weight_reach(p: Projection) -> int:
    return weight_reach(p.total()) if p.weights else 1


def foldable(program: Program, thetas: Mapping[str, Array]) -> dict[str, Array]:
    """Accumulator -> theta that may divide its weights and bias instead of its potential.

    One layer feeds it and one population alone reads it. Theta is odd: no potential lies on a
    rounding border, where the rounding of weights to float32 would decide.
    """
    found = {}
    for node in program.accumulators:
        readers, first = program.readers(node.name), node.projections[0]
        alone = len(readers) == len(node.projections) == 1 and first.weights
        theta = thetas.get(readers[0].name) if alone else None
        if theta is not None and (theta & 1).all():
            found[node.name] = theta
    return found
