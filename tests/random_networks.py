"""Random float networks of everything that has a spiking form.

Structure is drawn by hypothesis, so it shrinks; numbers come from a generator with a drawn seed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from float_networks import Case, Net
from hypothesis import strategies as st
from neuron_spellings import SPELLINGS

from snncc.passes import QuantiseInput

__all__ = ["networks"]


@st.composite
def networks(draw: st.DrawFn, max_layers: int = 3, between: bool = False) -> Case:
    """Feed-forward networks of everything that has a spiking form, with inputs.

    Args:
        draw: Of hypothesis.
        max_layers: Neurons one after the other, but for those of branches.
        between: All neurons read layers that have none between them.
    """
    ties = draw(st.booleans())
    spatial = draw(st.integers(0, 4)) > 0
    size = st.integers(3, 7)
    shape = (draw(st.integers(1, 3)), draw(size), draw(size)) if spatial else (draw(size),)
    source = _source(draw, shape[0], ties)
    rms = 128 * float(np.mean(source.scale))
    net = Net(shape, draw(st.integers(0, 2**16)), ties, rms)
    author = _Author(draw, net, between)
    author.before()
    for _ in range(draw(st.integers(1, max_layers))):
        author.layer()
    author.head()
    samples = (draw(st.integers(1, 2)), *shape)
    q = author.net.rng.integers(0, 256, samples)
    dark = author.net.rng.random(samples) < author.net.rng.choice([0.0, 0.7])
    return Case(author.net, source, np.where(dark, 0, q).astype(np.uint8))


def _source(draw: st.DrawFn, channels: int, ties: bool) -> QuantiseInput:
    count = draw(st.sampled_from([1, channels]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    if ties:
        return QuantiseInput(scale=(2.0**-6,) * count, offset=(draw(st.sampled_from([0.0, -2.0])),))
    mean, std = rng.uniform(0.3, 0.6, count), rng.uniform(0.2, 0.5, count)
    return QuantiseInput(tuple(1 / (255 * std)), tuple(-mean / std))


class _Author:
    """Writes a network layer by layer, as hypothesis decides."""

    def __init__(self, draw: st.DrawFn, net: Net, between: bool = False) -> None:
        self.draw, self.net, self.between = draw, net, between

    def flip(self, one_in: int = 2) -> bool:
        return bool(self.draw(st.integers(0, one_in - 1)) == one_in - 1)

    def pick(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    @property
    def spatial(self) -> bool:
        return len(self.net.shape) == 3

    def before(self) -> None:
        """What stands between the input and the first layer."""
        net = self.net
        if self.flip(6):
            net.affine("Sub", 0.5).affine("Div", [2.0] * net.shape[0], per_channel=True)
        if self.spatial and self.flip(6):
            net.pool(self.pick("MaxPool", "AveragePool"), kernel=2, stride=1)
        if self.spatial and self.flip(6):
            net.flatten()

    def layer(self) -> None:
        """Perhaps a batch norm, a layer, perhaps a pool, a neuron, perhaps a pool."""
        D = self.draw(st.integers(1, 15))
        if self.flip(5):
            self.net.batch_norm()
        direct = self.net.nodes[-1:] and self.net.nodes[-1].op_type in ("MaxPool", "AveragePool")
        if (direct or not self.net.nodes) and self.flip(4):
            pass  # the neuron reads the source, or counts, directly
        elif self.between or self.flip(8):
            self.chain(D)
        elif self.flip(4):
            self.branches(D)
        elif self.spatial and not self.flip(8):
            self.convolution(D)
        else:
            self.dense(D)
        if self.spatial and self.flip(5):
            self.pool_of_potential()
        self.neuron(D)
        if self.spatial and self.flip(4):
            self.pool()

    def chain(self, D: int) -> None:
        """Layers with no neuron between: some in a row, of any kind, or a sum of what some make."""
        net, pick = self.net, self.pick
        kind = pick("row", "row", "depthwise", "shortcut", "shared", "pool")
        self.same(self.draw(st.integers(1, 4)), D)
        if kind == "pool" and self.spatial:
            self.pool()
        if kind == "depthwise" and self.spatial:
            net.conv(net.shape[0], 3, pads=1, group=net.shape[0], bias=self.flip(), D=D)
        if kind in ("shortcut", "shared"):
            self.shortcut(D, kind == "shared")
            return
        for _ in range(pick(1, 1, 2)):
            self.convolution(D) if self.spatial and not self.flip(6) else self.dense(D)

    def shortcut(self, D: int, is_shared: bool) -> None:
        """A layer that reads a potential, added to one that reads spikes; their sum may be read."""
        net, out = self.net, self.draw(st.integers(1, 4))
        stream, shape, rms = net.x, net.shape, net.rms
        self.neuron(D)
        self.same(out, D)
        direct = net.x
        net.x, net.shape, net.rms = stream, shape, rms
        self.same(out, D)
        net.add(direct)
        if is_shared:
            one = net.x
            self.same(net.shape[0], D)
            two = net.x
            net.x = one
            self.neuron(D)
            self.same(net.shape[0], D)
            net.add(two)

    def neuron(self, D: int, norm: float | None = None) -> None:
        """A neuron in any spelling."""
        drawn = self.pick(1.0, 1.0, float(D), 0.5 if self.net.ties else 0.3)
        norm = norm or drawn
        rounding = self.pick("half-even", "half-up")
        self.net.fire(D, norm, rounding, self.pick(*SPELLINGS))

    def branches(self, D: int) -> None:
        """Two branches that meet in potentials, or as spikes."""
        net, pick = self.net, self.pick
        kind = pick(
            *("parallel", "stream", "shortcut", "sum", "concat", "gate", "silence", "channels")
        )
        out = self.draw(st.integers(1, 3))
        start, shape, rms = net.x, net.shape, net.rms
        self.same(out, D * pick(1, 1, 1 / 16))  # a branch so small that it needs a shift, or not
        if kind == "parallel":
            one = net.x
            net.x, net.shape, net.rms = start, shape, rms
            self.same(out, D)
            net.add(one)
            return
        if kind == "stream":
            one = net.x
            self.neuron(D)
            self.same(out, D)
            net.add(one)
            return
        self.neuron(D, norm=1.0 if kind == "silence" else None)
        if kind == "shortcut":
            self.identity(out, D)
            return
        one, shape = net.x, net.shape
        self.same(out, D)
        if kind == "channels" and self.spatial:
            net.mean(keep=True)
        self.neuron(D, norm=pick(None, 1.0))
        if kind == "sum":
            self.sum(one)
        elif kind == "concat":
            net.concat(one, out)
        else:
            net.gate(one, most=float(D) if kind == "silence" else 0)
            net.shape = shape
        self.same(self.draw(st.integers(1, 3)), D)
        if kind in ("gate", "sum") and self.flip(3):
            self.neuron(D)
            self.same(net.shape[0], D)
            self.maximum()
            self.same(self.draw(st.integers(1, 3)), D)

    def identity(self, out: int, D: int) -> None:
        """Spikes, or a sum of them, are added to the potential of a layer that reads them."""
        one = self.net.x
        self.same(out, D)
        if self.flip(3):
            self.neuron(D)
            self.net.add(one)
            one = self.net.x
            self.same(out, D)
        self.net.add(one)

    def sum(self, one: str) -> None:
        """A stream of spikes, of two populations or one of them twice."""
        self.net.add(one)
        if self.flip(3):
            self.net.add(one)

    def maximum(self) -> None:
        """Of potentials: neurons read it, and a potential that it is added to."""
        net = self.net
        if not self.spatial or min(net.shape[1:]) < 2:
            self.neuron(3)
            return
        net.pool("MaxPool", 2, self.pick(1, 2), self.pick(0, 1))
        pooled = net.x
        self.neuron(2)
        self.same(net.shape[0], 2)
        net.add(pooled)
        self.neuron(3)

    def same(self, out: int, D: float) -> None:
        """A layer that keeps height and width, perhaps with a batch norm."""
        if self.spatial:
            kernel = self.pick(1, 3)
            self.net.conv(out, kernel, pads=kernel // 2, bias=self.flip(), D=D)
        else:
            self.net.linear(out, self.flip(), D=D)
        if self.flip(3):
            self.net.batch_norm()

    def convolution(self, D: int) -> None:
        net, pick = self.net, self.pick
        channels, *size = net.shape
        group = pick(*(g for g in {1, channels} if channels % g == 0))
        out = group * self.draw(st.integers(1, 3)) if group == 1 else group * pick(1, 2)
        pads = [pick(0, 1, 1), pick(0, 1), pick(0, 1, 1), pick(0, 1)]
        kernel = [pick(*(k for k in (1, 2, 3) if k <= n + pads[i] + pads[i + 2])) for i, n in
                  enumerate(size)]  # fmt: skip
        stride = [pick(1, 2), pick(1, 2)]
        if self.flip(6):
            net.conv(self.draw(st.integers(1, 3)), 1, bias=pick(True, False), D=D)  # chain
            group, out = 1, self.draw(st.integers(1, 3))
        net.conv(out, kernel, stride, pads, group, bias=pick(True, False), D=D)
        if self.flip(6):
            net.conv(self.draw(st.integers(1, 3)), 1, bias=pick(True, False), D=D)
        self.scales()

    def dense(self, D: int) -> None:
        net = self.net
        if self.spatial:
            net.flatten()
        for _ in range(self.pick(1, 1, 2)):
            net.linear(self.draw(st.integers(1, 6)), self.pick(True, False), self.flip(3), D)
        self.scales()

    def scales(self) -> None:
        """Batch norm, or scale and shift, after a layer."""
        if self.flip(3):
            self.net.batch_norm()
        elif self.flip(4):
            values = self.net.rng.uniform(0.5, 1.5, self.net.shape[0])
            self.net.affine("Mul", values, per_channel=True).affine("Add", 0.25)

    def pool_of_potential(self) -> None:
        """A pool and, where it averages, perhaps scales after it."""
        if self.pool() not in ("MaxPool", "") and self.flip(3):
            self.scales()

    def pool(self) -> str:
        """Which pool there is now, if the map is large enough for one."""
        net = self.net
        if min(net.shape[1:]) < 2:
            return ""
        kind = str(self.pick("MaxPool", "AveragePool", "mean"))
        if kind == "mean":
            net.mean(keep=self.flip())
        else:
            net.pool(kind, 2, self.pick(1, 2), self.pick(0, 1))
        return kind

    def head(self) -> None:
        """A linear readout, or the spikes themselves."""
        if self.flip(4):
            return
        if self.spatial:
            self.net.flatten() if self.flip() else self.net.mean()
        self.net.linear(self.draw(st.integers(1, 4)))
