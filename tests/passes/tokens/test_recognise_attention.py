"""Attention in users' own spellings, and what only looks like it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attention_nets
import numpy as np
import onnx_ir as ir
import pytest
from attention_modules import SPELLINGS, network
from attention_nets import attend, tokens
from float_networks import Net, imported
from onnx import numpy_helper

from snncc.errors import UnsupportedModelError, VerificationError
from snncc.frontends.pytorch import import_module
from snncc.ir.graphs import attribute, nodes, provenance
from snncc.ir.validation import validate_translation
from snncc.passes import FRONT, PassManager, RequireInteger
from snncc.passes.judge.diagnose import diagnose
from snncc.passes.tokens.recognise_attention import RecogniseAttention

FEEDS = {"x": np.random.default_rng(0).normal(size=(3, 2, 8, 8)).astype(np.float32)}

#: What each spelling is: heads, scale after the product of q, k and v, and channels of v.
MEANING = {
    "token_linear": (3, 0.5, 12),
    "channel_conv1d": (2, 0.5, 24),
    "joint_qkv": (4, 3**-0.5 / 16, 12),
    "einsum_tokens": (2, 2.0**-6, 12),
    "einsum_maps": (3, 1 / 128, 12),
    "batched_heads": (2, 1 / 64, 12),
    "chunked_maps": (1, 0.02, 12),
    "with_time": (2, 0.125, 12),
}


@pytest.fixture(scope="module")
def manager() -> PassManager:
    """A network of all spellings through all passes up to the integer stage, each validated."""
    passes = PassManager((*FRONT, RequireInteger()), feeds=FEEDS)
    passes.run(import_module(network(), (2, 8, 8)))
    return passes


def test_all_spellings_have_a_meaning() -> None:
    assert set(MEANING) == set(SPELLINGS)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_becomes_one_attention(manager: PassManager, spelling: str) -> None:
    found = [
        node
        for node in nodes(manager.stages["integer"], "Attention")
        if provenance(node).module.startswith(f"blocks.{spelling}")
    ]
    heads, scale, channels = MEANING[spelling]
    assert [attribute(node, "heads") for node in found] == [heads]
    assert list(found[0].outputs[0].shape or ())[1:] == [channels, 4, 4]
    assert scale_behind(found[0]) == pytest.approx(scale, rel=1e-6)


def scale_behind(node: ir.Node) -> float:
    """Product of the numbers between attention and its neuron."""
    scale, value = 1.0, node.outputs[0]
    while (reader := next(iter(value.uses()))[0]).op_type != "IntegerFire":
        constant = next(v.const_value for v in reader.inputs if v is not None and v.const_value)
        numbers = np.unique(constant.numpy())
        assert len(numbers) == 1
        if reader.op_type == "Mul":
            scale *= float(numbers[0])
        else:
            assert reader.op_type == "Add"
            assert numbers[0] == 0
        value = reader.outputs[0]
    return scale


def test_no_token_is_left(manager: PassManager) -> None:
    for node in manager.stages["integer"].graph:
        ranks = {len(v.shape or ()) for v in node.outputs}
        assert ranks <= {2, 4}, node.name
        assert node.op_type != "Transpose"


def test_the_pass_is_validated_on_shared_values(manager: PassManager) -> None:
    (record,) = [r for r in manager.records if r.name == "recognise-attention"]
    assert record.rewrites == len(SPELLINGS)
    assert record.checked >= 5 * len(SPELLINGS)
    assert record.worst < 1e-5


def test_a_second_run_changes_nothing(manager: PassManager) -> None:
    model = manager.after["recognise-attention"].clone()
    before = [node.name for node in model.graph]
    RecogniseAttention().run(model)
    assert [node.name for node in model.graph] == before


@pytest.mark.parametrize("index", range(len(SPELLINGS)))
def test_a_wrong_recognition_would_be_seen(manager: PassManager, index: int) -> None:
    """Q and k swapped; the oracle compares what the graphs before and after share."""
    before = manager.after["recognise-integer-fire"]
    mutant = manager.after["recognise-attention"].clone()
    node = list(nodes(mutant, "Attention"))[index]
    q, k = node.inputs[0], node.inputs[1]
    node.replace_input_with(0, k)
    node.replace_input_with(1, q)
    with pytest.raises(VerificationError):
        validate_translation(before, mutant, FEEDS, exact=False)


# -- by hand, as ONNX ----------------------------------------------------------------------


def recognised(net: Net) -> ir.Model:
    return PassManager(FRONT, feeds=FEEDS).run(imported(net))


def stem() -> Net:
    return Net((2, 8, 8), rms=1.0).conv(8, stride=2, pads=1).fire(4)


def attentions(net: Net) -> list[ir.Node]:
    return list(nodes(recognised(net), "Attention"))


@pytest.mark.parametrize("layout", ["bhnd", "bhdn"])
@pytest.mark.parametrize("first", ["qk", "kv"])
@pytest.mark.parametrize("op", ["MatMul", "Einsum"])
def test_either_product_may_come_first(op: str, first: str, layout: str) -> None:
    net = attend(stem(), 2, op=op, first=first, layout=layout)
    (found,) = attentions(net)
    names = [str(x.name) for x in found.inputs if x is not None]
    assert [n[:4] for n in names] == ["q_fi", "k_fi", "v_fi"]


@pytest.mark.parametrize("places", ["q", "k", "v", "first", "y", "qk", "qkv", "q first y"])
def test_the_scale_may_be_anywhere(places: str) -> None:
    where = set(places.split()) if " " in places or len(places) == 5 else set(places)
    where = {"first"} if places == "first" else where
    (found,) = attentions(attend(stem(), 2, scales=where))
    assert scale_behind(found) == 0.25 ** len(where)


@pytest.mark.parametrize("place", ["q", "v", "first", "y"])
def test_a_divisor_is_a_scale_too(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def divided(net: Net, x: str, wanted: bool, factor: float) -> str:
        return net.node("Div", x, net.const(1 / factor)) if wanted else x

    monkeypatch.setattr(attention_nets, "_scaled", divided)
    (found,) = attentions(attend(stem(), 2, scales={place}))
    assert scale_behind(found) == 0.25


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_heads_and_single_channels(heads: int) -> None:
    (found,) = attentions(attend(stem(), heads))
    assert attribute(found, "heads") == heads


def test_one_position_is_attention_too() -> None:
    net = Net((2, 8, 8), rms=1.0).conv(4, kernel=8).fire(4)
    (found,) = attentions(attend(net, 2))
    assert attribute(found, "heads") == 2


@pytest.mark.parametrize(("stride", "order"), [(2, "kv"), (4, "qk")])
def test_the_cheaper_order_is_chosen(stride: int, order: str) -> None:
    net = Net((2, 8, 8), rms=1.0).conv(8, stride=stride, pads=1).fire(4)
    (found,) = attentions(attend(net, 1, wide=2))
    assert attribute(found, "order") == order


# -- what is no attention ------------------------------------------------------------------


def softmax(net: Net) -> Net:
    return attend(net, 2, between=lambda n: n.then("Softmax", axis=-1, module="soft"))


def relu(net: Net) -> Net:
    return attend(net, 2, between=lambda n: n.then("Relu", module="relu"))


def neuron_between(net: Net) -> Net:
    return attend(net, 2, between=lambda n: n.fire(4))


def position_bias(net: Net) -> Net:
    bias = net.rng.normal(size=(1, 2, 16, 16))
    return attend(net, 2, between=lambda n: n.then("Add", n.const(bias), module="bias"))


def interleaved_heads(net: Net) -> Net:
    return attend(net, 2, layout="interleaved")


def real_values(net: Net) -> Net:
    return attend(net, 2, fire=False)


def average_of_spikes(net: Net) -> Net:
    return attend(net, 2, pooled="AveragePool")


def no_neuron_behind(net: Net) -> Net:
    return attend(net, 2, fire_behind=False).conv(3, 1)


def added_to_a_potential(net: Net) -> Net:
    net.conv(8, 1)
    potential = net.x
    return attend(net.fire(4), 2, fire_behind=False).add(potential).fire(4).conv(3, 1)


def scores_alone(net: Net) -> Net:
    q, k = tokens(net, "q", 8, 2), tokens(net, "k", 8, 2)
    turned = net.node("Transpose", k, perm=[0, 1, 3, 2])
    net.x, net.shape = net.node("MatMul", q, turned, module="scores"), (2, 16, 16)
    return net.fire(4).flatten().linear(3)


def class_token(net: Net) -> Net:
    """A constant token before the others."""
    net.then("Reshape", net.const([0, 8, 16], int), module="flat")
    zeros = net.node("Mul", net.node("ReduceMean", net.x, net.const([2], int)), net.const(0.0))
    net.x = net.node("Concat", zeros, net.x, module="cls", axis=2)
    net.shape = (8, 17)
    return net.fire(4)


def tokens_as_result(net: Net) -> Net:
    net.x = tokens(net, "q", 8, 2)
    net.shape = (2, 16, 4)
    return net


BAD: list[Callable[[Net], Net]] = [
    softmax, relu, neuron_between, position_bias, interleaved_heads, real_values,
    average_of_spikes, no_neuron_behind, added_to_a_potential, scores_alone, class_token,
    tokens_as_result,
]  # fmt: skip


@pytest.mark.parametrize("author", BAD)
def test_a_report_says_what_keeps_it_from_being_attention(
    author: Callable[[Net], Net], golden: str
) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        PassManager((*FRONT, RequireInteger())).run(imported(author(stem())))
    assert f"{caught.value}\n" == golden


def test_a_softmax_between_is_a_near_miss() -> None:
    found = diagnose(PassManager(FRONT).run(imported(softmax(stem()))))
    (miss,) = found.near_misses
    assert (miss.kind, miss.what) == ("Softmax", "Softmax between q k^T and v")


def test_networks_without_tokens_stay_as_they_are() -> None:
    net = stem().conv(4, pads=1).fire(4).pool("MaxPool").flatten().linear(3)
    manager = PassManager(FRONT)
    manager.run(imported(net))
    before, after = (manager.after[n] for n in ("recognise-integer-fire", "recognise-attention"))
    assert [n.name for n in before.graph] == [n.name for n in after.graph]


def test_a_split_of_channels_becomes_layers_of_their_own() -> None:
    net = stem().conv(6, 1).fire(4)
    parts = [f"part{i}" for i in range(2)]
    net.nodes.append(_split(net, parts))
    net.x, net.shape = net.node("Add", *parts), (3, 4, 4)
    model = recognised(net.flatten().linear(3))
    sizes = [v.outputs[0].shape[1] for v in nodes(model, "IntegerFire")]  # type: ignore[index]
    assert sizes == [8, 3, 3]


def _split(net: Net, parts: list[str]) -> Any:
    from onnx import helper

    return helper.make_node("Split", [net.x, net.const([3, 3], np.int64)], parts, axis=1)


@pytest.mark.parametrize(("index", "channels"), [(0, [0, 1]), (1, [2, 3]), (-1, [4, 5])])
def test_one_of_joined_layers_is_gathered(index: int, channels: list[int]) -> None:
    net = stem().conv(6, 1)
    weight = next(w for w in reversed(net.weights) if len(w.dims) == 4)
    net.fire(4).then("Reshape", net.const([0, 3, 2, 4, 4], int))
    net.x, net.shape = net.node("Gather", net.x, net.const(index, np.int64), axis=1), (2, 4, 4)
    model = recognised(net.flatten().linear(3))
    layer = list(nodes(model, "Conv"))[-1]
    kept = layer.inputs[1].const_value.numpy()  # type: ignore[union-attr]
    np.testing.assert_array_equal(kept, numpy_helper.to_array(weight)[channels])
