"""Three small spiking transformers for Fashion-MNIST, T = 4: 28x28 pixels become 7x7 tokens.

They differ in what a residual branch adds, and in what attention multiplies:

- ``spikformer``: branches add spikes, so that layers read sums of spikes; q (kᵀ v).
- ``cml_spikingformer``: branches add membrane potentials, neurons come first, and a max-pool takes
  the largest potential before the neuron sees it; q (kᵀ v); the classifier reads potentials.
- ``sdt_v1``: branches add membrane potentials; attention gates q with a neuron that sums k ∧ v.

They take normalised images as the networks of ``models`` do. Train one on one thread, four epochs
of one timestep and three of four:

    python spikformers.py --arch spikformer --out spikformer_t4.pt

Source: Zhou et al., arXiv:2209.15425 (Spikformer); arXiv:2308.06787 (CML); Yao et al.,
arXiv:2307.01694 (Spike-driven Transformer).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import click
import models
import torch
from data import DEBIAN_FOLDER
from torch import Tensor, nn
from train import evaluate, in_a_folder, save, tensors, train_epoch

from snncc.nn import LIF

__all__ = [
    "SDTV1",
    "CMLSpikingformer",
    "Folded",
    "OverTime",
    "Spikformer",
    "cml_spikingformer",
    "sdt_v1",
    "spikformer",
    "trainer",
]

#: Of the neurons after a product of spikes: their drive is no batch norm's.
_ATTENTION_THRESHOLD = 0.5

#: Batch norms start so that about a sixth of a neuron's drives fire; with 1 too few would.
_DRIVE = 2.0

#: Those at the end of a branch that adds to membrane potentials start smaller.
_BRANCH = 0.5


class Folded(nn.Sequential):
    """Layers without a memory, on ``[T, N, ...]``: timesteps are folded into the batch."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``[T, N, ...]``."""
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _conv(
    inputs: int, outputs: int, *pool: nn.Module, stride: int = 1, start: float = _DRIVE
) -> list[nn.Module]:
    """Returns a 3x3 convolution with its batch norm, then ``pool``."""
    norm = nn.BatchNorm2d(outputs)
    nn.init.constant_(norm.weight, start)
    return [nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), norm, *pool]


def _tokenwise(inputs: int, outputs: int, bias: bool, start: float = _DRIVE) -> Folded:
    """Returns a linear layer over the channels of tokens ``[T, N, C, P]`` with its batch norm."""
    norm = nn.BatchNorm1d(outputs)
    nn.init.constant_(norm.weight, start)
    return Folded(nn.Conv1d(inputs, outputs, 1, bias=bias), norm)


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, padding=1)


class SpikingSelfAttention(nn.Module):
    """Projects q (kᵀ v) of spikes, head by head, after a neuron. Tokens ``[T, N, C, P]`` alike.

    Args:
        dim: C.
        heads: Divide C.
        start: What the last batch norm starts with.
    """

    scale: ClassVar = 0.125

    def __init__(self, dim: int, heads: int, start: float) -> None:
        super().__init__()
        self.heads = heads
        for name in "qkv":
            self.add_module(name, _tokenwise(dim, dim, bias=False))
            self.add_module(f"{name}_lif", LIF(tau=2.0))
        self.attn_lif = LIF(tau=2.0, threshold=_ATTENTION_THRESHOLD)
        self.proj = _tokenwise(dim, dim, bias=True, start=start)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what the projection gives, potentials."""
        q, k, v = (
            lif(layer(x)).unflatten(2, (self.heads, -1))
            for layer, lif in ((self.q, self.q_lif), (self.k, self.k_lif), (self.v, self.v_lif))
        )
        y = (v @ k.transpose(-2, -1)) @ q  # [T, N, heads, C / heads, P]
        return self.proj(self.attn_lif(y.flatten(2, 3) * self.scale))


class SpikeDrivenSelfAttention(nn.Module):
    """Projects q where a neuron lets it pass: it sums k ∧ v over the tokens, channel by channel.

    Tokens ``[T, N, C, P]`` alike.
    """

    def __init__(self, dim: int, start: float) -> None:
        super().__init__()
        for name in "qkv":
            self.add_module(name, _tokenwise(dim, dim, bias=False))
            self.add_module(f"{name}_lif", LIF(tau=2.0))
        self.kv_lif = LIF(tau=2.0, threshold=_ATTENTION_THRESHOLD)
        self.proj = _tokenwise(dim, dim, bias=True, start=start)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what the projection gives, potentials."""
        q, k, v = self.q_lif(self.q(x)), self.k_lif(self.k(x)), self.v_lif(self.v(x))
        passes = self.kv_lif((k * v).sum(-1, keepdim=True))
        return self.proj(q * passes)


class SpikeBlock(nn.Module):
    """Spikformer's block: both branches end in neurons and add spikes. ``[T, N, C, P]`` alike."""

    def __init__(self, dim: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.attn, self.attn_out = SpikingSelfAttention(dim, heads, _DRIVE), LIF(tau=2.0)
        self.fc1, self.lif1 = _tokenwise(dim, mlp * dim, bias=True), LIF(tau=2.0)
        self.fc2, self.lif2 = _tokenwise(mlp * dim, dim, bias=True), LIF(tau=2.0)

    def forward(self, x: Tensor) -> Tensor:
        """Returns sums of spikes, two more terms than ``x`` has."""
        x = x + self.attn_out(self.attn(x))
        return x + self.lif2(self.fc2(self.lif1(self.fc1(x))))


class MembraneBlock(nn.Module):
    """Both branches begin with a neuron and add membrane potentials. ``[T, N, C, P]`` alike.

    Args:
        attention: What stands after the first neuron.
        dim: C.
        mlp: Hidden channels, in multiples of C.
    """

    def __init__(self, attention: nn.Module, dim: int, mlp: int) -> None:
        super().__init__()
        self.lif, self.attn = LIF(tau=2.0), attention
        self.lif1, self.fc1 = LIF(tau=2.0), _tokenwise(dim, mlp * dim, bias=True)
        self.lif2, self.fc2 = LIF(tau=2.0), _tokenwise(mlp * dim, dim, bias=True, start=_BRANCH)

    def forward(self, x: Tensor) -> Tensor:
        """Returns potentials."""
        x = x + self.attn(self.lif(x))
        return x + self.fc2(self.lif2(self.fc1(self.lif1(x))))


class OverTime(nn.Module):
    """A network that is shown the same image in each of T timesteps.

    Until the first neuron all timesteps are alike, so the layers before it see the image once.
    """

    #: What the compiler takes as default for --input-shape, --mean and --std.
    default_cfg: ClassVar = {
        "input_size": (1, 28, 28), "mean": (models.MEAN,), "std": (models.STD,)
    }  # fmt: skip

    def __init__(self, T: int, stem: list[nn.Module]) -> None:
        super().__init__()
        self.T = T
        self.stem = nn.Sequential(*stem)

    def shown(self, x: Tensor) -> Tensor:
        """Returns the stem's potentials of images ``[N, 1, 28, 28]`` as ``[T, N, C, H, W]``."""
        return self.stem(x).unsqueeze(0).repeat(self.T, 1, 1, 1, 1)


class Spikformer(OverTime):
    """Neurons after layers, max-pools of spikes, sums of spikes between blocks.

    Args:
        T: Timesteps.
        dim: Channels of a token.
        depth: Blocks.
        heads: Of attention.
    """

    def __init__(self, T: int, dim: int, depth: int, heads: int) -> None:
        super().__init__(T, _conv(1, dim // 8))
        self.lif1, self.pool1 = LIF(tau=2.0), Folded(_pool())
        self.conv2 = Folded(*_conv(dim // 8, dim // 2))
        self.lif2, self.pool2 = LIF(tau=2.0), Folded(_pool())
        self.conv3, self.lif3 = Folded(*_conv(dim // 2, dim)), LIF(tau=2.0)
        self.rpe, self.rpe_lif = Folded(*_conv(dim, dim)), LIF(tau=2.0)
        self.blocks = nn.Sequential(*(SpikeBlock(dim, heads, mlp=2) for _ in range(depth)))
        self.head = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Returns class scores ``[N, 10]`` of normalised images ``[N, 1, 28, 28]``."""
        x = self.pool1(self.lif1(self.shown(x)))
        x = self.lif3(self.conv3(self.pool2(self.lif2(self.conv2(x)))))
        x = x + self.rpe_lif(self.rpe(x))
        return self.head(self.blocks(x.flatten(3)).mean(3).mean(0))


class CMLSpikingformer(OverTime):
    """Neurons before layers; a max-pool stands between a batch norm and its neuron.

    The classifier reads the mean membrane potential, not spikes. Arguments as for ``Spikformer``.
    """

    def __init__(self, T: int, dim: int, depth: int, heads: int) -> None:
        super().__init__(T, _conv(1, dim // 4, _pool()))
        self.lif1, self.conv2 = LIF(tau=2.0), Folded(*_conv(dim // 4, dim // 2, _pool()))
        self.lif2, self.conv3 = LIF(tau=2.0), Folded(*_conv(dim // 2, dim))
        attentions = (SpikingSelfAttention(dim, heads, _BRANCH) for _ in range(depth))
        self.blocks = nn.Sequential(*(MembraneBlock(each, dim, mlp=2) for each in attentions))
        self.head = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Returns class scores ``[N, 10]`` of normalised images ``[N, 1, 28, 28]``."""
        x = self.conv3(self.lif2(self.conv2(self.lif1(self.shown(x)))))
        return self.head(self.blocks(x.flatten(3)).mean(3).mean(0))


class SDTV1(OverTime):
    """Membrane shortcuts from the last max-pool on, attention by gates, a neuron before the head.

    Args:
        T: Timesteps.
        dim: Channels of a token.
        depth: Blocks.
    """

    def __init__(self, T: int, dim: int, depth: int) -> None:
        super().__init__(T, _conv(1, dim // 4, stride=2))
        self.lif1, self.conv2 = LIF(tau=2.0), Folded(*_conv(dim // 4, dim, _pool()))
        self.lif2, self.rpe = LIF(tau=2.0), Folded(*_conv(dim, dim, start=_BRANCH))
        attentions = (SpikeDrivenSelfAttention(dim, _BRANCH) for _ in range(depth))
        self.blocks = nn.Sequential(*(MembraneBlock(each, dim, mlp=2) for each in attentions))
        self.head_lif = LIF(tau=2.0)
        self.head = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Returns class scores ``[N, 10]`` of normalised images ``[N, 1, 28, 28]``."""
        x = self.conv2(self.lif1(self.shown(x)))  # the pool's potentials, which the shortcut keeps
        x = x + self.rpe(self.lif2(x))
        return self.head(self.head_lif(self.blocks(x.flatten(3)).mean(3))).mean(0)


def spikformer(T: int = 4, dim: int = 64, depth: int = 1, heads: int = 4) -> Spikformer:
    """Returns an untrained ``Spikformer``."""
    return Spikformer(T, dim, depth, heads)


def cml_spikingformer(
    T: int = 4, dim: int = 64, depth: int = 1, heads: int = 4
) -> CMLSpikingformer:
    """Returns an untrained ``CMLSpikingformer``."""
    return CMLSpikingformer(T, dim, depth, heads)


def sdt_v1(T: int = 4, dim: int = 64, depth: int = 1) -> SDTV1:
    """Returns an untrained ``SDTV1``."""
    return SDTV1(T, dim, depth)


_NETWORKS = {"spikformer": spikformer, "cml_spikingformer": cml_spikingformer, "sdt_v1": sdt_v1}


def trainer(networks: Mapping[str, Callable[[int], nn.Module]]) -> click.Command:
    """Returns the command that trains one of these networks over time, by T."""
    arch = click.Choice(list(networks))

    @click.command(context_settings={"show_default": True})
    @click.option("--arch", default=arch.choices[0], type=arch)
    @click.option("--t", "T", default=4, help="Timesteps.")
    @click.option(
        "--data", "folder", default=DEBIAN_FOLDER, type=Path, help="Has the IDX .gz files."
    )
    @click.option("--epochs", default=7, type=click.IntRange(min=1))
    @click.option(
        "--short-epochs",
        default=4,
        type=click.IntRange(min=0),
        help="First epochs with one timestep only, which take a quarter of the time.",
    )
    @click.option("--lr", default=4e-3, help="Peak of the one-cycle schedule.")
    @click.option("--batch", default=64, type=click.IntRange(min=1))
    @click.option("--seed", default=0)
    @click.option("--threads", default=1, type=click.IntRange(min=1))
    @click.option(
        "--out",
        required=True,
        type=Path,
        callback=in_a_folder,
        help="State dict to write, after every epoch.",
    )
    def main(arch: str, T: int, seed: int, threads: int, **how: Any) -> None:
        """Trains the network; prints loss and test accuracy after each epoch."""
        if how["short_epochs"] >= how["epochs"]:
            epochs = f"{how['short_epochs']} of {how['epochs']} epochs"
            message = f"{epochs}: none would show all {T} timesteps"
            raise click.BadParameter(message, param_hint="--short-epochs")
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        net = networks[arch](T)
        weights = sum(weight.numel() for weight in net.parameters())
        click.echo(f"{arch}: {weights:,} parameters, T={T}")
        _train(net, **how)

    return main


def _train(
    net: nn.Module, folder: Path, epochs: int, short_epochs: int, lr: float, batch: int, out: Path
) -> None:
    """Trains a network, whose ``T`` is how often it is shown an image; saves every epoch."""
    train, test = tensors(folder, "train"), tensors(folder, "t10k")
    optimiser = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=lr, epochs=epochs, steps_per_epoch=len(train[0]) // batch
    )
    T = net.T
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        net.T = 1 if epoch <= short_epochs else T
        loss = train_epoch(net, *train, schedule, batch)
        accuracy, _ = evaluate(net, *test)
        save(net, out)
        seconds = time.perf_counter() - start
        found = f"loss {loss:.4f}  test {accuracy:.2%}  {seconds:.0f} s"
        click.echo(f"epoch {epoch:2}/{epochs}  {found}")
    click.echo(f"wrote {out}  {out.stat().st_size:,} bytes")


main = trainer(_NETWORKS)

if __name__ == "__main__":
    main()
