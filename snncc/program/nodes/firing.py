"""What all nodes have in common that fire spikes in a window of their own."""

from __future__ import annotations

from snncc.program.nodes.base import Array, Network, Node, Nodes, Synapses, require
from snncc.program.timing import required_depth

__all__ = ["Firing"]


class Firing(Node):
    """Fires binary spikes for some ticks of a firing window, each neuron all of its own at first.

    Attributes:
        source: What it reads when that is complete.
        depth: Firing window: it fires in ticks [depth * ticks, (depth + 1) * ticks).
    """

    source: str
    depth: int

    @property
    def sources(self) -> tuple[str, ...]:
        """See Node."""
        return (self.source,)

    def check_depth(self, program: Network, nodes: Nodes) -> None:
        """It fires after all that it reads; raises InvalidError."""
        depth = self.depth
        require(depth >= required_depth(self, nodes), f"fires too early at depth {depth}")
        require(depth <= len(program.nodes), f"fires too late at depth {depth}")

    def membrane_bounds(self, timesteps: int, potential: tuple[int, int]) -> tuple[int, int]:
        """Range of what is compared with its levels, where it reads a potential.

        Args:
            timesteps: T.
            potential: Range of the potential that it reads.
        """
        raise self._unanswered("bounds of a membrane")

    def tick_reach(self, nodes: Nodes) -> int:
        """Spikes are binary: see Node."""
        return 1

    def is_signed(self, nodes: Nodes) -> bool:
        """Spikes are not: see Node."""
        return False

    @property
    def has_tickwise_maximum(self) -> bool:
        """A burst is a thermometer: see Node."""
        return True

    @property
    def fires_at(self) -> int | None:
        """See Node."""
        return self.depth

    @property
    def train_window(self) -> int | str | None:
        """See Node."""
        return self.depth

    def operations(self, source: str, spikes: Array, nodes: Nodes) -> int:
        """No synapses lead into it: see Node."""
        return 0

    def synapses(self, nodes: Nodes) -> tuple[Synapses, ...]:
        """None: see Node."""
        return ()
