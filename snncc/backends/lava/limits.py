"""What of a Program Lava can take: one int8 slice per weight, and 24 bits for every number.

Potentials, the membrane counted from the next level, and what Conv and Dense deliver are words of
24 bits with sign. Bounds are proved here from weights and payloads, whatever the order of
additions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from snncc.errors import Fault
from snncc.ir.attention import reach_of
from snncc.ir.program import (
    Accumulator,
    Array,
    Attention,
    Neuron,
    Node,
    Pool,
    Program,
    Projection,
    Readout,
    Relay,
    Source,
)
from snncc.ir.program_check import emitted_payload

__all__ = ["FEWER_BITS", "STATE_LIMIT", "membrane_bounds", "reachable_levels", "unsupported"]

#: Numbers are below this.
STATE_LIMIT = 2**23
_MESSAGE_LIMIT = 255

Range = tuple[int, int]


def unsupported(program: Program) -> list[Fault]:
    """Everything that Lava cannot take, all at once; nothing: the Program can be emitted."""
    return [
        Fault(what, node=node.name, kind=type(node).__name__, module=node.module, todo=todo)
        for node in program.nodes
        for what, todo in _CHECKS.get(type(node), _unknown)(program, node)
    ]


Found = Iterator[tuple[str, str]]
#: What to do about too many bits.
FEWER_BITS = "fewer --weight-bits"


def _unknown(program: Program, node: Node) -> Found:
    yield "there is no Lava process for it", "use another engine"


def _source(program: Program, node: Source) -> Found:
    if node.payload > _MESSAGE_LIMIT:
        yield f"values up to {node.payload}, beyond 8 bits", "quantise the input to uint8"


def _accumulator(program: Program, node: Accumulator) -> Found:
    for p in node.projections:
        if len(p.weights) > 1:
            yield f"weights from '{p.source}' have {len(p.weights)} slices of 8 bits", FEWER_BITS
    if node.masked is not None:
        yield "masked patches", "compile without --patch-mask"
    reach = _widest(_sums(program, node), potential_range(program, node))
    if reach >= STATE_LIMIT:
        yield _too_wide("the potential", reach), FEWER_BITS


def _neuron(program: Program, node: Neuron) -> Found:
    low, high = membrane_bounds(program, node)
    levels = reachable_levels(program, node)
    ranges = [(low, high), (low - int(levels.max()), high - int(levels.min()))]
    if node.threshold is not None:
        loss = node.D * int(node.threshold.max())
        ranges.append((low - loss * (node.carry == "soft"), loss))
    if _widest(*ranges) >= STATE_LIMIT:
        yield _too_wide("the membrane", _widest(*ranges)), FEWER_BITS


def _pool(program: Program, node: Pool) -> Found:
    if node.payload >= STATE_LIMIT:
        yield _too_wide("a sum over windows", node.payload), FEWER_BITS


def _attention(program: Program, node: Attention) -> Found:
    trains = [program.by_name[name] for name in (node.q, node.k, node.v)]
    of_q, of_k, of_v = map(emitted_payload, trains)
    q, k, _ = (train.shape for train in trains)
    reach = max(*reach_of(node.order, q, k, node.heads, (of_q, of_k, of_v)), node.payload)
    if reach >= STATE_LIMIT:
        yield _too_wide("a product", reach), "fewer levels or positions, or another engine"


def _nothing(program: Program, node: Node) -> Found:
    yield from ()


_CHECKS: Mapping[type[Node], Callable[[Program, Any], Found]] = {
    Source: _source,
    Accumulator: _accumulator,
    Neuron: _neuron,
    Pool: _pool,
    Relay: _nothing,
    Attention: _attention,
    Readout: _nothing,
}


def _too_wide(what: str, reach: int) -> str:
    return f"{what} may reach {reach:,}, beyond the 24 bits of a state word ({STATE_LIMIT - 1:,})"


def _widest(*ranges: Range) -> int:
    return max(max(abs(low), abs(high)) for low, high in ranges)


# -- bounds --------------------------------------------------------------------------------


def potential_range(program: Program, node: Accumulator) -> Range:
    """Proved range of the complete potential."""
    low, high = _channel_sums(program, node)
    bias = node.bias.reshape(node.shape[0], -1)
    least: Any = low + bias.min(1)
    most: Any = high + bias.max(1)
    return int(least.min()), int(most.max())


def membrane_bounds(program: Program, node: Neuron) -> Range:
    """Range of the membrane that the levels of a neuron are compared with."""
    source = program.by_name[node.source]
    assert isinstance(source, Accumulator)
    low, high = potential_range(program, source)
    if node.threshold is None:
        return low, high
    drive = max(abs(low), abs(high)) << node.fraction
    loss = node.D * int(node.threshold.max()) if node.carry != "hard" else 0
    before, behind = (0, loss) if node.carry == "delayed" else (loss, 0)
    numerator, shift = node.decay
    reach = drive
    for _ in range(program.timesteps - 1):
        stays = (numerator * (reach + before) >> shift) + 1
        grown = stays + drive + behind
        if grown == reach or reach >= STATE_LIMIT:
            break
        reach = grown
    return -reach, reach


def reachable_levels(program: Program, node: Neuron) -> Array:
    """Levels (C|1, D); those out of reach are moved to its border, so that all fit 24 bits."""
    low, high = membrane_bounds(program, node)
    return np.clip(node.levels, low, high + 1)


def _sums(program: Program, node: Accumulator) -> Range:
    """Range of any part of what arrives."""
    low, high = _channel_sums(program, node)
    return int(low.min()), int(high.max())


def _channel_sums(program: Program, node: Accumulator) -> tuple[Array, Array]:
    """Per channel the sums of all that is negative, and of all that is positive."""
    low = high = np.zeros(node.shape[0], dtype=object)
    for p in node.projections:
        signed = _is_signed(program, p.source)
        if p.kind == "identity":
            low, high = low - p.payload * signed, high + p.payload
            continue
        below, above = _weight_sums(p, node.shape[0])
        if signed:
            below, above = below - above, above - below
        low, high = low + p.payload * below, high + p.payload * above
    return low, high


def _weight_sums(p: Projection, channels: int) -> tuple[Array, Array]:
    rows = replace(p, shift=0).total().reshape(channels, -1)
    below, above = np.minimum(rows, 0).sum(1), np.maximum(rows, 0).sum(1)
    return below.astype(object) << p.shift, above.astype(object) << p.shift


def _is_signed(program: Program, name: str) -> bool:
    """Whether a node may emit negative values: potentials may, spikes and pixels never."""
    node = program.by_name[name]
    return isinstance(node, Accumulator) or (
        isinstance(node, Pool) and _is_signed(program, node.source)
    )
