"""Networks with memory: every engine, and the interpreter, fires the same spikes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from float_networks import Case, Net, case_of, examples, lowered
from hypothesis import given, settings
from interpreter import interpret
from state_networks import carried, repeated, sequence, state_networks, unrolled

from snncc.backends.clocked.dynamics import Carried
from snncc.backends.clocked.engine import DYNAMICS, ClockedEngine
from snncc.backends.event.engine import EventEngine
from snncc.backends.integer import IntegerEngine, SpikeFormEngine
from snncc.ir.graphs import to_proto
from snncc.passes.spikes.build_program import build_program
from snncc.runtime.contract import by_timestep
from snncc.runtime.result import mismatch


def _check(case: Case, bits: int) -> None:
    manager = lowered(case, bits)
    program = build_program(manager.stages["quantised"], "net")
    x = by_timestep(case.q, program.source.shape)
    integer = IntegerEngine(to_proto(manager.stages["quantised"]), program).run(x, batch=1)
    spiking = SpikeFormEngine(to_proto(manager.stages["spiking"]), program)
    probes = [n.name for n in program.neurons]
    clocked = ClockedEngine(program).run(x, probes)
    counts, _, readouts = interpret(program, x)
    event = EventEngine(program).run(x, probes)
    for found in (clocked, spiking.run(x, probes, batch=1), event):
        assert not [m for m in mismatch(integer, found) if m.mismatched]
    for found in (spiking.run(x, probes), event):
        assert not [m for m in mismatch(clocked, found) if m.mismatched]
    for name, values in counts.items():
        np.testing.assert_array_equal(integer.counts[name], values)
    for name, values in readouts.items():
        np.testing.assert_array_equal(integer.readouts[name], values)


@settings(max_examples=12)
@given(state_networks())
def test_engines_and_interpreter_agree(case: Case) -> None:
    _check(case, 8)


@pytest.mark.slow
@settings(max_examples=examples(500))
@given(state_networks())
def test_engines_and_interpreter_agree_at_length(compared: Counter[str], case: Case) -> None:
    _check(case, 16)
    compared["over T timesteps"] += 1


def test_a_running_sum_of_one_timestep_is_that_timestep() -> None:
    """It begins with zeros of the shape of what is summed."""
    net = carried(Net((1, 5, 5), seed=1, rms=2.0).conv(3, 3, 1, 1), 1, current=0.5)
    unrolled(net.pool("MaxPool", 2, 1), 1, summed=True).flatten().linear(3)
    _check(case_of(net, samples=4), 16)


# -- the law has teeth ---------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["soft", "hard"])
def test_a_reset_that_is_not_a_timestep_late_is_seen(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Net((1, 5, 5), seed=1, rms=2.0).conv(3, 3, 1, 1, D=1)
    carried(repeated(net, 4), 4, decay=0.5, gain=1.0, reset="delayed")
    manager = lowered(case_of(net, samples=4), 16)
    program = build_program(manager.stages["quantised"], "net")
    x = case_of(net, samples=4).q
    expected, _, _ = interpret(program, x)
    (name,) = expected
    np.testing.assert_array_equal(ClockedEngine(program).run(x).counts[name], expected[name])
    monkeypatch.setitem(DYNAMICS, "delayed", DYNAMICS[wrong])
    found = ClockedEngine(program).run(x).counts[name]
    assert (found[0] == expected[name][0]).all()
    assert (found[1:] != expected[name][1:]).any()


@pytest.mark.parametrize("wrong", ["levels that are not raised", "a current that forgets"])
def test_what_a_neuron_of_two_states_would_fire_without_them_is_seen(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = sequence(Net((1, 5, 5), seed=1, rms=4.0), 4).conv(3, 3, 1, 1)
    carried(net, 4, gain=1.0, rule=">", reset="raised", current=0.5)
    q = np.random.default_rng(0).integers(0, 256, (4, 4, 1, 5, 5)).astype(np.uint8)
    case = Case(net, case_of(net).source, q)
    program = build_program(lowered(case, 16).stages["quantised"], "net")
    x = by_timestep(case.q, program.source.shape)
    expected, _, _ = interpret(program, x)
    (name,) = expected
    np.testing.assert_array_equal(ClockedEngine(program).run(x).counts[name], expected[name])
    np.testing.assert_array_equal(EventEngine(program).run(x).counts[name], expected[name])
    if wrong == "a current that forgets":
        monkeypatch.setattr(Carried, "driven", lambda self, drive: drive)
    else:
        monkeypatch.setitem(DYNAMICS, "raised", DYNAMICS["soft"])
    found = ClockedEngine(program).run(x).counts[name]
    assert (found[0] == expected[name][0]).all()
    assert (found[1:] != expected[name][1:]).any()
