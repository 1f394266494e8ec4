"""Results of the network, and what the host makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    require,
)
from snncc.program.nodes.passing import Passing

__all__ = ["Readout", "joined"]


@dataclass(frozen=True)
class Readout(Passing):
    """A result: integers of ``source`` times ``scale`` are what the trained network computes.

    Attributes:
        name: The output's name, as in the model.
        shape: Per sample.
        source: Accumulator (potential) or neuron / pool of a neuron (spike counts).
        scale: Real value of one integer unit, or of what that adds to the host's sum.
        over_time: ``each``: a result per timestep; ``sum``: the integers are summed over T.
        host, weight, bias: A linear layer that the host, no engine, computes of the real values:
            its torch module path, float32 (F_out, F_in) and (F_out,).
        result: Of the network's results the one that this is; that is the sum of all readouts that
            say so. None: of a network with one result, to which the host adds all readouts.
    """

    name: str
    shape: Shape
    source: str
    scale: float
    module: str = ""
    over_time: str = "each"
    host: str = ""
    weight: Array | None = None
    bias: Array | None = None
    result: str | None = None

    emits: ClassVar[bool] = False
    readers: ClassVar[Readers] = {
        **NODE_READERS,
        "source": ALL,
        "scale": ALL,
        "over_time": ALL,
        "host": ("host",),
        "weight": ("host",),
        "bias": ("host",),
        "result": ALL,
    }
    variants: ClassVar[tuple[str, tuple[str, ...]]] = ("variant", ("own", "host"))

    @property
    def variant(self) -> str:
        """Whether the host has a part in it: see Item."""
        return "host" if self.host else "own"

    @property
    def sources(self) -> tuple[str, ...]:
        """See Node."""
        return (self.source,)

    def check(self, program: Network, nodes: Nodes) -> None:
        """See Node."""
        source, scale = nodes[self.source], self.scale
        require(source.is_kept, f"reads '{self.source}', of which no engine keeps values")
        require(prod(source.shape) == prod(self.shape), f"reads {source.shape} as {self.shape}")
        require(np.isfinite(scale) and scale > 0, f"scale {scale} is not positive")
        require(self.over_time in ("each", "sum"), f"unknown over_time '{self.over_time}'")
        if self.host:
            self._check_host()

    def _check_host(self) -> None:
        """All of a linear layer is there, and fits."""
        w, b = self.weight, self.bias
        require(w is not None and b is not None, "half of a host layer")
        if w is None or b is None:
            return
        require(w.dtype == b.dtype == np.float32, "a host layer is float32")
        require(w.ndim == 2 and w.shape[1:] == self.shape, f"host weights {w.shape} do not fit")
        require(b.shape == w.shape[:1], f"host bias {b.shape} does not fit")
        require(bool(np.isfinite(w).all() and np.isfinite(b).all()), "a host layer is not finite")

    # -- what it emits: nothing ----------------------------------------------------------------

    @property
    def reach(self) -> int:
        """See Node."""
        raise ValueError("a readout emits nothing")

    def tick_reach(self, nodes: Nodes) -> int:
        """See Node."""
        return 0

    def is_signed(self, nodes: Nodes) -> bool:
        """See Node."""
        return False

    @property
    def is_kept(self) -> bool:
        """See Node."""
        return False

    @property
    def has_tickwise_maximum(self) -> bool:
        """See Node."""
        return False

    @property
    def train_window(self) -> int | str | None:
        """See Node."""
        return None

    def spikes(
        self, counts: Mapping[str, Array], before: Mapping[str, Spikes], nodes: Nodes
    ) -> Spikes | None:
        """See Node."""
        return None

    def taken(self, program: Network) -> None:
        """See Node."""
        return


def joined(readouts: Sequence[Readout]) -> dict[str, list[Readout]]:
    """The network's results by name, and the readouts that each is, or is the sum of."""
    alone = "output" if any(r.host for r in readouts if r.result is None) else None
    found: dict[str, list[Readout]] = {}
    for readout in readouts:
        found.setdefault(readout.result or alone or readout.name, []).append(readout)
    return found
