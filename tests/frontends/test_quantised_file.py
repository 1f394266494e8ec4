"""Laws of reading quantised files: the standard spelling computes what the file says."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from quantised_networks import normal, parsed, run

from snncc.frontends.quantised_file import standardised

F = np.float32
QUANT = "qonnx.custom_op.general.Quant"
ROUNDINGS = {"ROUND": np.rint, "CEIL": np.ceil, "FLOOR": np.floor}


def expected(x, scale, zero, bits, signed, narrow, rounding):
    """Quant by its definition."""
    low = -(2 ** (bits - 1)) + narrow if signed else 0
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
    steps = ROUNDINGS[rounding](np.clip(x / scale + zero, low, high))
    return ((steps - zero) * scale).astype(F)


def quant(x, scale, zero, bits, signed, narrow, rounding):
    """A model of one Quant of the input or of the constant ``w``."""
    attributes = (
        f'signed: int = {signed}, narrow: int = {narrow}, rounding_mode: string = "{rounding}"'
    )
    body = f"y = {QUANT} <{attributes}> ({x}, s, z, b)"
    return parsed(body, "float[N,2,4,4] y", s=scale, z=F(zero), b=F(bits))


@pytest.mark.parametrize("scale", [F(0.3), np.array([0.3, 0.2], F).reshape(1, 2, 1, 1)])
@pytest.mark.parametrize(("bits", "zero"), [(2, 0), (4, 0), (8, 0), (8, 2), (10, 0), (4, 0.5)])
@pytest.mark.parametrize(("signed", "narrow"), [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("rounding", list(ROUNDINGS))
def test_quant_is_computed_by_its_definition(scale, bits, zero, signed, narrow, rounding):
    x = 2 * normal(4, 2, (2, 4, 4))
    if np.abs(x / scale - np.floor(x / scale) - 0.5).min() < 1e-6:
        raise AssertionError("the samples hold ties")
    settings = scale, zero, bits, signed, narrow, rounding
    model = standardised(quant("x", *settings))
    assert {n.domain for n in model.graph.node} == {""}
    assert np.abs(run(model, x) - expected(x, *settings)).max() < 1e-6


def test_quant_of_weights_is_a_constant():
    w = normal(1, 3, (2, 4, 4))
    settings = F(0.1), 0, 4, 1, 1, "ROUND"
    model = quant("w", *settings)
    model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    folded = standardised(model)
    assert [n.op_type for n in folded.graph.node] == []
    arrays = [onnx.numpy_helper.to_array(t) for t in folded.graph.initializer]
    assert any(np.array_equal(a, expected(w, *settings)) for a in arrays)


@pytest.mark.parametrize(
    ("dtype", "scale", "attributes"),
    [
        (np.int8, F(0.1), ""),
        (np.int8, np.array([0.1, 0.2], F), "<axis: int = 1>"),
        (ml_dtypes.int4, np.array([0.1, 0.2], F), "<axis: int = 1>"),
        (np.int32, F(0.001), ""),
        (
            np.int8,
            np.arange(1, 17, dtype=F).reshape(1, 2, 4, 2),
            "<axis: int = 3, block_size: int = 2>",
        ),
    ],
)
def test_dequantised_constants_are_what_the_runtime_makes_of_them(dtype, scale, attributes):
    w = np.random.default_rng(1).integers(-8, 8, (1, 2, 4, 4)).astype(dtype)
    body = f"d = DequantizeLinear {attributes} (w, s)  y = Add (x, d)"
    model, x = parsed(body, "float[N,2,4,4] y", w=w, s=scale), normal(2, 1, (2, 4, 4))
    folded = standardised(model)
    assert [n.op_type for n in folded.graph.node] == ["Add"]
    assert (run(folded, x) == run(model, x)).all()


@pytest.mark.parametrize("dtype", [ml_dtypes.uint4, ml_dtypes.int4])
def test_four_bits_compute_the_same_in_eight(dtype):
    body = "q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, s, z)"
    model = parsed(body, "float[N,2,4,4] y", s=F(0.2), z=np.asarray(3, dtype))
    wide, x = standardised(model), 2 * normal(8, 4, (2, 4, 4))
    assert [n.op_type for n in wide.graph.node] == ["QuantizeLinear", "Clip", "DequantizeLinear"]
    assert (run(wide, x) == run(model, x)).all()


def test_a_file_without_quantisers_is_left_alone():
    model = parsed("y = Relu (x)", "float[N,2,4,4] y")
    assert standardised(model) is model
