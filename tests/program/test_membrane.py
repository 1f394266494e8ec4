from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from snncc.program.membrane import fixed_decay, membrane_reach


@given(st.integers(0, 256))
def test_binary_fractions_are_exact(k):
    numerator, shift = fixed_decay(k / 256)
    assert Fraction(numerator, 2**shift) == Fraction(k, 256)


@given(st.floats(0, 1))
def test_other_decays_are_within_half_a_step(decay):
    numerator, shift = fixed_decay(decay)
    assert abs(Fraction(numerator, 2**shift) - Fraction(decay)) <= Fraction(1, 2**17)


@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=6),
    st.sampled_from([(1, 1), (3, 2), (1, 0), (0, 0), (28087, 16)]),
    st.integers(0, 30),
    st.lists(st.integers(-30, 30), min_size=6, max_size=6),
    st.booleans(),
)
def test_no_membrane_goes_beyond_its_reach(drive, decay, loss, losses, delayed):
    top = max(map(abs, drive))
    reach = membrane_reach(len(drive), decay, top, loss, delayed)
    v = owed = 0
    for x, some in zip(drive, losses, strict=False):
        product = decay[0] * v
        h = (product >> decay[1]) + x - owed
        assert abs(h) <= reach.compared
        taken = max(-loss, min(some, loss))
        v, owed = (h, taken) if delayed else (h - taken, 0)
        assert max(abs(product), abs(h), abs(v)) <= reach.widest
