"""Trains a network of models.py on Fashion-MNIST, on the CPU, and saves its state dict.

The weights of the last epoch are saved, whatever the test accuracy of an earlier one: the test
images choose nothing here.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import click
import models
import numpy as np
import torch
from data import DEBIAN_FOLDER, read_split
from torch import Tensor, nn

from snncc.errors import UsageError
from snncc.nn import IntegerFire, apply_patch_mask, masked, random_patch_mask

__all__ = ["evaluate", "in_a_folder", "mirrored", "normalised", "save", "tensors", "train_epoch"]


_AT_LEAST_ONE = click.IntRange(min=1)


def in_a_folder(_: click.Context, __: click.Parameter, path: Path) -> Path:
    """Returns ``path``; says before any training that it cannot be written to."""
    if not path.parent.is_dir():
        raise click.BadParameter(f"{path.parent} is not a folder")
    return path


@click.command(context_settings={"show_default": True})
@click.option("--arch", default="cnn", help="Constructor in models.py.")
@click.option("--arch-args", default="{}", help="Its arguments besides D, as a JSON object.")
@click.option("--d", "D", default=4, help="Largest spike count of a neuron.")
@click.option("--data", "folder", default=DEBIAN_FOLDER, type=Path, help="Has the IDX .gz files.")
@click.option("--epochs", default=14, type=_AT_LEAST_ONE, help="Passes over the training images.")
@click.option("--lr", default=4e-3, help="Peak of the one-cycle schedule.")
@click.option("--weight-decay", default=0.05, help="AdamW's.")
@click.option(
    "--mask-ratio",
    default=0.5,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of the patches that --mask-epochs masks.",
)
@click.option(
    "--mask-epochs",
    default=0,
    type=click.IntRange(min=0),
    help="First epochs on images with random patches masked; needs an --arch with sparse layers.",
)
@click.option("--batch", default=128, type=_AT_LEAST_ONE, help="Images per step.")
@click.option("--seed", default=0, help="Fixes initial weights, order and mirroring.")
@click.option(
    "--threads", default=1, type=_AT_LEAST_ONE, help="CPU threads; the result depends on it."
)
@click.option("--out", required=True, type=Path, callback=in_a_folder, help="State dict to write.")
def main(
    arch: str,
    arch_args: str,
    D: int,
    folder: Path,
    epochs: int,
    lr: float,
    weight_decay: float,
    mask_ratio: float,
    mask_epochs: int,
    batch: int,
    seed: int,
    threads: int,
    out: Path,
) -> None:
    """Trains a network; prints loss, test accuracy and firing rates after each epoch."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    train, test = tensors(folder, "train"), tensors(folder, "t10k")
    net = _constructed(arch, arch_args, D)
    if mask_epochs and not hasattr(net, "mask_size"):
        raise click.BadParameter(f"{arch} has no mask_size", param_hint="--mask-epochs")
    click.echo(f"{arch}: {sum(weight.numel() for weight in net.parameters()):,} parameters, D={D}")
    optimiser = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=lr, epochs=epochs, steps_per_epoch=len(train[0]) // batch
    )
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        masking = mask_ratio if epoch <= mask_epochs else 0.0
        loss = train_epoch(net, *train, schedule, batch, masking)
        accuracy, rates = evaluate(net, *test)
        click.echo(
            f"epoch {epoch:2}/{epochs}  loss {loss:.4f}  test {accuracy:.2%}  "
            f"rates {' '.join(f'{rate:.3f}' for rate in rates.values())}  "
            f"{time.perf_counter() - start:.0f} s"
        )
    save(net, out)
    click.echo(f"wrote {out}  {out.stat().st_size:,} bytes")


def train_epoch(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    schedule: torch.optim.lr_scheduler.OneCycleLR,
    batch: int,
    mask_ratio: float = 0.0,
) -> float:
    """Trains on all full batches, half of the images mirrored; returns the mean loss.

    Args:
        net: Takes normalised images.
        x: Raw images, uint8 ``[N, 1, 28, 28]``.
        y: Labels, int64 ``[N]``.
        schedule: Steps once a batch; holds the optimiser.
        batch: Images per step.
        mask_ratio: Share of the patches masked; above 0, ``net`` has sparse layers.
    """
    net.train()
    steps = len(x) // batch
    total = 0.0
    for index in torch.randperm(len(x))[: steps * batch].split(batch):
        images = normalised(mirrored(x[index]))
        scores = _masked_scores(net, images, mask_ratio) if mask_ratio else net(images)
        loss = nn.functional.cross_entropy(scores, y[index])
        schedule.optimizer.zero_grad()
        loss.backward()
        schedule.optimizer.step()
        schedule.step()
        total += loss.item()
    return total / steps


@torch.no_grad()
def evaluate(
    net: nn.Module, x: Tensor, y: Tensor, batch: int = 500
) -> tuple[float, dict[str, float]]:
    """Returns the accuracy, and per neuron layer the firing rate: spikes per neuron and tick.

    Args:
        net: Takes normalised images; left in eval mode.
        x: Raw images, uint8 ``[N, 1, 28, 28]``.
        y: Labels, int64 ``[N]``.
        batch: Images at a time.
    """
    net.eval()
    layers = {m: name for name, m in net.named_modules() if isinstance(m, IntegerFire)}
    rates = dict.fromkeys(layers.values(), 0.0)

    def add_rate(layer: IntegerFire, _: object, fired: Tensor) -> None:
        spikes = fired.sum(dtype=torch.float64).item() * layer.norm
        rates[layers[layer]] += spikes / (fired[0].numel() * layer.D * len(x))

    hooks = [layer.register_forward_hook(add_rate) for layer in layers]
    correct = 0
    for images, labels in zip(x.split(batch), y.split(batch), strict=True):
        correct += int((net(normalised(images)).argmax(1) == labels).sum())
    for hook in hooks:
        hook.remove()
    return correct / len(x), rates


def _masked_scores(net: nn.Module, images: Tensor, ratio: float) -> Tensor:
    """Returns the scores of images in which other patches are masked every time."""
    mask = random_patch_mask(len(images), net.mask_size, ratio)
    with masked(net, mask):
        scores: Tensor = net(apply_patch_mask(images, mask))
        return scores


def save(net: nn.Module, path: Path) -> None:
    """Writes the state dict through a temporary file, so ``path`` is never half-written."""
    state = {name: value.contiguous() for name, value in net.state_dict().items()}
    partial = path.with_name(f".{path.name}.part")
    torch.save(state, partial)
    os.replace(partial, path)


def _constructed(arch: str, arch_args: str, D: int) -> nn.Module:
    """Returns ``models.<arch>(D=D, **arch_args)``, channels last: a quarter faster on a CPU."""
    constructor = getattr(models, arch, None)
    if not callable(constructor):
        raise click.BadParameter(f"models.py has no constructor {arch!r}", param_hint="--arch")
    try:
        net: nn.Module = constructor(D=D, **json.loads(arch_args))
    except (TypeError, ValueError, UsageError) as error:
        raise click.UsageError(f"{arch} cannot be constructed: {error}") from error
    return net.to(memory_format=torch.channels_last)


def tensors(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Returns raw images uint8 ``[N, 1, 28, 28]`` and labels int64 ``[N]``."""
    try:
        images, labels = read_split(folder, split)
    except (OSError, ValueError) as error:
        raise click.ClickException(
            f"{error}; install the Debian package dataset-fashion-mnist, or give --data"
        ) from error
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64))


def normalised(images: Tensor) -> Tensor:
    """Returns what the networks take: float32, mean 0 and standard deviation 1."""
    return (images.float() / 255 - models.MEAN) / models.STD


def mirrored(images: Tensor) -> Tensor:
    """Returns the images, each mirrored left to right with probability one half."""
    mirror = torch.rand(len(images), 1, 1, 1) < 0.5
    return torch.where(mirror, images.flip(-1), images)


if __name__ == "__main__":
    main()
