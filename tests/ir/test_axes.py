"""Views are what NumPy makes of the same moves; chains of moves that do the same are equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from snncc.ir.axes import Digit, View, joined

Pair = tuple[View, np.ndarray]
Draw = Callable[..., object]
#: Of samples, whose number views do not know.
N = 3


def stacked(views: list[View], axis: int) -> View | None:
    """Along a new axis, as torch.stack."""
    apart = [replace(v, groups=(*v.groups[:axis], (), *v.groups[axis:])) for v in views]
    return joined(apart, axis)


def base(sizes: dict[str, int]) -> tuple[View, np.ndarray]:
    view = View.of((name, None if name == "N" else size) for name, size in sizes.items())
    return view, np.arange(prod(sizes.values())).reshape(list(sizes.values()))


def factors(draw: Draw, number: int) -> list[int]:
    """Sizes whose product is ``number``, at random."""
    found = []
    while number > 1 and len(found) < 3:
        divisors = [d for d in range(2, number + 1) if number % d == 0]
        found.append(draw(st.sampled_from(divisors)))
        number //= found[-1]
    return [*found, number] if number > 1 else found


def reshape(draw: Draw, view: View, array: np.ndarray) -> Pair | None:
    """Neighbouring axes joined, or one axis parted."""
    sizes = list(view.sizes)
    at = draw(st.integers(0, len(sizes) - 1))
    if draw(st.booleans()) and at + 1 < len(sizes):
        pair = sizes[at : at + 2]
        sizes[at : at + 2] = [None if None in pair else prod(pair)]
    elif sizes[at] is not None:
        sizes[at : at + 1] = factors(draw, sizes[at])
    else:  # what was folded into the batch, out again
        more = [d.size for d in view.groups[at] if d.size is not None]
        first = view.groups[at][0].size is None
        sizes[at : at + 1] = [None, *more] if first else [*more, None]
    assume(1 <= len(sizes) <= 6)
    found = view.reshaped(sizes)
    if found is None:
        return None
    known = [-1 if s is None else s for s in sizes]
    return found, array.reshape(known)


def transpose(draw: Draw, view: View, array: np.ndarray) -> Pair:
    order = draw(st.permutations(range(array.ndim)))
    return view.transposed(order), array.transpose(order)


def cut(draw: Draw, view: View, array: np.ndarray) -> Pair | None:
    axis = draw(st.integers(0, array.ndim - 1))
    size = view.sizes[axis]
    if size is None:
        return None
    start = draw(st.integers(0, size - 1))
    stop = draw(st.integers(start + 1, size))
    step = draw(st.sampled_from((1, 1, 1, 2)))
    found = view.sliced(axis, start, stop, step)
    index = (*(slice(None),) * axis, slice(start, stop, step))
    return None if found is None else (found, array[index])


def take(draw: Draw, view: View, array: np.ndarray) -> Pair | None:
    axis = draw(st.integers(0, array.ndim - 1))
    if view.sizes[axis] is None or array.ndim < 3:
        return None
    index = draw(st.integers(-array.shape[axis], array.shape[axis] - 1))
    found = view.taken(axis, index)
    return None if found is None else (found, array.take(index, axis))


def expand(draw: Draw, view: View, array: np.ndarray) -> Pair | None:
    ones = [i for i, s in enumerate(view.sizes) if s == 1]
    if not ones or array.ndim > 5:
        return None
    sizes = list(view.sizes)
    sizes[draw(st.sampled_from(ones))] = draw(st.integers(2, 3))
    if draw(st.booleans()):
        sizes.insert(0, draw(st.integers(1, 2)))
    found = view.expanded(sizes)
    assert found is not None
    shape = [N if s is None else s for s in sizes]
    whole = array.shape if view.sizes.count(None) else None
    assume(whole is None or array.shape[view.sizes.index(None)] == N)
    return found, np.broadcast_to(array, shape)


def part_and_join(draw: Draw, view: View, array: np.ndarray) -> Pair | None:
    """All elements along an axis one by one, or in lots, put together again on another axis."""
    axis = draw(st.integers(0, array.ndim - 1))
    size = view.sizes[axis]
    if size in (None, 1) or array.ndim > 5:
        return None
    if draw(st.booleans()) and array.ndim > 1:
        to = draw(st.integers(0, array.ndim - 1))
        parts = [view.taken(axis, i) for i in range(size)]
        if None in parts:
            return None
        found = stacked(parts, to)
        return None if found is None else (found, np.moveaxis(array, axis, to))
    lot = draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
    parts = [view.sliced(axis, i, i + lot) for i in range(0, size, lot)]
    to = draw(st.integers(0, array.ndim - 1))
    if None in parts or view.sizes[to] is None:
        return None
    found = joined(parts, to)
    pieces = np.split(array, size // lot, axis)
    return None if found is None else (found, np.concatenate(pieces, to))


MOVES = (reshape, reshape, reshape, transpose, transpose, cut, take, expand, part_and_join)


@settings(max_examples=600)
@given(st.data())
def test_a_chain_of_moves_is_what_numpy_makes_of_it(data):
    sizes = {"T": data.draw(st.integers(1, 4)), "N": N, "C": data.draw(st.sampled_from((4, 6, 12)))}
    sizes |= {"H": data.draw(st.integers(1, 3)), "W": data.draw(st.integers(2, 3))}
    first = base(sizes)
    view, array = first
    done = 0
    for _ in range(data.draw(st.integers(1, 12))):
        move = data.draw(st.sampled_from(MOVES))
        found = move(data.draw, view, array)
        if found is not None:
            view, array, done = *found, done + 1
    event(f"{done} moves")
    np.testing.assert_array_equal(view.of_array(first[1], list(sizes)), array)
    known = [N if s is None else s for s in view.sizes]
    assert all(k == a or s is None for k, a, s in zip(known, array.shape, view.sizes, strict=True))


@settings(max_examples=300)
@given(st.data())
def test_what_is_undone_is_the_view_it_was(data):
    sizes = {"T": data.draw(st.integers(1, 4)), "N": N, "C": 12, "H": 3, "W": 2}
    first, _ = base(sizes)
    order = data.draw(st.permutations(range(5)))
    back = [order.index(i) for i in range(5)]
    assert first.transposed(order).transposed(back) == first
    axis = data.draw(st.sampled_from((0, 2, 3, 4)))
    size = first.sizes[axis]
    assert stacked([first.taken(axis, i) for i in range(size)], axis) == first
    assert joined([first.sliced(axis, i, i + 1) for i in range(size)], axis) == first
    parts = factors(data.draw, 12)
    apart = first.reshaped([*first.sizes[:2], *parts, *first.sizes[3:]])
    assert apart.reshaped(first.sizes) == first


def test_heads_and_tokens_are_digits():
    """[T, N, C, H, W] -> tokens [T, N, heads, P, d], as spiking transformers have them."""
    view = View.of([("T", 4), ("N", None), ("C", 64), ("H", 8), ("W", 8)])
    tokens = view.reshaped([4, None, 64, 64]).transposed([0, 1, 3, 2])
    heads = tokens.reshaped([4, None, 64, 8, 8]).transposed([0, 1, 3, 2, 4])
    assert heads.groups == (
        (Digit("T", 4),),
        (Digit("N", None),),
        (Digit("C", 8, 8),),
        (Digit("H", 8), Digit("W", 8)),
        (Digit("C", 8),),
    )
    assert [d.axis for d in heads.groups[3]] == ["H", "W"]
    assert heads.places("C") == [2, 4]


def test_timesteps_filled_one_by_one_are_the_axis_again():
    view = View.of([("T", 3), ("N", None), ("C", 5)])
    steps = [view.taken(0, t) for t in range(3)]
    assert [step.starts for step in steps] == [{}, {"T": 1}, {"T": 2}]
    assert stacked(steps, 0) == view
    assert stacked(steps, 1) == view.transposed([1, 0, 2])
    assert stacked(steps[::-1], 0).groups[0] == (Digit("T", 3, -1),)
    assert stacked([steps[0], steps[2], steps[1]], 0) is None


@pytest.mark.parametrize(
    ("sizes", "why"),
    [
        ([None, 5, 4, 3], "twelve are not five times"),
        ([None, 9, 8], "nine do not begin with two"),
        ([None, None, 72], "one axis of samples"),
        ([12, 6], "samples have no place"),
    ],
)
def test_what_is_no_regrouping_is_none(sizes, why):
    view = View.of([("N", None), ("C", 12), ("H", 2), ("W", 3)]).transposed([0, 2, 1, 3])
    assert view.reshaped(sizes) is None, why
