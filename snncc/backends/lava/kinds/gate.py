"""Gates: two trains at two ports, which begin in the same tick."""

from __future__ import annotations

from snncc.backends.lava.kinds.base import Bits, Found, Kind, too_wide
from snncc.backends.lava.plan import Emission, Entry, Plan
from snncc.program import Gate, Program

__all__ = ["GATE"]


def _add(plan: Plan, node: Gate) -> None:
    """It emits as long as one of its trains may fire, or the silence of the second grows."""
    trains = [plan.emissions[name] for name in node.sources]
    first = max(train.first for train in trains)
    a, b = (plan.relayed(train, first - train.first) for train in trains)
    silent = _silent(plan.program, node)
    bits = 0 if node.payload == 1 else node.payload.bit_length()
    emission = Emission(node.name, node.shape[::-1], first, max(a.burst, b.burst, silent), bits)
    fields: Entry = {"shapes": [list(a.shape), list(b.shape)], "silent": silent}
    fields |= {"first": first, "module": node.module}
    note = f"and not, up to {silent}" if silent else "and"
    plan.emissions[node.name] = plan.add("SpikeGate", emission, a, b, note=note, **fields)


def _silent(program: Program, node: Gate) -> int:
    """Most spikes that the second train can have, if its silence counts; else 0."""
    return program.by_name[node.b].reach if node.kind == "and-not" else 0


def _faults(program: Program, node: Gate, bits: Bits) -> Found:
    if (silent := _silent(program, node)) > program.ticks:
        told = f"silence of '{node.b}' for {silent} ticks, in windows of {program.ticks}"
        yield told, "use another engine"
    yield from too_wide("a product of spikes", node.payload, bits, "fewer levels")


GATE = Kind(_add, _faults)
