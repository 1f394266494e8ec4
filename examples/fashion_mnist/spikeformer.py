"""A small E-SpikeFormer for Fashion-MNIST, made of the blocks of the published networks.

It takes normalised images as the networks of ``models`` do. Train it on one thread:

    python spikeformer.py --out spikeformer_d4.pt
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import click
import models
import torch
from data import DEBIAN_FOLDER
from torch import Tensor, nn
from train import evaluate, in_a_folder, save, tensors, train_epoch

from snncc.frontends.zoo.e_spikeformer import ConvBlock, TransformerBlock
from snncc.frontends.zoo.parts import Downsampling, Layers, through

__all__ = ["SmallESpikeFormer", "spikeformer", "spikeformer_ssc"]

_BLOCKS = 2


class SmallESpikeFormer(nn.Module):
    """A convolution block on 14x14 positions, two transformer blocks on 7x7, and a head.

    Sparse convolutions stand before the transformer blocks only; those see all tokens.
    Attention is ``fire((q kᵀ) v scale)`` of spike counts over D; with scale 1/2 and D = 4 the
    product of the counts themselves is multiplied by 2^-7.

    Args:
        layers: Makes neurons and convolutions.
        width: Channels of the convolution block; transformer blocks have three times as many.
        channels: Of the images.
    """

    #: What the compiler takes as default for --input-shape, --mean and --std.
    default_cfg: ClassVar = {
        "input_size": (1, 28, 28), "mean": (models.MEAN,), "std": (models.STD,)
    }  # fmt: skip

    #: Patches down and across that sparse convolutions take masks of, 4x4 pixels each.
    mask_size: ClassVar = (7, 7)

    def __init__(self, layers: Layers, width: int, channels: int = 1) -> None:
        super().__init__()
        wide, plain = 3 * width, replace(layers, sparse=False)
        self.downsample1 = Downsampling(layers, channels, width, reads_image=True)
        self.block1 = ConvBlock(layers, width, expansion=2)
        self.downsample2 = Downsampling(layers, width, wide)
        self.block2 = nn.ModuleList(
            TransformerBlock(plain, wide, heads=4, expand_v=2, mlp=3, scale=0.5)
            for _ in range(_BLOCKS)
        )
        self.head_fire = layers.fire(norm=1.0)
        self.head = nn.Linear(wide, 10)
        self._spread(layers.D)

    def forward(self, x: Tensor) -> Tensor:
        """Returns class scores ``[N, 10]`` of normalised images ``[N, 1, 28, 28]``."""
        return self.head(self.head_fire(self.encoded(x).mean((2, 3))))

    def encoded(self, x: Tensor) -> Tensor:
        """Returns the last block's potentials ``[N, 3 * width, 7, 7]``."""
        return through(self.block2, self.downsample2(self.block1(self.downsample1(x))))

    def _spread(self, D: int) -> None:
        """Starts batch norms so that potentials span 0 to D and the branches add little at first.

        Without it the network, deep for one whose gradients are surrogates, learns slowly. Queries,
        keys and values keep to fewer spikes: the product of all three saturates its neuron else.
        """
        ends = (".pwconv2.1", ".bn2", ".proj_conv.1", ".fc2_bn")
        factors = (".q_conv.1", ".k_conv.1", ".v_conv.1")
        for name, module in self.named_modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and not name.endswith(factors):
                nn.init.constant_(module.weight, 0.3 if name.endswith(ends) else D / 2)


def spikeformer(D: int = 4, width: int = 32) -> SmallESpikeFormer:
    """Returns an untrained ``SmallESpikeFormer``; 379,690 parameters with the defaults."""
    return SmallESpikeFormer(Layers(D), width)


def spikeformer_ssc(D: int = 4, width: int = 32) -> SmallESpikeFormer:
    """Returns the network with SpikeSparseConv before its transformer blocks, keys unchanged."""
    return SmallESpikeFormer(Layers(D, sparse=True), width)


def load_encoder(net: nn.Module, path: Path) -> None:
    """Copies what masked pretraining left at ``path``: sparse layers have the keys of plain ones.

    Its decoder stays behind; the head is new.
    """
    state = {k: w for k, w in torch.load(path).items() if not k.startswith("decoder_")}
    wanted = {key for key in net.state_dict() if not key.startswith("head.")}
    if state.keys() != wanted:
        raise click.ClickException(f"{path}: its keys are not those that pretrain.py writes")
    net.load_state_dict(state, strict=False)


@click.command(context_settings={"show_default": True})
@click.option("--d", "D", default=4, help="Largest spike count of a neuron.")
@click.option("--data", "folder", default=DEBIAN_FOLDER, type=Path, help="Has the IDX .gz files.")
@click.option(
    "--from",
    "pretrained",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="State dict of pretrain.py to start from.",
)
@click.option("--epochs", default=9, type=click.IntRange(min=1))
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
    D: int,
    folder: Path,
    pretrained: Path | None,
    epochs: int,
    lr: float,
    batch: int,
    seed: int,
    threads: int,
    out: Path,
) -> None:
    """Trains the network; prints loss, test accuracy and firing rates after each epoch."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    train, test = tensors(folder, "train"), tensors(folder, "t10k")
    net = spikeformer(D).to(memory_format=torch.channels_last)
    if pretrained is not None:
        load_encoder(net, pretrained)
    click.echo(f"{sum(weight.numel() for weight in net.parameters()):,} parameters, D={D}")
    optimiser = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=lr, epochs=epochs, steps_per_epoch=len(train[0]) // batch
    )
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        loss = train_epoch(net, *train, schedule, batch)
        accuracy, rates = evaluate(net, *test)
        save(net, out)
        found = f"loss {loss:.4f}  test {accuracy:.2%}  {time.perf_counter() - start:.0f} s"
        firing = " ".join(f"{rate:.3f}" for rate in rates.values())
        click.echo(f"epoch {epoch:2}/{epochs}  {found}  rates {firing}")
    click.echo(f"wrote {out}  {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
