"""The input: a process that sends samples from a file."""

from __future__ import annotations

from snncc.backends.lava.kinds.base import Bits, Found, Kind
from snncc.backends.lava.plan import START, Emission, Plan
from snncc.program import Program, Source

__all__ = ["SOURCE"]

_MESSAGE_LIMIT = 255


def _add(plan: Plan, node: Source) -> None:
    bits = node.payload.bit_length()
    emission = Emission(node.name, node.shape[::-1], START, 1, bits)
    plan.emissions[node.name] = plan.add("FrameSource", emission)


def _faults(program: Program, node: Source, bits: Bits) -> Found:
    if node.payload > _MESSAGE_LIMIT:
        yield f"values up to {node.payload}, beyond 8 bits", "quantise the input to uint8"


SOURCE = Kind(_add, _faults)
