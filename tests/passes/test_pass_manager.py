from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest
from float_networks import Net, case_of, imported

from snncc.errors import SnnccError, UnsupportedModelError, VerificationError
from snncc.ir.graphs import nodes, replace_value
from snncc.ir.text import dump
from snncc.passes import Pass, PassManager, pipeline

CASE = case_of(Net((1, 8, 8), rms=2.0).conv(2).batch_norm().fire(4).flatten().linear(3))
PASSES = pipeline(CASE.source, 8)
NAMES = [step.name for step in PASSES]


@dataclass(frozen=True)
class Careless(Pass):
    """Scales a weight and keeps the name of what changed."""

    name: ClassVar[str] = "careless"
    stage_in: ClassVar[str] = "imported"
    stage_out: ClassVar[str] = "imported"
    factor: float = 1.1

    def run(self, model: ir.Model) -> int:
        (conv,) = nodes(model, "Conv")
        weight = conv.inputs[1]
        assert weight is not None
        array = np.asarray(weight.const_value.numpy() * np.float32(self.factor))  # type: ignore[union-attr]
        weight.const_value = ir.tensor(array, name=weight.name)
        return 1


@dataclass(frozen=True)
class Refusing(Careless):
    """Always finds something."""

    name: ClassVar[str] = "refusing"

    def run(self, model: ir.Model) -> int:
        raise UnsupportedModelError("cannot be")


@dataclass(frozen=True)
class Broken(Careless):
    """Leaves something that its stage does not allow."""

    name: ClassVar[str] = "broken"

    def run(self, model: ir.Model) -> int:
        next(nodes(model, "IntegerFire")).op_type = "Nonsense"
        return 1


def test_passes_run_in_the_order_of_the_pipeline() -> None:
    manager = PassManager(PASSES, feeds=CASE.feeds)
    manager.run(imported(CASE.net))
    assert [r.name for r in manager.records] == NAMES


def test_every_stage_is_kept() -> None:
    manager = PassManager(PASSES)
    result = manager.run(imported(CASE.net))
    assert list(manager.stages) == ["imported", "integer", "quantised", "spiking"]
    assert manager.stages["spiking"] is result


def test_the_model_given_stays_as_it_is() -> None:
    model = imported(CASE.net)
    before = dump(model)
    PassManager(PASSES).run(model)
    assert dump(model) == before


def test_what_a_pass_breaks_is_found_right_behind_it() -> None:
    passes = [Careless(), *PASSES]
    with pytest.raises(VerificationError, match="careless: the graph changed") as caught:
        PassManager(passes, feeds=CASE.feeds).run(imported(CASE.net))
    assert [f.node for f in caught.value.faults] == ["conv1"]


@dataclass(frozen=True)
class Shortening(Careless):
    """The input becomes the result."""

    name: ClassVar[str] = "shortening"
    keep_name: bool = False

    def run(self, model: ir.Model) -> int:
        replace_value(model.graph.outputs[0], model.graph.inputs[0], keep_name=self.keep_name)
        return 1


@pytest.mark.parametrize(
    ("keep_name", "fault"),
    [
        (False, "a result was not compared"),
        (True, "an input has another meaning"),
    ],
)
def test_an_input_cannot_stand_for_a_result(keep_name: bool, fault: str) -> None:
    passes = [Shortening(keep_name=keep_name)]
    with pytest.raises(VerificationError, match=f"shortening: {fault}"):
        PassManager(passes, feeds=CASE.feeds).run(imported(CASE.net))


def test_without_feeds_nothing_is_compared() -> None:
    manager = PassManager([Careless()])
    manager.run(imported(CASE.net))
    assert manager.records[0].checked == 0


def test_an_error_names_its_pass() -> None:
    with pytest.raises(UnsupportedModelError, match=r"^refusing: cannot be"):
        PassManager([Refusing()]).run(imported(CASE.net))


def test_a_graph_that_does_not_fit_its_stage_is_refused() -> None:
    with pytest.raises(SnnccError, match=r"(?s)^broken: .*not allowed in stage 'imported'"):
        PassManager([Broken()]).run(imported(CASE.net))


def test_a_pass_wants_its_stage() -> None:
    lower = PASSES[-1]
    with pytest.raises(SnnccError, match="wants stage 'quantised', not 'imported'"):
        PassManager([lower]).run(imported(CASE.net))


def test_each_pass_is_named_before_it_runs() -> None:
    begun: list[tuple[str, int]] = []
    manager = PassManager(PASSES)
    manager.begin = lambda name: begun.append((name, len(manager.records)))
    manager.run(imported(CASE.net))
    assert begun == [(record.name, i) for i, record in enumerate(manager.records)]


def test_only_the_graphs_wanted_are_kept() -> None:
    manager = PassManager(PASSES, kept=("fold-scale",))
    manager.run(imported(CASE.net))
    assert list(manager.after) == ["fold-scale"]
    assert list(manager.stages) == ["imported", "integer", "quantised", "spiking"]


def test_graphs_are_dumped_in_order(tmp_path: Path) -> None:
    manager = PassManager(PASSES, dump_dir=tmp_path / "ir")
    manager.run(imported(CASE.net))
    names = sorted(p.name for p in (tmp_path / "ir").iterdir())
    assert names == [f"{i:02d}-{n}.txt" for i, n in enumerate(["import", *NAMES])]
    assert (tmp_path / "ir" / names[-1]).read_text() == dump(manager.stages["spiking"])


def test_fields_are_options() -> None:
    assert Careless(2.0).options() == {"factor": 2.0}
