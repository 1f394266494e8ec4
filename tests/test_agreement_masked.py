"""The exactness contract under patch masks: every form fires the same spikes, masked or not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from float_networks import examples, lowered
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from masked_networks import MaskedCase, MaskedNet, masked_cases, masked_lowered
from test_agreement import Forms, disagreements, mutated

from snncc.backends.clocked.engine import ClockedEngine
from snncc.errors import UnsupportedModelError
from snncc.ir.oracle import evaluate
from snncc.passes import QuantiseInput
from snncc.passes.spikes.build_program import build_program
from snncc.program import Accumulator, Program

BITS = st.sampled_from([5, 8, 8, 12, 16, 24])


def forms(case: MaskedCase, bits: int, check: bool = False) -> Forms:
    """All forms; networks whose weights need more bits are not drawn."""
    try:
        stages = masked_lowered(case, bits, check).stages
    except UnsupportedModelError as e:
        assume("do not fit" not in str(e))
        raise
    quantised = stages["quantised"]
    return Forms(case, quantised, stages["spiking"], build_program(quantised, "net"))


@settings(max_examples=20)
@given(masked_cases(), BITS)
def test_all_forms_fire_the_same_spikes_under_random_masks(case: MaskedCase, bits: int) -> None:
    assert disagreements(forms(case, bits)) == []


@pytest.mark.slow
@settings(max_examples=examples(1000))
@given(masked_cases(max_layers=4), BITS)
def test_all_forms_fire_the_same_spikes_on_many_masked_networks(
    case: MaskedCase, bits: int
) -> None:
    assert disagreements(forms(case, bits)) == []


@settings(max_examples=8)
@given(masked_cases())
def test_every_pass_keeps_what_a_masked_network_computes(case: MaskedCase) -> None:
    forms(case, 24, check=True)


def _levels(program: Program) -> list[Any]:
    return [neuron.levels.tolist() for neuron in program.neurons]


@settings(max_examples=10)
@given(masked_cases(published=True, ties=False), BITS)
def test_under_a_mask_of_ones_it_is_the_network_compiled_without(
    case: MaskedCase, bits: int
) -> None:
    case = replace(case, mask=np.ones_like(case.mask))
    f = forms(case, bits)
    plain = lowered(case.whole, bits, check=False).stages["quantised"]
    whole = build_program(plain, "net")
    assume(_levels(whole) == _levels(f.program))  # residual streams may get another grid
    expected = ClockedEngine(whole).run(case.pixels)
    found = ClockedEngine(f.program).run(case.q)
    assert list(found.counts) == list(expected.counts)
    for one, two in ((found.counts, expected.counts), (found.readouts, expected.readouts)):
        assert all(np.array_equal(one[name], two[name]) for name in two)


@settings(max_examples=10)
@given(masked_cases(ties=False))
def test_masked_pixels_are_never_seen(case: MaskedCase) -> None:
    """What is under a masked patch changes nothing, wherever layers look."""
    f = forms(case, 8)
    other = replace(case, pixels=np.where(case.q[:, -case.pixels.shape[1]:], 255 - case.pixels,
                                          case.pixels))  # fmt: skip
    np.testing.assert_array_equal(case.q, other.q)
    assert disagreements(replace(f, case=other)) == []


# -- the law has teeth ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def three_layers() -> Forms:
    net = MaskedNet((1, 6, 6), (3, 3), seed=3, rms=2.0)
    for _ in range(3):
        net.sparse_conv(3).fire(4)
    net.flatten().linear(4)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 1, 6, 6)).astype(np.uint8)
    mask = (rng.random((8, 1, 3, 3)) < 0.5).astype(np.uint8)
    return forms(MaskedCase(net, QuantiseInput((1 / 64,), (-1.0,)), pixels, mask), 8)


def test_a_mask_that_is_left_out_is_seen_at_its_potential(three_layers: Forms) -> None:
    accumulator = three_layers.program.accumulators[1]
    program = mutated(three_layers.program, accumulator.name, masked=None)
    found = disagreements(replace(three_layers, program=program))
    assert found[:2] == [f"{accumulator.name}: clocked", f"{accumulator.name}: interpreter"]


def test_patches_of_another_size_are_seen_at_their_potential(three_layers: Forms) -> None:
    accumulator = three_layers.program.accumulators[2]
    program = mutated(three_layers.program, accumulator.name, masked=(3, 1))
    found = disagreements(replace(three_layers, program=program))
    assert found[:2] == [f"{accumulator.name}: clocked", f"{accumulator.name}: interpreter"]


def test_a_masked_image_that_is_zero_in_raw_pixels_is_seen(three_layers: Forms) -> None:
    """Without the planes masked pixels would be black, not the mean."""
    case = three_layers.case
    black = {**case.feeds, "x:u8": np.where(case.q == 255, 0, case.q)}
    name = three_layers.program.accumulators[0].projections[0].source
    assert name == "x:u8"
    first = three_layers.program.neurons[0].name
    right, wrong = (evaluate(three_layers.quantised, f, [first]) for f in (case.feeds, black))
    assert not np.array_equal(right[first], wrong[first])


def test_every_sparse_layer_has_a_masked_accumulator(three_layers: Forms) -> None:
    found = three_layers.program.accumulators
    assert [a.masked for a in found] == [(3, 3)] * 3 + [None]
    assert all(isinstance(a, Accumulator) and a.low <= 0 <= a.high for a in found)
