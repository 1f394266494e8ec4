"""Laws of the searches for garbage: as often as before afterwards, whoever ends first."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from snncc.system.collection import seldom_collected


@pytest.fixture(autouse=True)
def own_threshold() -> Iterator[None]:
    """A threshold that nobody else sets."""
    before = gc.get_threshold()
    gc.set_threshold(701, 11, 12)
    yield
    gc.set_threshold(*before)


def test_searches_are_seldom_within_and_as_before_after() -> None:
    with seldom_collected():
        assert gc.get_threshold()[0] > 100_000
    assert gc.get_threshold() == (701, 11, 12)
    with pytest.raises(KeyError), seldom_collected():
        raise KeyError
    assert gc.get_threshold() == (701, 11, 12)


def test_of_two_at_a_time_the_last_to_end_restores_them() -> None:
    first, second = seldom_collected(), seldom_collected()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert gc.get_threshold()[0] > 100_000
    second.__exit__(None, None, None)
    assert gc.get_threshold() == (701, 11, 12)


def test_what_is_turned_off_stays_off() -> None:
    gc.set_threshold(0)
    with seldom_collected():
        assert gc.get_threshold()[0] == 0
    assert gc.get_threshold()[0] == 0
