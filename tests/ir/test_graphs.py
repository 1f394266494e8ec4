from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from float_networks import Net, imported

from snncc.ir.graphs import (
    Edit,
    Provenance,
    attribute,
    constant,
    initializer,
    label,
    nodes,
    only_reader,
    provenance,
    remove_dead,
    replace_value,
    static_shape,
    to_proto,
)
from snncc.ir.oracle import evaluate

X = np.random.default_rng(0).normal(size=(2, 1, 6, 6)).astype(np.float32)


@pytest.fixture
def model() -> ir.Model:
    return imported(Net((1, 6, 6)).conv(2).batch_norm().fire().flatten().linear(3))


def test_a_replaced_value_leaves_its_name_to_the_new_one(model: ir.Model) -> None:
    (norm,) = nodes(model, "BatchNormalization")
    old = norm.outputs[0]
    name = old.name
    replace_value(old, Edit(norm, "test").op("Relu", norm.inputs[0], name="new", like=old))
    (relu,) = nodes(model, "Relu")
    assert (relu.name, relu.outputs[0].name) == (name, name)
    assert next(nodes(model, "IntegerFire")).inputs[0] is relu.outputs[0]


def test_a_replaced_node_goes_with_weights_that_nobody_else_reads(model: ir.Model) -> None:
    (norm,) = nodes(model, "BatchNormalization")
    weights = {v.name for v in norm.inputs[1:]}
    assert norm.inputs[0] is not None
    replace_value(norm.outputs[0], norm.inputs[0], keep_name=False)
    assert not weights & set(model.graph.initializers)
    evaluate(model, {"x": X})


def test_what_is_read_is_not_dead(model: ir.Model) -> None:
    count = len(model.graph)
    for node in nodes(model):
        remove_dead(node)
    assert len(model.graph) == count


def test_a_result_may_be_replaced(model: ir.Model) -> None:
    out = model.graph.outputs[0]
    (gemm,) = nodes(model, "Gemm")
    name = out.name
    new = Edit(gemm, "test").op("Gemm", *gemm.inputs, name="new", like=out,
                                attributes={"transB": 1})  # fmt: skip
    replace_value(out, new)
    assert model.graph.outputs[0] is new
    assert new.name == name


def test_new_nodes_inherit_where_they_come_from(model: ir.Model) -> None:
    (norm,) = nodes(model, "BatchNormalization")
    made = Edit(norm, "some-pass").op("Relu", norm.inputs[0], name="r").producer()
    assert made is not None
    assert provenance(made) == Provenance("bn2")
    assert label(made) == "bn2"
    assert made.metadata_props["snncc.pass"] == "some-pass"


def test_names_of_initializers_are_unique(model: ir.Model) -> None:
    one, two = (initializer(model.graph, "w", np.zeros(3)) for _ in range(2))
    assert one.name != two.name


def test_an_initializer_keeps_its_rank(model: ir.Model) -> None:
    for array in (np.float32(2), np.zeros((), np.uint8), np.ones((2, 3), np.float32).T):
        value = initializer(model.graph, "any", array)
        assert value.const_value is not None
        assert (value.shape, value.const_value.numpy().shape) == (array.shape, array.shape)


def test_constants_are_initializers_only(model: ir.Model) -> None:
    (gemm,) = nodes(model, "Gemm")
    assert constant(gemm.inputs[0]) is None
    assert constant(gemm.inputs[1]) is not None
    assert constant(None) is None


def test_a_value_read_twice_has_no_only_reader() -> None:
    net = Net((3,)).linear(3)
    net.x = net.node("Add", net.x, net.x)
    (gemm, _) = imported(net).graph
    assert only_reader(gemm.outputs[0]) is None


def test_the_batch_axis_is_no_part_of_a_shape(model: ir.Model) -> None:
    assert static_shape(model.graph.inputs[0]) == (1, 6, 6)


def test_attributes_are_plain_values(model: ir.Model) -> None:
    (fire,) = nodes(model, "IntegerFire")
    (conv,) = nodes(model, "Conv")
    assert attribute(fire, "rounding") == "half-even"
    assert attribute(conv, "pads") == [0, 0, 0, 0]
    assert attribute(conv, "nothing", 7) == 7


def test_a_proto_is_a_complete_model(model: ir.Model) -> None:
    proto = to_proto(model)
    onnx.checker.check_model(proto)
    assert [f.name for f in proto.functions] == ["IntegerFire"]
