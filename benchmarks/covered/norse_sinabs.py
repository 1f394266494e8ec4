"""Networks of Norse's and sinabs' layers."""

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


class _Cells(nn.Module):
    """Two of Norse's cells in a loop, their states handed on; spikes per timestep."""

    def __init__(self, first: str, last: str | None) -> None:
        import norse.torch as norse

        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 8, 5, stride=2), nn.Linear(8 * 12 * 12, 10)
        self.first = getattr(norse, first)()
        self.last = getattr(norse, last)() if last else None
        with torch.no_grad():  # a step is a millisecond: trained weights are as large
            for layer in (self.conv, self.fc):
                layer.weight *= 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, two, out = None, None, []
        for _ in range(_T):
            z, one = self.first(self.conv(x), one)
            y = self.fc(z.flatten(1))
            if self.last is not None:
                y, two = self.last(y, two)
            out.append(y)
        return torch.stack(out)


class _Whole(nn.Module):
    """Norse's LIF over [T, N, features]."""

    def __init__(self) -> None:
        import norse.torch as norse

        super().__init__()
        self.fc1, self.fc2 = nn.Linear(784, 64), nn.Linear(64, 10)
        self.lif1, self.lif2 = norse.LIF(), norse.LIF()
        with torch.no_grad():
            for layer in (self.fc1, self.fc2):
                layer.weight *= 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1).unsqueeze(0).repeat(_T, 1, 1)
        z, _ = self.lif1(self.fc1(x))
        z, _ = self.lif2(self.fc2(z))
        return z.mean(0)


class _Sinabs(nn.Module):
    """sinabs' layers over [N, T, ...]; the mean over T."""

    def __init__(self, kind: str) -> None:
        import sinabs.layers as sl
        from sinabs.activation import SingleSpike

        super().__init__()
        more: dict[str, Any] = {"tau_mem": 5.0} if kind == "LIF" else {}
        made = partial(getattr(sl, kind), spike_fn=SingleSpike, **more)
        self.conv, self.fc = nn.Conv2d(1, 8, 5, stride=2), nn.Linear(8 * 12 * 12, 10)
        self.one, self.two = made(), made()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u = self.conv(x).unsqueeze(1).repeat(1, _T, 1, 1, 1)
        z = self.one(u).flatten(0, 1).flatten(1)
        return self.two(self.fc(z).unflatten(0, (-1, _T))).mean(1)


class _Squeezed(nn.Module):
    """sinabs' IAFSqueeze between layers over [N * T, ...]."""

    def __init__(self, is_bounded: bool = True) -> None:
        import sinabs.layers as sl
        from sinabs.activation import MaxSpike

        super().__init__()
        more = {"spike_fn": MaxSpike(4)} if is_bounded else {}
        iaf = partial(sl.IAFSqueeze, num_timesteps=_T, **more)
        self.net = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, bias=False), iaf(), sl.SumPool2d(2),
            nn.Conv2d(8, 8, 3, bias=False), iaf(), nn.Flatten(), nn.Linear(8 * 16, 10), iaf(),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.net(x.repeat_interleave(_T, 0))
        return out.unflatten(0, (-1, _T)).mean(1)


class _Converted(nn.Module):
    """An ANN that ``sinabs.from_torch.from_model`` has converted."""

    def __init__(self) -> None:
        from sinabs.activation import MaxSpike
        from sinabs.from_torch import from_model

        super().__init__()
        ann = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.AvgPool2d(2),
            nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 10),
        )  # fmt: skip
        more = {"num_timesteps": _T, "spike_fn": MaxSpike(4)}
        self.net = from_model(ann, input_shape=_MAP, **more).spiking_model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.net(x.repeat_interleave(_T, 0))
        return out.unflatten(0, (-1, _T)).mean(1)


def _reset(network: nn.Module) -> None:
    for module in network.modules():
        forget: Any = getattr(module, "reset_states", None)
        if forget is not None:
            forget()


_MAKERS: dict[str, Callable[[], nn.Module]] = {
    "norse/LIFCell": partial(_Cells, "LIFCell", "LIFCell"),
    "norse/LIFBoxCell": partial(_Cells, "LIFBoxCell", "LIFBoxCell"),
    "norse/LIFCell and LI": partial(_Cells, "LIFCell", "LICell"),
    "norse/LIF": _Whole,
    "sinabs/IAF": partial(_Sinabs, "IAF"),
    "sinabs/LIF": partial(_Sinabs, "LIF"),
    "sinabs/IAFSqueeze": _Squeezed,
    "sinabs/from_model": _Converted,
    "sinabs/IAFSqueeze, any number of spikes": partial(_Squeezed, False),
}


def _built(make: Callable[[], nn.Module]) -> Subject:
    torch.manual_seed(0)
    return of_module(make(), _MAP, _reset)


NETWORKS = {
    name: Network(name.partition("/")[2], (name.partition("/")[0],), partial(_built, make))
    for name, make in _MAKERS.items()
}
