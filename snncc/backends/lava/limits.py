"""What of a Program Lava can take: one int8 slice per weight, and 24 bits for every number.

Potentials, the membrane counted from the next level, and what Conv and Dense deliver are words of
24 bits with sign; a chip may have fewer. What they reach is proved in ``snncc.program.bounds``.
"""

from __future__ import annotations

from collections.abc import Iterator

from snncc.backends.lava.kinds import KINDS
from snncc.backends.lava.kinds.base import LAVA, Bits
from snncc.errors import Fault
from snncc.program import Node, Program

__all__ = ["unsupported"]


def unsupported(program: Program, bits: Bits = LAVA) -> list[Fault]:
    """Everything that Lava cannot take, all at once; nothing: the Program can be emitted.

    Args:
        program: A valid Program.
        bits: Fewer than Lava's, for a chip that has fewer.
    """
    return [
        Fault(what, node=node.name, kind=type(node).__name__, module=node.module, todo=todo)
        for node in program.nodes
        for what, todo in _found(program, node, bits)
    ]


def _found(program: Program, node: Node, bits: Bits) -> Iterator[tuple[str, str]]:
    kind = KINDS.get(type(node))
    if kind is None:
        yield "there is no Lava process for it", "use another engine"
    else:
        yield from kind.faults(program, node, bits)
