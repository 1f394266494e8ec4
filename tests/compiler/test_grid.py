"""Laws of training on the compiler's grid."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
import torch
from torch import nn

import snncc
from snncc.compiler import InputOptions
from snncc.errors import UsageError
from snncc.nn import GridConv2d, GridLinear, IntegerFire
from snncc.passes.integers.shared_grids import plan

SHAPE = (1, 8, 8)
OPTIONS = {"input_shape": SHAPE, "mean": (0.3,), "std": (0.25,)}


def norm(channels):
    bn = nn.BatchNorm2d(channels)
    with torch.no_grad():
        bn.running_mean.normal_(0, 0.2)
        bn.running_var.uniform_(0.5, 2)
        bn.weight.uniform_(0.5, 1.5)
        bn.bias.normal_(0.5, 0.3)
    return bn


class Branched(nn.Module):
    """A residual branch, a norm, pooled spikes, pooled potentials, a border map, two heads."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(1, 6, 3, padding=1, bias=False), norm(6)
        self.fire1 = IntegerFire(4, norm=4.0)
        self.conv, self.bn2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), norm(6)
        self.fire2, self.pool = IntegerFire(3), nn.MaxPool2d(2)
        self.down, self.fire3 = nn.Conv2d(6, 8, 3, stride=2, padding=1), IntegerFire(4)
        self.mean = nn.AvgPool2d(2)
        self.fire4 = IntegerFire(5)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.bn(self.stem(x))
        x = x + self.bn2(self.conv(self.fire1(x)))
        x = self.down(self.pool(self.fire2(x)))
        return self.head(self.fire4(self.mean(self.fire3(x) * 1.0)).flatten(1))


def network(seed=0):
    torch.manual_seed(seed)
    return Branched().eval()


def pixels(n=48, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (n, *SHAPE), dtype=np.uint8)


def tuned(bits, seed=0):
    """What training leaves behind: weights off the rounded values and beyond the clamp."""
    net = snncc.on_grid(network(seed), bits, **OPTIONS).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter) * (2.0 if parameter.dim() > 1 else 0.1)
    return net


@pytest.fixture(scope="module")
def net():
    return tuned(8)


@pytest.fixture(scope="module")
def model(net):
    return snncc.compile(net, pixels(), weight_bits=8)


def assert_nothing_changed(net, model):
    assert model.report.changed == 0 == model.report.changed_teacher_forced
    assert model.report.agreement == 1.0
    assert model.report.verify.mismatched == 0
    with torch.no_grad():
        trained = net(torch.from_numpy(pixels()).float()).numpy()
    np.testing.assert_array_equal(snncc.Session(model).run(None, {"x": pixels()})[0], trained)


def test_a_tuned_network_compiles_without_a_changed_activation(net, model):
    assert_nothing_changed(net, model)


def test_weights_far_beyond_the_others_have_a_step_of_their_own():
    """A channel of variance 0, whose neurons are never driven that far up."""
    module = network()
    with torch.no_grad():
        module.bn2.running_var[0], module.bn2.weight[0], module.bn2.bias[0] = 0.0, 50.0, -1e7
    net = snncc.on_grid(module, 8, **OPTIONS).eval()
    step = net.get_submodule("conv").step
    assert step.shape == net.get_submodule("conv").weight.shape
    assert step[0].min() > 8 * step[1:].max()
    with torch.no_grad():
        net.get_submodule("conv").weight += torch.randn_like(net.get_submodule("conv").weight)
    again = snncc.on_grid(module, 8, **OPTIONS).eval()
    again.load_state_dict(net.state_dict())
    assert_nothing_changed(again, snncc.compile(again, pixels(), weight_bits=8))


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "compiled"), [(4, 4), (6, 16), (12, 12), (20, 24)])
def test_the_same_holds_for_other_bits(bits, compiled):
    net = tuned(bits, seed=bits)
    assert_nothing_changed(net, snncc.compile(net, pixels(), weight_bits=compiled))


def test_thresholds_are_those_of_the_grid(net, model):
    levels = {n.module: n.levels for n in model.program.neurons}
    theta = net.get_submodule("down").theta.numpy().astype(np.int64)
    assert (theta % 2 == 1).all()
    np.testing.assert_array_equal(levels["fire3"][:, 0], (theta + 1) // 2)


def test_weights_are_those_of_the_layer(net, model):
    weight, bias = (t.detach().numpy() for t in net.get_submodule("down").integers())
    found = next(a for a in model.program.accumulators if a.module == "down")
    np.testing.assert_array_equal(found.projections[0].total(), weight)
    np.testing.assert_array_equal(found.bias, bias)


def test_before_training_it_is_the_trained_network():
    module, x = network(), torch.from_numpy(pixels())
    net = snncc.on_grid(module, 24, **OPTIONS).eval()
    with torch.no_grad():
        trained = module((x / 255 - 0.3) / 0.25)
        torch.testing.assert_close(net(x.float()), trained, rtol=0, atol=1e-4)


@pytest.mark.parametrize("bits", [5, 8])
def test_before_training_it_is_the_compiled_network(bits):
    module = network()
    net = snncc.on_grid(module, bits, **OPTIONS).eval()
    compiled = snncc.compile(module, pixels(), weight_bits=bits, **input_options())
    trained = snncc.compile(net, pixels(), weight_bits=bits)
    for one, two in zip(compiled.program.accumulators, trained.program.accumulators, strict=True):
        for p, q in zip(one.projections, two.projections, strict=True):
            np.testing.assert_array_equal(p.total(), q.total())


def input_options():
    mean, std = OPTIONS["mean"], OPTIONS["std"]
    return {"input_shape": SHAPE, "input": InputOptions("u8", mean, std)}


def test_added_branches_share_a_grid(net):
    stem, conv = net.get_submodule("stem"), net.get_submodule("conv")
    torch.testing.assert_close(stem.theta, conv.theta)
    assert stem.step.item() == 1 < conv.step.item()


def test_weights_from_before_there_were_steps_load():
    layer = GridLinear(torch.ones(2, 3), torch.zeros(2), torch.ones(2), shift=3)
    older = {k: v for k, v in layer.state_dict().items() if k != "step"}
    layer.load_state_dict(older)
    assert layer.step.item() == 1


def test_the_grid_travels_in_the_state_dict(net):
    x = torch.from_numpy(pixels()).float()
    other = snncc.on_grid(network(seed=9), 8, **OPTIONS).eval()
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(other(x), net(x), rtol=0, atol=0)


def test_training_moves_weights_and_leaves_the_grid(net):
    net = copy.deepcopy(net).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimiser = torch.optim.SGD(net.parameters(), lr=100.0)
    net(torch.from_numpy(pixels()).float()).square().sum().backward()
    optimiser.step()
    moved = {name for name, value in net.state_dict().items() if (value != before[name]).any()}
    assert {"stem.weight", "conv.bias", "head.weight"} <= moved
    assert not any(name.endswith((".theta", ".border")) for name in moved)


def test_weights_stay_within_their_bits():
    layer = GridConv2d(torch.tensor([[[[300.0]]]]), torch.zeros(1), torch.tensor([3.0]), limit=7)
    assert layer.integers()[0].item() == 7
    assert layer(torch.ones(1, 1, 1, 1)).item() == pytest.approx(7 / 3)


def test_the_original_stays_untouched():
    module = network().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    snncc.on_grid(module, 8, **OPTIONS)
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


GRAPH = """
<ir_version: 10, opset_import: ["": 21, "ai.snncc": 1]>
g (float[N,2] x) => (float[N,2] y)
<float[2,2] w1 = {WEIGHT, 1.0, 1.0, -5.0}, float[2,2] w2 = {1.0, 2.0, 3.0, 4.0},
 float[1,2] t1 = {5.0, 7.0}, float[1,2] t2 = {THETA, 7.0}>
{
  v1 = Gemm <transB: int = 1> (x, w1)
  u1 = ai.snncc.OnGrid (v1, t1)
  v2 = Gemm <transB: int = 1> (x, w2)
  u2 = ai.snncc.OnGrid (v2, t2)
  u = Add (u1, u2)
  END
}
"""
FIRE = (
    'y = ai.snncc.IntegerFire <D: int = 4, norm: float = 1.0, rounding: string = "half-even"> (u)'
)


def plan_of(weight="3.0", theta="5.0", end=FIRE, bits=8):
    text = GRAPH.replace("WEIGHT", weight).replace("THETA", theta).replace("END", end)
    graph = ir.from_proto(onnx.parser.parse_model(text))
    planned, faults = plan(graph, bits)
    return list(planned.values()), [fault.what for fault in faults]


def test_a_frozen_grid_is_taken_as_it_is():
    planned, faults = plan_of()
    assert faults == []
    np.testing.assert_array_equal(planned[0].weight, [[3, 1], [1, -5]])


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        ({"weight": "1.5"}, "its weights are off the grid it was trained on"),
        ({"bits": 4, "weight": "9.0"}, "was trained on a grid of more than 4 bits"),
        ({"theta": "9.0"}, "adds branches that were trained on different grids"),
        ({"end": "y = Reshape (u, t2)"}, "is the result and has a grid of its own per channel"),
    ],
)
def test_what_is_off_its_grid_is_refused(broken, fault):
    assert plan_of(**broken)[1] == [fault]


def test_a_grid_cannot_be_put_on_a_grid(net):
    with pytest.raises(UsageError, match="on a grid already"):
        snncc.on_grid(net, 8)


@pytest.mark.parametrize("options", [{"weight_bits": 3, **OPTIONS}, {"mean": (0.1,)}])
def test_missing_or_impossible_options_are_named(options):
    with pytest.raises(UsageError):
        snncc.on_grid(network(), **options)


def test_linear_layers_sum_integers():
    layer = GridLinear(torch.tensor([[2.4, -3.0]]), torch.tensor([0.5]), torch.tensor([5.0]))
    x = torch.tensor([[4.0, 1.0]])
    assert layer(x).item() == pytest.approx((2 * 4 - 3 + 2) / 5)  # the bias 2.5 rounds half-even
