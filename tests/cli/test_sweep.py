"""Numbers no training should leave: whatever a tensor holds, the file is blamed, or it compiles.

Every tensor of every kind of layer is negative, zero, NaN, infinite, denormal, enormous, tiny or
minus zero, as a whole or in one element. The exit code is 0, 3, 4 or 6: it is never our own fault,
and stderr holds no warning and no line of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import cli_models
import numpy as np
import onnx
import pytest
import quantised_networks
import torch
from command_line import MODELS, Ran, run_cli
from float_networks import Net
from onnx import numpy_helper

ALLOWED = {0, 3, 4, 6}
VALUES = {
    "negative": -1.0,
    "zero": 0.0,
    "minus zero": -0.0,
    "nan": float("nan"),
    "infinite": float("inf"),
    "minus infinite": float("-inf"),
    "denormal": 1e-40,
    "tiny": 1e-38,
    "huge": 1e38,
    "minus huge": -1e38,
    "largest": 3.4e38,
}
FACTORS = {"times 1e38": 1e38, "times 1e25": 1e25, "times 1e-38": 1e-38, "turned": -1.0}
#: Of each tensor these alone in the default run.
FEW = ("negative", "times 1e38")


def changed(
    array: np.ndarray, names: tuple[str, ...] = (*VALUES, *FACTORS)
) -> Iterator[np.ndarray]:
    """The tensor with each of the values everywhere, and in one element."""
    for name in names:
        if name in FACTORS:
            with np.errstate(over="ignore", under="ignore"):
                yield (array * np.float32(FACTORS[name])).astype(np.float32)
            continue
        yield np.full_like(array, VALUES[name])
        if array.size > 1 and names is not FEW:
            one = array.copy()
            one.flat[0] = VALUES[name]
            yield one


def judge(done: Ran) -> None:
    assert done.code in ALLOWED, done.stderr
    noise = re.findall(r"Warning|Traceback|snncc/\w+/\w+\.py", done.stderr)
    assert noise == [], done.stderr


# -- ONNX files -----------------------------------------------------------------------------


def layers() -> onnx.ModelProto:
    """Convolution, batch norms, scales, depthwise convolution, linear layers, constants."""
    net = (
        Net((1, 6, 6), seed=1)
        .conv(4, 3, pads=1)
        .batch_norm()
        .fire(3, spelling="floor-of-clip-of-half")
    )
    net.affine("Mul", [2.0, 0.5, 1.0, 1.0], per_channel=True).affine("Add", 0.25)
    net.conv(4, 3, group=4).pool("AveragePool").affine("Div", 2.0).fire(4, spelling="relu-clamp")
    return net.flatten().linear(6).batch_norm().fire(2).linear(3).proto()


def branches() -> onnx.ModelProto:
    """A residual sum, a pool of potentials, an input that is normed."""
    net = Net((2, 6, 6), seed=2).affine("Sub", 0.5).batch_norm().conv(3, 3, pads=1)
    one = net.x
    net.fire(4).conv(3, 3, pads=1).batch_norm().add(one)
    return net.pool("MaxPool").fire(2, norm=2.0, spelling="round-of-clip").mean().linear(3).proto()


def quantised() -> onnx.ModelProto:
    """QuantizeLinear and DequantizeLinear: scales, and weights that are quantised."""
    weights = np.random.default_rng(0).normal(0, 0.5, (3, 32)).astype(np.float32)
    body = """
        x_q = QuantizeLinear (flat, in_scale, zero) x_d = DequantizeLinear (x_q, in_scale, zero)
        w_q = QuantizeLinear (w, w_scale, w_zero) w_d = DequantizeLinear (w_q, w_scale, w_zero)
        u = Gemm <transB: int = 1> (x_d, w_d, b)
        a_q = QuantizeLinear (u, a_scale, zero) a = DequantizeLinear (a_q, a_scale, zero)
        y = Gemm (a, v)
    """
    flat = "flat = Flatten (x)"
    scales = {name: np.float32(0.02) for name in ("in_scale", "w_scale", "a_scale")}
    return quantised_networks.parsed(
        flat + body, w=weights, b=np.ones(3, np.float32), v=np.eye(3, dtype=np.float32),
        zero=np.uint8(0), w_zero=np.int8(0), **scales,
    )  # fmt: skip


AUTHORS = {"layers": layers, "branches": branches, "quantised": quantised}


def sweep(
    author: Callable[[], onnx.ModelProto], command: str, folder: Path, names: tuple[str, ...]
) -> int:
    proto, count = author(), 0
    path = folder / "net.onnx"
    more = ("--input-range=-1,1", "-o", folder / "net.snn", "-f") if command == "compile" else ()
    onnx.save(proto, str(path))
    assert run_cli(folder, command, path, *more).code == 0
    for place, tensor in enumerate(proto.graph.initializer):
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32:
            continue
        for values in changed(array, names):
            edited = onnx.ModelProto()
            edited.CopyFrom(proto)
            edited.graph.initializer[place].CopyFrom(numpy_helper.from_array(values, tensor.name))
            onnx.save(edited, str(path))
            judge(run_cli(folder, command, path, *more))
            count += 1
    return count


def test_whatever_a_tensor_holds_the_file_is_judged(tmp_path: Path) -> None:
    assert sweep(branches, "check", tmp_path, FEW) > 20


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check", "compile"])
@pytest.mark.parametrize("author", AUTHORS.values(), ids=AUTHORS)
def test_every_value_in_every_tensor_of_onnx_files(
    author: Callable[[], onnx.ModelProto], command: str, tmp_path: Path
) -> None:
    assert sweep(author, command, tmp_path, (*VALUES, *FACTORS)) > 100


@pytest.mark.parametrize(
    ("value", "what"),
    [(1e38, "computes values that float32 does not hold"), (3.4e38, "weights are too large")],
)
def test_what_overflows_is_named(value: float, what: str, tmp_path: Path) -> None:
    proto = layers()
    tensor = proto.graph.initializer[0]
    array = np.full_like(numpy_helper.to_array(tensor), value)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(proto, str(tmp_path / "net.onnx"))
    out = ("-o", tmp_path / "net.snn")
    done = run_cli(tmp_path, "compile", tmp_path / "net.onnx", "--input-range=-1,1", *out)
    assert done.code == 6
    assert what in done.stderr
    assert "conv1" in done.stderr or "bn2.weight" in done.stderr


@pytest.mark.parametrize(
    ("variance", "epsilon", "code", "what"),
    [
        (-1.0, 1e-5, 6, "variance + epsilon is negative in 4 of 4 channels"),
        (1.0, -2.0, 6, "variance + epsilon is negative in 4 of 4 channels"),
        (0.0, 0.0, 3, "divides by nothing: variance plus eps is not positive"),
    ],
)
def test_a_norm_that_cannot_be_computed_is_named(
    variance: float, epsilon: float, code: int, what: str, tmp_path: Path
) -> None:
    proto = layers()
    norm = next(node for node in proto.graph.node if node.op_type == "BatchNormalization")
    del norm.attribute[:]
    norm.attribute.append(onnx.helper.make_attribute("epsilon", epsilon))
    for tensor in proto.graph.initializer:
        if tensor.name == norm.input[4]:
            array = np.full(tensor.dims[0], variance, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(proto, str(tmp_path / "net.onnx"))
    done = run_cli(tmp_path, "check", tmp_path / "net.onnx")
    assert done.code == code
    assert what in done.stderr + done.stdout
    assert "bn2" in done.stderr + done.stdout


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["w_scale", "w"])
def test_quantisers_of_no_numbers_are_named(name: str, value: float, tmp_path: Path) -> None:
    proto = quantised()
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            array = np.full(tuple(tensor.dims), value, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, name))
    onnx.save(proto, str(tmp_path / "net.onnx"))
    done = run_cli(tmp_path, "check", tmp_path / "net.onnx")
    assert done.code == 6
    assert "NaN or infinite" in done.stderr
    assert "w_q" in done.stderr


# -- checkpoints ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "attending", "film"])
def test_every_value_in_every_tensor_of_checkpoints(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = getattr(cli_models, name)().state_dict()
    more = ("--timesteps", 3) if name == "film" else ()
    some = ("negative", "zero", "nan", "denormal", "huge", "times 1e38", "times 1e-38")
    for key, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        for values in changed(tensor.numpy(), some):
            torch.save({**state, key: torch.from_numpy(values)}, tmp_path / "net.pt")
            arguments = (tmp_path / "net.pt", f"--arch={MODELS}:{name}", *more)
            judge(run_cli(tmp_path, "compile", *arguments, "-o", tmp_path / "net.snn", "-f"))


def test_nested_tensors_are_no_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = cli_models.tiny().state_dict()
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    torch.save({**state, "conv.weight": nested}, tmp_path / "net.pt")
    done = run_cli(tmp_path, "check", tmp_path / "net.pt", f"--arch={MODELS}:tiny")
    assert done.code == 6
    assert "conv.weight" in done.stderr
    assert "not a plain array of numbers" in done.stderr


# -- external data --------------------------------------------------------------------------


@pytest.mark.parametrize("location", ["a\0b", "loop", "loop/x", "a" * 5000, "", "."])
def test_a_place_that_can_be_no_file_is_bad_input(location: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    proto = layers()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    onnx.save(proto, str(tmp_path / "net.onnx"))
    done = run_cli(tmp_path, "check", tmp_path / "net.onnx")
    assert done.code == 6
    assert tensor.name in done.stderr


@pytest.mark.parametrize("place", ["node", "import", "operator"])
def test_names_that_are_no_text_are_bad_input(place: str, tmp_path: Path) -> None:
    proto = layers()
    if place == "operator":
        proto.graph.node[0].op_type = "Czzv"
    else:
        proto.opset_import.append(onnx.helper.make_opsetid("zz", 1))
        proto.graph.node[0].domain = "zz" if place == "node" else ""
    path = tmp_path / "net.onnx"
    path.write_bytes(proto.SerializeToString().replace(b"zz", b"\xff\xfe"))
    done = run_cli(tmp_path, "check", path)
    assert (done.code, "not text" in done.stderr) == (6, True)
