"""When the nodes of a Program fire: the firing windows, counted from the input's."""

from __future__ import annotations

from collections.abc import Mapping

from snncc.program import Neuron, Node, Pool, Relay, sources_of

__all__ = ["firing_window", "required_depth"]


def required_depth(node: Node, nodes: Mapping[str, Node]) -> int:
    """First window in which all that ``node`` reads is complete."""
    depth, visited, pending = 0, {node.name}, list(sources_of(node))
    while pending:
        name = pending.pop()
        source = nodes.get(name)
        if name in visited or source is None:  # what is missing is another node's fault
            continue
        visited.add(name)
        if isinstance(source, (Neuron, Relay)):
            depth = max(depth, source.depth + 1)
        else:
            pending += sources_of(source)
    return depth


def firing_window(node: Node, nodes: Mapping[str, Node]) -> int | None:
    """The window in which a node emits binary spikes tick by tick; None: it emits no such train."""
    while isinstance(node, Pool) and node.kind == "max":
        node = nodes[node.source]
    return node.depth if isinstance(node, (Neuron, Relay)) else None
