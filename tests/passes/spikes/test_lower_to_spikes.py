from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from float_networks import Case, Net, case_of, lowered, shared_values

from snncc.errors import VerificationError
from snncc.ir.graphs import nodes
from snncc.ir.oracle import evaluate
from snncc.ir.validation import validate_translation


def cnn() -> Net:
    net = Net((1, 8, 8), rms=2.0).conv(3, pads=1).fire(4).pool("MaxPool")
    return net.conv(4, pads=1).fire(2, 2.0).pool("AveragePool").flatten().linear(3)


CASE = case_of(cnn(), samples=5)


@pytest.fixture(scope="module")
def stages() -> dict[str, ir.Model]:
    return lowered(CASE, 12).stages


def trains(stages: dict[str, ir.Model]) -> dict[str, np.ndarray]:
    spiking = stages["spiking"]
    names = [str(n.outputs[0].name) for n in nodes(spiking, "IFSoftReset")]
    return evaluate(spiking, CASE.feeds, names)


def test_every_population_fires_binary_spikes(stages: dict[str, ir.Model]) -> None:
    found = trains(stages)
    assert list(found) == ["fire2:spikes", "fire5:count:spikes"]
    assert [t.shape[:2] for t in found.values()] == [(4, 5), (2, 5)]
    assert all(set(np.unique(t)) == {0, 1} for t in found.values())


def test_spikes_sum_to_the_counts(stages: dict[str, ir.Model]) -> None:
    for name, train in trains(stages).items():
        count = name.removesuffix(":spikes")
        (expected,) = evaluate(stages["quantised"], CASE.feeds, [count]).values()
        np.testing.assert_array_equal(train.sum(0), expected)


def test_currents_and_potentials_keep_their_names(stages: dict[str, ir.Model]) -> None:
    shared = shared_values(stages["quantised"], stages["spiking"])
    assert {"conv1:v", "conv4/acc0", "conv4:v", "fc8:v"} <= set(shared)


def test_no_count_is_formed_ahead_of_a_layer(stages: dict[str, ir.Model]) -> None:
    """A sum right after a neuron would make the comparison with counts vacuous."""
    for node in nodes(stages["spiking"], "SpikeSum"):
        assert node.inputs[0] is not None
        apart = node.inputs[0].producer()
        assert apart is not None
        assert apart.inputs[0] is not None
        assert apart.inputs[0].producer().op_type in ("QConv", "QGemm")  # type: ignore[union-attr]


def test_the_bias_enters_once(stages: dict[str, ir.Model]) -> None:
    count = {s: len(list(nodes(stages[s], "SliceSum"))) for s in ("quantised", "spiking")}
    assert count["quantised"] == count["spiking"]


def test_a_neuron_that_fires_a_tick_late_is_found(stages: dict[str, ir.Model]) -> None:
    mutant = stages["spiking"].clone()
    fire = next(nodes(mutant, "IFSoftReset"))
    table = fire.inputs[1]
    assert table is not None
    late = np.roll(table.const_value.numpy(), 1, axis=1)  # type: ignore[union-attr]
    table.const_value = ir.tensor(late, name=table.name)
    with pytest.raises(VerificationError) as caught:
        validate_translation(stages["quantised"], mutant, CASE.feeds, exact=True)
    assert {f.node for f in caught.value.faults} >= {"conv4/acc0"}


@pytest.mark.parametrize(
    "author",
    [
        lambda net: net.fire(4),
        lambda net: net.fire(4).pool("MaxPool"),
        lambda net: net.fire(4).pool("AveragePool"),
        lambda net: net.fire(4).mean(),
        lambda net: net.conv(2).fire(3).flatten(),
        lambda net: net.conv(2).mean(),
        lambda net: net.pool("AveragePool").conv(2).fire(15).fire(1).pool("MaxPool").fire(7),
    ],
)
def test_the_result_is_the_same_whatever_it_is(author: object) -> None:
    case = case_of(author(Net((1, 8, 8), rms=2.0)), samples=3)  # type: ignore[operator]
    found = lowered(case).stages
    (one,), (two,) = (evaluate(found[s], case.feeds).values() for s in ("quantised", "spiking"))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("samples", [1, 2, 7])
def test_ticks_and_samples_do_not_mix(samples: int) -> None:
    case = case_of(cnn(), samples=7)
    part = Case(case.net, case.source, case.q[:samples])
    spiking = lowered(case).stages["spiking"]
    (all_scores,) = evaluate(spiking, case.feeds).values()
    (scores,) = evaluate(spiking, part.feeds).values()
    np.testing.assert_array_equal(scores, all_scores[:samples])
