"""PyTorch networks for the importer's tests; goldens show their line numbers, so only append."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from snncc.nn import IntegerFire


class Spelled(nn.Module):
    """Not a leaf: the same neuron written out, with a straight-through gradient."""

    def __init__(self, D: int = 4, norm: float = 1.0) -> None:
        super().__init__()
        self.D, self.norm = D, norm

    def forward(self, x: Tensor) -> Tensor:
        u = x.clamp(0, self.D)
        return (u + (u.round() - u).detach()) / self.norm


class MultiSpike(nn.Module):
    """A neuron of someone else's package, to be registered as a leaf."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        return torch.floor(functional.relu6(x).clamp(max=self.levels) + 0.5) / self.levels


class Quantise(torch.autograd.Function):
    """A quantiser as published code writes it."""

    @staticmethod
    def forward(ctx, x, D):
        ctx.save_for_backward(x)
        return torch.round(torch.clamp(x, 0, D))

    @staticmethod
    def backward(ctx, grad):
        return grad, None


class Published(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Quantise.apply(x, 4)


def small(fire: nn.Module, again: nn.Module | None = None) -> nn.Sequential:
    """conv, bn, neuron, pool, conv, neuron, head."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        fire,
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3),
        again or fire,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


class Transformer(nn.Module):
    """Almost everything that cannot become spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.fire = IntegerFire(4)
        self.act = nn.GELU()
        self.mix = nn.Conv2d(4, 4, 1)
        self.norm = nn.LayerNorm(64)
        self.head = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fire(self.stem(x))
        x = self.act(self.mix(x))
        x = x.mean(1).flatten(1)
        x = self.norm(x)
        x = x.clamp(0, 4)
        return self.head(x).softmax(-1)


class Ordinary(nn.Module):
    """A network that was never made for spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Hardswish()
        )
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        gate = torch.sigmoid(x.mean((2, 3), keepdim=True))
        return self.head((x * gate).amax((2, 3)))


class NearMisses(nn.Module):
    """Every neuron but one lacks something."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c, 4, 3, padding=1) for c in (2, 4, 4, 4))
        self.head = nn.Linear(256, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convs[0](x).clamp(0, 4).round()
        x = self.convs[1](x).clamp(0, 4)
        x = self.convs[2](x).clamp(-4, 3).round()
        x = self.convs[3](x).relu().round()
        return self.head(x.flatten(1))


class LiveWeights(nn.Module):
    """Attention, which is a layer of spikes; and a layer after it that meets no neuron."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 4, 1)
        self.fire = IntegerFire(4)
        self.proj, self.down = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.fire(self.q(x)).flatten(2), self.fire(self.k(x)).flatten(2)
        x = (q @ (k.transpose(1, 2) @ q)).reshape(-1, 4, 8, 8)
        return self.down(self.proj(self.fire(x))).mean((2, 3))


class Branching(nn.Module):
    """Control flow on live values."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        print("the network's own noise")
        if x.sum() > 0:
            x = x * 2
        return self.head(x)
