"""snnTorch's tutorials 5 and 6, its population code, and its other neurons."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from covered.subject import Network, Subject, of_module

__all__ = ["NETWORKS"]

_T = 4
_MAP = (1, 28, 28)


class _Fc(nn.Module):
    """Tutorial 5: two layers, a loop, spikes and membranes stacked."""

    def __init__(self, result: str = "tuple", **more: Any) -> None:
        import snntorch as snn

        super().__init__()
        self.result = result
        self.fc1, self.fc2 = nn.Linear(784, 64), nn.Linear(64, 10)
        self.lif1, self.lif2 = snn.Leaky(beta=0.95, **more), snn.Leaky(beta=0.95, **more)

    def forward(self, x: torch.Tensor) -> Any:
        x = x.flatten(1)
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes, membranes = [], []
        for _ in range(_T):
            spk1, mem1 = self.lif1(self.fc1(x), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
            membranes.append(mem2)
        if self.result == "tuple":
            return torch.stack(spikes, dim=0), torch.stack(membranes, dim=0)
        out = torch.stack(spikes, dim=0)
        return out.sum(0) if self.result == "sum" else out


class _Conv(nn.Module):
    """Tutorial 6 as a class: conv, max-pool, Leaky, twice, and a layer."""

    def __init__(self, pool: type[nn.Module] = nn.MaxPool2d, **more: Any) -> None:
        import snntorch as snn

        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 12, 5), nn.Conv2d(12, 32, 5)
        self.pool = pool(2)
        self.fc = nn.Linear(32 * 4 * 4, 10)
        self.lif1, self.lif2, self.lif3 = (snn.Leaky(beta=0.5, **more) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mem1, mem2, mem3 = (lif.init_leaky() for lif in (self.lif1, self.lif2, self.lif3))
        spikes = []
        for _ in range(_T):
            spk1, mem1 = self.lif1(self.pool(self.conv1(x)), mem1)
            spk2, mem2 = self.lif2(self.pool(self.conv2(spk1)), mem2)
            spk3, mem3 = self.lif3(self.fc(spk2.flatten(1)), mem3)
            spikes.append(spk3)
        return torch.stack(spikes)


class _Sequential(nn.Module):
    """Tutorial 6 as a Sequential of neurons that keep their membranes."""

    def __init__(self, **more: Any) -> None:
        import snntorch as snn

        super().__init__()
        leaky = partial(snn.Leaky, beta=0.5, init_hidden=True, **more)
        self.net = nn.Sequential(
            nn.Conv2d(1, 12, 5), nn.MaxPool2d(2), leaky(),
            nn.Conv2d(12, 32, 5), nn.MaxPool2d(2), leaky(),
            nn.Flatten(), nn.Linear(32 * 4 * 4, 10), leaky(),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from snntorch import utils

        utils.reset(self.net)
        return torch.stack([self.net(x) for _ in range(_T)])


class _Population(nn.Module):
    """Ten classes of ten neurons each, counted by reshape or by slices."""

    def __init__(self, slices: bool) -> None:
        import snntorch as snn

        super().__init__()
        self.slices = slices
        self.fc1, self.fc2 = nn.Linear(784, 64), nn.Linear(64, 100)
        self.lif1, self.lif2 = snn.Leaky(beta=0.9), snn.Leaky(beta=0.9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes = []
        for _ in range(_T):
            spk1, mem1 = self.lif1(self.fc1(x), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
        out = torch.stack(spikes).sum(0)
        if self.slices:
            return torch.stack([out[:, i * 10 : (i + 1) * 10].sum(1) for i in range(10)], dim=1)
        return out.reshape(-1, 10, 10).sum(2)


class _Other(nn.Module):
    """Two layers of any of its neurons, with as many states as it has."""

    def __init__(self, name: str, **more: Any) -> None:
        import snntorch as snn

        super().__init__()
        self.fc1, self.fc2 = nn.Linear(784, 64), nn.Linear(64, 10)
        made = getattr(snn, name)
        wide = {"linear_features": 64} if name == "RLeaky" else {}
        last = {"linear_features": 10} if name == "RLeaky" else {}
        self.lif1, self.lif2 = made(**more, **wide), made(**more, **last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        one, two = ([*_states(lif)] for lif in (self.lif1, self.lif2))
        spikes = []
        for _ in range(_T):
            spk1, *one = self.lif1(self.fc1(x), *one)
            spk2, *two = self.lif2(self.fc2(spk1), *two)
            spikes.append(spk2)
        return torch.stack(spikes)


def _states(neuron: Any) -> tuple[torch.Tensor, ...]:
    found = neuron.reset_mem()
    return found if isinstance(found, tuple) else (found,)


_MAKERS: dict[str, Callable[[], nn.Module]] = {
    "tutorial 5, spikes and membranes": partial(_Fc, "tuple"),
    "tutorial 5, spikes": partial(_Fc, "spikes"),
    "tutorial 5, sum of spikes": partial(_Fc, "sum"),
    "tutorial 5, reset none": partial(_Fc, "spikes", reset_mechanism="none"),
    "tutorial 6, Sequential": _Sequential,
    "tutorial 6, class": _Conv,
    "tutorial 6, reset zero": partial(_Conv, reset_mechanism="zero"),
    "tutorial 6, learn_beta": partial(_Conv, learn_beta=True, learn_threshold=True),
    "tutorial 6, reset_delay=False": partial(_Conv, reset_delay=False),
    "population code, reshape": partial(_Population, False),
    "population code, slices": partial(_Population, True),
    "RLeaky": partial(_Other, "RLeaky", beta=0.9),
    "Synaptic": partial(_Other, "Synaptic", alpha=0.9, beta=0.8),
    "Lapicque": partial(_Other, "Lapicque", beta=0.9),
    "Alpha": partial(_Other, "Alpha", alpha=0.9, beta=0.8),
}


def _built(make: Callable[[], nn.Module]) -> Subject:
    torch.manual_seed(0)
    return of_module(make(), _MAP)


NETWORKS = {
    f"snntorch/{name}": Network(name, ("snntorch",), partial(_built, make))
    for name, make in _MAKERS.items()
}
