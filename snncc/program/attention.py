"""The arithmetic of spike-driven attention: orders of the products, and how far they reach.

For each head, with spike counts q (d, N), k (d, M) and v (e, M) over N and M positions,

    y[j, n] = sum over i < d and m < M of q[i, n] * k[i, m] * v[j, m]

without a softmax, so the products can be taken in two orders: ``kv`` first forms the d by e matrix
k v^T, ``qk`` the N by M matrix q^T k. Counts arrive as ticks, and a product of sums is not the sum
of the products of each tick: with what had arrived before a tick summed up in A and B, the matrix
grows by a (B + b)^T + A b^T in the tick that brings a and b. The third train must find the matrix
complete, so it comes a firing window later; a ``Relay`` keeps it until then.
"""

from __future__ import annotations

from math import prod

__all__ = ["EXACT_PRODUCTS", "ORDERS", "cheaper_order", "reach_of"]

Shape = tuple[int, ...]

#: Order of the products -> the two trains that are multiplied first, and the one read last.
ORDERS: dict[str, tuple[str, str, str]] = {"kv": ("k", "v", "q"), "qk": ("q", "k", "v")}
#: Products are summed in float64 by some engines: integers below this are exact there.
EXACT_PRODUCTS = 2**53


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
