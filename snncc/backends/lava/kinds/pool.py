"""Pools: a process for maxima; sums over windows are a convolution with ones."""

from __future__ import annotations

import numpy as np

from snncc.backends.lava.kinds.base import Bits, Found, Kind, too_wide
from snncc.backends.lava.kinds.layers import conv
from snncc.backends.lava.plan import Emission, Entry, Plan
from snncc.program import Pool, Program, Projection

__all__ = ["POOL"]


def _add(plan: Plan, node: Pool) -> None:
    made = _sums if node.kind == "sum" else _maxima
    plan.emissions[node.name] = made(plan, node, plan.emissions[node.source])


def _maxima(plan: Plan, node: Pool, source: Emission) -> Emission:
    geometry: Entry = {
        "input_shape": list(source.shape),
        "kernel": list(node.kernel[::-1]),
        "stride": list(node.strides[::-1]),
        "padding": [node.pads[i] for i in (1, 0, 3, 2)],
    }
    emission = Emission(node.name, node.shape[::-1], source.first, source.burst, source.bits)
    return plan.add("MaxPool", emission, source, **geometry)


def _sums(plan: Plan, node: Pool, source: Emission) -> Emission:
    channels = node.shape[0]
    ones = np.ones((channels, 1, *node.kernel), dtype=np.int8)
    same = Projection(node.source, "conv", (ones,), 1, node.strides, node.pads, groups=channels)
    return conv(plan, node.name, node, same, source)


def _faults(program: Program, node: Pool, bits: Bits) -> Found:
    """A maximum is no larger than what arrives."""
    if node.kind == "sum":
        yield from too_wide("a sum over windows", node.payload, bits)


POOL = Kind(_add, _faults)
