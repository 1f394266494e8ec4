"""Spike-driven attention as people write it, one after the other; no class of the zoo.

The network takes [N, 2, 8, 8], and ends in three scores. Weights are random, such that most
populations fire.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from snncc.nn import IntegerFire

__all__ = ["SPELLINGS", "network"]


class TokenLinear(nn.Module):
    """(q k^T) v on [B, N, C] with linear layers, heads by reshape and permute, scaled between."""

    def __init__(self, dim: int = 12, heads: int = 3, norm: float = 4.0) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.fire_q, self.fire_k, self.fire_v = (IntegerFire(4, norm) for _ in range(3))
        self.fire_x, self.fire_y = IntegerFire(4, norm), IntegerFire(4, norm)
        self.out = nn.Linear(dim, dim)
        for layer in (self.to_q, self.to_k, self.to_v):
            nn.init.normal_(layer.weight, 0.3, 0.4)

    def split(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        return x.reshape(B, N, self.heads, C // self.heads).permute(0, 2, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        s = self.fire_x(x).flatten(2).transpose(1, 2)
        q = self.split(self.fire_q(self.to_q(s)))
        k = self.split(self.fire_k(self.to_k(s)))
        v = self.split(self.fire_v(self.to_v(s)))
        attention = (q @ k.transpose(-2, -1)) * self.scale
        y = (attention @ v).transpose(1, 2).reshape(B, H * W, C)
        y = self.out(self.fire_y(y))
        return x + y.transpose(1, 2).reshape(B, C, H, W)


class ChannelConv1d(nn.Module):
    """q (k^T v) on [B, C, N] with Conv1d and BatchNorm1d; v is twice as wide; scaled after."""

    def __init__(self, dim: int = 12, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.scale = heads, 0.5
        wide = 2 * dim
        self.x_fire = IntegerFire(4, 4.0, "half-up")
        self.q = self.branch(dim, dim)
        self.k = self.branch(dim, dim)
        self.v = self.branch(dim, wide)
        self.y_fire = IntegerFire(4, 4.0, "half-up")
        self.proj = nn.Sequential(nn.Conv1d(wide, dim, 1, bias=False), nn.BatchNorm1d(dim))

    def branch(self, dim: int, out: int) -> nn.Sequential:
        conv = nn.Conv1d(dim, out, kernel_size=1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm1d(out), IntegerFire(4, 4.0, "half-up"))

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        tokens = self.x_fire(x.flatten(2))
        q, k, v = (
            f(tokens).transpose(1, 2).reshape(B, H * W, self.heads, -1).transpose(1, 2)
            for f in (self.q, self.k, self.v)
        )
        y = q @ (k.transpose(-2, -1) @ v) * self.scale
        y = self.y_fire(y.transpose(2, 3).reshape(B, -1, H * W))
        return x + self.proj(y).reshape(B, C, H, W)


class JointQkv(nn.Module):
    """One linear layer for q, k and v, unbound; q is scaled ahead, as in timm."""

    def __init__(self, dim: int = 12, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.scale = heads, 1 / math.sqrt(dim / heads)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.fire = IntegerFire(3)
        self.fire_in, self.fire_out = IntegerFire(3, 3.0), IntegerFire(6)
        self.proj = nn.Linear(dim, dim)
        nn.init.normal_(self.qkv.weight, 0.1, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        tokens = self.fire_in(x).flatten(2).permute(0, 2, 1)
        qkv = self.fire(self.qkv(tokens)).reshape(B, H * W, 3, self.heads, C // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q = q * self.scale
        y = (q @ k.transpose(-2, -1)) @ v / 16
        y = self.fire_out(y.transpose(1, 2).flatten(2))
        return x + self.proj(y).permute(0, 2, 1).reshape(B, C, H, W)


class EinsumTokens(nn.Module):
    """einsum over [b, h, n, d]; the neuron is written out."""

    def __init__(self, dim: int = 12, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Conv2d(dim, dim, 1, bias=False) for _ in range(3))
        self.back = nn.Conv2d(dim, dim, 1)
        for layer in (self.q, self.k, self.v):
            nn.init.normal_(layer.weight, 0.2, 0.3)

    def spikes(self, u: Tensor) -> Tensor:
        return torch.round(torch.clamp(u, 0, 4))

    def heads_of(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.heads, -1)).flatten(3).transpose(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        s = self.spikes(x)
        q, k, v = (self.heads_of(self.spikes(f(s))) for f in (self.q, self.k, self.v))
        weights = torch.einsum("bhid,bhjd->bhij", q, k)
        y = torch.einsum("bhij,bhjd->bhid", weights, v) * 2**-6
        y = y.transpose(2, 3).reshape(x.shape)
        return x + self.back(self.spikes(y))


class EinsumMaps(nn.Module):
    """einsum on channels first, k v^T first, both scaled."""

    def __init__(self, dim: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.heads = heads
        self.layers = nn.ModuleDict({n: nn.Conv2d(dim, dim, 1) for n in ("q", "k", "v", "out")})
        self.norms = nn.ModuleDict({n: nn.BatchNorm2d(dim) for n in ("q", "k", "v", "out")})
        self.fires = nn.ModuleDict({n: IntegerFire(4) for n in ("x", "q", "k", "v", "y")})

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        s = self.fires["x"](x)
        maps = [self.fires[n](self.norms[n](self.layers[n](s))) for n in ("q", "k", "v")]
        q, k, v = (m.view(b, self.heads, c // self.heads, h * w) for m in maps)
        context = torch.einsum("bhdn,bhen->bhde", k * 0.25, v * 0.25)
        y = torch.einsum("bhde,bhdn->bhen", context, q).contiguous().view(b, c, h, w)
        return x + self.norms["out"](self.layers["out"](self.fires["y"](y / 8)))


class BatchedHeads(nn.Module):
    """Heads folded into the batch, torch.bmm and baddbmm-like division, as in sequence models."""

    def __init__(self, dim: int = 12, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.each = heads, dim // heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.act = IntegerFire(4)
        self.dense = nn.Linear(dim, dim)
        for layer in (self.query, self.key, self.value):
            nn.init.normal_(layer.weight, 0.05, 0.1)

    def shape(self, x: Tensor) -> Tensor:
        B, N, _ = x.shape
        x = x.view(B, N, self.heads, self.each).transpose(1, 2)
        return x.reshape(B * self.heads, N, self.each)

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        tokens = self.act(x).view(B, C, -1).transpose(1, 2)
        q = self.shape(self.act(self.query(tokens)))
        k = self.shape(self.act(self.key(tokens)))
        v = self.shape(self.act(self.value(tokens)))
        y = torch.bmm(torch.bmm(q, k.transpose(1, 2)), v)
        y = y.view(B, self.heads, H * W, self.each).transpose(1, 2).reshape(B, H * W, C)
        y = self.dense(self.act(y / 64))
        return x + y.transpose(1, 2).view(B, C, H, W)


class ChunkedMaps(nn.Module):
    """One convolution for q, k and v, chunked after the neuron; one head; q k^T transposed."""

    def __init__(self, dim: int = 12) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.norm = nn.BatchNorm2d(3 * dim)
        self.spike, self.spike_in, self.spike_out = IntegerFire(2), IntegerFire(2), IntegerFire(8)
        self.proj = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.spike(self.norm(self.qkv(self.spike_in(x)))).chunk(3, dim=1)
        q, k, v = q.flatten(2), k.flatten(2), v.flatten(2)
        scores = k.transpose(1, 2) @ q  # [B, M, N]
        y = (v @ scores).reshape(x.shape) * 0.02
        return x + self.proj(self.spike_out(y))


class WithTime(nn.Module):
    """A leading axis of one timestep, [T, B, C, N], and re-parameterised layers."""

    def __init__(self, dim: int = 12, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (self.layer(dim) for _ in range(3))
        self.proj = self.layer(dim)
        self.lif = IntegerFire(4, 4.0, "half-up")

    def layer(self, dim: int) -> nn.Sequential:
        wide = dim + dim // 2
        return nn.Sequential(
            nn.Conv1d(dim, wide, 1, bias=False), nn.BatchNorm1d(wide),
            nn.Conv1d(wide, dim, 1, bias=False), nn.BatchNorm1d(dim), nn.BatchNorm1d(dim),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        x = x.flatten(2).unsqueeze(0).repeat(1, 1, 1, 1)
        T, N = 1, H * W
        s = self.lif(x).flatten(0, 1)
        heads = []
        for f in (self.q, self.k, self.v):
            u = self.lif(f(s).reshape(T, B, C, N))
            u = u.transpose(-1, -2).reshape(T, B, N, self.heads, C // self.heads)
            heads.append(u.permute(0, 1, 3, 2, 4).contiguous())
        q, k, v = heads
        y = (q @ (k.transpose(-2, -1) @ v)) * 0.125
        y = y.transpose(3, 4).reshape(T, B, C, N).contiguous()
        y = self.proj(self.lif(y).flatten(0, 1)).reshape(T, B, C, N)
        return (x + y).reshape(T, B, C, H, W).flatten(0, 1)


class Mlp(nn.Module):
    """Conv1d over tokens with bias and BatchNorm1d, as after attention."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv1d(dim, 2 * dim, 1), nn.Conv1d(2 * dim, dim, 1)
        self.bn1, self.bn2 = nn.BatchNorm1d(2 * dim), nn.BatchNorm1d(dim)
        self.fire1, self.fire2 = IntegerFire(4, 4.0), IntegerFire(4, 4.0)

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        u = self.bn1(self.fc1(self.fire1(x.flatten(2))))
        return x + self.bn2(self.fc2(self.fire2(u))).reshape(B, C, H, W)


SPELLINGS: dict[str, Callable[[], nn.Module]] = {
    "token_linear": TokenLinear,
    "channel_conv1d": ChannelConv1d,
    "joint_qkv": JointQkv,
    "einsum_tokens": EinsumTokens,
    "einsum_maps": EinsumMaps,
    "batched_heads": BatchedHeads,
    "chunked_maps": ChunkedMaps,
    "with_time": WithTime,
}


class Network(nn.Module):
    """Stem, down-sampling, attention, an MLP over tokens, and a head on the mean potential."""

    def __init__(self, spellings: Collection[str], dim: int = 12) -> None:
        super().__init__()
        self.stem, self.stem_bn = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.fire = IntegerFire(4, 4.0)
        self.down, self.down_bn = nn.Conv2d(6, dim, 3, 2, 1), nn.BatchNorm2d(dim)
        self.blocks = nn.ModuleDict({name: SPELLINGS[name]() for name in spellings})
        self.mlp = Mlp(dim)
        self.last, self.head = IntegerFire(4), nn.Linear(dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down_bn(self.down(self.fire(self.stem_bn(self.stem(x)))))
        for block in self.blocks.values():
            x = block(x)
        return self.head(self.last(self.mlp(x).mean((2, 3))))


_LAST = ("out.weight", "proj.weight", "proj.1.weight", "proj.4.weight", "dense.weight",
         "back.weight", "norms.out", "bn2.weight")  # fmt: skip


def network(*spellings: str, seed: int = 0) -> nn.Module:
    """Those spellings (default: all); batch norms have seen noise, so that neurons fire."""
    torch.manual_seed(seed)
    made = Network(spellings or tuple(SPELLINGS))
    for module in made.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 1.0, 2.5)
            nn.init.normal_(module.bias, 1.2, 0.8)
    for name, weight in made.named_parameters():
        if any(part in name for part in _LAST):  # what blocks add to the stream stays small
            nn.init.normal_(weight, 0.0, 0.1)
    with torch.no_grad():
        made.train()(torch.rand(64, 2, 8, 8) * 2 - 1)
    return made.eval()
