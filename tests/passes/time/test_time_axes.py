"""Wherever a network's code puts timesteps and samples, folding them changes no number."""

from __future__ import annotations

from itertools import groupby
from math import prod

import numpy as np
from float_networks import Net, imported
from hypothesis import given, settings
from hypothesis import strategies as st

from snncc.ir.oracle import evaluate
from snncc.passes.time.fold_time import FoldTime

#: What axes are made of: T is 2 * 2, samples are N of them, and a sample has 2 * 2 * 2 * 3 numbers.
_SIZES = {"T1": 2, "T2": 2, "a": 2, "b1": 2, "b2": 2, "c": 3}
_TIME, _OUTER = ("T1", "T2"), ("T1", "T2", "N")
_T = 4

Axes = list[list[str]]


class Walk:
    """A network under construction whose axes are known by what they hold."""

    def __init__(self, seed: int) -> None:
        self.net = Net((2, 4, 3), seed)
        self.net.timesteps = _T
        self.axes: Axes = [["N"], ["T1", "T2"], ["a"], ["b1", "b2"], ["c"]]
        self.sizes = dict(_SIZES)

    def size(self, axis: list[str]) -> int:
        """-1 with samples."""
        return -1 if "N" in axis else prod(self.sizes[name] for name in axis)

    def is_own(self, axis: list[str]) -> bool:
        return bool(axis) and not set(axis) & set(_OUTER)

    def own(self) -> list[int]:
        return [i for i, axis in enumerate(self.axes) if self.is_own(axis)]

    def then(self, kind: str, *inputs: str, **more: object) -> None:
        self.net.then(kind, *inputs, module=self.net.label(kind.lower()), **more)

    def reshape(self, axes: Axes) -> None:
        self.axes = axes
        self.then("Reshape", self.net.const([self.size(a) for a in axes], np.int64))

    def transpose(self, order: list[int]) -> None:
        self.axes = [self.axes[i] for i in order]
        self.then("Transpose", perm=order)

    def computes(self) -> bool:
        """Whether no axis has samples between two parts of its own."""
        kinds = [[name in _OUTER for name in axis] for axis in self.axes]
        return all(len([k for k, _ in groupby(kind) if not k]) < 2 for kind in kinds)


def _regroup(draw: st.DrawFn, walk: Walk) -> None:
    """Axes joined and parted anywhere, axes of size one put in."""
    axes: Axes = [[]]
    for name in (name for axis in walk.axes for name in axis):
        if draw(st.booleans()):
            axes.append([])
        axes[-1].append(name)
    walk.reshape([axis for axis in axes if axis or draw(st.integers(0, 3)) == 0])


def _turn(draw: st.DrawFn, walk: Walk) -> None:
    walk.transpose(list(draw(st.permutations(range(len(walk.axes))))))


def _shift(draw: st.DrawFn, walk: Walk) -> None:
    """A number for each place in some of the axes of a sample's own."""
    if walk.computes():
        varies = [walk.is_own(axis) and draw(st.booleans()) for axis in walk.axes]
        shape = [walk.size(a) if v else 1 for a, v in zip(walk.axes, varies, strict=True)]
        first = draw(st.integers(0, varies.index(True) if any(varies) else len(varies)))
        walk.then("Add", walk.net.const(walk.net.rng.normal(size=shape[first:])))


def _average(draw: st.DrawFn, walk: Walk) -> None:
    own = walk.own()
    if walk.computes() and len(own) > 1:
        axis, keep = draw(st.sampled_from(own)), draw(st.booleans())
        walk.then("ReduceMean", walk.net.const([axis], np.int64), keepdims=int(keep))
        walk.axes[axis : axis + 1] = [[]] if keep else []


def _swap_halves(draw: st.DrawFn, walk: Walk) -> None:
    """Not of halves of size one before the samples, which are taken for one timestep's."""
    samples = next(i for i, axis in enumerate(walk.axes) if "N" in axis)
    own = [i for i in walk.own() if walk.size(walk.axes[i]) % (2 if i > samples else 4) == 0]
    if walk.computes() and own:
        net, axis = walk.net, draw(st.sampled_from(own))
        half, size = walk.size(walk.axes[axis]) // 2, walk.size(walk.axes[axis])
        bounds = ((half, size), (0, half))
        parts = [
            net.node("Slice", net.x, *(net.const([n], np.int64) for n in (start, end, axis)))
            for start, end in bounds
        ]
        net.x = net.node("Concat", *parts, axis=axis)


def _linear(draw: st.DrawFn, walk: Walk) -> None:
    if walk.computes() and walk.axes and walk.is_own(walk.axes[-1]) and len(walk.axes) > 1:
        inputs, name = walk.size(walk.axes[-1]), f"m{len(walk.sizes)}"
        walk.then("MatMul", walk.net.const(walk.net.rng.normal(size=(inputs, 2)) / inputs))
        walk.sizes[name], walk.axes[-1] = 2, [name]


def _loop(draw: st.DrawFn, walk: Walk) -> None:
    """Timesteps one by one, and stacked again, along any axis."""
    axis = next((i for i, axis in enumerate(walk.axes) if tuple(axis) == _TIME), None)
    if axis is None or not walk.computes():
        return
    net, at = walk.net, draw(st.integers(0, len(walk.axes) - 1))
    steps = []
    for t in range(_T):
        step = net.node("Gather", net.x, net.const(t, np.int64), axis=axis)
        step = net.node("Mul", step, net.const(0.5))
        steps.append(net.node("Unsqueeze", step, net.const([at], np.int64)))
    net.x = net.node("Concat", *steps, axis=at)
    walk.axes.insert(at, walk.axes.pop(axis))


_MOVES = (_regroup, _turn, _shift, _average, _swap_halves, _linear, _loop, _regroup, _turn)


@st.composite
def walks(draw: st.DrawFn) -> Net:
    """Networks of 1 to 12 moves whose result is [N, ...], the mean over time."""
    walk = Walk(draw(st.integers(0, 2**16)))
    for move in draw(st.lists(st.sampled_from(_MOVES), min_size=1, max_size=12)):
        move(draw, walk)
    walk.reshape([[name] for axis in walk.axes for name in axis])
    names = [name for (name,) in walk.axes]
    lead = [names.index(name) for name in _OUTER]
    walk.transpose([*lead, *(i for i in range(len(names)) if i not in lead)])
    walk.reshape([list(_TIME), *walk.axes[2:]])
    walk.then("ReduceMean", walk.net.const([0], np.int64), keepdims=0)
    walk.net.shape = tuple(walk.size(axis) for axis in walk.axes[2:])
    return walk.net


@settings(max_examples=60, deadline=None)
@given(walks())
def test_folding_changes_no_number(net):
    x = np.random.default_rng(0).normal(size=(3, _T, 2, 4, 3)).astype(np.float32)
    model = imported(net)
    (wanted,) = evaluate(model, {"x": x}).values()
    FoldTime().run(model)
    assert [node.op_type for node in model.graph][-1] == "TimeSum"
    (found,) = evaluate(model, {"x": x}).values()
    np.testing.assert_allclose(found, wanted.reshape(found.shape), rtol=1e-4, atol=1e-5)
