"""Laws of exact numbers: what a constant stands for survives graphs, moves and float32."""

from __future__ import annotations

from fractions import Fraction
from math import gcd

import numpy as np
import onnx_ir as ir
import pytest
from float_networks import Net, imported
from hypothesis import given
from hypothesis import strategies as st

from snncc.ir.exact import Exact, fraction_gcd, steps_of, unit_attributes, unit_of
from snncc.ir.graphs import initializer

NUMBERS = st.fractions(-900, 900, max_denominator=900)


@given(st.lists(NUMBERS, min_size=1, max_size=6))
def test_vectors_hold_any_fractions(numbers):
    found = Exact.of_fractions(numbers)
    assert found.fractions() == tuple(numbers)
    np.testing.assert_allclose(found.real, [float(n) for n in numbers], rtol=1e-15)


@pytest.mark.parametrize("moved", [False, True])
def test_a_graph_and_its_copies_keep_the_fractions_beside_float32(moved):
    model = imported(Net((4,)).linear(3))
    exact = Exact.in_rows(np.arange(6.0).reshape(2, 3), [Fraction(1, 3), Fraction(1, 7)])
    exact = exact.moved(np.transpose) if moved else exact
    initializer(model.graph, "third", exact)
    value = model.clone().graph.initializers["third"]
    assert value.const_value is not None
    assert value.const_value.dtype == ir.DataType.FLOAT
    assert (value.const_value.numpy() == exact.real.astype(np.float32)).all()
    found = Exact.of(value)
    assert found is not None
    assert found.fractions() == exact.fractions()


def test_plain_floats_are_what_they_are():
    model = imported(Net((4,)).linear(3))
    value = initializer(model.graph, "tenth", Exact(np.float32([0.1])))
    found = Exact.of(value)
    assert found is not None
    assert found.fractions() == (Fraction(float(np.float32(0.1))),)
    assert Exact.of(model.graph.inputs[0]) is None


def test_units_along_other_axes_are_multiplied_out():
    exact = Exact(np.ones((2, 2)), np.array([[Fraction(1, 3), Fraction(1, 7)]], dtype=object))
    assert exact.by_row().units is None
    assert (exact.by_row().values == exact.real).all()
    by_row = exact.moved(np.transpose)
    assert by_row.by_row() is by_row


# -- what one spike is worth ---------------------------------------------------------------


@given(st.fractions(Fraction(1, 10**6), 10**6))
def test_a_neuron_knows_its_unit_whatever_float32_makes_of_it(unit):
    attributes = ir.convenience.convert_attributes({"D": 4, "rounding": "half-even"})
    given_ = ir.convenience.convert_attributes(unit_attributes(unit))
    assert unit_of(ir.Node("", "IntegerFire", [], [*attributes, *given_])) == unit


def test_norms_of_float32_need_no_unit():
    assert unit_attributes(Fraction(1, 4)) == {"norm": 4.0}
    assert unit_attributes(Fraction(1, 3)) == {"norm": 3.0}
    assert unit_attributes(Fraction(3)).get("unit") == "3"


# -- steps ---------------------------------------------------------------------------------


@given(
    st.lists(st.integers(-(2**23), 2**23), min_size=1, max_size=20),
    st.integers(-40, 20),
    st.sampled_from([np.float32, np.float64]),
)
def test_the_step_of_a_row_is_the_largest_there_is(whole, exponent, dtype):
    row = np.array([whole], np.float64) * 2.0**exponent
    found = steps_of(row.astype(dtype))
    assert found.found.all()
    assert [int(k) * found.size(0) for k in found.whole[0]] == [Fraction(v) for v in row[0]]
    assert gcd(*map(int, found.whole[0])) == int(any(whole))


@pytest.mark.parametrize("row", [[1.0, 2.0**-24], [1e30, 1e-30], [0.1, 0.2, 0.3], [5e-324, 1.0]])
def test_rows_of_large_integers_have_none(row):
    assert not steps_of(np.array([row])).found.any()


def test_a_row_is_refused_however_late_it_shows():
    rows = np.ones((3, 100))
    rows[1, 99] = 0.1
    found = steps_of(rows)
    assert found.found.tolist() == [True, False, True]
    assert found.whole.shape == (2, 100)


@given(st.lists(NUMBERS, min_size=1, max_size=5))
def test_all_are_whole_multiples_of_the_common_divisor(numbers):
    found = fraction_gcd(numbers)
    assert all(found == 0 or (n / found).denominator == 1 for n in numbers)
    assert found == 0 or gcd(*(int(n / found) for n in numbers)) == 1
