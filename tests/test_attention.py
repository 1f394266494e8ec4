"""Networks with attention from PyTorch to verified spikes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attention_modules import SPELLINGS, network
from torch import Tensor, nn

import snncc
from snncc.compiler import InputOptions
from snncc.nn import LIF, IntegerFire
from snncc.program import Attention, Program, Relay
from snncc.runtime.artifact import CompiledModel


def attentions(program: Program) -> list[Attention]:
    return [n for n in program.nodes if isinstance(n, Attention)]


def compiled(*spellings: str) -> CompiledModel:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 2, 8, 8)).astype(np.uint8)
    scale = InputOptions(mean=(0.5, 0.5), std=(0.5, 0.5))
    return snncc.compile(
        network(*spellings), calibration=pixels, input_shape=(2, 8, 8), input=scale, weight_bits=24
    )


def assert_exact(model: CompiledModel) -> None:
    """All engines agree, every population fired, and 24 bits change next to nothing."""
    report = model.report
    assert report.verify.mismatched == 0
    assert list(report.verify.engines) == ["spike-form", "clocked", "event"]
    assert report.verify.coverage.silent == ()
    assert report.changed_teacher_forced <= 1e-4
    assert report.activations_found == report.activations_lowered


def test_a_network_fires_the_same_spikes_on_all_engines_and_weighs_two_windows() -> None:
    model = compiled("token_linear", "einsum_maps")
    assert_exact(model)
    relays = [n for n in model.program.nodes if isinstance(n, Relay)]
    layers = 1 + 2 * 3 + 2 + 1  # stem; x, then q, k and v, then y in each block; MLP; last
    assert (len(attentions(model.program)), len(relays)) == (2, 2)
    assert model.program.windows == layers + len(relays)


@pytest.mark.slow
def test_a_network_of_all_spellings_fires_the_same_spikes_on_all_engines() -> None:
    model = compiled()
    assert_exact(model)
    assert len(attentions(model.program)) == len(SPELLINGS)


class WithMemory(nn.Module):
    """Attention of LIF neurons, over T timesteps folded into the batch."""

    default_cfg = {"input_size": (2, 8, 8), "mean": (0.5, 0.5), "std": (0.25, 0.25)}  # noqa: RUF012

    def __init__(self, T: int) -> None:
        super().__init__()
        self.T = T
        self.stem, self.norm = nn.Conv2d(2, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.layers = nn.ModuleDict({n: nn.Conv1d(8, 8, 1) for n in ("q", "k", "v")})
        self.lifs = nn.ModuleDict({n: LIF(threshold=0.5) for n in ("x", "q", "k", "v", "y", "z")})
        self.proj, self.head = nn.Conv1d(8, 8, 1), nn.Linear(8, 3)
        for layer in self.layers.values():
            nn.init.normal_(layer.weight, 0.3, 0.4)

    def fire(self, name: str, u: Tensor) -> Tensor:
        return self.lifs[name](u.unflatten(0, (self.T, -1))).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(0).repeat(self.T, 1, 1, 1, 1).flatten(0, 1)
        u = self.norm(self.stem(x))
        tokens = self.fire("x", 2 * u).flatten(2)
        q, k, v = (
            self.fire(n, layer(tokens)).unflatten(1, (2, 4)).transpose(2, 3)
            for n, layer in self.layers.items()
        )
        y = self.fire("y", (q @ (k.transpose(2, 3) @ v) * 0.125).transpose(2, 3).flatten(1, 2))
        z = self.fire("z", (u + self.proj(y).reshape(u.shape)).mean((2, 3)))
        return self.head(z).unflatten(0, (self.T, -1)).mean(0)


def test_attention_of_neurons_with_memory() -> None:
    torch.manual_seed(0)
    net = WithMemory(T=3).train()
    with torch.no_grad():
        net(torch.randn(32, 2, 8, 8))
    pixels = np.random.default_rng(0).integers(0, 256, (16, 2, 8, 8)).astype(np.uint8)
    model = snncc.compile(net.eval(), calibration=pixels)
    assert len(attentions(model.program)) == 1
    assert model.program.timesteps == 3
    assert model.report.verify.mismatched == 0
    assert model.report.verify.coverage.fired == 6


class ScaledMean(nn.Module):
    """The head reads half the mean, over all positions, of spikes laid out as tokens."""

    default_cfg = {"input_size": (1, 6, 6), "mean": (0.5,), "std": (0.25,)}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.fire, self.head = nn.Conv2d(1, 4, 2, 2), IntegerFire(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.fire(3 * self.embed(x)).flatten(2).transpose(1, 2)
        scores: Tensor = self.head((tokens * 0.5).mean(1))
        return scores


def test_a_mean_over_scaled_tokens_keeps_the_scale() -> None:
    torch.manual_seed(0)
    net = ScaledMean().eval()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 1, 6, 6)).astype(np.uint8)
    found = snncc.Session(snncc.compile(net, calibration=pixels, weight_bits=24)).run(
        None, {"x": pixels}
    )[0]
    with torch.no_grad():
        expected = net((torch.from_numpy(pixels) / 255 - 0.5) / 0.25).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
