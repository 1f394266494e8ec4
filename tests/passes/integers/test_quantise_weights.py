from __future__ import annotations

from math import prod

import numpy as np
import onnx.parser
import onnx.shape_inference
import onnx_ir as ir
import pytest
from float_networks import Case, Net, case_of, examples, imported, lowered
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_networks import networks

from snncc.errors import SnnccError, UnsupportedModelError, UsageError
from snncc.ir.graphs import attribute, constant, nodes
from snncc.ir.ops import register_schemas
from snncc.ir.oracle import evaluate, teacher_forced
from snncc.ir.stages import set_stage
from snncc.passes import PassManager, pipeline
from snncc.passes.fold.fold_scale import output_scales
from snncc.passes.integers.quantise_weights import QuantiseWeights
from snncc.passes.integers.shared_grids import largest_weight, plan
from snncc.passes.spikes.build_program import build_program

BITS = st.sampled_from(range(4, 25))


def cnn() -> Net:
    net = Net((1, 8, 8), seed=1, rms=2.0).conv(4, pads=1).batch_norm().fire(4)
    return net.conv(5, stride=2).batch_norm().fire(4).flatten().linear(6)


def quantised(case: Case, bits: int) -> ir.Model:
    return lowered(case, bits, check=False).stages["quantised"]


def stages(case: Case, bits: int) -> dict[str, ir.Model]:
    try:
        return lowered(case, bits, check=False).stages
    except UnsupportedModelError as e:
        assume("do not fit" not in str(e))
        raise


# -- grids ---------------------------------------------------------------------------------


def thresholds(model: ir.Model) -> list[np.ndarray]:
    """theta per channel and neuron, read off levels 1 and 2 of odd thresholds."""
    tables = [constant(n.inputs[1]) for n in nodes(model, "FireCount")]
    return [t[:, 1] - t[:, 0] for t in tables if t is not None and t.shape[1] > 1]


@pytest.mark.parametrize("bits", range(4, 25))
def test_thresholds_are_odd_and_as_large_as_the_bits_allow(bits: int) -> None:
    all_stages = lowered(case_of(cnn(), samples=1), bits, check=False).stages
    layers = list(nodes(all_stages["integer"], "Conv"))
    found = thresholds(all_stages["quantised"])
    assert len(found) == 2
    for theta, layer in zip(found, layers, strict=True):
        weight = constant(layer.inputs[1])
        assert weight is not None
        most = np.abs(weight.astype(np.float64)).reshape(len(weight), -1).max(1)
        assert (theta % 2 == 1).all()
        assert (np.rint(theta * most) <= largest_weight(bits)).all()
        limit = (theta == 2 ** (12 + bits) - 1) | ((theta + 2) * most > largest_weight(bits))
        assert limit.all()


@pytest.mark.parametrize(("rounding", "fired"), [("half-even", 2), ("half-up", 3)])
def test_a_channel_of_zeros_fires_what_its_bias_says(rounding: str, fired: int) -> None:
    net = Net((1, 6, 6), rms=2.0)
    w = np.random.default_rng(0).normal(size=(3, 1, 3, 3))
    w[1] = 0
    net.then("Conv", net.const(w), net.const([0.5, 2.5, 0.0]), module="conv")
    net.shape = (3, 4, 4)
    model = quantised(case_of(net.fire(4, rounding=rounding).mean().linear(2)), 8)
    (counts,) = evaluate(model, case_of(net).feeds, ["fire1"]).values()
    assert set(np.unique(counts[:, 1])) == {fired}  # a tie


def test_single_weights_of_many_thresholds_have_a_step_of_their_own() -> None:
    """One of 200 and one of 128 thresholds, and nothing but quarters beside them, in 8 bits."""
    net = Net((1, 6, 6), rms=2.0)
    w = np.full((3, 1, 3, 3), 0.25)
    w[1, 0, 1, 1], w[2, 0, 0, 0] = 200.0, -128.0
    net.then("Conv", net.const(w), module="features.0.conv")
    net.shape = (3, 4, 4)
    case = case_of(net.fire(4).mean().linear(2), scale=1.0)
    program = build_program(quantised(case, 8), "net")
    light, heavy = program.accumulators[0].projections
    assert thresholds(quantised(case, 8))[0].tolist() == [507]
    assert (light.shift, heavy.shift) == (0, 10)
    is_heavy = np.abs(w) > 1
    np.testing.assert_array_equal(light.total()[~is_heavy], 127)
    assert heavy.total()[is_heavy].tolist() == [99 * 2**10, -63 * 2**10]
    assert not light.total()[is_heavy].any()
    assert not heavy.total()[~is_heavy].any()


@pytest.mark.parametrize("bits", range(4, 9))
def test_a_layer_of_larger_weights_than_its_bits_hold_counts_more_than_once(bits: int) -> None:
    """Weights of 3,000 thresholds need steps of several: potentials have the room."""
    net = Net((1, 6, 6), rms=2.0)
    weight = net.rng.normal(0, 1000, (3, 1, 3, 3))
    net.then("Conv", net.const(weight), module="conv")
    net.shape = (3, 4, 4)
    case = case_of(net.fire(4).mean().linear(2), scale=1.0)
    first = build_program(quantised(case, bits), "net").accumulators[0]
    assert thresholds(quantised(case, bits))[0].min() >= 1
    assert min(p.shift for p in first.projections) > 0
    most = max(np.abs(p.total() >> p.shift).max() for p in first.projections)
    assert largest_weight(bits) / 2 <= most <= largest_weight(bits)


@pytest.mark.parametrize("bits", [0, 3, 25])
def test_other_widths_are_usage_errors(bits: int) -> None:
    with pytest.raises(UsageError, match="4 to 24"):
        quantised(case_of(cnn()), bits)


def test_the_result_has_one_scale_for_all_classes() -> None:
    case = case_of(cnn(), samples=16)
    found = stages(case, 16)
    (unit,) = output_scales(found["quantised"])
    (scores,) = evaluate(found["quantised"], case.feeds).values()
    (real,) = evaluate(found["integer"], case.feeds).values()
    assert scores.dtype == np.int64
    np.testing.assert_allclose(scores * unit, real, atol=0.05)


# -- bounds --------------------------------------------------------------------------------


def reach_of_products(model: ir.Model) -> list[int]:
    """payload * sum|w| of every product of the graph."""
    payloads = payload_of(model)
    found = []
    for node in nodes(model, "QConv", "QGemm"):
        w = constant(node.inputs[1])
        assert w is not None
        most = int(np.abs(w.astype(np.int64)).reshape(len(w), -1).sum(1).max())
        found.append(payloads[node.inputs[0]] * most)  # type: ignore[index]
    return found


def payload_of(model: ir.Model) -> dict[ir.Value, int]:
    """Largest count that each value can hold."""
    found = dict.fromkeys(model.graph.inputs, 255)
    for node in model.graph:
        out, x = node.outputs[0], node.inputs[0]
        if node.op_type == "FireCount":
            found[out] = int(node.inputs[1].shape[1])  # type: ignore[union-attr,index,arg-type]
        elif node.op_type == "CountGate":
            found[out] = prod(found[v] for v in node.inputs)  # type: ignore[index]
        elif node.op_type == "CountSum":
            found[out] = sum(found[v] for v in node.inputs)  # type: ignore[index]
        elif node.op_type == "PayloadDigit":
            found[out] = 128
        elif node.op_type == "SumPool" and x in found:
            found[out] = found[x] * prod(attribute(node, "kernel_shape"))
        elif x in found and node.op_type in ("MaxPool", "Cast", "Reshape"):
            found[out] = found[x]
    return found


@settings(max_examples=examples(25))
@given(networks(), BITS)
def test_every_product_is_exact_in_float32(case: Case, bits: int) -> None:
    assert max(reach_of_products(stages(case, bits)["quantised"]), default=0) < 2**24


def wide() -> Net:
    net = Net((60, 20, 20), rms=2.0, seed=2).flatten().linear(3)
    return net.fire(4).linear(2)


def test_a_reduction_that_float32_cannot_hold_is_split() -> None:
    case = case_of(wide())
    model = quantised(case, 8)
    assert len(list(nodes(model, "QGemm"))) > 2
    assert max(reach_of_products(model)) < 2**24


def test_a_split_reduction_is_one_slice_of_the_program() -> None:
    case = case_of(wide())
    model = quantised(case, 8)
    program = build_program(model, "wide")
    first = program.accumulators[0]
    assert len(first.projections[0].weights) == 1
    x = case.q.reshape(len(case.q), -1).astype(np.int64)
    exact = x @ first.projections[0].total().T + first.bias
    (v,) = evaluate(model, case.feeds, [first.name]).values()
    np.testing.assert_array_equal(v, exact)


def test_sums_beyond_32_bits_are_refused() -> None:
    net = Net((70_000,))
    w = np.random.default_rng(0).normal(0.01, 0.0001, (1, 70_000))
    net.then("Gemm", net.const(w), module="fc", transB=1)
    net.shape = (1,)
    with pytest.raises(UnsupportedModelError, match="beyond 32 bits"):
        quantised(case_of(net.fire(4).linear(2)), 8)


# -- what is lost --------------------------------------------------------------------------


def changed_share(case: Case, bits: int) -> float:
    """Activations that differ from the float network's, each fed with true inputs."""
    found = stages(case, bits)
    (integer, quant) = (found["integer"], found["quantised"])
    names = [str(n.outputs[0].name) for n in nodes(quant, "FireCount")]
    true = evaluate(integer, case.feeds, names)
    again = teacher_forced(quant, case.feeds, true)
    return float(np.mean(np.concatenate([(again[n] != true[n]).ravel() for n in names])))


def test_24_bits_change_no_more_than_one_activation_in_10_000() -> None:
    """The test of the quantiser itself: all engines share it and cannot see a wrong one."""
    assert changed_share(case_of(cnn(), samples=60), 24) <= 1e-4


def test_more_bits_change_less() -> None:
    case = case_of(cnn(), samples=60)
    shares = [changed_share(case, bits) for bits in (4, 8, 12, 16)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 10 * shares[-1]


@settings(max_examples=examples(15))
@given(networks())
def test_24_bits_keep_random_networks(case: Case) -> None:
    """Ties apart, which float32 decides by rounding, hardly anything may change."""
    assume(not case.net.ties)
    assert changed_share(case, 24) <= 1e-2


def test_pooled_counts_are_weighed_exactly() -> None:
    """A mean over N has threshold N: levels are exact fractions, ties included."""
    net = Net((2, 8, 8), ties=True, rms=2.0).conv(3).fire(4).mean(keep=True).fire(2)
    model = quantised(case_of(net, scale=2.0**-6), 8)
    table = constant(list(nodes(model, "FireCount"))[1].inputs[1])
    assert table is not None
    assert table.tolist() == [[19, 54]]  # 36 positions: 18 is a tie, and goes to 0; 54 to 2


def test_weights_of_any_size_compile() -> None:
    """Pruned channels and dead batch norms have absurd scales; they are decided, not overflowed."""
    net = Net((2, 6, 6), rms=2.0)
    taps = np.array([1e-25, 1.3]).reshape(2, 1, 1, 1)
    net.then("Conv", net.const(taps), net.const([1.0, 2.0]), module="dw", group=2)
    net.fire(4).conv(3).affine("Add", [1e25, 0, -1e25], per_channel=True).fire(4).mean().linear(2)
    case = case_of(net)
    manager = PassManager(pipeline(case.source, 8), feeds=case.feeds)
    manager.run(imported(net))
    (counts,) = evaluate(manager.stages["quantised"], case.feeds, ["fire4"]).values()
    assert set(np.unique(counts[:, 0])) == {4}
    assert set(np.unique(counts[:, 2])) == {0}


def test_a_shift_under_a_padded_average_enters_as_often_as_there_are_pixels() -> None:
    net = Net((2, 6, 6), rms=2.0)
    taps = np.full((2, 1, 1, 1), 1.3)
    net.then("Conv", net.const(taps), net.const([1.0, 2.0]), module="dw", group=2)
    case = case_of(net.pool("AveragePool", 2, 1, 1).fire(4).flatten().linear(3), samples=8)
    assert changed_share(case, 24) <= 1e-3


@settings(max_examples=examples(25))
@given(networks(), st.sampled_from([4, 8, 16]))
def test_weights_and_biases_go_to_the_nearest_integers(case: Case, bits: int) -> None:
    manager = PassManager(pipeline(case.source, bits), kept=("fold-scale",))
    manager.run(imported(case.net))
    planned, faults = plan(manager.after["fold-scale"], bits)
    assume(not faults)
    assert planned
    for layer in planned.values():
        for whole, exact in (
            (layer.weight, layer.exact_weight()),
            (layer.bias, layer.exact_bias()),
        ):
            assert (np.abs(whole - exact) <= 0.5 + 1e-6 * np.abs(exact)).all()


def test_a_layer_of_multiples_of_counts_is_no_layer_of_counts():
    """Where a pass left a factor on the way, it would be lost without a word."""
    text = """
    <ir_version: 10, opset_import: ["" : 21, "ai.snncc" : 1]>
    net (uint8[N, 2] x) => (float[N, 2] y)
    <float[2, 2] w = {1, 2, 3, 4}, float[2] half = {0.5, 0.5}, float[2] b = {0, 0}> {
        q = Cast <to: int = 1> (x)
        u = Gemm <alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 1> (q, w, b)
        a = ai.snncc.IntegerFire <D: int = 4, norm: float = 1.0, rounding: string = "half-even"> (u)
        h = Mul (a, half)
        y = Gemm <alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 1> (h, w, b)
    }
    """
    register_schemas()
    proto = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))
    model = ir.from_proto(proto)
    set_stage(model, "integer")
    with pytest.raises(SnnccError, match="a layer of no counts") as caught:
        QuantiseWeights(8).run(model)
    assert "no counts but multiples" in caught.value.faults[0].what
