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
    Nodes,
    Readers,
    Shape,
    Spikes,
    Taken,
    require,
)
from snncc.program.nodes.firing import Firing
from snncc.program.timing import firing_window

__all__ = ["Relay"]


@dataclass(frozen=True)
class Relay(Firing):
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

    def check(self, program: Network, nodes: Nodes) -> None:
        """See Node."""
        source = nodes[self.source]
        train = firing_window(source, nodes) is not None
        require(train, f"reads '{self.source}', which fires no spike train")
        require(self.shape == source.shape, f"reads {source.shape} as {self.shape}")
        reach = source.reach
        require(reach <= self.payload <= program.ticks, f"payload {self.payload}, not {reach}")
        self.check_depth(program, nodes)

    # -- what it emits -------------------------------------------------------------------------

    @property
    def reach(self) -> int:
        """See Node."""
        return self.payload

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
