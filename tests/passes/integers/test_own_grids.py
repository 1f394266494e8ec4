"""Laws of kept grids: what layers compute is what their integers say, exactly."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncc.ir.exact import Exact
from snncc.passes.integers.own_grids import Demands, Kept, common_step, kept_channels, shifts_for
from snncc.passes.reading import Linear

FIRES, RESULT = Demands(), Demands(one=True, shift=False, rounds=True)
MASKED, MEMORY = Demands(shift=False), Demands(shift=False, threshold=2**20 - 1)


def layer(weights: Exact, biases: Exact, border: Exact | None = None) -> Linear:
    """A linear layer of these numbers."""
    node = ir.Node("", "Gemm", [])
    return Linear("gemm", node.outputs[0], node.outputs[0], node, weights, biases, border)


def plain(weight, bias) -> Linear:
    """A linear layer of float32."""
    return layer(*(Exact(np.asarray(v, np.float32)) for v in (weight, bias)))


def said(kept: Kept, index: int = 0) -> list[Fraction]:
    """Weights and bias of a row in spikes, as its integers say."""
    row = kept.rows[index]
    numbers = [int(k) * kept.unit for k in kept.weight(row).reshape(-1)]
    return [*numbers, *(int(b) * kept.unit + kept.left(row) for b in kept.bias(row).reshape(-1))]


def true(linear: Linear, channel: int = 0) -> list[Fraction]:
    """The same as the layer has them."""
    shape = linear.weights.values.shape
    rows = [linear.weights.fractions(), linear.biases.fractions()]
    width = shape[1]
    return [*rows[0][channel * width : (channel + 1) * width], rows[1][channel]]


FIXED = st.integers(-127, 127)
UNITS = st.fractions(Fraction(1, 900), 900, max_denominator=900)


@given(st.lists(FIXED, min_size=1, max_size=9), st.integers(-12, 12), FIXED, st.integers(-14, 14))
@pytest.mark.parametrize("demands", [FIRES, MASKED])
def test_fixed_point_is_kept_as_it_is(demands, whole, digits, bias, of_bias):
    linear = plain([np.array(whole) * 2.0**digits], [bias * 2.0**of_bias])
    (found,) = kept_channels([linear], demands)
    assert said(found) == true(linear)
    if demands.shift:  # what is left of a bias needs no weight bits
        assert found.at([0], 127) is not None


@given(st.lists(FIXED, min_size=1, max_size=9), UNITS, UNITS, FIXED)
def test_units_of_any_fraction_end_in_the_threshold(whole, unit, of_bias, bias):
    weights = Exact.in_rows(np.array([whole], np.float64), [unit])
    linear = layer(weights, Exact.of_fractions([bias * of_bias]))
    (found,) = kept_channels([linear], FIRES)
    assert said(found) == true(linear)
    assert abs(found.left(found.rows[0])) <= found.unit / 2
    largest = np.gcd.reduce(np.array(whole))
    assert found.largest(found.rows[0]) == max(map(abs, whole)) // max(int(largest), 1)


@given(st.lists(FIXED, min_size=2, max_size=4), st.integers(0, 6), FIXED)
def test_a_neuron_with_memory_gets_a_threshold_that_is_an_integer(whole, digits, bias):
    linear = plain([np.array(whole) / 2.0**digits], [bias / 2.0**digits])
    (found,) = kept_channels([linear], MEMORY)
    assert said(found) == true(linear)
    assert (1 / found.unit).denominator == 1


@given(
    whole=st.lists(st.lists(FIXED, min_size=3, max_size=3), min_size=2, max_size=3),
    units=st.lists(UNITS, min_size=3, max_size=3),
    largest=st.sampled_from([127, 32639]),
)
def test_layers_that_are_added_have_one_unit_and_shifts_of_their_own(whole, units, largest):
    nothing = Exact(np.zeros(1))
    layers = [
        layer(Exact.in_rows(np.array([row], np.float64), [unit]), nothing)
        for row, unit in zip(whole, units, strict=False)
    ]
    (found,) = kept_channels(layers, FIRES)
    shifts = shifts_for([found], len(layers), largest)
    fitting = found.at(shifts, largest)
    if fitting is None:
        return
    for i, linear in enumerate(layers):
        stored = fitting.weight(fitting.rows[i])
        assert not (stored % 2 ** shifts[i]).any()
        assert np.abs(stored >> shifts[i]).max() <= largest
        assert said(fitting, i)[:-1] == true(linear)[:-1]


def test_a_finer_grid_makes_room_for_a_shift():
    small, large = plain([[1.0, 3.0]], [0.0]), plain([[64.0, 101.0]], [0.0])
    (found,) = kept_channels([small, large], FIRES)
    assert found.at([0, 2], 127) is not None  # in quarters, 101 is 404
    assert found.at([0, 2], 99) is None


def test_a_bias_map_is_whole_units_and_one_rest():
    border = Exact.in_rows(np.array([[[0.0, 3.0], [5.0, 2.0]]]), [Fraction(2, 7)])
    weights = Exact.in_rows(np.array([[4.0, 6.0]]), [Fraction(1, 7)])
    linear = layer(weights, Exact.of_fractions([Fraction(1, 3)]), border)
    (found,) = kept_channels([linear], FIRES)
    numbers = [Fraction(v) * Fraction(2, 7) + Fraction(1, 3) for v in (0, 3, 5, 2)]
    assert said(found) == [Fraction(4, 7), Fraction(6, 7), *numbers]
    assert kept_channels([linear], MASKED)[0].at([0], 127) is not None


def test_biases_beyond_all_integers_go_into_levels():
    linear = plain([[2.0**-60, 3 * 2.0**-60]], [5.5])
    (found,) = kept_channels([linear], FIRES)
    assert said(found) == true(linear)
    assert not found.bias(found.rows[0]).any()
    assert found.at([0], 127) is not None
    assert kept_channels([linear], MASKED)[0].at([0], 127) is None


def test_all_channels_of_a_result_count_the_same():
    linear = plain([[1.0, 3.0], [0.75, 2.25]], [0.5, 0.1])
    (found,) = kept_channels([linear], RESULT)
    assert (found.unit, found.at([0], 127)) == (fractions_unit(linear), None)
    whole = plain([[1.0, 3.0], [0.75, 2.25]], [0.5, 0.26])  # next to a unit, as scales round
    (found,) = kept_channels([whole], RESULT)
    assert found.unit == Fraction(1, 4)
    assert [int(found.bias(row)) for row in found.rows] == [2, 1]


def fractions_unit(linear: Linear) -> Fraction:
    """The unit that serves a float32 bias, too."""
    return Fraction(1, Fraction(float(linear.biases.values[1])).denominator)


def test_any_weights_without_a_grid_are_left_alone():
    assert kept_channels([plain([[0.3, -0.71828, 0.1]], [0.0])], FIRES) == []
    both = plain([[0.5, 1.5, 2.0], [0.3, -0.71828, 0.1]], [0.0, 0.0])
    assert [one.rows[0].channel for one in kept_channels([both], FIRES)] == [0]
    assert kept_channels([both], RESULT) == []


@pytest.mark.parametrize(("bits", "largest"), [(8, 127), (16, 32639)])
def test_trained_weights_are_no_grid(bits, largest):
    w = np.random.default_rng(bits).normal(size=(64, 9)).astype(np.float32)
    found = (one.at([0], largest) for one in kept_channels([plain(w, np.zeros(64))], FIRES))
    assert not any(found)


# -- integers times a scale, as float32 ----------------------------------------------------


@given(
    seed=st.integers(0, 2**16),
    taps=st.integers(4, 40),
    scales=st.lists(st.floats(2**-13, 10, width=32), min_size=2, max_size=2),
    is_result=st.booleans(),
    norm=st.floats(0.5, 2, width=32),
)
def test_integers_and_scale_come_back_from_float32(seed, taps, scales, is_result, norm):
    rng = np.random.default_rng(seed)
    w, b = rng.integers(-127, 128, (2, taps)), rng.integers(-9999, 9999, 2)
    w[:, :3] = 127, 1, 5
    step = np.array([scales[0]] * 2 if is_result else scales, np.float32)
    folded = (w * step[:, None]).astype(np.float32) * np.float32(norm)  # two roundings
    linear = plain(folded, (b * step).astype(np.float32) * np.float32(norm))
    found = kept_channels([linear], RESULT if is_result else FIRES)
    rows = [(one, row) for one in found for row in one.rows]
    for c, (one, row) in enumerate(rows):
        assert (one.weight(row) == w[c]).all()
        assert int(one.bias(row)) == b[c]
        assert abs(float(one.unit) / (float(step[c]) * norm) - 1) < 2**-21
    assert len(rows) == 2


# -- ratios --------------------------------------------------------------------------------


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=3))
def test_sums_get_integers_at_least_as_near_as_the_largest_threshold_gives(taps):
    given_ = np.array(taps)
    theta = float(common_step(given_, 127))

    def worst(t):
        return np.abs(np.rint(given_ * t) / t - given_).max()

    assert np.rint(given_ * theta).max() <= 127
    assert worst(theta) <= worst(127 / given_.max()) + 1e-12
