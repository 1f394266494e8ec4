"""Torch networks whose input is a sequence: counts of events, direct drive, axes, grids."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import snncc
from snncc.compiler import InputOptions
from snncc.errors import UnsupportedModelError, UsageError
from snncc.nn import LIF, IntegerFire


class Film(nn.Module):
    """[T, N, C, 6, 6]: convolution, neurons, readout; ``head`` takes the spikes [T, N, 3, 6, 6]."""

    def __init__(self, channels=1, head=None, neuron=None):
        super().__init__()
        self.conv = nn.Conv2d(channels, 3, 3, padding=1)
        self.neuron = neuron or LIF(tau=1.5, threshold=0.5, reset="soft")
        self.fc = nn.Linear(108, 4)
        self.head = head or (lambda s: self.fc(s.flatten(2)).mean(0))

    def forward(self, x):
        drive = self.conv(x.flatten(0, 1))
        return self.head(self.neuron(3 * drive.unflatten(0, x.shape[:2])))


def films(T, channels=1, top=255, samples=7, seed=0):
    shape = (samples, T, channels, 6, 6)
    return np.random.default_rng(seed).integers(0, top + 1, shape).astype(np.uint8)


def agreed(net, x, real, measured=True, **options):
    """The session's result, which must be that of the network on ``real``, and the model."""
    given = {"input_shape": x.shape[2:], "timesteps": x.shape[1], "weight_bits": 24, **options}
    model = snncc.compile(net.eval(), x, **given)
    report = model.report.verify
    assert (report.mismatched, len(report.coverage.silent)) == (0, 0)
    with torch.no_grad():
        expected = net(torch.from_numpy(real).float().transpose(0, 1)).numpy()
    (found,) = snncc.Session(model, "integer").run(None, x)
    if measured:
        assert model.report.changed == 0
    np.testing.assert_allclose(found, expected, atol=1e-5)
    return found, model


RAW = InputOptions(mean=(0.0,), std=(1 / 255,))  # the network takes the integers themselves


@pytest.mark.parametrize("T", [1, 2, 5])
def test_counts_of_events_are_taken_as_they_are(T):
    torch.manual_seed(0)
    x = films(T, channels=2, top=3)
    _, model = agreed(Film(2), x, x, input=RAW)
    assert model.input.scale == (1.0, 1.0)
    assert model.input.sample == (T, 2, 6, 6)
    assert model.program.source.shape == (2, 6, 6)


def test_real_frames_go_on_one_grid():
    torch.manual_seed(0)
    x = (films(3) / np.float32(64) - 1).astype(np.float32)
    agreed(Film(), x, x, input=InputOptions(mode="f32", range=(-1.0, 255 / 64 - 1)))


def test_every_timestep_may_be_a_result():
    torch.manual_seed(0)
    net = Film()
    net.head = lambda s: net.fc(s.flatten(2))
    found, model = agreed(net, films(3), films(3), input=RAW)
    assert found.shape == (3, 7, 4)
    assert model.outputs[0].over_time == "each"


@pytest.mark.parametrize("threshold", [128.0, 100.0])
def test_neurons_may_read_the_frames_themselves(threshold):
    torch.manual_seed(0)

    class Direct(nn.Module):
        def __init__(self):
            super().__init__()
            self.lif, self.fc = LIF(tau=2.0, threshold=threshold), nn.Linear(36, 4)

        def forward(self, x):
            return self.fc(self.lif(x).flatten(2)).mean(0)

    # membranes meet the threshold: a float32 graph of x / 200 does not, the network does
    agreed(Direct(), films(4), films(4), threshold == 128, input=RAW)


def test_a_network_without_memory_sees_one_frame_after_the_other():
    torch.manual_seed(0)
    _, model = agreed(Film(neuron=IntegerFire(4)), films(3, top=9), films(3, top=9), input=RAW)
    assert [n.carry for n in model.program.neurons] == ["none"]
    assert model.program.timesteps == 3


class Mixer(nn.Module):
    """[N, T, 2, 6, 6]: attention and an MLP over tokens, T an axis of its own all the way."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(2, 8, 3, padding=1), nn.Linear(8, 4)
        self.q, self.k, self.v, self.proj = (nn.Conv2d(8, 8, 1, bias=False) for _ in range(4))
        self.one, self.two = nn.Conv1d(8, 16, 1), nn.Conv1d(16, 8, 1)
        self.fires = nn.ModuleList(IntegerFire(4) for _ in range(8))

    def each(self, layer, x):
        return layer(x.flatten(0, 1)).reshape(*x.shape[:2], -1, *x.shape[3:])

    def by_head(self, x):
        T, N, C = x.shape[:3]
        return x.flatten(3).transpose(-1, -2).reshape(T, N, -1, 2, C // 2).permute(0, 1, 3, 2, 4)

    def attend(self, x):
        s = self.fires[0](x)
        layers = zip(self.fires[1:4], (self.q, self.k, self.v), strict=True)
        q, k, v = (self.by_head(fire(3 * self.each(layer, s))) for fire, layer in layers)
        y = (q @ k.transpose(-2, -1)) @ v * 0.125
        y = self.fires[4](y.transpose(3, 4).reshape(*x.shape[:3], -1)).reshape(x.shape)
        return self.each(self.proj, y)

    def forward(self, x):
        x = 9 * self.each(self.stem, x.transpose(0, 1).contiguous())
        x = x + self.attend(x)
        y = self.two(self.fires[6](self.one(self.fires[5](x.flatten(3)).flatten(0, 1))))
        x = x + y.reshape(x.shape)
        return self.head(self.fires[7](x.flatten(3).mean(3))).mean(0)


def test_tokens_and_heads_may_stand_behind_an_axis_of_timesteps():
    torch.manual_seed(1)
    net, x = Mixer().eval(), films(3, channels=2, top=3)
    given = {"input_shape": (2, 6, 6), "timesteps": 3, "batch_first": True, "weight_bits": 24}
    model = snncc.compile(net, x, **given, input=RAW)
    assert model.report.verify.mismatched == 0
    assert not model.report.verify.coverage.silent
    assert len(model.program.neurons) == 8
    with torch.no_grad():
        expected = net(torch.from_numpy(x).float()).numpy()
    (found,) = snncc.Session(model, "event").run(None, x)
    np.testing.assert_allclose(found, expected, atol=1e-5)


class Idle(nn.Module):
    """A stream of potentials into LIF neurons; to it a branch adds nothing, with huge weights."""

    def __init__(self, factor, decay=0.5):
        super().__init__()
        self.stem, self.branch = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 1, bias=False)
        self.first, self.gate = LIF(tau=2.0, threshold=50.0), LIF(tau=2.0, threshold=1e9)
        self.last = LIF(tau=1 / (1 - decay), threshold=50.0)
        self.fc = nn.Linear(108, 4)
        nn.init.normal_(self.branch.weight, 0, factor)

    def each(self, layer, x):
        return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def forward(self, x):
        u = self.each(self.stem, x)
        u = u + self.each(self.branch, self.gate(self.first(u)))
        return self.fc(self.last(u).flatten(2)).mean(0)


@pytest.mark.parametrize("bits", [8, 24])
@pytest.mark.parametrize(
    ("factor", "decay", "fraction"),
    [(1.0, 0.5, 3), (1e6, 0.5, 3), (1e11, 0.5, 3), (1.0, 0.7, None), (1e6, 0.7, None)],
)
def test_membranes_have_room_beside_weights_that_never_act(factor, decay, fraction, bits):
    """A decay of 1/2 is exact with 3 more bits; 0.7 is rounded, to as many as there are."""
    torch.manual_seed(0)
    x, net = films(4), Idle(factor, decay).eval()
    model = snncc.compile(net, x, input_shape=(1, 6, 6), timesteps=4, weight_bits=bits, input=RAW)
    assert model.report.verify.mismatched == 0
    assert "last" not in model.report.verify.coverage.silent
    assert model.report.changed <= {8: 0.02, 24: 1e-4}[bits]
    (last,) = (n for n in model.program.neurons if n.module == "last")
    assert fraction in (None, last.fraction)


def test_a_membrane_without_room_is_refused_by_name():
    """The decay alone takes 16 bits, and the branch reaches 2^38 thresholds."""
    torch.manual_seed(0)
    net = Idle(1e11, 0.7).eval()
    with pytest.raises(UnsupportedModelError, match=r"stem .*which 'branch' takes up to 2\.9e\+11"):
        snncc.compile(net, input_shape=(1, 6, 6), timesteps=4, weight_bits=24, input=RAW)


def test_results_with_samples_first_are_refused():
    net = Film(head=lambda s: s.transpose(0, 1))
    with pytest.raises(UnsupportedModelError, match=r"return \[T, N, ...\], or the mean over T"):
        snncc.compile(net.eval(), films(2), input_shape=(1, 6, 6), timesteps=2, input=RAW)


@pytest.mark.parametrize("T", [0, -1, 2.0, "2"])
def test_timesteps_are_a_positive_number(T):
    with pytest.raises(UsageError, match=r"^timesteps=.*: a positive integer"):
        snncc.compile(Film().eval(), None, input_shape=(1, 6, 6), timesteps=T, input=RAW)


def test_what_a_module_says_of_itself_is_the_default():
    torch.manual_seed(0)
    net = Film()
    net.default_cfg = {"input_size": (1, 6, 6), "timesteps": 3, "mean": (0.0,), "std": (1 / 255,)}
    x = films(3)
    agreed(net, x, x, timesteps=None, input_shape=None)
