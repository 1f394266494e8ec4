"""Accumulators: what feeds one arrives within a frame's ticks, and is summed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from snncc.backends.lava.kinds.base import (
    FEWER_WEIGHT_BITS,
    Bits,
    Found,
    Kind,
    too_wide,
    widest,
)
from snncc.backends.lava.kinds.layers import conv, linear
from snncc.backends.lava.kinds.neuron import narrower, population
from snncc.backends.lava.plan import GRADED_BITS, Emission, Entry, Plan
from snncc.errors import Option, Words
from snncc.program import Accumulator, Neuron, Program, Projection

__all__ = ["ACCUMULATOR"]


def _add(plan: Plan, node: Accumulator) -> None:
    """A process of its own, unless one neuron alone reads it and can integrate by itself."""
    inputs, complete = _inputs(plan, node)
    bias = plan.tensor(f"{node.name}.bias", node.bias_map().T)
    readers = plan.program.readers(node.name)
    if len(readers) == 1 and isinstance(readers[0], Neuron) and readers[0].shape == node.shape:
        population(plan, readers[0], inputs, complete, bias)
        return
    emission = Emission(node.name, node.shape[::-1], complete, 1, GRADED_BITS)
    fields: Entry = {"module": node.module, "first": complete, "bias": bias}
    plan.emissions[node.name] = plan.add("Accumulate", emission, *inputs, **fields)


def _inputs(plan: Plan, node: Accumulator) -> tuple[list[Emission], int]:
    """What arrives, all of it within one frame's ticks, and the last of these."""
    lags = [0 if p.kind == "identity" else 1 for p in node.projections]
    sources = [plan.emissions[p.source] for p in node.projections]
    complete = max(s.last + lag for s, lag in zip(sources, lags, strict=True))
    opens = plan.opens(complete)
    arriving: list[Emission] = []
    for p, source, lag in zip(node.projections, sources, lags, strict=True):
        late = plan.relayed(source, max(0, opens - source.first - lag))
        current = _PROJECT[p.kind](plan, f"{p.source} -> {node.name}", node, p, late)
        arriving.append(plan.once(current, arriving))
    return arriving, complete


def _identity(
    plan: Plan, name: str, node: Accumulator, p: Projection, source: Emission
) -> Emission:
    return source


_PROJECT: Mapping[str, Callable[[Plan, str, Accumulator, Projection, Emission], Emission]] = {
    "identity": _identity,
    "linear": linear,
    "conv": conv,
}


def _faults(program: Program, node: Accumulator, bits: Bits) -> Found:
    for p in node.projections:
        many = f"weights from '{p.source}'"
        if p.drop:
            yield f"what '{p.source}' sends is rounded by {p.drop} bits", FEWER_WEIGHT_BITS
        if len(p.weights) > 1:
            yield f"{many} have {len(p.weights)} slices of 8 bits", FEWER_WEIGHT_BITS
        elif (reach := _weight(p)) >> (bits.weight_bits - 1):
            yield f"{many} reach {reach}, beyond {bits.weight_bits} bits", FEWER_WEIGHT_BITS
    if node.masked is not None:
        yield "masked patches", Words("compile without ", Option("patch_mask"))
    low, high = node.channel_sums(program.by_name)
    ranges = (int(low.min()), int(high.max())), node.potential_bounds(program.by_name)
    yield from too_wide("the potential", widest(*ranges), bits, narrower(node))


def _weight(p: Projection) -> int:
    """The largest absolute weight; -128 counts as 127, which takes as many bits."""
    values = p.weights[0] if p.weights else np.zeros(1, np.int8)
    return int(np.maximum(values, -1 - values.astype(np.int64)).max())


ACCUMULATOR = Kind(_add, _faults)
