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
    report = model.report["verify"]
    assert (report["mismatched"], len(report["coverage"]["silent"])) == (0, 0)
    with torch.no_grad():
        expected = net(torch.from_numpy(real).float().transpose(0, 1)).numpy()
    (found,) = snncc.Session(model, "integer").run(None, x)
    if measured:
        assert model.report["changed"] == 0
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


def test_results_with_samples_first_are_refused():
    net = Film(head=lambda s: s.transpose(0, 1))
    with pytest.raises(UnsupportedModelError, match=r"return \[T, N, ...\], or the mean over T"):
        snncc.compile(net.eval(), films(2), input_shape=(1, 6, 6), timesteps=2, input=RAW)


@pytest.mark.parametrize("T", [0, -1, 2.0, "2"])
def test_timesteps_are_a_positive_number(T):
    with pytest.raises(UsageError, match=r"timesteps .* a positive integer"):
        snncc.compile(Film().eval(), None, input_shape=(1, 6, 6), timesteps=T, input=RAW)


def test_what_a_module_says_of_itself_is_the_default():
    torch.manual_seed(0)
    net = Film()
    net.default_cfg = {"input_size": (1, 6, 6), "timesteps": 3, "mean": (0.0,), "std": (1 / 255,)}
    x = films(3)
    agreed(net, x, x, timesteps=None, input_shape=None)
