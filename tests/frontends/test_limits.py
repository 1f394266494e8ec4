"""Small files that ask for gigabytes or for hours are refused before anything is computed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from command_line import run_cli
from float_networks import Net
from onnx import TensorProto, helper, numpy_helper

from snncc.errors import BadInputError
from snncc.frontends import limits
from snncc.frontends.onnx_file import import_onnx
from snncc.frontends.trained_file import TrainedFile

LARGE = 2**31


def network(*nodes: onnx.NodeProto, **weights: Any) -> onnx.ModelProto:
    """x -> conv -> neuron -> linear, and nodes beside it; ``y`` of them is added to the result."""
    proto = Net((1, 8, 8), seed=3).conv(2).fire(4).flatten().linear(4).proto()
    out = proto.graph.output[0].name
    for name, array in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    proto.graph.node.extend(nodes)
    if any("y" in node.output for node in nodes):
        summed = [
            helper.make_node("ReduceMax", ["y"], ["top"], keepdims=0),
            helper.make_node("Add", [out, "top"], ["shifted"]),
        ]
        proto.graph.node.extend(summed)
        proto.graph.output[0].name = "shifted"
    return proto


def expand() -> onnx.ModelProto:
    node = helper.make_node("Expand", ["one", "shape"], ["y"])
    return network(node, one=np.float32(1), shape=np.array([LARGE]))


def tile() -> onnx.ModelProto:
    node = helper.make_node("Tile", ["ones", "times"], ["y"])
    return network(node, ones=np.ones((2, 2), np.float32), times=np.array([2**15, 2**14]))


def range_() -> onnx.ModelProto:
    node = helper.make_node("Range", ["zero", "end", "one"], ["y"])
    return network(node, zero=np.float32(0), end=np.float32(2**31), one=np.float32(1))


def constant_of_shape() -> onnx.ModelProto:
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
    node = helper.make_node("ConstantOfShape", ["shape"], ["y"], value=value)
    return network(node, shape=np.array([2**16, 2**15]))


def doubled() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Concat", [f"d{i}"] * 2, [f"d{i + 1}" if i < 30 else "y"], axis=0)
        for i in range(31)
    ]
    return network(*nodes, d0=np.ones(1, np.float32))


def outer_product() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Expand", ["one", "row"], ["r"]),
        helper.make_node("Expand", ["one", "column"], ["c"]),
        helper.make_node("MatMul", ["c", "r"], ["y"]),
    ]
    row, column = np.array([1, 2**16]), np.array([2**16, 1])
    return network(*nodes, one=np.float32(1), row=row, column=column)


def padded() -> onnx.ModelProto:
    node = helper.make_node("Pad", ["ones", "pads"], ["y"])
    return network(node, ones=np.ones((1, 1), np.float32), pads=np.array([0, 0, 2**16, 2**15]))


def of_many_samples() -> onnx.ModelProto:
    """Not a constant: the input itself, tiled."""
    nodes = [
        helper.make_node("Tile", ["x", "times"], ["tiled"]),
        helper.make_node("ReduceMax", ["tiled", "axes"], ["y"], keepdims=0),
    ]
    return network(*nodes, times=np.array([1, 1, 2**14, 2**14]), axes=np.array([1, 2, 3]))


def large_input() -> onnx.ModelProto:
    proto = network()
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2**20
    proto.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 2**20
    return proto


def sparse() -> onnx.ModelProto:
    proto = network(helper.make_node("Identity", ["s"], ["y"]))
    values = helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0])
    places = helper.make_tensor("places", TensorProto.INT64, [1], [7])
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [LARGE]))
    return proto


BOMBS = (expand, tile, range_, constant_of_shape, doubled, outer_product, padded,
         of_many_samples, large_input, sparse)  # fmt: skip


@pytest.mark.parametrize("author", BOMBS, ids=lambda author: author.__name__)
def test_a_small_file_with_large_values_is_refused(
    author: Callable[[], onnx.ModelProto], tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(author(), str(path))
    assert path.stat().st_size < 10_000
    with pytest.raises(BadInputError, match=r"the most|sparsely") as caught:
        import_onnx(path)
    assert caught.value.message.startswith(str(path))


def test_the_largest_values_are_named(tmp_path: Path) -> None:
    onnx.save(expand(), str(tmp_path / "net.onnx"))
    with pytest.raises(BadInputError, match="constants that it computes take 8 GiB") as caught:
        import_onnx(tmp_path / "net.onnx")
    assert (caught.value.faults[0].node, caught.value.faults[0].what) == ("y", "takes 8 GiB")


@pytest.mark.parametrize("author", [doubled, of_many_samples, tile], ids=lambda a: a.__name__)
def test_what_no_result_needs_is_not_run(
    author: Callable[[], onnx.ModelProto], tmp_path: Path
) -> None:
    proto = author()
    used = proto.graph.node[-1].input[0]
    del proto.graph.node[-2:]  # what y was read by
    proto.graph.output[0].name = used
    path = tmp_path / "net.onnx"
    onnx.save(proto, str(path))
    import_onnx(path)
    x = np.zeros((2, 1, 8, 8), np.float32)
    assert "@y" not in TrainedFile(path).values({"x": x})


def test_folding_has_a_budget_of_bytes_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = helper.make_node("Expand", ["one", "shape"], ["y"])
    path = tmp_path / "net.onnx"
    onnx.save(network(node, one=np.float32(1), shape=np.array([1000])), str(path))
    import_onnx(path)
    with monkeypatch.context() as patch:
        patch.setattr(limits, "FOLDING_SECONDS", -1.0)
        with pytest.raises(BadInputError, match="longer than"):
            import_onnx(path)
    monkeypatch.setattr(limits, "require_affordable", lambda _: None)
    monkeypatch.setattr("snncc.frontends.onnx_file.require_affordable", lambda _: None)
    for author in (expand, range_, padded, outer_product):
        onnx.save(author(), str(path))
        with pytest.raises(BadInputError, match="are the most"):
            import_onnx(path)


# -- functions ------------------------------------------------------------------------------


def functions(count: int, opset: int = 21, calls: int = 2) -> onnx.ModelProto:
    """Functions f0, f1, …, each of which calls the one before it so many times; f0 is Identity."""
    proto = network()
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    for i in range(count):
        inner, domain = ("Identity", "") if i == 0 else (f"f{i - 1}", "local")
        body = [
            helper.make_node(inner, [f"v{k}"], [f"v{k + 1}"], domain=domain) for k in range(calls)
        ]
        proto.functions.append(
            helper.make_function("local", f"f{i}", ["v0"], [f"v{calls}"], body, opsets)
        )
    out = proto.graph.output[0].name
    proto.graph.node.append(helper.make_node(f"f{count - 1}", [out], ["called"], domain="local"))
    proto.graph.output[0].name = "called"
    proto.opset_import.append(helper.make_opsetid("local", 1))
    return proto


@pytest.mark.parametrize("order", [1, -1])
def test_functions_inside_functions_are_counted_in_whatever_order_they_are_called(
    order: int,
) -> None:
    proto = functions(limits.MAX_DEPTH + 1, calls=1)
    (last,) = [node for node in proto.graph.node if node.domain == "local"]
    for i in range(limits.MAX_DEPTH):  # each is called by the graph itself, too
        call = helper.make_node(f"f{i}", [last.input[0]], [f"by{i}"], domain="local")
        proto.graph.node.append(call)
    nodes = [*proto.graph.node][::order]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    with pytest.raises(BadInputError, match=f"or is {limits.MAX_DEPTH} calls deep"):
        limits.require_few_nodes(proto)


def test_an_axis_of_less_than_nothing_is_no_axis() -> None:
    proto = network()
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = -(2**50)
    with pytest.raises(BadInputError, match="has an axis of -1125899906842624 elements"):
        limits.require_affordable(proto)


@pytest.mark.parametrize("axis", [0, 2, 3])
def test_an_image_of_no_pixels_is_none(axis: int, tmp_path: Path) -> None:
    """It was folded into a border that is larger than it."""
    net = Net((1, 8, 8), seed=3).affine("Sub", 0.5).conv(2, 3, pads=1).fire(4).mean().linear(4)
    proto = net.proto()
    del proto.graph.value_info[:]
    proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 0
    onnx.save(proto, str(tmp_path / "net.onnx"))
    done = run_cli(tmp_path, "check", tmp_path / "net.onnx")
    assert (done.code, "has an axis of 0 elements" in done.stderr) == (6, True)


def test_lists_of_no_axes_stay_lists() -> None:
    node = helper.make_node("Slice", ["size", "zero", "zero"], ["none"])
    size = helper.make_node("Shape", ["x"], ["size"])
    more = helper.make_node("ReduceProd", ["none"], ["y"])
    cast = helper.make_node("Cast", ["p"], ["y"], to=TensorProto.FLOAT)
    more.output[0] = "p"
    limits.require_affordable(network(size, node, more, cast, zero=np.array([0])))


def test_functions_that_double_a_thousand_times_are_refused() -> None:
    with pytest.raises(BadInputError, match=r"calls deep|32,768 nodes"):
        limits.require_few_nodes(functions(1100))


def test_functions_that_double_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(functions(30), str(path))
    assert path.stat().st_size < 10_000
    with pytest.raises(BadInputError, match=r"functions make more than 32,768 nodes"):
        import_onnx(path)


def test_functions_that_call_themselves_are_refused(tmp_path: Path) -> None:
    proto = functions(3)
    proto.functions[0].node[0].op_type, proto.functions[0].node[0].domain = "f2", "local"
    onnx.save(proto, str(tmp_path / "net.onnx"))
    with pytest.raises(BadInputError, match="'f2' calls itself"):
        import_onnx(tmp_path / "net.onnx")
    onnx.save(functions(100, calls=1), str(tmp_path / "net.onnx"))
    with pytest.raises(BadInputError, match="64 calls deep"):
        import_onnx(tmp_path / "net.onnx")


@pytest.mark.parametrize("command", ["check", "compile"])
def test_the_command_line_says_so(command: str, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(expand(), str(path))
    more = ("--input-range=0,1", "-o", tmp_path / "net.snn") if command == "compile" else ()
    done = run_cli(tmp_path, command, path, *more)
    assert done.code == 6
    assert "the constants that it computes take 8 GiB" in done.stderr


def test_a_loop_without_end_is_refused_before_it_runs(tmp_path: Path) -> None:
    body = onnx.parser.parse_graph(
        "body (int64 i, bool on, float v) => (bool still, float w) "
        "{ still = Identity (on) w = Identity (v) }"
    )
    node = helper.make_node("Loop", ["times", "go", "one"], ["y"], body=body)
    proto = network(node, times=np.array(2**60), go=np.array(True), one=np.float32(1))
    onnx.save(proto, str(tmp_path / "net.onnx"))
    out = ("-o", tmp_path / "net.snn")
    assert run_cli(tmp_path, "compile", tmp_path / "net.onnx", "--input-range=0,1", *out).code == 3


# -- in a process of their own --------------------------------------------------------------

CHILD = """
import resource, sys, time
from snncc.errors import BadInputError
from snncc.frontends.onnx_file import import_onnx
start = time.monotonic()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    import_onnx(sys.argv[1])
except BadInputError:
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300_000 and time.monotonic() - start < 10, (grown, time.monotonic() - start)
    print("refused")
"""


@pytest.mark.slow
@pytest.mark.parametrize("author", [*BOMBS, lambda: functions(30)])
def test_refusing_takes_little_memory_and_time(
    author: Callable[[], onnx.ModelProto], tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(author(), str(path))
    command = [sys.executable, "-c", CHILD, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "refused\n"
