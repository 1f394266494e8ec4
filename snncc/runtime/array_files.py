"""Arrays from files of numbers: npz, npy, idx and gzipped idx, recognised by their first bytes.

Files are never trusted: no pickle is read, and every size a header claims is compared with the
size of the file before memory is taken. Nothing is in memory twice: what is compressed, or in
another order, is read piece by piece into the array; and of the first few samples no more than
those is read, if they come first in the file.
"""

from __future__ import annotations

import gzip
import math
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np
import numpy.typing as npt

from snncc.errors import BadInputError, Option, SnnccError, Words
from snncc.runtime.masks import MASK
from snncc.system.damage import damaged, open_regular, reason, require_whole_zip

__all__ = [
    "FORMATS",
    "ArrayFile",
    "Rows",
    "npy_header",
    "read_arrays",
    "read_labels",
    "read_masks",
    "reading",
]

Array = npt.NDArray[Any]
_T = TypeVar("_T")
_Check = Callable[[tuple[int, ...]], None] | None

FORMATS = "npz, npy, idx, idx.gz or a folder of images"

_X_NAMES = ("x", "images")
_Y_NAMES = ("y", "labels")
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_IDX_MAX_DIMS = 8
_DEFLATE_MAX_RATIO = 1032  # deflate cannot expand a byte further than this
_PIECE = 1 << 20  # bytes unpacked at a time


@dataclass(frozen=True)
class Rows:
    """The first rows of an array.

    Attributes:
        values: ``[n, ...]``, native byte order, C order; ``[]`` of a scalar.
        total: How many there are in the file.
    """

    values: Array
    total: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array in the file."""
        return (self.total, *self.values.shape[1:]) if self.values.shape else ()


def read_arrays(
    path: Path, limit: int | None = None, check: _Check = None
) -> tuple[Rows, Rows | None, str]:
    """Samples, labels if the file has them (npz only), and the name of the format.

    npz: samples are ``x``, or ``images``, or the only array besides; labels ``y`` or ``labels``.

    Args:
        path: The file.
        limit: At most so many rows; the checksum of the rest is then not looked at.
        check: Told the shape of the samples before they take any memory, to refuse them.

    Raises:
        BadInputError: The file is missing, damaged, of an unknown format or too large for memory.
    """

    def npz(archive: zipfile.ZipFile) -> tuple[Rows, Rows | None]:
        names = _array_names(archive)
        x_name = _choose(path, names, _X_NAMES, (*_Y_NAMES, MASK))
        y_name = next((name for name in _Y_NAMES if name in names), None)
        x = _read_member(path, archive, x_name, limit, check)
        return x, None if y_name is None else _read_member(path, archive, y_name, limit)

    kind, (x, y) = _read(
        path, npz, lambda file, kind: (_read_single(path, file, kind, limit, check), None)
    )
    return x, y, kind


def read_labels(path: Path, limit: int | None = None) -> Rows:
    """The labels of a file: npz (``y``, ``labels`` or the only array), npy or idx.

    Args:
        path: The file.
        limit: See ``read_arrays``.

    Raises:
        BadInputError: See ``read_arrays``.
    """

    def npz(archive: zipfile.ZipFile) -> Rows:
        name = _choose(path, _array_names(archive), _Y_NAMES, ())
        return _read_member(path, archive, name, limit)

    return _read(path, npz, lambda file, kind: _read_single(path, file, kind, limit))[1]


def read_masks(path: Path, limit: int | None = None) -> Rows | None:
    """The patch masks of a file, its array ``mask``, if it is an npz file that has one.

    Args:
        path: The file.
        limit: See ``read_arrays``.

    Raises:
        BadInputError: See ``read_arrays``.
    """

    def npz(archive: zipfile.ZipFile) -> Rows | None:
        is_there = MASK in _array_names(archive)
        return _read_member(path, archive, MASK, limit) if is_there else None

    return _read(path, npz, lambda *_: None)[1]


class ArrayFile:
    """A file of samples that is read in parts and kept open; see ``read_arrays``.

    Packed files are read forward: a part that lies before the last one begins at the start again.

    Args:
        path: The file.
        check: Told the shape of the samples, to refuse them.

    Attributes:
        kind: Name of the format.
        shape, dtype: Of the samples, as stored.
        labels: Of all samples, if the file has some.
        has_masks: Whether an npz file has patch masks beside them.

    Raises:
        BadInputError: See ``read_arrays``; or columns come first in the file.
    """

    def __init__(self, path: Path, check: _Check = None) -> None:
        self.path = path
        self.labels: Rows | None = None
        self._masks: _Stored | None = None
        with reading(path), ExitStack() as stack:
            file = stack.enter_context(open_regular(path))
            self.kind = _sniff(path, file)
            if self.kind == "npz":
                archive = stack.enter_context(zipfile.ZipFile(file))
                self._open_members(archive, stack, check)
            else:
                self._x = _stored_single(path, file, self.kind, check, stack)
            self._x.require_rows_first()
            self._open = stack.pop_all()
        self.shape, self.dtype = self._x.shape, self._x.dtype.newbyteorder("=")
        self.has_masks = self._masks is not None

    def _open_members(self, archive: zipfile.ZipFile, stack: ExitStack, check: _Check) -> None:
        names = _array_names(archive)
        x_name = _choose(self.path, names, _X_NAMES, (*_Y_NAMES, MASK))
        y_name = next((name for name in _Y_NAMES if name in names), None)
        self._x = _stored_member(self.path, archive, x_name, check, stack)
        if y_name is not None:
            self.labels = _read_member(self.path, archive, y_name, None)
        if MASK in names:
            self._masks = _stored_member(self.path, archive, MASK, None, stack)
            self._masks.require_rows_first()

    def samples(self, first: int, last: int) -> Array:
        """Samples ``first`` to ``last - 1``.

        Raises:
            BadInputError: The file is damaged there.
        """
        with reading(self.path):
            return self._x.part(first, last)

    def masks(self, first: int, last: int) -> Array | None:
        """Their patch masks, if the file has some.

        Raises:
            BadInputError: The file is damaged there.
        """
        if self._masks is None:
            return None
        with reading(self.path):
            return self._masks.part(first, last)

    @property
    def mask_shape(self) -> tuple[int, ...]:
        """Of all patch masks; () where there are none."""
        return () if self._masks is None else self._masks.shape

    def close(self) -> None:
        """Let go of the file."""
        self._open.close()


def _read(
    path: Path, npz: Callable[[zipfile.ZipFile], _T], single: Callable[[BinaryIO, str], _T]
) -> tuple[str, _T]:
    """The kind of the file, and what its reader makes of it."""
    with reading(path), open_regular(path) as file:
        kind = _sniff(path, file)
        if kind != "npz":
            return kind, single(file, kind)
        with zipfile.ZipFile(file) as archive:
            return kind, npz(archive)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever a decoder raises on damaged bytes becomes a BadInputError that names the file."""
    try:
        yield
    except SnnccError:
        raise
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({reason(error)})") from error
    except MemoryError as error:
        told = f"{path}: does not fit into memory ({reason(error)}); read fewer samples, "
        raise BadInputError(Words(told, Option("limit", like="N"))) from error
    except Exception as error:  # numpy, zipfile and zlib raise nearly anything on hostile bytes
        raise damaged(path, reason(error)) from error


def _sniff(path: Path, file: BinaryIO) -> str:
    require_whole_zip(file, path)
    head = file.read(6)
    file.seek(0)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "npz"
    if head == b"\x93NUMPY":
        return "npy"
    if head[:2] == b"\x1f\x8b":
        return "idx.gz"
    if head[:2] == b"\0\0" and len(head) > 2 and head[2] in _IDX_TYPES:
        return "idx"
    raise BadInputError(f"{path}: unknown format; expected {FORMATS}")


def _read_single(
    path: Path, file: BinaryIO, kind: str, limit: int | None, check: _Check = None
) -> Rows:
    with ExitStack() as stack:
        return _stored_single(path, file, kind, check, stack).rows(limit)


def _stored_single(
    path: Path, file: BinaryIO, kind: str, check: _Check, stack: ExitStack
) -> _Stored:
    """The array of a file that has one; what unpacks it is closed with the stack."""
    size = _size(file)
    if kind == "idx.gz":
        packed = stack.enter_context(gzip.GzipFile(fileobj=file))
        return _stored_idx(path, cast(BinaryIO, packed), size * _DEFLATE_MAX_RATIO, check)
    if kind == "npy":
        return _stored_npy(str(path), file, size, check)
    return _stored_idx(path, file, size, check)


def _size(file: BinaryIO) -> int:
    size = file.seek(0, 2)
    file.seek(0)
    return size


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


def _read_member(
    path: Path, archive: zipfile.ZipFile, name: str, limit: int | None, check: _Check = None
) -> Rows:
    with ExitStack() as stack:
        return _stored_member(path, archive, name, check, stack).rows(limit)


def _stored_member(
    path: Path, archive: zipfile.ZipFile, name: str, check: _Check, stack: ExitStack
) -> _Stored:
    """An array of an npz file; what unpacks it is closed with the stack."""
    info = archive.getinfo(f"{name}.npy")
    where = f"{path}: array '{name}'"
    ratio = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: _DEFLATE_MAX_RATIO}
    if info.compress_type not in ratio:
        raise BadInputError(f"{where}: compression {info.compress_type}; use numpy.savez")
    packed = min(info.compress_size, path.stat().st_size)  # both sizes are only claims
    if info.file_size > packed * ratio[info.compress_type]:
        raise BadInputError(f"{where}: claims {info.file_size} bytes, more than the file can hold")
    member = stack.enter_context(archive.open(info))
    return _stored_npy(where, cast(BinaryIO, member), info.file_size, check)


def _stored_npy(where: str, stream: BinaryIO, size: int, check: _Check) -> _Stored:
    shape, fortran, dtype = npy_header(where, stream)
    if dtype.kind not in "buif":
        raise BadInputError(f"{where}: dtype {dtype} is not a number; objects are never unpickled")
    start = stream.tell()
    return _Stored(where, stream, start, size - start, shape, dtype, check, fortran)


def npy_header(where: str, stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns come first, and dtype; what follows is not looked at.

    Raises:
        BadInputError: A version that is not read.
        ValueError: It is damaged.
    """
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise BadInputError(f"{where}: npy version {version} is not read; save it with numpy.save")
    header = np.lib.format.read_array_header_1_0
    if version == (2, 0):
        header = np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numbers as Python 2 wrote them, or as nobody does
        shape, fortran, dtype = header(stream)
    return shape, fortran, dtype


def _stored_idx(path: Path, stream: BinaryIO, size: int, check: _Check) -> _Stored:
    zeros, code, dims = struct.unpack(">HBB", stream.read(4))
    if zeros or code not in _IDX_TYPES or not 1 <= dims <= _IDX_MAX_DIMS:
        raise BadInputError(f"{path}: not an idx header; expected {FORMATS}")
    shape = struct.unpack(f">{dims}I", stream.read(4 * dims))
    dtype = np.dtype(_IDX_TYPES[code])
    start = stream.tell()
    return _Stored(str(path), stream, start, size - start, shape, dtype, check)


@dataclass(frozen=True)
class _Stored:
    """An array that is about to be read from a stream.

    Attributes:
        where: Its name, for messages.
        stream: At its first value.
        start: Where that is in the stream.
        room: At most so many bytes follow.
        shape, dtype: As its header claims, which is checked.
        check: See ``read_arrays``.
        columns_first: The first index runs fastest in the stream.

    Raises:
        BadInputError: There cannot be so many values, or ``check`` refuses them.
    """

    where: str
    stream: BinaryIO
    start: int
    room: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    check: _Check
    columns_first: bool = False

    def __post_init__(self) -> None:
        if min(self.shape, default=1) < 0 or self._bytes > self.room:
            claim = f"its header claims {list(self.shape)} {self.dtype}, {self._bytes} bytes"
            raise damaged(self.where, f"{claim}, but at most {self.room} follow")
        if self.check is not None:
            self.check(self.shape)

    @property
    def _bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def require_rows_first(self) -> None:
        """Rows can be read one after the other.

        Raises:
            BadInputError: They are scattered over the file, or there are none.
        """
        if not self.shape or 0 in self.shape:
            raise BadInputError(
                f"{self.where}: no samples, shape {list(self.shape)}; expected [N, ...]"
            )
        if self.columns_first and len(self.shape) > 1:
            raise BadInputError(
                f"{self.where}: is stored column by column (Fortran order), so that each sample is "
                "scattered over the file; save numpy.ascontiguousarray(x)"
            )

    def part(self, first: int, last: int) -> Array:
        """Rows ``first`` to ``last - 1``; after the last row of all nothing may follow."""
        each = self._bytes // self.shape[0]
        self.stream.seek(self.start + first * each)
        out = np.empty((last - first, *self.shape[1:]), self.dtype)
        self._fill(out, first * each)
        if last == self.shape[0]:
            self._require_end()
        return _native(out)

    def _require_end(self) -> None:
        """Nothing follows; looking also lets zip and gzip check their checksum."""
        if self.stream.read(1):
            claim = f"{list(self.shape)} {self.dtype}"
            raise BadInputError(f"{self.where}: bytes follow after {claim}; not a valid file")

    def rows(self, limit: int | None) -> Rows:
        """The first ``limit`` rows, or all, after which nothing may follow.

        Args:
            limit: None: all. Where columns come first, the whole array is read for any.
        """
        total = self.shape[0] if self.shape else 0
        rows = total if limit is None else min(limit, total)
        out = np.empty((rows, *self.shape[1:]) if self.shape else (), self.dtype)
        is_turned = self.columns_first and out.ndim > 1 and self._bytes > 0
        if is_turned:
            self._fill_columns(out.T, total, 0)
        else:
            self._fill(out, 0)
        if rows == total or is_turned:
            self._require_end()
        return Rows(_native(out), total)

    def _fill(self, out: Array, done: int) -> int:
        """Fill an array in C order; how many bytes have then been read, ``done`` of them before."""
        view, at = out.reshape(-1).view(np.uint8).data, 0
        while at < len(view):
            got: int = self.stream.readinto(view[at : at + _PIECE])  # type: ignore[attr-defined]
            if not got:
                raise damaged(self.where, f"{done + at} of {self._bytes} bytes")
            at += got
        return done + at

    def _fill_columns(self, out: Array, columns: int, done: int) -> int:
        """Fill an array whose last axis is the first part of one with ``columns``; as ``_fill``.

        Args:
            out: Of any strides.
            columns: How long the last axis is in the stream.
            done: Bytes that have been read before.
        """
        if out.ndim == 1:
            whole = np.empty(columns, self.dtype)
            done = self._fill(whole, done)
            out[...] = whole[: len(out)]
            return done
        each = math.prod(out.shape[1:-1]) * columns * self.dtype.itemsize
        if each > _PIECE:
            for part in out:
                done = self._fill_columns(part, columns, done)
            return done
        for part in np.array_split(out, -(-len(out) * each // _PIECE)):
            piece = np.empty((*part.shape[:-1], columns), self.dtype)
            done = self._fill(piece, done)
            part[...] = piece[..., : part.shape[-1]]
        return done


def _native(array: Array) -> Array:
    """The same array in native byte order and with no other booleans than 0 and 1, in place."""
    if array.dtype.kind == "b":
        return np.not_equal(array.view(np.uint8), 0, out=array)
    if not array.dtype.isnative:
        array.byteswap(inplace=True)
    return array.view(array.dtype.newbyteorder("="))
