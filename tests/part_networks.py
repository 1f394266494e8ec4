"""Random networks that each hold a part of residual and transformer families, whose neurons fire.

Structure is drawn by hypothesis, so it shrinks; numbers come from a generator with a drawn seed.
Drives are spread over the levels of their neurons by the data of the case, as the batch norms of
trained networks do it: populations that are silent prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from float_networks import Case, Net, imported
from hypothesis import strategies as st
from neuron_spellings import SPELLINGS
from state_networks import apart, carried, flat, head, repeated, sequence, unrolled

from snncc.ir.oracle import evaluate
from snncc.passes.integers.quantise_input import QuantiseInput

__all__ = ["PARTS", "PartCase", "part_networks"]

Array = np.ndarray

_DECAYS = (0.0, 0.25, 0.5, 0.75, 1.0, 1 - 1 / 1.75, 0.9)
#: (gain, threshold) of neurons that fire once: a drive of one or two is enough for all of them.
_ONCE = ((1.0, 1.0), (0.5, 0.5), (1.0, 0.5))


@dataclass(frozen=True)
class PartCase(Case):
    """A case, and the names of the parts it was built of, in their order."""

    parts: tuple[str, ...]


@st.composite
def part_networks(draw: st.DrawFn, parts: tuple[str, ...] = ()) -> PartCase:
    """Networks of one or two ``PARTS`` of D = 1 to 4, over 1 to 4 timesteps or none, with inputs.

    Args:
        draw: Of hypothesis.
        parts: Those to choose from; default: all there are.
    """
    names = st.sampled_from(parts or tuple(PARTS))
    chosen = tuple(draw(st.lists(names, min_size=1, max_size=2)))
    is_spatial = bool(_MAPS & {*chosen}) or draw(st.integers(0, 3)) > 0
    size = draw(st.integers(4, 6))
    shape = (draw(st.integers(1, 2)), size, size) if is_spatial else (4,)
    time = _Time(draw(st.integers(0, 4)), draw(st.booleans()), draw(st.booleans()))
    ties = draw(st.booleans())
    source = QuantiseInput((2.0**-6,) if ties else (1 / 61.0,), (0.0,))
    net = Net(shape, draw(st.integers(0, 2**16)), ties, 128 * source.scale[0])
    samples = (2, time.T, *shape) if time.is_sequence and time.T else (2, *shape)
    q = net.rng.integers(0, 256, samples) * (net.rng.random(samples) < 0.8)
    case = PartCase(net, source, q.astype(np.uint8), chosen)
    author = _Author(draw, net, time, case.x)
    author.stem()
    for name in chosen:
        PARTS[name](author)
    author.end()
    return case


@dataclass(frozen=True)
class _Time:
    """How a network has timesteps.

    Attributes:
        T: How many; 0: it has none, as networks of SFA neurons.
        is_sequence: The input has them, too; else it is the same in all of them.
        is_loop: Each has nodes of its own; else they are an axis.
    """

    T: int
    is_sequence: bool
    is_loop: bool


class _Author:
    """Writes a network part by part; each begins and ends with spikes as the current value."""

    def __init__(self, draw: st.DrawFn, net: Net, time: _Time, x: Array) -> None:
        self.draw, self.net, self.time = draw, net, time
        self.x = x[:, 0] if time.is_loop and time.is_sequence and time.T else x
        self.D = draw(st.integers(1, 4))

    def flip(self, one_in: int = 2) -> bool:
        return bool(self.draw(st.integers(0, one_in - 1)) == one_in - 1)

    def pick(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    @property
    def is_map(self) -> bool:
        return len(self.net.shape) == 3

    # -- from the input to the result ------------------------------------------------------

    def stem(self) -> None:
        """Timesteps, a layer and its neuron."""
        net, time = self.net, self.time
        if time.T and not time.is_loop and time.is_sequence:
            sequence(net, time.T)
        elif time.T and not time.is_loop:
            if self.flip():
                self.drive()
            repeated(net, time.T, self.pick("stack", "tile"))
        self.drive()
        self.neuron(memory=True)

    def end(self) -> None:
        """Timesteps of a loop, and a head."""
        net, time = self.net, self.time
        if not time.T:
            if self.is_map:
                net.flatten() if self.flip() else net.mean()
            net.linear(self.draw(st.integers(1, 3)))
            return
        summed = time.is_loop and self.flip()
        if time.is_loop:
            net.timesteps = time.T * time.is_sequence
            unrolled(net, time.T, summed)
        head(self.draw, net, time.T, summed)

    # -- layers and neurons ----------------------------------------------------------------

    def layer(self, out: int = 0) -> None:
        """A layer that keeps height and width."""
        out = out or self.draw(st.integers(1, 3))
        if self.is_map:
            kernel = self.pick(1, 3)
            self.net.conv(out, kernel, pads=kernel // 2, bias=self.flip(), D=self.D)
        else:
            self.net.linear(out, self.flip(), D=self.D)

    def drive(self, out: int = 0, D: float = 0) -> None:
        """A layer, and a norm of it."""
        self.layer(out)
        self.spread(D)

    def spread(self, D: float = 0) -> Array:
        """A norm with which the current value meets all levels of a neuron.

        Args:
            D: Of the neuron; default: as most have.

        Returns:
            What the norm makes of zero, (C,).
        """
        net, D = self.net, D or self.D
        values = self.values()
        over = (0, *range(2, values.ndim))
        mean, std = values.mean(over), values.std(over)
        std = np.maximum(std, 0.05 * max(std.max(), np.abs(mean).max(), 1e-2))
        sign = net.rng.choice([-1, 1, 1], mean.shape)
        gain = sign * D * net.rng.uniform(0.3, 0.7, mean.shape) / std
        wanted = D * net.rng.uniform(0.2, 0.7, mean.shape)
        if net.ties:
            gain = sign * 2.0 ** np.round(np.log2(np.abs(gain)))
            shift = np.round(2 * (wanted - gain * mean)) / 2
            net.affine("Mul", gain, per_channel=True).affine("Add", shift, per_channel=True)
            return np.asarray(shift, np.float32)
        var = (std**2).astype(np.float32)
        given = [np.asarray(v, np.float32) for v in (gain * std, wanted, mean, var)]
        args = [net.const(v) for v in given]
        net.then("BatchNormalization", *args, module=net.label("bn"), epsilon=1e-5)
        gamma, beta, centre, var = given
        return np.asarray(beta - centre * gamma / np.sqrt(var + np.float32(1e-5)))

    def values(self) -> Array:
        """The current value on the case's samples."""
        found: Array = next(iter(evaluate(imported(self.net), {"x": self.x}).values()))
        return found.astype(np.float64)

    def neuron(self, D: int = 0, plain: bool = False, memory: bool = False) -> None:
        """A neuron, with a memory or without one.

        Args:
            D: Of it; default: as most have, mostly.
            plain: Spikes count one each.
            memory: It must have one if there are timesteps to remember.
        """
        net, time = self.net, self.time
        D = D or (self.draw(st.integers(1, 4)) if self.flip(4) else self.D)
        norm = 1.0 if plain else self.pick(1.0, 1.0, float(D))
        has_one = (memory or not self.flip(3)) if time.T else self.flip(4)
        if not has_one:
            rounding, spelling = self.pick("half-even", "half-up"), self.pick(*SPELLINGS)
            net.fire(D, norm, rounding, spelling)
            return
        if time.T and not time.is_loop and self.flip(3):
            flat(apart(net, time.T))
        rule = self.pick(">=", ">", "half-up") if D == 1 else self.pick("half-even", "half-up")
        gain, threshold = self.pick(*_ONCE) if D == 1 else (1.0, 1.0)
        T, own = 1 if time.is_loop else max(time.T, 1), net.shape[0] if self.flip(4) else 1
        carried(
            net, T, D=D, rule=rule, gain=gain, threshold=threshold, norm=norm,
            decay=[float(np.float32(self.pick(*_DECAYS))) for _ in range(own)],
            reset=self.pick("hard", "soft", "delayed"),
        )  # fmt: skip

    # -- parts -----------------------------------------------------------------------------

    def gate(self) -> None:
        """Products of two trains, of a train and what another does not fire, of tokens."""
        net, D = self.net, self.pick(1, self.D)
        self.drive(D=D)
        self.neuron(D, plain=True)
        one, shape = net.x, net.shape
        self.drive(shape[0], D)
        kinds = ("and", "and", "silence", "silence")
        kind = self.pick(*kinds, "channel", "tokens") if self.is_map else self.pick(*kinds)
        if kind == "channel":
            net.mean(keep=True)
            self.spread(D)
        self.neuron(D, plain=True)
        if kind == "tokens":
            self.tokens(one)
            return
        net.gate(one, most=float(D) if kind == "silence" else 0)
        net.shape = shape
        if kind == "and" and self.flip(3):
            self.drive(shape[0], D)
            between = net.x
            net.x = one
            self.drive(shape[0], D)
            self.neuron(D, plain=True)
            net.gate(one)
            once = net.x
            net.x = between
            self.neuron(D, plain=True)
            self.drive(shape[0], D)
            net.add(once)
            self.neuron()

    def tokens(self, queries: str) -> None:
        """What a head's channels fire together opens the keys of a token, as QKFormer has it."""
        net, (c, h, w) = self.net, self.net.shape
        heads = self.pick(*(n for n in (1, 2, 3) if c % n == 0))
        size = net.const([-1, heads, c // heads, h * w], np.int64)
        keys = net.node("Reshape", net.x, size, module="keys")
        net.x = net.node("Reshape", queries, size, module="queries")
        net.then("ReduceSum", net.const([2], np.int64), module="heads", keepdims=1)
        net.shape = (heads, 1, h * w)
        self.neuron(1, plain=True)
        net.x = net.node("Mul", keys, net.x, module=net.label("opened"))
        net.shape = (c, h, w)
        flat(net)

    def sum(self) -> None:
        """A residual stream of spikes, some blocks deep, that layers and neurons read."""
        net, D = self.net, self.D
        self.drive()
        self.neuron(D, plain=True)
        for _ in range(self.draw(st.integers(1, 4))):
            stream = net.x
            self.drive(net.shape[0])
            self.neuron(D, plain=True)
            net.add(stream)
        if not self.flip(4):  # else a neuron reads the sum as it is
            self.drive()
        self.neuron()

    def maximum(self) -> None:
        """Of potentials: before a memory, or added to a potential, too."""
        net = self.net
        self.drive()
        if min(net.shape[1:]) < 2:
            self.neuron()
            return
        net.pool("MaxPool", self.pick(2, 2, 3 if min(net.shape[1:]) > 2 else 2),
                 self.pick(1, 2), self.pick(0, 1))  # fmt: skip
        if self.time.T > 1 and self.flip():
            self.neuron(memory=True)
            return
        pooled = net.x
        self.neuron()
        self.drive(net.shape[0], self.D / 2)
        net.add(pooled)
        self.neuron()

    def border(self) -> None:
        """RepConv: a border of what a batch norm makes of zero, or of other numbers."""
        net, pick = self.net, self.pick
        net.conv(self.draw(st.integers(1, 3)), 1, bias=False, D=self.D)
        zero = self.spread(1)
        if self.flip(3):
            zero = net.rng.normal(0, 1, zero.shape).astype(np.float32)
        pick(_where, _written)(net, (pick(0, 1, 1), 1, 1, pick(1, 1, 2)), zero)
        c = net.shape[0]
        net.conv(c, pick(2, 3), group=c, bias=False, D=self.D)
        net.conv(self.draw(st.integers(1, 3)), 1, bias=False, D=self.D)
        self.spread()
        self.neuron(memory=True)

    def graded(self) -> None:
        """Layers with no neuron between: potentials are read as graded payloads."""
        net = self.net
        kinds = ("row", "separable", "separable", "pooled", "wide")
        kind = self.pick(*kinds) if self.is_map else "row"
        self.layer()
        c = net.shape[0]
        if kind == "separable":
            net.conv(c, 3, pads=1, group=c, bias=self.flip(), D=self.D)
        elif kind == "pooled" and min(net.shape[1:]) > 1:
            net.pool("AveragePool", 2, self.pick(1, 2))
        elif kind == "wide":
            net.conv(self.draw(st.integers(1, 3)), 3, pads=1, bias=self.flip(), D=self.D)
        if self.flip(3):
            self.spread()
        self.drive()
        self.neuron()

    def identity(self) -> None:
        """A ResNet's block: the spikes that it reads are added to its last potential."""
        net = self.net
        self.drive()
        self.neuron()
        for _ in range(self.draw(st.integers(1, 2))):
            spikes, out = net.x, net.shape[0]
            if self.flip():
                self.drive()
                self.neuron()
            self.drive(out)
            net.add(spikes)
            self.neuron()

    def membranes(self) -> None:
        """MS-ResNet's blocks: potentials are added up, through layers of potentials at borders."""
        net = self.net
        self.drive()
        for _ in range(self.draw(st.integers(1, 3))):
            stream, shape = net.x, net.shape
            self.neuron()
            if self.flip(3):
                self.drive()
                self.neuron()
            is_border = self.flip(3)
            stride = self.pick(1, 2) if is_border and self.is_map else 1
            out = self.draw(st.integers(1, 3)) if is_border else shape[0]
            self.strided(out, 3, stride)
            direct = net.x
            if is_border:
                net.x, net.shape = stream, shape
                self.strided(out, 1, stride)
                stream = net.x
                net.x = direct
            net.add(stream)
        self.neuron()

    def strided(self, out: int, kernel: int, stride: int) -> None:
        """A layer that may halve height and width, and a norm of it."""
        if self.is_map:
            self.net.conv(out, kernel, stride, kernel // 2, bias=self.flip(), D=self.D)
            self.spread(self.D / 2)
        else:
            self.drive(out, self.D / 2)

    def dense(self) -> None:
        """DANet: each layer reads the sum of all older tensors, of spikes or of potentials."""
        net, is_spikes = self.net, self.flip()
        out = self.draw(st.integers(1, 3))
        older: list[str] = []
        for _ in range(self.draw(st.integers(2, 4))):
            self.drive(out, self.D if is_spikes else self.D / 2)
            if is_spikes:
                self.neuron(self.D, plain=True)
            older.append(net.x)
            self.total(older)
            if not is_spikes:
                self.neuron()
        if is_spikes:
            kind = self.pick("projections", "layer", "none")
            if kind == "projections":
                self.projections(older, net.shape)
            elif kind == "layer":
                self.drive()
            self.neuron()

    def total(self, older: list[str]) -> None:
        """All of them, in one node or one after the other."""
        net = self.net
        if len(older) > 1 and self.flip():
            net.x = net.node("Sum", *older, module=net.label("sum"))
            return
        net.x = older[0]
        for name in older[1:]:
            net.add(name)

    def projections(self, older: list[str], shape: tuple[int, ...]) -> None:
        """Each older tensor through a layer of its own, added up: a border between stages."""
        made, out = [], self.draw(st.integers(1, 3))
        for name in older:
            self.net.x, self.net.shape = name, shape
            self.drive(out, self.D / len(older))
            made.append(self.net.x)
        self.total(made)


Part = Callable[[_Author], None]
PARTS: dict[str, Part] = {
    "gate": _Author.gate,
    "sum of spikes": _Author.sum,
    "maximum of potentials": _Author.maximum,
    "border": _Author.border,
    "graded chain": _Author.graded,
    "identity layer": _Author.identity,
    "shortcut of potentials": _Author.membranes,
    "densely additive": _Author.dense,
}
#: Parts that need height and width.
_MAPS = frozenset({"maximum of potentials", "border"})


# -- borders -------------------------------------------------------------------------------


def _grown(net: Net, pads: tuple[int, int, int, int]) -> None:
    """Zeros around the current value: above, left, below, right."""
    ends = [0, 0, *pads[:2], 0, 0, *pads[2:]]
    net.then("Pad", net.const(ends, np.int64), mode="constant", module=net.label("pad"))
    c, h, w = net.shape
    net.shape = (c, h + pads[0] + pads[2], w + pads[1] + pads[3])


def _where(net: Net, pads: tuple[int, int, int, int], values: Array) -> None:
    """A border of (C,) values, chosen by a constant mask."""
    inside = np.pad(np.ones((1, 1, *net.shape[1:]), bool), ((0, 0), (0, 0), pads[::2], pads[1::2]))
    _grown(net, pads)
    border = net.const(values.reshape(1, -1, 1, 1))
    net.x = net.node("Where", net.const(inside, bool), net.x, border)


def _written(net: Net, pads: tuple[int, int, int, int], values: Array) -> None:
    """A border of (C,) values, written over rows and columns, as ``y[..., :p] = v`` is exported."""
    _grown(net, pads)
    count = net.node("Shape", net.x, start=0, end=1)
    for axis, (before, after) in ((2, pads[::2]), (3, pads[1::2])):
        length = net.shape[axis - 1]
        for rows in (range(before), range(length - after, length)):
            if rows:
                _write_rows(net, axis, [*rows], values, count)


def _write_rows(net: Net, axis: int, rows: list[int], values: Array, count: str) -> None:
    """Rows or columns of the current value; ``count``: the samples there are in all timesteps."""
    size = [*net.shape]
    size[axis - 1] = len(rows)
    perm = [axis, 1, *(0 if i == axis else i for i in (2, 3))]
    target = net.node("Concat", count, net.const(size, np.int64), axis=0)
    border = net.node("Expand", net.const(values.reshape(-1, 1, 1)), target)
    border = net.node("Transpose", border, perm=perm)
    net.then("Transpose", perm=perm)
    net.then("ScatterND", net.const([[row] for row in rows], np.int64), border)
    net.then("Transpose", perm=perm)
