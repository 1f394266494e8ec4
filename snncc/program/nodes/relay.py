"""A spike train once more, in a later firing window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    Taken,
    require,
)
from snncc.program.timing import required_depth

__all__ = ["Relay"]


@dataclass(frozen=True)
class Relay(Node):
    """Emits the spike train of its source once more, tick for tick, in a later firing window.

    Attributes:
        name: Unique in the Program.
        shape: That of the source.
        source: A neuron, another relay, or a max-pool of one.
        depth: Firing window of the repetition; the source's burst is over before it.
        payload: Spikes per element and timestep at most: the ticks of the source's burst.
        module: Torch module path, for people.
    """

    name: str
    shape: Shape
    source: str
    depth: int
    payload: int
    module: str = ""

    readers: ClassVar[Readers] = {**NODE_READERS, "source": ALL, "depth": ALL, "payload": ALL}

    @property
    def sources(self) -> tuple[str, ...]:
        """See Node."""
        return (self.source,)

    def check(self, program: Network, nodes: Nodes) -> None:
        """See Node."""
        source, depth = nodes[self.source], self.depth
        train = source.train_window(nodes) is not None
        require(train, f"reads '{self.source}', which fires no spike train")
        require(self.shape == source.shape, f"reads {source.shape} as {self.shape}")
        reach = source.reach
        require(reach <= self.payload <= program.ticks, f"payload {self.payload}, not {reach}")
        require(depth >= required_depth(self, nodes), f"fires too early at depth {depth}")
        require(depth <= len(program.nodes), f"fires too late at depth {depth}")

    # -- what it emits -------------------------------------------------------------------------

    @property
    def reach(self) -> int:
        """See Node."""
        return self.payload

    def tick_reach(self, nodes: Nodes) -> int:
        """Spikes are binary: see Node."""
        return 1

    def is_signed(self, nodes: Nodes) -> bool:
        """Spikes are not: see Node."""
        return False

    @property
    def is_kept(self) -> bool:
        """Engines may let its readers wait instead: see Node."""
        return False

    @property
    def has_tickwise_maximum(self) -> bool:
        """It is a thermometer, as its source's: see Node."""
        return True

    @property
    def fires_at(self) -> int | None:
        """See Node."""
        return self.depth

    def train_window(self, nodes: Nodes) -> int | None:
        """See Node."""
        return self.depth

    def spikes(self, counts: Mapping[str, Array], nodes: Nodes) -> tuple[str, Array] | None:
        """Those of its source: see Node."""
        return nodes[self.source].spikes(counts, nodes)

    def operations(self, arrived: Mapping[str, Array], nodes: Nodes) -> Iterator[tuple[str, int]]:
        """It repeats, and adds nothing up: see Node."""
        return iter(())

    def taken(self, program: Network) -> Taken:
        """A neuron for each output, with one synapse: see Node."""
        each = prod(self.shape)
        return Taken(each, each, self.shape[0], 1, self.payload)
