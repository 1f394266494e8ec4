"""What of a Program Lava can take: one int8 slice per weight, and 24 bits for every number.

Potentials, the membrane counted from the next level, and what Conv and Dense deliver are words of
24 bits with sign; a chip may have fewer. What they reach is proved in ``snncc.program.bounds``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from snncc.errors import Fault
from snncc.program import (
    CARRIES,
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
from snncc.program.bounds import membrane_range

__all__ = ["FEWER_BITS", "LAVA", "Words", "reachable_levels", "unsupported"]

_MESSAGE_LIMIT = 255

Range = tuple[int, int]


@dataclass(frozen=True)
class Words:
    """How many bits there are, sign included.

    Attributes:
        weight_bits: Of a weight, at most 8.
        state_bits: Of a potential, and of whatever is added up.
    """

    weight_bits: int
    state_bits: int


#: Those of Lava's process models.
LAVA = Words(weight_bits=8, state_bits=24)


def unsupported(program: Program, words: Words = LAVA) -> list[Fault]:
    """Everything that Lava cannot take, all at once; nothing: the Program can be emitted.

    Args:
        program: A valid Program.
        words: Fewer bits than Lava's, for a chip that has fewer.
    """
    return [
        Fault(what, node=node.name, kind=type(node).__name__, module=node.module, todo=todo)
        for node in program.nodes
        for what, todo in _CHECKS.get(type(node), _unknown)(program, node, words)
    ]


#: What the process models of populations do with their membranes, by ``Neuron.carry``.
RESETS = ("none", "soft", "hard", "delayed")

Found = Iterator[tuple[str, str]]
#: What to do about too many bits.
FEWER_BITS = "fewer --weight-bits"
#: Shifts that no bits of weights make up for.
_HEAVY_SHIFT = 13


def _unknown(program: Program, node: Node, words: Words) -> Found:
    yield "there is no Lava process for it", "use another engine"


def _source(program: Program, node: Source, words: Words) -> Found:
    if node.payload > _MESSAGE_LIMIT:
        yield f"values up to {node.payload}, beyond 8 bits", "quantise the input to uint8"


def _accumulator(program: Program, node: Accumulator, words: Words) -> Found:
    for p in node.projections:
        if len(p.weights) > 1:
            yield f"weights from '{p.source}' have {len(p.weights)} slices of 8 bits", FEWER_BITS
        elif (reach := _weight(p)) >> (words.weight_bits - 1):
            bits = f"{words.weight_bits} bits"
            yield f"weights from '{p.source}' reach {reach}, beyond {bits}", FEWER_BITS
    if node.masked is not None:
        yield "masked patches", "compile without --patch-mask"
    low, high = node.channel_sums(program.by_name)
    ranges = (int(low.min()), int(high.max())), node.potential_bounds(program.by_name)
    yield from _too_wide("the potential", _widest(*ranges), words, _narrower(node))


def _narrower(node: Accumulator) -> str:
    """What to do about a potential of too many bits."""
    heaviest = max(node.projections, key=lambda p: p.shift)
    if heaviest.shift < _HEAVY_SHIFT:
        return FEWER_BITS
    times = f"2^{heaviest.shift} times"
    return f"leave out what '{heaviest.source}' adds, or train on: its weights count {times}"


def _weight(p: Projection) -> int:
    """The largest absolute weight; -128 counts as 127, which takes as many bits."""
    values = p.weights[0] if p.weights else np.zeros(1, np.int8)
    return int(np.maximum(values, -1 - values.astype(np.int64)).max())


def _neuron(program: Program, node: Neuron, words: Words) -> Found:
    low, high = membrane_range(program, node)
    levels = reachable_levels(program, node)
    ranges = [(low, high), (low - int(levels.max()), high - int(levels.min()))]
    if node.threshold is not None:
        rule, loss = CARRIES[node.carry], node.D * int(node.threshold.max())
        ranges.append((low - loss * (rule.takes and not rule.is_late), loss))
    if node.carry not in RESETS:
        yield f"no Lava process carries '{node.carry}'", "use another engine"
    source = program.by_name[node.source]
    todo = _narrower(source) if isinstance(source, Accumulator) else FEWER_BITS
    yield from _too_wide("the membrane", _widest(*ranges), words, todo)


def _pool(program: Program, node: Pool, words: Words) -> Found:
    yield from _too_wide("a sum over windows", node.payload, words)


def _attention(program: Program, node: Attention, words: Words) -> Found:
    reach = max(*node.products_reach(program.by_name), node.payload)
    yield from _too_wide("a product", reach, words, "fewer levels or positions, or another engine")


def _nothing(program: Program, node: Node, words: Words) -> Found:
    yield from ()


_CHECKS: Mapping[type[Node], Callable[[Program, Any, Words], Found]] = {
    Source: _source,
    Accumulator: _accumulator,
    Neuron: _neuron,
    Pool: _pool,
    Relay: _nothing,
    Attention: _attention,
    Readout: _nothing,
}


def _too_wide(what: str, reach: int, words: Words, todo: str = FEWER_BITS) -> Found:
    most = 2 ** (words.state_bits - 1) - 1
    if reach > most:
        state = f"the {words.state_bits} bits of a state word ({most:,})"
        yield f"{what} may reach {reach:,}, beyond {state}", todo


def _widest(*ranges: Range) -> int:
    return max(max(abs(low), abs(high)) for low, high in ranges)


def reachable_levels(program: Program, node: Neuron) -> Array:
    """Levels (C|1, D); those out of reach are moved to its border, so that all fit 24 bits."""
    low, high = membrane_range(program, node)
    return np.clip(node.levels, low, high + 1)
