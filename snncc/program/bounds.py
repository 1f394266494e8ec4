"""How far the integers of a Program can reach, proved from weights and payloads.

The bounds hold for all inputs and whatever the order of additions; engines with fewer bits prove
with the same functions that a network fits them.
"""

from __future__ import annotations

from snncc.program import Accumulator, Neuron, Node, Program
from snncc.program.nodes.base import Nodes
from snncc.program.nodes.projection import weight_reach

__all__ = [
    "DIGIT",
    "bounded",
    "emitted_payload",
    "membrane_range",
    "potential_bounds",
    "weight_reach",
]

#: A slice of 8 bits meets graded payloads in digits of 8 bits: the largest that both signs have.
DIGIT = 127


def emitted_payload(node: Node) -> int:
    """Largest absolute value per element that ``node`` emits in one timestep.

    Raises:
        ValueError: A readout emits nothing.
    """
    return node.reach


def bounded(node: Accumulator, nodes: Nodes) -> Accumulator:
    """The accumulator with the bounds that are proved of its potential; its own are not read.

    Args:
        node: The accumulator.
        nodes: By name, those that it reads, and what pools among them read.
    """
    return node.bounded(nodes)


def potential_bounds(node: Accumulator, nodes: Nodes) -> tuple[int, int]:
    """Proved range of the complete potential; see ``Accumulator.potential_bounds``."""
    return node.potential_bounds(nodes)


def membrane_range(program: Program, node: Neuron) -> tuple[int, int]:
    """Range of what the levels of a neuron are compared with."""
    source = program.by_name[node.source]
    assert isinstance(source, Accumulator)
    potential = source.potential_bounds(program.by_name)
    return node.membrane_bounds(program.timesteps, potential)
