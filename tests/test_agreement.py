"""The exactness contract: after quantisation every form of a network fires the same spikes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
import pytest
from float_networks import Case, Net, case_of, examples, lowered
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from interpreter import interpret
from random_networks import networks

from snncc.backends.base import Engine
from snncc.backends.clocked.engine import ClockedEngine
from snncc.backends.event.engine import KERNELS, EventEngine
from snncc.errors import UnsupportedModelError
from snncc.ir.graphs import initializer, nodes
from snncc.ir.oracle import evaluate
from snncc.passes.spikes.build_program import build_program
from snncc.program import Program

BITS = st.sampled_from([5, 8, 8, 12, 16, 24])


@dataclass
class Forms:
    """One network as quantised graph, spiking graph and Program."""

    case: Case
    quantised: ir.Model
    spiking: ir.Model
    program: Program

    @staticmethod
    def of(case: Case, bits: int) -> Forms:
        stages = lowered(case, bits, check=False).stages
        quantised = stages["quantised"]
        return Forms(case, quantised, stages["spiking"], build_program(quantised, "net"))


#: Weights of too few bits; zeros among offset pixels (both have tests of their own).
_REFUSED = ("do not fit", "padded average of the input")


def forms(case: Case, bits: int) -> Forms:
    """All forms; networks that are refused, as they should be, are not drawn."""
    try:
        return Forms.of(case, bits)
    except UnsupportedModelError as e:
        assume(not any(reason in str(e) for reason in _REFUSED))
        raise


def disagreements(f: Forms) -> list[str]:
    """Populations, potentials and results on which any two forms differ, in the network's order."""
    found = {
        "spiking": _of_ticks(f),
        "clocked": _of_engine(f, ClockedEngine(f.program)),
        "interpreter": _of_interpreter(f),
        **{f"event, {k}": _of_engine(f, EventEngine(f.program, kernels=k)) for k in KERNELS},
    }
    expected = _of_counts(f)
    return [
        f"{name}: {form}"
        for name in expected
        for form, values in found.items()
        if name in values and not np.array_equal(expected[name], values[name])
    ]


def _names(f: Forms) -> list[str]:
    return [n.name for n in (*f.program.accumulators, *f.program.neurons)]


def _of_counts(f: Forms) -> dict[str, np.ndarray]:
    order = {n.name: i for i, n in enumerate(f.program.nodes)}
    values = evaluate(f.quantised, f.case.feeds, sorted(_names(f), key=order.__getitem__))
    return {**values, "output": next(iter(evaluate(f.quantised, f.case.feeds).values()))}


def _of_ticks(f: Forms) -> dict[str, np.ndarray]:
    """Potentials by name; counts as sums of trains."""
    known = {str(o.name) for n in f.spiking.graph for o in n.outputs}
    trains = {n.name: f"{n.name}:spikes" for n in f.program.neurons}
    direct = [a.name for a in f.program.accumulators if a.name in known]
    values = evaluate(f.spiking, f.case.feeds, [*direct, *trains.values()])
    counts = {name: values[t].sum(axis=0, dtype=np.int64) for name, t in trains.items()}
    result = next(iter(evaluate(f.spiking, f.case.feeds).values()))
    return {**{n: values[n] for n in direct}, **counts, "output": result}


def _of_engine(f: Forms, engine: Engine) -> dict[str, np.ndarray]:
    potentials = [a.name for a in f.program.accumulators]
    ran = engine.run(f.case.q, probes=potentials)
    found = {**ran.potentials, **ran.counts, **ran.readouts}
    return {name: values[0] for name, values in found.items()}


def _of_interpreter(f: Forms) -> dict[str, np.ndarray]:
    counts, potentials, readouts = interpret(f.program, f.case.q)
    return {name: v[0] for name, v in {**potentials, **counts, **readouts}.items()}


# -- the law -------------------------------------------------------------------------------


@settings(max_examples=40)
@given(networks(), BITS)
def test_all_forms_fire_the_same_spikes(case: Case, bits: int) -> None:
    assert disagreements(forms(case, bits)) == []


@pytest.mark.slow
@settings(max_examples=examples(2000))
@given(networks(max_layers=4), BITS)
def test_all_forms_fire_the_same_spikes_on_many_networks(
    compared: Counter[str], case: Case, bits: int
) -> None:
    assert disagreements(forms(case, bits)) == []
    compared["without memory"] += 1


@pytest.mark.parametrize("rounding", ["half-even", "half-up"])
@pytest.mark.parametrize("pool", ["mean", "sum", "max"])
def test_ties_of_pooled_drives_are_met_and_decided_alike(pool: str, rounding: str) -> None:
    net = Net((2, 6, 6), ties=True, rms=2.0).conv(4, D=6).fire(6)
    net = net.mean(keep=True) if pool == "mean" else net.pool(_POOLS[pool])
    net.fire(3, rounding=rounding)
    f = Forms.of(case_of(net, scale=2.0**-6, samples=40), bits=8)
    last = f.program.neurons[-1]
    potential = evaluate(f.quantised, f.case.feeds, [last.source])[last.source]
    assert pool == "max" or np.isin(potential, last.levels).any()
    assert disagreements(f) == []


_POOLS = {"sum": "AveragePool", "max": "MaxPool"}


@pytest.mark.parametrize("D", [1, 2, 4, 15])
def test_every_level_is_reached_by_some_network(D: int) -> None:
    net = Net((1, 9, 9), rms=2.0).conv(8, D=D).fire(D).flatten().linear(5, D=D).fire(D)
    f = Forms.of(case_of(net, samples=30), bits=8)
    counts = _of_counts(f)[f.program.neurons[0].name]
    assert sorted(np.unique(counts)) == list(range(D + 1))
    assert disagreements(f) == []


def stream() -> Case:
    """A stem on pixels and two layers on spikes that write into one potential."""
    net = Net((1, 6, 6), seed=5, rms=2.0).conv(4, pads=1, D=6)
    for _ in range(2):
        potential = net.x
        net.fire(4).conv(4, pads=1, D=6).add(potential)
    return case_of(net.fire(4).mean().linear(3), samples=20)


@pytest.mark.parametrize("bits", [5, 8, 16])
def test_writers_of_one_potential_have_shifts_of_their_own(bits: int) -> None:
    f = Forms.of(stream(), bits)
    shifts = [p.shift for a in f.program.accumulators for p in a.projections]
    assert max(shifts) > 2
    assert disagreements(f) == []


# -- the law has teeth: mutants must be seen, at their own population ----------------------


@pytest.fixture(scope="module")
def three_layers() -> Forms:
    net = Net((1, 6, 6), seed=3, rms=2.0)
    for _ in range(3):
        net.conv(3, pads=1).fire(4)
    return Forms.of(case_of(net.flatten().linear(4), samples=8), bits=8)


def mutated(program: Program, name: str, **values: object) -> Program:
    return replace(
        program,
        nodes=tuple(replace(n, **values) if n.name == name else n for n in program.nodes),
    )


def test_a_wrong_level_is_seen_at_its_population(three_layers: Forms) -> None:
    neuron = three_layers.program.neurons[1]
    levels = neuron.levels.copy()
    levels[:, 2] += 1 + (levels[:, 3] - levels[:, 2]) // 2
    program = mutated(three_layers.program, neuron.name, levels=levels)
    found = disagreements(replace(three_layers, program=program))
    assert found[:2] == [f"{neuron.name}: clocked", f"{neuron.name}: interpreter"]


def test_a_bias_per_tick_is_seen_at_its_potential(three_layers: Forms) -> None:
    accumulator = three_layers.program.accumulators[1]
    program = mutated(three_layers.program, accumulator.name, bias=4 * accumulator.bias,
                      low=-(2**40), high=2**40)  # fmt: skip
    found = disagreements(replace(three_layers, program=program))
    assert found[:2] == [f"{accumulator.name}: clocked", f"{accumulator.name}: interpreter"]


def test_a_bias_per_tick_in_the_spiking_graph_is_seen_at_its_potential(
    three_layers: Forms,
) -> None:
    spiking = three_layers.spiking.clone()
    node = list(nodes(spiking, "SliceSum"))[1]
    bias = node.inputs[0].const_value.numpy()
    node.replace_input_with(0, initializer(spiking.graph, "per_tick", 4 * bias))
    found = disagreements(replace(three_layers, spiking=spiking))
    assert found[0] == f"{node.outputs[0].name}: spiking"


def test_a_lost_shift_is_seen_at_its_potential() -> None:
    f = Forms.of(stream(), 8)
    found = next(a for a in f.program.accumulators if any(p.shift for p in a.projections))
    lost = tuple(replace(p, shift=0) for p in found.projections)
    program = mutated(f.program, found.name, projections=lost)
    seen = disagreements(replace(f, program=program))
    assert seen[:2] == [f"{found.name}: clocked", f"{found.name}: interpreter"]


def test_a_missing_barrier_is_seen_at_its_population(three_layers: Forms) -> None:
    neuron = three_layers.program.neurons[1]
    early = mutated(three_layers.program, neuron.name, depth=neuron.depth - 1)
    found = disagreements(replace(three_layers, program=early))
    assert found[0] == f"{neuron.name}: clocked"


def test_a_missing_soft_reset_is_seen_at_its_population(three_layers: Forms) -> None:
    spiking = three_layers.spiking.clone()
    node = list(nodes(spiking, "IFSoftReset"))[2]
    levels = node.inputs[1].const_value.numpy()
    flat = np.repeat(levels[:, :1], levels.shape[1], axis=1)
    node.replace_input_with(1, initializer(spiking.graph, "no_reset", flat))
    found = disagreements(replace(three_layers, spiking=spiking))
    assert found[0] == f"{three_layers.program.neurons[2].name}: spiking"
