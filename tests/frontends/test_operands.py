"""Operands that shape inference lets pass and ONNX Runtime refuses are the file's fault, named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from command_line import run_cli

from snncc.errors import BadInputError
from snncc.frontends.onnx_file import import_onnx
from snncc.ir.oracle import session

HEAD = '<ir_version: 10, opset_import: ["": 21]> g (float[N,2,4,4] x) => (float y)'


def model(body: str, **shapes: tuple[int, ...]) -> onnx.ModelProto:
    """The body after a Conv of 4 channels without a bias; constants of ones, lists of zeros."""
    proto = onnx.parser.parse_model(f"{HEAD} {{ {body} }}")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    for name, shape in shapes.items():
        kind = {"q": np.int8, "z": np.uint8, "i": np.int64}.get(name[0], np.float32)
        array = np.ones(shape, kind) if kind != np.int64 else np.zeros(shape, kind)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto


GEMM = "f = Flatten (x) y = Gemm (f, w, b)"
NORM = "y = BatchNormalization (x, s, b, m, v)"
QUANTISE = (
    "q = QuantizeLinear <axis: int = 1> (x, s, z) y = DequantizeLinear <axis: int = 1> (q, s, z)"
)
FITTING = {
    "conv": model("y = Conv <group: int = 2> (x, w, b)", w=(4, 1, 3, 3), b=(4,)),
    "gemm": model(GEMM, w=(32, 3), b=(3,)),
    "gemm, one bias": model(GEMM, w=(32, 3), b=(1, 1)),
    "norm": model(NORM, s=(2,), b=(2,), m=(2,), v=(2,)),
    "quantiser, one scale": model(QUANTISE, s=(1,), z=(1,)),
    "quantiser": model(QUANTISE, s=(2,), z=(2,)),
    "clip": model("y = Clip (x, a, a)", a=()),
    "mean": model("y = ReduceMean (x, i)", i=(1,)),
}
UNFIT = {
    "groups": model("y = Conv <group: int = 3> (x, w)", w=(4, 1, 3, 3)),
    "groups of 2^40": model(f"y = Conv <group: int = {2**40}> (x, w)", w=(4, 2, 3, 3)),
    "channels": model("y = Conv (x, w)", w=(4, 3, 3, 3)),
    "flat weights": model("y = Conv (x, w)", w=(4,)),
    "bias of a Conv": model("y = Conv (x, w, b)", w=(4, 2, 3, 3), b=(3,)),
    "kernel": model("y = Conv <kernel_shape: ints = [1, 1]> (x, w)", w=(4, 2, 3, 3)),
    "bias of a Gemm": model(GEMM, w=(32, 3), b=(4,)),
    "scale of a norm": model(NORM, s=(3,), b=(2,), m=(2,), v=(2,)),
    "scales": model(QUANTISE, s=(3,), z=(3,)),
    "zero points": model(QUANTISE, s=(2,), z=(1,)),
    "bounds": model("y = Clip (x, a, a)", a=(2,)),
    "axes": model("y = ReduceMean (x, i)", i=()),
}


def runs(proto: onnx.ModelProto) -> bool:
    try:
        session(proto).run(None, {"x": np.zeros((1, 2, 4, 4), np.float32)})
    except Exception:
        return False
    return True


@pytest.mark.parametrize("name", FITTING)
def test_operands_that_fit_are_taken(name: str, tmp_path: Path) -> None:
    onnx.save(FITTING[name], str(tmp_path / "net.onnx"))
    assert runs(FITTING[name])
    import_onnx(tmp_path / "net.onnx")


@pytest.mark.parametrize("name", UNFIT)
def test_operands_that_do_not_fit_are_named(name: str, tmp_path: Path) -> None:
    onnx.save(UNFIT[name], str(tmp_path / "net.onnx"))
    assert not runs(UNFIT[name])
    with pytest.raises(BadInputError, match=r"net\.onnx: ") as e:
        import_onnx(tmp_path / "net.onnx")
    assert e.value.faults or "not valid ONNX" in e.value.message


# -- layers that mix samples ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "bias"),
    [
        ("Gemm <transA: int = 1> (x, w)", (8,)),
        ("Gemm <transA: int = 1, transB: int = 1> (x, w)", (8,)),
        ("Gemm <transB: int = 1> (x, w, b)", (8, 1)),
        ("Gemm <transA: int = 0, transB: int = 1, alpha: float = 1.0, beta: float = 1.0>"
         " (x, w, b)", (8, 1)),
    ],
)  # fmt: skip
def test_a_layer_that_treats_samples_apart_is_none(
    call: str, bias: tuple[int, ...], tmp_path: Path
) -> None:
    """A batch as large as the features: sizes alone do not tell rows from columns."""
    body = f"u = {call} c = Clip (u, low, high) a = Round (c) y = Gemm (a, w)"
    head = HEAD.replace("float[N,2,4,4] x", "float[8,8] x")
    proto = onnx.parser.parse_model(f"{head} {{ {body} }}".replace("float y", "float[8,8] y"))
    rng = np.random.default_rng(0)
    arrays = {"w": rng.normal(0, 1, (8, 8)), "b": rng.normal(0, 1, bias), "low": 0.0, "high": 4.0}
    for name, array in arrays.items():
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array(np.asarray(array, np.float32), name)
        )
    onnx.save(proto, str(tmp_path / "net.onnx"))
    out = ("--input-range=-1,1", "-o", tmp_path / "net.snn")
    for command in (("check",), ("compile", *out)):
        done = run_cli(tmp_path, command[0], tmp_path / "net.onnx", *command[1:])
        assert done.code == 3, done.stderr
        assert "no layer over" in done.stdout + done.stderr
