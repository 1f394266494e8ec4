"""Networks of seeded integer weights whose activations have a chosen density.

Every layer is calibrated on samples as it is added. Trained networks are the model (the examples
of this repository, 8 bits): their potentials are centred per channel, as a batch norm does, with a
standard deviation of about one spike, and channels differ a little in how often they fire.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from snncc.backends.clocked.engine import ClockedEngine
from snncc.passes.integers.levels import levels
from snncc.passes.integers.shared_grids import largest_weight, slices
from snncc.program import Accumulator, Neuron, Node, Pool, Program, Projection, Readout, Source
from snncc.program.bounds import bounded, emitted_payload

__all__ = ["Builder", "Network"]

Array = npt.NDArray[Any]

#: Threshold over the standard deviation of the potential.
_THRESHOLD = 0.7
#: Standard deviation of a channel's own bias over the threshold.
_SPREAD = 0.2


@dataclass(frozen=True)
class Network:
    """A Program and what it is run on.

    Attributes:
        title: For people.
        program: Valid.
        inputs: uint8 (samples, *shape); none of them was used to calibrate it.
    """

    title: str
    program: Program
    inputs: Array


class Builder:
    """Appends layers to a chain.

    Args:
        samples: What the layers are calibrated on: integers 0..payload, uint8 (N, *shape).
        payload: Largest value of the input.
        D: Ticks of a burst.
        bits: Of the weights.
        seed: Of weights and biases.
    """

    def __init__(self, samples: Array, payload: int, D: int, bits: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.D, self.bits = D, bits
        self.nodes: list[Node] = [Source("x", samples.shape[1:], payload)]
        self.emitted = samples  # by the last node

    @property
    def last(self) -> Node:
        """What the next layer reads."""
        return self.nodes[-1]

    def conv(self, outputs: int, kernel: int, groups: int = 1) -> Builder:
        """A padded convolution of stride 1, without a neuron yet."""
        channels, h, w = self.last.shape
        weights = self._weights((outputs, channels // groups, kernel, kernel))
        pads = (kernel // 2,) * 4
        reach = emitted_payload(self.last)
        p = Projection(self.last.name, "conv", weights, reach, pads=pads, groups=groups)
        return self._accumulate((outputs, h, w), p)

    def linear(self, outputs: int) -> Builder:
        """A fully connected layer, without a neuron."""
        weights = self._weights((outputs, int(np.prod(self.last.shape))))
        p = Projection(self.last.name, "linear", weights, emitted_payload(self.last))
        return self._accumulate((outputs,), p)

    def fire(self, density: float, pool: bool = False) -> Builder:
        """A population; ``density`` of what the next layer reads from it is not zero.

        Args:
            density: Fraction, on the calibration samples.
            pool: A 2x2 max-pool follows it.
        """
        accumulator = self.last
        assert isinstance(accumulator, Accumulator)
        v = self.emitted
        bias, theta = self._centred(v)
        table = levels([Fraction(theta)], self.D, "half-even")
        v = v + bias.reshape(-1, *(1,) * (v.ndim - 2))
        shift = int(table[0, 0]) - int(np.quantile(_pooled(v) if pool else v, 1 - density))
        self.nodes[-1] = self._bounded(replace(accumulator, bias=bias + shift))
        counts = (v[..., np.newaxis] + shift >= table[0]).sum(-1, dtype=np.uint8)
        depth = sum(isinstance(n, Neuron) for n in self.nodes)
        self._add(Neuron(f"fire{depth + 1}", v.shape[1:], accumulator.name, table, depth), counts)
        return self._pool() if pool else self

    def program(self, name: str) -> Program:
        """The finished network; its result is what the last node emits."""
        readout = Readout("y", self.last.shape, self.last.name, 1.0)
        program = Program(name, (*self.nodes, readout), ticks=self.D)
        program.validate()
        return program

    def _add(self, node: Node, emitted: Array) -> None:
        self.nodes.append(node)
        self.emitted = emitted

    def _weights(self, shape: tuple[int, ...]) -> tuple[Array, ...]:
        top = largest_weight(self.bits)
        drawn = np.rint(self.rng.normal(0, top / 4, shape)).astype(np.int64)
        return tuple(slices(np.clip(drawn, -top, top), self.bits))

    def _accumulate(self, shape: tuple[int, ...], p: Projection) -> Builder:
        name = f"layer{1 + sum(isinstance(n, Accumulator) for n in self.nodes)}"
        node = self._bounded(Accumulator(name, shape, (p,), np.zeros(shape[0], np.int64), 0, 0))
        source = Source(self.last.name, self.last.shape, emitted_payload(self.last))
        alone = Program("layer", (source, node, Readout("v", shape, name, 1.0)))
        self._add(node, ClockedEngine(alone).run(self.emitted).readouts["v"][0])
        return self

    def _bounded(self, node: Accumulator) -> Accumulator:
        return bounded(node, {n.name: n for n in self.nodes})

    def _centred(self, v: Array) -> tuple[Array, int]:
        """Biases (C,) that centre potentials (N, C, ...), and the odd threshold that fits them."""
        axes = (0, *range(2, v.ndim))
        mean = v.mean(axes, keepdims=True)
        theta = max(1, int(_THRESHOLD * (v - mean).std())) | 1
        own = self.rng.normal(0, _SPREAD * theta, v.shape[1])
        return np.rint(own - mean.reshape(-1)).astype(np.int64), theta

    def _pool(self) -> Builder:
        channels, h, w = self.last.shape
        name = f"pool{1 + sum(isinstance(n, Pool) for n in self.nodes)}"
        shape = (channels, h // 2, w // 2)
        pool = Pool(name, shape, self.last.name, "max", (2, 2), (2, 2), (0, 0, 0, 0), self.D)
        self._add(pool, _pooled(self.emitted))
        return self


def _pooled(v: Array) -> Array:
    """2x2 maxima of (N, C, H, W), H and W even."""
    n, c, h, w = v.shape
    return np.asarray(v.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5)))
