from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from float_networks import SPELLINGS, Net, imported
from hypothesis import given, settings
from hypothesis import strategies as st

from snncc.ir.graphs import attribute, nodes
from snncc.ir.oracle import evaluate
from snncc.ir.text import dump
from snncc.passes import FRONT, Canonicalise, PassManager, RecogniseIntegerFire
from snncc.passes.diagnose import diagnose

#: Every multiple of 1/4 around and beyond the levels, and numbers next to the borders.
GRID = np.arange(-40, 90, dtype=np.float32)[None] / 4
NEAR = np.nextafter(GRID, GRID + 1, dtype=np.float32)
U = np.concatenate([GRID, NEAR, -NEAR], axis=1)


def recognised(net: Net) -> ir.Model:
    passes = (Canonicalise(), RecogniseIntegerFire())
    return PassManager(passes, feeds={"x": U}).run(imported(net))


def quantiser(spelling: str, D: int = 4, norm: float = 1.0, rounding: str = "half-even") -> Net:
    return Net(U.shape[1:]).fire(D, norm, rounding, spelling)


def the_neuron(model: ir.Model) -> tuple[int, float, str]:
    """D, norm and rounding of the only node."""
    (node,) = list(model.graph)
    assert node.op_type == "IntegerFire"
    return attribute(node, "D"), attribute(node, "norm"), attribute(node, "rounding")


@pytest.mark.parametrize("rounding", ["half-even", "half-up"])
@pytest.mark.parametrize("spelling", SPELLINGS)
@settings(max_examples=15)
@given(D=st.integers(1, 15), norm=st.sampled_from([1.0, 4.0, 0.3]))
def test_every_spelling_becomes_one_neuron(
    spelling: str, rounding: str, D: int, norm: float
) -> None:
    found = the_neuron(recognised(quantiser(spelling, D, norm, rounding)))
    assert found == (D, pytest.approx(norm), rounding)


@pytest.mark.parametrize("rounding", ["half-even", "half-up"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_neuron_is_what_was_written(spelling: str, rounding: str) -> None:
    net = quantiser(spelling, 5, 1.0, rounding)
    written, found = imported(net), recognised(net)
    (before,), (after,) = (evaluate(m, {"x": U}).values() for m in (written, found))
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_the_name_of_the_quantiser_is_kept(golden: str) -> None:
    net = Net((1, 4, 4)).conv(2).fire(4, 4.0, spelling="straight-through").flatten().linear(3)
    assert dump(recognised_of(net)) == golden


def recognised_of(net: Net) -> ir.Model:
    return PassManager((Canonicalise(), RecogniseIntegerFire())).run(imported(net))


def fronted(net: Net) -> ir.Model:
    return PassManager(FRONT).run(imported(net))


def test_a_norm_may_be_multiplied() -> None:
    net = quantiser("round-of-clip", 4).affine("Mul", 0.125)
    assert the_neuron(recognised(net)) == (4, 8.0, "half-even")


def test_a_learned_step_is_a_scale_ahead_and_a_norm() -> None:
    step = 0.25
    net = Net(U.shape[1:]).affine("Div", step).fire(7, spelling="round-of-clip").affine("Mul", step)
    scale, fire = list(recognised(net).graph)
    assert scale.op_type == "Div"
    assert (attribute(fire, "D"), attribute(fire, "norm")) == (7, 4.0)


def test_a_detour_around_the_whole_step_is_found() -> None:
    net = Net(U.shape[1:])
    net.affine("Div", 0.25).fire(7, spelling="clip-of-round").affine("Mul", 0.25)
    net.x = net.node("Add", "x", net.node("Sub", net.x, "x"))
    _, fire = list(recognised(net).graph)
    assert attribute(fire, "norm") == 4.0


@pytest.mark.parametrize(
    ("low", "high", "rounding", "D"),
    [
        (0, 3.5, "half-even", 4),
        (0, 2.5, "half-even", 2),
        (0, 2.5, "half-up", 3),
        (-0.4, 7.2, "half-up", 7),
    ],
)
def test_clamps_ahead_may_lie_between_integers(
    low: float, high: float, rounding: str, D: int
) -> None:
    net = Net(U.shape[1:])
    net.then("Clip", net.const(low), net.const(high))
    net = net.then("Round") if rounding == "half-even" else _half_up(net)
    assert the_neuron(recognised(net))[0] == D


def _half_up(net: Net) -> Net:
    return net.then("Add", net.const(0.5)).then("Floor")


def test_a_second_clamp_narrows_the_first() -> None:
    net = Net(U.shape[1:])
    net.then("Clip", net.const(-2), net.const(9)).then("Round").then("Relu")
    net.then("Min", net.const(6))
    assert the_neuron(recognised(net))[0] == 6


def test_a_neuron_that_another_reads_twice_stays_one() -> None:
    net = Net((3,)).fire(4, spelling="round-of-clip")
    counts = net.x
    net.linear(3, matmul=True)
    net.x = net.node("Add", net.x, counts)
    model = PassManager((Canonicalise(), RecogniseIntegerFire())).run(imported(net))
    assert len(list(nodes(model, "IntegerFire"))) == 1


def test_a_second_run_rewrites_nothing() -> None:
    net = Net((1, 6, 6)).conv(2).fire(4, 2.0, spelling="straight-through").conv(2).fire(3)
    assert RecogniseIntegerFire().run(recognised_of(net)) == 0


# -- near misses ---------------------------------------------------------------------------


def clamp_without_round(net: Net) -> Net:
    return net.then("Clip", net.const(0), net.const(4), module="act")


def relu6_without_round(net: Net) -> Net:
    return net.then("Relu", module="act").then("Min", net.const(6), module="act")


def round_without_bound(net: Net) -> Net:
    return net.then("Relu", module="act").then("Round", module="act")


def signed(net: Net) -> Net:
    return net.then("Clip", net.const(-4), net.const(3), module="act").then("Round", module="act")


def signed_half_up(net: Net) -> Net:
    net.then("Clip", net.const(-4), net.const(3), module="act")
    return net.then("Add", net.const(0.5), module="act").then("Floor", module="act")


def ceiling(net: Net) -> Net:
    return net.then("Ceil", module="act").then("Clip", net.const(0), net.const(4), module="act")


def floor_alone(net: Net) -> Net:
    return net.then("Clip", net.const(0), net.const(4), module="act").then("Floor", module="act")


def half_a_level(net: Net) -> Net:
    return net.then("Round", module="act").then("Clip", net.const(0), net.const(2.5), module="act")


def from_one(net: Net) -> Net:
    return net.then("Round", module="act").then("Clip", net.const(1), net.const(4), module="act")


def too_many_levels(net: Net) -> Net:
    return net.then("Clip", net.const(0), net.const(256), module="act").then("Round", module="act")


NEAR_MISSES = [
    clamp_without_round,
    relu6_without_round,
    round_without_bound,
    signed,
    signed_half_up,
    ceiling,
    floor_alone,
    half_a_level,
    from_one,
    too_many_levels,
]


@pytest.mark.parametrize("near_miss", NEAR_MISSES)
def test_a_near_miss_is_one_fault_that_names_it(near_miss: object, golden: str) -> None:
    net = near_miss(Net((1, 4, 4)).conv(2)).flatten().linear(3)  # type: ignore[operator]
    found = diagnose(fronted(net))
    assert len(found.near_misses) == 1
    assert found.activations_found == 1
    assert "\n".join(map(str, found.faults)) + "\n" == golden


def test_all_near_misses_are_reported_at_once() -> None:
    net = Net((1, 20, 20))
    for near_miss in NEAR_MISSES:
        near_miss(net.conv(2))
    assert len(diagnose(fronted(net)).near_misses) == len(NEAR_MISSES)
