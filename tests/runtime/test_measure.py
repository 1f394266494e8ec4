"""What is measured is measured against the trained network, and all populations are in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from attention_modules import network as attention
from torch import nn

import snncc
from snncc.compiler import InputOptions
from snncc.errors import UnsupportedModelError
from snncc.nn import LIF, IntegerFire
from snncc.passes.integers.quantise_input import QuantiseInput
from snncc.passes.integers.quantise_weights import QuantiseWeights

RNG = np.random.default_rng(0)
RAW: dict[str, Any] = {"input": InputOptions(mean=(0.3,), std=(0.3,))}


class Various(nn.Module):
    """Pools before and after neurons, norms, a concatenation, a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.c1, self.c2 = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.c3, self.c4 = nn.Conv2d(6, 4, 1), nn.Conv2d(10, 6, 3)
        self.f1, self.f2, self.f3 = IntegerFire(4, 4.0), IntegerFire(3), IntegerFire(2, 2.0)
        self.f4, self.head = IntegerFire(4), nn.Linear(6, 3)
        self.pool, self.mean = nn.MaxPool2d(2), nn.AvgPool2d(2)
        for part in (self.c1, self.c2, self.c3, self.c4):
            part.weight.data.mul_(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.f1(self.pool(self.c1(x)))
        u = self.c2(a)
        b = self.f2(u + self.c2(self.f3(u)))
        joined = torch.cat([b, self.f3(self.c3(b))], 1)
        return self.head(self.f4(self.mean(self.c4(joined))).mean((2, 3)))


class Timed(nn.Module):
    """Two neurons with memory on an image shown three times."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.c1, self.c2, self.head = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(64, 3)
        self.l1, self.l2 = LIF(threshold=0.5), LIF(reset="soft")
        self.c2.weight.data.mul_(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.stack([3 * self.c1(x)] * 3)
        x = self.l1(x)
        x = self.c2(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.head(self.l2(x).flatten(2)).mean(0)


def data(shape: tuple[int, ...], samples: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (samples, *shape), dtype=np.uint8)


CASES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "various": (Various, (1, 8, 8)),
    "attention": (lambda: attention("channel_conv1d", "with_time"), (2, 8, 8)),
    "timed": (Timed, (1, 8, 8)),
}


def report_of(name: str, **more: Any) -> dict[str, Any]:
    make, shape = CASES[name]
    given = {**RAW, "weight_bits": 24, **more}
    return snncc.compile(make().eval(), data(shape), input_shape=shape, **given).report


@pytest.mark.parametrize("name", CASES)
def test_all_populations_are_compared_and_24_bits_change_next_to_nothing(name: str) -> None:
    report = report_of(name)
    assert (report.changed, report.changed_teacher_forced, report.agreement) == (0, 0, 1)
    layers = report.layers
    assert len(layers) == report.activations_found
    assert all(row.spikes and row.trained_spikes for row in layers)
    assert report.float32.activations <= 1e-4 * report.compared
    assert report.import_law.neurons == len(layers)


@pytest.mark.parametrize("name", CASES)
def test_weights_that_quantisation_gets_wrong_show(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No engine can see it: all have the same weights."""
    own = QuantiseWeights.run

    def wrong(self: QuantiseWeights, model: ir.Model) -> int:
        for value in model.graph.initializers.values():
            if value.dtype == ir.DataType.FLOAT and len(value.shape or ()) > 1:
                array = value.const_value.numpy() * np.float32(1.01)  # type: ignore[union-attr]
                value.const_value = ir.tensor(array, name=value.name)
        return own(self, model)

    monkeypatch.setattr(QuantiseWeights, "run", wrong)
    report = report_of(name)
    assert report.verify.mismatched == 0
    assert report.changed_teacher_forced > 1e-3


def test_an_input_that_quantisation_gets_wrong_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, net = (1, 8, 8), Various().eval()
    x = RNG.normal(size=(24, *shape)).astype(np.float32)
    real = {"input_shape": shape, "weight_bits": 24}
    right = snncc.compile(net, x, **real).report
    own = QuantiseInput.run

    def wrong(self: QuantiseInput, model: ir.Model) -> int:
        count = own(self, model)
        for name, value in model.graph.initializers.items():
            if name.endswith(".scale") and name.startswith("x."):
                array = value.const_value.numpy() * np.float32(1.2)  # type: ignore[union-attr]
                value.const_value = ir.tensor(array, name=name)
        return count

    monkeypatch.setattr(QuantiseInput, "run", wrong)
    report = snncc.compile(net, x, **real).report
    assert 0 < right.changed_by_input < 0.05 < report.changed_by_input
    assert report.changed > 2 * right.changed


def test_what_is_compared_is_pytorchs_own_class() -> None:
    shape, net, x = (1, 8, 8), Various().eval(), data((1, 8, 8), 64)
    model = snncc.compile(net, x, input_shape=shape, weight_bits=5, **RAW)
    with torch.no_grad():
        ours = net((torch.from_numpy(x).double().float() / 255 - 0.3) / 0.3).argmax(1).numpy()
    found = snncc.Session(model, engine="event").run(None, {model.input.name: x})[0].argmax(1)
    assert model.report.agreement == (ours == found).mean() < 1


def test_spikes_are_those_of_the_populations() -> None:
    shape, x = (1, 8, 8), data((1, 8, 8), 8)
    model = snncc.compile(Various().eval(), x, input_shape=shape, weight_bits=24, **RAW)
    counts = snncc.Session(model).trace({model.input.name: x}).counts
    for row, neuron in zip(model.report.layers, model.program.neurons, strict=True):
        pooled = row.module == "f1"  # compared after the maximum over its counts
        total = int(counts[neuron.name].sum())
        assert row.spikes < total if pooled else row.spikes == total


class Faint(nn.Module):
    """Its second layer has one large weight for a channel that is silent, and small ones."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.c1, self.f1 = nn.Conv2d(1, 4, 1), IntegerFire(4)
        self.c2, self.f2 = nn.Conv2d(4, 2, 1), IntegerFire(4)
        self.c3, self.f3 = nn.Conv2d(2, 2, 1), IntegerFire(4)
        self.head = nn.Linear(2, 3)
        with torch.no_grad():
            self.c1.weight[:] = torch.tensor([4.0, 4.0, 4.0, -4.0]).reshape(4, 1, 1, 1)
            self.c1.bias[:] = torch.tensor([0.0, 0.0, 0.0, -10.0])
            self.c2.weight[:] = torch.tensor([0.1, 0.1, 0.1, 3.0]).reshape(1, 4, 1, 1)
            self.c2.bias[:] = 0
            self.c3.weight[:], self.c3.bias[:] = 1, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.f3(self.c3(self.f2(self.c2(self.f1(self.c1(x)))))).mean((2, 3)))


def test_a_layer_that_falls_silent_is_refused_with_the_cause() -> None:
    given = {"input_shape": (1, 8, 8), **RAW}
    report = snncc.compile(Faint().eval(), data((1, 8, 8)), weight_bits=8, **given).report
    assert all(row.spikes for row in report.layers)
    with pytest.raises(UnsupportedModelError, match="layers fall silent") as caught:
        snncc.compile(Faint().eval(), data((1, 8, 8)), weight_bits=4, **given)
    found = [(fault.module, str(fault.what).partition(": ")[2]) for fault in caught.value.faults]
    assert found == [
        ("f2", "what its weights lose to rounding decides"),
        ("f3", "layers before it no longer drive it"),
    ]
    assert caught.value.exit_code == 3


def test_what_values_come_from_is_not_kept_in_the_file() -> None:
    x = data((1, 8, 8), 2)
    model = snncc.compile(Various().eval(), x, input_shape=(1, 8, 8), keep_stages=True, **RAW)
    kept = {p.key for stage in model.graphs.values() for p in stage.metadata_props}
    assert kept
    assert "snncc.lineage" not in kept


class Borders(nn.Module):
    """Of pixels k * 51 the drives are whole halves, and k / 5 is none in float32."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fire, self.head = nn.Conv2d(1, 4, 1), IntegerFire(8), nn.Linear(64, 3)
        with torch.no_grad():
            self.conv.weight[:] = torch.tensor([2.5, 7.5, 5.0, 12.5]).reshape(4, 1, 1, 1)
            self.conv.bias[:] = torch.tensor([0.0, 0.5, 0.0, 1.0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.fire(self.conv(x)).flatten(1))


def test_pixels_are_the_fractions_that_they_are() -> None:
    x = 51 * np.random.default_rng(0).integers(0, 6, (16, 1, 4, 4)).astype(np.uint8)
    given = {"input": InputOptions(mean=(0.0,), std=(1.0,)), "input_shape": (1, 4, 4)}
    report = snncc.compile(Borders().eval(), x, weight_bits=24, **given).report
    assert report.ties > 100
    assert report.changed == 0
