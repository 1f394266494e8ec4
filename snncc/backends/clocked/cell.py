"""What the clocked engine's cells are: nodes of a Program while a batch is simulated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from snncc.program import Array, Program, Shape

__all__ = ["Cell", "Scene"]


class Scene(Protocol):
    """What a cell is made from: the batch that is simulated."""

    @property
    def program(self) -> Program:
        """The network."""
        ...

    @property
    def windows(self) -> Mapping[str, int]:
        """Node -> first window at whose start all that it reads has been emitted."""
        ...

    @property
    def samples(self) -> int:
        """Simulated together."""
        ...

    def inside(self, shape: Shape) -> Shape:
        """The shape of a node's values in this batch, channels last."""
        ...


class Cell:
    """A node: ``t`` is the timestep in hand, ``held`` what is kept of each under way."""

    t: int = 0

    def __init__(self) -> None:
        self.held: dict[int, Any] = {}

    def begin(self, t: int) -> None:
        """Timestep ``t`` enters."""

    def tick(self, now: int, emitted: Mapping[str, Array]) -> Array | None:
        """What the node emits in tick ``now`` of the timestep, given what others emit in it."""
        raise NotImplementedError
