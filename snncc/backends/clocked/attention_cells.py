"""Attention in the clocked engine, tick by tick: binary spikes in, products out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from snncc.backends.clocked.cell import Cell, Scene
from snncc.program import Array, Attention, Relay

__all__ = ["AttentionCell", "RelayCell"]


class RelayCell(Cell):
    """Emits what its source emitted, a whole number of firing windows later."""

    def __init__(self, node: Relay, scene: Scene) -> None:
        super().__init__()
        self.source = node.source
        fired = scene.windows[node.name] - 1  # the source's own window: it ends where this begins
        self.delay = (node.depth - fired) * scene.program.ticks

    def begin(self, t: int) -> None:
        """See Cell."""
        self.held[t] = {}

    def tick(self, now: int, emitted: Mapping[str, Array]) -> Array | None:
        """See Cell."""
        kept: dict[int, Array] = self.held[self.t]
        if self.source in emitted:
            kept[now] = emitted[self.source]
        return kept.pop(now - self.delay, None)


class AttentionCell(Cell):
    """Two trains grow the matrix of their products; the third, a window later, multiplies it.

    Spikes of one tick meet all that arrived before them, so the cross terms of the ticks count:
    matrix += a (B + b)^T + A b^T, where A and B are what had arrived before the tick.
    """

    def __init__(self, node: Attention, scene: Scene) -> None:
        super().__init__()
        self.node = node
        self.samples, self.shape = scene.samples, scene.inside(node.shape)
        self.channels = {n: scene.program.by_name[n].shape[0] for n in (node.q, node.k, node.v)}

    def begin(self, t: int) -> None:
        """See Cell."""
        self.held[t] = _Products()

    def tick(self, now: int, emitted: Mapping[str, Array]) -> Array | None:
        """See Cell."""
        products: _Products = self.held[self.t]
        arrived = [self._by_head(emitted, name) for name in self.node.first]
        if any(a is not None for a in arrived):
            products.add(*(self._terms(a, i) for i, a in enumerate(arrived)))
        last = self._by_head(emitted, self.node.last)
        if last is None or products.matrix is None:
            return None
        return self._whole(self._times(last, products.matrix))

    def _by_head(self, emitted: Mapping[str, Array], name: str) -> Array | None:
        """(N, ..., C) as (N, heads, d, positions), float64: products of integers are exact."""
        if name not in emitted:
            return None
        heads = self.node.heads
        rows = emitted[name].reshape(self.samples, -1, heads, self.channels[name] // heads)
        return np.ascontiguousarray(rows.transpose(0, 2, 3, 1), dtype=np.float64)

    def _terms(self, arrived: Array | None, index: int) -> Array | None:
        """As the factors of the matrix: its rows from the first train, its columns transposed."""
        if arrived is None or self.node.order == "kv":
            return arrived
        return np.asarray(arrived.swapaxes(2, 3))

    def _times(self, last: Array, matrix: Array) -> Array:
        """(N, heads, e, positions of q)."""
        if self.node.order == "kv":  # matrix (d, e), last is q (d, N)
            return np.asarray(matrix.swapaxes(2, 3) @ last)
        return np.asarray(last @ matrix.swapaxes(2, 3))  # matrix (N, M), last is v (e, M)

    def _whole(self, products: Array) -> Array:
        rows = products.transpose(0, 3, 1, 2).reshape(self.shape)
        return np.asarray(rows.astype(np.int64))


class _Products:
    """The matrix of one timestep so far, and what has arrived of its two trains."""

    def __init__(self) -> None:
        self.matrix: Array | None = None
        self.sums: list[Array | None] = [None, None]

    def add(self, one: Array | None, two: Array | None) -> None:
        """The spikes of one tick, (N, heads, rows, shared) and (N, heads, columns, shared)."""
        before_one, before_two = self.sums
        self._grow(one, _sum(before_two, two))
        self._grow(before_one, two)
        self.sums = [_sum(before_one, one), _sum(before_two, two)]

    def _grow(self, rows: Array | None, columns: Array | None) -> None:
        if rows is not None and columns is not None:
            self.matrix = _sum(self.matrix, rows @ columns.swapaxes(2, 3))


def _sum(one: Array | None, two: Array | None) -> Array | None:
    if one is None or two is None:
        return one if two is None else two
    return np.asarray(one + two)
