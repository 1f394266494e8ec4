"""Random networks of fixed-point numbers: weights and biases k / 2^m meet ties all the time."""

from __future__ import annotations

from math import prod

import numpy as np
from float_networks import Net
from hypothesis import strategies as st

__all__ = ["FixedPoint", "fixed_point_networks"]


class FixedPoint(Net):
    """A network whose weights are integers / 2^m, m drawn for each layer.

    Args:
        shape: Per sample.
        seed: Of all numbers.
        top: Largest integer of a weight.
        rms: Typical size of the input's values.
    """

    def __init__(self, shape: tuple[int, ...], seed: int, top: int, rms: float) -> None:
        super().__init__(shape, seed, rms=rms)
        self.top = top

    def weight(self, shape: tuple[int, ...], D: float) -> np.ndarray:
        """Integers of a size that drives neurons of D levels, divided by a power of two."""
        size = D / 2 / (self.rms * np.sqrt(prod(shape[1:])))
        self.digits = max(0, int(np.ceil(np.log2(self.top / 2 / size))))
        k = self.rng.normal(0.1 * size, size, shape) * 2.0**self.digits
        return np.clip(np.rint(k), -self.top, self.top) / 2.0**self.digits

    def bias(self, size: int, D: float) -> np.ndarray:
        """Of a digit more or less than the weights."""
        digits = max(self.digits + int(self.rng.integers(-2, 2)), 1)
        return np.rint(super().bias(size, D) * 2.0**digits) / 2.0**digits


@st.composite
def fixed_point_networks(
    draw: st.DrawFn, top: int, rms: float, norms: tuple[float, ...]
) -> FixedPoint:
    """Chains with pools and residual streams, both rounding rules."""
    size = draw(st.integers(4, 6))
    net = FixedPoint((draw(st.integers(1, 2)), size, size), draw(st.integers(0, 2**16)), top, rms)
    author = _Author(draw, net, norms)
    for _ in range(draw(st.integers(1, 3))):
        author.layer()
    net.mean() if draw(st.integers(0, 2)) == 2 else net.flatten()
    net.linear(3)
    return net


class _Author:
    """Writes a network layer by layer, as hypothesis decides."""

    def __init__(self, draw: st.DrawFn, net: FixedPoint, norms: tuple[float, ...]) -> None:
        self.draw, self.net, self.norms = draw, net, norms

    def fire(self, D: int) -> None:
        """A neuron of either rule."""
        norm = self.draw(st.sampled_from(self.norms))
        self.net.fire(D, norm, self.draw(st.sampled_from(["half-even", "half-up"])))

    def conv(self, out: int, D: int) -> None:
        """A convolution, perhaps grouped."""
        ins = self.net.shape[0]
        group = self.draw(st.sampled_from([1, 1, ins])) if out % ins == 0 else 1
        self.net.conv(out, 3, pads=1, group=group, bias=self.draw(st.booleans()), D=D)

    def layer(self) -> None:
        """A convolution, perhaps a stream or a pool, and its neuron; perhaps a pool after that."""
        net, D, kind = self.net, self.draw(st.sampled_from([1, 2, 4, 15])), self.draw(_KINDS)
        self.conv(self.draw(st.integers(1, 4)), D)
        if kind == "stream":
            self.stream(D)
        if kind == "pool before" and min(net.shape[1:]) >= 2:
            net.pool("AveragePool", 2, 1)
        self.fire(D)
        if kind == "pool after" and min(net.shape[1:]) >= 3:
            pool = self.draw(st.sampled_from(["AveragePool", "MaxPool"]))
            net.pool(pool, self.draw(st.integers(2, 3)), 1)
            if self.draw(st.booleans()):
                self.fire(3)

    def stream(self, D: int) -> None:
        """Two or three layers that write into one potential."""
        for _ in range(self.draw(st.integers(1, 2))):
            potential, out = self.net.x, self.net.shape[0]
            self.fire(D)
            self.conv(out, D)
            self.net.add(potential)


_KINDS = st.sampled_from(["plain", "stream", "pool before", "pool after"])
