"""Laws of scales: a quantised file fires what its own float32 constants say, exactly.

The judge computes the file with fractions. ONNX Runtime cannot be it: it decides ties with float32.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from exact_evaluation import evaluated, fractions
from float_networks import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from quantised_chains import Chain, chains, scale_of, survives

from snncc.frontends.onnx_file import import_onnx
from snncc.ir.exact import Exact, unit_of
from snncc.ir.graphs import constant, nodes
from snncc.ir.oracle import evaluate
from snncc.passes import PassManager, QuantiseInput, pipeline

BITS = st.sampled_from([8, 16, 24])


def quantised(net: Chain, folder: Path, bits: int) -> ir.Model:
    """The file as it is compiled."""
    onnx.save(net.model(), folder / "net.onnx")
    manager = PassManager(pipeline(QuantiseInput(real=True), bits))
    manager.run(import_onnx(folder / "net.onnx"))
    return manager.stages["quantised"]


def different(net: Chain, model: ir.Model, samples: int = 3) -> dict[str, int]:
    """Counts that differ from the judge's, by activation; those that were dropped are not there."""
    x = net.samples(samples)
    known = {str(v.name) for node in model.graph for v in node.outputs}
    ends = (
        ":count",
        "/count",
        *(
            f"/{op}{i}{end}"
            for op in ("round", "floor", "mul")
            for i in range(9)
            for end in ("", ":count")
        ),
    )
    likely = {name: [f"{name}{end}" for end in ends] for name in net.units}
    names = {name: n for name, some in likely.items() for n in some if n in known}
    found = evaluate(model, {"x": x}, list(names.values()))
    exact, wrong = evaluated(net.model(), x), {}
    for name, count in names.items():
        true = exact[name] / fractions(net.units[name]) - net.lows.get(name, 0)
        wrong[name] = int((true.astype(int) != found[count]).sum())
    return wrong


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("chains")


@settings(max_examples=40)
@given(chains(), BITS)
def test_files_fire_what_their_constants_say(folder, net, bits):
    assert set(different(net, quantised(net, folder, bits)).values()) == {0}


@settings(max_examples=6, suppress_health_check=list(HealthCheck))
@given(net=st.sampled_from([1, 8]).flatmap(chains))
def test_so_do_files_of_a_fixed_batch(folder, net):
    assert set(different(net, quantised(net, folder, 8)).values()) == {0}


@pytest.mark.slow
@settings(max_examples=examples(1000))
@given(chains(), BITS)
def test_many_files_fire_what_their_constants_say(compared: Counter[str], folder, net, bits):
    assert set(different(net, quantised(net, folder, bits)).values()) == {0}
    compared["quantised"] += 1


# -- the one place where a scale was lost --------------------------------------------------


def behind_a_pool(scale: float, batch="N", spelling="qcdq") -> Chain:
    """Activations of 16 levels, the mean of four of them, quantised again on the same scale."""
    net = Chain((1, 6, 6), 0, batch)
    net.source(0).layer(4, 3, 0, 1, per_channel=False)
    net.quantise(15, np.asarray(scale, np.float32), "qcdq").pool("AveragePool")
    net.quantise(15, np.asarray(scale, np.float32), spelling).flatten().linear(3)
    return net


LOST = [float(scale_of(np.random.default_rng(seed))) for seed in range(3)]


@pytest.mark.parametrize("batch", ["N", 1, 8])
@pytest.mark.parametrize("scale", [0.1, *LOST])
@pytest.mark.parametrize(
    ("spelling", "levels"), [("qcdq", [3, 6, 11, 14]), ("half-up", [2, 6, 10, 14])]
)
def test_ties_behind_a_pool_are_the_files_own(tmp_path, batch, scale, spelling, levels):
    net = behind_a_pool(scale, batch, spelling)
    model = quantised(net, tmp_path, 8)
    assert set(different(net, model, 8).values()) == {0}
    found = constant(list(nodes(model, "FireCount"))[1].inputs[1])
    assert found is not None
    assert found[0, :4].tolist() == levels


def test_the_scales_tried_are_those_that_do_not_survive():
    assert not any(survives(scale) for scale in LOST)
    assert survives(0.1)


# -- where exact numbers are kept ----------------------------------------------------------


def test_a_neurons_unit_is_the_files_scale(tmp_path):
    scale = LOST[0]
    onnx.save(behind_a_pool(scale).model(), tmp_path / "net.onnx")
    manager = PassManager(pipeline(QuantiseInput(real=True), 8), kept=["merge-linear"])
    manager.run(import_onnx(tmp_path / "net.onnx"))
    units = [unit_of(node) for node in nodes(manager.after["merge-linear"], "IntegerFire")]
    assert units == [Fraction(float(np.float32(scale)))] * 2


def test_a_copy_of_a_graph_knows_the_exact_numbers(tmp_path):
    onnx.save(behind_a_pool(LOST[0]).model(), tmp_path / "net.onnx")
    model = import_onnx(tmp_path / "net.onnx").clone()
    known = [Exact.of(value) for value in model.graph.initializers.values()]
    assert sum(one is not None and one.units is not None for one in known) >= 1
