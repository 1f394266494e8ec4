"""Networks written for SpikingJelly with CuPy, where neither a GPU nor CuPy is."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

import snncc
from snncc.frontends.constructor import build
from snncc.frontends.node_backends import any_backend

MODULE = "spikingjelly.clock_driven.neuron"
CODE = """
import torch
from spikingjelly.clock_driven.neuron import MultiStepLIFNode


class Net(torch.nn.Module):
    def __init__(self, backend="cupy"):
        super().__init__()
        self.fc1, self.lif = torch.nn.Linear(8, 16), MultiStepLIFNode(backend=backend)
        self.fc2 = torch.nn.Linear(16, 3)

    def forward(self, x):
        x = self.lif(3 * self.fc1(x).unsqueeze(0).repeat(4, 1, 1))
        return self.fc2(x.flatten(0, 1)).unflatten(0, (4, -1)).mean(0)
"""


class MultiStepLIFNode(nn.Module):
    """What the library's node does, as far as it is read."""

    def __init__(self, backend="torch"):
        super().__init__()
        sys.modules[MODULE].check_backend(backend)
        self.backend, self.v = backend, 0.0
        self.v_threshold, self.v_reset, self.tau, self.decay_input = 1.0, 0.0, 2.0, True

    def forward(self, x):
        if self.backend != "torch":
            raise RuntimeError("needs a GPU")
        v, spikes = torch.zeros_like(x[0]), []
        for step in x:
            v = v + (step - v) / self.tau
            spikes.append((v >= 1).float())
            v = v * (1 - spikes[-1])
        return torch.stack(spikes)


MultiStepLIFNode.__module__ = MODULE


def check_backend(backend):
    assert backend == "torch", "CuPy is not installed!"


@pytest.fixture
def arch(tmp_path, monkeypatch):
    """A file of an author, and a SpikingJelly that refuses what is not installed."""
    library = types.ModuleType(MODULE)
    library.MultiStepLIFNode, library.check_backend = MultiStepLIFNode, check_backend
    for name in ("spikingjelly", "spikingjelly.clock_driven"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, MODULE, library)
    (tmp_path / "net.py").write_text(CODE)
    return f"{tmp_path / 'net.py'}:Net"


def test_a_network_for_cupy_compiles_without_it(arch):
    torch.manual_seed(0)
    net = build(arch, {})
    assert net.lif.backend == "cupy"
    x = np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)
    model = snncc.compile(net, x, input_shape=(8,))
    law = model.report.import_law
    assert (law.neurons, law.changed, model.report.verify.mismatched) == (1, 0, 0)
    assert net.lif.backend == "cupy"


def test_what_the_library_checks_is_checked_again_afterwards(arch):
    with any_backend():
        sys.modules[MODULE].check_backend("cupy")
    with pytest.raises(AssertionError, match="CuPy"):
        sys.modules[MODULE].check_backend("cupy")
