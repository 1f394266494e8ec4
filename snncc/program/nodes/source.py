"""The network's input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
    require,
)
from snncc.program.nodes.passing import Passing

__all__ = ["MASKED", "Source"]

#: What the planes of a source that hold the patch mask have in masked patches.
MASKED = 255


@dataclass(frozen=True)
class Source(Passing):
    """The network's input: integers 0..payload, sent once per timestep.

    Where accumulators are ``masked``, the last channel says which patches of the sample are: not 0
    in masked patches, 0 in active ones; the same in all of a patch.

    Attributes:
        name: Unique in the Program.
        shape: Per sample, (C, H, W) or (F,).
        payload: Largest value.
        module: Torch module path, for people.
    """

    name: str
    shape: Shape
    payload: int
    module: str = ""

    readers: ClassVar[Readers] = {**NODE_READERS, "payload": ALL}

    @property
    def sources(self) -> tuple[str, ...]:
        """None: see Node."""
        return ()

    def check(self, program: Network, nodes: Nodes) -> None:
        """See Node."""
        require(0 < self.payload < 2**31, f"payload {self.payload} out of range")

    @property
    def reach(self) -> int:
        """See Node."""
        return self.payload

    def tick_reach(self, nodes: Nodes) -> int:
        """A sample comes in one tick: see Node."""
        return self.payload

    def is_signed(self, nodes: Nodes) -> bool:
        """Pixels are not: see Node."""
        return False

    @property
    def is_kept(self) -> bool:
        """See Node."""
        return True

    @property
    def has_tickwise_maximum(self) -> bool:
        """There is but one tick: see Node."""
        return True

    @property
    def train_window(self) -> int | str | None:
        """See Node."""
        return None

    def spikes(
        self, counts: Mapping[str, Array], before: Mapping[str, Spikes], nodes: Nodes
    ) -> Spikes | None:
        """Pixels are no spikes: see Node."""
        return None

    def taken(self, program: Network) -> None:
        """The input comes from outside: see Node."""
        return
