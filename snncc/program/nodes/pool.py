"""Maxima and sums over windows of what a node emits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from snncc.program.nodes.base import (
    ALL,
    NODE_READERS,
    TOTAL_LIMIT,
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
from snncc.program.nodes.passing import Passing
from snncc.program.nodes.projection import check_window
from snncc.program.windows import channels_first, channels_last, pooled_size, windows_of

__all__ = ["Pool"]

_NO_MAXIMUM = "max-pool over sums: their maximum is no sum of the maxima of ticks"


@dataclass(frozen=True)
class Pool(Passing):
    """Maximum or sum over windows of what its source emits, at the moment it is emitted.

    Over binary spikes of one tick the maximum is an OR, and the OR of thermometer trains is the
    train of the maximum. Of potentials, which are emitted once, it is their maximum.

    Attributes:
        kind: ``max`` or ``sum``.
        kernel, strides: (h, w). pads: (top, left, bottom, right), neutral.
        payload: Largest absolute value it emits per element and timestep.
    """

    name: str
    shape: Shape
    source: str
    kind: str
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    payload: int
    module: str = ""

    readers: ClassVar[Readers] = {
        **NODE_READERS,
        "source": ALL,
        "kind": ALL,
        "kernel": ALL,
        "strides": ALL,
        "pads": ALL,
        "payload": ALL,
    }
    variants: ClassVar[tuple[str, tuple[str, ...]]] = ("pool kind", ("max", "sum"))

    @property
    def variant(self) -> str:
        """Its kind: see Item."""
        return self.kind

    @property
    def sources(self) -> tuple[str, ...]:
        """See Node."""
        return (self.source,)

    def pooled(self, values: Array) -> Array:
        """What it makes of (N, H, W, C): maxima of the same type, or sums as int64.

        Padding is neutral: potentials, of which a maximum may be negative, are padded with the
        least there is.
        """
        least = np.iinfo(values.dtype).min if values.dtype.kind == "i" else 0
        padding = least if self.kind == "max" else 0
        windows = windows_of(values, self.kernel, self.strides, self.pads, padding=padding)
        if self.kind == "max":
            return np.asarray(windows.max(axis=(3, 4)))
        return np.asarray(windows.sum(axis=(3, 4), dtype=np.int64))

    def check(self, program: Network, nodes: Nodes) -> None:
        """See Node."""
        source, kernel, strides, pads = nodes[self.source], self.kernel, self.strides, self.pads
        require(len(source.shape) == 3 and len(self.shape) == 3, "pools need (C, H, W)")
        require(self.kind == "sum" or source.has_tickwise_maximum, _NO_MAXIMUM)
        check_window(source.shape, strides, pads)
        require(min(kernel) > 0, f"kernel {kernel}")
        inside = max(pads[0], pads[2]) < kernel[0] and max(pads[1], pads[3]) < kernel[1]
        require(inside, "padding is larger than the kernel")
        expected = (
            source.shape[0],
            pooled_size(source.shape[1], kernel[0], strides[0], pads[0] + pads[2]),
            pooled_size(source.shape[2], kernel[1], strides[1], pads[1] + pads[3]),
        )
        require(self.shape == expected, f"gives {expected}, not {self.shape}")
        reach = source.reach * self._most
        require(reach <= self.payload < TOTAL_LIMIT, f"payload {self.payload} is below {reach}")

    @property
    def _most(self) -> int:
        """How many times more than its source it may emit."""
        return 1 if self.kind == "max" else prod(self.kernel)

    def _chain(self, nodes: Nodes) -> tuple[list[Pool], Node]:
        """Itself and the pools that it reads one through the other, and what the last one reads.

        A file may have thousands: this is no recursion.
        """
        pools, node = [self], nodes[self.source]
        while isinstance(node, Pool):
            pools.append(node)
            node = nodes[node.source]
        return pools, node

    # -- what it emits -------------------------------------------------------------------------

    @property
    def reach(self) -> int:
        """See Node."""
        return self.payload

    def tick_reach(self, nodes: Nodes) -> int:
        """See Node."""
        pools, source = self._chain(nodes)
        return source.tick_reach(nodes) * prod(pool._most for pool in pools)

    def is_signed(self, nodes: Nodes) -> bool:
        """See Node."""
        return self._chain(nodes)[1].is_signed(nodes)

    @property
    def is_kept(self) -> bool:
        """See Node."""
        return True

    @property
    def has_tickwise_maximum(self) -> bool:
        """Maxima of thermometers are thermometers: see Node."""
        return self.kind == "max"

    @property
    def train_window(self) -> int | str | None:
        """See Node."""
        return self.source if self.kind == "max" else None

    def spikes(
        self, counts: Mapping[str, Array], before: Mapping[str, Spikes], nodes: Nodes
    ) -> Spikes | None:
        """A maximum hands on the OR of a tick's spikes, a sum each of them: see Node."""
        if self.source not in before:
            return None
        values, by = before[self.source]
        pooled = self.pooled_maps(values)
        if self.kind == "max":  # of one population's train: others have no maximum tick by tick
            (population,) = by
            return Spikes.of(population, pooled)
        return Spikes(pooled, {name: self.pooled_maps(part[None])[0] for name, part in by.items()})

    def pooled_maps(self, values: Array) -> Array:
        """The same of (N, C, H, W)."""
        return channels_first(self.pooled(channels_last(values)))

    def besides(self, nodes: Nodes) -> tuple[str, int] | None:
        """Comparisons of potentials; those of spikes are ORs of what arrives: see Node."""
        if self.kind == "sum" or not self.is_signed(nodes):
            return None
        return "comparisons of potentials", prod(self.shape) * prod(self.kernel)

    def taken(self, program: Network) -> Taken:
        """A neuron for each output, that reads its window: see Node."""
        each, per_neuron = prod(self.shape), prod(self.kernel)
        return Taken(each, each * per_neuron, self.shape[0], per_neuron, self.payload)
