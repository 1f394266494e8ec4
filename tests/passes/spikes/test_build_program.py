from __future__ import annotations

import numpy as np
import pytest
from float_networks import Case, Net, case_of, examples, lowered
from hypothesis import assume, given, settings
from random_networks import networks

from snncc.errors import SnnccError, UnsupportedModelError
from snncc.ir.graphs import nodes
from snncc.ir.oracle import evaluate
from snncc.passes.spikes.build_program import build_program
from snncc.program import Accumulator, Neuron, Pool, Program, Readout, Source


def program_of(case: Case, bits: int = 8) -> Program:
    try:
        return build_program(lowered(case, bits, check=False).stages["quantised"], "net")
    except UnsupportedModelError as e:
        assume("do not fit" not in str(e))
        raise


def shape_of(program: Program) -> list[tuple[str, str]]:
    return [(type(n).__name__, n.name) for n in program.nodes]


def test_nodes_keep_the_names_of_the_graph() -> None:
    net = Net((1, 8, 8), rms=2.0).conv(3, pads=1).fire(4).pool("MaxPool").conv(2).fire(2)
    assert shape_of(program_of(case_of(net.flatten().linear(3)))) == [
        ("Source", "x:u8"),
        ("Accumulator", "conv1:v"),
        ("Neuron", "fire2"),
        ("Pool", "pool3"),
        ("Accumulator", "conv4:v"),
        ("Neuron", "fire5"),
        ("Accumulator", "fc7:v"),
        ("Readout", "output"),
    ]


def test_a_pool_of_potentials_ends_in_an_accumulator() -> None:
    net = Net((1, 8, 8), rms=2.0).conv(3).mean().fire(4).linear(2)
    program = program_of(case_of(net), bits=24)
    kinds = [type(n) for n in program.nodes]
    assert kinds == [Source, Accumulator, Pool, Accumulator, Neuron, Accumulator, Readout]


def test_windows_follow_the_depth() -> None:
    net = Net((1, 8, 8), rms=2.0)
    for _ in range(3):
        net.conv(2).fire(4)
    program = program_of(case_of(net))
    assert [n.depth for n in program.neurons] == [0, 1, 2]
    assert (program.windows, program.latency) == (3, 12)


def test_a_window_has_the_ticks_of_the_largest_burst() -> None:
    net = Net((1, 8, 8), rms=2.0).conv(2).fire(3).conv(2).fire(7).conv(2).fire(1)
    program = program_of(case_of(net))
    assert program.ticks == 7
    assert [n.D for n in program.neurons] == [3, 7, 1]


def test_modules_and_rounding_are_kept_for_people() -> None:
    net = Net((1, 8, 8), rms=2.0).conv(2).fire(3, rounding="half-up").flatten().linear(2)
    program = program_of(case_of(net))
    (neuron,) = program.neurons
    assert (neuron.module, neuron.rounding) == ("fire2", "half-up")
    assert [a.module for a in program.accumulators] == ["conv1", "fc4"]


@pytest.mark.parametrize("bits", [4, 8, 9, 16, 17, 24])
def test_weights_come_in_slices(bits: int) -> None:
    net = Net((1, 8, 8), rms=2.0).conv(3).fire(4).flatten().linear(2)
    program = program_of(case_of(net), bits)
    found = {len(a.projections[0].weights) for a in program.accumulators}
    assert found == {-(-bits // 8)}


def test_a_scale_makes_scores_of_integers() -> None:
    case = case_of(Net((1, 8, 8), rms=2.0).conv(3).fire(4, 4.0).flatten().linear(2), samples=9)
    stages = lowered(case, 16).stages
    program = build_program(stages["quantised"], "net")
    (v,), (real,) = (evaluate(stages[s], case.feeds).values() for s in ("quantised", "integer"))
    np.testing.assert_allclose(v * program.readouts[0].scale, real, atol=1e-2)


@settings(max_examples=examples(25))
@given(networks())
def test_random_networks_become_valid_programs_whose_bounds_hold(case: Case) -> None:
    quantised = lowered(case, 12, check=False).stages["quantised"]
    program = build_program(quantised, "net")  # validates
    names = [a.name for a in program.accumulators]
    for name, v in evaluate(quantised, case.feeds, names).items():
        node = program.by_name[name]
        assert isinstance(node, Accumulator)
        assert node.low <= v.min()
        assert v.max() <= node.high


@settings(max_examples=examples(15))
@given(networks())
def test_every_population_of_the_graph_is_in_the_program(case: Case) -> None:
    quantised = lowered(case, 12, check=False).stages["quantised"]
    fires = [n.outputs[0].name for n in nodes(quantised, "FireCount")]
    program = build_program(quantised, "net")
    assert [n.name for n in program.nodes if isinstance(n, Neuron)] == fires


def test_an_operator_without_a_form_is_named() -> None:
    model = lowered(case_of(Net((1, 8, 8)).conv(2).fire().flatten().linear(2))).stages["quantised"]
    model = model.clone()
    node = next(nodes(model, "Reshape"))
    node.op_type = "Softmax"
    with pytest.raises(SnnccError, match=r"no form for 'flatten3' \(Softmax\)"):
        build_program(model, "net")
