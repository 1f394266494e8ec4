"""What operators say of themselves: complete, and true of compiled graphs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import onnx.defs
import onnx_ir as ir
import pytest
from attention_nets import attend
from float_networks import Case, Net, case_of, lowered
from masked_networks import MaskedCase, MaskedNet, masked_lowered
from state_networks import apart, carried, mean_over_time, repeated

from snncc.ir.graphs import constant, nodes
from snncc.ir.neurons import BORDERS
from snncc.ir.op import F32, I64, U8, Op
from snncc.ir.ops import DOMAIN, NEURONS, OPS, OPSET, having, registry, summed, traits
from snncc.ir.stages import STAGES
from snncc.ir.standard_ops import STANDARD, StandardOp
from snncc.ir.traits import ORDER, REAL, Numbers, Traits
from snncc.passes.integers.neurons import KINDS
from snncc.passes.integers.products import PRODUCTS
from snncc.passes.spikes.build_program import _VISITORS

FIRES = Traits(
    Numbers.POTENTIALS, Numbers.COUNTS, becomes="FireCount", rounds=True, border=0.5
)  # fmt: skip


#: Attributes that every neuron of float stages has, and of one that knows of timesteps.
NEURON = {"D": "int", "norm": "float"}
SETTINGS = {"T": "int", **NEURON}


def operator(**changed: Any) -> Op:
    """A neuron of float stages, as it may be registered."""
    one = Op("Fire", "imported", "", {"X": F32}, {"Y": F32}, SETTINGS, "Y = Identity (X)", FIRES)
    return replace(one, **changed)


def convolutions() -> Net:
    net = Net((1, 8, 8), rms=2.0).conv(4, pads=1).fire(4, norm=4.0).pool("MaxPool")
    kept = net.x
    net.conv(4, pads=1).fire().add(kept).conv(3).fire().pool("AveragePool", 2, 1)
    return net.flatten().linear(3)


def attention() -> Net:
    net = Net((2, 4, 4), seed=1).conv(4, 1).fire(4)
    return attend(net, 2).conv(4, 1).fire(4).mean().linear(3)


def timesteps() -> Net:
    net = carried(repeated(Net((1, 4, 4), seed=2), 3).conv(3), 3)
    return mean_over_time(apart(net.flatten().linear(3), 3), 3)


CASES: dict[str, Case] = {
    make.__name__: case_of(make(), samples=1) for make in (convolutions, attention, timesteps)
}


@cache
def graphs(name: str) -> dict[str, ir.Model]:
    """The last graph of every stage."""
    if name != "masked":
        return lowered(CASES[name], 8, check=False).stages
    net = MaskedNet((1, 4, 4), (2, 2)).sparse_conv(2).fire().mean().linear(3)
    source = CASES["convolutions"].source
    case = MaskedCase(net, source, np.zeros((1, 1, 4, 4), np.uint8), np.ones((1, 1, 2, 2), bool))
    return masked_lowered(case, 8, check=False).stages


# -- an operator cannot leave a query without an answer -----------------------------------------


def test_an_operator_that_says_all_is_registered() -> None:
    fires = operator()
    counts = replace(OPS["FireCount"], traits=replace(OPS["FireCount"].traits, becomes="X"))
    ticks = replace(OPS["IFSoftReset"], name="X")
    conv, gemm = OPS["QConv"], OPS["QGemm"]
    assert set(registry([fires, counts, ticks, conv, gemm])) == {
        "Fire", "FireCount", "X", "QConv", "QGemm",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "missing"),
    [
        ({"traits": Traits(until="imported")}, "emits"),
        ({"traits": Traits(emits=Numbers.COUNTS, until="imported")}, "reads"),
        ({"traits": replace(FIRES, becomes="")}, "becomes"),
        ({"traits": Traits(keeps=(Numbers.COUNTS,))}, "becomes"),
        ({"attributes": {"D": "int"}}, "fires"),
        ({"attributes": {"norm": "float"}}, "fires"),
        ({"traits": replace(FIRES, rounds=False)}, "rounds"),
        ({"traits": replace(FIRES, border=None)}, "border"),
        ({"traits": replace(FIRES, remembers=True), "attributes": NEURON}, "remembers"),
        ({"traits": replace(FIRES, sums="kernel_shape")}, "sums"),
        ({"traits": replace(FIRES, begins_time=True), "attributes": NEURON}, "begins_time"),
        ({"traits": replace(FIRES, ends_time=True), "attributes": NEURON}, "begins_time"),
        ({"traits": replace(FIRES, masks=True)}, "masks"),
        ({"traits": replace(FIRES, until="never")}, "until"),
        (
            {"stage": "quantised", "inputs": {"V": I64, "levels": I64}, "outputs": {"A": U8},
             "traits": Traits(Numbers.POTENTIALS, Numbers.COUNTS)},
            "becomes",
        ),
    ],
)  # fmt: skip
def test_an_operator_without_a_trait_that_passes_ask_for_is_refused(
    changed: dict[str, Any], missing: str
) -> None:
    with pytest.raises(ValueError, match=rf"operator 'Fire': trait '{missing}'"):
        operator(**changed)


@pytest.mark.parametrize(
    ("found", "missing"),
    [
        (Traits(keeps=(Numbers.COUNTS,)), "until"),
        (Traits(until="imported"), "emits"),
    ],
)
def test_a_standard_operator_likewise(found: Traits, missing: str) -> None:
    with pytest.raises(ValueError, match=f"operator 'Pool': trait '{missing}'"):
        StandardOp("Pool", found)


@pytest.mark.parametrize("becomes", ["Nothing", "IntegerFire"])
def test_what_an_operator_becomes_is_there_and_comes_later(becomes: str) -> None:
    wrong = replace(OPS["IntegerFire"].traits, becomes=becomes)
    with pytest.raises(ValueError, match=rf"'IntegerFire': trait 'becomes'.*'{becomes}'"):
        registry([*OPS.values(), replace(OPS["IntegerFire"], traits=wrong)])


# -- the records are those of the stages, and true ----------------------------------------------


@pytest.mark.parametrize("stage", ORDER)
def test_every_operator_of_a_stage_has_a_record(stage: str) -> None:
    for domain, name in STAGES[stage] or ():
        known = OPS if domain == DOMAIN else STANDARD
        assert traits(ir.Node(domain, name, [])) is known[name].traits


def test_the_tables_of_the_stages(golden: str) -> None:
    lines = []
    for stage, table in STAGES.items():
        names = [f"{domain}::{name}".removeprefix("::") for domain, name in sorted(table or ())]
        lines += [
            f"{stage}: {'all, and of ours' if table is None else ''}",
            *map("  {}".format, names),
        ]
    assert "\n".join(lines) + "\n" == golden


@pytest.mark.parametrize("name", STANDARD)
def test_standard_operators_are_what_onnx_says(name: str) -> None:
    schema, sums = onnx.defs.get_schema(name, OPSET, ""), STANDARD[name].traits.sums
    assert not sums or schema.attributes[sums].required


def test_of_an_unknown_operator_nothing_is_said() -> None:
    assert traits(ir.Node("", "Gelu", [])) is REAL
    assert traits(ir.Node("elsewhere", "Conv", [])) is REAL
    assert traits(None) is REAL
    assert not REAL.fires
    assert not REAL.keeps_counts


def _kinds_read(node: ir.Node, known: dict[ir.Value | None, Numbers]) -> set[Numbers]:
    """What a node reads, of what is no constant; integers of the input count as counts."""
    live = [v for v in node.inputs if constant(v) is None]
    return {Numbers.COUNTS if known[v] is Numbers.SOURCE else known[v] for v in live}


@pytest.mark.parametrize("stage", ["integer", "quantised"])
@pytest.mark.parametrize("name", [*CASES, "masked"])
def test_each_node_reads_what_the_node_before_it_says_to_emit(name: str, stage: str) -> None:
    model = graphs(name)[stage]
    known: dict[ir.Value | None, Numbers] = dict.fromkeys(model.graph.inputs, Numbers.SOURCE)
    for node in model.graph:
        said, found = traits(node), _kinds_read(node, known)
        if said.masks:
            found -= {Numbers.MASK}
        if node.op_type == "Cast" and found == {Numbers.MASK}:  # float stages compute with floats
            known[node.outputs[0]] = Numbers.MASK
        elif said.emits is None:
            assert len(found) == 1, node
            assert found <= set(said.keeps), node
            known[node.outputs[0]] = found.pop()
        else:
            reads = Numbers.COUNTS if said.reads is Numbers.SOURCE else said.reads
            assert found <= {reads, said.emits}, node
            known[node.outputs[0]] = said.emits


@pytest.mark.parametrize("name", [*CASES, "masked"])
def test_each_neuron_has_its_forms_in_later_stages(name: str) -> None:
    stages = graphs(name)
    fires = {stage: [n for n in nodes(stages[stage]) if traits(n).fires] for stage in ORDER[1:]}
    for now, later in pairwise(ORDER[1:]):
        wanted = [traits(node).becomes for node in fires[now]]
        assert [node.op_type for node in fires[later]] == wanted
        assert wanted


def test_sums_are_as_large_as_said() -> None:
    found = {n.op_type: summed(n) for n in nodes(graphs("convolutions")["integer"])}
    assert found["SumPool"] == 4
    assert found["Conv"] == found["MaxPool"] == 1
    assert {summed(n) for n in nodes(graphs("timesteps")["quantised"], "TimeSum")} == {3}


# -- tables of rules, one for each operator of a kind -------------------------------------------


def test_each_neuron_has_its_rules() -> None:
    from snncc.compiler.on_grid import _SPIKES

    products = set(having("integer", lambda t: t.multiplies))
    assert set(NEURONS) == set(BORDERS) == set(KINDS)
    assert products == set(PRODUCTS)
    assert set(NEURONS) | products == set(_SPIKES)


def test_each_operator_of_a_quantised_graph_has_a_form_in_the_program() -> None:
    assert {name for _, name in STAGES["quantised"] or ()} == set(_VISITORS)
