"""Laws of kept grids: the integers of a quantised file come back as they were."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncc.passes.kept_grids import common_step, kept_grid
from snncc.passes.linear import Linear


def layer(weight, bias):
    """A linear layer of these numbers as float32."""
    node = ir.Node("", "Gemm", [])
    w, b = (np.asarray(v, np.float32).astype(np.float64) for v in (weight, bias))
    return Linear("gemm", node.outputs[0], node.outputs[0], node, w, b)


@given(
    seed=st.integers(0, 2**16),
    taps=st.integers(3, 40),
    scales=st.lists(st.floats(1e-4, 10), min_size=2, max_size=2),
    is_result=st.booleans(),
)
def test_integers_and_scale_come_back(seed, taps, scales, is_result):
    rng = np.random.default_rng(seed)
    w, b = rng.integers(-127, 128, (2, taps)), rng.integers(-9999, 9999, 2)
    w[:, :2] = 127, 1
    step = np.array([scales[0]] * 2 if is_result else scales)
    found = kept_grid(layer(w * step[:, None], b * step), 127, is_result)
    assert (found.weight == w).all()
    assert (found.bias == b).all()
    assert not any(found.shifts)
    theta = np.array([float(t) for t in found.thresholds])
    assert np.abs(theta * step - 1).max() < 2**-23


@given(bias=st.floats(-50, 50, width=32))
def test_a_bias_off_the_grid_stays_exact_as_a_shift(bias):
    step = 0.0137
    found = kept_grid(layer(np.array([[127, -3, 50]]) * step, [bias]), 127, False)
    drive = Fraction(int(found.bias[0])) / found.thresholds[0] + found.shifts[0]
    assert abs(float(drive) - bias) <= 1e-5 * max(abs(bias), step)


@pytest.mark.parametrize(("weight", "largest"), [([0.3, -0.71828, 0.1], 127), ([127, 1, 3], 7)])
def test_other_weights_have_no_grid(weight, largest):
    assert kept_grid(layer([weight], [0.0]), largest, False) is None


def test_a_result_takes_no_shift_and_one_scale():
    assert kept_grid(layer([[1.0, 3.0, 7.0]], [0.4]), 127, True) is None
    assert kept_grid(layer([[1.0, 3.0, 7.0], [1.37, 2.1, 7.7]], [0.0, 0.0]), 127, True) is None


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=3))
def test_sums_get_integers_at_least_as_near_as_the_largest_threshold_gives(taps):
    given_ = np.array(taps)
    theta = float(common_step(given_, 127))

    def worst(t):
        return np.abs(np.rint(given_ * t) / t - given_).max()

    assert np.rint(given_ * theta).max() <= 127
    assert worst(theta) <= worst(127 / given_.max()) + 1e-12
