"""A folder of IDX files as the data set's, with few images of the examples' own slice."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

SLICE = Path(__file__).parent.parent / "examples/fashion_mnist/test_1000.npz"


def write_folder(folder: Path, test: int, train: int) -> Path:
    """Writes ``test`` images, and ``train`` others, to ``folder``; returns it."""
    sample = np.load(SLICE)
    for split, part in (("t10k", slice(0, test)), ("train", slice(test, test + train))):
        _write_idx(folder / f"{split}-images-idx3-ubyte.gz", sample["x"][part, 0])
        _write_idx(folder / f"{split}-labels-idx1-ubyte.gz", sample["y"][part])
    return folder


def _write_idx(path: Path, values: np.ndarray) -> None:
    head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(head + values.tobytes()))
