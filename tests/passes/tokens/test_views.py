"""Views are what numpy does: a value regrouped any way, and the map that is under it."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snncc.ir.axes import Digit
from snncc.passes.tokens.views import (
    BATCH,
    Groups,
    indices,
    of_map,
    regrouped,
    selected,
    spread,
)

SAMPLES = 5


def seen(groups: Groups, sizes: tuple[int, ...]) -> np.ndarray:
    """The elements of a map 0, 1, 2, … as a view of it has them."""
    plane = prod(sizes[1:])
    total = np.zeros((), np.int64)
    for group in groups:
        index = np.zeros(1, np.int64)
        for d in group:
            size, stride = (SAMPLES, prod(sizes)) if d == BATCH else (d.size, d.stride)
            step = stride * (plane if d.axis == "C" else 1)
            index = (index[:, None] + np.arange(size) * step).reshape(-1)
        total = total[..., None] + index
    return total


@st.composite
def regroupings(draw: st.DrawFn) -> tuple[tuple[int, ...], list[tuple[str, Any]]]:
    """A map and what is done to it: transposes, and reshapes that split or join axes."""
    sizes = tuple(draw(st.sampled_from([1, 2, 3, 4, 6])) for _ in range(3))
    shape: list[int] = [SAMPLES, *sizes]
    steps: list[tuple[str, Any]] = []
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            order = draw(st.permutations(range(len(shape))))
            shape = [shape[i] for i in order]
            steps.append(("transpose", order))
            continue
        at = draw(st.integers(0, len(shape) - 1))
        if len(shape) > 2 and at + 1 < len(shape) and draw(st.booleans()):
            shape[at : at + 2] = [shape[at] * shape[at + 1]]
        elif shape[at] % SAMPLES:
            small = draw(st.sampled_from([n for n in range(1, shape[at] + 1) if not shape[at] % n]))
            shape[at : at + 1] = [small, shape[at] // small]
        steps.append(("reshape", list(shape)))
    return sizes, steps


@settings(max_examples=300)
@given(regroupings())
def test_what_is_followed_is_what_numpy_does(
    case: tuple[tuple[int, ...], list[tuple[str, Any]]],
) -> None:
    sizes, steps = case
    value = np.arange(SAMPLES * prod(sizes)).reshape(SAMPLES, *sizes)
    groups: Groups | None = of_map(sizes)
    for kind, how in steps:
        if groups is None:
            return  # given up: nothing is claimed
        if kind == "transpose":
            value = value.transpose(how)
            groups = tuple(groups[i] for i in how)
        else:
            value = value.reshape(how)
            axis = next(i for i, n in enumerate(how) if n % SAMPLES == 0)
            groups = regrouped(groups, [None if i == axis else n for i, n in enumerate(how)])
        if groups is not None:
            np.testing.assert_array_equal(seen(groups, sizes), value)


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        ([(None, 12, 20)], ((BATCH,), (Digit("C", 12),), (Digit("P", 20),))),
        ([(None, 3, 4, 20)], ((BATCH,), (Digit("C", 3, 4),), (Digit("C", 4),), (Digit("P", 20),))),
        ([(None, 3, 4, 20), (None, 12, 4, 5)], of_map((12, 4, 5))),
        ([(None, 4, 20)], ((BATCH, Digit("C", 3, 4)), (Digit("C", 4),), (Digit("P", 20),))),
        ([(None, 8, 30)], None),  # no axis of it is a whole number of digits
        ([(7, 12, 20)], None),
    ],
)
def test_reshapes(steps: list[tuple[int | None, ...]], wanted: Groups | None) -> None:
    groups: Groups | None = of_map((12, 4, 5))
    for sizes in steps:
        assert groups is not None
        groups = regrouped(groups, sizes)
    assert groups == wanted


@settings(max_examples=60)
@given(regroupings(), st.integers(0, 2**16))
def test_constants_meet_the_map_where_they_met_the_view(
    case: tuple[tuple[int, ...], list[tuple[str, Any]]], seed: int
) -> None:
    sizes, steps = case
    groups: Groups | None = of_map(sizes)
    for kind, how in steps:
        assert groups is not None
        if kind == "transpose":
            groups = tuple(groups[i] for i in how)
        else:
            axis = next(i for i, n in enumerate(how) if n % SAMPLES == 0)
            groups = regrouped(groups, [None if i == axis else n for i, n in enumerate(how)])
        if groups is None:
            return
    if any(len(g) > 1 and BATCH in g for g in groups):
        return
    rng = np.random.default_rng(seed)
    axes = [prod(d.size for d in g if d != BATCH) for g in groups]
    array = rng.normal(size=[n if rng.random() < 0.7 else 1 for n in axes])
    found = spread(array, groups, sizes)
    whole = [SAMPLES if BATCH in g else n for g, n in zip(groups, axes, strict=True)]
    view = np.broadcast_to(array, whole)
    places = seen(groups, sizes)
    np.testing.assert_array_equal(
        view.reshape(-1)[np.argsort(places, axis=None)].reshape(SAMPLES, *sizes)[0], found
    )


def test_a_part_of_the_channels_is_a_map_of_its_own() -> None:
    sizes = (12, 1, 5)
    groups = regrouped(of_map(sizes), (None, 2, 3, 2, 5))  # as qkv by heads: (h, 3, d)
    assert groups is not None
    found = selected(groups, 2, 1, 2)
    assert found is not None
    part, kept = found
    assert kept.tolist() == [2, 3, 8, 9]
    assert part == ((BATCH,), (Digit("C", 2, 2),), (), (Digit("C", 2),), (Digit("P", 5),))


def test_no_part_of_positions() -> None:
    assert selected(of_map((4, 2, 3)), 3, 0, 1) is None


def test_indices_are_those_of_one_axis() -> None:
    assert indices((Digit("C", 2), Digit("C", 3, 2)), "C").tolist() == [0, 2, 4, 1, 3, 5]  # type: ignore[union-attr]
    assert indices((Digit("C", 2), Digit("P", 3)), "C") is None
