"""Laws of the grid that several layers write to, and of each one's share of it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from float_networks import Net, case_of, lowered
from hypothesis import given, settings
from hypothesis import strategies as st

from snncc.ir.graphs import nodes
from snncc.passes.integers.products import largest_count
from snncc.passes.integers.shared_grids import QuantisedLayer, largest_weight, odd_thresholds, plan
from snncc.passes.integers.writers import writer_shifts


def grain(shifts, largest):
    """One over the potential of a spike, per channel."""
    return (largest / 2.0 ** np.array(shifts)[:, None]).max(axis=0)


def error(shifts, largest, errors):
    """Variance of the potential, in spikes."""
    steps = 2.0 ** np.array(shifts)
    return (
        sum(e * s**2 for e, s in zip(errors, steps, strict=True))
        * (grain(shifts, largest) ** 2).sum()
    )


@st.composite
def writers(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    count = draw(st.integers(2, 3))
    largest = rng.uniform(0.5, 1, (count, 4)) * 2.0 ** -rng.integers(0, 8, (count, 1))
    return largest, (2.0 ** rng.integers(0, 16, count)).tolist()


@settings(max_examples=50)
@given(writers())
def test_no_shifts_err_much_less(given):
    largest, errors = given
    found = writer_shifts(largest, errors)
    best = min(error(s, largest, errors) for s in product(range(11), repeat=len(largest)))
    assert min(found) == 0
    assert error(found, largest, errors) <= 2.01 * best


@pytest.mark.parametrize("count", [1, 3])
def test_writers_alike_need_none(count):
    largest = np.random.default_rng(0).uniform(0.5, 1, (count, 5))
    assert writer_shifts(largest, [1.0] * count) == [0] * count


def test_channels_and_writers_of_zeros_ask_for_nothing():
    largest = np.array([[0.0, 0.01, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    shifts = writer_shifts(largest, [2.0**20, 1.0, 1.0])
    assert shifts[0] == 0 < shifts[1]


def residual() -> tuple[Net, float]:
    net = Net((1, 6, 6), seed=5, rms=2.0).conv(4, pads=1, D=6)
    potential = net.x
    net.fire(4).conv(4, pads=1, D=6).add(potential)
    return net.fire(4).mean().linear(3), 1 / 64


def layers(bits: int) -> list[QuantisedLayer]:
    net, scale = residual()
    model = lowered(case_of(net, scale), bits, check=False).after["fold-scale"]
    return list(plan(model, bits)[0].values())


@pytest.mark.parametrize("bits", [5, 8, 16, 22])
def test_each_writer_uses_the_width_of_its_weights(bits):
    stem, branch, _ = layers(bits)
    assert stem.grid == branch.grid
    for layer in (stem, branch):
        most = np.abs(layer.weight).reshape(4, -1).max(axis=1)
        assert most.max() <= largest_weight(bits)
        assert most.max() > largest_weight(bits) / 2.1


def test_thresholds_are_odd_and_as_large_as_all_writers_allow():
    stem, branch, _ = layers(8)
    most = np.max(
        [np.abs(x.linear.weight).reshape(4, -1).max(axis=1) / 2**x.shift for x in (stem, branch)],
        axis=0,
    )
    theta = [int(t) for t in stem.grid.thresholds]
    np.testing.assert_array_equal(theta, odd_thresholds(most, 8))
    assert all(t % 2 for t in theta)


def test_integers_stand_for_the_real_weights():
    for layer in layers(12):
        np.testing.assert_allclose(layer.weight, layer.exact_weight(), atol=0.5 + 1e-9)
        np.testing.assert_allclose(layer.bias, layer.exact_bias(), atol=0.5 + 1e-9)


def test_payloads_are_those_of_pixels_counts_and_sums():
    net = Net((1, 8, 8), seed=1, rms=2.0).conv(2, pads=1).fire(3)
    net.pool("AveragePool", 2).conv(2).fire(5).flatten().linear(3)
    model = lowered(case_of(net), 8, check=False).after["fold-scale"]
    inputs = [n.inputs[0] for n in nodes(model, "Conv", "Gemm")]
    assert [largest_count(x) for x in inputs if x is not None] == [255, 3 * 4, 5]
