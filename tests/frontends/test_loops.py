"""Neurons of one's own that handle one timestep and hand their membrane on."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import snncc
from snncc.compiler import InputOptions
from snncc.errors import UnsupportedModelError
from snncc.frontends import leaves
from snncc.frontends.leaves import StatefulFireSpec, StepSpec, register_leaf

T = 3


class Step(nn.Module):
    """Soft reset, a spike at the threshold itself."""

    def forward(self, x, membrane):
        h = 0.5 * membrane + x
        fired = (h >= 1).float()
        return fired, h - fired


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setattr(leaves, "_LEAVES", dict(leaves._LEAVES))
    register_leaf(Step, lambda _: StepSpec(StatefulFireSpec(decay=0.5, gain=1.0, reset="soft")))


class Net(nn.Module):
    """One neuron module for two layers; each layer has a membrane of its own."""

    def __init__(self, begin=0.0, swap=False):
        super().__init__()
        self.fc1, self.fc2, self.neuron = nn.Linear(6, 8), nn.Linear(8, 4), Step()
        self.begin, self.swap = begin, swap

    def forward(self, x):
        first = second = self.begin
        total = 0
        for _ in range(T):
            a, first = self.neuron(4 * self.fc1(x), first)
            b, second = self.neuron(4 * self.fc2(a), second)
            if self.swap:
                second = first[:, :4]
            total = total + b
        return total / T


def compiled(net, x):
    given = InputOptions(mode="u8", mean=(0.3,), std=(0.3,))
    return snncc.compile(net, x, input_shape=(6,), weight_bits=24, input=given)


def test_a_module_that_serves_two_layers_is_two_populations():
    torch.manual_seed(0)
    net, x = Net().eval(), np.random.default_rng(0).integers(0, 256, (40, 6)).astype(np.uint8)
    model = compiled(net, x)
    law = model.report.import_law
    assert (len(model.program.neurons), law.neurons, law.changed) == (2, 2, 0)
    assert law.activations == T * 8 * (8 + 4)  # 8 samples of 8 and of 4 neurons
    (found,) = snncc.Session(model).run(None, x)
    with torch.no_grad():
        expected = net((torch.tensor(x).float() / 255 - 0.3) / 0.3).numpy()
    assert 0 < expected.mean() < 1
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"begin": 0.5}, "begins with the membrane 0.5; begin with 0"),
        ({"swap": True}, "hands its membrane to more than its next call"),
    ],
)
def test_membranes_that_are_no_neurons_own_are_refused(settings, why):
    with pytest.raises(UnsupportedModelError, match=why):
        compiled(Net(**settings).eval(), np.zeros((2, 6), np.uint8))


# -- neurons that keep their membrane ----------------------------------------------------------


class Node(nn.Module):
    """As SpikingJelly's: v is a number at first."""

    def __init__(self, begin):
        super().__init__()
        self.begin = self.v = begin

    def reset(self):
        self.v = self.begin

    def forward(self, x):
        v = 0 if self.v is None else self.v
        h = v + (x - v) / 2
        fired = (h >= 1).to(h)
        self.v = h * (1 - fired)
        return fired


class Keeping(nn.Module):
    """Layer by layer over T timesteps, a reset between; the first begins as the trainer left."""

    def __init__(self, layers, begin):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(layers))
        self.node, self.head = Node(begin), nn.Linear(6, 4)

    def forward(self, x):
        steps = [x] * T
        for i, layer in enumerate(self.layers):
            if i > 0:
                self.node.reset()
            steps = [self.node(6 * layer(x)) for x in steps]
        return sum(self.head(x) for x in steps) / T


@pytest.mark.parametrize(("layers", "begin"), [(1, 0.0), (2, None), (3, 0.0)])
def test_a_membrane_that_the_trainer_empties_is_one_neuron_from_reset_to_reset(layers, begin):
    register_leaf(Node, lambda _: StepSpec(StatefulFireSpec(), alone=True, state="v"))
    torch.manual_seed(0)
    net, x = (
        Keeping(layers, begin).eval(),
        np.random.default_rng(0).integers(0, 256, (40, 6), np.uint8),
    )
    with torch.no_grad():
        expected = net((torch.tensor(x).float() / 255 - 0.3) / 0.3).numpy()
    model = compiled(net, x)  # the membrane is what that run has left
    law = model.report.import_law
    assert (len(model.program.neurons), law.neurons, law.changed) == (layers, layers, 0)
    np.testing.assert_allclose(snncc.Session(model).run(None, x)[0], expected, atol=1e-5)
    assert net.node.v.shape == (40, 6)


def test_the_neuron_in_the_docs_is_imported():
    text = (Path(__file__).parents[2] / "docs/own_neurons.md").read_text()
    (code,) = re.findall(
        r"```python\n(import torch\nfrom snncc.frontends.leaves.*?)```", text, re.S
    )
    names = {"__name__": "readme"}
    exec(code, names)
    torch.manual_seed(0)
    x = np.random.default_rng(0).integers(0, 256, (40, 16)).astype(np.uint8)
    given = InputOptions(mode="u8", mean=(0.0,), std=(1.0,))
    model = snncc.compile(names["Net"](), x, input_shape=(16,), weight_bits=24, input=given)
    assert (model.report.import_law.changed, model.report.changed) == (0, 0)
    assert [n.carry for n in model.program.neurons] == ["hard"]
    assert not model.report.verify.coverage.silent
