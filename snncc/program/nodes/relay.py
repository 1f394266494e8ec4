"""A spike train once more, in a later firing window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from snncc.program.nodes.base import (
    ALL,
    NODE_READERS,
    Array,
    Network,
    Node,
    Nodes,
    Readers,
    Shape,
    Spikes,
    Taken,
    require,
)
from snncc.program.nodes.firing import Firing
from snncc.program.nodes.gate import MOST_COUNT
from snncc.program.nodes.pool import Pool
from snncc.program.timing import firing_window

__all__ = ["Relay"]


@dataclass(frozen=True)
class Relay(Firing):
    """Emits the spike train of its source once more, tick for tick, in a later firing window.

    Attributes:
        name: Unique in the Program.
        shape: That of the source.
        source: A neuron, another relay, a gate, or a max-pool of one.
        depth: Firing window of the repetition; the source's burst is over before it.
        payload: Spikes per element and timestep at most.
        module: Torch module path, for people.
    """

    name: str
    shape: Shape
    source: str
    depth: int
    payload: int
    module: str = ""

    readers: ClassVar[Readers] = {**NODE_READERS, "source": ALL, "depth": ALL, "payload": ALL}

    def check(self, program: Network, nodes: Nodes) -> None:
        """See Node."""
        source = nodes[self.source]
        train = firing_window(source, nodes) is not None
        require(train, f"reads '{self.source}', which fires no spike train")
        require(self.shape == source.shape, f"reads {source.shape} as {self.shape}")
        reach = source.reach
        require(reach <= self.payload <= MOST_COUNT, f"payload {self.payload}, not {reach}")
        self.check_depth(program, nodes)

    # -- what it emits -------------------------------------------------------------------------

    @property
    def reach(self) -> int:
        """See Node."""
        return self.payload

    def tick_reach(self, nodes: Nodes) -> int:
        """That of its source; of a product of bursts that is more than one: see Node."""
        node: Node = self
        while isinstance(node, Relay | Pool):  # through thousands, perhaps: this is no recursion
            node = nodes[node.source]
        return node.tick_reach(nodes)

    @property
    def has_tickwise_maximum(self) -> bool:
        """It may repeat a product of bursts, which is no thermometer: see Node."""
        return False

    @property
    def is_kept(self) -> bool:
        """Engines may let its readers wait instead: see Node."""
        return False

    def spikes(
        self, counts: Mapping[str, Array], before: Mapping[str, Spikes], nodes: Nodes
    ) -> Spikes | None:
        """Those of its source: see Node."""
        return before.get(self.source)

    def taken(self, program: Network) -> Taken:
        """A neuron for each output, with one synapse: see Node."""
        each = prod(self.shape)
        return Taken(each, each, self.shape[0], 1, self.payload)
