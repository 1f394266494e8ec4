"""Tar files of samples, as webdataset writes them: ``0001.png`` and ``0001.cls`` beside each other.

Members are found once and then read where they lie, so that any sample can be read. Nothing is
unpacked to disk, and no name in an archive is ever a path here.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from snncc.errors import BadInputError
from snncc.runtime.array_files import Rows, reading
from snncc.runtime.images import MOST_PIXELS, SUFFIXES, decode_bytes, most_bytes, require_images
from snncc.system.damage import damaged, open_regular

__all__ = ["TarShards", "tars_of"]

Array = npt.NDArray[Any]

_CLASS = "cls"
_MOST_DIGITS = 20  # of a class


def tars_of(source: Path) -> list[Path]:
    """The tar files that a path names: itself, or all of a folder in the order of their names."""
    if source.is_dir():
        return sorted(p for p in source.glob("*.tar") if not p.name.startswith("."))
    return [source] if source.suffix == ".tar" else []


@dataclass(frozen=True)
class _Member:
    """A file in a tar file.

    Attributes:
        tar: Number of the tar file.
        key, suffix: Its name before and after the first dot.
        offset, size: Where it lies, in bytes.
    """

    tar: int
    key: str
    suffix: str
    offset: int
    size: int


@dataclass(frozen=True)
class _Sample:
    image: _Member
    label: _Member | None = field(default=None)


class TarShards:
    """Images and their classes in tar files; see ``data_sets``.

    Args:
        source: What was asked for, for messages.
        tars: The files.
        shape: ``(C, H, W)`` that the network takes; None: those of the first image.

    Raises:
        BadInputError: A file is damaged, or holds samples without an image, or of which some lack
            their class.
        MissingDependencyError: Pillow is not installed.
    """

    mask_shape: tuple[int, ...] = ()
    dtype = np.dtype(np.uint8)

    def __init__(self, source: Path, tars: list[Path], shape: tuple[int, ...] | None) -> None:
        require_images(source, shape)
        self._tars = tars
        self._samples = [s for number in range(len(tars)) for s in self._samples_of(number)]
        if not self._samples:
            raise BadInputError(f"{source}: no samples in {len(tars)} tar files")
        self._each = self._decode(self._samples[0], shape).shape
        self.shape = (len(self._samples), *self._each)
        self.labels = self._labels(source)
        self.kind = f"{len(tars)} tar files" if len(tars) > 1 else "tar"

    def samples(self, first: int, last: int) -> Array:
        """Samples ``first`` to ``last - 1``, uint8 [n, C, H, W]."""
        return np.stack([self._decode(s, self._each) for s in self._samples[first:last]])

    def masks(self, first: int, last: int) -> None:
        """There are none."""

    def close(self) -> None:
        """No file is kept open."""

    def _samples_of(self, number: int) -> Iterator[_Sample]:
        path = self._tars[number]
        with reading(path), open_regular(path) as file:
            members = list(_members(path, number, file))
        for key, group in groupby(members, lambda m: m.key):
            found = list(group)
            images = [m for m in found if f".{m.suffix.rpartition('.')[2]}" in SUFFIXES]
            if len(images) != 1:
                told = f"sample '{key}' has {len(images)} images"
                raise BadInputError(f"{path}: {told} ({_names(found)}); one is expected")
            yield _Sample(images[0], next((m for m in found if m.suffix == _CLASS), None))

    def _labels(self, source: Path) -> Rows | None:
        lacking = [s for s in self._samples if s.label is None]
        if len(lacking) == len(self._samples):
            return None
        if lacking:
            told = f"{len(lacking)} of {len(self._samples)} samples lack their class"
            raise BadInputError(f"{source}: {told}, the first is '{lacking[0].image.key}'")
        y = np.array([self._class(s.label) for s in self._samples if s.label], np.int64)
        return Rows(y, len(y))

    def _class(self, member: _Member) -> int:
        text = self._data(member)[:_MOST_DIGITS].strip()
        if not text.isdigit() or member.size > _MOST_DIGITS:
            where = f"{self._tars[member.tar]}: {member.key}.{_CLASS}"
            raise BadInputError(f"{where}: {text!r} is no class; a number in digits is expected")
        return min(int(text), np.iinfo(np.int64).max)

    def _decode(self, sample: _Sample, shape: tuple[int, ...] | None) -> Array:
        member = sample.image
        where = Path(f"{self._tars[member.tar]}: {member.key}.{member.suffix}")
        most = most_bytes(MOST_PIXELS if shape is None else shape[1] * shape[2])
        if member.size > most:
            raise BadInputError(f"{where}: too large ({member.size} bytes, at most {most})")
        return decode_bytes(where, self._data(member), shape)

    def _data(self, member: _Member) -> bytes:
        path = self._tars[member.tar]
        with reading(path), open_regular(path) as file:
            file.seek(member.offset)
            data = file.read(member.size)
        if len(data) != member.size:
            raise damaged(path, f"{member.key}.{member.suffix} is cut off")
        return data


def _names(members: list[_Member]) -> str:
    return ", ".join(f"{m.key}.{m.suffix}" for m in members)


def _members(path: Path, number: int, file: BinaryIO) -> Iterator[_Member]:
    """The regular files of a tar file, in order; sizes that it claims are compared with its own."""
    end = file.seek(0, 2)
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for info in archive:
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                told = f"'{info.name}' is no regular file"
                raise BadInputError(f"{path}: {told}; pack files alone")
            if info.offset_data + info.size > end:
                raise damaged(path, f"'{info.name}' is cut off")
            name = PurePosixPath(info.name)
            base, _, suffix = name.name.partition(".")
            key = str(name.parent / base)
            yield _Member(number, key, suffix.lower(), info.offset_data, info.size)
