"""Attention in ONNX networks by hand: the same product, written in many ways."""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import prod
from typing import Any

import numpy as np
from float_networks import Net

from snncc.ir.ops import DOMAIN

__all__ = ["attend", "tokens"]

_LAYOUTS = {"bhnd": [0, 1, 3, 2], "bhdn": None, "interleaved": None}


def tokens(
    net: Net, name: str, channels: int, heads: int, layout: str = "bhnd", fire: bool = True,
    D: int = 4, norm: float = 1.0, rounding: str = "half-even", pooled: str = "",
) -> str:  # fmt: skip
    """Spikes of a 1x1 layer over the current map, with heads apart: [N, heads, P, d] or so."""
    kept = net.x, net.shape, net.rms
    net.conv(channels, 1, D=D)
    if fire:
        attributes = {"D": D, "norm": norm, "rounding": rounding}
        net.then("IntegerFire", domain=DOMAIN, module=f"{name}_fire", **attributes)
    if pooled:
        net.pool(pooled, 2, 2)
    positions, each = prod(net.shape[1:]), channels // heads
    if layout == "interleaved":
        net.then("Reshape", net.const([0, each, heads, positions], np.int64))
        net.then("Transpose", perm=[0, 2, 3, 1])
    else:
        net.then("Reshape", net.const([0, heads, each, positions], np.int64))
        if (turn := _LAYOUTS[layout]) is not None:
            net.then("Transpose", perm=turn)
    made = net.x
    net.x, net.shape, net.rms = kept
    return made


def attend(
    net: Net,
    heads: int,
    op: str = "MatMul",
    first: str = "qk",
    layout: str = "bhnd",
    scales: Collection[str] = (),
    wide: int = 1,
    between: Callable[[Net], Any] | None = None,
    fire: bool = True,
    fire_behind: bool = True,
    pooled: str = "",
    factor: float = 0.25,
    after: float = 1.0,
    **neuron: Any,
) -> Net:
    """Attention over the current map of spikes, and a neuron.

    Args:
        net: Its current value is a map of spikes.
        heads: Of channels as many as the map has.
        op: ``MatMul`` or ``Einsum``.
        first: ``qk`` or ``kv``: which product is taken first.
        layout: ``bhnd``, ``bhdn`` or ``interleaved``.
        scales: Where a factor stands: ``q``, ``k``, ``v``, ``first`` (product), ``y``.
        wide: Channels of v over those of q.
        between: What stands between the two products.
        fire: Whether q, k and v are spikes.
        fire_behind: Whether a neuron follows.
        pooled: ``MaxPool`` or ``AveragePool`` of the spikes of k and v.
        factor: What ``scales`` multiply with.
        after: A factor right before the neuron.
        **neuron: D, norm and rounding of q, k and v.
    """
    channels, plane = net.shape[0], net.shape[1:]
    sizes = {"q": channels, "k": channels, "v": channels * wide}
    q, k, v = (
        _scaled(net, tokens(net, n, c, heads, layout, fire, pooled=pooled if n != "q" else "",
                            **neuron), n in scales, factor)
        for n, c in sizes.items()
    )  # fmt: skip
    multiply = _einsum if op == "Einsum" else _matmul
    y = multiply(net, q, k, v, first, layout, lambda m: _between(net, m, scales, factor, between))
    net.x = _scaled(net, y, "y" in scales, factor)
    if layout != "bhdn":
        net.then("Transpose", perm=[0, 1, 3, 2])
    net.then("Reshape", net.const([0, channels * wide, *plane], np.int64), module="merge")
    net.shape = (channels * wide, *plane)
    if after != 1.0:
        net.affine("Mul", after)
    net.rms = 1.0
    return net.fire(4) if fire_behind else net


def _scaled(net: Net, x: str, wanted: bool, factor: float) -> str:
    return net.node("Mul", x, net.const(factor)) if wanted else x


def _between(
    net: Net, x: str, scales: Collection[str], factor: float, between: Callable[[Net], Any] | None
) -> str:
    x = _scaled(net, x, "first" in scales, factor)
    if between is None:
        return x
    kept, net.x = net.x, x
    between(net)
    made, net.x = net.x, kept
    return made


def _matmul(
    net: Net, q: str, k: str, v: str, first: str, layout: str, between: Callable[[str], str]
) -> str:
    def turned(x: str) -> str:
        return net.node("Transpose", x, perm=[0, 1, 3, 2])

    if layout == "bhdn":  # all of it transposed
        if first == "qk":
            return net.node("MatMul", v, between(net.node("MatMul", turned(k), q)))
        return net.node("MatMul", between(net.node("MatMul", v, turned(k))), q)
    if first == "qk":
        return net.node("MatMul", between(net.node("MatMul", q, turned(k))), v)
    return net.node("MatMul", q, between(net.node("MatMul", turned(k), v)))


def _einsum(
    net: Net, q: str, k: str, v: str, first: str, layout: str, between: Callable[[str], str]
) -> str:
    apart = {"bhnd": ("bhid", "bhjd", "bhje"), "bhdn": ("bhdi", "bhdj", "bhej")}
    of_q, of_k, of_v = apart["bhdn" if layout == "bhdn" else "bhnd"]
    out = "bhei" if layout == "bhdn" else "bhie"
    if first == "qk":
        scores = between(net.node("Einsum", q, k, equation=f"{of_q},{of_k}->bhij"))
        return net.node("Einsum", scores, v, equation=f"bhij,{of_v}->{out}")
    context = between(net.node("Einsum", k, v, equation=f"{of_k},{of_v}->bhde"))
    return net.node("Einsum", q, context, equation=f"{of_q},bhde->{out}")
