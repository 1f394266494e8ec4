"""Files of samples for tests, in all formats that are read."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from snncc.runtime.coding import write_arrays
from snncc.system.outputs import claim_file

__all__ = [
    "IDX_CODES",
    "IMAGES",
    "ONE_FOLDER",
    "arrays",
    "idx_bytes",
    "npz",
    "png",
    "same",
    "saved",
    "write_npz",
]

IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
ONE_FOLDER = settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)


def idx_bytes(array: np.ndarray) -> bytes:
    code = IDX_CODES[array.dtype.str[1:]]
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def saved(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def write_npz(path: Path, /, *, overwrite: bool = False, **arrays: np.ndarray) -> None:
    """A file of arrays, written whole or not at all."""
    with claim_file(path, overwrite) as claim:
        claim.write(lambda file: write_arrays(file, arrays))


def npz(path: Path, **arrays: np.ndarray) -> Path:
    write_npz(path, overwrite=True, **arrays)
    return path


def png(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def arrays(min_dims: int = 1) -> st.SearchStrategy[np.ndarray]:
    shapes = hnp.array_shapes(min_dims=min_dims, max_dims=4, max_side=4)
    return st.sampled_from(sorted(IDX_CODES)).flatmap(lambda kind: hnp.arrays(kind, shapes))


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
