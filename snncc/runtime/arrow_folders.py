"""Folders of Arrow files, as Hugging Face ``datasets`` saves a split with ``save_to_disk``.

Images are taken as the bytes that are stored, and decoded by our own bounded reader: a path in such
a file is never opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snncc.errors import BadInputError, MissingDependencyError
from snncc.runtime.array_files import Rows
from snncc.runtime.images import decode_bytes, require_images

__all__ = ["ArrowFolder", "is_arrow_folder"]

Array = npt.NDArray[Any]

_X_NAMES = ("x", "image", "images", "img")
_Y_NAMES = ("y", "label", "labels")
_SPLITS, _SPLIT = "dataset_dict.json", "state.json"


def is_arrow_folder(folder: Path) -> bool:
    """Whether ``datasets`` has saved something there."""
    return (folder / _SPLIT).is_file() or (folder / _SPLITS).is_file()


class ArrowFolder:
    """A split of a Hugging Face data set; see ``data_sets``.

    Args:
        folder: Of one split.
        shape: What the network takes of a sample.

    Raises:
        BadInputError: It holds several splits, or no column of images or arrays that is known.
        MissingDependencyError: ``datasets`` or Pillow is not installed.
    """

    mask_shape: tuple[int, ...] = ()

    def __init__(self, folder: Path, shape: tuple[int, ...] | None) -> None:
        self._folder = folder
        table = _loaded(folder)
        self._name, self._is_image = self._column(table)
        self._x = self._samples_of(table)
        self.labels = _labels(table)
        if self._is_image:
            require_images(folder, shape)
            self._each: tuple[int, ...] | None = shape
            self._each = self.samples(0, 1).shape[1:]
        first = self.samples(0, 1)
        self.shape, self.dtype = (len(table), *first.shape[1:]), first.dtype
        self.kind = "datasets"

    def samples(self, first: int, last: int) -> Array:
        """Samples ``first`` to ``last - 1``."""
        rows = self._x[first:last][self._name]
        if not self._is_image:
            return np.ascontiguousarray(rows)
        return np.stack([self._image(first + i, row) for i, row in enumerate(rows)])

    def masks(self, first: int, last: int) -> None:
        """There are none."""

    def close(self) -> None:
        """The files are mapped into memory as long as they are used."""

    def _column(self, table: Any) -> tuple[str, bool]:
        """The column of samples, and whether these are images."""
        import datasets

        features = table.features
        known = {
            name: isinstance(kind, datasets.Image)
            for name, kind in features.items()
            if isinstance(kind, datasets.Image) or hasattr(kind, "shape")
        }
        named = [name for name in _X_NAMES if name in known][:1]
        names = named or (list(known) if len(known) == 1 else [])
        if not names:
            held = ", ".join(f"{name} ({type(kind).__name__})" for name, kind in features.items())
            wanted = "a column of type Image, or Array2D to Array5D, named x or image"
            raise BadInputError(f"{self._folder}: holds {held or 'nothing'}; expected {wanted}")
        return names[0], known[names[0]]

    def _samples_of(self, table: Any) -> Any:
        import datasets

        alone = table.select_columns([self._name])
        if self._is_image:
            return alone.cast_column(self._name, datasets.Image(decode=False))
        return alone.with_format("numpy", dtype=np.dtype(table.features[self._name].dtype))

    def _image(self, number: int, row: Any) -> Array:
        where = Path(f"{self._folder}: image {number}")
        if not isinstance(row, dict) or not row.get("bytes"):
            raise BadInputError(
                f"{where}: is not in the data set, only its path, which is not followed; save the "
                "data set with its images"
            )
        return decode_bytes(where, row["bytes"], self._each)


def _loaded(folder: Path) -> Any:
    try:
        import datasets
    except ImportError as e:
        hint = "pip install 'snncc[datasets]'"
        raise MissingDependencyError(f"{folder}: needs Hugging Face datasets; {hint}") from e
    if (folder / _SPLITS).is_file():
        splits = sorted(entry.name for entry in folder.iterdir() if is_arrow_folder(entry))
        told = f"holds the splits {', '.join(splits)}"
        raise BadInputError(f"{folder}: {told}; name the folder of one, {folder}/{splits[-1]}")
    datasets.utils.logging.set_verbosity_error()
    table = datasets.load_from_disk(str(folder))
    if not len(table):
        raise BadInputError(f"{folder}: no samples")
    return table


def _labels(table: Any) -> Rows | None:
    """The column of class indices, if there is one."""
    name = next((name for name in _Y_NAMES if name in table.features), None)
    if name is None:
        return None
    y = np.asarray(table.select_columns([name]).with_format("numpy")[:][name])
    return Rows(y, len(y))
