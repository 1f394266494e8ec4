"""QONNX's quantisers in ONNX Runtime do what their definition says, in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from quantised_chains import QONNX
from quantised_networks import parsed

from snncc.frontends.onnx_file import import_onnx, inlined
from snncc.frontends.qonnx_functions import with_quantisers
from snncc.frontends.trained_file import TrainedFile
from snncc.ir.oracle import evaluate, session

Array = np.ndarray
F = np.float32
MODES: dict[str, Callable[[Array], Array]] = {
    "ROUND": np.round,
    "half_even": np.round,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda x: np.sign(x) * np.ceil(np.abs(x)),
    "DOWN": np.fix,
    "HALF_UP": lambda x: np.sign(x) * np.floor(np.abs(x) + 0.5),
    "HALF_DOWN": lambda x: np.sign(x) * np.ceil(np.abs(x) - 0.5),
}
#: With ties of all kinds, beyond all ends.
X = (np.arange(96, dtype=F) - 48).reshape(3, 2, 4, 4) / 8


def run(kind: str, x: Array, **constants: Array) -> Array:
    names = ", ".join(constants)
    name, _, settings = kind.partition(" ")
    body = f"y = {QONNX}.{name} {settings} (x, {names})"
    proto = parsed(body, "float[N,2,4,4] y", **constants)
    return np.asarray(session(inlined(with_quantisers(proto))).run(None, {"x": x})[0])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("narrow", [0, 1])
@pytest.mark.parametrize("bits", [1.0, 2.0, 2.5, 4.0])
def test_a_quantiser_clamps_rounds_and_moves_as_defined(mode, signed, narrow, bits):
    scale, zero = F(0.5), F(0.0 if signed else 1.0)
    kind = (
        f'Quant <signed: int = {signed}, narrow: int = {narrow}, rounding_mode: string = "{mode}">'
    )
    found = run(kind, X, s=scale, z=zero, b=F(bits))
    steps = X / scale + zero
    if signed and bits == 1:
        whole = np.where(steps >= 0, 1, -1)
    else:
        low = -(2 ** (bits - 1)) + narrow if signed else 0
        high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
        whole = MODES[mode](np.clip(steps, low, high).astype(F))
    assert (found == (whole - zero) * scale).all()


def test_a_bipolar_quantiser_has_two_values():
    found = run("BipolarQuant", X, s=F(0.25))
    assert (found == np.where(X >= 0, 0.25, -0.25)).all()


@pytest.mark.parametrize("mode", MODES)
def test_weights_on_their_grid_are_the_same_for_import_and_the_runtime(mode, tmp_path):
    """A float32 weight of k steps lies beside k in float64: FLOOR and others would go one off."""
    scale = F(0.0437)
    k = np.random.default_rng(0).integers(-127, 128, (3, 32))
    settings = f'signed: int = 1, narrow: int = 0, rounding_mode: string = "{mode}"'
    body = f"""
        xq = QuantizeLinear (x, s, zx)  xd = DequantizeLinear (xq, s, zx)
        f = Flatten (xd)
        wq = {QONNX}.Quant <{settings}> (w, s, z, b)
        y = Gemm <transB: int = 1> (f, wq)
    """
    constants = {"s": scale, "zx": np.uint8(0), "w": (k * scale).astype(F), "z": F(0), "b": F(8)}
    onnx.save(parsed(body, **constants), tmp_path / "net.onnx")
    x = np.random.default_rng(1).integers(0, 256, (8, 2, 4, 4)).astype(F) * scale
    trained = TrainedFile(tmp_path / "net.onnx")
    single = trained.values({"x": x}, ["@y"])["@y"]
    wide = trained.wide_values({"x": x.astype(np.float64)}, ["@y"])["@y"]
    imported = evaluate(import_onnx(tmp_path / "net.onnx"), {"x": x})
    np.testing.assert_allclose(wide, single, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(next(iter(imported.values())), single, rtol=1e-5, atol=1e-4)
