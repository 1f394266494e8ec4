"""Grid: what the integers of a membrane potential mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod, sqrt

import numpy as np
import onnx_ir as ir

from snncc.ir.graphs import constant, is_op, static_shape
from snncc.ir.ops import summed, traits
from snncc.passes.reading import Affine, read_affine
from snncc.program.nodes.projection import coarse

__all__ = ["Grid", "frozen_thresholds"]


@dataclass(frozen=True)
class Grid:
    """What an integer v means: v / threshold + shift, per channel (axis 1).

    Attributes:
        thresholds: Potential of one spike, positive, exact.
        shifts: Added, exact.
        payload: Largest abs(v).
        usual: What abs(v) usually is, about; 0: not known.
    """

    thresholds: tuple[Fraction, ...]
    shifts: tuple[Fraction, ...]
    payload: int
    usual: float = 0.0

    @staticmethod
    def counts(payload: int) -> Grid:
        """Spike counts: the integer is the value."""
        return Grid((Fraction(1),), (Fraction(0),), payload)

    def without(self, drop: int) -> Grid:
        """The grid of the same potential without its lowest bits."""
        if not drop:
            return self
        thresholds = tuple(t / 2**drop for t in self.thresholds)
        usual = self.usual / 2**drop
        return Grid(thresholds, self.shifts, coarse(self.payload, drop), usual)

    def after(self, node: ir.Node) -> Grid:
        """The grid of the same integers after a scale, shift, pool or reshape."""
        x, out = node.inputs[0], node.outputs[0]
        if (theta := frozen_thresholds(node)) is not None:
            old = _widened(self.thresholds, len(theta))
            shifts = (Fraction(0),) * len(theta)
            thresholds = tuple(o * t for o, t in zip(old, theta, strict=True))
            return replace(self, thresholds=thresholds, shifts=shifts)
        if (found := read_affine(node)) is not None:
            return self._mapped(found[1])
        if (n := summed(node)) > 1:
            shifts = tuple(s * n for s in self.shifts)
            return Grid(self.thresholds, shifts, self.payload * n, self.usual * sqrt(n))
        before, after = static_shape(x) if x is not None else None, static_shape(out)
        if not traits(node).regroups or before is None or after is None:
            return self
        if len(self.thresholds) == 1 or before[0] == after[0]:
            return self
        spread = prod(before[1:])
        thresholds, shifts = (_repeat(v, spread) for v in (self.thresholds, self.shifts))
        return replace(self, thresholds=thresholds, shifts=shifts)

    def _mapped(self, affine: Affine) -> Grid:
        size = max(len(self.thresholds), *(len(v.values) for v in (affine.scales, affine.shifts)))
        factors, offsets = (v.spread(size).fractions() for v in (affine.scales, affine.shifts))
        old = (_widened(self.thresholds, size), _widened(self.shifts, size))
        thresholds = tuple(t / f for t, f in zip(old[0], factors, strict=True))
        shifts = tuple(s * f + o for s, f, o in zip(old[1], factors, offsets, strict=True))
        return replace(self, thresholds=thresholds, shifts=shifts)


def _widened(values: tuple[Fraction, ...], size: int) -> tuple[Fraction, ...]:
    return values * size if len(values) == 1 else values


def _repeat(values: tuple[Fraction, ...], times: int) -> tuple[Fraction, ...]:
    return tuple(v for v in values for _ in range(times))


def frozen_thresholds(node: ir.Node | None) -> tuple[Fraction, ...] | None:
    """Potential of one spike per channel as an OnGrid node says it."""
    theta = constant(node.inputs[1]) if is_op(node, "OnGrid") and node is not None else None
    if theta is None:
        return None
    return tuple(Fraction(t) for t in theta.reshape(-1).astype(np.float64).tolist())
