"""The nodes of spike-driven attention in a Program, and the arithmetic they share.

For each head, with spike counts q (d, N), k (d, M) and v (e, M) over N and M positions,

    y[j, n] = sum over i < d and m < M of q[i, n] * k[i, m] * v[j, m]

without a softmax, so the products can be taken in two orders: ``kv`` first forms the d by e matrix
k v^T, ``qk`` the N by M matrix q^T k. Counts arrive as ticks, and a product of sums is not the sum
of the products of each tick: with what had arrived before a tick summed up in A and B, the matrix
grows by a (B + b)^T + A b^T in the tick that brings a and b. The third train must find the matrix
complete, so it comes a firing window later; a ``Relay`` keeps it until then.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

__all__ = ["EXACT_PRODUCTS", "ORDERS", "Attention", "Relay", "cheaper_order", "reach_of"]

Shape = tuple[int, ...]

#: Order of the products -> the two trains that are multiplied first, and the one read last.
ORDERS: dict[str, tuple[str, str, str]] = {"kv": ("k", "v", "q"), "qk": ("q", "k", "v")}
#: Products are summed in float64 by some engines: integers below this are exact there.
EXACT_PRODUCTS = 2**53


@dataclass(frozen=True)
class Relay:
    """Emits the spike train of its source once more, tick for tick, in a later firing window.

    Attributes:
        name: Unique in the Program.
        shape: That of the source.
        source: A neuron, another relay, or a max-pool of one.
        depth: Firing window of the repetition; the source's burst is over before it.
        payload: Spikes per element and timestep at most: the ticks of the source's burst.
        module: Torch module path, for people.
    """

    name: str
    shape: Shape
    source: str
    depth: int
    payload: int
    module: str = ""


@dataclass(frozen=True)
class Attention:
    """Products of three spike trains, head by head: see the module.

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

    @property
    def first(self) -> tuple[str, str]:
        """The nodes whose trains are multiplied first."""
        one, two, _ = ORDERS[self.order]
        return getattr(self, one), getattr(self, two)

    @property
    def last(self) -> str:
        """The node whose train must find that product complete."""
        return str(getattr(self, ORDERS[self.order][2]))


def cheaper_order(q: Shape, k: Shape, v: Shape, heads: int) -> str:
    """The order with fewer multiplications, ``kv`` if both have as many.

    All arguments are those of an Attention: shapes of its three trains, number of heads.

    >>> cheaper_order((8, 14, 14), (8, 14, 14), (8, 14, 14), 2)
    'kv'
    >>> cheaper_order((64, 2, 2), (64, 2, 2), (64, 2, 2), 1)
    'qk'
    """
    d, e, n, m = q[0] // heads, v[0] // heads, prod(q[1:]), prod(k[1:])
    return "kv" if (n + m) * d * e <= n * m * (d + e) else "qk"


def reach_of(
    order: str, q: Shape, k: Shape, heads: int, payloads: tuple[int, int, int]
) -> tuple[int, int]:
    """Largest entries of the matrix that is formed first, and of y.

    ``q`` and ``k`` are shapes, ``payloads`` the largest counts of q, k and v.
    """
    d, m = q[0] // heads, prod(k[1:])
    of_q, of_k, of_v = payloads
    matrix = m * of_k * of_v if order == "kv" else d * of_q * of_k
    return matrix, d * m * of_q * of_k * of_v
