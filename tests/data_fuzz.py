"""Data files and images with bytes changed: read, or refused by name; nothing else, and quickly.

``PYTHONPATH=tests python tests/data_fuzz.py npz --files 20000`` (or ``images``) prints one JSON
object: how many were read and refused, and which took longest and which most memory.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import random
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
from data_files import idx_bytes
from PIL import Image

from snncc.errors import BadInputError
from snncc.runtime.coding import read_data

Bytes = bytearray
_NUMBERS = (0, 1, 2, 7, 255, 256, 32767, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


# -- whole files ---------------------------------------------------------------------------


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array)
    return buffer.getvalue()


def packed(members: dict[str, np.ndarray], method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, array in members.items():
            archive.writestr(f"{name}.npy", npy(array))
    return buffer.getvalue()


def data_seeds() -> dict[str, bytes]:
    """Small files of every kind that is read."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (5, 1, 4, 6), dtype=np.uint8)
    real = rng.random((5, 1, 4, 6)).astype(">f8")
    members = {"x": x, "y": np.arange(5, dtype=np.uint64), "mask": np.ones((5, 1, 2, 2), np.bool_)}
    zeros = {"images": np.zeros((64, 1, 32, 32), np.uint8)}
    return {
        "stored.npz": packed(members, zipfile.ZIP_STORED),
        "packed.npz": packed(members, zipfile.ZIP_DEFLATED),
        "zeros.npz": packed(zeros, zipfile.ZIP_DEFLATED),
        "columns.npz": packed({"x": np.asfortranarray(real)}, zipfile.ZIP_DEFLATED),
        "x.npy": npy(x),
        "columns.npy": npy(np.asfortranarray(real)),
        "x.idx": idx_bytes(x[:, 0]),
        "x.idx.gz": gzip.compress(idx_bytes(x[:, 0])),
    }


def image_seeds() -> dict[str, bytes]:
    """Small images of every format, in several modes, packings and with what may be beside."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    flat = Image.fromarray(np.zeros((12, 16, 3), np.uint8))
    kinds: list[tuple[str, dict[str, object]]] = [
        *(("PNG", {}), ("PNG", {"compress_level": 0}), ("BMP", {}), ("PPM", {})),
        *(("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"quality": 5})),
        *(("WEBP", {}), ("WEBP", {"lossless": True})),
        *(("TIFF", {"compression": c}) for c in ("raw", "tiff_lzw", "tiff_deflate", "packbits")),
        *(("TIFF", {"compression": c}) for c in ("jpeg", "tiff_adobe_deflate")),
    ]
    found = {}
    for mode in ("RGB", "L", "P", "RGBA", "1", "CMYK"):
        for source in (colour, flat):
            for form, options in kinds:
                buffer = io.BytesIO()
                try:
                    source.convert(mode).save(buffer, form, **options)
                except (OSError, ValueError, KeyError):
                    continue  # a format that has not this mode
                found[f"{form} {mode} {options} {source is flat}"] = buffer.getvalue()
    return found


# -- changes -------------------------------------------------------------------------------


def flip(data: Bytes, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 1, 2, 8])):
        data[rng.randrange(len(data))] = rng.randrange(256)


def head(data: Bytes, rng: random.Random) -> None:
    """Most of what is claimed is claimed at the beginning or at the end."""
    place = rng.randrange(min(len(data), 128))
    data[place if rng.random() < 0.7 else -1 - place] = rng.choice([0, 1, 127, 128, 255])


def number(data: Bytes, rng: random.Random) -> None:
    """Two or four bytes become a number, in either order of bytes."""
    form = rng.choice("<>") + rng.choice("HI")
    size = struct.calcsize(form)
    if len(data) >= size:
        value = rng.choice(_NUMBERS) & (256**size - 1)
        place = rng.randrange(min(len(data) - size + 1, 400 if rng.random() < 0.7 else 1 << 30))
        data[place : place + size] = struct.pack(form, value)


def digits(data: Bytes, rng: random.Random) -> None:
    """A number that is written out becomes another of as many digits."""
    places = [i for i, byte in enumerate(data[:400]) if 48 <= byte < 58]
    for place in rng.sample(places, min(len(places), rng.choice([1, 2, 5]))):
        data[place] = rng.choice(b"0123456789-,(L)")


def cut(data: Bytes, rng: random.Random) -> None:
    del data[rng.randrange(1, len(data) + 1) :]


def repeat(data: Bytes, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    part = data[start : start + rng.choice([1, 4, 40, 400])]
    place = rng.randrange(len(data))
    data[place:place] = part * rng.choice([1, 2, 50])


def drop(data: Bytes, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice([1, 4, 40])]


CHANGES: tuple[Callable[[Bytes, random.Random], None], ...] = (
    *(flip, head, head, number, number, digits, cut, repeat, drop),
)


def changed(seed: bytes, rng: random.Random) -> bytes:
    data = Bytes(seed)
    for _ in range(rng.choice([1, 1, 2, 3])):
        if data:
            rng.choice(CHANGES)(data, rng)
    return bytes(data)


# -- the run -------------------------------------------------------------------------------


def resident(reset: bool = False) -> int:
    """Most memory this process has had since it was last reset, in bytes."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def read(kind: str, path: Path, rng: random.Random) -> None:
    limit = rng.choice([None, None, 1, 3])
    if kind == "npz":
        shape = rng.choice([None, (1, 4, 6), (1, 32, 32)])
        read_data(path, shape=shape, limit=limit, masks=rng.random() < 0.5)
    else:
        read_data(path.parent, shape=rng.choice([None, (3, 12, 16), (1, 12, 16)]), limit=limit)


def fuzz(kind: str, files: int, seed: int) -> dict[str, object]:
    """What came of so many changed files; one that raised anything else ends it."""
    rng = random.Random(seed)
    seeds = data_seeds() if kind == "npz" else image_seeds()
    found: Counter[str] = Counter()
    slowest, largest = (0.0, ""), (0, "")
    said = io.StringIO()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, redirect_stderr(said):
        path = Path(folder) / "a.png"
        for _ in range(files):
            name = rng.choice(sorted(seeds))
            data = changed(seeds[name], rng)
            path.write_bytes(data)
            before = resident(reset=True)
            start = time.perf_counter()
            try:
                read(kind, path, rng)
                found["read"] += 1
            except BadInputError as e:
                if str(path) not in e.message and str(path.parent) not in e.message:
                    raise AssertionError(f"no name in: {e.message}") from e
                found["refused"] += 1
            except BaseException:
                Path(f"fuzz-{kind}.bin").write_bytes(data)
                raise
            slowest = max(slowest, (time.perf_counter() - start, name))
            largest = max(largest, (resident() - before, name))
    return {
        **found,
        "seconds": {"worst": round(slowest[0], 3), "of": slowest[1]},
        "megabytes": {"worst": round(largest[0] / 1e6, 1), "of": largest[1]},
        "said": said.getvalue()[:300],
    }


def main() -> None:
    """Print what came of it; exit code 1 with a traceback if anything else was raised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["npz", "images"])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        found = fuzz(given.kind, given.files, given.seed)
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
