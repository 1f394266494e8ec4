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


# -- single-step nodes in a loop ----------------------------------------------------------------


class SingleStep(nn.Module):
    """As SpikingJelly's nodes in single-step mode: v is a number until the first call."""

    step_mode, v_threshold, surrogate_function = "s", 0.5, None

    def __init__(self, tau=2.0, v_reset=0.0):
        super().__init__()
        self.tau, self.v_reset, self.v = tau, v_reset, 0.0

    def reset(self):
        self.v = 0.0

    def forward(self, x):
        h = self.v + (x - self.v) / self.tau
        spikes = (h >= self.v_threshold).to(x)
        fallen = h - spikes * self.v_threshold
        self.v = fallen if self.v_reset is None else h * (1 - spikes)
        return spikes


class LoopOfSteps(nn.Module):
    """A network of single-step nodes, called once per timestep; ``of`` says how."""

    def __init__(self, of, old, **more):
        super().__init__()
        path = ("spikingjelly.clock_driven.neuron" if old else f"{NODES}.lif", "LIFNode")
        kind = type(path[1], (SingleStep,), {"__module__": path[0], "__qualname__": path[1]})
        if old:
            kind.step_mode = property()  # raises AttributeError, as what is not there does
        self.of = of
        self.net = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), kind(**more), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(27, 8), kind(**more), nn.Linear(8, 4), kind(**more),
        )  # fmt: skip
        with torch.no_grad():
            for layer in (self.net[0], self.net[5], self.net[7]):
                layer.weight.mul_(4)

    def forward(self, x):
        if self.of != "image, never reset":
            for part in self.net:
                getattr(part, "reset", int)()
        out = 0.0
        for t in range(4):
            out += self.net(x[t] if self.of == "frames" else x)
        return out / 4


@pytest.mark.parametrize(
    ("of", "old", "v_reset"),
    [
        pytest.param("image", False, 0.0, marks=pytest.mark.slow),
        ("image, never reset", False, None),
        ("frames", False, 0.0),
        pytest.param("image", True, None, marks=pytest.mark.slow),
    ],
)
def test_single_step_nodes_in_a_loop_are_neurons_over_time(of, old, v_reset):
    torch.manual_seed(1)
    net = LoopOfSteps(of, old, v_reset=v_reset).eval()
    shape = (12, 4, 1, 6, 6) if of == "frames" else (12, 1, 6, 6)
    x = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    frames = (torch.tensor(x).float() / 255 - 0.3) / 0.3
    with torch.no_grad():
        expected = net(frames.transpose(0, 1) if of == "frames" else frames).numpy()
    for part in net.net:
        getattr(part, "reset", int)()
    model = snncc.compile(
        net, x, input_shape=(1, 6, 6), weight_bits=24,
        input=InputOptions(mean=(0.3,), std=(0.3,)), timesteps=4 if of == "frames" else None,
    )  # fmt: skip
    report = model.report
    assert (model.program.timesteps, report.import_law.neurons) == (4, 3)
    assert (report.changed, report.verify.mismatched) == (0, 0)
    assert not report.verify.coverage.silent
    np.testing.assert_allclose(snncc.Session(model).run(None, x)[0], expected, atol=1e-6)
