"""Masked pretraining of the small E-SpikeFormer: it learns to paint in patches that it cannot see.

Half of the 7x7 patches of 4x4 pixels are masked, other ones in every image. Convolutions ahead of
the transformer blocks are SpikeSparseConv, zero in masked patches; the blocks see all tokens. A
linear decoder, thrown away afterwards, reads the last potentials of each token; the loss counts
masked patches alone, each standardised by itself. What is saved is the encoder:

    python pretrain_spikeformer.py --out masked.pt

Source: Yao et al., "Scaling Spike-driven Transformer with Efficient Spike Firing Approximation
Training", arXiv:2411.16061.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import torch
from data import DEBIAN_FOLDER
from spikeformer import SmallESpikeFormer, spikeformer_sparse
from torch import Tensor, nn
from train import mirrored, normalised, save, tensors

from snncc.nn import apply_patch_mask, masked, random_patch_mask

__all__ = ["pretrain_epoch"]

_PATCHES, _SIDE = 7, 4
_EPS = 1e-2  # of pixels with standard deviation 1; most patches of the background are constant


def pretrain_epoch(
    net: SmallESpikeFormer,
    decoder: nn.Module,
    x: Tensor,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    batch: int,
    ratio: float,
) -> float:
    """Trains on all full batches; returns the mean loss.

    Args:
        net: Has sparse layers.
        decoder: Potentials ``[N, C, 7, 7]`` to pixels ``[N, 16, 7, 7]``.
        x: Raw images, uint8 ``[N, 1, 28, 28]``.
        schedule: Steps once a batch; holds the optimiser.
        batch: Images per step.
        ratio: Share of the patches that is masked.
    """
    net.train()
    steps, total = len(x) // batch, 0.0
    for index in torch.randperm(len(x))[: steps * batch].split(batch):
        images = normalised(mirrored(x[index]))
        mask = random_patch_mask(batch, _PATCHES, ratio)
        with masked(net, mask):
            painted = decoder(net.encode(apply_patch_mask(images, mask)))
        loss = _loss(painted, images, mask)
        schedule.optimizer.zero_grad()
        loss.backward()
        schedule.optimizer.step()
        schedule.step()
        total += loss.item()
    return total / steps


def _loss(painted: Tensor, images: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean squared error in masked patches."""
    wanted = nn.functional.pixel_unshuffle(images, _SIDE)
    mean, spread = wanted.mean(1, keepdim=True), wanted.var(1, keepdim=True)
    wanted = (wanted - mean) / (spread + _EPS).sqrt()
    error = (painted - wanted).square().mean(1, keepdim=True)
    return (error * (1 - mask)).sum() / (1 - mask).sum()


@click.command(context_settings={"show_default": True})
@click.option("--d", "D", default=4, help="Largest spike count of a neuron.")
@click.option("--data", "folder", default=DEBIAN_FOLDER, type=Path, help="Has the IDX .gz files.")
@click.option("--epochs", default=3, type=click.IntRange(min=1))
@click.option(
    "--mask-ratio", default=0.5, type=click.FloatRange(0, 1, min_open=True, max_open=True)
)
@click.option("--lr", default=5e-3, help="Peak of the one-cycle schedule.")
@click.option("--batch", default=64, type=click.IntRange(min=1))
@click.option("--seed", default=0)
@click.option("--threads", default=1, type=click.IntRange(min=1))
@click.option("--out", required=True, type=Path, help="State dict to write, after every epoch.")
def main(
    D: int,
    folder: Path,
    epochs: int,
    mask_ratio: float,
    lr: float,
    batch: int,
    seed: int,
    threads: int,
    out: Path,
) -> None:
    """Trains the network behind masks; prints the loss after each epoch."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    x, _ = tensors(folder, "train")
    net = spikeformer_sparse(D)
    decoder = nn.Conv2d(net.head.in_features, _SIDE**2, 1)
    optimiser = torch.optim.AdamW([*net.parameters(), *decoder.parameters()], lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=lr, epochs=epochs, steps_per_epoch=len(x) // batch
    )
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        loss = pretrain_epoch(net, decoder, x, schedule, batch, mask_ratio)
        net.head.reset_parameters()  # nothing has trained it
        save(net, out)
        click.echo(f"epoch {epoch}/{epochs}  loss {loss:.4f}  {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
