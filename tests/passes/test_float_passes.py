"""Laws of the passes between stages imported and integer, on every kind of network they meet.

That a pass keeps the meaning is what the pass manager checks on every value, teacher-forced; here
the networks are chosen so that there is something to keep.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache

import numpy as np
import onnx_ir as ir
import pytest
from float_networks import Case, Net, case_of, examples, imported
from hypothesis import given, settings
from random_networks import networks
from state_networks import carried, repeated

from snncc.errors import UnsupportedModelError
from snncc.ir.graphs import nodes
from snncc.ir.oracle import evaluate
from snncc.passes import (
    FRONT,
    CommuteMaxPool,
    FoldScale,
    Pass,
    PassManager,
    RequireInteger,
    front,
)
from snncc.passes.fold.merge_linear import MergeLinear
from snncc.passes.fold.no_neuron_between import MERGE

MERGED = front(merge=MergeLinear(MERGE))
ALL: tuple[Pass, ...] = (*MERGED, RequireInteger(), CommuteMaxPool(), FoldScale())


def conv_bn(net: Net) -> Net:
    return net.conv(3, pads=1).batch_norm().fire().mean().linear(3)


def grouped(net: Net) -> Net:
    return net.conv(4, group=2, stride=2, pads=[1, 0, 2, 1]).batch_norm().fire().flatten().linear(3)


def depthwise_separable(net: Net) -> Net:
    net.conv(4, pads=1, group=2).batch_norm().conv(3, 1).batch_norm().fire()
    return net.mean().linear(3)


def dilated(net: Net) -> Net:
    return net.conv(3, dilation=2, pads=2, bias=False).batch_norm().fire().flatten().linear(2)


def norm_before_a_padded_conv(net: Net) -> Net:
    net.conv(3, pads=1).fire().batch_norm().conv(4, pads=[1, 2, 0, 1], stride=2)
    return net.batch_norm().fire().flatten().linear(3)


def pointwise_then_padded(net: Net) -> Net:
    return net.conv(1, 1).conv(3, 3, pads=1).batch_norm().fire().flatten().linear(3)


def depthwise_then_padded(net: Net) -> Net:
    return net.conv(2, 1, group=2).conv(3, 3, pads=1).fire().flatten().linear(3)


def padded_then_pointwise(net: Net) -> Net:
    return (
        net.conv(3, 3, pads=1).batch_norm().conv(4, 1).conv(2, 1, group=2).fire().mean().linear(2)
    )


def bottleneck(net: Net) -> Net:
    """1x1, 3x3, 1x1 without a neuron between, as RepConv is trained."""
    net.conv(4, 1).batch_norm().conv(4, 3, pads=1, group=4).batch_norm().conv(3, 1).batch_norm()
    return net.fire().mean().linear(3)


def two_linear_layers(net: Net) -> Net:
    return net.flatten().linear(7).linear(5, matmul=True).batch_norm().fire().linear(3).linear(2)


def flatten_first(net: Net) -> Net:
    return net.flatten().linear(6).batch_norm().fire().batch_norm().linear(3)


def norm_of_the_input(net: Net) -> Net:
    net.affine("Sub", [0.5, 0.25], True).affine("Div", [2, 0.5], True)
    return net.conv(3, pads=1).fire().mean().linear(3)


def norm_of_the_input_of_a_perceptron(net: Net) -> Net:
    net.affine("Sub", [0.5, 0.25], True).affine("Div", [2, 0.5], True)
    return net.flatten().linear(4).fire().linear(3)


def norm_behind_a_neuron(net: Net) -> Net:
    net.conv(3).fire().batch_norm().pool("AveragePool").flatten().linear(5).fire()
    return net.batch_norm().linear(2)


def norm_behind_an_average_of_potentials(net: Net) -> Net:
    return net.conv(3).pool("AveragePool").batch_norm().fire().flatten().linear(3)


def norm_behind_a_padded_average(net: Net) -> Net:
    return net.conv(3).pool("AveragePool", 3, 2, 1).batch_norm().fire().flatten().linear(3)


def scale_behind_a_mean(net: Net) -> Net:
    net.conv(3).mean().affine("Mul", [0.5, -2, 3], True).affine("Add", 1.0).fire()
    return net.linear(3)


def scale_behind_averaged_spikes(net: Net) -> Net:
    net.conv(3).fire().pool("AveragePool").affine("Mul", [0.5, -2, 3], True)
    return net.affine("Add", 1.0).flatten().linear(4).fire().linear(2)


def positive_norm_behind_a_max_pool(net: Net) -> Net:
    net.conv(3).pool("MaxPool", 3, 2, 1).batch_norm(negative=False).fire()
    return net.flatten().linear(3)


def max_pools_before_a_neuron(net: Net) -> Net:
    return net.conv(3, pads=2).pool("MaxPool").pool("MaxPool", 3, 1, 1).fire(3).flatten().linear(3)


def max_pools_behind_a_neuron(net: Net) -> Net:
    return net.conv(3, pads=2).fire(3, 3.0).pool("MaxPool").pool("MaxPool").flatten().linear(3)


def averages_of_averages(net: Net) -> Net:
    net.conv(3, pads=2).pool("AveragePool").pool("AveragePool", 2, 1).fire().conv(2).fire(5, 2.0)
    return net.pool("AveragePool", 2, 1, [1, 0, 0, 1]).pool("AveragePool", 2, 1).flatten().linear(2)


def spikes_mean_neuron(net: Net) -> Net:
    return net.conv(4).fire(4, 4.0).mean().fire(2).linear(3)


def neuron_on_the_input(net: Net) -> Net:
    return net.fire(4).pool("AveragePool").fire(3).conv(2).fire().flatten().linear(2)


def pools_of_the_input(net: Net) -> Net:
    return (
        net.pool("MaxPool", 3, 2, 1).pool("AveragePool", 2, 1).conv(3, 2).fire().flatten().linear(2)
    )


def stream(net: Net) -> Net:
    """A potential that a neuron and a later sum read."""
    first = net.conv(3, pads=1).batch_norm().x
    net.fire().conv(3, pads=1).batch_norm().add(first).fire()
    return net.mean().linear(2)


def parallel(net: Net) -> Net:
    """RepConv: two layers read the same spikes, and meet."""
    net.conv(3, pads=1).fire()
    spikes, shape = net.x, net.shape
    one = net.conv(3, 3, pads=1).batch_norm().x
    net.x, net.shape = spikes, shape
    return net.conv(3, 1).batch_norm().add(one).affine("Mul", 0.5).fire().mean().linear(2)


def sum_of_spikes(net: Net) -> Net:
    first = net.conv(3, pads=1).fire(4, 4.0).x
    return net.conv(3, pads=1).fire(3).add(first).conv(2, pads=1).fire().mean().linear(2)


def concatenation(net: Net) -> Net:
    first = net.conv(3, pads=1).fire(4, 4.0).x
    net.conv(2, pads=1).fire(3).concat(first, 3)
    return net.pool("AveragePool").conv(2, pads=1).fire().mean().linear(2)


NETWORKS: list[Callable[[Net], Net]] = [
    conv_bn,
    grouped,
    depthwise_separable,
    dilated,
    norm_before_a_padded_conv,
    pointwise_then_padded,
    depthwise_then_padded,
    padded_then_pointwise,
    bottleneck,
    two_linear_layers,
    flatten_first,
    norm_of_the_input,
    norm_of_the_input_of_a_perceptron,
    norm_behind_a_neuron,
    norm_behind_an_average_of_potentials,
    norm_behind_a_padded_average,
    scale_behind_a_mean,
    scale_behind_averaged_spikes,
    positive_norm_behind_a_max_pool,
    max_pools_before_a_neuron,
    max_pools_behind_a_neuron,
    averages_of_averages,
    spikes_mean_neuron,
    neuron_on_the_input,
    pools_of_the_input,
    stream,
    parallel,
    sum_of_spikes,
    concatenation,
]


def built(author: Callable[[Net], Net]) -> Case:
    return case_of(author(Net((2, 8, 8), seed=7, rms=2.0)), samples=3)


@cache
def run(author: Callable[[Net], Net], passes: tuple[Pass, ...] = ALL) -> PassManager:
    case = built(author)
    manager = PassManager(passes, feeds=case.feeds)
    manager.run(imported(case.net))
    return manager


def kinds(model: ir.Model) -> Counter[str]:
    return Counter(n.op_type for n in model.graph)


@pytest.mark.parametrize("author", NETWORKS)
def test_every_pass_keeps_the_meaning_of_every_value(author: Callable[[Net], Net]) -> None:
    manager = run(author)
    assert [r.checked > 0 for r in manager.records if r.rewrites] == [True] * sum(
        r.rewrites > 0 for r in manager.records
    )
    assert max(r.worst for r in manager.records) < 2e-6


@pytest.mark.parametrize("author", NETWORKS)
def test_a_second_run_rewrites_nothing(author: Callable[[Net], Net]) -> None:
    case = built(author)
    model = imported(case.net)
    for step in ALL:
        model = PassManager([step]).run(model)
        again = model.clone()
        assert step.run(again) == 0, step.name


@settings(max_examples=examples(12))
@given(networks())
def test_a_second_run_of_all_passes_rewrites_nothing(case: Case) -> None:
    model = PassManager(FRONT).run(imported(case.net))
    second = PassManager(FRONT)
    second.run(model)
    assert [(r.name, r.rewrites) for r in second.records] == [(p.name, 0) for p in FRONT]


@pytest.mark.parametrize("author", NETWORKS)
def test_what_comes_out_is_what_went_in(author: Callable[[Net], Net]) -> None:
    """End to end without teacher: single activations may flip at a border, not more."""
    case = built(author)
    model = PassManager((*FRONT, RequireInteger(), CommuteMaxPool())).run(imported(case.net))
    (before,) = evaluate(imported(case.net), case.feeds).values()
    (after,) = evaluate(model, case.feeds).values()
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-3)


# -- what is gone afterwards ---------------------------------------------------------------


@pytest.mark.parametrize("author", NETWORKS)
def test_no_batch_norm_is_left(author: Callable[[Net], Net]) -> None:
    assert not kinds(run(author).stages["integer"])["BatchNormalization"]


@pytest.mark.parametrize("author", NETWORKS)
def test_behind_fold_scale_norms_are_1_and_averages_are_sums(author: Callable[[Net], Net]) -> None:
    model = run(author).stages["integer"]
    assert {n.attributes["norm"].as_float() for n in nodes(model, "IntegerFire")} <= {1.0}
    assert not kinds(model)["AveragePool"]


@pytest.mark.parametrize(
    ("author", "layers"),
    [
        (bottleneck, 2),
        (depthwise_separable, 2),
        (pointwise_then_padded, 2),
        (depthwise_then_padded, 2),
        (padded_then_pointwise, 2),
        (two_linear_layers, 2),
        (norm_of_the_input_of_a_perceptron, 2),
        (norm_behind_a_neuron, 3),
        (scale_behind_averaged_spikes, 3),
    ],
)
def test_one_layer_is_left_between_two_neurons(author: Callable[[Net], Net], layers: int) -> None:
    found = kinds(run(author, MERGED).stages["imported"])
    assert found["Conv"] + found["Gemm"] == layers
    assert not found["Mul"]


def test_a_shift_ahead_of_a_padded_layer_becomes_a_map_of_biases() -> None:
    model = run(norm_before_a_padded_conv, MERGED).stages["imported"]
    (border,) = nodes(model, "Add")
    bias = border.inputs[1]
    assert bias is not None
    assert bias.const_value is not None
    assert tuple(bias.const_value.shape) == (1, 4, 4, 5)


def test_max_pools_end_behind_their_neuron() -> None:
    order = [n.op_type for n in run(max_pools_before_a_neuron).stages["integer"].graph]
    assert order == ["Conv", "IntegerFire", "MaxPool", "MaxPool", "Reshape", "Gemm"]


@pytest.mark.parametrize("reset", ["soft", "hard", "delayed"])
def test_a_max_pool_stays_before_a_memory(reset: str) -> None:
    """What a membrane held before decides, too: a maximum of spikes is another one."""
    net = repeated(Net((1, 5, 5), seed=1, rms=2.0).conv(3, pads=1, D=1), 3).pool("MaxPool", 2, 1)
    case = case_of(carried(net, 3, decay=0.5, gain=1.0, reset=reset), samples=4)
    model = PassManager(ALL, case.feeds).run(imported(net))
    order = [n.op_type for n in model.graph]
    assert order.index("MaxPotential") < order.index("StatefulFire")
    assert "MaxPool" not in order


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 3, 4, 4), (3, 4, 1), (1, 4, 4), (1, 1, 1, 4)])
def test_constants_of_whole_maps_that_are_equal_within_a_channel_join_the_layer(
    shape: tuple[int, ...],
) -> None:
    """A loop of one timestep adds what neurons fire to a map of zeros."""
    net = Net((2, 4, 4)).conv(3, 1).fire(2)
    channels = shape[-3] if len(shape) > 2 else 1
    values = np.broadcast_to(np.arange(channels).reshape(-1, 1, 1), shape)
    net.then("Add", net.const(values), module="start")
    model = PassManager(ALL, case_of(net.flatten().linear(2)).feeds).run(imported(net))
    assert [n.op_type for n in model.graph] == ["Conv", "IntegerFire", "Reshape", "Gemm"]


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 4, 4), (2, 3, 4, 4), (2, 1, 1, 1)])
def test_other_maps_of_constants_are_not_taken_for_such(shape: tuple[int, ...]) -> None:
    net = Net((2, 4, 4)).conv(3, 1).fire(2)
    net.then("Mul", net.const(np.arange(1, 1 + np.prod(shape)).reshape(shape)), module="uneven")
    with pytest.raises(UnsupportedModelError) as refused:
        PassManager(ALL).run(imported(net.flatten().linear(2)))
    assert "uneven" in {fault.module for fault in refused.value.faults}
