from __future__ import annotations

import onnx_ir as ir
import pytest
from float_networks import Net, case_of, imported, lowered

from snncc.errors import SnnccError
from snncc.ir.graphs import nodes
from snncc.ir.ops import DOMAIN, OPS
from snncc.ir.stages import STAGES, set_stage, stage_of, verify_stage


@pytest.fixture(scope="module")
def stages() -> dict[str, ir.Model]:
    net = Net((1, 6, 6), rms=2.0).conv(2).fire().pool("MaxPool").flatten().linear(3)
    return lowered(case_of(net)).stages


def test_a_model_without_a_stage_is_imported() -> None:
    model = imported(Net((3,)).linear(2))
    model.metadata_props.clear()
    assert stage_of(model) == "imported"


@pytest.mark.parametrize("stage", STAGES)
def test_the_pipeline_leaves_a_valid_graph_in_every_stage(
    stages: dict[str, ir.Model], stage: str
) -> None:
    assert stage_of(stages[stage]) == stage
    verify_stage(stages[stage], stage)


@pytest.mark.parametrize("stage", STAGES)
def test_an_unknown_operator_of_the_domain_is_refused(
    stages: dict[str, ir.Model], stage: str
) -> None:
    model = stages[stage].clone()
    last = list(model.graph)[-1]
    last.domain, last.op_type = DOMAIN, "SpikeSumm"
    with pytest.raises(SnnccError, match=f"not allowed in stage '{stage}'"):
        verify_stage(model, stage)


@pytest.mark.parametrize(
    ("stage", "wanted"),
    [("quantised", "integer"), ("spiking", "quantised"), ("integer", "spiking")],
)
def test_a_graph_of_another_stage_is_refused(
    stages: dict[str, ir.Model], stage: str, wanted: str
) -> None:
    with pytest.raises(SnnccError, match="does not fit stage"):
        verify_stage(stages[stage], wanted)


def test_all_nodes_that_do_not_fit_are_listed(stages: dict[str, ir.Model], golden: str) -> None:
    with pytest.raises(SnnccError) as caught:
        verify_stage(stages["spiking"], "quantised")
    assert f"{caught.value}\n" == golden


def test_a_missing_attribute_is_refused(stages: dict[str, ir.Model]) -> None:
    model = stages["quantised"].clone()
    node = next(nodes(model, "QConv"))
    del node.attributes["group"]
    with pytest.raises(SnnccError, match="group"):
        verify_stage(model, "quantised")


def test_a_wrong_type_is_refused(stages: dict[str, ir.Model]) -> None:
    model = stages["integer"].clone()
    fire = next(nodes(model, "IntegerFire"))
    fire.attributes["D"] = ir.AttrFloat32("D", 4.0)
    with pytest.raises(SnnccError, match="D"):
        verify_stage(model, "integer")


def test_the_mark_of_a_stage_is_kept() -> None:
    model = imported(Net((3,)).linear(2))
    set_stage(model, "integer")
    assert stage_of(model.clone()) == "integer"


def test_tables_name_only_operators_that_exist() -> None:
    named = {op for table in STAGES.values() if table for domain, op in table if domain == DOMAIN}
    assert named <= set(OPS)
