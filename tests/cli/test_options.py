"""Options whose values have a form of their own."""

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncc.cli.network import json_object, numbers, sample_shape

SIZES = st.integers(1, 4096)


def _csv(values):
    return ",".join(str(v) for v in values)


@given(st.one_of(st.tuples(SIZES), st.tuples(SIZES, SIZES, SIZES)))
def test_a_shape_may_carry_a_batch_of_one(shape):
    assert sample_shape(_csv(shape)) == sample_shape(_csv((1, *shape))) == shape


@pytest.mark.parametrize("text", ["", "3,32", "2,3,32,32", "3,0,32", "3,a,32", "1,2,3,4,5", "-3"])
def test_other_shapes_are_refused(text):
    with pytest.raises(click.BadParameter):
        sample_shape(text)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_are_read_back(values):
    assert numbers(_csv(values)) == tuple(values)


@pytest.mark.parametrize("text", ["", "1,,2", "nan", "1,inf", "1;2"])
def test_other_numbers_are_refused(text):
    with pytest.raises(click.BadParameter):
        numbers(text)


@pytest.mark.parametrize("text", ["", "[]", "{'D': 4}", "4", "{"])
def test_what_is_no_json_object_is_refused(text):
    with pytest.raises(click.BadParameter):
        json_object(text)


def test_json_object_is_read():
    assert json_object('{"D": 4}') == {"D": 4}
