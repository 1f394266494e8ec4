"""Fine-tunes a trained network of this folder on the compiler's integer grid, on the CPU.

What it saves compiles with the same --weight-bits without a single changed activation.
"""

from __future__ import annotations

import importlib
import os
import time
from pathlib import Path

import click
import numpy as np
import torch
from data import DEBIAN_FOLDER, read_split
from torch import Tensor, nn
from train import in_a_folder

import snncc
from snncc.errors import SnnccError
from snncc.frontends.checkpoint import load_weights, read_weights

__all__ = ["accuracy", "tune_epoch"]

#: Learning rate of biases, which are in spikes, over that of weights, which are in steps.
_BIAS_RATE = 0.01


@click.command(context_settings={"show_default": True})
@click.option("--arch", default="models:cnn", help="Module of this folder, and constructor in it.")
@click.option("--from", "start_from", required=True, type=Path, help="Its trained state dict.")
@click.option("--grid", "bits", default=8, type=click.IntRange(4, 24), help="Weight bits.")
@click.option("--data", "folder", default=DEBIAN_FOLDER, type=Path, help="Has the IDX .gz files.")
@click.option("--epochs", default=2, type=click.IntRange(min=1), help="Passes over the images.")
@click.option("--lr", default=0.1, help="Peak, in steps of the grid per update; then to zero.")
@click.option("--batch", default=128, type=click.IntRange(min=1), help="Images per update.")
@click.option("--seed", default=0, help="Fixes order and mirroring.")
@click.option("--threads", default=1, type=click.IntRange(min=1), help="CPU threads.")
@click.option("--out", required=True, type=Path, callback=in_a_folder, help="State dict to write.")
def main(
    arch: str,
    start_from: Path,
    bits: int,
    folder: Path,
    epochs: int,
    lr: float,
    batch: int,
    seed: int,
    threads: int,
    out: Path,
) -> None:
    """Fine-tunes a network; prints loss and test accuracy after each epoch."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    try:
        trained = _constructed(arch)
        load_weights(trained, read_weights(start_from))
        net = snncc.on_grid(trained, bits)
    except (ImportError, AttributeError, SnnccError) as e:
        raise click.ClickException(str(e)) from e
    train, test = _tensors(folder, "train"), _tensors(folder, "t10k")
    click.echo(f"{arch} on a grid of {bits} bits, not tuned: test {accuracy(net, *test):.2%}")
    optimiser = _optimiser(net, lr)
    steps = epochs * (len(train[0]) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        loss = tune_epoch(net, *train, schedule, batch)
        seconds = time.perf_counter() - start
        right = accuracy(net, *test)
        click.echo(f"epoch {epoch}/{epochs}  loss {loss:.4f}  test {right:.2%}  {seconds:.0f} s")
    _save(net, out)
    click.echo(f"wrote {out}  {out.stat().st_size:,} bytes")


def _constructed(arch: str) -> nn.Module:
    """Returns the untrained network of ``module:constructor``."""
    module, _, name = arch.partition(":")
    net: nn.Module = getattr(importlib.import_module(module), name)()
    return net


def _optimiser(net: nn.Module, lr: float) -> torch.optim.Optimizer:
    weights = [p for p in net.parameters() if p.requires_grad and p.dim() > 1]
    biases = [p for p in net.parameters() if p.requires_grad and p.dim() == 1]
    groups = [{"params": weights, "lr": lr}, {"params": biases, "lr": lr * _BIAS_RATE}]
    return torch.optim.Adam(groups)


def tune_epoch(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    batch: int,
) -> float:
    """Trains on all full batches, half of the images mirrored; returns the mean loss.

    Args:
        net: From ``snncc.on_grid``; takes raw pixels.
        x: Raw images, uint8 ``[N, 1, 28, 28]``.
        y: Labels, int64 ``[N]``.
        schedule: Steps once a batch; holds the optimiser.
        batch: Images per step.
    """
    net.train()
    steps = len(x) // batch
    total = 0.0
    for index in torch.randperm(len(x))[: steps * batch].split(batch):
        mirror = torch.rand(batch, 1, 1, 1) < 0.5
        images = torch.where(mirror, x[index].flip(-1), x[index])
        loss = nn.functional.cross_entropy(net(images.float()), y[index])
        schedule.optimizer.zero_grad()
        loss.backward()
        schedule.optimizer.step()
        schedule.step()
        total += loss.item()
    return total / steps


@torch.no_grad()
def accuracy(net: nn.Module, x: Tensor, y: Tensor, batch: int = 500) -> float:
    """Returns the share of raw images ``x`` whose class is ``y``."""
    net.eval()
    pairs = zip(x.split(batch), y.split(batch), strict=True)
    return sum(int((net(a.float()).argmax(1) == b).sum()) for a, b in pairs) / len(x)


def _tensors(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Returns raw images uint8 ``[N, 1, 28, 28]`` and labels int64 ``[N]``."""
    try:
        images, labels = read_split(folder, split)
    except (OSError, ValueError) as error:
        raise click.ClickException(
            f"{error}; install the Debian package dataset-fashion-mnist, or give --data"
        ) from error
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64))


def _save(net: nn.Module, path: Path) -> None:
    """Writes the state dict, weights as the integers they stand for, through a temporary file."""
    state = {name: value.contiguous() for name, value in net.state_dict().items()}
    for name in state:
        if name.endswith(".weight"):
            state[name] = state[name].round()
    partial = path.with_name(f".{path.name}.part")
    torch.save(state, partial)
    os.replace(partial, path)


if __name__ == "__main__":
    main()
