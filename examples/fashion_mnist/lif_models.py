"""Two networks of LIF neurons for Fashion-MNIST.

``lif`` sees the image in every timestep, ``bands_lif`` a sequence, one band of it after the other.
They take normalised images as the networks of ``models`` do. Train one on one thread (8 minutes):

    python lif_models.py --out lif_t4.pt
    python lif_models.py --arch bands_lif --epochs 6 --out bands_t4.pt
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import ClassVar

import click
import models
import torch
from data import DEBIAN_FOLDER
from sequences import Bands
from torch import Tensor, nn
from train import evaluate, in_a_folder, save, tensors, train_epoch

from snncc.nn import LIF

__all__ = ["BandsLIFNet", "LIFNet", "bands_lif", "lif"]


class LIFNet(nn.Module):
    """Three convolutions with batch norm and LIF neurons, then the mean over time and a readout.

    Args:
        T: Timesteps.
        width: Channels of the first convolution; the others have 2 and 3 times as many.
    """

    #: What the compiler takes as default for --input-shape, --mean and --std.
    default_cfg: ClassVar = {
        "input_size": (1, 28, 28), "mean": (models.MEAN,), "std": (models.STD,)
    }  # fmt: skip

    def __init__(self, T: int, width: int) -> None:
        super().__init__()
        self.T = T
        self.conv1 = nn.Conv2d(1, width, 5, stride=2, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.lif1 = LIF(tau=2.0)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * width)
        self.lif2 = LIF(tau=2.0)
        self.conv3 = nn.Conv2d(2 * width, 3 * width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(3 * width)
        self.lif3 = LIF(tau=2.0)
        self.head = nn.Linear(3 * width * 7 * 7, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Returns class scores ``[N, 10]`` of normalised images ``[N, 1, 28, 28]``."""
        drive = self.bn1(self.conv1(x))  # the same in every timestep
        return self._scores(drive.unsqueeze(0).repeat(self.T, 1, 1, 1, 1))

    def _scores(self, drive: Tensor) -> Tensor:
        """Class scores of the first neurons' drive ``[T, N, ...]``."""
        x = self.lif1(drive)
        x = self.lif2(self._folded(x, self.conv2, self.bn2))
        x = self.lif3(self._folded(x, self.conv3, self.bn3))
        return self.head(x.mean(0).flatten(1))

    def _folded(self, x: Tensor, *layers: nn.Module) -> Tensor:
        """Applies layers to ``[T, N, ...]``, timesteps folded into the batch."""
        y = x.flatten(0, 1)
        for layer in layers:
            y = layer(y)
        return y.view(self.T, -1, *y.shape[1:])


class BandsLIFNet(LIFNet):
    """The same layers on sequences; the first convolution sees each timestep."""

    def __init__(self, T: int, width: int) -> None:
        super().__init__(T, width)
        self.default_cfg = {**LIFNet.default_cfg, "timesteps": T}

    def forward(self, x: Tensor) -> Tensor:
        """Returns class scores ``[N, 10]`` of normalised sequences ``[T, N, 1, 28, 28]``."""
        return self._scores(self._folded(x, self.conv1, self.bn1))


def lif(T: int = 4, width: int = 16) -> LIFNet:
    """Returns an untrained ``LIFNet``; 42,554 parameters with the defaults."""
    return LIFNet(T, width)


def bands_lif(T: int = 4, width: int = 16) -> BandsLIFNet:
    """Returns an untrained ``BandsLIFNet``; as many parameters."""
    return BandsLIFNet(T, width)


#: How images are shown to a network while it is trained on them.
_SHOWN = {"lif": (lif, lambda T: nn.Identity()), "bands_lif": (bands_lif, Bands)}


@click.command(context_settings={"show_default": True})
@click.option("--arch", default="lif", type=click.Choice(list(_SHOWN)))
@click.option("--t", "T", default=4, help="Timesteps.")
@click.option("--data", "folder", default=DEBIAN_FOLDER, type=Path, help="Has the IDX .gz files.")
@click.option("--epochs", default=5, type=click.IntRange(min=1))
@click.option("--lr", default=4e-3, help="Peak of the one-cycle schedule.")
@click.option("--batch", default=128, type=click.IntRange(min=1))
@click.option("--seed", default=0)
@click.option("--threads", default=1, type=click.IntRange(min=1))
@click.option("--out", required=True, type=Path, callback=in_a_folder, help="State dict to write.")
def main(
    arch: str,
    T: int,
    folder: Path,
    epochs: int,
    lr: float,
    batch: int,
    seed: int,
    threads: int,
    out: Path,
) -> None:
    """Trains the network; prints loss and test accuracy after each epoch."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    train, test = tensors(folder, "train"), tensors(folder, "t10k")
    make, show = _SHOWN[arch]
    net = make(T)
    shown = nn.Sequential(show(T), net)
    click.echo(f"{arch}: {sum(weight.numel() for weight in net.parameters()):,} parameters, T={T}")
    optimiser = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=lr, epochs=epochs, steps_per_epoch=len(train[0]) // batch
    )
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        loss = train_epoch(shown, *train, schedule, batch)
        accuracy, _ = evaluate(shown, *test)
        seconds = time.perf_counter() - start
        found = f"loss {loss:.4f}  test {accuracy:.2%}  {seconds:.0f} s"
        click.echo(f"epoch {epoch:2}/{epochs}  {found}")
    save(net, out)
    click.echo(f"wrote {out}  {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
