"""Data sets that are read in parts, so that any number of samples takes constant memory.

What ``coding.read_data`` reads at once: npz, npy, idx and folders of images; and folders of tar
files as webdataset writes them, and of Arrow files as Hugging Face ``datasets`` saves them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from snncc.errors import BadInputError, Option, UsageError, Words
from snncc.runtime.array_files import ArrayFile, Rows, read_labels, reading
from snncc.runtime.arrow_folders import ArrowFolder, is_arrow_folder
from snncc.runtime.coding import (
    Dataset,
    check_labels,
    check_shape,
    lacks_channel,
    with_channel,
)
from snncc.runtime.images import decode, images_of, require_images
from snncc.runtime.tar_shards import TarShards, tars_of

__all__ = ["DataSet", "content_hash", "open_data"]

Array = npt.NDArray[Any]
_StrPath = str | os.PathLike[str]


class _Stored(Protocol):
    """Samples on disk.

    Attributes:
        kind: Name of the format.
        shape: ``(N, ...)`` of all samples.
        dtype: Of the samples, as they are read.
        labels: Of all samples, as stored, or None.
        mask_shape: Of all patch masks; (): there are none.
    """

    @property
    def kind(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def labels(self) -> Rows | None: ...
    @property
    def mask_shape(self) -> tuple[int, ...]: ...

    def samples(self, first: int, last: int) -> Array:
        """Samples ``first`` to ``last - 1``."""

    def masks(self, first: int, last: int) -> Array | None:
        """Their patch masks."""

    def close(self) -> None:
        """Let go of the files."""


class DataSet:
    """Samples that are read in parts; made by ``open_data``.

    Attributes:
        origin: Path and format, for reports.
        total: How many samples there are, ``limit`` applied.
        stored_shape: Of a sample in the file.
        dtype: Of the samples, as stored.
        labels: Class indices ``[total]`` int64, or None.
        notes: What samples are taken for that they are not as stored, for reports.
    """

    def __init__(
        self,
        stored: _Stored,
        origin: str,
        shape: tuple[int, ...] | None,
        total: int,
        labels: Array | None,
        masks: bool,
    ) -> None:
        self._stored, self._shape, self._masks = stored, shape, masks
        self.origin, self.total, self.labels = origin, total, labels
        self.stored_shape, self.dtype = stored.shape[1:], stored.dtype
        none = np.empty((0, *self.stored_shape), self.dtype)
        self.notes = with_channel(none, shape, stored.kind)[1]

    def __len__(self) -> int:
        return self.total

    def read(self, first: int, last: int) -> Dataset:
        """Samples ``first`` to ``last - 1``, their labels and patch masks.

        Raises:
            BadInputError: They are damaged.
        """
        stored = self._stored.samples(first, last)
        x = with_channel(stored, self._shape, self._stored.kind)[0]
        y = None if self.labels is None else self.labels[first:last]
        mask = self._stored.masks(first, last) if self._masks else None
        return Dataset(x, y, self.origin, mask, self.notes)

    def classes_of(self, path: Path) -> Array:
        """Class indices ``[total]`` int64 from a file that has one for each sample of the data.

        Raises:
            BadInputError: It cannot be read, or has others.
        """
        found = read_labels(path)
        check_labels(found, self._stored.shape[0], path)
        return found.values[: self.total].astype(np.int64)

    def close(self) -> None:
        """Let go of the files."""
        self._stored.close()


def open_data(
    path: _StrPath,
    labels: _StrPath | None = None,
    shape: Sequence[int] | None = None,
    limit: int | None = None,
    masks: bool = False,
) -> DataSet:
    """Open a data set; its samples are checked when they are read, their shape and labels now.

    Args:
        path: File or folder, see ``coding.read_data``; of tar files a folder or one file, of Arrow
            files the folder of one split.
        labels: A file of its own for the labels; it overrules labels in ``path``.
        shape: What the network takes per sample.
        limit: At most so many samples, from the first.
        masks: Read patch masks, too, if there are any.

    Raises:
        BadInputError: A file is missing, damaged, empty, of an unknown format or the wrong shape.
        UsageError: ``limit`` is below 1.
        MissingDependencyError: A package is needed for the format.
    """
    if limit is not None and limit < 1:
        raise UsageError(Words(Option("limit", limit), ": must be at least 1"))
    source, wanted = Path(path), None if shape is None else tuple(int(n) for n in shape)
    with reading(source):
        stored = _open(source, wanted)
    try:
        total = stored.shape[0]
        found = stored.labels if labels is None else read_labels(Path(labels))
        if found is not None:
            check_labels(found, total, source if labels is None else Path(labels))
        if masks and stored.mask_shape and stored.mask_shape[0] != total:
            told = f"mask of shape {list(stored.mask_shape)} for {total} samples"
            raise BadInputError(f"{source}: {told}; give one mask for each")
        taken = total if limit is None else min(limit, total)
        y = None if found is None else found.values[:taken].astype(np.int64)
        return DataSet(stored, f"{source} ({stored.kind})", wanted, taken, y, masks)
    except BaseException:
        stored.close()
        raise


def _open(source: Path, shape: tuple[int, ...] | None) -> _Stored:
    if tars := tars_of(source):
        return TarShards(source, tars, shape)
    if source.is_dir():
        return (
            ArrowFolder(source, shape) if is_arrow_folder(source) else _ImageFolder(source, shape)
        )

    def check(found: tuple[int, ...]) -> None:
        if shape is not None and 0 not in found and not lacks_channel(found, shape):
            check_shape(found, shape, str(source))

    return ArrayFile(source, check)


class _ImageFolder:
    """A folder of images, decoded when they are asked for."""

    mask_shape: tuple[int, ...] = ()
    dtype = np.dtype(np.uint8)

    def __init__(self, folder: Path, shape: tuple[int, ...] | None) -> None:
        require_images(folder, shape)
        self._files, y = images_of(folder)
        self._each = decode(self._files[0], shape).shape
        self.shape = (len(self._files), *self._each)
        self.labels = None if y is None else Rows(y, len(y))
        self.kind = "images" if y is None else f"images, {int(y.max()) + 1} classes"

    def samples(self, first: int, last: int) -> Array:
        """See _Stored."""
        return np.stack([decode(file, self._each) for file in self._files[first:last]])

    def masks(self, first: int, last: int) -> None:
        """See _Stored."""

    def close(self) -> None:
        """See _Stored."""


def content_hash(part: Dataset) -> str:
    """sha256 of samples, labels and masks: the same for the same numbers, wherever they lie."""
    digest = hashlib.sha256()
    for array in (part.x, part.y, part.mask):
        if array is None:
            digest.update(b"none;")
            continue
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{little.dtype.str} {list(little.shape)};".encode())
        digest.update(little.data)
    return digest.hexdigest()
