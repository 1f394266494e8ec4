"""How far the integers of a Program can reach, proved from weights and payloads.

The bounds hold for all inputs and whatever the order of additions; backends with fewer bits prove
with the same functions that a network fits them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from snncc.program import Accumulator, Array, Neuron, Node, Pool, Projection, Readout
from snncc.program.membrane import Reach, membrane_reach

__all__ = [
    "bounded",
    "channel_sums",
    "emitted_payload",
    "membrane_bounds",
    "membrane_of",
    "potential_bounds",
    "weight_reach",
]

Nodes = Mapping[str, Node]
Range = tuple[int, int]


def emitted_payload(node: Node) -> int:
    """Largest absolute value per element that ``node`` emits in one timestep.

    Raises:
        ValueError: A readout emits nothing.
    """
    if isinstance(node, Neuron):
        return node.D
    if isinstance(node, Accumulator):
        return max(abs(node.low), abs(node.high))
    if isinstance(node, Readout):
        raise ValueError("a readout emits nothing")
    return int(node.payload)


def bounded(node: Accumulator, nodes: Nodes) -> Accumulator:
    """The accumulator with the bounds that are proved of its potential.

    Args:
        node: Its own bounds are not read.
        nodes: By name, those that it reads, and what pools among them read.
    """
    low, high = potential_bounds(node, nodes)
    return replace(node, low=low, high=high)


def potential_bounds(node: Accumulator, nodes: Nodes) -> Range:
    """Proved range of the complete potential, bias included; 0 is in it where patches are masked.

    Args:
        node: Its own bounds are not read.
        nodes: By name, those that it reads, and what pools among them read.
    """
    low, high = channel_sums(node, nodes)
    bias: Any = node.bias.reshape(node.shape[0], -1)
    least, most = int((low + bias.min(1)).min()), int((high + bias.max(1)).max())
    return (least, most) if node.masked is None else (min(least, 0), max(most, 0))


def channel_sums(node: Accumulator, nodes: Nodes) -> tuple[Array, Array]:
    """Per channel the sums of all that is negative, and of all that is positive, of what arrives.

    Any part of what arrives lies between them. Python's integers: nothing wraps round.
    """
    low = high = np.zeros(node.shape[0], dtype=object)
    for p in node.projections:
        below, above = _weight_sums(p, node.shape[0])
        if _is_signed(nodes[p.source], nodes):
            below, above = below - above, above - below
        low, high = low + p.payload * below, high + p.payload * above
    return low, high


def _weight_sums(p: Projection, channels: int) -> tuple[Array, Array]:
    """Per channel the sum of negative weights and that of positive ones; an identity's is 1."""
    if p.kind == "identity":
        return np.zeros(channels, dtype=object), np.ones(channels, dtype=object)
    rows = replace(p, shift=0).total().reshape(channels, -1)
    below, above = np.minimum(rows, 0).sum(1), np.maximum(rows, 0).sum(1)
    return below.astype(object) << p.shift, above.astype(object) << p.shift


def _is_signed(node: Node, nodes: Nodes) -> bool:
    """Whether a node may emit negative values: potentials may, spikes and pixels never."""
    while isinstance(node, Pool):
        node = nodes[node.source]
    return isinstance(node, Accumulator)


def membrane_bounds(node: Neuron, timesteps: int, potential: Range) -> Range:
    """Range of what the levels of a neuron are compared with.

    Args:
        node: The neuron.
        timesteps: T.
        potential: Range of the potential that it reads.
    """
    if node.threshold is None:
        return potential
    reach = membrane_of(node, timesteps, potential).compared
    return -reach, reach


def membrane_of(node: Neuron, timesteps: int, potential: Range) -> Reach:
    """How far the membrane of a neuron with memory reaches; arguments as ``membrane_bounds``."""
    assert node.threshold is not None
    drive = max(map(abs, potential)) << node.fraction
    loss = node.D * int(node.threshold.max()) if node.carry != "hard" else 0
    return membrane_reach(timesteps, node.decay, drive, loss, node.carry == "delayed")


def weight_reach(weights: Array) -> int:
    """Largest sum of absolute weights over the outputs."""
    return int(np.abs(weights.astype(np.int64)).reshape(len(weights), -1).sum(1).max())
