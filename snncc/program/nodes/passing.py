"""What nodes have in common that have no firing window of their own and no synapses."""

from __future__ import annotations

from snncc.program.nodes.base import Array, Node, Nodes, Synapses

__all__ = ["Passing"]


class Passing(Node):
    """Emits at once what it makes of what arrives; no synapses lead into it."""

    @property
    def fires_at(self) -> int | None:
        """In no window of its own: see Node."""
        return None

    def operations(self, source: str, spikes: Array, nodes: Nodes) -> int:
        """Spikes cross it before they cross synapses: see Node."""
        return 0

    def synapses(self, nodes: Nodes) -> tuple[Synapses, ...]:
        """None: see Node."""
        return ()
