"""What becomes of the axis of timesteps, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from float_networks import Case, Net, case_of, front, imported, lowered
from onnx import helper
from state_networks import apart, carried, flat, mean_over_time, repeated, sequence, unrolled
from torch import nn

import snncc
from snncc.compiler import InputOptions
from snncc.errors import UnsupportedModelError
from snncc.ir.graphs import attribute
from snncc.ir.metadata import TIMESTEPS
from snncc.ir.oracle import evaluate
from snncc.nn import LIF
from snncc.passes.integers.quantise_input import QuantiseInput
from snncc.passes.time.fold_time import FoldTime

T = 3


def network(seed: int = 0) -> Net:
    """conv - repeat - LIF on [3*N, 2, 4, 4]."""
    net = Net((1, 4, 4), seed, False, 1.0)
    return carried(repeated(net.conv(2, 3, 1, 1, bias=True), T), T)


def folded(net: Net):
    model = imported(net)
    FoldTime().run(model)
    return model


def kinds(model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_the_input_is_repeated_and_the_result_summed_last():
    net = mean_over_time(network().conv(2, 3, 1, 1), T)
    model = folded(net.flatten().linear(3))
    assert kinds(model)[0] == "Repeat"
    assert kinds(model)[-1] == "TimeSum"
    assert "ReduceMean" not in kinds(model)
    assert model.metadata_props[TIMESTEPS] == str(T)


def test_networks_without_memory_stay_as_they_are():
    net = Net((1, 4, 4), 0, False, 1.0).conv(2).fire()
    assert FoldTime().run(imported(net)) == 0


def test_layers_on_separate_timesteps_fold_too():
    net = apart(network().flatten(), T)
    net.then("MatMul", net.const(net.weight((32, 5), 1.0)), module="fc")
    net.then("Add", net.const(np.arange(5)), module="fc")
    net.shape = (5,)
    model = folded(carried(flat(net), T))
    assert [tuple(v.shape)[1:] for n in model.graph for v in n.outputs][-1] == (5,)


def test_a_max_pool_does_not_pass_a_neuron_with_memory():
    net = carried(network().conv(2, 3, 1, 1).pool("MaxPool"), T)
    found = kinds(lowered(case_of(net, scale=1 / 64), 8).stages["quantised"])
    assert found[found.index("MaxPotential") + 1] == "StatefulFireCount"


def test_a_max_pool_of_spikes_stays_where_it_is():
    net = carried(network().pool("MaxPool").conv(2, 3, 1, 1), T)
    model = front(net)
    assert kinds(model).count("MaxPool") == 1


@pytest.mark.parametrize("kind", ["product", "cumulative", "neuron", "plain-repeat"])
def test_what_mixes_timesteps_is_named(kind):
    net = network()
    if kind == "product":
        mean_over_time(net, T)
        net.x = net.node("Mul", net.x, net.x, module="square")
    elif kind == "cumulative":
        apart(net, T).then("CumSum", net.const(0, np.int64), module="cumulative")
    elif kind == "neuron":
        mean_over_time(net, T).fire()
    else:
        net = carried(Net((1, 4, 4), 0, False, 1.0).conv(2), T)
    with pytest.raises(UnsupportedModelError, match="timesteps"):
        folded(net)


def test_neurons_with_other_timesteps_are_named():
    net = carried(network().conv(2, 3, 1, 1), T)
    net.nodes[-1].attribute[[a.name for a in net.nodes[-1].attribute].index("T")].i = 2
    with pytest.raises(UnsupportedModelError, match="2 timesteps, others 3"):
        folded(net)


def test_simple_decays_are_exact_and_others_are_rounded():
    net = network().conv(2, 3, 1, 1)
    net = carried(net, T, decay=float(np.float32(0.3)), gain=1.0, reset="soft")
    q = np.random.default_rng(0).integers(0, 256, (2, 1, 4, 4)).astype(np.uint8)
    case = Case(net, QuantiseInput((1 / 61.0,), (0.0,)), q)
    made = lowered(case, 8, check=False).stages["quantised"]
    found = [n for n in made.graph if n.op_type == "StatefulFireCount"]
    names = ("shift", "fraction")
    numbers = [[tuple(attribute(n, "numerator")), *(attribute(n, k) for k in names)] for n in found]
    assert numbers == [[(1,), 1, 2], [(round(float(np.float32(0.3)) * 2**16),), 16, 16]]


# -- sequences ---------------------------------------------------------------------------------


def framed(is_loop: bool) -> Net:
    """conv - LIF - conv - LIF on a sequence [N, 3, 1, 4, 4]; timesteps as an axis, or a loop."""
    net = Net((1, 4, 4), 0, False, 1.0)
    if not is_loop:
        sequence(net, T)
    for _ in range(2):
        carried(net.conv(2, 3, 1, 1, bias=True), T)
    if is_loop:
        net.timesteps = T
        unrolled(net, T)
    return net


def test_a_sequence_is_laid_out_at_the_input():
    model = folded(mean_over_time(framed(is_loop=False), T))
    assert kinds(model)[0] == "TimeFirst"
    assert kinds(model)[-1] == "TimeSum"


def test_a_loop_over_a_sequence_is_the_same_network():
    axis, loop = (folded(mean_over_time(framed(is_loop), T)) for is_loop in (False, True))
    assert kinds(loop) == kinds(axis)
    x = np.random.default_rng(0).normal(size=(2, T, 1, 4, 4)).astype(np.float32)
    one, two = (next(iter(evaluate(model, {"x": x}).values())) for model in (axis, loop))
    assert one.any()
    np.testing.assert_array_equal(one, two)


def test_samples_first_in_the_networks_own_code():
    net = Net((1, 4, 4), 0, False, 1.0)
    net.timesteps = T
    flat(net)  # [N*T, ...]
    net.conv(2, 3, 1, 1, bias=True)
    net.then("Reshape", net.const([-1, T, *net.shape], np.int64), module="lined")
    net.then("Transpose", perm=[1, 0, 2, 3, 4], module="turn")
    model = folded(mean_over_time(carried(flat(net), T), T))
    reference = carried(sequence(Net((1, 4, 4), 0, False, 1.0), T).conv(2, 3, 1, 1, bias=True), T)
    x = np.random.default_rng(0).normal(size=(2, T, 1, 4, 4)).astype(np.float32)
    one, two = (
        next(iter(evaluate(m, {"x": x}).values()))
        for m in (model, folded(mean_over_time(reference, T)))
    )
    np.testing.assert_array_equal(one, two)


def test_frames_of_a_network_without_memory_are_timesteps_too():
    net = sequence(Net((1, 4, 4), 0, False, 1.0), T).conv(2, 3, 1, 1).fire(2)
    model = folded(mean_over_time(net, T))
    assert kinds(model)[0] == "TimeFirst"
    assert model.metadata_props[TIMESTEPS] == str(T)


# -- axes after those of timesteps and samples ------------------------------------------------


def _heads(net: Net) -> None:
    net.then("Transpose", perm=[0, 1, 3, 4, 2], module="turn")


def _product(net: Net) -> None:
    other = net.node("Transpose", net.x, perm=[0, 1, 2, 4, 3], module="turn")
    net.then("MatMul", other, module="product")


def _linear(net: Net) -> None:
    net.then("MatMul", net.const(np.arange(12).reshape(4, 3)), module="linear")


def _from_the_left(net: Net) -> None:
    net.x = net.node("MatMul", net.const(np.arange(12).reshape(3, 4)), net.x, module="linear")


def _joined(net: Net) -> None:
    doubled = net.node("Mul", net.x, net.const(2), module="double")
    net.then("Concat", doubled, axis=-2, module="join")


def _picked(net: Net) -> None:
    net.then("Gather", net.const([1, 0, 1], np.int64), axis=2, module="pick")


def _ranged(net: Net) -> None:
    bounds = (net.const(v, np.int64) for v in ([1, 0], [4, 3], [-1, 3], [2, 1]))
    net.then("Slice", *bounds, module="range")


def _added(net: Net) -> None:
    net.then("ReduceSum", net.const([2, -1], np.int64), keepdims=0, module="sum")


def _regrouped(net: Net) -> None:
    """[T, N, 2, 4, 4] to [T*N, 8, 4] and on to [T, N, 4, 8], each in one step; or from [N, T]."""
    net.then("Reshape", net.const([-1, 8, 4], np.int64), module="join")
    net.then("Transpose", perm=[0, 2, 1], module="turn")
    first = [-1, T] if len(net.nodes) == 2 else [T, -1]  # two: nothing has turned the input
    net.then("Reshape", net.const([*first, 4, 8], np.int64), module="part")


def _norm(net: Net) -> None:
    """BatchNorm3d, as it is trained over [N, C, T, H, W]."""
    _channels_first(net, 0)
    numbers = (net.const(net.rng.uniform(0.5, 2, 2)) for _ in range(4))
    net.then("BatchNormalization", *numbers, module="norm")
    _channels_first(net, 1)


def _pool(net: Net) -> None:
    """MaxPool3d of (1, 2, 2)."""
    _channels_first(net, 0)
    net.then("MaxPool", kernel_shape=[1, 2, 2], strides=[1, 2, 2], module="pool")
    _channels_first(net, 1)


def _pool_where_it_is(net: Net) -> None:
    """Samples stand for channels, and channels for depth."""
    net.then("AveragePool", kernel_shape=[1, 3, 2], pads=[0, 1, 0, 0, 1, 0], module="pool")


def _conv(net: Net) -> None:
    """Conv3d of (1, 3, 3)."""
    _channels_first(net, 0)
    weights = net.const(net.rng.normal(size=(3, 2, 1, 3, 3)))
    net.then("Conv", weights, net.const([1, 2, 3]), pads=[0, 1, 1] * 2, module="conv")
    _channels_first(net, 1)


def _channels_first(net: Net, back: int) -> None:
    """[T, N, C, H, W] or [N, T, C, H, W] as [N, C, T, H, W]; or that as before."""
    lined = len(net.nodes) == 2 * back  # nothing has turned the input before
    there = [0, 2, 1, 3, 4] if lined else [1, 2, 0, 3, 4]
    order = [there.index(i) for i in range(5)] if back else there
    net.then("Transpose", perm=order, module=f"turn{back}")


def _padded(net: Net) -> None:
    pads = net.const([0, 0, 0, 1, 0, 0, 0, 1, 0, 2], np.int64)
    net.then("Pad", pads, net.const(0.5), mode="constant", module="pad")


def _soft(net: Net) -> None:
    net.then("Softmax", axis=2, module="soft")


def _repeated_rows(net: Net) -> None:
    net.then("ReduceMean", net.const([3], np.int64), keepdims=1, module="mean")
    net.then("Expand", net.const([1, 1, 1, 5, 1], np.int64), module="repeat")
    net.then("Mul", net.const(np.arange(5).reshape(5, 1)), module="scale")


@pytest.mark.parametrize("lined", [False, True], ids=["[T, N, ...]", "[N, T, ...]"])
@pytest.mark.parametrize(
    "what",
    [
        *(_heads, _product, _linear, _from_the_left, _joined, _picked, _ranged, _added),
        *(_regrouped, _norm, _pool, _pool_where_it_is, _conv, _padded, _soft, _repeated_rows),
    ],
)
def test_what_happens_behind_the_axes_of_timesteps_and_samples_folds(what, lined):
    net = Net((2, 4, 4), 0, False, 1.0)
    if lined:
        net.timesteps = T
    else:
        apart(sequence(net, T), T)
    what(net)
    net.then("ReduceMean", net.const([int(lined)], np.int64), keepdims=0, module="over_time")
    x = np.random.default_rng(0).normal(size=(2, T, 2, 4, 4)).astype(np.float32)
    model = imported(net)
    (wanted,) = evaluate(model, {"x": x}).values()
    FoldTime().run(model)
    assert kinds(model)[-1] == "TimeSum"
    (found,) = evaluate(model, {"x": x}).values()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lined", [False, True])
def test_a_mean_over_samples_is_called_that_with_advice(lined):
    net = Net((4,), 0, False, 1.0)
    if lined:
        net.timesteps = T
    else:
        apart(sequence(net, T), T)
    net.then("ReduceMean", net.const([int(not lined)], np.int64), keepdims=0, module="mean")
    with pytest.raises(UnsupportedModelError) as caught:
        folded(net)
    (fault,) = caught.value.faults
    assert fault.what == "averages or adds up samples"
    assert "[N, T, ...] needs batch_first=True" in fault.todo


def test_a_neuron_of_other_timesteps_than_the_sequence_is_named():
    net = framed(is_loop=False)
    net.timesteps = T + 1
    with pytest.raises(UnsupportedModelError, match="3 timesteps, the input has 4"):
        folded(net)


def _last_alone(net: Net, steps: list[str]) -> None:
    net.x = steps[-1]


def _backwards(net: Net, steps: list[str]) -> None:
    net.x = net.node("Concat", *steps[::-1], axis=0)


def _rows(net: Net, steps: list[str]) -> None:
    """A neuron that takes samples for timesteps."""
    lined = [net.node("Unsqueeze", step, net.const([1], np.int64)) for step in steps]
    net.x = net.node("Concat", *lined, axis=1)
    carried(flat(net), T)


def _turned(net: Net, step: str) -> str:
    return net.node("Transpose", step, perm=[0, 1, 3, 2], module="turn")


def _turned_sum(net: Net, steps: list[str]) -> None:
    """Sizes are the same, elements are not."""
    net.x = steps[0]
    for step in steps[1:]:
        net.then("Add", _turned(net, step), module="running")


def _turned_stack(net: Net, steps: list[str]) -> None:
    net.x = net.node("Concat", steps[0], _turned(net, steps[1]), steps[2], axis=0, module="stack")


def _twice(net: Net, steps: list[str]) -> None:
    net.x = net.node("Add", net.node("Add", steps[2], steps[1]), steps[1])


def _some(net: Net, steps: list[str]) -> None:
    net.x = net.node("Add", steps[1], steps[2])


def _faded(net: Net, steps: list[str]) -> None:
    """Each timestep has a factor of its own."""
    faded = [net.node("Mul", step, net.const(2.0**-t)) for t, step in enumerate(steps)]
    net.x = net.node("Concat", *faded, axis=0, module="stack")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_last_alone, "that of timestep 2 alone"),
        (_backwards, "has timesteps in another order"),
        (_rows, r"takes \[N·T, 2, 4, 4\] for \[T·N, ...\], so that samples become timesteps"),
        (_turned_sum, "whose timesteps are in different places"),
        (_turned_stack, "timestep 1 is laid out otherwise than timestep 0"),
        (_twice, r"mixes the timesteps of \[N, 2, 4, 4\] of timestep 1, 2"),
        (_some, "that of timestep 1, 2 alone"),
        (_faded, "timestep 1 is not computed as timestep 0 is"),
    ],
)
def test_what_a_loop_may_not_do_with_its_timesteps_is_named(spoil, why):
    net = framed(is_loop=True)
    spoil(net, list(net.nodes.pop().input))
    with pytest.raises(UnsupportedModelError, match=why):
        folded(net)


def _as_channels(net: Net) -> Net:
    """[T, N, C, H, W] as [N, T, C * H, W]; then a layer over "channels"."""
    net.then("Transpose", perm=[1, 0, 2, 3, 4], module="turn")
    net.then("Reshape", net.const([-1, T, 8, 4], np.int64), module="image")
    weights = net.const(np.ones((2, T, 3, 3), np.float32))
    return net.then("Conv", weights, module="conv")


def _backwards_in_time(net: Net) -> Net:
    """flip: a slice of the same sizes."""
    bounds = [net.const([n], np.int64) for n in (-1, -(2**31), 0, -1)]
    return net.then("Slice", *bounds, module="flip")


def _summed_up(net: Net) -> Net:
    return net.then("CumSum", net.const(0, np.int64), module="cumulative")


def _of_two_layouts(net: Net) -> Net:
    flat_one = net.node("Reshape", net.x, net.const([-1, *net.shape], np.int64), module="flat")
    return net.then("Mul", flat_one, module="both")


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (_as_channels, "works along axis 1 of [N, T, 8, 4], which holds T"),
        (_backwards_in_time, "of [T, N, 2, 4, 4] makes a value in which timesteps cannot be"),
        (_summed_up, "mixes the timesteps of [T, N, 2, 4, 4]"),
        (_of_two_layouts, "reads [T, N, 2, 4, 4] and [T·N, 2, 4, 4], whose timesteps are in"),
    ],
)
def test_a_refusal_says_which_axes_there_are(spoil, what):
    net = spoil(apart(network(), T))
    with pytest.raises(UnsupportedModelError) as caught:
        folded(net)
    assert caught.value.faults[0].what.startswith(what)


def test_timesteps_before_channels_are_not_those_after_them():
    """Both are [N, T * 2, 4, 4]."""
    net = apart(sequence(Net((2, 4, 4), 0, False, 1.0), T), T)
    orders = ([1, 0, 2, 3, 4], [1, 2, 0, 3, 4])
    one, two = (
        net.node(
            "Reshape",
            net.node("Transpose", net.x, perm=order, module=f"turn{i}"),
            net.const([-1, T * 2, 4, 4], np.int64),
            module=f"join{i}",
        )
        for i, order in enumerate(orders)
    )
    for join in ("Add", "Concat"):
        attributes = {"axis": 2} if join == "Concat" else {}
        net.x = net.node(join, one, two, module="both", **attributes)
        with pytest.raises(UnsupportedModelError, match="timesteps"):
            folded(net)


def test_a_mean_of_some_timesteps_is_no_mean_over_time():
    """Of [2, 2, N, 4], half by half."""
    net = sequence(Net((4,), 0, False, 1.0), 4)
    net.then("Reshape", net.const([2, 2, -1, 4], np.int64), module="halves")
    net.then("ReduceMean", net.const([0], np.int64), keepdims=0, module="mean")
    with pytest.raises(UnsupportedModelError, match="mixes the timesteps"):
        folded(net)


def test_a_constant_for_each_timestep_of_what_is_the_same_in_all_is_refused():
    net = Net((4,), 0, False, 1.0).linear(4)
    net.then("Unsqueeze", net.const([0], np.int64), module="once")
    net.then("Add", net.const(np.arange(T).reshape(T, 1, 1)), module="embedding")
    with pytest.raises(UnsupportedModelError, match="mixes the timesteps"):
        folded(carried(flat(net), T))


@pytest.mark.parametrize("is_apart", [True, False])
def test_parts_of_channels_are_slices_of_all_timesteps(is_apart):
    """As one layer for q, k and v is split: chunk."""
    net = carried(network().conv(6, 3, 1, 1), T)
    if is_apart:
        apart(net, T)
    axis = 2 if is_apart else 1
    parts = [f"part{i}" for i in range(3)]
    net.nodes.append(helper.make_node("Split", [net.x], parts, "split", axis=axis, num_outputs=3))
    net.x, net.shape = net.node("Add", net.node("Sub", parts[0], parts[1]), parts[2]), (2, 4, 4)
    found = kinds(folded(flat(net) if is_apart else net))
    assert found.count("Slice") == 3
    assert "Split" not in found


class EachTimestep(nn.Module):
    """A classifier whose bias is zero, for every timestep."""

    def __init__(self):
        super().__init__()
        self.conv, self.lif, self.fc = nn.Conv2d(1, 4, 3), LIF(), nn.Linear(4, 3)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x):
        spikes = self.lif(4 * self.conv(x).unsqueeze(0).repeat(T, 1, 1, 1, 1))
        return self.fc(spikes.flatten(3).mean(3))


def test_a_bias_of_zeros_is_no_start_of_a_running_sum():
    """The result is known by its own name: what it is compared with is named so."""
    torch.manual_seed(0)
    x = np.random.default_rng(0).integers(0, 256, (8, 1, 5, 5)).astype(np.uint8)
    pixels = InputOptions(mode="u8", mean=(0.0,), std=(1.0,))
    given = {"input_shape": (1, 5, 5), "weight_bits": 24, "input": pixels}
    report = snncc.compile(EachTimestep().eval(), x, **given).report
    assert (report.import_law.neurons, report.changed, report.verify.mismatched) == (1, 0, 0)
