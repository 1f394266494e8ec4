"""Synapses between nodes: weights, how far their sums reach, and how many read an element."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from snncc.program.nodes.base import (
    ALL,
    MAX_ELEMENTS,
    SLICE_LIMIT,
    Array,
    Item,
    Node,
    Readers,
    Shape,
    Synapses,
    require,
)
from snncc.program.windows import pooled_size

__all__ = ["Projection", "check_window", "coarse", "weight_reach"]

#: Bits of a projection's weights, its shift included: what a spike adds must fit 64 bits.
_MAX_BITS = 62


@dataclass(frozen=True)
class Projection(Item):
    """Synapses from one emitting node into an accumulator.

    Attributes:
        source: Name of the emitting node.
        kind: ``conv``, ``linear`` (reads the source flattened in C order) or ``identity``.
        weights: int8 slices, least significant first: w = sum_p w_p * 256**p.
            conv (C_out, C_in/groups, kH, kW); linear (F_out, F_in); identity: none.
        payload: Largest absolute value that arrives per element and timestep (all ticks).
        strides, dilations: (h, w). pads: (top, left, bottom, right), zeros. groups: of a conv.
        shift: Of a conv or linear: what it brings counts 2**shift times, v += sum(w * a) << shift.
            Projections into one accumulator so share its grid, each with all bits of its weights.
        drop: Of an identity: lowest bits that do not arrive, v += (a + 2**(drop-1)) >> drop.
    """

    source: str
    kind: str
    weights: tuple[Array, ...] = ()
    payload: int = 1
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1
    shift: int = 0
    drop: int = 0

    readers: ClassVar[Readers] = {
        "source": ALL,
        "kind": ALL,
        "weights": ("conv", "linear"),
        "payload": ALL,
        "strides": ("conv",),
        "pads": ("conv",),
        "dilations": ("conv",),
        "groups": ("conv",),
        "shift": ("conv", "linear"),
        "drop": ("identity",),
    }
    variants: ClassVar[tuple[str, tuple[str, ...]]] = (
        "projection kind",
        ("conv", "linear", "identity"),
    )

    @property
    def variant(self) -> str:
        """Its kind: see Item."""
        return self.kind

    def total(self) -> Array:
        """What one spike adds to a potential: slices combined, shifted, int64."""
        parts = [w.astype(np.int64) << (8 * p + self.shift) for p, w in enumerate(self.weights)]
        return np.asarray(np.sum(parts, axis=0, dtype=np.int64))

    def weight_sums(self, channels: int) -> tuple[Array, Array]:
        """Per channel the sum of negative weights and that of positive ones; an identity's is 1.

        Python's integers: nothing wraps round.
        """
        if self.kind == "identity":
            return np.zeros(channels, dtype=object), np.ones(channels, dtype=object)
        rows = replace(self, shift=0).total().reshape(channels, -1)
        below, above = np.minimum(rows, 0).sum(1), np.maximum(rows, 0).sum(1)
        return below.astype(object) << self.shift, above.astype(object) << self.shift

    @property
    def fan_in(self) -> int:
        """Synapses of one neuron, borders not taken off."""
        return prod(self.weights[0].shape[1:]) if self.weights else 1

    def fan_out(self, source: Shape, target: Shape) -> Array:
        """Synapses that leave each element of the source, broadcastable to its shape.

        Args:
            source: Shape of what it reads.
            target: Shape of what it feeds.
        """
        if self.kind == "identity":
            return np.ones(1, dtype=np.int64)
        if self.kind == "linear":
            return np.full(1, target[0], dtype=np.int64)
        rows, columns = (self._read_along(axis, source, target).sum(axis=0) for axis in (0, 1))
        return (target[0] // self.groups) * np.outer(rows, columns)

    def synapses(self, source: Shape, target: Shape) -> Synapses:
        """Its work; arguments as ``fan_out``."""
        leaving = self.fan_out(source, target)
        if self.kind == "identity":
            return Synapses(self.source, self.kind, leaving, leaving, np.zeros_like(leaving), 0)
        return Synapses(
            source=self.source,
            kind=self.kind,
            leaving=leaving,
            weighted=self._weighted(source, target),
            products=leaving,
            padded=prod(target) * self.fan_in,
            weights=self.weights[0].size,
            weight_bytes=sum(w.nbytes for w in self.weights),
        )

    def _weighted(self, source: Shape, target: Shape) -> Array:
        """Synapses that leave each element of the source and have a weight other than 0."""
        is_there = np.any(np.stack(self.weights), axis=0).astype(np.int64)
        if self.kind == "linear":
            return np.asarray(is_there.sum(axis=0).reshape(source))
        out, per_group, *kernel = is_there.shape
        of_input = is_there.reshape(self.groups, out // self.groups, per_group, *kernel).sum(axis=1)
        rows, columns = (self._read_along(axis, source, target) for axis in (0, 1))
        by_row = np.tensordot(of_input.reshape(-1, *kernel), rows, axes=(1, 0))  # (C, kW, H)
        return np.asarray(np.tensordot(by_row, columns, axes=(1, 0)))

    def _read_along(self, axis: int, source: Shape, target: Shape) -> npt.NDArray[np.int64]:
        """Whether an output reads a coordinate of the source by a tap, (taps, size), on one axis.

        Different taps or outputs never read the same twice: an output is at one place of a tap.
        """
        taps, size = self.weights[0].shape[2 + axis], source[1 + axis]
        starts = np.arange(target[1 + axis]) * self.strides[axis] - self.pads[axis]
        read = starts + np.arange(taps)[:, np.newaxis] * self.dilations[axis]
        tap, output = np.nonzero((read >= 0) & (read < size))
        found = np.zeros((taps, size), dtype=np.int64)
        found[tap, read[tap, output]] = 1
        return found

    # -- faults --------------------------------------------------------------------------------

    def check(self, shape: Shape, source: Node) -> None:
        """Everything that has to hold besides fields of the right types.

        Args:
            shape: Of the accumulator that it feeds.
            source: What it reads.

        Raises:
            InvalidError: The first fault.
        """
        require(0 <= self.drop < _MAX_BITS, f"drop {self.drop} out of range")
        is_whole = source.is_potential  # what comes tick by tick would be rounded in each
        require(self.drop == 0 or is_whole, f"rounds '{self.source}', which is no potential")
        reach = coarse(source.reach, self.drop)
        require(
            self.payload >= reach,
            f"payload {self.payload} is below what '{self.source}' emits ({reach})",
        )
        for w in self.weights:
            ok = w.dtype == np.int8 and w.shape == self.weights[0].shape
            require(ok, "weight slices are not int8 of one shape")
        fits = self.shift + 8 * len(self.weights) <= _MAX_BITS
        require(self.shift >= 0 and fits, f"shift {self.shift} out of range")
        if self.kind == "identity":
            require(shape == source.shape, "identity changes the shape")
            return
        require(0 < len(self.weights) <= 3, "one to three weight slices are expected")
        made = self._conv_shape(source) if self.kind == "conv" else self._linear_shape(source)
        require(shape == made, f"'{self.source}' arrives as {made}, not {shape}")
        for w in () if source.is_potential else self.weights:  # of a potential engines make parts
            reach = self.payload * weight_reach(w)
            require(reach <= SLICE_LIMIT, f"a slice may reach {reach}, beyond 32 bits")

    def _conv_shape(self, source: Node) -> Shape:
        shape = source.shape
        groups, pads = self.groups, self.pads
        maps = len(shape) == 3 and self.weights[0].ndim == 4
        require(maps, "conv needs (C, H, W) and 4-d weights")
        out, per_group, kh, kw = self.weights[0].shape
        require(groups > 0 and out % groups == 0, f"groups {groups} does not divide {out}")
        require(per_group * groups == shape[0], f"weights expect {per_group * groups} channels")
        check_window(shape, self.strides, pads)
        require(min(self.dilations) > 0, f"dilations {self.dilations}")
        h = pooled_size(shape[1], kh, self.strides[0], pads[0] + pads[2], self.dilations[0])
        w = pooled_size(shape[2], kw, self.strides[1], pads[1] + pads[3], self.dilations[1])
        return (out, h, w)

    def _linear_shape(self, source: Node) -> Shape:
        require(self.weights[0].ndim == 2, "linear needs 2-d weights")
        out, features = self.weights[0].shape
        inputs = prod(source.shape)
        require(features == inputs, f"weights expect {features} inputs, not {inputs}")
        return (out,)


def coarse(value: Any, drop: int) -> Any:
    """An integer, or an array of int64, without its lowest ``drop`` bits; halves go up."""
    return (value + (1 << (drop - 1))) >> drop if drop else value


def weight_reach(weights: Array) -> int:
    """Largest sum of absolute weights over the outputs."""
    return int(np.abs(weights.astype(np.int64)).reshape(len(weights), -1).sum(1).max())


def check_window(shape: Shape, strides: tuple[int, ...], pads: tuple[int, ...]) -> None:
    """Strides and pads go with a map (C, H, W); raises InvalidError."""
    require(min(strides) > 0, f"strides {strides}")
    require(min(pads) >= 0, f"pads {pads}")
    height, width = shape[1] + pads[0] + pads[2], shape[2] + pads[1] + pads[3]
    require(shape[0] * height * width < MAX_ELEMENTS, f"pads {pads} are too large")
