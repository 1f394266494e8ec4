"""Maxima of spikes over a table of tokens and channels: neurons that read layers of ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import snncc
from snncc.compiler import InputOptions, check
from snncc.nn import LIF, IntegerFire
from snncc.passes.tokens.maxima import _steps
from snncc.program import Neuron

PIXELS = InputOptions(mode="u8", mean=(0.0,), std=(1.0,))


class Spread(nn.Module):
    """Two populations of spikes on a map, as tokens of heads, and a maximum over that table."""

    def __init__(
        self,
        kernel: tuple[int, int] = (3, 3),
        heads: int = 2,
        size: tuple[int, int] = (3, 4),
        make: Callable[[], nn.Module] = lambda: IntegerFire(1),
        timesteps: int = 0,
        stride: int = 1,
    ) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.heads, self.size, self.timesteps = heads, size, timesteps
        self.convs = nn.ModuleList(nn.Conv2d(1, 8, 3, padding=1) for _ in range(2))
        self.fires = nn.ModuleList(make() for _ in range(3))
        self.pool = nn.MaxPool2d(kernel, stride, (kernel[0] // 2, kernel[1] // 2))
        self.again, self.head = nn.Conv2d(8, 4, 1), nn.Linear(4, 3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        if self.timesteps:
            x = x.unsqueeze(0).repeat(self.timesteps, 1, 1, 1, 1).flatten(0, 1)
        a, b = (self.fired(f, 6 * c(x)) for c, f in zip(self.convs, self.fires, strict=False))
        table = self.pool(self.by_head(a) * self.by_head(b))
        back = table.transpose(-2, -1).reshape(a.shape)
        y = self.fired(self.fires[2], 2 * self.again(back) - 0.4)
        scores = self.head(y.mean((2, 3)))
        return scores.unflatten(0, (self.timesteps, -1)).mean(0) if self.timesteps else scores

    def fired(self, fire: nn.Module, x: Tensor) -> Tensor:
        if not self.timesteps:
            return fire(x)
        return fire(x.unflatten(0, (self.timesteps, -1))).flatten(0, 1)

    def by_head(self, x: Tensor) -> Tensor:
        split = x.reshape(x.shape[0], self.heads, 8 // self.heads, -1)
        return split.transpose(-2, -1)


def pixels(net: Spread, samples: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (samples, 1, *net.size)).astype(np.uint8)


NETWORKS: dict[str, tuple[Spread, int]] = {
    "both": (Spread(), 2),
    "tokens alone": (Spread((3, 1)), 1),
    "channels alone": (Spread((1, 3)), 1),
    "wider": (Spread((5, 3)), 2),
    "further than a row": (Spread((7, 1), size=(4, 2)), 1),
    "further than the map": (Spread((9, 5), size=(1, 3)), 2),
    "one column": (Spread(size=(5, 1)), 2),
    "one head": (Spread(heads=1), 2),
    "over timesteps": (Spread(make=LIF, timesteps=3), 2),
}


_FAST = ("over timesteps",)


@pytest.mark.parametrize(
    "name", [n if n in _FAST else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS]
)
def test_a_maximum_over_the_table_is_spikes_of_neurons(name: str) -> None:
    net, more = NETWORKS[name]
    x = pixels(net)
    model = snncc.compile(net, x, input_shape=(1, *net.size), weight_bits=24, input=PIXELS)
    report = model.report
    assert report.changed == 0
    assert (report.import_law.neurons, report.import_law.changed) == (3 + more, 0)
    assert report.verify.mismatched == 0
    found = [n for n in model.program.nodes if isinstance(n, Neuron)]
    assert len(found) == 3 + more
    with torch.no_grad():
        scores = net(torch.from_numpy(x / np.float32(255))).numpy()
    run = snncc.Session(model, engine="event").run(None, {"x": x})[0]
    np.testing.assert_allclose(run, scores, atol=1e-4)


@pytest.mark.parametrize(
    ("net", "told"),
    [
        (Spread(make=lambda: IntegerFire(2)), "spikes that may come more than once a timestep"),
        (
            Spread(make=lambda: IntegerFire(1, 2.0)),
            "spikes that may come more than once a timestep",
        ),
    ],
)
def test_of_others_it_is_refused(net: Spread, told: str) -> None:
    faults = check(net, input_shape=(1, *net.size), input=PIXELS).faults
    assert any(told in fault.what for fault in faults), faults


@pytest.mark.parametrize("width", [1, 2, 3, 7])
@pytest.mark.parametrize("reach", [0, 1, 2, 9])
def test_each_token_is_reached_once(width: int, reach: int) -> None:
    height = 4
    places = [divmod(token, width) for token in range(height * width)]
    for token, (y, x) in enumerate(places):
        met = [(y + dy, x + dx) for dy, dx in _steps(reach, width) if 0 <= x + dx < width]
        reached = sorted(a * width + b for a, b in met if 0 <= a < height)
        near = [t for t in range(height * width) if abs(t - token) <= reach]
        assert reached == near
