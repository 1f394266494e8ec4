"""What Lava's side is asked of a kind of node: which processes it takes, and what is too much.

Numbers are words of few bits in Lava; what they reach is proved in ``snncc.program.bounds``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from snncc.backends.lava.plan import Plan
from snncc.errors import Option, Words
from snncc.program import Node, Program

__all__ = ["FEWER_WEIGHT_BITS", "LAVA", "Bits", "Found", "Kind", "too_wide", "widest"]

Range = tuple[int, int]
#: Pairs of what is wrong and what to do about it.
Found = Iterator[tuple[str, str]]

#: What to do about numbers that weights of fewer bits would make smaller.
FEWER_WEIGHT_BITS = Words("fewer ", Option("weight_bits"))


@dataclass(frozen=True)
class Bits:
    """How many bits the words of a machine have, sign included.

    Attributes:
        weight_bits: Of a weight, at most 8.
        state_bits: Of a potential, and of whatever is added up.
    """

    weight_bits: int
    state_bits: int


#: Those of Lava's process models.
LAVA = Bits(weight_bits=8, state_bits=24)


def _fits(program: Program, node: Node, bits: Bits) -> Found:
    yield from ()


@dataclass(frozen=True)
class Kind:
    """What there is to know of a kind of node: an entry in ``KINDS``.

    Attributes:
        add: Adds its processes to a plan that has those of the nodes that it reads, and tells the
            plan what they send under the node's name.
        faults: What of it words of so many bits do not hold; by default they hold it always.
    """

    add: Callable[[Plan, Any], None]
    faults: Callable[[Program, Any, Bits], Found] = _fits


def too_wide(what: str, reach: int, bits: Bits, todo: str = FEWER_WEIGHT_BITS) -> Found:
    """The fault of a number that no state word holds, if ``reach`` is one."""
    most = 2 ** (bits.state_bits - 1) - 1
    if reach > most:
        state = f"the {bits.state_bits} bits of a state word ({most:,})"
        yield f"{what} may reach {reach:,}, beyond {state}", todo


def widest(*ranges: Range) -> int:
    """The largest absolute value in any of them."""
    return max(max(abs(low), abs(high)) for low, high in ranges)
