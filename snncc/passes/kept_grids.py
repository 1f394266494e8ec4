"""Weights that lie on a grid already, as those of quantised files do: their integers are kept.

A row of weights w = g * k with whole k up to 127 needs no rounding: its integers are k, and the
potential of one spike is 1 / g, a fraction that ends exactly in the levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from snncc.passes.linear import Linear

__all__ = ["Kept", "common_step", "kept_grid"]

#: Float32 rounding of a weight or bias behind some folding, relative.
_ROUNDING = 2.0**-20
#: Largest distance of a bias from whole steps that passes for rounding.
_NEAR = 0.05


@dataclass(frozen=True)
class Kept:
    """A layer on its own grid: int64 weight and bias, and per channel what they mean.

    v / threshold + shift is the drive in spikes, as in ``Grid``.
    """

    weight: npt.NDArray[np.int64]
    bias: npt.NDArray[np.int64]
    thresholds: tuple[Fraction, ...]
    shifts: tuple[Fraction, ...]


def kept_grid(linear: Linear, largest: int, is_result: bool) -> Kept | None:
    """The layer's own integers, or None where it has none.

    Args:
        linear: Behind all folding.
        largest: Largest integer that the weight's bits hold; grids beyond 127 are not sought.
        is_result: One scale for all channels and no shift.
    """
    channels = len(linear.weight)
    rows = linear.weight.reshape(1 if is_result else channels, -1)
    found = [_step(row, min(largest, 127)) for row in rows]
    steps = [step for step in found if step is not None]
    if len(steps) < len(found):
        return None
    thresholds = [_simple(1 / Fraction(step)) for step in steps] * (channels // len(steps))
    theta = np.array([float(t) for t in thresholds])
    weight = np.rint(linear.weight * _column(theta, linear.weight))
    moved = _whole(linear.bias * _column(theta, linear.bias))
    if moved is None or (is_result and moved[1].any()):
        return None
    bias, rest = moved
    shifts = tuple(Fraction(r) / t for r, t in zip(rest.tolist(), thresholds, strict=True))
    return Kept(weight.astype(np.int64), bias, tuple(thresholds), shifts)


def _column(values: npt.NDArray[Any], like: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def _step(row: npt.NDArray[np.float64], largest: int) -> float | None:
    """The g of w = g * k, for the smallest integers k that serve."""
    top = np.abs(row).max(initial=0.0)
    if top == 0:
        return 1.0
    for most in range(1, largest + 1):
        k = np.rint(row * (most / top))
        if np.abs(row * (most / top) - k).max() <= most * _ROUNDING:
            return float((row @ k) / (k @ k))  # least squares: averages what float32 rounded
    return None


def _simple(theta: Fraction) -> Fraction:
    """The simple fraction next to theta, if it is one but for rounding."""
    near = theta.limit_denominator(16)
    return near if abs(near - theta) <= theta / 2**26 else theta


def _whole(
    bias: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]] | None:
    """Whole steps of a bias (C) or bias map (C, H, W), and a rest per channel; None: none fits."""
    flat = bias.reshape(len(bias), -1)
    rest = flat[:, 0] - np.rint(flat[:, 0])
    rest[np.abs(rest) <= np.minimum(np.abs(flat[:, 0]) * _ROUNDING + 1e-6, _NEAR)] = 0.0
    steps = np.rint(bias - _column(rest, bias))
    if np.abs(bias - _column(rest, bias) - steps).max(initial=0.0) > _NEAR:
        return None
    return steps.astype(np.int64), rest


def common_step(taps: npt.NDArray[np.float64], largest: int) -> Fraction:
    """The threshold at which positive weights are nearest to integers up to ``largest``.

    Branches of spikes that are added have one weight each, a ratio of two scales; the largest of
    them is exact.
    """
    k = np.arange(max(1, largest - 4095), largest + 1)
    theta = k / taps.max()
    found = np.rint(np.outer(theta, taps)) / theta[:, None]
    return Fraction(float(theta[np.abs(found - taps).max(axis=1).argmin()]))
