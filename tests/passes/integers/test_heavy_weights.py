"""Writers of one potential whose weights differ by many powers of two, most of which never fire."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from float_networks import Case, Net, case_of, examples, lowered
from hypothesis import given, settings
from hypothesis import strategies as st
from test_agreement import Forms, disagreements

from snncc.errors import UnsupportedModelError
from snncc.ir.graphs import nodes
from snncc.ir.oracle import evaluate, teacher_forced
from snncc.passes.integers.heavy_weights import heavy, needed_shifts
from snncc.passes.integers.quantise_weights import squeezed
from snncc.passes.integers.shared_grids import QuantisedLayer, largest_weight, plan
from snncc.passes.reading import Linear
from snncc.passes.spikes.build_program import build_program
from snncc.program import TOTAL_LIMIT, Program

#: Share of activations that may change, each fed with true inputs, by weight bits.
MAY_CHANGE = {8: 0.05, 16: 1e-3, 24: 1e-4}


def stem(seed: int = 0, channels: int = 4) -> Net:
    return Net((1, 6, 6), seed, rms=2.0).conv(channels, pads=1)


def branch(
    net: Net, weight: Any, group: int = 1, silent: bool = True, norms: Any = None, pads: int = 0
) -> Net:
    """Adds ``weight`` times the spikes of a layer that never fires, or fires, to the stream.

    Args:
        net: Its current value is the stream.
        weight: (channels, channels / group, k, k).
        group: Of the layer.
        silent: Its spikes are none.
        norms: Variances of a batch norm after it, if there is one.
        pads: Of the layer.
    """
    stream, channels = net.x, net.shape[0]
    net.fire(4).conv(channels, 1)
    if silent:
        net.affine("Sub", 1000.0)
    net.fire(4)
    size = list(np.shape(weight)[2:])
    net.then(
        "Conv", net.const(weight), module=net.label("heavy"), group=group, kernel_shape=size,
        pads=[pads] * 4,
    )  # fmt: skip
    if norms is not None:
        one, zero = np.ones(channels), np.zeros(channels)
        args = [net.const(v) for v in (one, zero, zero, norms)]
        net.then("BatchNormalization", *args, module=net.label("norm"), epsilon=1e-5)
    return net.add(stream)


def ending(net: Net) -> Case:
    """Light readers and writers after the stream, and a result."""
    stream = net.x
    net.fire(4).conv(net.shape[0], 3, pads=1).add(stream)
    return case_of(net.fire(4).mean().linear(3), samples=24)


def drawn(net: Net, group: int = 1, kernel: int = 1) -> np.ndarray:
    channels = net.shape[0]
    return net.rng.normal(0, 0.5, (channels, channels // group, kernel, kernel))


def changed_share(case: Case, bits: int) -> float:
    """Activations that weight quantisation changes, each fed with true inputs."""
    found = lowered(case, bits, check=False).stages
    integer, quantised = found["integer"], found["quantised"]
    names = [str(n.outputs[0].name) for n in nodes(quantised, "FireCount")]
    true = evaluate(integer, case.feeds, names)
    again = teacher_forced(quantised, case.feeds, true)
    assert any(true[name].any() for name in names)
    return float(np.mean(np.concatenate([(again[n] != true[n]).ravel() for n in names])))


def observed_within_bounds(f: Forms) -> bool:
    """Whether potentials stay in the ranges that are proved, all of them within 62 bits."""
    names = [a.name for a in f.program.accumulators]
    values = evaluate(f.quantised, f.case.feeds, names)
    return all(
        -TOTAL_LIMIT < a.low <= values[a.name].min()
        and values[a.name].max() <= a.high < TOTAL_LIMIT
        for a in f.program.accumulators
    )


# -- the law -------------------------------------------------------------------------------


@st.composite
def streams(draw: st.DrawFn) -> Case:
    """A stem and up to three branches, each 2^0 to 2^34 times as heavy as usual."""
    net = stem(draw(st.integers(0, 2**16)))
    for _ in range(draw(st.integers(1, 3))):
        octaves = draw(st.integers(0, 34))
        group, kernel = draw(st.sampled_from([(1, 1), (1, 3), (4, 3)]))
        weight = drawn(net, group, kernel) * 2.0**octaves
        if draw(st.booleans()):  # some filters alone
            weight[1:] /= 2.0**octaves
        elif group == 1 and draw(st.booleans()):  # what some inputs add
            weight[:, 1:] /= 2.0**octaves
        branch(net, weight, group, pads=kernel // 2)
    return ending(net)


@settings(max_examples=examples(8))
@given(streams(), st.sampled_from([*MAY_CHANGE]))
def test_layers_that_never_fire_do_not_ruin_the_others(case: Case, bits: int) -> None:
    assert changed_share(case, bits) <= MAY_CHANGE[bits]


@settings(max_examples=examples(6))
@given(streams(), st.sampled_from([*MAY_CHANGE]))
def test_all_forms_agree_and_potentials_keep_to_their_bounds(case: Case, bits: int) -> None:
    f = Forms.of(case, bits)
    assert observed_within_bounds(f)
    assert disagreements(f) == []


@pytest.mark.parametrize("bits", [*MAY_CHANGE])
@pytest.mark.parametrize("octaves", [0, 4, 8, 16, 34])
def test_a_heavy_layer_that_fires_decides_and_spoils_nothing(octaves: int, bits: int) -> None:
    net = stem()
    f = Forms.of(ending(branch(net, drawn(net) * 2.0**octaves, silent=False)), bits)
    heavy_ones = next(n for n in f.program.neurons if n.name == "fire2")
    assert evaluate(f.quantised, f.case.feeds, [heavy_ones.name])[heavy_ones.name].any()
    assert disagreements(f) == []
    assert changed_share(f.case, bits) <= MAY_CHANGE[bits]


@pytest.mark.parametrize("bits", [*MAY_CHANGE])
@pytest.mark.parametrize("norms", [1, 2, 4])
def test_norms_of_variance_0_do_not_set_the_grid_of_a_stream(norms: int, bits: int) -> None:
    net = stem()
    weight = drawn(net)
    for _ in range(norms - 1):
        weight = weight * 316.0
    case = ending(branch(net, weight, norms=np.zeros(4)))
    assert changed_share(case, bits) <= MAY_CHANGE[bits]


@pytest.mark.parametrize("bits", [*MAY_CHANGE])
def test_some_dead_channels_of_a_live_norm_do_not_ruin_the_others(bits: int) -> None:
    net = stem()
    variances = np.array([0.0, 1.0, 0.5, 1.0])
    weight = drawn(net, group=4, kernel=3)
    weight[0] *= 1e3  # of a channel that never fires
    case = ending(branch(net, weight, group=4, silent=False, norms=variances, pads=1))
    assert changed_share(case, bits) <= MAY_CHANGE[bits]


# -- a result has one scale for all classes ---------------------------------------------------


@pytest.mark.parametrize("bits", [8, 24])
def test_a_head_that_never_fires_leaves_the_other_its_bits(bits: int) -> None:
    net = stem().fire(4).mean()
    features, width = net.x, net.shape[0]
    net.linear(3)
    scores = net.x
    net.x, net.shape = features, (width,)
    net.linear(width).affine("Sub", 1000.0).fire(4)
    net.then("Gemm", net.const(net.rng.normal(size=(3, width)) * 1e9), module="silent", transB=1)
    net.shape = (3,)
    case = case_of(net.add(scores), samples=24)
    found = lowered(case, bits, check=False).stages
    f = Forms.of(case, bits)
    (real,) = evaluate(found["integer"], case.feeds).values()
    (whole,) = evaluate(found["quantised"], case.feeds).values()
    scale = f.program.readouts[0].scale
    np.testing.assert_allclose(whole * scale, real, atol=np.abs(real).max() * 2.0 ** (3 - bits))
    assert len({p.shift for a in f.program.accumulators for p in a.projections}) == 2
    assert disagreements(f) == []


def test_inputs_that_never_fire_leave_a_head_its_bits() -> None:
    net = stem().fire(4).mean()
    weight = net.rng.normal(size=(3, 4))
    weight[:, 2] *= 316.0**2
    net.then("Gemm", net.const(weight), module="head", transB=1)
    net.shape = (3,)
    (layer,) = planned(case_of(net), 8)[-1:]
    light = np.abs(layer.weight[:, [0, 1, 3]])
    assert light.max() > largest_weight(8) / 2
    assert np.unique(layer.shift).tolist() == [0, int(layer.shift[0, 2])]


# -- parts, room, words ----------------------------------------------------------------------


def planned(case: Case, bits: int) -> list[QuantisedLayer]:
    model = lowered(case, bits, check=False).after["fold-scale"]
    return list(plan(model, bits)[0].values())


def test_networks_without_heavy_weights_are_on_the_grids_they_were_on() -> None:
    """One shift for each layer; thresholds odd, and as large as weights allow."""
    net = stem()
    layers = planned(ending(branch(net, drawn(net), silent=False)), 8)
    assert all(isinstance(layer.shift, int) for layer in layers)
    assert all(layer.squeezed == 0 for layer in layers)


@pytest.mark.parametrize("bits", [4, 8, 24])
def test_parts_are_the_weights_and_fit_their_bits(bits: int) -> None:
    net = stem()
    weight = drawn(net, kernel=3)
    weight[0] *= 1e6
    weight[:, 1] *= 1e3
    net = branch(net, weight, pads=1)
    for layer in planned(ending(net), bits):
        whole = sum(w * 2**shift for w, shift in layer.parts())
        np.testing.assert_array_equal(whole, layer.weight * 2 ** np.asarray(layer.shift))
        assert max(np.abs(w).max() for w, _ in layer.parts()) <= largest_weight(bits)
        np.testing.assert_allclose(layer.weight, layer.exact_weight(), atol=0.5 + 1e-6)


def linear(weight: Any) -> Linear:
    """A layer on pixels."""
    node = ir.Node("", "Gemm", [])
    return Linear("gemm", ir.Value(name="x"), node.outputs[0], node, np.asarray(weight, float),
                  np.zeros(len(weight)))  # fmt: skip


def test_rows_and_columns_are_heavy_and_what_crosses_them_is_not() -> None:
    weight = np.full((6, 5), 0.01)
    weight[1] = 1e3
    weight[:, 3] = 1e4
    weight[4, 0] = 1e5  # all alone
    (mask,) = heavy([linear(weight)], levels=4)
    expected = np.zeros((6, 5), dtype=bool)
    expected[1] = expected[:, 3] = expected[4, 0] = True
    np.testing.assert_array_equal(mask, expected)
    shifts = needed_shifts(linear(weight), mask, np.full(6, 127 / 0.01), 0, 127)
    assert np.unique(shifts[~expected]).tolist() == [0]
    assert (shifts[expected] >= np.log2(1e5)).all()


@pytest.mark.parametrize("bits", [8, 16])
def test_a_stem_of_far_reach_and_small_weights_keeps_its_bits(bits: int) -> None:
    """Counts of events may be 255: weights of 1/8 reach farther than branches with weights of 1."""
    net = Net((1, 6, 6), rms=2.0)
    net.then("Conv", net.const(net.rng.normal(0, 1 / 8, (4, 1, 3, 3))), module="stem", pads=[1] * 4)
    net.shape = (4, 6, 6)
    first, *others = planned(ending(branch(net, drawn(net) * 2, silent=False)), bits)
    assert np.abs(first.weight).reshape(4, -1).max(axis=1).min() > largest_weight(bits) / 4
    assert all(np.abs(layer.weight).max() > largest_weight(bits) / 4 for layer in others)


@pytest.mark.parametrize(("share", "is_heavy"), [(0.2, True), (0.4, False)])
def test_of_a_result_few_inputs_are_heavy(share: float, is_heavy: bool) -> None:
    """Weights of inputs that died in training are next to nothing; many of these are usual."""
    weight = np.random.default_rng(0).normal(size=(10, 50))
    weight[:, int(50 * share) :] /= 1e3 if is_heavy else 1.0
    weight[:, : int(50 * share)] *= 1.0 if is_heavy else 1e3
    (mask,) = heavy([linear(weight)], levels=0)
    assert mask[:, : int(50 * share)].all() == is_heavy
    assert not mask[:, int(50 * share) :].any()


def test_none_are_heavy_where_a_potential_is_read() -> None:
    """Its integers might get far beyond what they come to: products with that say nothing."""
    weight = np.full((6, 5), 1e-3)
    weight[1] = 1e3
    payload = replace(linear(weight), payload=2**50)
    assert heavy([linear(weight)], levels=1)[0].any()
    masks = heavy([payload, linear(weight)], levels=1)
    assert not any(mask.any() for mask in masks)


def test_usual_weights_are_not_heavy_however_large_or_small() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(64, 576))
    for size, levels in ((1e-9, 4), (1.0, 4), (1e9, 4), (1.0, 0)):
        assert not heavy([linear(weight * size)], levels)[0].any()


def test_a_squeezed_layer_is_named_with_what_takes_its_room() -> None:
    net = stem()
    net = branch(net, drawn(net) * 1e10, norms=np.array([0.0, 1.0, 1.0, 1.0]))
    manager = lowered(ending(net), 24, check=False)
    found = squeezed(manager.stages["quantised"])
    assert {layer["by"] for layer in found} == {"heavy6"}
    worst = min(found, key=lambda layer: layer["bits_left"])
    assert worst["module"] == "conv1"
    assert 8 < worst["bits_left"] < 23
    assert worst["reach"] > 1e12
    assert squeezed(lowered(ending(stem()), 24, check=False).stages["quantised"]) == []


@pytest.mark.parametrize("bits", [8, 24])
def test_potentials_without_room_for_others_are_refused_by_name(golden: str, bits: int) -> None:
    net = stem()
    net = branch(net, drawn(net) * 1e18, norms=np.zeros(4))
    with pytest.raises(UnsupportedModelError) as caught:
        lowered(ending(net), bits, check=False)
    assert f"{caught.value}\n" == golden


# -- streams that are pooled and added to themselves -----------------------------------------


def test_room_is_kept_for_what_potentials_are_added_up_to() -> None:
    """A mean over 36 places adds up 36 potentials, and the stream is added to itself."""
    net = stem()
    net = branch(net, drawn(net) * 1e10)
    net.then("Add", net.x, module="double")
    case = case_of(net.mean(keep=True).fire(4).flatten().linear(3), samples=4)
    program = Forms.of(case, 24).program
    assert max(a.high for a in program.accumulators) > TOTAL_LIMIT // 2**6
    program.validate()


def mutated(program: Program, name: str, **values: Any) -> Program:
    made = tuple(replace(n, **values) if n.name == name else n for n in program.nodes)
    return replace(program, nodes=made)


def test_a_lost_part_is_seen_at_its_potential() -> None:
    net = stem()
    weight = drawn(net, group=4, kernel=3)
    weight[0] *= 1e6
    case = ending(branch(net, weight, group=4, silent=False, pads=1))
    f = Forms.of(case, 8)
    parted = next(a for a in f.program.accumulators if len({p.shift for p in a.projections}) > 2)
    fewer = mutated(f.program, parted.name, projections=parted.projections[:-1])
    assert disagreements(replace(f, program=fewer))[0].startswith(f"{parted.name}: ")


def test_the_program_has_one_projection_for_each_shift() -> None:
    net = stem()
    weight = drawn(net)
    weight[0] *= 1e8
    model = lowered(ending(branch(net, weight)), 16, check=False).stages["quantised"]
    program = build_program(model, "net")
    shifts = [
        [p.shift for p in a.projections if p.kind != "identity"] for a in program.accumulators
    ]
    assert max(map(len, shifts)) == 2
    assert all(len(set(found)) == len(found) for found in shifts)
