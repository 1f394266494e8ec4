from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from float_networks import Case, Net, imported, lowered, shared_values
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import interpret
from torch import nn

import snncc
from snncc.backends.clocked.engine import ClockedEngine
from snncc.backends.integer import IntegerEngine, SpikeFormEngine
from snncc.compiler import InputOptions
from snncc.frontends.pytorch import import_module
from snncc.ir.graphs import attribute, nodes, to_proto
from snncc.ir.oracle import evaluate
from snncc.nn import LIF, IntegerFire
from snncc.passes import FRONT, PassManager, QuantiseInput, front
from snncc.passes.fold.merge_linear import MergeLinear
from snncc.passes.fold.no_neuron_between import MERGE
from snncc.passes.judge.diagnose import diagnose
from snncc.passes.padding import read_padding
from snncc.passes.spikes.build_program import build_program

Pads = tuple[int, int, int, int]
SCALE = QuantiseInput(scale=(1 / 64,), offset=(0.0,))

MERGED = front(merge=MergeLinear(MERGE))


# -- as users write it ----------------------------------------------------------------------


class NormThenBorder(nn.Module):
    """Batch norm, then a border of what it makes of zero."""

    def __init__(self, channels: int, width: int = 1) -> None:
        super().__init__()
        self.bn, self.width = nn.BatchNorm2d(channels), width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bn, p = self.bn, self.width
        zero = bn.bias.detach() - bn.running_mean * bn.weight.detach() / torch.sqrt(
            bn.running_var + bn.eps
        )
        y = nn.functional.pad(bn(x), [p] * 4)
        value = zero.view(1, -1, 1, 1)
        y[:, :, :p] = value
        y[:, :, -p:] = value
        y[..., :p] = value
        y[..., -p:] = value
        return y


def rep_conv(c: int, out: int) -> nn.Sequential:
    after = nn.Sequential(
        nn.Conv2d(c, c, 3, groups=c, bias=False), nn.Conv2d(c, out, 1, bias=False)
    )
    return nn.Sequential(
        nn.Conv2d(c, c, 1, bias=False), NormThenBorder(c), after, nn.BatchNorm2d(out)
    )


class Scaled(nn.Module):
    """One factor per channel, as ``layer_scale``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, channels).view(-1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


class Residual(nn.Module):
    """x + scaled, twice normalised RepConv of the spikes of x; then a chain of 1x1 layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3)
        self.branch = nn.Sequential(IntegerFire(4), rep_conv(4, 4), nn.BatchNorm2d(4), Scaled(4))
        self.chain = nn.Sequential(
            IntegerFire(4, 4.0), nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 1),
            nn.BatchNorm2d(4), nn.BatchNorm2d(4), Scaled(4),
        )  # fmt: skip
        self.fire = IntegerFire(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.branch(x)
        y: torch.Tensor = self.fire(x + self.chain(x))
        return y


@pytest.fixture(scope="module")
def residual() -> tuple[nn.Module, ir.Model, np.ndarray]:
    torch.manual_seed(3)
    net = Residual().eval()
    for bn in net.modules():
        if isinstance(bn, nn.BatchNorm2d):
            nn.init.normal_(bn.running_mean, 0, 0.3)
            nn.init.uniform_(bn.running_var, 0.3, 1.5)
            nn.init.uniform_(bn.weight, 0.5, 1.5)
            nn.init.normal_(bn.bias, 0.2, 0.3)
    q = np.random.default_rng(0).integers(0, 256, (6, 2, 8, 7)).astype(np.uint8)
    return net, import_module(net, (2, 8, 7)), q


def feeds_of(model: ir.Model, q: np.ndarray) -> dict[str, np.ndarray]:
    name = str(model.graph.inputs[0].name)
    return {name: (q / 64).astype(np.float32), f"{name}:u8": q}


def test_each_rep_conv_becomes_one_convolution_with_a_plain_bias(residual: Any) -> None:
    net, model, q = residual
    feeds = feeds_of(model, q)
    after = PassManager(MERGED, feeds).run(model)  # validates every value within the float margin
    kinds = [node.op_type for node in after.graph]
    assert sorted(kinds) == sorted(["Conv"] * 3 + ["Add"] * 2 + ["IntegerFire"] * 3)
    (folded,) = [n for n in nodes(after, "Conv") if attribute(n, "pads") == [1, 1, 1, 1]]
    assert tuple(folded.inputs[1].shape) == (4, 4, 3, 3)
    with torch.no_grad():
        expected = net(torch.from_numpy(feeds[str(model.graph.inputs[0].name)])).numpy()
    found = evaluate(after, feeds)[str(after.graph.outputs[0].name)]
    assert (found != expected).mean() < 0.001  # at rounding borders
    assert len(np.unique(expected)) == 5


def test_rep_conv_spikes_alike_on_every_engine(residual: Any) -> None:
    _, model, q = residual
    assert_engines_agree(model, q)


class Tokens(nn.Module):
    """The token mixer of RepConv attention: RepConv for q, k, v and the product; then an MLP."""

    def __init__(self, c: int = 4) -> None:
        super().__init__()
        self.q, self.k, self.v, self.proj = (rep_conv(c, c) for _ in range(4))
        self.fires = nn.ModuleList(IntegerFire(4) for _ in range(6))
        self.mlp = nn.Sequential(nn.Conv1d(c, 2 * c, 1), nn.BatchNorm1d(2 * c), IntegerFire(4),
                                 nn.Conv1d(2 * c, c, 1), nn.BatchNorm1d(c))  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size, s = x.shape, self.fires[0](x)
        q, k, v = (
            fire(layer(s)).flatten(2).transpose(-1, -2).reshape(size[0], -1, 2, 2).transpose(1, 2)
            for fire, layer in zip(self.fires[1:4], (self.q, self.k, self.v), strict=True)
        )
        y = (q @ (k.transpose(-2, -1) @ v) * 0.25).transpose(2, 3).reshape(*size[:2], -1)
        x = x + self.proj(self.fires[4](y).reshape(size)).reshape(size)
        tokens: torch.Tensor = self.mlp(self.fires[5](x.flatten(2)))
        return x + tokens.reshape(size)


def test_tokens_are_followed_behind_borders_of_batch_norms() -> None:
    """Rows of a border are written as slices and transposes of a map, which make no tokens."""
    torch.manual_seed(5)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), Tokens(), IntegerFire(4)).eval()
    for bn in net.modules():
        if isinstance(bn, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(bn.running_mean, 0, 0.3)
            nn.init.normal_(bn.bias, 0.6, 0.3)
    model = import_module(net, (2, 6, 6))
    q = np.random.default_rng(0).integers(0, 256, (3, 2, 6, 6)).astype(np.uint8)
    after = PassManager(MERGED, feeds_of(model, q)).run(model)
    assert diagnose(after).faults == ()
    assert {node.op_type for node in after.graph} == {
        "Conv", "IntegerFire", "Add", "Attention", "Mul",
    }  # fmt: skip
    assert_engines_agree(model, q)


def assert_engines_agree(model: ir.Model, q: np.ndarray) -> None:
    from snncc.passes import pipeline

    manager = PassManager(pipeline(SCALE, 8), feeds_of(model, q))
    manager.run(model)
    program = build_program(manager.stages["quantised"], "net")
    counts, _, readouts = interpret(program, q[:1])
    engines = (
        IntegerEngine(to_proto(manager.stages["quantised"]), program),
        SpikeFormEngine(to_proto(manager.stages["spiking"]), program),
        ClockedEngine(program),
    )
    for engine in engines:
        got = engine.run(q[:1])
        for name, values in counts.items():
            np.testing.assert_array_equal(got.counts[name], values, err_msg=engine.name)
        np.testing.assert_array_equal(got.readouts["output"], readouts["output"])


# -- all spellings of a border ---------------------------------------------------------------


def _grown(net: Net, pads: Pads) -> None:
    c, h, w = net.shape
    net.shape = (c, h + pads[0] + pads[2], w + pads[1] + pads[3])


def _zeros(net: Net, pads: Pads) -> None:
    ends = [0, 0, pads[0], pads[1], 0, 0, pads[2], pads[3]]
    net.then("Pad", net.const(ends, np.int64), mode="constant")


def _shifted(net: Net, pads: Pads, v: np.ndarray) -> None:
    net.affine("Sub", v, per_channel=True)
    _zeros(net, pads)
    _grown(net, pads)
    net.affine("Add", v, per_channel=True)


def _where(net: Net, pads: Pads, v: np.ndarray) -> None:
    inside = np.pad(np.ones((1, 1, *net.shape[1:]), bool), ((0, 0), (0, 0), pads[::2], pads[1::2]))
    _zeros(net, pads)
    _grown(net, pads)
    net.x = net.node("Where", net.const(inside, bool), net.x, net.const(v.reshape(1, -1, 1, 1)))


def _concat(net: Net, pads: Pads, v: np.ndarray) -> None:
    count = net.node("Shape", "x", start=0, end=1)
    for axis, (before, after) in ((2, pads[::2]), (3, pads[1::2])):
        parts = []
        for width in (before, after):
            size = list(net.shape)
            size[axis - 1] = width
            shape = net.node("Concat", count, net.const(size, np.int64), axis=0)
            parts.append(net.node("Expand", net.const(v.reshape(1, -1, 1, 1)), shape))
        net.x = net.node("Concat", parts[0], net.x, parts[1], axis=axis)
        grown = list(net.shape)
        grown[axis - 1] += before + after
        net.shape = tuple(grown)


def _of_one(net: Net, pads: Pads, v: np.ndarray) -> None:
    ends = [0, 0, pads[0], pads[1], 0, 0, pads[2], pads[3]]
    net.then("Pad", net.const(ends, np.int64), net.const(v[0]), mode="constant")
    _grown(net, pads)


BORDERS = {"shifted": _shifted, "where": _where, "concat": _concat, "one value": _of_one}
SIDES = st.tuples(*[st.integers(0, 2)] * 4)


def sample(net: Net) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (2, *net.input)).astype(np.uint8)


@pytest.mark.parametrize("spelling", BORDERS)
@settings(max_examples=6, deadline=None)
@given(pads=SIDES, ahead=st.sampled_from(["input", "spikes", "pointwise"]), seed=st.integers(0, 99))
def test_a_border_of_constants_joins_the_convolution(
    spelling: str, pads: Pads, ahead: str, seed: int
) -> None:
    net = Net((2, 4, 4), seed)
    if ahead == "spikes":
        net.fire()
    elif ahead == "pointwise":
        net.conv(3, 1)
    v = net.rng.normal(0, 1, net.shape[0]).astype(np.float32)
    BORDERS[spelling](net, pads, v)
    net.conv(3, (2, 3), stride=(1, 2), pads=seed % 2).batch_norm().fire()
    case = Case(net, SCALE, sample(net))
    manager = lowered(case, form=MERGE)
    assert sum(1 for _ in nodes(manager.after["merge-linear"], "Conv")) == 1
    assert not list(nodes(manager.after["merge-linear"], "Pad", "Where", "Concat"))


@settings(max_examples=10, deadline=None)
@given(pads=SIDES, own=SIDES, seed=st.integers(0, 99))
def test_zeros_ahead_of_a_convolution_are_its_own_padding(pads: Pads, own: Pads, seed: int) -> None:
    net = Net((2, 4, 4), seed)
    _zeros(net, pads)
    _grown(net, pads)
    net.conv(3, 3, stride=(2, 1), pads=own).fire()
    case = Case(net, SCALE, sample(net))
    manager = PassManager(MERGED, case.feeds)
    after = manager.run(imported(net))
    (layer,) = nodes(after, "Conv")
    assert attribute(layer, "pads") == [a + b for a, b in zip(pads, own, strict=True)]
    assert [n.op_type for n in after.graph] == ["Conv", "IntegerFire"]
    same = shared_values(manager.after["import"], manager.after["canonicalise"])
    assert layer.outputs[0].name in same  # compared by the manager


def test_a_border_other_than_BN_of_zero_stays_exact_as_a_bias_map() -> None:
    net = Net((2, 4, 4)).conv(3, 1, bias=False).batch_norm()
    _where(net, (1, 1, 1, 1), np.array([0.5, -1, 2], np.float32))
    net.conv(3, 3, group=3, bias=False).conv(4, 1).batch_norm().fire()
    case = Case(net, SCALE, sample(net))
    after = lowered(case, form=MERGE).after["merge-linear"]
    assert [n.op_type for n in after.graph] == ["Conv", "Add", "IntegerFire"]


@pytest.mark.parametrize("width", [0, 1, 2])
def test_a_border_of_BN_of_zero_stays_uniform_through_scales(width: int) -> None:
    """The border is the image of zero of a whole chain of affine maps."""
    net = Net((2, 4, 4)).conv(3, 1, bias=False).batch_norm().batch_norm()
    net.affine("Mul", [0.5, -1.5, 2.0], per_channel=True)
    zero = evaluate(imported(net), {"x": np.zeros((1, 2, 4, 4), np.float32)})
    (image,) = zero.values()
    _where(net, (width,) * 4, image[0, :, 0, 0])
    net.conv(3, 3, group=3, bias=False).conv(4, 1).batch_norm().fire()
    case = Case(net, SCALE, sample(net))
    after = lowered(case, form=MERGE).after["merge-linear"]
    assert [n.op_type for n in after.graph] == ["Conv", "IntegerFire"]


# -- what is no such border -------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_copies_of_live_values_are_refused_with_advice(mode: str) -> None:
    net = Net((2, 4, 4))
    net.then("Pad", net.const([0, 0, 1, 1, 0, 0, 1, 1], np.int64), mode=mode, module="pad")
    _grown(net, (1, 1, 1, 1))
    net.conv(3).fire()
    (fault,) = diagnose(PassManager(FRONT).run(imported(net))).faults
    assert (fault.kind, fault.module) == ("Pad", "pad")
    assert "copies of live values" in fault.what
    assert "zeros" in fault.todo


def test_a_border_no_convolution_reads_is_refused_with_advice() -> None:
    net = Net((2, 4, 4)).conv(3)
    _zeros(net, (1, 1, 1, 1))
    _grown(net, (1, 1, 1, 1))
    net.fire()
    (fault,) = diagnose(PassManager(FRONT).run(imported(net))).faults
    assert fault.what == "a border that no convolution takes up"


def _rolled(net: Net) -> None:
    parts = [
        net.node("Slice", net.x, *(net.const([v], np.int64) for v in ends))
        for ends in ((1, 4, 2), (0, 1, 2))
    ]
    net.x = net.node("Concat", *parts, axis=2)


def _cropped(net: Net) -> None:
    net.then("Pad", net.const([0, 0, -1, 0, 0, 0, 1, 0], np.int64), mode="constant")


def _masked(net: Net) -> None:
    live = net.node("Greater", net.x, net.const(0.5))
    net.x = net.node("Where", live, net.x, net.const(np.zeros((1, 2, 1, 1))))


def _uneven(net: Net) -> None:
    rows = np.arange(8, dtype=np.float32).reshape(1, 2, 4, 1)
    net.x = net.node("Concat", net.x, net.const(rows), axis=3)


@pytest.mark.parametrize("move", [_rolled, _cropped, _masked, _uneven])
def test_other_moves_are_no_padding(move: Any) -> None:
    net = Net((2, 4, 4))
    move(net)
    if move is _uneven:
        net.shape = (2, 4, 5)
    assert read_padding(imported(net).graph.outputs[0]) is None


class OverTime(nn.Module):
    """RepConv between neurons with memory, in T timesteps."""

    def __init__(self, T: int) -> None:
        super().__init__()
        self.T, self.stem = T, nn.Conv2d(2, 4, 3, padding=1)
        self.first, self.second = LIF(), LIF()
        self.block, self.fc = rep_conv(4, 5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        drive = self.stem(x).unsqueeze(0).repeat(self.T, 1, 1, 1, 1)
        T, N, _, H, W = drive.shape
        spikes = self.first(4 * drive)
        made = self.block(spikes.flatten(0, 1)).reshape(T, N, -1, H, W)
        return self.fc(self.second(4 * made + 1).mean((3, 4))).mean(0)


@pytest.mark.parametrize("T", [1, 3])
def test_a_border_that_is_written_around_maps_of_several_timesteps_folds(T: int) -> None:
    torch.manual_seed(0)
    net = OverTime(T)
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, 0.2, 0.8)
        norm.running_mean.uniform_(-0.5, 0.5)
    x = np.random.default_rng(0).integers(0, 256, (12, 2, 6, 6)).astype(np.uint8)
    pixels = InputOptions(mode="u8", mean=(0.0,), std=(1.0,))
    model = snncc.compile(net.eval(), x, input_shape=(2, 6, 6), weight_bits=24, input=pixels)
    report = model.report
    assert (report.import_law.neurons, report.changed, report.verify.mismatched) == (2, 0, 0)
    assert not report.verify.coverage.silent
    assert [p.weights[0].shape for a in model.program.accumulators for p in a.projections] == [
        (4, 2, 3, 3),
        (5, 4, 3, 3),
        (3, 5),
    ]
