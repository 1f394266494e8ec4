"""Writes the two small slices of Fashion-MNIST that are kept beside the example network."""

from __future__ import annotations

import os
from pathlib import Path

import click
import numpy as np
from data import DEBIAN_FOLDER, read_split

__all__ = ["write_slice"]


@click.command(context_settings={"show_default": True})
@click.option("--data", "folder", default=DEBIAN_FOLDER, type=Path, help="Has the IDX .gz files.")
@click.option("--out", default=Path(__file__).parent, type=Path, help="Folder to write into.")
def main(folder: Path, out: Path) -> None:
    """Writes test_1000.npz (first test images) and calibration_256.npz (first training images)."""
    write_slice(folder, "t10k", 1000, out / "test_1000.npz")
    write_slice(folder, "train", 256, out / "calibration_256.npz")


def write_slice(folder: Path, split: str, count: int, path: Path) -> None:
    """Writes the first images of a split, compressed, through a temporary file.

    The file holds ``x`` uint8 ``[count, 1, 28, 28]`` and ``y`` uint8 ``[count]``; the same data
    gives the same bytes.

    Args:
        folder: Has the IDX .gz files.
        split: ``train`` or ``t10k``.
        count: Number of images.
        path: The npz file.

    Raises:
        click.ClickException: The data cannot be read or the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        images, labels = read_split(folder, split)
        with partial.open("wb") as file:
            np.savez_compressed(file, x=images[:count], y=labels[:count])
        os.replace(partial, path)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"wrote {path}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
