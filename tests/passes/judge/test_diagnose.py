from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import quantised_networks
from float_networks import Case, Net, examples, imported
from hypothesis import given, settings
from random_networks import networks

from snncc.errors import UnsupportedModelError
from snncc.ir.graphs import nodes
from snncc.passes import FRONT, PassManager, RequireInteger, front
from snncc.passes.fold.merge_linear import MergeLinear
from snncc.passes.fold.no_neuron_between import MERGE
from snncc.passes.judge.diagnose import Diagnosis, diagnose

MERGED = front(merge=MergeLinear(MERGE))


def diagnosis(net: Net) -> Diagnosis:
    return diagnose(PassManager(MERGED).run(imported(net)))


def report_of(net: Net) -> str:
    with pytest.raises(UnsupportedModelError) as caught:
        PassManager((*MERGED, RequireInteger())).run(imported(net))
    return f"{caught.value}\n"


def half_good() -> Net:
    net = Net((1, 8, 8)).conv(2).fire().conv(4)
    net.then("Relu", module="act")
    return net.conv(3).fire().flatten().linear(5)


# -- reports -------------------------------------------------------------------------------


def unknown_operators(net: Net) -> Net:
    net.conv(2).then("Transpose", module="shuffle", perm=[0, 2, 3, 1]).then("Elu", module="act")
    return net.then("GlobalMaxPool", module="pool")


def statistics(net: Net) -> Net:
    scale, bias = net.const([1, 1]), net.const([0, 0])
    return net.conv(2).then("InstanceNormalization", scale, bias, module="norm").fire().conv(2)


def layers_without_neuron(net: Net) -> Net:
    return net.conv(2).conv(3, pads=1).fire().flatten().linear(3)


def weights_of_another_input(net: Net) -> Net:
    net.conv(2).fire()
    net.then("ReduceMean", net.const([2, 3], int), module="m", keepdims=0)
    net.x = net.node("MatMul", net.x, net.node("Transpose", net.x, perm=[1, 0]), module="gram")
    return net


def tokens(net: Net) -> Net:
    """A linear layer over (N, tokens, features)."""
    net.conv(2).fire()
    net.then("Reshape", net.const([0, 2, -1], int), module="tokens")
    return net.then("MatMul", net.const([[1.0]] * 36), module="head")


def regrouped(net: Net) -> Net:
    net.conv(4).fire()
    net.then("Reshape", net.const([0, 2, 12, 6], int), module="view")
    net.shape = (2, 12, 6)
    return net.conv(3, 1).fire()


def mixed_batch(net: Net) -> Net:
    net.conv(2).fire()
    net.then("Reshape", net.const([-1, 6], int), module="fold")
    net.shape = (6,)
    return net.linear(3).fire()


def max_pool_of_averages(net: Net) -> Net:
    return net.conv(2).fire().pool("AveragePool").pool("MaxPool").flatten().linear(2)


def norm_that_turns_a_max_pool(net: Net) -> Net:
    net.conv(2).pool("MaxPool").affine("Mul", [1, -1], per_channel=True)
    return net.fire().flatten().linear(2)


def ragged_average(net: Net) -> Net:
    net.conv(2, pads=[1, 1, 0, 0]).fire()
    net.then("AveragePool", module="pool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    net.shape = (2, 4, 4)
    return net.conv(2).fire()


def padding_not_counted(net: Net) -> Net:
    net.conv(2).fire()
    net.then("AveragePool", module="pool", kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4)
    return net.conv(2).fire()


def dilated_max_pool(net: Net) -> Net:
    net.conv(2).fire()
    net.then("MaxPool", module="pool", kernel_shape=[2, 2], strides=[1, 1], dilations=[2, 2])
    net.shape = (2, 4, 4)
    return net.conv(2).fire()


def spikes_plus_potential(net: Net) -> Net:
    """Of more features than an identity layer may have."""
    spikes = net.flatten().linear(2049).fire().x
    return net.linear(2049).add(spikes).fire().linear(2)


def position_embedding(net: Net) -> Net:
    net.conv(2).fire()
    net.then("Add", net.const(net.rng.normal(size=(1, 2, 6, 6))), module="pos")
    return net.conv(2).fire()


def no_neurons_of_ours(net: Net) -> Net:
    net.conv(2)
    net.fire(300).conv(2).fire(4, rounding="nearest").conv(2).fire(4, norm=-1.0)
    return net


BAD: list[Callable[[Net], Net]] = [
    unknown_operators,
    statistics,
    layers_without_neuron,
    weights_of_another_input,
    tokens,
    regrouped,
    mixed_batch,
    max_pool_of_averages,
    norm_that_turns_a_max_pool,
    ragged_average,
    padding_not_counted,
    dilated_max_pool,
    spikes_plus_potential,
    position_embedding,
    no_neurons_of_ours,
]


@pytest.mark.parametrize("author", BAD)
def test_a_report_names_every_node_and_what_to_do(
    author: Callable[[Net], Net], golden: str
) -> None:
    assert report_of(author(Net((1, 8, 8)))) == golden


def test_faults_come_in_the_networks_order() -> None:
    net = Net((1, 20, 20)).conv(2).then("Relu", module="a")
    net.conv(2).then("Clip", net.const(0), net.const(4), module="b")
    net.conv(2).then("Elu", module="c")
    found = diagnosis(net.flatten().linear(3))
    assert [f.module for f in found.faults] == ["a", "b", "c"]
    assert [f.module for f in found.near_misses] == ["b"]


# -- results of nothing that was read ------------------------------------------------------


_NEURON = '<D: int = 4, norm: float = 1.0, rounding: string = "half-even">'


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        ("c = Clip (k, l, h) r = Round (c) a = Gemm <transB: int = 1> (r, w)", ["result"]),
        ("r = RandomNormal <shape: ints = [1, 32]> () a = Gemm <transB: int = 1> (r, w)",
         ["RandomNormal", "result"]),
        (f"r = ai.snncc.IntegerFire {_NEURON} (k) a = Gemm <transB: int = 1> (r, w)", ["result"]),
    ],
)  # fmt: skip
def test_a_result_that_reads_no_input_is_named(body: str, kinds: list[str]) -> None:
    """What is computed from constants alone is no layer of the network, folded or not."""
    proto = quantised_networks.parsed(
        f"{body} y = Identity (a) unread = Flatten (x)",
        "float[1,M] y", k=np.ones((1, 32), np.float32), l=np.float32(0), h=np.float32(4),
        w=np.ones((3, 32), np.float32),
    )  # fmt: skip
    proto.opset_import.add(domain="ai.snncc", version=1)
    model = PassManager(FRONT).run(imported(proto))
    assert [fault.kind for fault in diagnose(model).faults] == kinds


# -- figures -------------------------------------------------------------------------------


def test_activations_are_neurons_and_what_should_be_neurons() -> None:
    found = diagnosis(half_good())
    assert (found.activations_found, found.activations_lowered) == (3, 2)


def test_the_longest_exact_prefix_ends_at_a_neuron() -> None:
    assert diagnosis(half_good()).until == "fire2"


def test_a_good_network_has_no_prefix_to_cut_at() -> None:
    found = diagnosis(Net((1, 8, 8)).conv(2).fire().flatten().linear(3))
    assert (found.faults, found.until) == ((), "")
    assert found.macs == found.macs_lowerable > 0


def test_macs_are_counted_per_sample() -> None:
    found = diagnosis(Net((1, 8, 8)).conv(2).fire().conv(4, group=2).fire().flatten().linear(5))
    assert found.macs == 36 * 2 * 9 + 16 * 4 * 9 + 64 * 5


def test_macs_behind_a_real_value_are_not_lowerable() -> None:
    found = diagnosis(half_good())
    assert found.macs_lowerable == 36 * 2 * 9 + 4 * 3 * 5
    assert found.macs_lowerable < found.macs


@settings(max_examples=examples(15))
@given(networks())
def test_random_networks_of_the_supported_kind_have_no_fault(case: Case) -> None:
    model = PassManager(FRONT).run(imported(case.net))
    found = diagnose(model)
    assert found.faults == ()
    assert found.macs_lowerable == found.macs
    neurons = len(list(nodes(model, "IntegerFire")))
    assert found.activations_found == found.activations_lowered == neurons
