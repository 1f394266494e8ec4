"""Images as sequences: band after band, from the top; a timestep shows its rows and no others."""

from __future__ import annotations

import os
from pathlib import Path

import click
import models
import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Bands", "band_rows", "bands"]

_HEIGHT = 28


def band_rows(T: int) -> np.ndarray:
    """Returns which rows each timestep shows: bool ``[T, 28]``; every row is shown once."""
    return np.arange(_HEIGHT) * T // _HEIGHT == np.arange(T)[:, None]


def bands(images: np.ndarray, T: int) -> np.ndarray:
    """Returns sequences ``[N, T, 1, 28, 28]`` of raw images ``[N, 1, 28, 28]``, 0 where hidden."""
    shown = band_rows(T)[None, :, None, :, None]
    return np.where(shown, images[:, None], 0).astype(images.dtype)


class Bands(nn.Module):
    """Shows normalised images ``[N, 1, 28, 28]`` as ``[T, N, 1, 28, 28]``, black where hidden."""

    def __init__(self, T: int) -> None:
        super().__init__()
        self.register_buffer("shown", torch.from_numpy(band_rows(T))[:, None, None, :, None])

    def forward(self, images: Tensor) -> Tensor:
        """Returns the sequences."""
        return torch.where(self.shown, images, -models.MEAN / models.STD)


@click.command(context_settings={"show_default": True})
@click.argument("images", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--t", "T", default=4, type=click.IntRange(1, _HEIGHT), help="Timesteps.")
def main(images: Path, out: Path, T: int) -> None:
    """Writes the images of an npz file as sequences uint8 [N, T, 1, 28, 28], with their labels."""
    with np.load(images) as data:
        x, y = bands(data["x"], T), data["y"]
    partial = out.with_name(f".{out.name}.part")
    with partial.open("wb") as file:
        np.savez_compressed(file, x=x, y=y)
    os.replace(partial, out)
    click.echo(f"wrote {out}  {list(x.shape)}  {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
