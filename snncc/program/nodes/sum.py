"""Sums of spikes: what two nodes emit, as one stream that layers read with one set of weights."""

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
    Nodes,
    Readers,
    Shape,
    Spikes,
    Taken,
    require,
)
from snncc.program.nodes.passing import Passing

__all__ = ["Sum"]


@dataclass(frozen=True)
class Sum(Passing):
    """What two nodes emit, added number by number in the tick in which it arrives.

    Nothing is kept: spikes of two populations cross the same synapses, each in its own window. A
    sum of more is a chain.

    Attributes:
        name: Unique in the Program.
        shape: That of both.
        a, b: Nodes that emit nothing negative: spikes, or sums of them.
        payload: Largest value per element and timestep.
        module: Torch module path, for people.
    """

    name: str
    shape: Shape
    a: str
    b: str
    payload: int
    module: str = ""

    readers: ClassVar[Readers] = {**NODE_READERS, "a": ALL, "b": ALL, "payload": ALL}

    @property
    def sources(self) -> tuple[str, ...]:
        """See Node."""
        return (self.a, self.b)

    def check(self, program: Network, nodes: Nodes) -> None:
        """See Node."""
        for name in self.sources:
            source = nodes[name]
            signed = source.is_potential or source.is_signed(nodes)
            require(not signed, f"reads '{name}', a potential")
            require(source.shape == self.shape, f"reads {source.shape} as {self.shape}")
        reach = sum(nodes[name].reach for name in self.sources)
        require(reach <= self.payload < TOTAL_LIMIT, f"payload {self.payload} is below {reach}")

    # -- what it emits -------------------------------------------------------------------------

    @property
    def reach(self) -> int:
        """See Node."""
        return self.payload

    def tick_reach(self, nodes: Nodes) -> int:
        """All of a timestep's spikes may come in one tick: see Node."""
        return self.payload

    def is_signed(self, nodes: Nodes) -> bool:
        """Sums of spikes are not: see Node."""
        return False

    @property
    def is_kept(self) -> bool:
        """Readouts read its trains: see Node."""
        return False

    @property
    def has_tickwise_maximum(self) -> bool:
        """A maximum of sums is no sum of maxima: see Node."""
        return False

    @property
    def train_window(self) -> int | str | None:
        """See Node."""
        return None

    def spikes(
        self, counts: Mapping[str, Array], before: Mapping[str, Spikes], nodes: Nodes
    ) -> Spikes | None:
        """Those of both: see Node."""
        a, b = (before.get(name) for name in self.sources)
        if a is None or b is None:
            return a or b
        shared = {name: a.by[name] + b.by[name] for name in a.by.keys() & b.by.keys()}
        values = np.add(a.values, b.values, dtype=np.int64)
        narrow = values.astype(np.min_scalar_type(self.payload))
        return Spikes(narrow, {**a.by, **b.by, **shared})

    def besides(self, nodes: Nodes) -> tuple[str, int] | None:
        """See Node."""
        return "sums of spikes", prod(self.shape)

    def taken(self, program: Network) -> Taken:
        """A neuron for each output, with two synapses: see Node."""
        each = prod(self.shape)
        return Taken(each, 2 * each, self.shape[0], 2, self.payload)
