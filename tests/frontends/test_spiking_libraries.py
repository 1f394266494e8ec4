"""Networks of torch modules with memory: own neurons, and those of other libraries by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import snncc
from snncc.compiler import InputOptions
from snncc.errors import UnsupportedModelError
from snncc.frontends import spiking_libraries
from snncc.frontends.leaves import find_leaves
from snncc.nn import ILIF, LIF


def named(path, **attributes):
    """An instance of a class with that qualified name, as the library would have it."""
    module, _, name = path.rpartition(".")
    node = type(name, (nn.Module,), {"__module__": module, "__qualname__": name})()
    node.__dict__.update({"v_threshold": 1.0, "v_reset": 0.0, "step_mode": "m", **attributes})
    return node


NODES = spiking_libraries._NODES


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (named(f"{NODES}.integrate_and_fire.IFNode"), (1, 1.0, 1.0, ">=", "hard")),
        (named(f"{NODES}.lif.LIFNode", tau=4.0), (1, 0.75, 0.25, ">=", "hard")),
        (named(f"{NODES}.lif.LIFNode", tau=4.0, decay_input=False, v_reset=None),
         (1, 0.75, 1.0, ">=", "soft")),
        (named(f"{NODES}.plif.ParametricLIFNode", w=torch.tensor(0.0)),
         (1, 0.5, 0.5, ">=", "hard")),
        (named("spikingjelly.clock_driven.neuron.MultiStepLIFNode", tau=2.0),
         (1, 0.5, 0.5, ">=", "hard")),
        (named(f"{NODES}.ilif.ILIFNode", tau=2.0, decay_input=False, v_reset=None,
               surrogate_function=type("F", (), {"max_spike_count": 4})()),
         (4, 0.5, 1.0, "half-even", "soft")),
    ],
)  # fmt: skip
def test_spiking_jelly_by_name(node, expected):
    (leaf,) = find_leaves(node)
    spec = leaf.spec
    assert (spec.D, spec.decay, spec.gain, spec.rule, spec.reset) == expected


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (named(f"{NODES}.lif.LIFNode", tau=2.0, step_mode="s"), "set_step_mode"),
        (named(f"{NODES}.lif.LIFNode", tau=2.0, v_reset=0.1), "resets to 0.1"),
        (
            named(
                f"{NODES}.lif.LIFNode",
                tau=2.0,
                surrogate_function=type("Sigmoid", (), {"spiking": False})(),
            ),
            "spiking=False, which fires real values",
        ),
        (named(f"{NODES}.base_node.BaseNode"), "does not know"),
        (named("snntorch._neurons.neurons.SpikingNeuron"), "does not know; Leaky becomes spikes"),
        (named("snntorch._neurons.leaky.Leaky", beta=0.5), "lacks threshold, .* snnTorch 1.0"),
    ],
)
def test_what_is_not_sound_is_refused(node, why):
    with pytest.raises(UnsupportedModelError, match=why):
        find_leaves(node)


class Spiking(nn.Module):
    """Three kinds of neurons with a skip of spikes, on an image shown three times."""

    def __init__(self, repeat):
        super().__init__()
        self.repeat = repeat
        self.conv1, self.bn = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.lif = LIF(tau=2.0, threshold=0.5)
        self.conv2 = nn.Conv2d(3, 3, 3, padding=1)
        self.plif = LIF(tau=1.75, reset="soft", learn_tau=True)
        self.ilif = ILIF(3)
        self.fc = nn.Linear(3 * 36, 4)

    def forward(self, x):
        x = self.lif(self.repeat(self.bn(self.conv1(x))))
        y = self.conv2(x.flatten(0, 1)).reshape(x.shape)
        y = self.plif(y) + x
        y = self.ilif(self.conv2(y.flatten(0, 1)).view(x.shape))
        return self.fc(y.mean(0).flatten(1))


REPEATS = {
    "repeat": lambda x: x.unsqueeze(0).repeat(3, 1, 1, 1, 1),
    "expand": lambda x: x.expand(3, -1, -1, -1, -1),
    "stack": lambda x: torch.stack([x] * 3),
}


@pytest.mark.parametrize("how", REPEATS)
def test_torch_networks_compile_and_every_engine_agrees(how):
    torch.manual_seed(3)
    net = Spiking(REPEATS[how]).eval()
    with torch.no_grad():
        net.conv1.weight.mul_(4)
        net.conv2.weight.mul_(3)
    x = np.random.default_rng(0).integers(0, 256, (6, 1, 6, 6)).astype(np.uint8)
    given = InputOptions(mean=(0.3,), std=(0.3,))
    model = snncc.compile(net, x, input_shape=(1, 6, 6), weight_bits=24, input=given)
    assert model.report.verify.mismatched == 0
    assert not model.report.verify.coverage.silent
    assert model.report.import_law.neurons == 3
    with torch.no_grad():
        expected = net((torch.tensor(x).float() / 255 - 0.3) / 0.3).numpy()
    (found,) = snncc.Session(model).run(None, x)
    assert found.shape == (6, 4)
    assert model.report.changed == 0
    np.testing.assert_allclose(found, expected, atol=1e-4)
