"""Networks of torch modules with memory: own neurons, and those of other libraries by name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

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
        (named("snntorch._neurons.neurons.SpikingNeuron"), "does not know; Leaky, Lapicque and"),
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


# -- Norse and sinabs: their equations, in classes of their names ------------------------------


class NorseState(NamedTuple):
    v: torch.Tensor
    i: torch.Tensor


class NorseLIFCell(nn.Module):
    """Calls without a state begin anew, and the state is a named tuple."""

    dt = 0.001

    def __init__(self, **p):
        super().__init__()
        numbers = {"tau_syn_inv": 250.0, "tau_mem_inv": 500.0, "v_leak": 0.0, "v_th": 0.5,
                   "v_reset": 0.0, **p}  # fmt: skip
        self.p = SimpleNamespace(**{name: torch.as_tensor(n) for name, n in numbers.items()})

    def forward(self, x, state=None):
        v, i = (torch.zeros(()), torch.zeros_like(x)) if state is None else state
        i = i + x
        v = v + self.dt * self.p.tau_mem_inv * ((self.p.v_leak - v) + i)
        z = (v > self.p.v_th).to(x)
        return z, NorseState((1 - z) * v, i - self.dt * self.p.tau_syn_inv * i)


class NorseLIF(NorseLIFCell):
    """The same over [T, N, ...]."""

    def forward(self, x, state=None):
        spikes = []
        for frame in x:
            z, state = super().forward(frame, state)
            spikes.append(z)
        return torch.stack(spikes), state


class MaxSpikeOf3:
    max_num_spikes_per_bin = 3


class SinabsLIF(nn.Module):
    """Reads [N, T, ...] and keeps its states in buffers, which are saved and may be empty."""

    spike_fn, min_v_mem, norm_input, reset_fn = MaxSpikeOf3, None, False, SimpleNamespace()
    alpha_mem_calculated, alpha_syn_calculated = torch.tensor(0.5), torch.tensor(0.75)
    spike_threshold = torch.tensor(0.5)

    def __init__(self):
        super().__init__()
        self.register_buffer("v_mem", torch.zeros(0))
        self.register_buffer("i_syn", torch.zeros(0))

    def forward(self, x):
        if self.v_mem.shape != x[:, 0].shape:
            self.v_mem, self.i_syn = torch.zeros_like(x[:, 0]), torch.zeros_like(x[:, 0])
        spikes = []
        for frame in x.unbind(1):
            self.i_syn = self.alpha_syn_calculated * (self.i_syn + frame)
            v = self.alpha_mem_calculated * self.v_mem + self.i_syn
            fired = ((v > 0) * torch.div(v, 0.5, rounding_mode="trunc")).clamp(max=3)
            self.v_mem = v - 0.5 * fired
            spikes.append(fired)
        return torch.stack(spikes, 1)


class SinabsSqueeze(SinabsLIF):
    """The same over [N * T, ...]."""

    num_timesteps = 4

    def forward(self, x):
        return super().forward(x.reshape(-1, 4, *x.shape[1:])).flatten(0, 1)


def of_library(cls, path, **more):
    module, _, name = path.rpartition(".")
    return type(name, (cls,), {"__module__": module, "__qualname__": name})(**more)


class Norse(nn.Module):
    """Cells in a loop, one for two layers, and a whole layer after them."""

    def __init__(self, each=None):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(36, 12), nn.Linear(12, 12), nn.Linear(12, 4)
        rates = (
            {} if each is None else {"tau_mem_inv": 1000 * (1 - each), "tau_syn_inv": 900 * each}
        )
        self.cell = of_library(NorseLIFCell, "norse.torch.module.lif.LIFCell", **rates)
        self.whole = of_library(NorseLIF, "norse.torch.module.lif.LIF")

    def forward(self, x):
        first = second = None
        drives = []
        for _ in range(4):
            a, first = self.cell(4 * self.fc1(x.flatten(1)), first)
            b, second = self.cell(4 * self.fc2(a), second)
            drives.append(4 * self.fc3(b))
        return self.whole(torch.stack(drives))[0].mean(0)


class Sinabs(nn.Module):
    """Batch-major timesteps."""

    def __init__(self, each=None):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(36, 12), nn.Linear(12, 12), nn.Linear(12, 4)
        self.one = of_library(SinabsLIF, "sinabs.layers.lif.LIF")
        if each is not None:
            self.one.alpha_mem_calculated, self.one.alpha_syn_calculated = each, each.flip(0)
        self.two = of_library(SinabsSqueeze, "sinabs.layers.lif.LIFSqueeze")

    def forward(self, x):
        x = self.one(self.fc1(x.flatten(1)).unsqueeze(1).repeat(1, 4, 1))
        x = self.two(self.fc2(x.flatten(0, 1)))
        return self.fc3(x).unflatten(0, (-1, 4)).mean(1)


@pytest.mark.parametrize(
    ("make", "neurons", "D", "current"), [(Norse, 3, 1, 0.75), (Sinabs, 2, 3, 0.75)]
)
def test_norse_and_sinabs_fire_the_same_on_every_engine(make, neurons, D, current):
    program = same_everywhere(make(), neurons)
    assert [n.D for n in program.neurons] == [D] * neurons
    assert [n.current for n in program.neurons] == [(3, 2)] * neurons


@pytest.mark.parametrize(("make", "neurons", "own"), [(Norse, 3, 2), (Sinabs, 2, 1)])
def test_norse_and_sinabs_with_time_constants_of_each_neuron(make, neurons, own):
    program = same_everywhere(make(torch.linspace(0.3, 0.95, 12)), neurons)
    numbers = [(n.decay[0], n.current[0]) for n in program.neurons]
    assert [type(n) for pair in numbers for n in pair] == [tuple, tuple] * own + [int, int]


def same_everywhere(net, neurons):
    torch.manual_seed(2)
    for part in (net.fc1, net.fc2, net.fc3):
        part.reset_parameters()
    net.eval()
    x = np.random.default_rng(0).integers(0, 256, (24, 1, 6, 6)).astype(np.uint8)
    with torch.no_grad():
        expected = net((torch.tensor(x).float() / 255 - 0.3) / 0.3).numpy()
    given = InputOptions(mean=(0.3,), std=(0.3,))
    model = snncc.compile(net, x, input_shape=(1, 6, 6), weight_bits=24, input=given)
    report = model.report
    assert (report.import_law.neurons, report.import_law.changed) == (neurons, 0)
    assert (report.changed, report.verify.mismatched) == (0, 0)
    assert not report.verify.coverage.silent
    np.testing.assert_allclose(snncc.Session(model).run(None, x)[0], expected, atol=1e-5)
    return model.program


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (of_library(NorseLIFCell, "norse.torch.module.lif.LIFCell", v_leak=0.1, v_reset=-1.0),
         "becomes spikes with v_leak=0, v_reset=0"),
        (named("norse.torch.module.leaky_integrator.LICell", p=None), "LICell is a membrane"),
        (named("sinabs.layers.iaf.IAFSqueeze", num_timesteps=-1, min_v_mem=torch.tensor(-1.0),
               spike_fn=object, reset_fn=None, spike_threshold=torch.tensor(1.0)),
         r"spike_fn=SingleSpike or MaxSpike\(n\), min_v_mem=None, num_timesteps=T"),
        (named(f"{NODES}.lif_variants.LIAFNode"), "it hands on real values; LIFNode fires"),
        (named(f"{NODES}.psn.PSN"), "reads later ones"),
        (named("snntorch._neurons.rleaky.RLeaky"), "its spikes come back into it"),
    ],
)  # fmt: skip
def test_neurons_of_libraries_that_are_none_are_named(node, why):
    bases = {"LICell": "norse.torch.module.snn.SNNCell"}
    if (base := bases.get(type(node).__name__)) is not None:
        kind = type(named(base))
        node.__class__ = type("LICell", (kind,), {"__module__": type(node).__module__})
    with pytest.raises(UnsupportedModelError, match=why):
        find_leaves(node)
