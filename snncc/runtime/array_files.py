"""Arrays from files of numbers: npz, npy, idx and gzipped idx, recognised by their first bytes.

Files are never trusted: no pickle is read, and every size a header claims is compared with the
size of the file before memory is taken.
"""

from __future__ import annotations

import gzip
import math
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from snncc.damage import damaged, open_regular, reason, require_whole_zip
from snncc.errors import BadInputError, SnnccError
from snncc.runtime.masks import MASK

__all__ = ["FORMATS", "read_arrays", "read_labels", "read_masks", "reading"]

Array = npt.NDArray[Any]

FORMATS = "npz, npy, idx, idx.gz or a folder of images"

_X_NAMES = ("x", "images")
_Y_NAMES = ("y", "labels")
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_IDX_MAX_DIMS = 8
_DEFLATE_MAX_RATIO = 1032  # deflate cannot expand a byte further than this


def read_arrays(path: Path) -> tuple[Array, Array | None, str]:
    """Samples, labels if the file has them (npz only), and the name of the format.

    npz: samples are ``x``, or ``images``, or the only array besides; labels ``y`` or ``labels``.

    Raises:
        BadInputError: The file is missing, damaged or of an unknown format.
    """
    with reading(path):
        kind = _sniff(path)
        if kind == "npz":
            return *_read_npz(path), kind
        return _read_single(path, kind), None, kind


def read_labels(path: Path) -> Array:
    """The labels of a file: npz (``y``, ``labels`` or the only array), npy or idx.

    Raises:
        BadInputError: The file is missing, damaged or of an unknown format.
    """
    with reading(path):
        kind = _sniff(path)
        if kind != "npz":
            return _read_single(path, kind)
        with zipfile.ZipFile(path) as archive:
            names = _array_names(archive)
            return _read_member(path, archive, _choose(path, names, _Y_NAMES, ()))


def read_masks(path: Path) -> Array | None:
    """The patch masks of a file, its array ``mask``, if it is an npz file that has one.

    Raises:
        BadInputError: The file is missing, damaged or of an unknown format.
    """
    with reading(path):
        if _sniff(path) != "npz":
            return None
        with zipfile.ZipFile(path) as archive:
            is_there = MASK in _array_names(archive)
            return _read_member(path, archive, MASK) if is_there else None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever a decoder raises on damaged bytes becomes a BadInputError that names the file."""
    try:
        yield
    except SnnccError:
        raise
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({reason(error)})") from error
    except Exception as error:  # numpy, zipfile and zlib raise nearly anything on hostile bytes
        raise damaged(path, reason(error)) from error


def _sniff(path: Path) -> str:
    with open_regular(path) as file:
        require_whole_zip(file, path)
        head = file.read(6)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "npz"
    if head == b"\x93NUMPY":
        return "npy"
    if head[:2] == b"\x1f\x8b":
        return "idx.gz"
    if head[:2] == b"\0\0" and len(head) > 2 and head[2] in _IDX_TYPES:
        return "idx"
    raise BadInputError(f"{path}: unknown format; expected {FORMATS}")


def _read_single(path: Path, kind: str) -> Array:
    size = path.stat().st_size
    if kind == "idx.gz":
        with gzip.open(path, "rb") as packed:
            return _read_idx(path, cast(BinaryIO, packed), size * _DEFLATE_MAX_RATIO)
    with open(path, "rb") as file:
        return _read_npy(str(path), file, size) if kind == "npy" else _read_idx(path, file, size)


def _read_npz(path: Path) -> tuple[Array, Array | None]:
    with zipfile.ZipFile(path) as archive:
        names = _array_names(archive)
        x_name = _choose(path, names, _X_NAMES, (*_Y_NAMES, MASK))
        y_name = next((name for name in _Y_NAMES if name in names), None)
        x = _read_member(path, archive, x_name)
        return x, None if y_name is None else _read_member(path, archive, y_name)


def _array_names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def _choose(path: Path, names: list[str], wanted: tuple[str, ...], never: tuple[str, ...]) -> str:
    for name in wanted:
        if name in names:
            return name
    rest = [name for name in names if name not in never]
    if len(rest) == 1:
        return rest[0]
    held = ", ".join(sorted(names)) or "no array"
    raise BadInputError(f"{path}: holds {held}; expected an array named {' or '.join(wanted)}")


def _read_member(path: Path, archive: zipfile.ZipFile, name: str) -> Array:
    info = archive.getinfo(f"{name}.npy")
    where = f"{path}: array '{name}'"
    ratio = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: _DEFLATE_MAX_RATIO}
    if info.compress_type not in ratio:
        raise BadInputError(f"{where}: compression {info.compress_type}; use numpy.savez")
    packed = min(info.compress_size, path.stat().st_size)  # both sizes are only claims
    if info.file_size > packed * ratio[info.compress_type]:
        raise BadInputError(f"{where}: claims {info.file_size} bytes, more than the file can hold")
    with archive.open(info) as member:
        return _read_npy(where, cast(BinaryIO, member), info.file_size)


def _read_npy(where: str, stream: BinaryIO, size: int) -> Array:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise BadInputError(f"{where}: npy version {version} is not read; save it with numpy.save")
    header = np.lib.format.read_array_header_1_0
    if version == (2, 0):
        header = np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(stream)
    if dtype.kind not in "buif":
        raise BadInputError(f"{where}: dtype {dtype} is not a number; objects are never unpickled")
    order = shape[::-1] if fortran else shape
    flat = _read_exactly(where, stream, size - stream.tell(), order, dtype)
    return np.asarray(flat.T if fortran else flat, order="C")


def _read_idx(path: Path, stream: BinaryIO, size: int) -> Array:
    zeros, code, dims = struct.unpack(">HBB", stream.read(4))
    if zeros or code not in _IDX_TYPES or not 1 <= dims <= _IDX_MAX_DIMS:
        raise BadInputError(f"{path}: not an idx header; expected {FORMATS}")
    shape = struct.unpack(f">{dims}I", stream.read(4 * dims))
    dtype = np.dtype(_IDX_TYPES[code])
    return _read_exactly(str(path), stream, size - stream.tell(), shape, dtype)


def _read_exactly(
    where: str, stream: BinaryIO, room: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """The rest of the stream as an array; ``room`` bounds its bytes before memory is taken."""
    needed = math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 0 or needed > room:
        claim = f"its header claims {list(shape)} {dtype}, {needed} bytes"
        raise damaged(where, f"{claim}, but at most {room} follow")
    out = np.empty(shape, dtype)
    filled = _fill(stream, out.reshape(-1).view(np.uint8).data)
    if filled < needed:
        raise damaged(where, f"{filled} of {needed} bytes")
    if stream.read(1):  # also lets zip and gzip check their checksum
        raise BadInputError(f"{where}: bytes follow after {list(shape)} {dtype}; not a valid file")
    return out.astype(dtype.newbyteorder("="), copy=False)


def _fill(stream: BinaryIO, view: memoryview) -> int:
    filled = 0
    while filled < len(view):
        got: int = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not got:
            break
        filled += got
    return filled
