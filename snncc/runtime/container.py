"""Deterministic zip files, written aligned and read with suspicion; and the blob of weights.

The same members give the same bytes: stored, sorted by name, dated 1980. The data of every member
starts at a multiple of 64 bytes, so that it can be mapped into memory.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zipfile
from collections.abc import Collection, Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from snncc.errors import BadInputError
from snncc.runtime.array_files import npy_header, reading
from snncc.system.damage import require_whole_zip

__all__ = [
    "ALIGNMENT",
    "Blob",
    "array_at",
    "array_to_npy",
    "npy_to_array",
    "read_members",
    "sha256",
    "stream_sha256",
    "write_members",
]

Array = npt.NDArray[Any]

ALIGNMENT = 64
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold
_PADDING_ID = 0xD935  # extra field that zip tools use for alignment, and skip
_LOCAL_HEADER = 30
_ZIP64_EXTRA = 20
_MAX_MEMBERS = 4096
_PIECE = 1 << 20  # bytes hashed at a time
_NAME = re.compile(r"[A-Za-z0-9_.:%~-]+(/[A-Za-z0-9_.:%~-]+)*")


def sha256(data: bytes) -> str:
    """The hash of the data, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def stream_sha256(file: BinaryIO) -> str:
    """The hash of all that a file holds, which is read from its start, piece by piece."""
    digest = hashlib.sha256()
    file.seek(0)
    while piece := file.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()


# -- writing -------------------------------------------------------------------------------


def write_members(file: BinaryIO, members: Mapping[str, bytes]) -> None:
    """Write a zip whose bytes depend on nothing but the members."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, date_time=_EPOCH)
            info.create_system, info.external_attr = 3, 0o644 << 16  # the same on every platform
            info.extra = _padding(file.tell(), name, len(members[name]))
            archive.writestr(info, members[name])


def _padding(offset: int, name: str, size: int) -> bytes:
    """An extra field after which the member's data is aligned."""
    large = size * 1.05 > zipfile.ZIP64_LIMIT  # then zipfile adds a field of its own
    start = offset + _LOCAL_HEADER + len(name) + 4 + (_ZIP64_EXTRA if large else 0)
    fill = -start % ALIGNMENT
    return struct.pack("<HH", _PADDING_ID, fill) + bytes(fill)


def array_to_npy(array: Array) -> bytes:
    """The array as the content of an npy file, little endian, C order."""
    stream = io.BytesIO()
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    np.lib.format.write_array(stream, np.asarray(little, order="C"), (1, 0), allow_pickle=False)
    return stream.getvalue()


class Blob:
    """Arrays one after the other, each 64-byte aligned; equal bytes are stored once."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._offsets: dict[str, int] = {}

    def add(self, data: bytes) -> int:
        """Offset of the data, which is appended if it is new."""
        key = sha256(data)
        if key not in self._offsets:
            self._offsets[key] = self._size
            fill = bytes(-len(data) % ALIGNMENT)
            self._parts += [data, fill]
            self._size += len(data) + len(fill)
        return self._offsets[key]

    def add_array(self, array: Array) -> dict[str, Any]:
        """The array's entry: offset, nbytes, dtype and shape."""
        little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        data = little.tobytes()
        place = {"offset": self.add(data), "nbytes": len(data)}
        return {**place, "dtype": array.dtype.name, "shape": list(array.shape)}

    def tobytes(self) -> bytes:
        """The blob."""
        return b"".join(self._parts)


# -- reading -------------------------------------------------------------------------------


def read_members(file: BinaryIO, where: str) -> dict[str, bytes]:
    """All members of a zip from an untrusted source; they take no more memory than its size.

    Args:
        file: The zip.
        where: Its name, for messages.

    Raises:
        BadInputError: Not a zip, damaged, or with members that snncc does not write.
    """
    with reading(Path(where)):
        require_whole_zip(file, where)
        if file.read(4) != b"PK\x03\x04":
            raise BadInputError(f"{where}: not a zip file; expected what snncc has written")
        size = file.seek(0, io.SEEK_END)
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            _check_directory(infos, size, where)
            return {info.filename: archive.read(info) for info in infos}


def _check_directory(infos: Collection[zipfile.ZipInfo], size: int, where: str) -> None:
    names = {info.filename for info in infos}
    if len(names) != len(infos) or len(names) > _MAX_MEMBERS:
        raise BadInputError(f"{where}: {len(infos)} members, {len(names)} names; not from snncc")
    for info in infos:
        if not _NAME.fullmatch(info.filename) or {".", ".."} & set(info.filename.split("/")):
            raise BadInputError(f"{where}: refused member name {info.filename!r}")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise BadInputError(f"{where}: member '{info.filename}' is compressed; not from snncc")
    claimed = sum(info.file_size for info in infos)
    if claimed > size:
        raise BadInputError(f"{where}: members claim {claimed} bytes, the file has {size}")


def npy_to_array(data: bytes, where: str) -> Array:
    """The array in the content of an npy file.

    Raises:
        BadInputError: Damaged, not of numbers, or with more or fewer values than its header says.
    """
    with reading(Path(where)):
        stream = io.BytesIO(data)
        shape, fortran, dtype = npy_header(where, stream)
        body = memoryview(data)[stream.tell() :]
        if fortran or dtype.kind not in "uif" or len(body) != prod(shape) * dtype.itemsize:
            raise BadInputError(f"{where}: {len(body)} bytes do not hold {list(shape)} {dtype}")
        return np.frombuffer(body, dtype).reshape(shape)


def array_at(blob: bytes, entry: Any, dtypes: Collection[str], where: str) -> Array:
    """The array that an entry of ``Blob.add_array`` describes, read-only.

    Raises:
        BadInputError: The entry is malformed, of another dtype, or reaches beyond the blob.
    """
    try:
        offset, nbytes, dtype = (entry[key] for key in ("offset", "nbytes", "dtype"))
        shape = list(entry["shape"])
    except (KeyError, TypeError) as e:
        raise BadInputError(f"{where}: malformed array entry") from e
    if dtype not in dtypes:
        raise BadInputError(f"{where}: dtype {dtype!r}; expected {' or '.join(sorted(dtypes))}")
    numbers_ok = all(type(n) is int and n >= 0 for n in (offset, nbytes, *shape))
    if len(shape) > 8 or not numbers_ok or 0 in shape:
        raise BadInputError(f"{where}: malformed offset, size or shape")
    if prod(shape) * np.dtype(dtype).itemsize != nbytes:
        raise BadInputError(f"{where}: {nbytes} bytes do not hold {shape} {dtype}")
    if offset % ALIGNMENT or offset + nbytes > len(blob):
        raise BadInputError(
            f"{where}: bytes {offset}..{offset + nbytes} are not in the weights ({len(blob)} bytes)"
        )
    little = np.dtype(dtype).newbyteorder("<")
    flat = np.frombuffer(blob, little, prod(shape), offset)
    return flat.reshape(shape).astype(dtype, copy=False)
