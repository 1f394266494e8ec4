"""A Program as Lava processes: which there are, what they read, and in which tick each answers.

All bursts of one timestep of one sample take at most a frame, D ticks, and frames follow each other
without a gap. Lava's Conv and Dense deliver a tick later; everything else hands on at once. An
accumulator is complete in the tick in which the last of its inputs ends, and sums what arrived in
the D ticks that end with it. Inputs that would arrive before those wait in a relay.
"""

from __future__ import annotations

from snncc.backends.base import runner
from snncc.backends.lava.kinds import KINDS
from snncc.backends.lava.kinds.readout import read_out
from snncc.backends.lava.plan import Plan
from snncc.program import Program

__all__ = ["schedule"]


def schedule(program: Program) -> Plan:
    """The processes of a Program that ``unsupported`` finds nothing wrong with.

    Raises:
        SnnccError: A node of a kind that Lava has no process for, naming it.
    """
    plan = Plan(program)
    for node in program.nodes:
        runner(KINDS, node, "lava").add(plan, node)
    for neuron in program.neurons:
        read_out(plan, neuron, neuron.name, "counts")
    return plan
