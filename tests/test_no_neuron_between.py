"""Layers with no neuron between: merged or graded, every engine computes the same integers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import lava_runs
import numpy as np
import onnx_ir as ir
import pytest
import torch
from float_networks import Case, Net, case_of, examples, imported, lowered
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_networks import networks
from test_agreement import BITS, Forms, disagreements

import snncc
from snncc.backends.lava.limits import unsupported
from snncc.errors import SnnccError, UnsupportedModelError, UsageError
from snncc.ir.ops import NEURONS
from snncc.ir.oracle import evaluate
from snncc.nn import IntegerFire
from snncc.passes import PassManager, RequireInteger, front
from snncc.passes.fold.merge_linear import MergeLinear
from snncc.passes.fold.no_neuron_between import AUTO, GRADED, MERGE, Between, pairs_of, require_form
from snncc.passes.integers import quantise_weights, shared_grids
from snncc.passes.integers.quantise_weights import squeezed
from snncc.passes.integers.shared_grids import QuantisedLayer
from snncc.passes.spikes.build_program import build_program
from snncc.program import Program
from snncc.runtime.verify import verify

FORM = st.sampled_from([AUTO, GRADED])
#: What is right to refuse: weights of too few bits, potentials of too many.
_REFUSED = ("do not fit", "padded average of the input", "that they are added to")


def forms(case: Case, bits: int, form: str = AUTO) -> Forms:
    """All forms; networks that are refused, as they should be, are not drawn."""
    try:
        stages = lowered(case, bits, check=False, form=form).stages
        program = build_program(stages["quantised"], "net")
    except UnsupportedModelError as e:
        assume(not any(reason in str(e) for reason in _REFUSED))
        raise
    return Forms(case, stages["quantised"], stages["spiking"], program)


def payloads(program: Program) -> list[int]:
    """How far the potentials reach that layers read."""
    nodes = program.by_name
    read = [p for a in program.accumulators for p in a.projections if p.weights]
    return [p.payload for p in read if nodes[p.source].is_potential]


def pairs(net: Net, form: str = AUTO, **settings: Any) -> list[Between]:
    """What becomes of a network's layers."""
    return pairs_of(PassManager(front(merge=MergeLinear(form, **settings))).run(imported(net)))


# -- the law -------------------------------------------------------------------------------


@settings(max_examples=15)
@given(networks(max_layers=2, between=True), BITS, FORM)
def test_layers_with_no_neuron_between_are_the_same_on_all_engines(
    case: Case, bits: int, form: str
) -> None:
    assert disagreements(forms(case, bits, form)) == []


@pytest.mark.slow
@settings(max_examples=examples(1000))
@given(networks(max_layers=2, between=True), BITS, FORM)
def test_many_layers_with_no_neuron_between_are_the_same_on_all_engines(
    compared: Counter[str], case: Case, bits: int, form: str
) -> None:
    f = forms(case, bits, form)
    assert disagreements(f) == []
    compared["with payloads" if payloads(f.program) else "all merged"] += 1


def stem() -> Net:
    """Three padded convolutions, then a neuron: their borders are those of no one convolution."""
    net = Net((2, 7, 6), seed=3).conv(4, pads=1).conv(5, pads=1).conv(4, stride=2, pads=1).fire(4)
    return net.flatten().linear(3)


def separable(channels: int = 8) -> Net:
    """A depthwise convolution and a pointwise one between neurons."""
    net = Net((1, 6, 6), seed=1).conv(channels).fire(3)
    return net.conv(channels, pads=1, group=channels).conv(channels, 1).fire(4)


@pytest.mark.parametrize("bits", [8, 16, 24])
def test_payloads_of_any_size_are_multiplied_exactly(bits: int) -> None:
    f = forms(case_of(stem(), samples=8), bits)
    assert bits == 8 or max(payloads(f.program)) > 2**31
    assert disagreements(f) == []


def test_sums_of_potentials_leave_room_for_all_of_them() -> None:
    """A layer that reads a sum of eight, and is one of eight itself, some times in a row."""
    net = Net((1, 3, 3), seed=5).conv(2, pads=1).fire(3).conv(2, 1)
    for _ in range(3):
        potential = net.x
        net.conv(2, 1)
        for _ in range(7):
            one, net.x = net.x, potential
            net.conv(2, 1).add(one)
    f = forms(case_of(net.fire(4)), 24, GRADED)
    assert max(a.high for a in f.program.accumulators) > 2**50
    assert disagreements(f) == []


# -- against the trained network -----------------------------------------------------------


def changed(case: Case, bits: int, form: str = AUTO) -> tuple[int, int]:
    """Counts that differ from the float network's in stage ``integer``; and spikes there are."""
    stages = lowered(case, bits, check=False, form=form).stages
    fires = [str(n.outputs[0].name) for n in stages["integer"].graph if n.op_type in NEURONS]
    real = evaluate(stages["integer"], case.feeds, fires)
    whole = evaluate(stages["quantised"], case.feeds, fires)
    differ = sum(int((real[name] != whole[name]).sum()) for name in fires)
    return differ, int(sum(real[name].sum() for name in fires))


@pytest.mark.parametrize("build", [stem, separable])
def test_weights_of_many_bits_change_nothing_not_even_at_borders(build: Any) -> None:
    differ, spikes = changed(case_of(build(), samples=8), 16, GRADED)
    assert spikes > 100
    assert differ == 0


def test_a_bias_that_padding_saw_would_be_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second layer's border sees zeros: no bias of the first one is there."""

    def moved(planned: dict[Any, QuantisedLayer]) -> dict[Any, QuantisedLayer]:
        found = dict(planned)
        for out, second in planned.items():
            first = planned.get(second.linear.x)
            if first is None:
                continue
            sums = (second.weight << second.shift).sum(axis=(2, 3))
            found[out] = replace(second, bias=second.bias + sums @ first.bias)
            found[first.linear.out] = replace(first, bias=0 * first.bias)
        return found

    monkeypatch.setattr(quantise_weights, "round_for_pixels", moved)
    assert changed(case_of(stem(), samples=8), 16, GRADED)[0] > 0


# -- the choice ----------------------------------------------------------------------------


def test_a_depthwise_and_a_pointwise_layer_stay_two() -> None:
    (pair,) = pairs(separable(8), bits=8)
    assert (pair.first, pair.module, pair.form, pair.why) == ("conv3", "conv4", "graded", "cheaper")
    assert pair.graded is not None
    assert pair.merged is not None
    assert (pair.graded.weights, pair.merged.weights) == (8 * 9 + 8 * 8, 8 * 8 * 9)
    assert pair.graded.operations == 16 * (8 * 9 + 8 * 8)
    assert pair.graded.payloads == 16 * 8 * 8


def test_a_convolution_and_a_pointwise_layer_become_one() -> None:
    net = Net((1, 6, 6)).conv(6).fire(3).conv(6, pads=1).conv(6, 1).fire(4)
    (pair,) = pairs(net)
    assert (pair.form, pair.why) == ("merged", "cheaper")
    program = forms(case_of(net), 8).program
    assert payloads(program) == []


@pytest.mark.parametrize(("form", "made"), [(MERGE, "merged"), (GRADED, "graded")])
def test_what_is_asked_for_is_done(form: str, made: str) -> None:
    for net in (separable(), Net((1, 6, 6)).conv(6).fire(3).conv(6).conv(6, 1).fire(4)):
        (pair,) = pairs(net, form)
        assert (pair.form, pair.why) == (made, "asked")
        f = forms(case_of(net), 8, form)
        assert len(payloads(f.program)) == (form == GRADED)
        assert disagreements(f) == []


def test_potentials_without_room_are_merged() -> None:
    (pair,) = pairs(separable(), bits=8, room=16)
    assert (pair.form, pair.why) == ("merged", "room")


def test_what_cannot_be_merged_is_graded_or_refused() -> None:
    found = pairs(stem())
    assert [(pair.module, pair.form, pair.why) for pair in found] == [
        ("conv2", "graded", "only"), ("conv3", "graded", "only"),
    ]  # fmt: skip
    with pytest.raises(UnsupportedModelError) as refused:
        PassManager((*front(merge=MergeLinear(MERGE)), RequireInteger())).run(imported(stem()))
    assert [fault.module for fault in refused.value.faults] == ["conv2"]  # conv3 reads what that is
    assert "no_neuron_between='graded'" in str(refused.value.faults[0].todo)


def test_only_the_three_forms_exist() -> None:
    with pytest.raises(UsageError, match="no_neuron_between='both': merge, graded, auto"):
        require_form("both")


# -- limits --------------------------------------------------------------------------------


def deep(layers: int = 4) -> Case:
    """Padded convolutions in a row, whose potentials would have too many bits."""
    net = Net((2, 8, 8), seed=2).conv(4, pads=1)
    for _ in range(layers):
        net.conv(4, pads=1)
    return case_of(net.fire(4).flatten().linear(2), samples=3)


def dropped(program: Program) -> list[int]:
    """Bits that layers do not read of potentials."""
    return [p.drop for a in program.accumulators for p in a.projections if p.drop]


def test_potentials_are_rounded_before_weights_are() -> None:
    """To as many steps as weights have: hardly a spike changes, however long the chain."""
    found = forms(deep(), 16)
    assert dropped(found.program) != []
    assert disagreements(found) == []
    assert dropped(forms(deep(1), 16).program) == []


@pytest.mark.parametrize(("layers", "bits"), [(4, 16), (14, 16), (14, 24)])
def test_long_chains_compute_what_was_trained(layers: int, bits: int) -> None:
    differ, spikes = changed(deep(layers), bits)
    assert differ <= 0.01 * spikes


def test_a_rounded_potential_is_that_of_no_other_network() -> None:
    quantised = lowered(deep(), 16, check=False).stages["quantised"]
    program = build_program(quantised, "net")
    node = next(n for n in quantised.graph if n.op_type == "CoarsePotential")
    node.attributes["drop"] = ir.AttrInt64("drop", node.attributes["drop"].as_int() + 1)
    assert dropped(build_program(quantised, "net")) != dropped(program)


def test_lava_refuses_rounded_potentials_by_name() -> None:
    told = [fault.what for fault in unsupported(forms(deep(), 16).program)]
    assert any("is rounded by" in what for what in told)


def test_long_chains_share_the_bits_that_potentials_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_grids, "_UNUSUAL", -100)  # potentials are not rounded
    short = squeezed(lowered(deep(), 16, check=False).stages["quantised"])
    assert [row["module"] for row in short] == [f"conv{i}" for i in range(1, 6)]
    assert len({row["bits_left"] for row in short}) == 1
    assert 4 <= short[0]["bits_left"] < 16
    assert disagreements(forms(deep(), 16)) == []


def test_a_chain_without_any_room_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_grids, "_UNUSUAL", -100)  # potentials are not rounded
    with pytest.raises(UnsupportedModelError, match="the weights do not fit their bits"):
        lowered(deep(9), 8, check=False)


def test_a_layer_that_is_added_to_what_it_reads_is_refused_by_name() -> None:
    net = Net((1, 6, 6)).conv(3)
    one = net.x
    net.conv(3, pads=1).add(one).fire(3)
    with pytest.raises(UnsupportedModelError, match="that they are added to") as refused:
        lowered(case_of(net), 8)
    assert [fault.node for fault in refused.value.faults] == ["conv2"]


def test_products_of_payloads_are_counted_apart() -> None:
    program = forms(case_of(separable(), samples=2), 8).program
    assert dict(program.besides) == {"products of graded payloads": 16 * 8 * 8}


# -- Lava ----------------------------------------------------------------------------------


def test_lava_takes_payloads_that_fit_its_words(tmp_path: Path) -> None:
    net = Net((1, 4, 4)).conv(2, D=3).fire(3).conv(2, pads=1, group=2, D=3).conv(3, 1, D=3).fire(3)
    case = case_of(net, samples=2)
    program = forms(case, 5, GRADED).program
    assert payloads(program) != []
    directory = lava_runs.emitted(program, case.q, tmp_path)
    wanted = lava_runs.expected(program, case.q)
    assert lava_runs.differences(wanted, lava_runs.run(directory)) == []


def test_lava_refuses_payloads_beyond_its_words_by_name() -> None:
    faults = unsupported(forms(case_of(stem()), 8).program)
    assert {"conv2", "conv3"} <= {fault.module for fault in faults}
    assert all("24 bits of a state word" in fault.what for fault in faults)


# -- files ---------------------------------------------------------------------------------


def test_a_graph_that_lacks_a_digit_is_no_network() -> None:
    quantised = lowered(case_of(separable()), 16, check=False, form=GRADED).stages["quantised"]
    digits = [n for n in quantised.graph if n.op_type == "PayloadDigit"]
    assert len(digits) > 1
    lowest, highest = digits[0].outputs[0], digits[-1].outputs[0]
    for user, index in list(highest.uses()):
        user.replace_input_with(index, lowest)
    with pytest.raises(SnnccError, match="does not read all of a potential"):
        build_program(quantised, "net")


def test_a_file_with_payloads_is_read_and_run(tmp_path: Path) -> None:
    path = tmp_path / "net.snn"
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 4, 3, padding=1), IntegerFire(4),
        torch.nn.Flatten(), torch.nn.Linear(144, 3),
    )  # fmt: skip
    model = snncc.compile(
        net, input_shape=(1, 6, 6), input=snncc.InputOptions(mean=[0.5], std=[0.1])
    )
    model.save(path)
    read = snncc.load(path)
    assert [pair.form for pair in read.report.no_neuron_between] == ["graded"]
    x = np.random.default_rng(0).integers(0, 256, (4, 1, 6, 6)).astype(np.uint8)
    verdict = verify(read, x)
    assert verdict.mismatched == 0
