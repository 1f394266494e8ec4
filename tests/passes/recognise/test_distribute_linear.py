"""Sums of spikes, as SEW and Spikformer have them, whatever stands between them and a layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import snncc
from snncc.compiler import InputOptions
from snncc.errors import UnsupportedModelError
from snncc.nn import LIF, IntegerFire
from snncc.program import Sum

PIXELS = InputOptions(mode="u8", mean=(0.0,), std=(1.0,))
X = np.random.default_rng(0).integers(0, 256, (24, 1, 8, 8)).astype(np.uint8)


class Summed(nn.Module):
    """Three populations of one shape, added up; then ``between``, and a classifier."""

    def __init__(self, between: nn.Module, features: int, D: int = 3):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(1, 4, 3, padding=1) for _ in range(3))
        self.fires = nn.ModuleList(IntegerFire(D, 1.0) for _ in range(3))
        self.between, self.fc = between, nn.Linear(features, 5)

    def forward(self, x):
        first, *others = (
            fire(6 * conv(x)) for conv, fire in zip(self.convs, self.fires, strict=True)
        )
        for other in others:
            first = first + other
        return self.fc(self.between(first))


class Mean(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


class Tokens(nn.Module):
    """The mean over tokens, as transformers take it."""

    def forward(self, x):
        return x.flatten(2).transpose(1, 2).mean(1)


def compiled(net: nn.Module) -> snncc.CompiledModel:
    torch.manual_seed(0)
    for layer in net.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return snncc.compile(net.eval(), X, input_shape=(1, 8, 8), weight_bits=24, input=PIXELS)


@pytest.mark.parametrize(
    ("between", "features"),
    [
        (nn.Flatten(), 256),
        (nn.Sequential(nn.AvgPool2d(2), nn.Flatten()), 64),
        (nn.Sequential(nn.AvgPool2d(2), nn.AvgPool2d(2), nn.Flatten()), 16),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), 4),
        (Mean(), 4),
        (Tokens(), 4),
    ],
    ids=["flatten", "pool", "pools", "global pool", "mean", "tokens"],
)
def test_a_layer_reads_a_sum_of_spikes_through_averages_and_reshapes(between, features):
    net = Summed(between, features)
    model = compiled(net)
    report = model.report
    law, verify = report.import_law, report.verify
    assert (law.neurons, law.changed, report.changed, verify.mismatched) == (3, 0, 0, 0)
    assert not verify.coverage.silent
    with torch.no_grad():
        expected = net(torch.tensor(X).float() / 255).numpy()
    found = snncc.Session(model, engine="event").run(None, X)[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)


class OverTime(nn.Module):
    """A residual stream of spikes over timesteps: each block adds what it fires."""

    def __init__(self):
        super().__init__()
        self.stem, self.blocks = (
            nn.Conv2d(1, 4, 3, padding=1),
            nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2)),
        )
        self.lifs, self.fc = nn.ModuleList(LIF(2.0) for _ in range(3)), nn.Linear(4, 5)

    def forward(self, x):
        drive = self.stem(x).unsqueeze(0).repeat(3, 1, 1, 1, 1)
        stream = self.lifs[0](6 * drive)
        for conv, lif in zip(self.blocks, self.lifs[1:], strict=True):
            made = conv(stream.flatten(0, 1)).unflatten(0, (3, -1))
            stream = stream + lif(6 * made)
        return self.fc(stream.mean((3, 4)).mean(0))


def test_a_stream_of_spikes_over_time_ends_in_a_mean():
    report = compiled(OverTime()).report
    assert (report.import_law.neurons, report.changed, report.verify.mismatched) == (3, 0, 0)


def test_a_maximum_of_sums_is_refused():
    """max(a + b) is not max(a) + max(b)."""
    net = Summed(nn.Sequential(nn.MaxPool2d(2), nn.Flatten()), 64)
    with pytest.raises(UnsupportedModelError, match="cannot become spikes"):
        compiled(net)


def unlike(between: nn.Module, features: int) -> Summed:
    """Spikes of bursts of different lengths: no stream of their own, layers are moved to each."""
    net = Summed(between, features)
    net.fires[1] = IntegerFire(2, 1.0)
    return net


@pytest.mark.parametrize(
    ("between", "features"),
    [(nn.Flatten(), 256), (nn.Sequential(nn.AvgPool2d(2), nn.Flatten()), 64), (Tokens(), 4)],
    ids=["flatten", "pool", "tokens"],
)
def test_spikes_of_different_bursts_are_added_as_potentials(between, features):
    model = compiled(unlike(between, features))
    report = model.report
    assert (report.import_law.neurons, report.changed, report.verify.mismatched) == (3, 0, 0)
    assert not any(isinstance(node, Sum) for node in model.program.nodes)


def test_nor_is_a_maximum_of_those_taken_apart():
    net = unlike(nn.Sequential(nn.MaxPool2d(2), nn.Flatten()), 64)
    with pytest.raises(UnsupportedModelError, match="cannot become spikes"):
        compiled(net)


class Block(nn.Module):
    """A ResNet's block: its shortcut adds the spikes that it reads to its last potential."""

    def __init__(self, shortcut: nn.Module):
        super().__init__()
        self.conv0, self.conv1 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.fires = nn.ModuleList(IntegerFire(4) for _ in range(3))
        self.shortcut, self.fc = shortcut, nn.Linear(256, 5)

    def forward(self, x):
        a = self.fires[0](6 * self.conv0(x))
        y = self.bn2(self.conv2(self.fires[1](3 * self.conv1(a))))
        return self.fc(self.fires[2](4 * y + self.shortcut(a)).flatten(1))


@pytest.mark.parametrize(
    "shortcut",
    [
        nn.Identity(),
        nn.MaxPool2d(3, 1, padding=1),
        nn.AvgPool2d(3, 1, padding=1),
        nn.Sequential(nn.Conv2d(4, 4, 1), IntegerFire(2)),
    ],
    ids=["itself", "maximum", "average", "spikes of its own"],
)
def test_spikes_are_added_to_a_potential_by_an_identity_layer(shortcut):
    model = compiled(Block(shortcut))
    report = model.report
    assert (report.import_law.changed, report.verify.mismatched) == (0, 0)
    assert report.changed == 0
    assert not report.silent
    last = model.program.neurons[2 + isinstance(shortcut, nn.Sequential)]
    fan_in = model.program.by_name[last.source].projections
    assert len(fan_in) == 2


class Dense(nn.Module):
    """As DenseNet: every layer reads, through a norm and neurons, all potentials before it."""

    def __init__(self, T: int) -> None:
        super().__init__()
        self.T = T
        self.convs = nn.ModuleList(nn.Conv2d(n, 4, 3, padding=1) for n in (1, 4, 8))
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in (4, 8, 12))
        self.fires = nn.ModuleList(IntegerFire(3) if T == 1 else LIF() for _ in range(3))
        self.pool, self.fc = nn.AvgPool2d(2), nn.Linear(12 * 16, 5)
        self.drift = torch.linspace(-0.2, 0.4, 12)  # another one for each channel

    def forward(self, x):
        if self.T > 1:
            x = x.unsqueeze(0).expand(self.T, *x.shape).flatten(0, 1)
        found = self.convs[0](x)
        for i, (norm, fire) in enumerate(zip(self.norms, self.fires, strict=True)):
            u = 3 * norm(self.pool(found) if i == 2 else found) + 0.5
            u = u + self.drift[: u.shape[1]].view(-1, 1, 1)
            a = fire(u.unflatten(0, (self.T, -1))).flatten(0, 1) if self.T > 1 else fire(u)
            if i < 2:
                found = torch.cat([found, self.convs[i + 1](a)], 1)
        y = self.fc(a.flatten(1))
        return y.unflatten(0, (self.T, -1)).mean(0) if self.T > 1 else y


def test_neurons_read_potentials_that_are_joined():
    model = compiled(Dense(T=1))
    assert [n.shape[0] for n in model.program.neurons] == [4, 4, 4, 4, 4, 4]
    assert (model.report.import_law.changed, model.report.verify.mismatched) == (0, 0)
    assert not model.report.silent


def test_norms_of_what_others_read_get_a_layer_before_neurons_with_memory():
    model = compiled(Dense(T=4))
    assert [n.shape[0] for n in model.program.neurons] == [4] * 6
    assert (model.report.import_law.changed, model.report.verify.mismatched) == (0, 0)
    assert model.report.changed < 1e-3


def test_a_layer_over_potentials_that_are_joined_is_a_sum_of_layers():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 3, 3)
            self.c, self.fire, self.fc = nn.Conv2d(5, 4, 1), IntegerFire(4), nn.Linear(144, 3)

        def forward(self, x):
            return self.fc(self.fire(9 * self.c(torch.cat([self.a(x), self.b(x)], 1))).flatten(1))

    model = compiled(Joined())
    assert (model.report.import_law.changed, model.report.verify.mismatched) == (0, 0)
    assert not model.report.silent
