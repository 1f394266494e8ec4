"""Membrane potentials before firing: what arrives in a timestep, summed up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

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
    Synapses,
    Taken,
    require,
    restored,
)
from snncc.program.nodes.firing import Firing
from snncc.program.nodes.projection import Projection

__all__ = ["Accumulator"]


@dataclass(frozen=True)
class Accumulator(Node):
    """Membrane potential before firing: bias + all projections, once per timestep.

    Attributes:
        name: Unique in the Program.
        shape: (C, H, W) or (F,).
        projections: What feeds it; they are summed.
        bias: int64, shape (C,) or the full shape; enters once per timestep.
        low, high: Proved bounds of the potential.
        module: Torch module path of the linear layer.
        masked: Patches (h, w) of the patch mask, or None: unmasked. At (y, x) of a plane (H, W)
            the potential is 0 where patch (i, j) = (y * h // H, x * w // W) is masked: where the
            source's last channel, a plane (H', W'), is not 0 at (i * H' // h, j * W' // w).
            h and w divide both planes.
    """

    name: str
    shape: Shape
    projections: tuple[Projection, ...]
    bias: Array
    low: int
    high: int
    module: str = ""
    masked: tuple[int, int] | None = None

    is_potential: ClassVar[bool] = True
    readers: ClassVar[Readers] = {
        **NODE_READERS,
        "projections": ALL,
        "bias": ALL,
        "low": ALL,
        "high": ALL,
        "masked": ("masked",),
    }
    variants: ClassVar[tuple[str, tuple[str, ...]]] = ("variant", ("whole", "masked"))

    @property
    def variant(self) -> str:
        """Whether patches are masked: see Item."""
        return "whole" if self.masked is None else "masked"

    @property
    def sources(self) -> tuple[str, ...]:
        """See Node."""
        return tuple(p.source for p in self.projections)

    def bias_map(self) -> Array:
        """The bias broadcastable against (N, *shape), int64."""
        if self.bias.shape == self.shape:
            return self.bias
        return self.bias.reshape(-1, *(1,) * (len(self.shape) - 1))

    @classmethod
    def from_json(cls, entry: Mapping[str, Any], arrays: Mapping[str, Array]) -> Accumulator:
        """See Item."""
        projections = tuple(Projection.from_json(p, arrays) for p in entry["projections"])
        others = {k: restored(v, arrays) for k, v in entry.items() if k != "projections"}
        return cls(projections=projections, **others)

    # -- bounds --------------------------------------------------------------------------------

    def bounded(self, nodes: Nodes) -> Accumulator:
        """The same with the bounds that are proved of its potential; its own are not read."""
        low, high = self.potential_bounds(nodes)
        return replace(self, low=low, high=high)

    def potential_bounds(self, nodes: Nodes) -> tuple[int, int]:
        """Proved range of the complete potential, bias included; 0 is in it where it is masked.

        Its own bounds are not read.
        """
        low, high = self.channel_sums(nodes)
        bias: Any = self.bias.reshape(self.shape[0], -1)
        least, most = int((low + bias.min(1)).min()), int((high + bias.max(1)).max())
        return (least, most) if self.masked is None else (min(least, 0), max(most, 0))

    def channel_sums(self, nodes: Nodes) -> tuple[Array, Array]:
        """Per channel the sums of all that is negative, and of all that is positive, of what comes.

        Any part of what arrives lies between them. Python's integers: nothing wraps round.
        """
        low = high = np.zeros(self.shape[0], dtype=object)
        for p in self.projections:
            below, above = p.weight_sums(self.shape[0])
            if nodes[p.source].is_signed(nodes):
                below, above = below - above, above - below
            low, high = low + p.payload * below, high + p.payload * above
        return low, high

    # -- faults --------------------------------------------------------------------------------

    def check(self, program: Network, nodes: Nodes) -> None:
        """See Node."""
        require(len(self.projections) > 0, "no projection feeds it")
        for p in self.projections:
            p.check(self.shape, nodes[p.source])
        bias = self.bias
        require(isinstance(bias, np.ndarray) and bias.dtype == np.int64, "bias is not int64")
        require(bias.shape in ((self.shape[0],), self.shape), f"bias has shape {bias.shape}")
        low, high = self.potential_bounds(nodes)
        require(
            self.low <= low and high <= self.high,
            f"declared bounds [{self.low}, {self.high}] do not hold the proved [{low}, {high}]",
        )
        fits = self.low > -TOTAL_LIMIT and self.high < TOTAL_LIMIT
        require(fits, "potential may overflow int64")
        if self.masked is not None:
            self._check_mask(program.source, self.masked)

    def _check_mask(self, source: Node, patches: tuple[int, int]) -> None:
        require(min(patches) > 0, f"masked by {patches} patches")
        own_channel = len(source.shape) == 3 and source.shape[0] > 1
        require(own_channel, "masked, but the source has no mask")
        for shape in (source.shape, self.shape):
            whole = len(shape) == 3 and not any(
                size % n for size, n in zip(shape[1:], patches, strict=True)
            )
            require(whole, f"{patches} patches do not cover {shape}")

    # -- what it emits -------------------------------------------------------------------------

    @property
    def reach(self) -> int:
        """See Node."""
        return max(abs(self.low), abs(self.high))

    def tick_reach(self, nodes: Nodes) -> int:
        """A potential is sent in one tick: see Node."""
        return self.reach

    def is_signed(self, nodes: Nodes) -> bool:
        """See Node."""
        return True

    @property
    def is_kept(self) -> bool:
        """See Node."""
        return True

    @property
    def has_tickwise_maximum(self) -> bool:
        """All of a potential is emitted in one tick: see Node."""
        return True

    @property
    def fires_at(self) -> int | None:
        """See Node."""
        return None

    @property
    def train_window(self) -> int | str | None:
        """See Node."""
        return None

    def spikes(
        self, counts: Mapping[str, Array], before: Mapping[str, Spikes], nodes: Nodes
    ) -> Spikes | None:
        """A potential is no spike: see Node."""
        return None

    def operations(self, source: str, spikes: Array, nodes: Nodes) -> int:
        """A spike crosses each synapse that leaves its neuron: see Node."""
        read = (p for p in self.projections if p.source == source)
        return sum(int((spikes * p.fan_out(spikes.shape, self.shape)).sum()) for p in read)

    def synapses(self, nodes: Nodes) -> tuple[Synapses, ...]:
        """Those of its projections: see Node."""
        return tuple(p.synapses(nodes[p.source].shape, self.shape) for p in self.projections)

    def besides(self, nodes: Nodes) -> tuple[str, int] | None:
        """Products of weights with graded payloads: each synapse takes what it reads: see Node."""
        read = [(p, nodes[p.source]) for p in self.projections if p.weights]
        graded = [(p, source.shape) for p, source in read if source.is_potential]
        each = (np.broadcast_to(p.fan_out(shape, self.shape), shape) for p, shape in graded)
        count = sum(int(fans.sum()) for fans in each)
        return ("products of graded payloads", count) if graded else None

    def taken(self, program: Network) -> Taken | None:
        """A neuron for each element, and one for each of a further population: see Node."""
        readers = [n for n in program.readers(self.name) if isinstance(n, Firing)]
        potential = self.potential_bounds(program.by_name)
        ranges = [n.membrane_bounds(program.timesteps, potential) for n in readers]
        each, per_neuron = prod(self.shape), sum(p.fan_in for p in self.projections)
        return Taken(
            neurons=each * max(1, len(readers)),
            synapses=each * per_neuron,
            channels=self.shape[0],
            weights=per_neuron * max(1, *(len(p.weights) for p in self.projections)),
            reach=max(abs(end) for pair in [(self.low, self.high), *ranges] for end in pair),
        )
