"""Kinds of neurons in float stages: where rounding may decide what one fires.

A kind is an operator that fires (``snncc.ir.traits``) and its rule here; what its integers are is
in ``snncc.passes.integers.neurons``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.carried import carry_of, near_border
from snncc.ir.graphs import attribute
from snncc.ir.ops import traits

__all__ = ["BORDERS", "Borders", "near_a_border", "ties"]

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Borders:
    """Where a neuron of one kind goes from one count to the next.

    Attributes:
        near: Of a node, its drive, what it fired for that and a margin relative to 1 + |drive|:
            where the drive is so near a border that rounding may decide.
        ties: Of a node, its drive and its counts, if they are known: drives on a border, exactly.
    """

    near: Callable[[ir.Node, Array, Array, float], Mask]
    ties: Callable[[ir.Node, Array, Array | None], int]


def near_a_border(node: ir.Node, u: Array, fired: Array, margin: float) -> Mask:
    """Where the drive of a neuron, or of a plain rounding, lies within the margin of a border.

    Args:
        node: What rounds.
        u: Its input.
        fired: What it made of that, of the same shape.
        margin: Relative to 1 + |u|.
    """
    kind = BORDERS.get(node.op_type)
    return _near(node, u, fired, margin) if kind is None else kind.near(node, u, fired, margin)


def ties(node: ir.Node, u: Array, counts: Array | None) -> int:
    """Drives of a neuron that lie on a border, exactly."""
    return BORDERS[node.op_type].ties(node, u, counts)


def _near(node: ir.Node, u: Array, fired: Array, margin: float) -> Mask:
    border = traits(node).border or 0.0
    nearest = np.rint(u - border) + border
    return np.asarray(np.abs(u - nearest) <= margin * (1 + np.abs(u)))


def _near_levels(node: ir.Node, u: Array, fired: Array, margin: float) -> Mask:
    """As ``_near``; what rounds down does so at whole numbers."""
    border = _border(node)
    nearest = np.rint(u - border) + border
    return np.asarray(np.abs(u - nearest) <= margin * (1 + np.abs(u)))


def _ties(node: ir.Node, u: Array, counts: Array | None) -> int:
    low = attribute(node, "low", 0)
    inside = u[(u > low) & (u < low + attribute(node, "D"))]
    return int((inside - np.floor(inside) == _border(node)).sum())


def _border(node: ir.Node) -> float:
    is_down = attribute(node, "rounding", "") == "down"
    return 0.0 if is_down else traits(node).border or 0.0


def _near_carried(node: ir.Node, u: Array, fired: Array, margin: float) -> Mask:
    return near_border(u, fired, carry_of(node), margin)


def _ties_carried(node: ir.Node, u: Array, counts: Array | None) -> int:
    if counts is None:
        return 0
    return int(near_border(u, counts, carry_of(node), 0.0, later=False).sum())


#: By operator.
BORDERS: Mapping[str, Borders] = {
    "IntegerFire": Borders(_near_levels, _ties),
    "StatefulFire": Borders(_near_carried, _ties_carried),
}
