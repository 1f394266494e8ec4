"""Attention: products of three spike trains; what they sum up to is in ``program.attention``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from snncc.program.attention import EXACT_PRODUCTS, ORDERS, reach_of
from snncc.program.nodes.base import (
    ALL,
    NODE_READERS,
    SLICE_LIMIT,
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
)
from snncc.program.timing import firing_window

__all__ = ["Attention"]


@dataclass(frozen=True)
class Attention(Node):
    """Products of three spike trains, head by head: see ``program.attention``.

    The channels (axis 0) of each train are its heads one after the other, all further axes its
    positions. What the train read last brings in a tick, times the matrix of the other two, is
    emitted in that tick: accumulators sum it up to y.

    Attributes:
        name: Unique in the Program.
        shape: (heads * e, *positions of q).
        q, k, v: Neurons, relays, or max-pools of them, with heads * d, heads * d and heads * e
            channels; k and v have the same number of positions.
        heads: How many.
        order: ``kv`` (q is read last) or ``qk`` (v is).
        payload: Largest value it emits per element and timestep (all ticks).
        module: Torch module path, for people.
    """

    name: str
    shape: Shape
    q: str
    k: str
    v: str
    heads: int
    order: str
    payload: int
    module: str = ""

    readers: ClassVar[Readers] = {
        **NODE_READERS,
        "q": ALL,
        "k": ALL,
        "v": ALL,
        "heads": ALL,
        "order": ALL,
        "payload": ALL,
    }
    variants: ClassVar[tuple[str, tuple[str, ...]]] = ("order", tuple(ORDERS))

    @property
    def variant(self) -> str:
        """Its order: see Item."""
        return self.order

    @property
    def sources(self) -> tuple[str, ...]:
        """See Node."""
        return (self.q, self.k, self.v)

    @property
    def first(self) -> tuple[str, str]:
        """The nodes whose trains are multiplied first."""
        one, two, _ = ORDERS[self.order]
        return getattr(self, one), getattr(self, two)

    @property
    def last(self) -> str:
        """The node whose train must find that product complete."""
        return str(getattr(self, ORDERS[self.order][2]))

    def products_reach(self, nodes: Nodes) -> tuple[int, int]:
        """Largest entries of the matrix that is formed first, and of y."""
        q, k, v = (nodes[name] for name in self.sources)
        return reach_of(self.order, q.shape, k.shape, self.heads, (q.reach, k.reach, v.reach))

    # -- faults --------------------------------------------------------------------------------

    def check(self, program: Network, nodes: Nodes) -> None:
        """See Node."""
        for name in self.sources:
            fires = firing_window(nodes[name], nodes) is not None
            require(fires, f"reads '{name}', which fires no spike train")
        self._check_shapes(nodes)
        complete = 1 + max(firing_window(nodes[name], nodes) or 0 for name in self.first)
        late = (firing_window(nodes[self.last], nodes) or 0) >= complete
        require(late, f"reads '{self.last}' before the other two are complete; relay it")
        matrix, reach = self.products_reach(nodes)
        require(matrix <= SLICE_LIMIT, f"products may reach {matrix}, beyond 32 bits")
        require(reach <= self.payload, f"payload {self.payload} is below {reach}")
        exact = self.payload < EXACT_PRODUCTS
        require(exact, f"products may reach {self.payload}, beyond 2**53")

    def _check_shapes(self, nodes: Nodes) -> None:
        trains = q, k, v = [nodes[name] for name in self.sources]
        whole = self.heads > 0 and not any(t.shape[0] % self.heads for t in trains)
        require(whole, f"{self.heads} heads do not divide the channels")
        shapes = f"q {q.shape}, k {k.shape} and v {v.shape}"
        fit = q.shape[0] == k.shape[0] and prod(k.shape[1:]) == prod(v.shape[1:])
        require(fit, f"{shapes} do not go together")
        given = (v.shape[0], *q.shape[1:])
        require(self.shape == given, f"{shapes} do not give {self.shape}")

    # -- what it emits -------------------------------------------------------------------------

    @property
    def reach(self) -> int:
        """See Node."""
        return self.payload

    def tick_reach(self, nodes: Nodes) -> int:
        """All of a timestep's spikes may come in one tick: see Node."""
        return self.payload

    def is_signed(self, nodes: Nodes) -> bool:
        """Products of spikes are not: see Node."""
        return False

    @property
    def is_kept(self) -> bool:
        """Accumulators sum it up: see Node."""
        return False

    @property
    def has_tickwise_maximum(self) -> bool:
        """A maximum of sums is no sum of maxima: see Node."""
        return False

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
        """Products are no spikes: see Node."""
        return None

    def operations(self, source: str, spikes: Array, nodes: Nodes) -> int:
        """A spike adds one row or column to the matrix, or one of that to the result: see Node."""
        pairs = zip(self.sources, self._additions(nodes), strict=True)
        return int(spikes.sum()) * sum(additions for name, additions in pairs if name == source)

    def _additions(self, nodes: Nodes) -> tuple[int, int, int]:
        """Of one spike of q, k and v."""
        q, k, v = (nodes[name].shape for name in self.sources)
        d, e, N, M = q[0] // self.heads, v[0] // self.heads, prod(q[1:]), prod(k[1:])
        return {"kv": (e, e, d), "qk": (M, N, N)}[self.order]

    def synapses(self, nodes: Nodes) -> tuple[Synapses, ...]:
        """Rows and columns that its operands' spikes are added to: see Node.

        The product formed first is counted at its first operand, the other at the train read last.
        """
        one, two, last = ORDERS[self.order]
        matrix, _ = self.products_reach(nodes)
        partners = {
            one: nodes[getattr(self, two)].reach,
            two: nodes[getattr(self, one)].reach,
            last: matrix,
        }
        additions = dict(zip("qkv", self._additions(nodes), strict=True))
        return tuple(
            self._operand(name, additions[name], name != two, partners[name], nodes)
            for name in "qkv"
        )

    def _operand(
        self, name: str, additions: int, multiplies: bool, partner: int, nodes: Nodes
    ) -> Synapses:
        source, each = str(getattr(self, name)), np.full(1, additions, dtype=np.int64)
        products = each if multiplies else np.zeros(1, dtype=np.int64)
        padded = int(products[0]) * prod(nodes[source].shape)
        return Synapses(source, "attention", each, each, products, padded, partner=partner)

    def taken(self, program: Network) -> Taken:
        """Its matrix of two trains is kept in neurons, and read like weights: see Node."""
        q, k, v = (program.by_name[name].shape for name in self.sources)
        outputs = prod(self.shape)
        if self.order == "kv":
            matrix, per_output = q[0] * (v[0] // self.heads), q[0] // self.heads
        else:
            matrix, per_output = prod(q[1:]) * prod(k[1:]) * self.heads, prod(k[1:])
        return Taken(
            outputs + matrix, outputs * per_output, self.shape[0], 0, self.payload, kept=matrix
        )
