from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snncc.ir.graphs import to_proto
from snncc.ir.ops import DOMAIN, OPSET, VERSION
from snncc.ir.oracle import session

Array = np.ndarray
RNG = st.integers(0, 2**16).map(np.random.default_rng)
PATCHES = st.tuples(st.integers(1, 3), st.integers(1, 3))


def run(kind: str, *arrays: Array, **attributes: Any) -> Array:
    """What an operator of one node makes of arrays."""
    kinds = [ir.TensorType(ir.DataType.from_numpy(a.dtype)) for a in arrays]
    inputs = [
        ir.Value(name=f"i{i}", shape=ir.Shape(a.shape), type=kind)
        for i, (a, kind) in enumerate(zip(arrays, kinds, strict=True))
    ]
    node = ir.Node(DOMAIN, kind, inputs, ir.convenience.convert_attributes(attributes))
    node.outputs[0].name = "out"
    node.outputs[0].type = inputs[0].type
    graph = ir.Graph(inputs, node.outputs, nodes=[node], opset_imports={"": OPSET, DOMAIN: VERSION})
    graph.name = "one"
    proto = to_proto(ir.Model(graph, ir_version=10))
    return np.asarray(session(proto, 1).run(None, dict(zip(["i0", "i1"], arrays, strict=False)))[0])


def covered(mask: Array, height: int, width: int) -> Array:
    """The reference: (y, x) lies in patch (y * h // height, x * w // width)."""
    h, w = mask.shape[2:]
    rows, columns = np.arange(height) * h // height, np.arange(width) * w // width
    return np.asarray(mask[:, :, rows][:, :, :, columns])


@settings(max_examples=25)
@given(RNG, PATCHES, PATCHES)
def test_a_masked_potential_is_zero_in_masked_patches_and_itself_elsewhere(
    rng: np.random.Generator, patches: tuple[int, int], side: tuple[int, int]
) -> None:
    shape = (2, 3, patches[0] * side[0], patches[1] * side[1])
    v = rng.integers(-(2**61), 2**61, shape)  # beyond what floats hold
    mask = rng.integers(0, 2, (2, 1, *patches)).astype(np.uint8)
    found = run("MaskPotential", v, mask)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, np.where(covered(mask, *shape[2:]), v, 0))


@settings(max_examples=25)
@given(RNG, PATCHES, PATCHES)
def test_the_mask_of_a_source_is_where_its_last_channel_begins_with_zero(
    rng: np.random.Generator, patches: tuple[int, int], side: tuple[int, int]
) -> None:
    shape = (2, 2, patches[0] * side[0], patches[1] * side[1])
    q = (rng.integers(1, 256, shape) * (rng.random(shape) < 0.5)).astype(np.uint8)
    found = run("SourceMask", q, patches=list(patches))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, q[:, -1:, :: side[0], :: side[1]] == 0)


@pytest.mark.parametrize("patches", [(1, 1), (2, 3), (4, 6)])
def test_masks_of_any_size_cover_the_same_plane(patches: tuple[int, int]) -> None:
    x = np.ones((1, 2, 4, 6), np.float32)
    mask = (np.arange(prod(patches)) % 2 == 0).reshape(1, 1, *patches)
    found = run("PatchMask", x, mask.astype(np.float32))
    np.testing.assert_array_equal(found, np.broadcast_to(covered(mask, 4, 6), x.shape))
