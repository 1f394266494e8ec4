"""Gates in the clocked engine: what two trains of one window have come to, tick by tick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from snncc.backends.clocked.cell import Cell, Scene
from snncc.program import Array, Gate
from snncc.program.timing import firing_window

__all__ = ["GateCell"]


@dataclass
class _Trains:
    """What a timestep's trains have fired so far, and their product."""

    a: Array
    b: Array
    product: Array


class GateCell(Cell):
    """Emits in each tick what has been added to the product of its trains: see Gate."""

    def __init__(self, node: Gate, scene: Scene) -> None:
        super().__init__()
        self.node, nodes = node, scene.program.by_name
        self.first = (firing_window(node, nodes) or 0) * scene.program.ticks
        self.most = nodes[node.b].reach
        self.shapes = [scene.inside(nodes[name].shape) for name in (*node.sources, node.name)]

    def begin(self, t: int) -> None:
        """See Cell."""
        self.held[t] = _Trains(*(np.zeros(shape, dtype=np.int64) for shape in self.shapes))

    def tick(self, now: int, emitted: Mapping[str, Array]) -> Array | None:
        """See Cell; of silence a tick counts, too, so that it emits where nothing arrives."""
        tick, trains = now - self.first, self.held[self.t]
        if tick < 0 or trains is None:
            return None
        for name, sums in zip(self.node.sources, (trains.a, trains.b), strict=True):
            if name in emitted:
                sums += emitted[name]
        product = self.node.product(trains.a, trains.b, min(tick + 1, self.most))
        added, trains.product = product - trains.product, product
        return added if added.any() else None
