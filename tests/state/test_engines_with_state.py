"""Networks with memory: every engine, and the interpreter, fires the same spikes."""

from __future__ import annotations

import numpy as np
import pytest
from float_networks import Case, lowered
from hypothesis import given, settings
from interpreter import interpret
from state_networks import state_networks

from snncc.backends.clocked import ClockedEngine
from snncc.backends.event.engine import EventEngine
from snncc.backends.integer import IntegerEngine, SpikeFormEngine
from snncc.ir.graphs import to_proto
from snncc.passes.build_program import build_program
from snncc.runtime.result import mismatch


def _check(case: Case, bits: int) -> None:
    manager = lowered(case, bits)
    program = build_program(manager.stages["quantised"], "net")
    integer = IntegerEngine(to_proto(manager.stages["quantised"]), program).run(case.q, batch=1)
    spiking = SpikeFormEngine(to_proto(manager.stages["spiking"]), program)
    probes = [n.name for n in program.neurons]
    clocked = ClockedEngine(program).run(case.q, probes)
    counts, _, readouts = interpret(program, case.q)
    event = EventEngine(program).run(case.q, probes)
    for found in (clocked, spiking.run(case.q, probes, batch=1), event):
        assert not [m for m in mismatch(integer, found) if m.mismatched]
    for found in (spiking.run(case.q, probes), event):
        assert not [m for m in mismatch(clocked, found) if m.mismatched]
    for name, values in counts.items():
        np.testing.assert_array_equal(integer.counts[name], values)
    for name, values in readouts.items():
        np.testing.assert_array_equal(integer.readouts[name], values)


@settings(max_examples=25, deadline=None)
@given(state_networks())
def test_engines_and_interpreter_agree(case: Case) -> None:
    _check(case, 8)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(state_networks())
def test_engines_and_interpreter_agree_at_length(case: Case) -> None:
    _check(case, 16)
