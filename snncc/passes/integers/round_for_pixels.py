"""Rounding of the layers that read the input, without data: neighbouring pixels are much alike.

Such a layer reads integers up to 255, all positive, so errors of its weights that add up do most of
the harm quantisation does. Rounded with feedback they cancel over a neighbourhood instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.graphs import static_shape
from snncc.ir.ops import traits
from snncc.ir.traits import Numbers
from snncc.passes.integers.feedback import LARGEST, round_with_feedback
from snncc.passes.integers.shared_grids import QuantisedLayer, largest_weight
from snncc.passes.reading import Linear

__all__ = ["round_for_pixels"]

#: Correlation of pixels at distance 1; it falls with each further step. Their mean is as large as
#: their deviation from it.
_ALIKE = 0.8


def round_for_pixels(
    planned: Mapping[ir.Value, QuantisedLayer],
) -> dict[ir.Value, QuantisedLayer]:
    """The layers on the same grids, those on the input with other weights."""
    return {out: _rounded(layer) for out, layer in planned.items()}


def _rounded(layer: QuantisedLayer) -> QuantisedLayer:
    channels, *size = _window(layer.linear)
    one_step = isinstance(layer.shift, int)  # errors of other steps cannot be made up for
    rounds = one_step and not layer.kept.all()
    if prod(size) > LARGEST or not _is_input(layer.linear.x) or not rounds:
        return layer
    exact, products = layer.exact_weight(), _products(layer.linear, *size)
    rows = exact.reshape(len(exact), channels, -1)
    limit = largest_weight(layer.bits)
    found = [round_with_feedback(rows[:, c], products, limit) for c in range(channels)]
    weight = np.stack(found, axis=1).reshape(exact.shape).astype(np.int64)
    return replace(layer, weight=np.where(layer.rows(), layer.weight, weight))


def _is_input(value: ir.Value) -> bool:
    """Whether the value is the input's integers, perhaps in another shape or repeated."""
    node = value.producer()
    if node is None or traits(node).emits is Numbers.SOURCE:
        return True
    x, asked = node.inputs[0], traits(node)
    is_same = asked.is_view and (asked.regroups or asked.keeps_shape)  # films are no images
    return is_same and x is not None and _is_input(x)


def _window(linear: Linear) -> tuple[int, ...]:
    """Channels, rows and columns of what an output reads."""
    return linear.weights.values.shape[1:] if linear.kind == "conv" else _image(linear.x)


def _products(linear: Linear, rows: int, columns: int) -> npt.NDArray[np.float64]:
    """Mean products of any two inputs of one channel, in units of the variance of one."""
    row, column = np.indices((rows, columns)).reshape(2, -1)
    places = (row * linear.dilations[0], column * linear.dilations[1])
    apart = sum(np.abs(np.subtract.outer(place, place)) for place in places)
    return np.asarray(1.0 + _ALIKE**apart)


def _image(value: ir.Value) -> tuple[int, ...]:
    """(C, H, W) of what is read flattened; inputs that never were an image are channels."""
    node, shape = value.producer(), static_shape(value) or ()
    if node is not None and len(shape) != 3 and node.inputs[0] is not None:
        return _image(node.inputs[0])
    return (*shape, 1, 1)[:3]
