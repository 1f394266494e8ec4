"""Samples as a network takes them: shapes, dtypes and normalisation."""

from __future__ import annotations

import numpy as np
import pytest
from data_files import same
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from snncc.errors import BadInputError, UsageError
from snncc.runtime.coding import check_input, normalise


def test_check_input_returns_the_samples_contiguous_and_native():
    x = np.arange(12, dtype=">f8").reshape(3, 4).T
    out = check_input(x, (3,), "float32")
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    assert (out == x).all()
    assert check_input(out, (3,), np.float32) is out


@pytest.mark.parametrize(
    ("x", "dtype", "message"),
    [
        ([1, 2], "uint8", "a list, not a numpy array"),
        (np.zeros((2, 3, 4, 5), np.float32), "uint8", "dtype float32, .* raw pixels 0..255"),
        (np.zeros((2, 3, 4, 5), np.uint8), "float32", "dtype uint8, .*coding.normalise"),
        (np.zeros((2, 3, 4, 5), np.float16), "float32", "dtype float16"),
        (np.zeros((2, 3, 4, 5), bool), "uint8", "dtype bool"),
        (np.zeros((2, 3, 4, 5), np.int64), "uint8", r"dtype int64, .*x.astype\(numpy.uint8\)"),
        (np.full((2, 3, 4, 5), None), "uint8", "dtype object"),
        (np.zeros((2, 3, 4, 5), np.uint8), "int8", "asks for int8"),
        (np.zeros((3, 4, 5), np.uint8), "uint8", "single sample: add a batch axis"),
        (np.zeros((2, 4, 5, 3), np.uint8), "uint8", "channels are last"),
        (np.zeros((0, 3, 4, 5), np.uint8), "uint8", "there are no samples"),
        (np.zeros((2, 60), np.uint8), "uint8", r"shape \[2, 60\], the network takes \[N, 3, 4, 5"),
        (np.uint8(1)[...], "uint8", r"shape \[\]"),
    ],
)
def test_check_input_refuses_what_the_network_does_not_take(x, dtype, message):
    with pytest.raises(BadInputError, match=message):
        check_input(x, (3, 4, 5), dtype)


@pytest.mark.parametrize(
    ("shape", "network"), [((2, 4, 5), (1, 4, 5)), ((2, 3, 4, 5), (3, 1, 4, 5))]
)
def test_check_input_adds_no_channel_axis_and_says_how_to(shape, network):
    with pytest.raises(BadInputError, match=r"without their channel: .*expand_dims\(x, -3\)"):
        check_input(np.zeros(shape, np.uint8), network, "uint8")


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((3, 2, 4), r"timesteps are first: transpose with x.swapaxes\(0, 1\)"),
        ((2, 4), "static samples, it takes sequences of 3 timesteps"),
        ((2, 1, 4), "sequences of 1 timestep, it takes 3"),
        ((2, 3, 5), "nothing is resized"),
    ],
)
def test_check_input_refuses_sequences_that_are_others(shape, hint):
    with pytest.raises(BadInputError, match=hint):
        check_input(np.zeros(shape, np.uint8), (3, 4), "uint8")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_check_input_names_the_first_value_that_is_not_finite(value):
    x = np.zeros((2, 3))
    x[1, 1:] = value
    with pytest.raises(BadInputError, match=r"at index \[1, 1\], 2 such values"):
        check_input(x, (3,), "float32")


@given(
    x=hnp.arrays("u1", (2, 3, 2, 2)),
    mean=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    std=st.lists(st.floats(0.1, 1), min_size=3, max_size=3),
)
def test_normalise_rounds_every_step_to_float32_per_channel(x, mean, std):
    out = normalise(x, mean, std)
    assert out.dtype == np.float32
    for channel in range(3):
        pixels = x[:, channel].astype(np.float32) / np.float32(255)
        expected = (pixels - np.float32(mean[channel])) / np.float32(std[channel])
        assert same(out[:, channel], expected)


def test_normalise_takes_one_number_for_all_channels():
    x = np.full((1, 3, 1, 1), 255, np.uint8)
    assert (normalise(x, [0.5], [0.5]) == 1).all()


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0, 0], [1], "^mean: 2 values for 3 channels"),
        ([0], [0], "^std: .* above 0"),
        ([np.nan], [1], "^mean: .* finite"),
    ],
)
def test_normalise_refuses_statistics_that_do_not_fit(mean, std, message):
    with pytest.raises(UsageError, match=message):
        normalise(np.zeros((1, 3, 2, 2), np.uint8), mean, std)


def test_normalise_wants_raw_pixels():
    with pytest.raises(BadInputError, match="expected raw uint8"):
        normalise(np.zeros((1, 3), np.float32), [0], [1])
