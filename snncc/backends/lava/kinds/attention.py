"""Attention: three trains at three ports, the last of them when the other two are complete."""

from __future__ import annotations

from snncc.backends.lava.kinds.base import Bits, Found, Kind, too_wide
from snncc.backends.lava.plan import GRADED_BITS, Emission, Plan
from snncc.program import Attention, Program

__all__ = ["ATTENTION"]


def _add(plan: Plan, node: Attention) -> None:
    """The last train begins when the matrix of the other two is complete."""
    first, last = [plan.emissions[name] for name in node.first], plan.emissions[node.last]
    complete = max(*(e.last for e in first), last.first)
    opens = plan.opens(complete)
    inputs = [plan.relayed(e, max(0, opens - e.first)) for e in first]
    inputs.append(plan.relayed(last, complete - last.first))
    shape = node.shape[::-1]
    emission = Emission(node.name, shape, complete, last.burst, GRADED_BITS)
    fields = {"shapes": [list(e.shape) for e in inputs], "heads": node.heads}
    fields |= {"order": node.order, "first": complete, "module": node.module}
    note = f"{node.heads} heads, {node.order} first"
    plan.emissions[node.name] = plan.add("SpikeAttention", emission, *inputs, note=note, **fields)


def _faults(program: Program, node: Attention, bits: Bits) -> Found:
    reach = max(*node.products_reach(program.by_name), node.payload)
    yield from too_wide("a product", reach, bits, "fewer levels or positions, or another engine")


ATTENTION = Kind(_add, _faults)
