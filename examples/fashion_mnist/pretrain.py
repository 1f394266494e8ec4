"""Masked pretraining of the small E-SpikeFormer: it learns to draw patches that it does not see.

    python pretrain.py --out spikeformer_mae.pt
    python spikeformer.py --from spikeformer_mae.pt --out spikeformer_ssc_d4.pt

In every image another half of the 7x7 patches is masked. The convolutions are SpikeSparseConv, so
that nothing of a masked patch is seen and nothing is computed in it; the transformer blocks see all
tokens; a decoder, for training only, draws the 4x4 pixels of each.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import torch
from data import DEBIAN_FOLDER
from spikeformer import SmallESpikeFormer
from torch import Tensor, nn
from train import in_a_folder, mirrored, normalised, save, tensors

from snncc.frontends.zoo.parts import Layers
from snncc.nn import apply_patch_mask, masked, random_patch_mask

__all__ = ["SmallMaskedAutoencoder", "spikeformer_mae"]

_PATCH = 4


class SmallMaskedAutoencoder(SmallESpikeFormer):
    """The small E-SpikeFormer without its head, and a decoder; called, it is the encoder alone.

    Keys of the encoder are those of ``SmallESpikeFormer``.
    """

    def __init__(self, layers: Layers, width: int, inner: int = 64) -> None:
        super().__init__(layers, width)
        del self.head, self.head_fire
        rows, columns = self.mask_size
        self.decoder_norm = nn.BatchNorm2d(3 * width)
        self.decoder_embed = nn.Linear(3 * width, inner)
        self.decoder_position = nn.Parameter(0.02 * torch.randn(1, rows * columns, inner))
        self.decoder_block = nn.TransformerEncoderLayer(
            inner, 4, 2 * inner, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.decoder_pixels = nn.Linear(inner, _PATCH**2)

    def forward(self, x: Tensor) -> Tensor:
        """Returns potentials ``[N, 3 * width, 7, 7]`` of normalised images ``[N, 1, 28, 28]``."""
        return self.encoded(x)

    def drawn(self, x: Tensor, mask: Tensor) -> Tensor:
        """Returns pixels of all patches, ``[N, 49, 16]``, from those that ``mask`` leaves.

        Args:
            x: Normalised images ``[N, 1, 28, 28]``.
            mask: Zeros and ones ``[N, 1, 7, 7]``, 1 for a patch that is seen.
        """
        with masked(self, mask):
            encoded = self.encoded(apply_patch_mask(x, mask))
        tokens = self.decoder_embed(self.decoder_norm(encoded).flatten(2).transpose(1, 2))
        return self.decoder_pixels(self.decoder_block(tokens + self.decoder_position))


def spikeformer_mae(D: int = 4, width: int = 32, sparse: bool = True) -> SmallMaskedAutoencoder:
    """Returns an untrained ``SmallMaskedAutoencoder``; not sparse, it cannot be masked."""
    return SmallMaskedAutoencoder(Layers(D, sparse=sparse), width)


def patches(x: Tensor) -> Tensor:
    """Returns the pixels ``[N, 49, 16]`` of images ``[N, 1, 28, 28]``."""
    return nn.functional.unfold(x, _PATCH, stride=_PATCH).transpose(1, 2)


def error(net: SmallMaskedAutoencoder, x: Tensor, ratio: float) -> Tensor:
    """Returns the mean squared error over the pixels that a random mask hides.

    Args:
        net: Draws them.
        x: Normalised images ``[N, 1, 28, 28]``.
        ratio: Share of patches masked.
    """
    mask = random_patch_mask(len(x), net.mask_size, ratio)
    hidden = 1 - mask.flatten(1)
    squares = (net.drawn(x, mask) - patches(x)).square().mean(2)
    return (squares * hidden).sum() / hidden.sum()


@click.command(context_settings={"show_default": True})
@click.option("--d", "D", default=4, help="Largest spike count of a neuron.")
@click.option("--data", "folder", default=DEBIAN_FOLDER, type=Path, help="Has the IDX .gz files.")
@click.option("--epochs", default=4, type=click.IntRange(min=1))
@click.option("--lr", default=3e-3, help="Peak of the one-cycle schedule.")
@click.option(
    "--mask-ratio", default=0.5, type=click.FloatRange(0, 1, min_open=True, max_open=True)
)
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
    D: int,
    folder: Path,
    epochs: int,
    lr: float,
    mask_ratio: float,
    batch: int,
    seed: int,
    threads: int,
    out: Path,
) -> None:
    """Trains encoder and decoder; prints their error on images of training and test."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    train, test = tensors(folder, "train")[0], tensors(folder, "t10k")[0]
    net = spikeformer_mae(D)
    click.echo(f"{sum(weight.numel() for weight in net.parameters()):,} parameters, D={D}")
    known = normalised(train).mean(0, keepdim=True)
    click.echo(f"mean image: error {(normalised(test) - known).square().mean():.4f}")
    optimiser = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=lr, epochs=epochs, steps_per_epoch=len(train) // batch
    )
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        trained = pretrain_epoch(net, train, schedule, batch, mask_ratio)
        found = evaluated(net, test, mask_ratio)
        save(net, out)
        seconds = time.perf_counter() - start
        click.echo(
            f"epoch {epoch}/{epochs}  error {trained:.4f}  test {found:.4f}  {seconds:.0f} s"
        )
    click.echo(f"wrote {out}  {out.stat().st_size:,} bytes")


def pretrain_epoch(
    net: SmallMaskedAutoencoder,
    x: Tensor,
    schedule: torch.optim.lr_scheduler.OneCycleLR,
    batch: int,
    mask_ratio: float,
) -> float:
    """Trains on all full batches, half of the images mirrored; returns the mean error."""
    net.train()
    steps, total = len(x) // batch, 0.0
    for index in torch.randperm(len(x))[: steps * batch].split(batch):
        loss = error(net, normalised(mirrored(x[index])), mask_ratio)
        schedule.optimizer.zero_grad()
        loss.backward()
        schedule.optimizer.step()
        schedule.step()
        total += loss.item()
    return total / steps


@torch.no_grad()
def evaluated(net: SmallMaskedAutoencoder, x: Tensor, mask_ratio: float, batch: int = 500) -> float:
    """Returns the mean error on raw images ``x``; ``net`` is left in eval mode."""
    net.eval()
    parts = [error(net, normalised(part), mask_ratio).item() for part in x.split(batch)]
    return sum(parts) / len(parts)


if __name__ == "__main__":
    main()
