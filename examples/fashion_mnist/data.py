"""Reads Fashion-MNIST from its four gzipped IDX files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

__all__ = ["DEBIAN_FOLDER", "read_split"]

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where the Debian package dataset-fashion-mnist puts the files."""

_UBYTE = 0x08  # IDX type code


def read_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8 ``[N, 1, 28, 28]`` and labels uint8 ``[N]``.

    Args:
        folder: Holds ``{split}-images-idx3-ubyte.gz`` and ``{split}-labels-idx1-ubyte.gz``.
        split: ``train`` (60,000 images) or ``t10k`` (10,000).

    Raises:
        OSError: A file is missing or not gzip.
        ValueError: A file is not IDX, or images and labels differ in number.
    """
    images = _read_idx(folder / f"{split}-images-idx3-ubyte.gz")
    labels = _read_idx(folder / f"{split}-labels-idx1-ubyte.gz")
    if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
        raise ValueError(f"{folder}: {split} has images {images.shape} and labels {labels.shape}")
    return images[:, None], labels


def _read_idx(path: Path) -> np.ndarray:
    """Returns the uint8 array of an IDX file: two zeros, type, rank, big-endian sizes, data."""
    raw = gzip.decompress(path.read_bytes())
    if len(raw) < 4 or raw[:3] != bytes([0, 0, _UBYTE]):
        raise ValueError(f"{path}: not an IDX file of unsigned bytes")
    rank = raw[3]
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", count=rank, offset=4))
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * rank)
    if values.size != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{path}: {values.size} bytes of data, its header says {shape}")
    return values.reshape(shape)
