"""Sums of spikes: a process at whose port both arrive, within one frame's ticks."""

from __future__ import annotations

from snncc.backends.lava.kinds.base import Bits, Found, Kind, too_wide
from snncc.backends.lava.plan import Emission, Plan
from snncc.program import Program, Sum

__all__ = ["SUM"]


def _add(plan: Plan, node: Sum) -> None:
    """What begins too early for the frame in which the other ends waits."""
    sources = [plan.emissions[name] for name in node.sources]
    last = max(source.last for source in sources)
    a, b = (plan.relayed(e, max(0, plan.opens(last) - e.first)) for e in sources)
    first = min(a.first, b.first)
    bits = node.payload.bit_length()
    emission = Emission(node.name, node.shape[::-1], first, last - first + 1, bits)
    plan.emissions[node.name] = plan.add(
        "TrainSum", emission, a, plan.once(b, [a]), module=node.module
    )


def _faults(program: Program, node: Sum, bits: Bits) -> Found:
    yield from too_wide("a sum of spikes", node.payload, bits, "fewer levels")


SUM = Kind(_add, _faults)
