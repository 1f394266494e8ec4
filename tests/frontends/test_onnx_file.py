from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.parser
import onnx_ir as ir
import pytest
from float_networks import Net, examples
from onnx import TensorProto, helper, numpy_helper

import snncc
from snncc.compiler import InputOptions
from snncc.errors import BadInputError, UnsupportedModelError
from snncc.frontends.onnx_file import import_onnx, read_onnx
from snncc.ir.graphs import attribute, nodes, provenance
from snncc.ir.oracle import evaluate, session
from snncc.ir.text import dump
from snncc.passes import FRONT, PassManager, RequireInteger

X = np.random.default_rng(0).normal(size=(3, 1, 8, 8)).astype(np.float32)


def cnn(spelling: str = "round-of-clip") -> Net:
    net = Net((1, 8, 8), seed=3).conv(2).batch_norm().fire(4, spelling=spelling).pool("MaxPool")
    return net.conv(3, 2).fire(3, 3.0, spelling=spelling).flatten().linear(4)


def saved(proto: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "net.onnx"
    onnx.save(proto, str(path))
    return path


def imported(proto: onnx.ModelProto, folder: Path) -> ir.Model:
    return import_onnx(saved(proto, folder))


def integer(model: ir.Model, x: np.ndarray = X) -> ir.Model:
    return PassManager((*FRONT, RequireInteger()), feeds={"x": x}).run(model)


def neurons(model: ir.Model) -> list[tuple[int, float]]:
    return [(attribute(n, "D"), attribute(n, "norm")) for n in nodes(model, "IntegerFire")]


# -- what is read --------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2])
def test_weights_may_be_listed_as_inputs(times: int, tmp_path: Path) -> None:
    """Files of IR version 3 do so, some of them several times."""
    proto = cnn().proto(13)
    del proto.opset_import[1:]
    plain = dump(imported(proto, tmp_path))
    for tensor in proto.graph.initializer:
        listed = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        proto.graph.input.extend([listed] * times)
    proto.ir_version = 3
    assert dump(imported(proto, tmp_path)) == plain


@pytest.mark.parametrize("opset", [-1, 0, 10**6, 2**40])
def test_an_opset_that_onnx_does_not_know_is_named(opset: int, tmp_path: Path) -> None:
    proto = cnn().proto()
    proto.opset_import[0].version = opset
    onnx.save(proto, str(tmp_path / "net.onnx"))
    with pytest.raises(UnsupportedModelError) as e:
        import_onnx(tmp_path / "net.onnx")
    assert f"opset {opset}: the installed ONNX knows 1 to " in e.value.message


def test_domains_that_are_no_text_are_a_fault_of_the_file(tmp_path: Path) -> None:
    proto = cnn().proto()
    proto.graph.node[0].domain = "zz"
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString().replace(b"zz", b"\xff\xfe"))
    with pytest.raises(BadInputError, match="names in it are not text"):
        import_onnx(tmp_path / "net.onnx")


@pytest.mark.parametrize("opset", [13, 17, 20, 21, 22])
def test_other_opsets_become_the_compilers(opset: int, tmp_path: Path) -> None:
    proto = cnn().proto(opset)
    del proto.opset_import[1:]
    expected = session(proto).run(None, {"x": X})[0]
    model = imported(proto, tmp_path)
    (found,) = evaluate(model, {"x": X}).values()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert neurons(integer(model)) == [(4, 1.0), (3, 3.0)]


def test_axes_given_as_attributes_are_understood(tmp_path: Path) -> None:
    """Opset 13 gives the axes of ReduceMean as an attribute, 18 as an input."""
    net = Net((1, 8, 8)).conv(2).fire(spelling="round-of-clip").mean().linear(3)
    proto = net.proto(13)
    del proto.opset_import[1:]
    (mean,) = (n for n in proto.graph.node if n.op_type == "ReduceMean")
    del mean.input[1:]
    mean.attribute.append(helper.make_attribute("axes", [2, 3]))
    assert [n.op_type for n in integer(imported(proto, tmp_path)).graph][-3:] == [
        "AveragePool",
        "Reshape",
        "Gemm",
    ]


def test_own_operators_may_be_in_a_file(tmp_path: Path) -> None:
    assert neurons(integer(imported(cnn("leaf").proto(), tmp_path))) == [(4, 1.0), (3, 3.0)]


def test_modules_are_read_off_torchscripts_node_names(tmp_path: Path, golden: str) -> None:
    proto = Net((1, 6, 6)).conv(2).fire(spelling="relu-clamp").flatten().linear(3).proto(17)
    del proto.opset_import[1:]
    for node, name in zip(
        proto.graph.node,
        ["/features/features.0/Conv", "/features/features.1/act/Relu", "/features/features.1/Clip",
         "/features/features.1/Round", "/Flatten", "/head/Gemm"],
        strict=True,
    ):  # fmt: skip
        node.name = name
    assert dump(imported(proto, tmp_path)) == golden


def test_unnamed_nodes_get_names(tmp_path: Path) -> None:
    proto = cnn().proto()
    for node in proto.graph.node:
        node.ClearField("name")
    model = imported(proto, tmp_path)
    assert all(n.name and n.outputs[0].name for n in model.graph)
    assert {provenance(n).module for n in model.graph} == {""}


@pytest.mark.parametrize("opset", [13, 18, 20, 21, 22])
def test_functions_are_inlined(opset: int, tmp_path: Path) -> None:
    """Before the opset changes: a version converter knows no functions."""
    net = Net((1, 8, 8)).conv(2)
    net.then("Quantise", domain="my.functions").flatten().linear(3)
    proto = net.proto(opset)
    del proto.opset_import[1:]
    proto.opset_import.append(helper.make_opsetid("my.functions", 1))
    proto.functions.append(
        onnx.parser.parse_function(
            f'<opset_import: ["": {opset}], domain: "my.functions"> Quantise (x) => (y) {{'
            " low = Constant <value_float: float = 0.0> ()"
            " high = Constant <value_float: float = 4.0> ()"
            " u = Clip (x, low, high) y = Round (u) }"
        )
    )
    assert neurons(integer(imported(proto, tmp_path))) == [(4, 1.0)]


def dense(of_spikes: bool) -> Net:
    """Each layer reads a Sum of what all layers before it made, as spikes or potentials."""
    net = Net((1, 8, 8), seed=3)
    made: list[str] = []
    for _ in range(4):
        net.conv(2, pads=1)
        if of_spikes:
            net.fire(2)
        made.append(net.x)
        net.x = net.node("Sum", *made, module=net.label("sum"))
        if not of_spikes:
            net.fire(2)
    return net.flatten().linear(4)


@pytest.mark.parametrize("of_spikes", [True, False])
def test_a_sum_of_many_is_added_one_by_one(of_spikes: bool, tmp_path: Path) -> None:
    proto = dense(of_spikes).proto()
    model = imported(proto, tmp_path)
    assert not list(nodes(model, "Sum", "Identity"))
    assert len(list(nodes(model, "Add"))) == 0 + 1 + 2 + 3
    found = snncc.compile(str(saved(proto, tmp_path)), input=AS_PIXELS, weight_bits=24)
    assert found.report.verify.mismatched == 0
    assert not found.report.verify.coverage.silent


def test_constants_may_be_nodes_and_initializers_inputs(tmp_path: Path) -> None:
    """Older exporters do both."""
    proto = cnn().proto()
    first = proto.graph.initializer[0]
    proto.graph.input.append(helper.make_tensor_value_info(first.name, 1, list(first.dims)))
    last = proto.graph.initializer.pop()
    proto.graph.node.insert(0, helper.make_node("Constant", [], [last.name], value=last))
    model = integer(imported(proto, tmp_path))
    assert [v.name for v in model.graph.inputs] == ["x"]


def test_the_shape_of_the_result_may_be_missing(tmp_path: Path) -> None:
    proto = cnn().proto()
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    integer(imported(proto, tmp_path))


# -- the batch axis ------------------------------------------------------------------------


def one_image() -> onnx.ModelProto:
    net = Net((1, 8, 8))
    net.then("Reshape", net.const([1, 64], np.int64))
    net.shape = (64,)
    return net.linear(5).fire().linear(3).proto(batch=1)


def a_fixed_batch() -> onnx.ModelProto:
    net = Net((1, 8, 8)).conv(2).fire()
    net.then("Reshape", net.const([4, -1], np.int64))
    net.shape = (72,)
    return net.linear(3).proto(batch=4)


def a_free_batch_reshaped_to_one() -> onnx.ModelProto:
    net = Net((1, 8, 8)).conv(2).fire()
    net.then("Reshape", net.const([1, 72], np.int64))
    net.shape = (72,)
    return net.linear(3).proto()


def a_fixed_batch_flattened() -> onnx.ModelProto:
    return cnn().proto(batch=2)


def shape_arithmetic() -> onnx.ModelProto:
    """x.view(x.size(0), -1), as TorchScript exports it."""
    net = Net((1, 8, 8)).conv(2).fire()
    size = net.node("Gather", net.node("Shape", net.x), net.const(0, np.int64), axis=0)
    size = net.node("Unsqueeze", size, net.const([0], np.int64))
    net.then("Reshape", net.node("Concat", size, net.const([-1], np.int64), axis=0))
    net.shape = (72,)
    return net.linear(3).proto()


def all_shapes_named() -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(cnn().proto(batch="batch_size"))


@pytest.mark.parametrize(
    "author",
    [
        one_image,
        a_fixed_batch,
        a_free_batch_reshaped_to_one,
        a_fixed_batch_flattened,
        shape_arithmetic,
        all_shapes_named,
    ],
)
def test_the_batch_axis_becomes_free(author: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    model = imported(author(), tmp_path)
    for samples in (1, 3):
        x = X[:samples]
        (scores,) = evaluate(model, {"x": x}).values()
        assert len(scores) == samples
        (again,) = evaluate(integer(model, x), {"x": x}).values()
        np.testing.assert_allclose(again, scores, atol=1e-5)
    values = [o for n in model.graph for o in n.outputs]
    assert all(v.shape is not None and not isinstance(v.shape[0], int) for v in values)


def test_samples_stay_apart(tmp_path: Path) -> None:
    model = imported(one_image(), tmp_path)
    (together,) = evaluate(model, {"x": X}).values()
    alone = [next(iter(evaluate(model, {"x": X[i : i + 1]}).values())) for i in range(3)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-6)


# -- external data -------------------------------------------------------------------------


def with_external_data(folder: Path, location: str) -> Path:
    """A file whose weights are said to be at ``location``."""
    path = folder / "net.onnx"
    onnx.save(cnn().proto(), str(path), save_as_external_data=True, location="weights.bin",
              size_threshold=0)  # fmt: skip
    proto = onnx.load(str(path), load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data_beside_the_file_is_read(tmp_path: Path) -> None:
    assert neurons(integer(import_onnx(with_external_data(tmp_path, "weights.bin")))) == [
        (4, 1.0),
        (3, 3.0),
    ]


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "a/../../weights.bin"])
def test_external_data_outside_the_folder_is_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(10_000))
    with pytest.raises(BadInputError, match="bad external data") as caught:
        import_onnx(with_external_data(tmp_path / "inner", location))
    assert f"external data '{location}' points outside its folder" in str(caught.value)


def test_a_link_to_the_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(10_000))
    path = with_external_data(tmp_path / "inner", "link.bin")
    (tmp_path / "inner" / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(BadInputError, match="points outside its folder"):
        import_onnx(path)


def test_missing_and_short_external_data_are_bad_input(tmp_path: Path) -> None:
    path = with_external_data(tmp_path, "gone.bin")
    with pytest.raises(BadInputError, match=r"'gone\.bin' is missing"):
        import_onnx(path)
    (tmp_path / "gone.bin").write_bytes(b"short")
    with pytest.raises(BadInputError, match=r"cut off or damaged, or its external data are \("):
        import_onnx(path)


# -- bad files: one golden for each message ------------------------------------------------


def no_onnx(folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(b"import torch\n" * 20)
    return path


def truncated(folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(cnn().proto().SerializeToString()[:500])
    return path


def empty(folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(b"")
    return path


def missing(folder: Path) -> Path:
    return folder / "net.onnx"


def a_folder(folder: Path) -> Path:
    (folder / "net.onnx").mkdir()
    return folder / "net.onnx"


def nan_weights(folder: Path) -> Path:
    proto = cnn().proto()
    for tensor in (proto.graph.initializer[0], proto.graph.initializer[1]):
        array = numpy_helper.to_array(tensor).copy()
        array.flat[0] = np.nan if array.ndim > 1 else np.inf
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return saved(proto, folder)


def two_inputs(folder: Path) -> Path:
    proto = cnn().proto()
    proto.graph.input.append(helper.make_tensor_value_info("mask", 1, ["N", 2]))
    return saved(proto, folder)


def doubles(folder: Path) -> Path:
    proto = cnn().proto(dtype=TensorProto.DOUBLE)
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float64), tensor.name))
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    return saved(proto, folder)


def half_precision(folder: Path) -> Path:
    proto = cnn().proto(dtype=TensorProto.FLOAT16)
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), tensor.name))
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    return saved(proto, folder)


def pixels(folder: Path) -> Path:
    net = Net((1, 8, 8)).then("Cast", to=TensorProto.FLOAT).conv(2).fire()
    return saved(net.flatten().linear(2).proto(dtype=TensorProto.UINT8), folder)


def varying_height(folder: Path) -> Path:
    proto = Net((1, 8, 8)).conv(2).fire().mean().linear(2).proto()
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    return saved(proto, folder)


def foreign_operators(folder: Path) -> Path:
    net = Net((1, 8, 8)).conv(2).then("FusedAct", domain="com.microsoft", module="act").conv(2)
    net.then("LIF", domain="spikes", module="lif")
    proto = net.flatten().linear(2).proto()
    for domain in ("com.microsoft", "spikes"):
        proto.opset_import.append(helper.make_opsetid(domain, 1))
    return saved(proto, folder)


def unknown_operator(folder: Path) -> Path:
    return saved(Net((1, 8, 8)).conv(2).then("Swush").flatten().linear(2).proto(), folder)


def unknown_own_operator(folder: Path) -> Path:
    net = Net((1, 8, 8)).conv(2).then("Burst", domain="ai.snncc", module="act")
    return saved(net.flatten().linear(2).proto(), folder)


def dangling_input(folder: Path) -> Path:
    proto = cnn().proto()
    proto.graph.node[2].input[0] = "nowhere"
    return saved(proto, folder)


BAD: list[Callable[[Path], Path]] = [
    no_onnx,
    truncated,
    empty,
    missing,
    a_folder,
    nan_weights,
    two_inputs,
    doubles,
    half_precision,
    pixels,
    varying_height,
    foreign_operators,
    unknown_operator,
    unknown_own_operator,
    dangling_input,
]


@pytest.mark.parametrize("author", BAD)
def test_a_bad_file_is_said_to_be_bad_and_why(
    author: Callable[[Path], Path], tmp_path: Path, golden: str, capfd: Any
) -> None:
    with pytest.raises((BadInputError, UnsupportedModelError)) as caught:
        import_onnx(author(tmp_path))
    assert capfd.readouterr() == ("", "")
    text = f"exit {caught.value.exit_code}\n{caught.value}\n"
    assert text.replace(str(tmp_path), "FOLDER") == golden


def test_flipped_bytes_never_end_in_a_traceback(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "net.onnx"
    data = np.frombuffer(cnn().proto().SerializeToString(), np.uint8)
    for _ in range(examples(60)):
        broken = data.copy()
        broken[rng.integers(0, len(data), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(broken.tobytes())
        with suppress(BadInputError, UnsupportedModelError):
            PassManager((*FRONT, RequireInteger())).run(import_onnx(path))


# -- names that mean something to the compiler ------------------------------------------------

PIXELS = np.random.default_rng(1).integers(0, 256, (12, 1, 8, 8), dtype=np.uint8)
AS_PIXELS = InputOptions(mean=(0.5,), std=(0.25,))


def renamed(proto: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    """The file with values and ports under other names."""
    for node in proto.graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]
    for value in (*proto.graph.input, *proto.graph.output):
        value.name = names.get(value.name, value.name)
    return proto


def anonymous() -> onnx.ModelProto:
    """A file without module paths: its values keep the names that they have."""
    proto = cnn().proto(17)
    del proto.opset_import[1:]
    for node in proto.graph.node:
        node.name = ""
    return proto


def result_of(proto: onnx.ModelProto, folder: Path) -> np.ndarray:
    model = snncc.compile(saved(proto, folder), PIXELS, input=AS_PIXELS, weight_bits=16)
    assert model.report.import_law.neurons == 2
    return np.asarray(snncc.Session(model).run(None, PIXELS)[0])


def test_nodes_may_share_a_name(tmp_path: Path) -> None:
    plain = result_of(anonymous(), tmp_path)
    proto = anonymous()
    for i, node in enumerate(proto.graph.node):
        node.name = ("same", "same", "same'", "")[i % 4]
    np.testing.assert_array_equal(result_of(proto, tmp_path), plain)


NAMES = {
    "of the trained network": {"t0": "@t2", "t1": "@t0", "t2": "@"},
    "of the input's forms": {"t0": "x:u8", "t1": "x:q", "t2": "x/scaled"},
    "of other values' forms": {"t1": "t0/f64", "t2": "t0:u8", "t3": "t0~int", "t4": "t1:count"},
    "that are free only in part": {"t1": "t0:v", "t2": "t0_v", "t3": "t0/v"},
    "of which the input is a form": {"x": "t0:u8"},
    "of which the result is a form": {"t12": "t0:v"},
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_values_may_have_names_that_the_compiler_makes(
    names: dict[str, str], tmp_path: Path
) -> None:
    plain, proto = result_of(anonymous(), tmp_path), anonymous()
    result = proto.graph.output[0].name
    names = {result if old == "t12" else old: new for old, new in names.items()}
    np.testing.assert_array_equal(result_of(renamed(proto, names), tmp_path), plain)


@pytest.mark.parametrize("port", ["input", "output"])
def test_ports_must_not_have_names_of_the_trained_network(port: str, tmp_path: Path) -> None:
    proto = anonymous()
    (value,) = getattr(proto.graph, port)
    with pytest.raises(BadInputError, match="must not begin with '@': @t1"):
        imported(renamed(proto, {value.name: "@t1"}), tmp_path)


def test_names_in_the_bodies_of_branches_follow(tmp_path: Path) -> None:
    text = """
        <ir_version: 10, opset_import: ["": 21]>
        net (float[N, 4] x) => (float[N, 4] y) <bool c = {1}> {
            v = Neg (x)
            y = If (c) <then_branch = g1 () => (float[N, 4] a) { a = Add (v, x) },
                        else_branch = g2 () => (float[N, 4] b) { b = Neg (v) }>
        }
    """
    proto = onnx.parser.parse_model(text)
    renamed(proto, {"v": "@v"})
    for held in proto.graph.node[1].attribute:
        for node in held.g.node:
            node.input[:] = [{"v": "@v"}.get(name, name) for name in node.input]
    found = read_onnx(saved(proto, tmp_path))
    onnx.checker.check_model(found, full_check=True)
    assert "@" not in str(found.graph)
