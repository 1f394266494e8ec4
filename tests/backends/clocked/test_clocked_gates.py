"""Gates, sums and maxima in the clocked engine: what plain integers say, tick by tick."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from float_networks import examples
from gate_networks import gate_cases
from hypothesis import Phase, given, settings
from interpreter import assert_interpreted

from snncc.backends.clocked import engine as clocked
from snncc.backends.clocked.gate_cell import GateCell
from snncc.program import Gate, Program, Sum


@settings(max_examples=60)
@given(gate_cases())
def test_random_networks_fire_what_plain_integers_say(case: tuple[Program, np.ndarray]) -> None:
    assert_interpreted(*case)


@settings(max_examples=15)
@given(gate_cases())
def test_pipelined_networks_do_the_same(case: tuple[Program, np.ndarray]) -> None:
    assert_interpreted(*case, pipelined=True)


@pytest.mark.slow
@settings(max_examples=examples(1000))
@given(gate_cases())
def test_many_random_networks_fire_what_plain_integers_say(
    compared: Any, case: tuple[Program, np.ndarray]
) -> None:
    assert_interpreted(*case)
    compared["with gates, clocked against the interpreter"] += 1


class Watched(GateCell):
    """Emits spikes, and they add up to its payload at most."""

    def tick(self, now: int, emitted: Any) -> Any:
        found = super().tick(now, emitted)
        assert found is None or (found.min() >= 0 and found.max() <= self.node.payload)
        return found


@settings(max_examples=60)
@given(gate_cases())
def test_gates_emit_spikes_in_every_tick(case: tuple[Program, np.ndarray]) -> None:
    """Silence of a train is silence so far: it is not taken back when the train fires later."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(clocked._CELLS, Gate, Watched)
        clocked.ClockedEngine(case[0]).run(case[1])


class NoCrossTerms(GateCell):
    """Of what the trains fired before the tick nothing counts."""

    def tick(self, now: int, emitted: Any) -> Any:
        self.begin(self.t)
        return super().tick(now, emitted)


class FirstOnly(clocked._SumCell):
    """Hands on the first of the two alone where both arrive."""

    def tick(self, now: int, emitted: Any) -> Any:
        return emitted.get(self.node.a, emitted.get(self.node.b))


@pytest.mark.parametrize("wrong", [NoCrossTerms, FirstOnly])
def test_mutants_are_seen(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = Sum if wrong is FirstOnly else Gate
    monkeypatch.setitem(clocked._CELLS, kind, wrong)

    @settings(max_examples=200, database=None, phases=[Phase.generate], report_multiple_bugs=False)
    @given(gate_cases())
    def compared(case: tuple[Program, np.ndarray]) -> None:
        assert_interpreted(*case)

    with pytest.raises(AssertionError):
        compared()
