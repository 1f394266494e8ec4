"""The operators of gates and sums: one product and one sum, in floats, in counts and in ticks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_attention_ops import train
from test_ops import run

Array = np.ndarray


@st.composite
def counts(draw: st.DrawFn) -> tuple[Array, Array, int, int]:
    """Counts of two trains of D and E ticks; one of them may have one number a channel."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    D, E = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    shape = (draw(st.integers(1, 2)), *(draw(st.integers(1, 3)) for _ in range(3)))
    shapes = [shape, (*shape[:2], 1, 1) if draw(st.booleans()) else shape]
    one, two = shapes if draw(st.booleans()) else shapes[::-1]
    a, b = (rng.integers(0, n + 1, s).astype(np.uint8) for n, s in ((D, one), (E, two)))
    return a, b, D, E


@settings(max_examples=60)
@given(counts(), st.sampled_from(["and", "and-not"]))
def test_all_forms_are_the_same_product(case: tuple[Array, Array, int, int], rule: str) -> None:
    a, b, D, E = case
    wide = a.astype(np.int64) * (b if rule == "and" else E - b.astype(np.int64))
    settings: dict[str, Any] = {"rule": rule, "most": E}
    floats = [x.astype(np.float32) for x in (a, b)]
    np.testing.assert_array_equal(run("Gate", *floats, **settings), wide)
    np.testing.assert_array_equal(run("CountGate", a, b, **settings), wide)
    ticks = run("SpikeGate", train(a, D), train(b, E), **settings)
    assert ticks.shape == (max(D, E), *wide.shape)
    np.testing.assert_array_equal(ticks.sum(0), wide)


@pytest.mark.parametrize("rule", ["and", "and-not"])
def test_of_one_tick_a_gate_is_an_and(rule: str) -> None:
    a, b = (np.array([bits], np.uint8)[None] for bits in ([0, 0, 1, 1], [0, 1, 0, 1]))
    expected = a & (b if rule == "and" else 1 - b)
    np.testing.assert_array_equal(run("SpikeGate", a, b, rule=rule, most=1), expected)


def test_spikes_meet_what_came_before_them() -> None:
    """Spikes of A in ticks 0, 1 and of B in tick 1: 2 * 1, all of it emitted in tick 1."""
    a, b = (np.array(bits, np.uint8).reshape(3, 1, 1) for bits in ([1, 1, 0], [0, 1, 0]))
    ticks = run("SpikeGate", a, b, rule="and", most=0)
    assert ticks.ravel().tolist() == [0, 2, 0]


def test_sums_hold_more_than_a_byte() -> None:
    a = np.full((1, 2), 255, np.uint8)
    one = run("CountSum", a, a)
    assert one.dtype == np.int64
    assert one.tolist() == [[510, 510]]
    np.testing.assert_array_equal(run("CountSum", one, a), [[765, 765]])
