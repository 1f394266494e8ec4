from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from exported_files import import_exported
from torch import nn
from torch_networks import (
    Branching,
    LiveWeights,
    MultiSpike,
    NearMisses,
    Ordinary,
    Published,
    Spelled,
    Transformer,
    small,
)

import snncc
from snncc.errors import BadInputError, UnsupportedModelError
from snncc.frontends.leaves import IntegerFireSpec, register_leaf
from snncc.frontends.pytorch import import_module
from snncc.frontends.sequences import Frames
from snncc.ir.graphs import attribute, nodes, provenance
from snncc.ir.oracle import evaluate
from snncc.ir.text import dump
from snncc.nn import IntegerFire
from snncc.passes import FRONT, PassManager, RequireInteger, front
from snncc.passes.fold.merge_linear import MergeLinear
from snncc.passes.fold.no_neuron_between import MERGE

ROOT = Path(__file__).parents[2]
X = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def integer(model: ir.Model) -> ir.Model:
    feeds = {str(model.graph.inputs[0].name): X.numpy()}
    return PassManager((*FRONT, RequireInteger()), feeds=feeds).run(model)


def result(model: ir.Model) -> np.ndarray:
    name = model.graph.inputs[0].name
    (out,) = evaluate(model, {str(name): X.numpy()}).values()
    return np.asarray(out)


def neurons(model: ir.Model) -> list[tuple[str, int, float, str]]:
    return [
        (provenance(n).module, *(attribute(n, k) for k in ("D", "norm", "rounding")))
        for n in nodes(model, "IntegerFire")
    ]


@pytest.fixture(scope="module")
def with_leaf() -> tuple[nn.Module, ir.Model]:
    net = small(IntegerFire(4, 4.0), IntegerFire(4))
    return net, import_module(net, (2, 8, 8))


@pytest.fixture(scope="module")
def faulty() -> ir.Model:
    return import_module(Transformer(), (2, 8, 8))


# -- what is imported ----------------------------------------------------------------------


def test_the_graph_computes_what_the_module_does(with_leaf: tuple[nn.Module, ir.Model]) -> None:
    net, model = with_leaf
    with torch.no_grad():
        np.testing.assert_allclose(result(model), net(X).numpy(), atol=1e-5)


def test_every_leaf_is_one_node_under_its_path(with_leaf: tuple[nn.Module, ir.Model]) -> None:
    assert neurons(with_leaf[1]) == [("2", 4, 4.0, "half-even"), ("5", 4, 1.0, "half-even")]


def test_the_batch_axis_is_free(with_leaf: tuple[nn.Module, ir.Model]) -> None:
    (x,) = with_leaf[1].graph.inputs
    assert x.shape is not None
    assert isinstance(x.shape[0], ir.SymbolicDim)


def test_an_imported_network_shows_modules_and_lines(
    with_leaf: tuple[nn.Module, ir.Model], golden: str
) -> None:
    lines = [line.split(" = ")[1] for line in dump(with_leaf[1]).splitlines() if " = " in line]
    assert "\n".join(line.split("(")[0] + line[line.find("    #") :] for line in lines) == golden


def test_no_path_of_this_machine_is_in_the_graph(with_leaf: tuple[nn.Module, ir.Model]) -> None:
    text = ir.to_proto(with_leaf[1]).SerializeToString()
    assert str(ROOT).encode() not in text
    assert b"site-packages" not in text


def test_the_module_stays_as_it_was(with_leaf: tuple[nn.Module, ir.Model]) -> None:
    net = with_leaf[0]
    assert not [m for m in net.modules() if "forward" in m.__dict__]


def test_a_network_in_training_stays_in_training() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Dropout(), IntegerFire(2)).train()
    net[1].eval()
    model = import_module(net, (4,))
    assert [m.training for m in net] == [True, False, True]
    assert [n.op_type for n in model.graph] == ["Gemm", "IntegerFire"]


# -- leaves and patterns agree -------------------------------------------------------------


def test_a_leaf_and_its_spelling_give_the_same_network(
    with_leaf: tuple[nn.Module, ir.Model],
) -> None:
    spelled = integer(import_module(small(Spelled(4, 4.0), Published()), (2, 8, 8)))
    leaf = integer(with_leaf[1])
    assert neurons(spelled) == neurons(leaf)
    assert [n.op_type for n in spelled.graph] == [n.op_type for n in leaf.graph]
    np.testing.assert_allclose(result(spelled), result(leaf), atol=1e-6)


def test_a_registered_leaf_and_its_source_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    net = small(MultiSpike(5))
    written = integer(import_module(net, (2, 8, 8)))
    monkeypatch.setattr("snncc.frontends.leaves._LEAVES", {})
    register_leaf(MultiSpike, lambda m: IntegerFireSpec(m.levels, m.levels, "half-up"))
    leaf = integer(import_module(net, (2, 8, 8)))
    assert [(D, n, r) for _, D, n, r in neurons(written)] == [(5, 5.0, "half-up")] * 2
    assert neurons(leaf)[0][1:] == neurons(written)[0][1:]
    np.testing.assert_allclose(result(leaf), result(written), atol=1e-6)


# -- exported programs ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of fixed batch size, as ``torch.export`` makes it without being asked."""
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    net = small(IntegerFire(4, 4.0), IntegerFire(4)).eval()
    torch.export.save(torch.export.export(net, (torch.zeros(1, 2, 8, 8),)), path)
    return path


def test_a_saved_program_is_the_same_network(
    exported: Path, with_leaf: tuple[nn.Module, ir.Model]
) -> None:
    model = import_exported(exported, trust_pickle=True)
    found = PassManager(FRONT).run(model)
    assert [n[1:] for n in neurons(found)] == [n[1:] for n in neurons(with_leaf[1])]
    np.testing.assert_allclose(result(model), result(with_leaf[1]), atol=1e-6)


def test_a_file_that_is_no_program_is_bad_input(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.pt2"
    path.write_bytes(b"no program")
    with pytest.raises(BadInputError, match=r"x\.pt2: .*not written by torch\.export\.save"):
        import_exported(path, trust_pickle=True)
    assert capfd.readouterr() == ("", "")


def test_a_missing_program_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such file"):
        import_exported(tmp_path / "none.pt2")


# -- what cannot be imported ---------------------------------------------------------------


def test_a_wrong_input_shape_is_bad_input(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        BadInputError, match=r"shape \[N, 3, 8, 8\].*right input_shape, and timesteps if"
    ):
        import_module(small(IntegerFire(4)), (3, 8, 8))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("first", "axes"), [(False, "T, N"), (True, "N, T")])
def test_timesteps_of_a_network_for_pictures_are_said_to_be_too_many(
    first: bool, axes: str
) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), IntegerFire(4), nn.Flatten(), nn.Linear(72, 3))
    told = rf"shape \[{axes}, 1, 8, 8\] of T = 5: .* timesteps if it .*; leave that out if"
    with pytest.raises(BadInputError, match=told):
        import_module(net, (1, 8, 8), frames=Frames(5, batch_first=first))


def test_a_network_without_a_result_is_unsupported() -> None:
    with pytest.raises(UnsupportedModelError, match="returns no tensor, alone or in tuples"):
        import_module(Returning(lambda _: (None, 3.5)), (8,))


class Returning(nn.Module):
    """Its result stands in something else."""

    def __init__(self, put: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.fc1, self.fire, self.fc2 = nn.Linear(8, 6), IntegerFire(4), nn.Linear(6, 3)
        self.put = put

    def forward(self, x: torch.Tensor) -> Any:
        return self.put(self.fc2(self.fire(4 * self.fc1(x))))


@pytest.mark.parametrize(
    "put",
    [
        lambda y: (y, None),
        lambda y: [y],
        lambda y: {"out": y, "hook": {}},
        lambda y: ([y], 0.5),
    ],
)
def test_the_one_tensor_of_a_result_is_the_result(put: Callable[[torch.Tensor], Any]) -> None:
    torch.manual_seed(0)
    net = Returning(put).eval()
    x = np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)
    report = snncc.compile(net, x, input_shape=(8,)).report
    law = report.import_law
    assert (law.neurons, law.results, law.changed, report.verify.mismatched) == (1, 1, 0, 0)
    assert net._forward_hooks == {}


def test_control_flow_is_unsupported_and_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnsupportedModelError, match=r"torch\.export cannot follow") as caught:
        import_module(Branching(), (8,))
    assert "torch_networks.py" in str(caught.value)
    assert "\n" not in str(caught.value)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


# -- what is imported and cannot become spikes ---------------------------------------------


def report_of(model: ir.Model) -> str:
    with pytest.raises(UnsupportedModelError) as caught:
        PassManager((*front(merge=MergeLinear(MERGE)), RequireInteger())).run(model)
    return f"{caught.value}\n"


def test_all_faults_are_in_one_report(faulty: ir.Model, golden: str) -> None:
    assert report_of(faulty) == golden


@pytest.mark.parametrize("network", [Ordinary, NearMisses, LiveWeights])
def test_a_report_says_where_why_and_what_to_do(network: type[nn.Module], golden: str) -> None:
    assert report_of(import_module(network(), (2, 8, 8))) == golden


# -- conditions that torch.export cannot prove -------------------------------------------------


class ByTheBatch(nn.Module):
    """What it does depends on the number of samples."""

    def __init__(self, holds):
        super().__init__()
        self.holds, self.fc = holds, nn.Linear(4, 3)

    def forward(self, x):
        y = self.fc(x.flatten(1))
        return 2 * y if self.holds(x.shape[0]) else y


@pytest.mark.parametrize(
    ("holds", "for_all"),
    [
        (lambda n: n == 2, False),
        (lambda n: n % 2 == 0, False),
        (lambda n: n < 300, False),
        (lambda n: n * min(4096, 4096 * n) == 4096 * n, True),
    ],
    ids=["of two", "even", "few", "always"],
)
def test_conditions_on_the_batch_hold_for_all_sizes_or_are_refused(holds, for_all):
    net = ByTheBatch(holds).eval()
    if not for_all:
        with pytest.raises(
            UnsupportedModelError, match="its code fixes how many samples there are"
        ):
            import_module(net, (4,))
        return
    model = import_module(net, (4,))
    x = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    (found,) = evaluate(model, {model.graph.inputs[0].name: x}).values()
    with torch.no_grad():
        np.testing.assert_allclose(found, net(torch.from_numpy(x)).numpy(), rtol=1e-5)


class Pooled3d(nn.Module):
    """Averages over timesteps, height and width at once."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fire, self.pool = (
            nn.Conv2d(1, 2, 3),
            IntegerFire(4),
            nn.AdaptiveAvgPool3d((1, 3, 3)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.fire(self.conv(x)).unsqueeze(2)).flatten(1)


def test_a_pool_over_three_axes_is_named_with_its_module() -> None:
    with pytest.raises(UnsupportedModelError) as refused:
        import_module(Pooled3d(), (1, 8, 8))
    (fault,) = refused.value.faults
    assert (fault.module, fault.kind) == ("pool", "adaptive_avg_pool3d")
    assert fault.what == "averages over three axes at once"
    assert "x.mean((3, 4))" in fault.todo
