from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from snncc.passes.integers.shared_grids import largest_weight, slices

BITS = range(4, 25)


@pytest.mark.parametrize(("bits", "largest"), [(4, 7), (8, 127), (16, 32_639), (24, 8_355_711)])
def test_the_largest_weight_is_the_documented_one(bits: int, largest: int) -> None:
    assert largest_weight(bits) == largest


@pytest.mark.parametrize("bits", BITS)
def test_extreme_weights_have_int8_digits(bits: int) -> None:
    top = largest_weight(bits)
    w = np.array([[-top, -top + 1, -1, 0, 1, top - 1, top]], dtype=np.int64)
    np.testing.assert_array_equal(recombined(slices(w, bits)), w)


@given(st.sampled_from(BITS), st.data())
def test_digits_recombine_to_the_weights(bits: int, data: st.DataObject) -> None:
    top = largest_weight(bits)
    w = data.draw(hnp.arrays(np.int64, (3, 5), elements=st.integers(-top, top)))
    parts = slices(w, bits)
    assert len(parts) == -(-bits // 8)
    assert all(p.dtype == np.int8 for p in parts)
    np.testing.assert_array_equal(recombined(parts), w)


def recombined(parts: list[np.ndarray]) -> np.ndarray:
    return np.asarray(sum(p.astype(np.int64) * 256**i for i, p in enumerate(parts)))
