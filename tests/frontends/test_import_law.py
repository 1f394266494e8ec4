"""The law of import: what is compared, that all of it is, and that a wrong graph is named."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn
from torch_networks import Published, Spelled, small

import snncc
import snncc.compiler
from snncc.compiler import InputOptions
from snncc.errors import UnsupportedModelError, VerificationError
from snncc.frontends import leaves, onnx_file, programs
from snncc.frontends.import_law import ImportLaw, check_import
from snncc.frontends.leaves import StatefulFireSpec, register_leaf
from snncc.frontends.onnx_file import import_onnx
from snncc.frontends.pytorch import export_module, export_program
from snncc.frontends.trained import TrainedModule
from snncc.frontends.trained_file import TrainedFile
from snncc.nn import LIF, IntegerFire

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (16, 2, 8, 8), dtype=np.uint8)
RAW: dict[str, Any] = {"input": InputOptions(mean=(0.5,), std=(0.25,))}


def lively(net: nn.Module) -> nn.Module:
    """Weights with which neurons reach several levels."""
    for part in net.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            part.weight.data.mul_(3)
    return net.eval()


def law_of(net: nn.Module | str, **more: Any) -> dict[str, Any]:
    shape = {} if isinstance(net, str) else {"input_shape": (2, 8, 8)}
    return snncc.compile(net, X, **shape, **RAW, **more).report.import_law


class Odd(nn.Module):
    """Neurons in every spelling; one object at two places; a result after the last neuron."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fire = IntegerFire(4)
        self.convs = nn.ModuleList(nn.Conv2d(2 if i == 0 else 4, 4, 3, padding=1) for i in range(5))
        self.spelled, self.published = Spelled(3, 3.0), Published()
        self.pool, self.head = nn.AvgPool2d(3, stride=3), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv, fire in zip(self.convs, self._fires(), strict=True):
            x = fire(conv(x))
        return 2 * self.head(self.pool(x).flatten(1)) - 1

    def _fires(self) -> list[Any]:
        return [self.fire, self.spelled, self.fire, self.published, lambda u: u.clamp(0, 2).round()]


def test_every_neuron_is_compared_wherever_and_however_it_is_written() -> None:
    law = law_of(lively(Odd()))
    assert (law.neurons, law.results, law.changed) == (5, 1, 0)
    assert law.activations == 8 * 5 * 4 * 8 * 8
    assert law.values > law.neurons + law.results


@pytest.mark.parametrize("seed", range(3))
def test_the_last_value_is_compared_with_pytorchs_result(seed: int) -> None:
    """Whatever stands after the last neuron: a graph that is wrong there is named."""
    net = lively(Odd())
    found = export_module(net, (2, 8, 8))
    names = [str(n.outputs[0].name) for n in found.model.graph if n.outputs[0].uses() == ()]
    weight = next(v for k, v in found.model.graph.initializers.items() if "head.bias" in k)
    array = weight.const_value.numpy().copy()  # type: ignore[union-attr]
    array[seed] += 0.01
    weight.const_value = ir.tensor(array, name=weight.name)
    with pytest.raises(VerificationError, match="does not compute what PyTorch does") as caught:
        compared(TrainedModule(found, net), found.model)
    assert [fault.module for fault in caught.value.faults] == ["head"]
    assert names is not None


def compared(trained: Any, model: ir.Model, **more: Any) -> ImportLaw:
    feeds = {name_of(model): RNG.normal(size=(4, 2, 8, 8)).astype(np.float32)}
    neurons = [[n] for n in _fired(model)]
    return check_import(model, feeds, trained.values(feeds), neurons, trained.words)


def name_of(model: ir.Model) -> str:
    return str(model.graph.inputs[0].name)


def _fired(model: ir.Model) -> list[str]:
    return [str(n.outputs[0].name) for n in model.graph if n.op_type == "IntegerFire"]


def test_each_weight_that_is_wrong_names_its_layer() -> None:
    net = lively(small(IntegerFire(4)))
    weights = [k for k in export_module(net, (2, 8, 8)).model.graph.initializers if "weight" in k]
    assert len(weights) == 4
    for name in weights:
        found = export_module(net, (2, 8, 8))
        value = found.model.graph.initializers[name]
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.01), name=name)  # type: ignore[union-attr]
        with pytest.raises(VerificationError) as caught:
            compared(TrainedModule(found, net), found.model)
        assert [f.module for f in caught.value.faults] == [name.removesuffix(".weight")]


def test_a_wrong_neuron_is_named() -> None:
    net = lively(small(IntegerFire(4)))
    found = export_module(net, (2, 8, 8))
    fire = next(n for n in found.model.graph if n.op_type == "IntegerFire")
    fire.attributes["rounding"] = ir.AttrString("rounding", "half-up")
    fire.attributes["D"] = ir.AttrInt64("D", 3)
    with pytest.raises(VerificationError) as caught:
        compared(TrainedModule(found, net), found.model)
    assert [(f.module, f.kind) for f in caught.value.faults] == [("2", "IntegerFire")]


def test_a_neuron_that_cannot_be_compared_is_an_error() -> None:
    net = lively(small(IntegerFire(4)))
    found = export_module(net, (2, 8, 8))
    feeds = {name_of(found.model): X[:4].astype(np.float32)}
    values = TrainedModule(found, net).values(feeds)
    lost = {k: v for k, v in values.items() if k != "@_symbolic"}
    with pytest.raises(VerificationError, match="2 of 3 neurons and results were compared") as e:
        check_import(found.model, feeds, lost, [[n] for n in _fired(found.model)], "PyTorch")
    assert "was not compared" in str(e.value)


def test_nothing_compared_is_an_error() -> None:
    net = lively(small(IntegerFire(4)))
    model = export_module(net, (2, 8, 8)).model
    with pytest.raises(VerificationError, match="0 of 3 neurons and results were compared"):
        check_import(model, {name_of(model): X[:4]}, {}, [[n] for n in _fired(model)], "PyTorch")


def test_an_exporter_that_drops_a_divisor_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = nn.AvgPool2d(2, divisor_override=3)
    head = (nn.Flatten(), nn.Linear(36, 3))
    net = lively(nn.Sequential(nn.Conv2d(2, 4, 3), IntegerFire(4), pool, *head))
    assert law_of(net).changed == 0
    monkeypatch.setattr(programs, "_RULES", {})
    with pytest.raises(VerificationError) as caught:
        law_of(net)
    assert [f.kind for f in caught.value.faults] == ["AveragePool"]


def test_a_program_that_is_not_the_module_is_found() -> None:
    """The graph is what was exported, but PyTorch runs something else."""
    net = lively(nn.Sequential(nn.Conv2d(2, 4, 3), Spelled(4), nn.Flatten(), nn.Linear(144, 3)))
    found = export_module(net, (2, 8, 8))

    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net[3](self.net[2](self.net[0](x)))

    feeds = {name_of(found.model): X[:4].astype(np.float32)}
    with pytest.raises(VerificationError, match="the exported program does not do") as caught:
        TrainedModule(found, Other()).values(feeds)
    assert [(f.kind, f.module) for f in caught.value.faults] == [("round", "1")]


# -- neurons with memory ---------------------------------------------------------------------


class Twice(nn.Module):
    """One stateful neuron called at two places."""

    def __init__(self, fire: nn.Module, reset: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.c, self.d, self.h = (
            nn.Conv2d(2, 4, 3),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Linear(144, 3),
        )
        self.a = self.b = fire
        self.reset = reset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s = self.a(self._each(self.c, x.unsqueeze(0).repeat(4, 1, 1, 1, 1)))
        if self.reset:
            self.a.reset()
        return self.h(self.b(self._each(self.d, s)).flatten(2)).mean(0)

    def _each(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Keeping(LIF):
    """As SpikingJelly's nodes: the membrane stays in ``v`` between calls."""

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        del self.reset  # the rule's name, where these have a method
        self.v: Any = start

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spikes = []
        for drive in x:
            h = self.v + (drive - self.v) / 2
            fired = (h >= 1).to(h)
            self.v = h * (1 - fired)
            spikes.append(fired)
        return torch.stack(spikes)

    def reset(self) -> None:  # type: ignore[override]
        self.v = 0.0


@pytest.fixture
def keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaves, "_LEAVES", dict(leaves._LEAVES))
    spec = StatefulFireSpec(decay=0.5, gain=0.5, state="v")
    register_leaf(Keeping, lambda m: spec)


def test_a_neuron_without_memory_between_calls_may_serve_two_places() -> None:
    law = law_of(lively(Twice(LIF())))
    assert (law.neurons, law.changed) == (2, 0)


@pytest.mark.usefixtures("keeping")
def test_a_membrane_that_goes_on_into_a_second_place_is_refused_by_name() -> None:
    net = lively(Twice(Keeping()))
    for call in (law_of, lambda n: snncc.compiler.check(n, input_shape=(2, 8, 8))):
        with pytest.raises(UnsupportedModelError, match="its membrane goes on") as caught:
            call(net)
        (fault,) = caught.value.faults
        assert (fault.kind, fault.module) == ("Keeping", "a")
    assert net.a.v == 0.0


@pytest.mark.usefixtures("keeping")
def test_a_reset_between_the_places_makes_it_two_neurons() -> None:
    law = law_of(lively(Twice(Keeping(), reset=True)))
    assert (law.neurons, law.changed) == (2, 0)


@pytest.mark.usefixtures("keeping")
def test_a_membrane_that_starts_with_something_is_refused() -> None:
    class Started(Twice):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.a.v = 0.3
            return super().forward(x)

    with pytest.raises(UnsupportedModelError, match=r"starts with a membrane of 0.3"):
        law_of(lively(Started(Keeping(), reset=True)))


@pytest.mark.usefixtures("keeping")
@pytest.mark.parametrize("start", [0.0, 0.3])
def test_a_membrane_that_starts_as_a_tensor_is_judged_by_what_it_does(start: float) -> None:
    class Started(Twice):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.a.v = torch.full((x.shape[0], 4, 6, 6), start)
            return super().forward(x)

    net = lively(Started(Keeping(), reset=True))
    if start == 0:
        assert law_of(net).changed == 0
        return
    with pytest.raises(UnsupportedModelError, match="do not fire as they were described") as caught:
        law_of(net)
    (fault,) = caught.value.faults
    assert (fault.module, fault.kind) == ("a", "StatefulFire")
    assert "decay=0.5" in fault.what


# -- programs and files ----------------------------------------------------------------------


def test_a_program_is_run_node_by_node(tmp_path: Any) -> None:
    net = lively(small(Spelled(4, 4.0), Published()))
    path = tmp_path / "net.pt2"
    batch = {0: torch.export.Dim("N", min=2)}
    args = (torch.zeros(2, 2, 8, 8),)
    torch.export.save(torch.export.export(net, args, dynamic_shapes=(batch,)), path)
    law = law_of(str(path), trust_pickle=True)
    assert (law.neurons, law.results, law.changed) == (2, 1, 0)
    assert law.against == "the exported program in PyTorch"


def test_a_program_and_its_graph_are_compared() -> None:
    net = lively(small(Spelled(4, 4.0), Published()))
    args = (torch.zeros(2, 2, 8, 8),)
    batch = {0: torch.export.Dim("N", min=2)}
    found = export_program(torch.export.export(net, args, dynamic_shapes=(batch,)))
    value = found.model.graph.initializers["8.bias"]
    value.const_value = ir.tensor(value.const_value.numpy() + np.float32(1), name="8.bias")  # type: ignore[union-attr]
    with pytest.raises(VerificationError, match="the exported program in PyTorch"):
        compared(TrainedModule(found), found.model)


@pytest.fixture
def file(tmp_path: Any) -> str:
    net, path = lively(small(Spelled(4, 4.0), Published())), tmp_path / "net.onnx"
    x = torch.zeros(2, 2, 8, 8)
    torch.onnx.export(net, (x,), path, dynamo=True, dynamic_shapes=({0: "N"},), verbose=False)
    return str(path)


def test_a_file_is_compared_with_the_runtime_on_the_file_as_given(file: str) -> None:
    law = law_of(file)
    assert (law.neurons, law.results, law.changed) == (2, 1, 0)
    assert law.against == "ONNX Runtime on the file"


def test_what_import_makes_of_a_file_wrongly_is_found(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = onnx_file.tidy

    def wrong(model: ir.Model) -> ir.Model:
        found = own(model)
        for value in found.graph.initializers.values():
            if value.dtype == ir.DataType.FLOAT and len(value.shape or ()) == 4:
                array = value.const_value.numpy() * np.float32(1.001)  # type: ignore[union-attr]
                value.const_value = ir.tensor(array, name=value.name)
        return found

    monkeypatch.setattr(onnx_file, "tidy", wrong)
    with pytest.raises(VerificationError, match="ONNX Runtime on the file does"):
        law_of(file)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_file_of_a_fixed_batch_is_run_in_such_batches(tmp_path: Any, size: int) -> None:
    net, path = lively(small(Spelled(4, 4.0), Published())), tmp_path / "net.onnx"
    torch.onnx.export(net, (torch.zeros(size, 2, 8, 8),), path, dynamo=True, verbose=False)
    trained, model = TrainedFile(path), import_onnx(path)
    feeds = {name_of(model): RNG.normal(size=(7, 2, 8, 8)).astype(np.float32)}
    values = trained.values(feeds)
    assert {len(v) for k, v in values.items()} == {7}
    law = law_of(str(path))
    assert (law.neurons, law.changed) == (2, 0)


def test_what_until_leaves_out_is_not_compared_and_the_rest_is() -> None:
    net = lively(Odd())
    law = law_of(net, until="convs.2")
    assert (law.neurons, law.results) == (2, 1)
    whole = law_of(net)
    assert law.values < whole.values
    assert law.changed == 0


def test_a_network_without_a_neuron_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="no neuron"):
        law_of(nn.Sequential(nn.Flatten(), nn.Linear(128, 3)).eval())


def test_the_result_of_the_module_is_what_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the program would give another one."""
    net = lively(small(IntegerFire(4)))
    found = export_module(net, (2, 8, 8))

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x) + 1

    trained = replace(TrainedModule(found, net), module=Shifted())
    with pytest.raises(VerificationError) as caught:
        compared(trained, found.model)
    assert [f.module for f in caught.value.faults] == ["8"]


def test_notes_that_a_file_brings_are_not_believed(file: str, tmp_path: Any) -> None:
    """Here one says that the result is the input."""
    proto = onnx.load(file)
    notes = {proto.graph.output[0].name: ["same", [f"@{proto.graph.input[0].name}"], {}]}
    proto.metadata_props.add(key="snncc.lineage", value=json.dumps(notes))
    proto.metadata_props.add(key="snncc.stage", value="quantised")
    for node in proto.graph.node:
        node.metadata_props.add(key="snncc.calls", value="7,8")
        node.metadata_props.add(key="snncc.class", value="some.Neuron")
    onnx.save(proto, tmp_path / "forged.onnx")
    assert law_of(str(tmp_path / "forged.onnx")) == law_of(file)
