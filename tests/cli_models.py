"""Networks for the tests of the command line."""

import torch
from torch import nn

from snncc.nn import LIF, IntegerFire, SpikeSparseConv2d


class Tiny(nn.Module):
    """Two layers; everything in it can become spikes."""

    default_cfg = {"input_size": (1, 6, 6), "mean": (0.5,), "std": (0.25,)}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fire = IntegerFire(3)
        self.head = nn.Linear(64, 3)

    def forward(self, x):
        return self.head(self.fire(8 * self.conv(x)).flatten(1))


class Clamp(nn.Module):
    """Almost a neuron."""

    def forward(self, x):
        return torch.clamp(x, 0, 4)


class Unsupported(nn.Module):
    """A good beginning, then all kinds of things that cannot become spikes."""

    default_cfg = {"input_size": (3, 8, 8)}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), IntegerFire(4))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.GELU()) for _ in range(3)
        )
        self.act = Clamp()
        self.norm = nn.GroupNorm(2, 8)
        self.head = nn.Linear(8 * 8 * 8, 5)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(self.act(x)).flatten(1)).softmax(-1)


class Sparse(nn.Module):
    """A network that can be trained on patches."""

    default_cfg = {"input_size": (1, 6, 6), "mean": (0.5,), "std": (0.25,)}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.conv = SpikeSparseConv2d(1, 4, 3, padding=1)
        self.fire = IntegerFire(3)
        self.head = nn.Linear(144, 3)

    def forward(self, x):
        return self.head(self.fire(self.conv(x)).flatten(1))


class Film(nn.Module):
    """Two layers of neurons with memory on a film of three pictures, time or samples first."""

    default_cfg = {"input_size": (1, 6, 6), "mean": (0.5,), "std": (0.25,)}  # noqa: RUF012

    def __init__(self, batch_first=False):
        super().__init__()
        self.conv, self.lif1 = nn.Conv2d(1, 4, 3), LIF(threshold=0.5)
        self.fc, self.lif2 = nn.Linear(64, 3), LIF(threshold=0.25)
        self.batch_first = batch_first

    def forward(self, x):
        if self.batch_first:
            x = x.transpose(0, 1)
        y = self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        y = self.lif1(4 * y).flatten(2)
        return self.lif2(4 * self.fc(y)).mean(0)


class Wide(nn.Module):
    """So many weights on pixels, nearly equal, that the potential leaves 24 bits."""

    default_cfg = {"input_size": (1, 20, 20), "mean": (0.0,), "std": (1.0,)}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.fc, self.fire = nn.Linear(400, 3), IntegerFire(3)
        self.fc.weight.data = torch.linspace(0.0999, 0.1, 1200).reshape(3, 400)

    def forward(self, x):
        return self.fire(self.fc(x.flatten(1)))


def wide():
    return Wide()


class Attending(nn.Module):
    """Spike-driven attention of two heads over 3 by 3 tokens; with a softmax it is none."""

    default_cfg = {"input_size": (1, 6, 6), "mean": (0.5,), "std": (0.25,)}  # noqa: RUF012

    def __init__(self, softmax=False):
        super().__init__()
        self.softmax = softmax
        self.embed, self.norm = nn.Conv2d(1, 4, 2, 2), nn.BatchNorm2d(4)
        self.fire, self.fire_y = IntegerFire(4, 4.0), IntegerFire(4, 4.0)
        self.q, self.k, self.v = (
            nn.Sequential(nn.Linear(4, 4, bias=False), IntegerFire(4, 4.0)) for _ in range(3)
        )
        self.proj, self.last, self.head = nn.Linear(4, 4), IntegerFire(4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.norm(self.embed(x)).flatten(2).transpose(1, 2)
        tokens = self.fire(x)
        q, k, v = (
            layer(tokens).unflatten(2, (2, 2)).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        scores = q @ k.transpose(2, 3)
        y = (scores.softmax(-1) if self.softmax else scores) @ v
        x = x + self.proj(self.fire_y(y.transpose(1, 2).flatten(2)))
        return self.head(self.last(x.mean(1)))


def attending(softmax=False):
    """Weights that make it fire."""
    net = Attending(softmax)
    for layer in (net.q, net.k, net.v):
        nn.init.normal_(layer[0].weight, 0.8, 0.5)
    nn.init.constant_(net.norm.bias, 2.0)
    return net


def film(**more):
    return Film(**more)


def tiny():
    return Tiny()


def sparse():
    """Weights that make it fire."""
    net = Sparse()
    nn.init.normal_(net.conv.weight, 0.2, 0.5)
    return net


def noisy():
    """A constructor that prints, as users' code does."""
    print("built")
    return Tiny()


def silent():
    """Its population never fires."""
    net = Tiny()
    nn.init.zeros_(net.conv.weight)
    nn.init.constant_(net.conv.bias, -1.0)
    return net


def unsupported():
    return Unsupported()


class Idle(nn.Module):
    """A branch that never fires, followed by norms whose inputs never varied."""

    default_cfg = {"input_size": (1, 6, 6), "mean": (0.5,), "std": (0.25,)}  # noqa: RUF012

    def __init__(self, norms):
        super().__init__()
        self.stem, self.fire = nn.Conv2d(1, 4, 3, padding=1), IntegerFire(3)
        self.gate, self.idle = nn.Conv2d(4, 4, 1), IntegerFire(3)
        layers = [m for _ in range(norms) for m in (nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))]
        self.branch = nn.Sequential(*layers)
        self.read, self.head = IntegerFire(3), nn.Linear(144, 3)
        nn.init.constant_(self.gate.bias, -1000.0)
        for layer in layers[1::2]:
            layer.running_var.zero_()

    def forward(self, x):
        x = 4 * self.stem(x)
        x = x + self.branch(self.idle(self.gate(self.fire(x))))
        return self.head(self.read(x).flatten(1))


def idle(norms=5):
    """Layers before the norms are without bias, or these would be as large as the weights."""
    net = Idle(norms)
    for layer in net.branch[::2]:
        nn.init.zeros_(layer.bias)
    return net


class Several(Tiny):
    """Scores, spikes, and a softmax, which no engine computes."""

    def forward(self, x):
        spikes = self.fire(8 * self.conv(x))
        scores = self.head(spikes.flatten(1))
        return {"features": spikes, "scores": scores, "shares": scores.softmax(-1)}


def several():
    return Several()
