"""The input of a network that takes a patch mask: one array of integers holds image and mask.

Masked pixels are zero *after* normalisation: in raw pixels the mean, which is no integer. So the
source has twice the image's channels: its pixels, 0 where masked, and for each channel a plane that
holds 255 in masked patches and 0 elsewhere. x = scale * q + offset, masked, is

    scale * q + offset - offset / 255 * plane,

a constant and a weighted sum of pixels and planes: the first layer takes it up exactly, with the
weights and the bias map it has without a mask. Deeper layers read the mask from the planes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.errors import Fault, Option, UnsupportedModelError, Words
from snncc.ir.exact import Exact
from snncc.ir.graphs import Edit, is_op, label, provenance, remove_dead, static_shape
from snncc.ir.names import PIXELS, SOURCE
from snncc.passes.reading import Affine, Linear, absorb_affine_before, linear_behind, write_linear
from snncc.program import MASKED

__all__ = ["quantise_masked_input"]


def quantise_masked_input(model: ir.Model, masking: ir.Node, affine: Affine, made_by: str) -> None:
    """Put the uint8 source into the graph, in place of the image and its mask.

    Args:
        model: Takes both.
        masking: The PatchMask that alone reads the image.
        affine: x = scale * q + shift per channel of the image.
        made_by: Name of the pass.

    Raises:
        UnsupportedModelError: Something else than convolutions reads the masked image.
    """
    x, mask = masking.inputs
    size = static_shape(masking.outputs[0])
    if x is None or mask is None or size is None:
        raise UnsupportedModelError(f"'{masking.name}' has no static shape")
    layers = _first_layers(masking.outputs[0])
    pixels, active = _source(model, x, mask, made_by)
    for layer in layers:
        write_linear(replace(_on_planes(layer, affine, size), x=pixels), made_by)
    remove_dead(masking)
    ir.convenience.replace_all_uses_with(mask, active)
    model.graph.inputs[:] = [v for v in model.graph.inputs if v not in (x, mask)]


def _first_layers(image: ir.Value) -> list[Linear]:
    readers = [node for node, _ in image.uses()]
    layers = [linear_behind(node) for node in readers if is_op(node, "Conv")]
    faults = [
        Fault(
            "reads the masked image, which only convolutions can",
            label(node), node.op_type, provenance(node).module, provenance(node).source,
            Words("a convolution right after the input, or no ", Option("patch_mask")),
        )
        for node in readers
        if not is_op(node, "Conv")
    ]  # fmt: skip
    if faults or None in layers:
        raise UnsupportedModelError("the masked image cannot become uint8", faults)
    return [layer for layer in layers if layer is not None]


def _on_planes(linear: Linear, affine: Affine, size: tuple[int, ...]) -> Linear:
    """The layer with the normalisation inside, reading pixels and planes."""
    joined = absorb_affine_before(linear, affine, size)
    step = np.broadcast_to(affine.shift, size[:1]).reshape(-1, 1, 1) / -MASKED
    pixels, planes = (layer.dense() * _column(layer) for layer in (joined, linear))
    weights = Exact(np.concatenate([pixels, planes * step], axis=1))
    return replace(joined, weights=weights, group=1)


def _column(linear: Linear) -> npt.NDArray[np.float64]:
    """The unit of each row as it meets weights."""
    return np.array(linear.weights.row_units, dtype=np.float64).reshape(-1, 1, 1, 1)


def _source(
    model: ir.Model, x: ir.Value, mask: ir.Value, made_by: str
) -> tuple[ir.Value, ir.Value]:
    """Pixels and planes as floats, and the mask that is read from the planes."""
    channels, *plane = static_shape(x) or ()
    shape = ir.Shape([x.shape[0] if x.shape else None, 2 * channels, *plane])
    q = ir.Value(name=f"{x.name}{PIXELS}", shape=shape, type=ir.TensorType(ir.DataType.UINT8))
    model.graph.inputs.append(q)
    edit, patches = Edit(next(iter(model.graph)), made_by), list(static_shape(mask) or ())[1:]
    active = edit.own(
        "SourceMask", q, name=f"{mask.name}{PIXELS}", dtype=ir.DataType.UINT8, shape=mask.shape,
        attributes={"patches": patches},
    )  # fmt: skip
    to_float = {"to": ir.DataType.FLOAT.value}
    pixels = edit.op("Cast", q, name=f"{x.name}{SOURCE}", like=x, shape=shape, attributes=to_float)
    return pixels, edit.op("Cast", active, name=str(mask.name), like=mask, attributes=to_float)
