"""What authors write that an exporter gets wrong: compiled rightly, or named as they wrote it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Golden
from torch import Tensor, nn
from torch.nn import functional

import snncc
import snncc.compiler
from snncc.compiler import InputOptions
from snncc.errors import Fault, UnsupportedModelError
from snncc.nn import LIF, IntegerFire

X = np.random.default_rng(0).integers(0, 256, (12, 1, 7, 7), dtype=np.uint8)
GIVEN: dict[str, Any] = {"input_shape": (1, 7, 7), "input": InputOptions(mean=(0.0,), std=(1.0,))}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Layers are made before the networks that seed themselves."""
    torch.manual_seed(1)


class Of(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def over_time(net: nn.Module) -> nn.Module:
    """A network of [N, 1, 7, 7] that gives potentials."""
    torch.manual_seed(0)
    return nn.Sequential(net, nn.Linear(4, 3)).eval()


def network(*layers: nn.Module) -> nn.Module:
    """A convolution of some drive, the layers, and a linear layer."""
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 4, 3, padding=1)
    conv.weight.data.mul_(5)
    net = nn.Sequential(conv, *layers, nn.Flatten())
    features = net.eval()(torch.rand(2, 1, 7, 7)).shape[1]
    return net.append(nn.Linear(features, 3)).eval()


def pooled(**settings: Any) -> nn.Module:
    settings = {"kernel_size": 2, **settings}
    pool = Of(lambda x: functional.avg_pool2d(x, **settings))
    return network(IntegerFire(4), pool, nn.Conv2d(4, 4, 1), IntegerFire(4))


class TimeInside(nn.Module):
    """Layers over [N, C, T, H, W], as three-dimensional batch norms are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 4, (1, 3, 3), padding=(0, 1, 1), bias=False)
        self.conv.weight.data.mul_(8)
        self.norm, self.pool = nn.BatchNorm3d(4), nn.MaxPool3d((1, 2, 2))
        self.layer, self.lif = nn.Conv3d(4, 4, 1), LIF(tau=2.0)
        self.layer.weight.data.abs_().mul_(4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(2).repeat(1, 1, 3, 1, 1)
        x = self.fired(self.pool(self.norm(self.conv(x))))
        return self.fired(self.layer(x)).mean((2, 3, 4))

    def fired(self, x: Tensor) -> Tensor:
        return self.lif(x.permute(2, 0, 1, 3, 4)).permute(1, 2, 0, 3, 4)


class TimeLast(nn.Module):
    """Spikes are [N, C, H, W, T]; layers see [N * T, C, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.layer = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.conv.weight.data.mul_(8)
        self.layer.weight.data.abs_().mul_(4)
        self.lif = LIF(tau=2.0)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(-1).expand(-1, -1, -1, -1, 3)
        return self.fired(self.layer, self.fired(self.conv, x)).flatten(2).mean(2)

    def fired(self, layer: nn.Module, x: Tensor) -> Tensor:
        y = layer(x.permute(0, 4, 1, 2, 3).flatten(0, 1)).unflatten(0, (-1, 3))
        return self.lif(y.transpose(0, 1)).permute(1, 2, 3, 4, 0)


class Filled(TimeLast):
    """Timesteps are put into tensors of zeros one by one, and may be read while that goes on."""

    def forward(self, x: Tensor) -> Tensor:
        steps, drives = torch.zeros(3, *x.shape), torch.zeros(3, x.shape[0], 4, 7, 7)
        for t in range(3):
            steps[t] = x
            drives[t] = self.conv(steps[t])
        spikes, out = self.lif(drives), torch.zeros_like(drives)
        for t in range(2, -1, -1):
            out[t] = self.layer(spikes[t])
        return functional.adaptive_avg_pool3d(self.lif(out), (None, 1, 1)).flatten(2).mean(0)


COMPILES: dict[str, Callable[[], nn.Module]] = {
    "divisor of an average": lambda: pooled(divisor_override=3),
    "divisor of a padded average": lambda: pooled(kernel_size=3, padding=1, divisor_override=5),
    "averages over uneven windows": lambda: network(IntegerFire(4), nn.AdaptiveAvgPool2d(3)),
    "divisor by its module": lambda: network(
        IntegerFire(4), nn.AvgPool2d((2, 3), divisor_override=1), nn.Conv2d(4, 4, 1), IntegerFire(4)
    ),
    "clamp with a real upper bound": lambda: network(Of(lambda x: x.clamp(0, 4.0).round())),
    "clamp with a real lower bound": lambda: network(Of(lambda x: x.clamp(0.0, 4).round())),
    "clamp in place": lambda: network(Of(lambda x: x.clamp_(0, 4.0).round_())),
    "clamp with tensors": lambda: network(
        Of(lambda x: torch.clamp(x, torch.tensor(0.0), torch.tensor(4.0)).round())
    ),
    "an axis put in front and taken off": lambda: network(
        IntegerFire(4), Of(lambda x: x.unsqueeze(0)[0])
    ),
    "an axis put after the samples and taken off": lambda: network(
        IntegerFire(4), Of(lambda x: x.unsqueeze(1)[:, 0])
    ),
    "all of an axis": lambda: network(IntegerFire(4), Of(lambda x: x[:, :, 0:7, :])),
    "padding same": lambda: network(
        IntegerFire(4), nn.Conv2d(4, 4, 4, padding="same"), IntegerFire(4)
    ),
    "dropout": lambda: network(IntegerFire(4), nn.Dropout(0.5), nn.Dropout2d(0.5)),
    "timesteps after channels": lambda: over_time(TimeInside()),
    "timesteps in the last axis": lambda: over_time(TimeLast()),
    "timesteps put in by index": lambda: over_time(Filled()),
    "norm next to nothing": lambda: network(nn.BatchNorm2d(4, eps=1e-38), IntegerFire(4)),
}


@pytest.mark.parametrize("name", COMPILES)
def test_what_compiles_is_what_pytorch_computes(name: str) -> None:
    report = snncc.compile(COMPILES[name](), X, weight_bits=24, **GIVEN).report
    assert report.changed <= 1e-4
    assert report.import_law.changed == 0
    assert not report.silent


def _eps_0() -> nn.Module:
    norm = nn.BatchNorm2d(4, eps=0.0)
    norm.running_var[2] = 0
    return network(norm, IntegerFire(4))


class Loop(nn.Module):
    """A neuron of the author's own, written in a loop over timesteps."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(0).repeat(3, 1, 1, 1, 1)
        membrane, spikes = torch.zeros_like(x[0]), []
        for t in range(3):
            membrane = membrane * 0.5 + x[t]
            fired = (membrane >= 1).float()
            membrane = membrane * (1 - fired)
            spikes.append(fired)
        return torch.stack(spikes).mean(0)


REFUSED: dict[str, Callable[[], nn.Module]] = {
    "dropout_in_eval_mode": lambda: network(
        IntegerFire(4), Of(lambda x: functional.dropout(x, 0.5, training=True))
    ),
    "channels_dropped_in_eval_mode": lambda: network(
        IntegerFire(4), Of(lambda x: functional.dropout2d(x, 0.5, training=True))
    ),
    "noise": lambda: network(Of(lambda x: x + torch.randn_like(x)), IntegerFire(4)),
    "norm_without_statistics": lambda: network(
        nn.BatchNorm2d(4, track_running_stats=False), IntegerFire(4)
    ),
    "norm_in_training": lambda: network(
        Of(lambda x: functional.batch_norm(x, torch.zeros(4), torch.ones(4), training=True)),
        IntegerFire(4),
    ),
    "norm_of_variance_0_and_eps_0": _eps_0,
    "adaptive_maximum": lambda: network(IntegerFire(4), nn.AdaptiveMaxPool2d(3)),
    "pixel_unshuffle": lambda: network(
        IntegerFire(4), nn.Conv2d(4, 4, 2), nn.PixelUnshuffle(2), IntegerFire(4)
    ),
    "fake_quantise": lambda: network(
        Of(lambda x: torch.fake_quantize_per_tensor_affine(torch.relu(x), 0.1, 0, 0, 15))
    ),
    "loop_by_hand": lambda: network(Loop()),
    "value_dependent": lambda: network(Of(lambda x: x if x.sum() > 0 else -x), IntegerFire(4)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_become_spikes_is_named_as_the_author_wrote_it(
    name: str, golden: Golden
) -> None:
    """By ``compile`` and by ``check`` alike."""
    with pytest.raises(UnsupportedModelError) as caught:
        snncc.compile(REFUSED[name](), X, **GIVEN)
    assert faults_of_check(REFUSED[name]()) == caught.value.faults
    assert f"{caught.value}\n" == golden


def faults_of_check(net: nn.Module) -> tuple[Fault, ...]:
    try:
        return snncc.compiler.check(net, **GIVEN).faults
    except UnsupportedModelError as e:
        return e.faults


@pytest.mark.parametrize("number", [0.1, 0.3, 1 / 6])
def test_a_number_in_the_code_is_that_number(number: float) -> None:
    """Whole sums of counts times 0.1 meet ties, which its float32 would put on one side."""
    sums = nn.Conv2d(4, 4, 1)
    with torch.no_grad():
        sums.weight[:] = torch.randint(-3, 4, sums.weight.shape).float()
        sums.bias[:] = 5.0
    net = network(IntegerFire(8), sums, Of(lambda x: x * number), IntegerFire(8))
    report = snncc.compile(net, X, weight_bits=24, **GIVEN).report
    assert report.ties > 0
    assert report.changed == report.float32.activations == 0
