"""Energy: the formulas by hand, the four networks, and the rates at which they cost the same."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snncc.runtime.profile.energy import NETWORKS, Neurons, energy_of, formula
from snncc.runtime.profile.models import DEFAULT_MODELS, models_named
from snncc.runtime.profile.work import Work

FLOAT, FLOAT_MEMORY, INT8, INT8_MEMORY = MODELS = models_named(DEFAULT_MODELS)

#: 100 synapses that read neurons of D = 4 and carry 40 of 400 possible spikes; 25 inputs are not 0.
CONV = Work(
    "n", "v", "m", "conv", "spikes", synapses=100, dense=100, sops=40.0, possible=400,
    ann_dense=100, ann_nonzero=25.0, activation_bits=3,
)  # fmt: skip
PIXELS = Work("x", "v", "m", "conv", "pixels", dense=10, macs=10, ann_macs=10)
SHORTCUT = Work("n", "v", "m", "identity", "spikes", sops=6.0, possible=40, ann_adds=10)
ATTENTION = replace(CONV, kind="attention", partner_bits=12)
NEURONS = Neurons(updates=20, outputs=5, bits=3)


def test_arithmetic_alone():
    found = energy_of(INT8, [CONV, PIXELS, SHORTCUT], [NEURONS])
    mac, few = 0.3, 0.2 * 3 / 8 + 0.1
    assert found.snn == pytest.approx(46 * 0.1 + 10 * mac)
    assert found.dense == pytest.approx(110 * mac + 10 * 0.1)
    assert found.quantised == pytest.approx(100 * few + 10 * mac + 10 * 0.1)
    assert found.quantised_skipping == pytest.approx(25 * few + 10 * mac + 10 * 0.1)
    assert found.rate == pytest.approx(46 / 440)


def test_memory_is_weights_and_potentials():
    bit, found = 0.15625, energy_of(INT8_MEMORY, [CONV, PIXELS, SHORTCUT], [NEURONS])
    pixels = 10 * (0.3 + bit * 2 * 8)
    add, kept = 10 * (0.1 + bit * 2 * 24), bit * 2 * 24
    outputs = 5 * (0.3 + bit * 3)
    spikes = 40 * (0.1 + bit * 8 + kept) + 6 * (0.1 + kept)
    assert found.snn == pytest.approx(spikes + 20 * (0.1 + kept) + pixels)
    few = 0.2 * 3 / 8 + 0.1
    whole = 100 * (few + bit * (8 + 3))
    assert found.quantised == pytest.approx(whole + outputs + pixels + add)
    some = 25 * (few + bit * 8 + kept)
    assert found.quantised_skipping == pytest.approx(some + outputs + pixels + add)
    dense = 100 * (0.3 + bit * 16) + 5 * (0.3 + bit * 8)
    assert found.dense == pytest.approx(dense + pixels + add)


def test_papers_constants():
    assert energy_of(FLOAT, [PIXELS]).snn == pytest.approx(10 * 4.6)
    assert energy_of(FLOAT, [CONV]).snn == pytest.approx(40 * 0.9)
    assert energy_of(FLOAT, [CONV]).dense == pytest.approx(100 * 4.6)


def test_attention_multiplies_two_activations():
    found = energy_of(INT8, [ATTENTION])
    assert found.quantised == pytest.approx(100 * (0.2 * 3 * 12 / 64 + 0.1))


def test_the_rule_for_bits_meets_the_measured_multipliers():
    """Of Horowitz's table: 8 bits 0.2 pJ, 32 bits 3.1 pJ."""
    assert INT8.multiply(32, 32) == pytest.approx(3.1, rel=0.04)
    assert INT8.multiply(0) == INT8.multiply(8, 8) == pytest.approx(0.2)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
@given(share=st.floats(0.01, 1), nonzero=st.floats(0.01, 1))
@settings(max_examples=20)
def test_at_the_break_even_rate_both_cost_the_same(model, share, nonzero):
    work = replace(CONV, sops=400 * share, ann_nonzero=100 * nonzero)
    layers = [work, PIXELS, SHORTCUT]
    found = energy_of(model, layers, [NEURONS])

    def at(rate):
        moved = [replace(w, sops=w.possible * rate) for w in layers]
        return energy_of(model, moved, [NEURONS]).snn

    for rate, other in (
        (found.break_even, found.quantised),
        (found.break_even_skipping, found.quantised_skipping),
    ):
        assert rate == 0 or at(rate) == pytest.approx(other)
        assert rate > 0 or at(0) >= other
    least = getattr(found, found.least)
    assert least == min(getattr(found, name) for name in NETWORKS)


def test_the_break_even_rate_is_where_the_paper_has_it():
    """arXiv 2409.08290: some 6 % of neurons may fire in a tick, weights and memory counted."""
    many = replace(CONV, synapses=10**6, dense=10**6, ann_dense=10**6, possible=4 * 10**6)
    assert 0.04 < energy_of(INT8_MEMORY, [many], [NEURONS]).break_even < 0.07


def test_without_spikes_there_is_nothing_to_compare():
    found = energy_of(INT8_MEMORY, [PIXELS], [NEURONS])
    assert (found.rate, found.break_even, found.break_even_skipping) == (None, None, None)
    assert found.least is None


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_the_printed_formula_is_the_one_that_is_computed(model):
    """Each line, evaluated with the numbers of a network in place of its words."""
    layers = [CONV, PIXELS]
    found = energy_of(model, layers, [NEURONS])
    told = formula(model)
    assert list(told) == list(NETWORKS)
    for name, text in told.items():
        macs = 110 if name == "dense" else 25 if name == "quantised_skipping" else 100
        words = {
            "MACs of pixels and potentials": "10",
            "MACs of what is not 0": "25",
            "SOPs": "40",
            "updates": "20",
            "outputs": "5",
            "MACs": str(macs),
            "bits": "3",
            " x ": " * ",
        }
        for word, number in words.items():
            text = text.replace(word, number)
        assert eval(text) == pytest.approx(getattr(found, name), rel=1e-4), name
