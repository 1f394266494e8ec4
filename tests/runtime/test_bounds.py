"""Ranges of membrane potentials: proved, observed, and never the one outside the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_model import compiled, samples

from snncc.backends.clocked.engine import ClockedEngine
from snncc.errors import VerificationError
from snncc.program import Program
from snncc.runtime.bounds import bits_of, bounds, observe
from snncc.runtime.report import Observed


def with_low(program: Program, name: str, low: int) -> Program:
    nodes = (replace(n, low=low) if n.name == name else n for n in program.nodes)
    return replace(program, nodes=tuple(nodes))


@pytest.mark.parametrize("n", [1, 5, 130])
def test_the_range_is_that_of_the_potentials(n):
    model, x = compiled(), samples(n, seed=3)
    found = observe(model, x)
    names = [a.name for a in model.program.accumulators]
    seen = ClockedEngine(model.program).run(x, probes=names).potentials
    assert found == Observed(
        n, {name: (int(seen[name].min()), int(seen[name].max())) for name in names}
    )


def test_large_networks_are_observed_a_sample_at_a_time(monkeypatch):
    model, x, done = compiled(), samples(5), []
    whole = observe(model, x)
    monkeypatch.setattr("snncc.runtime.bounds._BYTES", 1)
    assert observe(model, x, done.append) == whole
    assert done == [1] * 5


def test_samples_are_counted_as_they_are_done():
    done: list[int] = []
    observe(compiled(), samples(130), done.append)
    assert (sum(done), len(done) > 1) == (130, True)


def test_what_is_observed_lies_within_what_is_proved():
    model = compiled()
    ranges = observe(model, samples(20)).ranges
    for row in bounds(model.program):
        low, high = ranges[row.accumulator]
        assert row.low <= low <= high <= row.high
        assert bits_of(low, high) <= row.bits


def test_a_potential_outside_its_bounds_is_a_fault_with_its_name():
    model = compiled()
    narrow = replace(model, program=with_low(model.program, "conv2:v", -1))
    with pytest.raises(VerificationError, match="leave their bounds") as caught:
        observe(narrow, samples(5))
    assert [fault.node for fault in caught.value.faults] == ["conv2:v"]


@pytest.mark.parametrize(
    ("low", "high", "bits"), [(0, 0, 1), (-1, 1, 2), (-128, 127, 9), (-3, 255, 9), (0, 256, 10)]
)
def test_bits_hold_a_range_and_its_mirror_image(low, high, bits):
    assert bits_of(low, high) == bits


def test_sequences_are_observed_in_every_timestep():
    model = compiled(timesteps=3, sequence=True)
    x = np.stack([samples(4, seed) for seed in range(3)], axis=1)
    seen = observe(model, x).ranges["conv1:v"]
    alone = observe(compiled(), samples(4, 1)).ranges["conv1:v"]
    assert seen[0] <= alone[0] <= alone[1] <= seen[1]
