"""Layers that read potentials, with no neuron between: the integers that they are handed.

A potential is integers on the grid of the layers that made it. The next layer multiplies these with
weights of its own, which are divided by what 1 is on that grid, channel by channel, before they
round; the product of both grids is the grid of what it makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import hypot, sqrt
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.exact import Exact
from snncc.ir.graphs import static_shape
from snncc.passes.integers.grid import Grid
from snncc.passes.integers.products import largest_input
from snncc.passes.reading import Affine, Linear, absorb_affine_before, holds_counts, is_branch_sum
from snncc.program.bounds import DIGIT

__all__ = ["PLACES", "digits_of", "potential_grid", "reading", "reads_potential"]


class Planned(Protocol):
    """A layer in integers, as far as its potential goes."""

    @property
    def linear(self) -> Linear:
        """The layer."""
        ...

    @property
    def weight(self) -> npt.NDArray[np.int64]:
        """Its weights."""
        ...

    @property
    def bias(self) -> npt.NDArray[np.int64]:
        """Its bias, in units of the potential."""
        ...

    @property
    def shift(self) -> Any:
        """Weights count 2**shift times."""
        ...

    @property
    def grid(self) -> Grid:
        """Of its potential, but for how far that reaches."""
        ...


#: Potentials have 64 bits: what counts 256^8 times is nothing in them.
PLACES = 8


def digits_of(payload: int) -> int:
    """How many digits of base 256 hold every integer up to that, of either sign."""
    count, most = 1, DIGIT
    while most < payload:
        count, most = count + 1, most * 256 + DIGIT
    return count


def reads_potential(linear: Linear) -> bool:
    """Whether a layer of float stages reads what layers made, with no neuron between."""
    return not holds_counts(linear.x)


def potential_grid(layer: Planned, payload: int) -> Grid:
    """The grid of a layer's potential, and how far that reaches.

    Args:
        layer: In integers.
        payload: The largest that it reads.
    """
    moved = (np.abs(layer.weight) << layer.shift).reshape(len(layer.weight), -1)
    most = payload * int(moved.sum(1).max(initial=0)) + int(np.abs(layer.bias).max(initial=0))
    # Inputs that know nothing of each other add up to that.
    spread = sqrt((moved.astype(np.float64) ** 2).sum() / max(len(moved), 1))
    read = layer.linear.usual or payload / 2
    return Grid(layer.grid.thresholds, layer.grid.shifts, most, read * spread)


def reading(linear: Linear, planned: Mapping[ir.Value, Planned], drop: int = 0) -> Linear:
    """The layer with weights for the integers that it reads, if these are of a potential.

    Args:
        linear: Of stage ``integer``.
        planned: All layers that are in what it reads.
        drop: Lowest bits that it does not read.
    """
    size = static_shape(linear.x)
    if not reads_potential(linear) or size is None:
        return linear
    grid = _grid_of(linear.x, planned).without(drop)
    shares = Exact.of_fractions([1 / t for t in grid.thresholds]).spread(size[0])
    whole = absorb_affine_before(linear, Affine(shares, Exact(np.zeros(1))), size)
    bits = max(int(t).bit_length() for t in grid.thresholds)
    payload = max(grid.payload, 1)
    return replace(whole, payload=payload, steps_read=bits, usual=grid.usual, drop=drop)


def _grid_of(value: ir.Value, planned: Mapping[ir.Value, Planned]) -> Grid:
    """The grid of a potential that layers in integers are added up to."""
    grids: dict[ir.Value, Grid] = {}
    pending = [value]
    while pending:  # thousands may be added up: this is no recursion
        one = pending[-1]
        missing = [x for x in _parts(one, planned) if x not in grids]
        if one not in grids and not missing:
            grids[one] = _joined(one, planned, grids)
        if not missing:
            pending.pop()
        pending += missing
    return grids[value]


def _parts(value: ir.Value, planned: Mapping[ir.Value, Planned]) -> list[ir.Value]:
    """What a potential that is no layer's is made of."""
    node = value.producer()
    if value in planned or node is None:
        return []
    read = node.inputs if is_branch_sum(node) else node.inputs[:1]
    return [x for x in read if x is not None]


def _joined(
    value: ir.Value, planned: Mapping[ir.Value, Planned], grids: Mapping[ir.Value, Grid]
) -> Grid:
    if value in planned:
        layer = planned[value]
        return potential_grid(layer, largest_input(layer.linear))
    node, parts = value.producer(), [grids[x] for x in _parts(value, planned)]
    assert node is not None
    if is_branch_sum(node):
        usual = hypot(*(part.usual for part in parts))
        return replace(parts[0], payload=sum(part.payload for part in parts), usual=usual)
    return parts[0].after(node)
