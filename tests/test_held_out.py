"""What calibration data chooses is judged by other data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import snncc
from snncc.compiler.samples import halves
from snncc.nn import IntegerFire
from snncc.passes.integers.choose_bits import ChooseBits
from snncc.passes.integers.quantise_weights import QuantiseWeights


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), IntegerFire(4), nn.Conv2d(4, 6, 3), IntegerFire(4), nn.Flatten(),
        nn.Linear(96, 5),
    ).eval()  # fmt: skip
    net.default_cfg = {"input_size": (1, 8, 8), "mean": (0.3,), "std": (0.2,)}
    return net


def pixels(n: int) -> np.ndarray:
    """Samples that differ in their first pixel."""
    x = np.random.default_rng(0).integers(0, 256, (n, 1, 8, 8), dtype=np.uint8)
    x[:, 0, 0, 0] = np.arange(n)
    return x


def numbers(feeds: Any) -> set[int]:
    """Which samples these are."""
    (x,) = (values for name, values in feeds.items() if name.endswith(":u8"))
    return set(x[:, 0, 0, 0].tolist())


@pytest.fixture
def seen(monkeypatch):
    """Samples that bits were judged by, and weights were chosen with, in the final pass."""
    found: dict[str, set[int]] = {}
    choose, quantise = ChooseBits.run, QuantiseWeights.run

    def spied(self, model):
        found["judged"] = numbers(self.feeds)
        return choose(self, model)

    def fitted(self, model):
        if self.fit is not None:
            found["fitted"] = numbers(self.fit.feeds)
        return quantise(self, model)

    monkeypatch.setattr(ChooseBits, "run", spied)
    monkeypatch.setattr(QuantiseWeights, "run", fitted)
    return found


@pytest.mark.parametrize("options", [{"rounding": "data"}, {"bias_correction": True}])
def test_bits_are_judged_by_samples_that_chose_no_weights(options, seen):
    model = snncc.compile(network(), pixels(40), weight_bits="auto", **options)
    assert (seen["fitted"], seen["judged"]) == (set(range(10)), set(range(10, 20)))
    assert model.report.samples == 20


def test_bits_alone_are_judged_by_the_whole_first_half(seen):
    model = snncc.compile(network(), pixels(40), weight_bits="auto")
    assert seen == {"judged": set(range(20))}
    assert model.report.samples == 20


def test_weights_alone_are_chosen_with_the_whole_first_half(seen):
    snncc.compile(network(), pixels(40), weight_bits=8, rounding="data")
    assert seen == {"fitted": set(range(20))}


@pytest.mark.parametrize(("n", "first", "second"), [(1, 1, 1), (2, 1, 1), (5, 2, 3)])
def test_halves(n, first, second):
    one, two = halves({"x": np.arange(n)})
    assert (len(one["x"]), len(two["x"])) == (first, second)
    assert n == 1 or not set(one["x"]) & set(two["x"])
