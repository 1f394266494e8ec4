from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncc.passes.integers.levels import levels

RULES = ["half-even", "half-up"]


def rounded(u: Fraction, rule: str) -> int:
    """Python's round is half-to-even on fractions, exactly."""
    return round(u) if rule == "half-even" else floor(u + Fraction(1, 2))


def counts(v: np.ndarray, table: np.ndarray) -> np.ndarray:
    return np.asarray((v[:, None] >= table).sum(1))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("theta", range(1, 61))
def test_counts_of_levels_are_the_clipped_rounding(theta: int, rule: str) -> None:
    v = np.arange(-2 * theta, 17 * theta)
    exact = [rounded(Fraction(int(n), theta), rule) for n in v]
    for D in range(1, 16):
        table = levels([Fraction(theta)], D, rule)[0]
        np.testing.assert_array_equal(counts(v, table), np.clip(exact, 0, D))


@pytest.mark.parametrize("theta", range(1, 61))
def test_numpy_rounds_like_the_half_even_levels(theta: int) -> None:
    v = np.arange(-2 * theta, 17 * theta)
    table = levels([Fraction(theta)], 15, "half-even")[0]
    np.testing.assert_array_equal(counts(v, table), np.clip(np.rint(v / theta), 0, 15))


def test_half_even_levels_of_whole_thresholds_have_the_closed_form() -> None:
    k = np.arange(1, 16)
    for theta in range(1, 200):
        table = levels([Fraction(theta)], 15, "half-even")[0]
        np.testing.assert_array_equal(table, ((2 * k - 1) * theta + (k & 1) + 1) // 2)


def test_odd_thresholds_know_no_ties() -> None:
    thresholds = [Fraction(theta) for theta in range(1, 99, 2)]
    even, up = (levels(thresholds, 15, rule) for rule in RULES)
    np.testing.assert_array_equal(even, up)


FRACTIONS = st.fractions(min_value=Fraction(1, 50), max_value=50, max_denominator=64)


@pytest.mark.parametrize("rule", RULES)
@given(FRACTIONS, st.fractions(-3, 3, max_denominator=64), st.integers(1, 15))
def test_fractions_and_shifts_are_decided_exactly(
    rule: str, theta: Fraction, shift: Fraction, D: int
) -> None:
    v = np.arange(-250, 250)
    exact = [min(max(rounded(int(n) / theta + shift, rule), 0), D) for n in v]
    np.testing.assert_array_equal(counts(v, levels([theta], D, rule, [shift])[0]), exact)


@given(st.lists(FRACTIONS, min_size=1, max_size=4), st.integers(1, 15))
def test_levels_never_decrease(thetas: list[Fraction], D: int) -> None:
    table = levels(thetas, D, "half-even")
    assert table.dtype == np.int64
    assert table.shape == (len(thetas), D)
    assert (np.diff(table, axis=1) >= 0).all()


def test_thresholds_beyond_64_bits_are_never_reached() -> None:
    huge, shift = Fraction(10**30), Fraction(1)
    table = levels([huge, huge], 2, "half-up", [Fraction(0), shift])
    assert table.tolist() == [[2**61, 2**61], [-(2**61), 2**61]]
