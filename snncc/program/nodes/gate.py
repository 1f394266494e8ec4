"""Gates: products of two spike trains, number by number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

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
from snncc.program.nodes.passing import Passing
from snncc.program.timing import firing_window

__all__ = ["MOST_COUNT", "Gate"]

#: Counts travel in a byte.
MOST_COUNT = 255


@dataclass(frozen=True)
class Gate(Passing):
    """The product of two spike trains that are fired in one window, number by number.

    Its count is a * b, or a times the spikes that b did not fire. Tick by tick it emits what has
    been added to that: A B - A' B', where A and B are the spikes of the window so far, the tick's
    own among them, and A' and B' those before it. Of trains of one tick it is an AND.

    Attributes:
        name: Unique in the Program.
        shape: That of the larger train.
        a, b: Nodes that emit spike trains, in one window. One of them may be (C, 1, ..., 1): one
            train for all positions of a channel.
        kind: ``and``, or ``and-not``: of b its silence counts, its reach minus its spikes.
        payload: Spikes per element and timestep at most.
        module: Torch module path, for people.
    """

    name: str
    shape: Shape
    a: str
    b: str
    kind: str
    payload: int
    module: str = ""

    readers: ClassVar[Readers] = {
        **NODE_READERS,
        "a": ALL,
        "b": ALL,
        "kind": ALL,
        "payload": ALL,
    }
    variants: ClassVar[tuple[str, tuple[str, ...]]] = ("gate kind", ("and", "and-not"))

    @property
    def variant(self) -> str:
        """Its kind: see Item."""
        return self.kind

    @property
    def sources(self) -> tuple[str, ...]:
        """See Node."""
        return (self.a, self.b)

    def product(self, a: Array, b: Array, most: int) -> Array:
        """What counts (..., *shape) or (..., C, 1, ..., 1) of its trains come to, int64.

        Args:
            a: Spikes of the first.
            b: Spikes of the second.
            most: Spikes that the second could have fired: of its silence what is left of them.
        """
        other = b if self.kind == "and" else most - b.astype(np.int64)
        return np.multiply(a, other, dtype=np.int64)

    def check(self, program: Network, nodes: Nodes) -> None:
        """See Node."""
        windows = [firing_window(nodes[name], nodes) for name in self.sources]
        for name, window in zip(self.sources, windows, strict=True):
            require(window is not None, f"reads '{name}', which fires no spike train")
        require(windows[0] == windows[1], f"reads trains of windows {windows[0]} and {windows[1]}")
        shapes = {nodes[name].shape for name in self.sources}
        require(self.shape in shapes, f"{shapes} do not give {self.shape}")
        of_channels = (self.shape[0], *(1 for _ in self.shape[1:]))
        require(shapes <= {self.shape, of_channels}, f"{shapes} do not go together")
        other = nodes[self.b]
        binary = other.tick_reach(nodes) == 1 and other.reach <= program.ticks
        require(binary or self.kind == "and", f"reads the silence of '{self.b}', no binary train")
        reach = prod(nodes[name].reach for name in self.sources)
        require(
            reach <= self.payload <= MOST_COUNT,
            f"payload {self.payload}, not {reach}, up to {MOST_COUNT}",
        )

    # -- what it emits -------------------------------------------------------------------------

    @property
    def reach(self) -> int:
        """See Node."""
        return self.payload

    def tick_reach(self, nodes: Nodes) -> int:
        """A spike meets all that its partner fired before, too: see Node."""
        return self.payload

    def is_signed(self, nodes: Nodes) -> bool:
        """Products of spikes are not: see Node."""
        return False

    @property
    def is_kept(self) -> bool:
        """See Node."""
        return True

    @property
    def has_tickwise_maximum(self) -> bool:
        """Of binary trains of one tick: see Node."""
        return self.payload == 1

    @property
    def train_window(self) -> int | str | None:
        """That of its trains: see Node."""
        return self.a

    def spikes(
        self, counts: Mapping[str, Array], before: Mapping[str, Spikes], nodes: Nodes
    ) -> Spikes | None:
        """Those of the first train's population that the second lets pass: see Node."""
        a, b = before[self.a], before[self.b]
        (population,) = a.by
        passed = self.product(a.values, b.values, nodes[self.b].reach).astype(np.uint8)
        return Spikes.of(population, passed)

    def besides(self, nodes: Nodes) -> tuple[str, int] | None:
        """See Node."""
        return "gates", prod(self.shape)

    def taken(self, program: Network) -> Taken:
        """A neuron for each output, with two synapses: see Node."""
        each = prod(self.shape)
        return Taken(each, 2 * each, self.shape[0], 2, self.payload)
