"""Read-outs: processes that write down what arrives."""

from __future__ import annotations

from typing import Any

from snncc.backends.lava.kinds.base import Kind
from snncc.backends.lava.plan import Emission, Entry, Plan
from snncc.program import Neuron, Readout

__all__ = ["READOUT", "read_out"]


def _add(plan: Plan, node: Readout) -> None:
    meaning: Entry = {"scale": node.scale, "over_time": node.over_time, "host": node.host}
    read_out(plan, node, node.source, "readout", **meaning)


def read_out(plan: Plan, node: Neuron | Readout, source: str, writes: str, **fields: Any) -> None:
    """A process that writes down what node ``source`` sends, as ``writes`` of that node."""
    read = plan.emissions[source]
    fields |= {"of": node.name, "writes": writes, "result_shape": list(node.shape)}
    times: Entry = {"first": read.first, "burst": read.burst}
    nothing = Emission(f"{writes} of {node.name}", read.shape, read.first, read.burst, 0)
    plan.add("ReadOut", nothing, read, **fields, **times)


READOUT = Kind(_add)
