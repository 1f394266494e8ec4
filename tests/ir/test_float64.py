from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
import onnx_ir as ir
import pytest
import torch
from float_networks import Case, Net, imported, shared_values
from hypothesis import given, settings
from random_networks import networks
from state_networks import state_networks

from snncc.ir.exact import Exact
from snncc.ir.float64 import in_float64
from snncc.ir.graphs import nodes
from snncc.ir.oracle import evaluate, magnitudes, teacher_forced
from snncc.ir.validation import compare

RNG = np.random.default_rng(0)


def wide(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k: v.astype(np.float64) for k, v in feeds.items() if v.dtype == np.float32}


def node_by_node(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[str]:
    """Values whose float64 form, made of float32's values, is not theirs but for rounding."""
    names = shared_values(model, model)
    single = evaluate(model, feeds, names)
    double = teacher_forced(in_float64(model), wide(feeds), single, names)
    scale = magnitudes(model, feeds, single, names)
    floats = [n for n in names if single[n].dtype == np.float32]
    assert all(double[n].dtype == np.float64 for n in floats)
    return [n for n in floats if compare(n, single[n], double[n], scale[n]).changed]


@settings(max_examples=25)
@given(networks())
def test_random_networks_node_by_node(case: Case) -> None:
    assert node_by_node(imported(case.net), case.feeds) == []


@settings(max_examples=15)
@given(state_networks())
def test_neurons_with_memory_node_by_node(case: Case) -> None:
    assert node_by_node(imported(case.net), case.feeds) == []


@pytest.mark.parametrize(
    ("outs", "kernel", "settings"),
    [
        (5, (3, 3), {"pads": [1, 0, 2, 1]}),
        (6, (3, 2), {"group": 2, "strides": [2, 1]}),
        (4, (3, 3), {"group": 4, "dilations": [2, 1], "pads": [1, 1, 1, 1]}),
        (8, (1, 3), {"group": 4}),
        (3, (5, 5), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ],
)
def test_convolutions_are_those_of_float64(
    outs: int, kernel: tuple[int, int], settings: dict[str, Any]
) -> None:
    group = settings.get("group", 1)
    weight = RNG.normal(size=(outs, 4 // group, *kernel)).astype(np.float32)
    bias = RNG.normal(size=outs).astype(np.float32)
    x = RNG.normal(size=(2, 4, 9, 8))
    net = Net((4, 9, 8))
    net.then("Conv", net.const(weight), net.const(bias), kernel_shape=list(kernel), **settings)
    net.shape = ()
    found = evaluate(in_float64(ir.from_proto(_without_result_shape(net))), {"x": x})
    top, left, bottom, right = settings.get("pads", [0] * 4)
    if "auto_pad" in settings:
        top, left, bottom, right = 2, 2, 2, 1
    padded = torch.nn.functional.pad(torch.from_numpy(x), (left, right, top, bottom))
    wanted = torch.nn.functional.conv2d(
        padded, torch.from_numpy(weight).double(), torch.from_numpy(bias).double(),
        settings.get("strides", [1, 1]), 0, settings.get("dilations", [1, 1]), group,
    )  # fmt: skip
    np.testing.assert_allclose(found[net.x], wanted.numpy(), rtol=0, atol=1e-12)


def _without_result_shape(net: Net) -> Any:
    proto = net.proto()
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return proto


def test_a_large_weight_stays_float32() -> None:
    net = Net((256,))
    net.linear(256)
    model = imported(net)
    twin = in_float64(model)
    weights = [v for v in twin.graph.initializers.values() if len(v.shape or ()) == 2]
    assert [v.dtype for v in weights] == [ir.DataType.FLOAT]
    x = RNG.normal(size=(3, 256)).astype(np.float32)
    (single,) = evaluate(model, {"x": x}).values()
    (double,) = evaluate(twin, {"x": x.astype(np.float64)}).values()
    assert double.dtype == np.float64
    np.testing.assert_allclose(single, double, atol=1e-4)


def test_the_given_graph_stays_as_it_is() -> None:
    model = imported(Net((1, 6, 6)).conv(2).fire(4))
    in_float64(model)
    assert [n.op_type for n in nodes(model)] == ["Conv", "IntegerFire"]
    assert all(v.dtype == ir.DataType.FLOAT for v in model.graph.initializers.values())


TIES = """
    <ir_version: 10, opset_import: ["": 21]>
    g (float[N,1,5,5] x, float s, float w, uint8 z) => (float[N,1,1,1] y) {
      q = QuantizeLinear (x, s, z)
      a = DequantizeLinear (q, s, z)
      p = AveragePool <kernel_shape: ints = [5, 5]> (a)
      u = Mul (p, w)
      again = QuantizeLinear (u, s, z)
      y = DequantizeLinear (again, s, z)
    }
"""


def test_ties_after_an_average_of_25_are_ties() -> None:
    """A 25th of k scales is no float64, and yet 12.5 of it are k halves, which go to even."""
    s = np.float32(0.1)
    proto = onnx.parser.parse_model(TIES)
    del proto.graph.input[1:]
    for name, array in (("s", s), ("w", np.float32(12.5)), ("z", np.uint8(0))):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    x = np.zeros((256, 1, 5, 5), np.float32)
    x[:, 0, 0, 0] = np.arange(256) * s
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    found = evaluate(in_float64(model), {"x": x.astype(np.float64)})["y"]
    exact = [round(Fraction(k, 2)) for k in range(256)]
    np.testing.assert_array_equal(found.reshape(-1) / np.float64(s), exact)


def test_a_constant_is_the_number_that_it_stands_for() -> None:
    """As float32 0.02 is a little less: 1.5 and 3.5 are no ties."""
    net = Net((2,))
    net.then("Mul", net.const(0.02)).then("Round")
    model = imported(net)
    for number, expected in (
        (Fraction(float(np.float32(0.02))), [1, 3]),
        (Fraction(1, 50), [2, 4]),
    ):
        for value in model.graph.initializers.values():
            value.const_value = Exact.number(number).tensor(str(value.name))
        found = evaluate(in_float64(model), {"x": np.array([[75.0, 175.0]])})
        assert next(iter(found.values())).tolist() == [expected]
