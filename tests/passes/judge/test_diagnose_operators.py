"""Whatever stage ``integer`` does not allow is a fault of diagnose: check and compile agree."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx
import onnx.shape_inference
import onnx_ir as ir
import pytest
import torch
from float_networks import Net
from torch import nn

import snncc
from snncc.compiler import check
from snncc.errors import UnsupportedModelError
from snncc.frontends.tidy import tidy
from snncc.ir.ops import register_schemas
from snncc.ir.stages import forbidden
from snncc.nn import IntegerFire
from snncc.passes import FRONT, PassManager, RequireInteger
from snncc.passes.judge.diagnose import diagnose

#: Operators of one live input: further constants, attributes.
OPERATORS = {
    **dict.fromkeys(
        [
            "Abs",
            "Acos",
            "Asin",
            "Atan",
            "Ceil",
            "Cos",
            "Cosh",
            "Erf",
            "Exp",
            "Floor",
            "HardSwish",
            "Identity",
            "IsNaN",
            "Log",
            "Mish",
            "Neg",
            "Not",
            "Reciprocal",
            "Round",
            "Shape",
            "Sigmoid",
            "Sign",
            "Sin",
            "Size",
            "Softplus",
            "Softsign",
            "Sqrt",
            "Tan",
            "Tanh",
            "Softmax",
            "LogSoftmax",
            "Hardmax",
            "Relu",
            "Elu",
            "Selu",
            "Celu",
            "LpNormalization",
            "GlobalMaxPool",
            "GlobalAveragePool",
            "Flatten",
            "NonZero",
        ],
        ((), {}),
    ),
    "ArgMax": ((), {"axis": 1}),
    "ArgMin": ((), {"axis": 1, "keepdims": 0}),
    "TopK": (([1],), {"axis": 1}),
    "CumSum": ((np.int64(1),), {}),
    "ReduceMax": (([1],), {}),
    "ReduceSum": (([1],), {}),
    "ReduceL2": (([1],), {}),
    "Cast to int64": ((), {"to": 7}),
    "Cast to int32": ((), {"to": 6}),
    "Cast to bool": ((), {"to": 9}),
    "Cast to double": ((), {"to": 11}),
    "Unsqueeze": (([1],), {}),
    "Gather": ((np.int64(0),), {"axis": 1}),
    "Slice": (([0], [1], [1]), {}),
    "Transpose": ((), {}),
    "Greater": ((np.float32(1),), {}),
    "Equal": ((np.float32(1),), {}),
    "Mod": ((np.float32(2),), {"fmod": 1}),
    "Pow": ((np.float32(2),), {}),
    "Max": ((np.float32(1),), {}),
    "Div": ((np.float32(2),), {}),
}


#: Those that a result may go through.
FINE = ("Identity", "Flatten", "Neg", "Div", "Unsqueeze", "ReduceSum", "Slice")
#: Those of them that change shapes.
MOVING = [
    "Shape",
    "Size",
    "NonZero",
    "Flatten",
    "Unsqueeze",
    "Gather",
    "Transpose",
    "Not",
    "IsNaN",
    "Greater",
    "Equal",
    "TopK",
    "ReduceSum",
    "ReduceL2",
    "ReduceMax",
    "GlobalMaxPool",
    "GlobalAveragePool",
    "Slice",
]


def appended(net: Net, name: str) -> Net:
    constants, attributes = OPERATORS[name]
    kind = name.split()[0]
    if kind == "Not":
        net.then("Greater", net.const(np.float32(0)), module="compared")
    inputs = [net.const(value, np.asarray(value).dtype) for value in constants]
    net.then(kind, *inputs, module="odd", **attributes)
    if kind == "TopK":
        net.nodes[-1].output.append("indices")
    return net


def typed(net: Net) -> ir.Model:
    """The network; its result has the type that it has."""
    register_schemas()
    proto = net.proto()
    proto.graph.output[0].ClearField("type")
    known = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    return tidy(ir.from_proto(known))


def judged(net: Net) -> bool:
    """Whether it was refused; diagnose and require-integer must say the same."""
    model = PassManager(FRONT).run(typed(net))
    found = diagnose(model)
    assert bool(found.faults) or not forbidden(model, "integer")
    try:
        PassManager((*FRONT, RequireInteger())).run(typed(net))
    except UnsupportedModelError as e:
        refused = e.faults
    else:
        refused = []
    assert [f.what for f in refused] == [f.what for f in found.faults]
    return bool(refused)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_as_the_result(name):
    net = appended(Net((2, 4, 4)).conv(3).fire().flatten().linear(5), name)
    assert judged(net) or name in FINE


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_inside(name):
    """Before a neuron, and before a layer; where it makes other shapes or types, to the end."""
    for fires_first in (False, True):
        net = Net((2, 4, 4)).conv(3)
        net = appended(net.fire() if fires_first else net, name)
        same = name not in MOVING and not name.startswith(("Cast", "ArgM"))
        judged(net.fire().conv(2) if same and not fires_first else net.conv(2) if same else net)


class Head(nn.Module):
    """A network whose result is a function of its logits."""

    default_cfg: ClassVar = {"input_size": (1, 6, 6), "mean": (0.5,), "std": (0.5,)}

    def __init__(self, head):
        super().__init__()
        self.conv, self.fire = nn.Conv2d(1, 4, 3, padding=1), IntegerFire(4)
        self.fc, self.head = nn.Linear(144, 5), head

    def forward(self, x):
        return self.head(self.fc(self.fire(self.conv(x)).flatten(1)))


@pytest.mark.parametrize(
    "head",
    [
        lambda y: y.argmax(1),
        lambda y: y.max(1)[1],
        pytest.param(lambda y: y.topk(1)[1], marks=pytest.mark.slow),
        pytest.param(lambda y: y.argmin(1), marks=pytest.mark.slow),
    ],
)
def test_a_class_as_the_result_is_refused_where_it_is_taken(head):
    net = Head(head).eval()
    found = check(net)
    (fault,) = found.faults
    assert fault.todo == "leave it out; use the logits"
    assert "test_diagnose_operators.py" in fault.source
    with pytest.raises(UnsupportedModelError, match="leave it out; use the logits") as raised:
        snncc.compile(net)
    assert tuple(raised.value.faults) == (fault,)


@pytest.mark.parametrize("head", [lambda y: y.long(), lambda y: y > 0, lambda y: torch.ones(1)])
def test_check_and_compile_agree_about_results_that_are_no_scores(head):
    net = Head(head).eval()
    with pytest.raises(UnsupportedModelError):
        snncc.compile(net)
    assert check(net).faults


def test_check_refuses_a_network_without_a_neuron_as_compile_does():
    net = nn.Sequential(nn.Conv2d(1, 2, 3)).eval()
    net.default_cfg = Head.default_cfg
    for judge in (check, snncc.compile):
        with pytest.raises(UnsupportedModelError, match="no neuron"):
            judge(net)
