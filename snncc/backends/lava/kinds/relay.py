"""Relays: who reads one decides how much later, since whatever comes too early waits there."""

from __future__ import annotations

from snncc.backends.lava.kinds.base import Kind
from snncc.backends.lava.plan import Plan
from snncc.program import Relay

__all__ = ["RELAY"]


def _add(plan: Plan, node: Relay) -> None:
    plan.emissions[node.name] = plan.emissions[node.source]


RELAY = Kind(_add)
