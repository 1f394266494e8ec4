"""When the nodes of a Program fire: the firing windows, counted from the input's."""

from __future__ import annotations

from snncc.program.nodes.base import Network, Node, Nodes

__all__ = ["completion_windows", "firing_window", "required_depth"]


def required_depth(node: Node, nodes: Nodes) -> int:
    """First window in which all that ``node`` reads is complete."""
    depth, visited, pending = 0, {node.name}, list(node.sources)
    while pending:
        name = pending.pop()
        source = nodes.get(name)
        if name in visited or source is None:  # what is missing is another node's fault
            continue
        visited.add(name)
        if (window := source.fires_at) is not None:
            depth = max(depth, window + 1)
        else:
            pending += source.sources
    return depth


def firing_window(node: Node, nodes: Nodes) -> int | None:
    """The window in which a node emits a spike train tick by tick; None: it emits no such train."""
    window = node.train_window
    while isinstance(window, str):  # through thousands, perhaps: this is no recursion
        window = nodes[window].train_window
    return window


def completion_windows(program: Network) -> dict[str, int]:
    """For each node the first window at whose start all that it reads has been emitted."""
    windows: dict[str, int] = {}
    ends: dict[str, int] = {}
    for node in program.nodes:
        windows[node.name] = max((ends[name] for name in node.sources), default=0)
        window = node.fires_at
        ends[node.name] = windows[node.name] if window is None else window + 1
    return windows
