"""Every fault put into the clocked engine or the Program is seen, in the population it is in."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
from interpreter import interpret
from networks import chain, changed

from snncc.backends.clocked import engine as clocked
from snncc.backends.clocked.engine import DYNAMICS, ClockedEngine, SoftReset
from snncc.program import Accumulator, Program


def first_difference(program: Program, x: np.ndarray, mutant: Program) -> str | None:
    """The first population that fires differently when ``mutant`` runs in the engine."""
    expected, _, _ = interpret(program, x)
    counts = ClockedEngine(mutant).run(x).counts
    differ = (name for name in expected if not np.array_equal(counts[name], expected[name]))
    return next(differ, None)


class BiasEveryTick(clocked._AccumulatorCell):
    def tick(self, now: int, emitted: Any) -> Any:
        if now < self.complete:
            self.potential += self.bias
        return super().tick(now, emitted)


class HardReset(SoftReset):
    def fire(self, tick: int) -> np.ndarray:
        fired = self.membrane >= 0
        self.membrane[fired] = (-self.first * np.ones_like(self.membrane))[fired]
        return fired


class StrictThreshold(SoftReset):
    def load(self, potential: np.ndarray) -> None:
        super().load(potential - 1)


def test_without_mutation_the_chain_agrees() -> None:
    program, x = chain()
    assert first_difference(program, x, program) is None
    counts, _, _ = interpret(program, x)
    assert all(len(np.unique(c)) == 5 for c in counts.values())  # every level is reached


@pytest.mark.parametrize("name", ["n1", "n2", "n3"])
def test_a_level_off_by_one_is_seen_in_its_population(name: str) -> None:
    program, x = chain()
    levels = program.by_name[name].levels.copy()  # type: ignore[union-attr]
    levels[:, 1] += 1
    assert first_difference(program, x, changed(program, name, levels=levels)) == name


@pytest.mark.parametrize("masked", [None, (6, 6), (1, 3)])
def test_another_mask_is_seen_in_the_population_behind_it(masked: Any) -> None:
    program, x = chain()
    program = changed(program, "v2", masked=(3, 3))
    assert first_difference(program, x, program) is None
    assert first_difference(program, x, changed(program, "v2", masked=masked)) == "n2"


@pytest.mark.parametrize("name", ["n2", "n3"])
def test_firing_before_the_burst_is_complete_is_seen(name: str) -> None:
    program, x = chain()
    depth = program.by_name[name].depth - 1  # type: ignore[union-attr]
    assert first_difference(program, x, changed(program, name, depth=depth)) == name


def test_a_barrier_before_the_last_spikes_is_seen() -> None:
    program, x = chain()

    class Early(clocked._AccumulatorCell):
        def __init__(self, node: Accumulator, scene: Any) -> None:
            super().__init__(node, scene)
            self.complete -= 2 * (node.name == "v2")  # misses the last tick of the burst

        def emit(self) -> np.ndarray:
            early = super().emit().copy()
            self.potential.flags.writeable = True
            return early

    with mock.patch.dict(clocked._CELLS, {Accumulator: Early}):
        assert first_difference(program, x, program) == "n2"


def test_a_bias_in_every_tick_is_seen() -> None:
    program, x = chain()
    with mock.patch.dict(clocked._CELLS, {Accumulator: BiasEveryTick}):
        assert first_difference(program, x, program) == "n2"  # v1 has one tick of input


def test_a_spike_after_the_barrier_is_refused() -> None:
    program, x = chain()

    class Early(clocked._AccumulatorCell):
        def __init__(self, node: Accumulator, scene: Any) -> None:
            super().__init__(node, scene)
            self.complete = 0

    with (
        mock.patch.dict(clocked._CELLS, {Accumulator: Early}),
        pytest.raises(ValueError, match="read-only"),
    ):
        ClockedEngine(program).run(x)


@pytest.mark.parametrize("dynamics", [HardReset, StrictThreshold])
def test_wrong_dynamics_are_seen(dynamics: type[SoftReset]) -> None:
    program, x = chain()
    with mock.patch.dict(DYNAMICS, none=dynamics):
        assert first_difference(program, x, program) == "n1"
