"""Synapses of one tick: what arrives times the weights, added to potentials, exactly.

Sums are computed in the narrowest float type in which every integer that may occur is exact, so
the result is the integer result whatever the order of additions. Channels are the last axis:
(N, H, W, C).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from snncc.errors import BadInputError
from snncc.program import Array, Node, Program, Projection, Shape
from snncc.program.bounds import weight_reach
from snncc.program.nodes.base import Nodes
from snncc.program.nodes.projection import coarse
from snncc.program.windows import channels_first, channels_last, windows_of

__all__ = ["Ints", "Synapses", "all_synapses", "reshaped"]

Ints = npt.NDArray[np.int64]

#: Float types and the bound below which all integers, hence all partial sums, are exact in them.
_FLOATS: tuple[tuple[type[np.floating[Any]], int], ...] = ((np.float32, 2**24), (np.float64, 2**53))
#: Bits of graded payloads that are multiplied apart from those above them.
_LOW_BITS = 28
#: A convolution gathers its patches in chunks of about this size, which stay in the cache.
_CHUNK_BYTES = 2**20

#: Adds to potentials, int64 (N, [H, W,] C), what the values that arrived in a tick bring.
Synapses = Callable[[Array, Ints], None]


def all_synapses(program: Program) -> dict[str, list[Synapses]]:
    """For each accumulator one function per projection, which adds a tick's currents in place.

    Raises:
        BadInputError: Sums of a projection may exceed 2**53.
    """
    nodes = program.by_name
    return {
        node.name: [_synapses(p, nodes[p.source], nodes) for p in node.projections]
        for node in program.accumulators
    }


def _synapses(p: Projection, source: Node, nodes: Nodes) -> Synapses:
    if p.kind == "identity":
        return partial(_deliver_identity, p.drop)
    payload = source.tick_reach(nodes)
    if source.is_potential and payload * max(map(weight_reach, p.weights)) >= _FLOATS[-1][1]:
        return _Halves(p, source.shape, payload)
    return _WEIGHTED[p.kind](_exact_parts(p, payload), p, source.shape)


def _deliver_identity(drop: int, arrived: Array, potential: Ints) -> None:
    potential += coarse(arrived, drop)


class _Halves:
    """Graded payloads of more bits than a float holds beside weights: high ones and low ones."""

    def __init__(self, p: Projection, shape: Shape, payload: int) -> None:
        low, high = 1 << (_LOW_BITS - 1), (payload >> _LOW_BITS) + 1
        above = replace(p, shift=p.shift + _LOW_BITS)
        self.low, self.high = (
            _WEIGHTED[p.kind](_exact_parts(q, most), q, shape)
            for q, most in ((p, low), (above, high))
        )

    def __call__(self, arrived: Array, potential: Ints) -> None:
        above = (arrived + (1 << (_LOW_BITS - 1))) >> _LOW_BITS
        self.low(arrived - (above << _LOW_BITS), potential)
        self.high(above, potential)


class _Parts:
    """Weights as floats, (P, *shape): w = sum_p factor_p * part_p, dot products are exact."""

    def __init__(self, values: Array, factors: Sequence[int]) -> None:
        self.values = values
        self.factors = np.array(factors, dtype=np.int64)[:, np.newaxis]

    def combined(self, sums: Array) -> Ints:
        """Sums (..., P, C) of all parts to int64 (..., C)."""
        whole = sums.astype(np.int64)
        if self.factors.max() > 1:
            whole *= self.factors
        return np.asarray(whole[..., 0, :] if len(self.factors) == 1 else whole.sum(axis=-2))


def _exact_parts(p: Projection, payload: int) -> _Parts:
    """The narrowest exact form of the weights: all slices in one if that fits, else each apart."""
    merged = (replace(p, shift=0).total()[np.newaxis], [1 << p.shift])
    apart = (np.stack(p.weights), [1 << (8 * i + p.shift) for i in range(len(p.weights))])
    for dtype, limit in _FLOATS:
        for values, factors in (merged, apart):
            if payload * max(map(weight_reach, values)) < limit:
                return _Parts(values.astype(dtype), factors)
    raise BadInputError(f"clocked: sums of the projection from '{p.source}' may exceed 2**53")


class _Linear:
    """Reads its source flattened in C order; the matrix is permuted to channels last."""

    def __init__(self, parts: _Parts, p: Projection, shape: Shape) -> None:
        self.parts = parts
        rows = parts.values.reshape(-1, *shape)
        self.matrix = np.ascontiguousarray(np.moveaxis(rows, 1, -1).reshape(len(rows), -1).T)

    def __call__(self, arrived: Array, potential: Ints) -> None:
        flat = arrived.reshape(len(arrived), -1).astype(self.matrix.dtype)
        sums = flat @ self.matrix
        potential += self.parts.combined(sums.reshape(len(sums), -1, potential.shape[-1]))


class _Conv:
    """Convolution of a few samples at a time, so that their patches stay in the cache."""

    def __init__(self, parts: _Parts, p: Projection, shape: Shape) -> None:
        self.parts, self.p = parts, p
        _, out, per_group, *self.kernel = parts.values.shape
        by_group = parts.values.reshape(-1, p.groups, out // p.groups, per_group, *self.kernel)
        depthwise = p.groups > 1 and per_group == 1
        self.product = _tap_by_tap if depthwise else _matrix_product
        # from (P, G, M, C / G, kH, kW), M outputs for each of G groups, to what the product wants
        axes = (4, 5, 3, 0, 1, 2) if depthwise else (1, 4, 5, 3, 0, 2)
        self.weights = np.ascontiguousarray(by_group.transpose(axes))

    def __call__(self, arrived: Array, potential: Ints) -> None:
        p, values = self.p, arrived.astype(self.weights.dtype)
        windows = windows_of(values, self.kernel, p.strides, p.pads, p.dilations)
        step = max(1, _CHUNK_BYTES // windows[0].nbytes)
        for at in range(0, len(windows), step):
            sums = self.product(windows[at : at + step], self.weights)
            potential[at : at + step] += self.parts.combined(sums)


def _matrix_product(windows: Array, weights: Array) -> Array:
    """Sums (N, H, W, P, C_out) for weights (G, kH, kW, C / G, P, M)."""
    sites = windows.shape[:3]
    G, kh, kw, per_group, P, M = weights.shape
    patches = windows.reshape(*sites, kh, kw, G, per_group).transpose(5, 0, 1, 2, 3, 4, 6)
    K = kh * kw * per_group
    sums = patches.reshape(G, prod(sites), K) @ weights.reshape(G, K, P * M)
    by_site = sums.reshape(G, *sites, P, M).transpose(1, 2, 3, 4, 0, 5)
    return np.asarray(by_site.reshape(*sites, P, G * M))


def _tap_by_tap(windows: Array, weights: Array) -> Array:
    """Sums (N, H, W, P, C_out) for depthwise weights (kH, kW, 1, P, G, M)."""
    sites = windows.shape[:3]
    kh, kw, _, P, G, M = weights.shape
    sums = np.zeros((*sites, P, G, M), dtype=weights.dtype)
    for i, j in np.ndindex(kh, kw):
        sums += windows[:, :, :, i, j, np.newaxis, :, np.newaxis] * weights[i, j, 0]
    return sums.reshape(*sites, P, G * M)


_WEIGHTED: Mapping[str, Callable[[_Parts, Projection, Shape], Synapses]] = {
    "linear": _Linear,
    "conv": _Conv,
}


def reshaped(values: Array, inside: Shape) -> Array:
    """``values`` in another shape with as many elements, in C order of channels first."""
    if values.shape == inside:
        return values
    return channels_last(channels_first(values).reshape(inside[0], inside[-1], *inside[1:-1]))
