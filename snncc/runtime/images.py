"""Folders of images as samples: one sub-folder per class, or images alone.

Images are never trusted: only the formats named here are tried, so that no other of Pillow's
readers ever sees a file (one of them starts a PostScript interpreter); bytes and pixels are bounded
before any are decoded; and only regular files are opened.
"""

from __future__ import annotations

import io
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from snncc.errors import BadInputError, MissingDependencyError
from snncc.runtime.array_files import reading
from snncc.system.damage import open_regular

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "FORMATS",
    "MOST_PIXELS",
    "SUFFIXES",
    "decode",
    "decode_bytes",
    "images_of",
    "most_bytes",
    "read_folder",
    "require_images",
]

Array = npt.NDArray[Any]

#: Pillow's names of the formats that are read, whatever a file's name says.
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
#: Of an image whose size nobody has said; 8192 by 8192.
MOST_PIXELS = 1 << 26

#: What names of image files end with.
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_BYTES_PER_PIXEL = 16  # of a file: four channels of 16 bits, twice
_BYTES_BESIDES = 1 << 24  # thumbnails, profiles and texts


def read_folder(
    folder: Path, shape: tuple[int, ...] | None, limit: int | None
) -> tuple[Array, Array | None, int, str]:
    """Samples ``[N, C, H, W]`` uint8, classes, how many images there are in all, and a description.

    Args:
        folder: One sub-folder per class (sorted by name: class 0, 1, ...) or images alone.
        shape: ``(C, H, W)`` that the network takes; None: those of the first image.
        limit: Only the first images are decoded.

    Raises:
        BadInputError: Not such a folder, or an image in it cannot be taken.
        MissingDependencyError: Pillow is not installed.
    """
    require_images(folder, shape)
    files, y = images_of(folder)
    chosen = files[:limit]
    first = decode(chosen[0], shape)
    x = np.empty((len(chosen), *first.shape), np.uint8)
    for index, file in enumerate(chosen):
        x[index] = decode(file, first.shape)
    kind = "images" if y is None else f"images, {int(y.max()) + 1} classes"
    return x, y, len(files), kind


def require_images(where: Path, shape: tuple[int, ...] | None) -> None:
    """The network takes images.

    Args:
        where: What holds them, for the message.
        shape: What it takes of a sample; None: nobody knows.

    Raises:
        BadInputError: It takes something else.
    """
    if shape is not None and (len(shape) != 3 or shape[0] not in (1, 3)):
        raise BadInputError(f"{where}: images are [1|3, H, W], the network takes {list(shape)}")


def images_of(folder: Path) -> tuple[list[Path], Array | None]:
    """The images of a folder in order, and their classes if there are sub-folders.

    Raises:
        BadInputError: Not such a folder, see ``read_folder``.
    """
    visible = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    classes = [entry for entry in visible if entry.is_dir()]
    flat = _images(visible)
    if bool(classes) == bool(flat):
        found = "both images and sub-folders" if flat else "no images"
        raise BadInputError(f"{folder}: {found}; expected one sub-folder per class, or images only")
    if flat:
        return flat, None
    groups = [_images(sorted(entry.iterdir())) for entry in classes]
    if empty := [entry.name for entry, group in zip(classes, groups, strict=True) if not group]:
        names = ", ".join(empty)
        raise BadInputError(f"{folder}: no images in {names}; every sub-folder is a class")
    y = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    return [file for group in groups for file in group], y


def _images(entries: list[Path]) -> list[Path]:
    """What is named as an image and no folder; whether it is one is seen when it is opened."""
    return [
        entry
        for entry in entries
        if entry.suffix.lower() in SUFFIXES
        and not entry.name.startswith(".")
        and not entry.is_dir()
    ]


# -- one image -----------------------------------------------------------------------------


def decode(path: Path, shape: tuple[int, ...] | None = None) -> Array:
    """One image ``[C, H, W]`` uint8; its size is compared before its pixels are decoded.

    Args:
        path: The file.
        shape: Grey for one channel, RGB for three; None: as it is stored, at most ``MOST_PIXELS``.

    Raises:
        BadInputError: No regular file, not an image, of another size, too large or of more than 8
            bits.
        MissingDependencyError: Pillow is not installed.
    """
    with reading(path), open_regular(path) as file:
        return _decoded(path, file, shape)


def decode_bytes(where: Path, data: bytes, shape: tuple[int, ...] | None = None) -> Array:
    """One image that lies in another file; see ``decode``.

    Args:
        where: That file and the image's name in it, for messages.
        data: Of the image.
        shape: As of ``decode``.

    Raises:
        BadInputError, MissingDependencyError: See ``decode``.
    """
    with reading(where), io.BytesIO(data) as file:
        return _decoded(where, file, shape)


def _decoded(path: Path, file: BinaryIO, shape: tuple[int, ...] | None) -> Array:
    try:
        import PIL.Image
    except ImportError as error:
        hint = "pip install 'snncc[images]'"
        raise MissingDependencyError(f"images need pillow; {hint}") from error
    logging.getLogger("PIL").addHandler(_SILENT)  # what it logs of a file is in our own words, too
    _check_bytes(path, file, MOST_PIXELS if shape is None else shape[1] * shape[2])
    with _opened(PIL.Image, path, file) as image:
        _check_image(path, image, shape)
        grey = image.mode in ("1", "L", "LA") if shape is None else shape[0] == 1
        with _quiet() if image.format == "TIFF" else nullcontext():
            values = np.asarray(image.convert("L" if grey else "RGB"))
    return values[None] if grey else np.ascontiguousarray(values.transpose(2, 0, 1))


@contextmanager
def _opened(pillow: ModuleType, path: Path, file: BinaryIO) -> Iterator[Image]:
    """The image of a file, as one of the formats; what Pillow warns of is refused or harmless."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes there is a check, the rest are odd tags
        try:
            image = pillow.open(file, formats=FORMATS)
        except pillow.UnidentifiedImageError as error:
            known = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
            raise BadInputError(
                f"{path}: cannot be read as {known}; save the image as PNG"
            ) from error
        except pillow.DecompressionBombError as error:
            raise _too_large(path, "more pixels than Pillow takes") from error
        with image:
            yield image


_SILENT = logging.NullHandler()
_stderr = threading.Lock()


@contextmanager
def _quiet() -> Iterator[None]:
    """The C library for TIFF says on stderr what it thinks of a file, in the file's own words."""
    with _stderr:
        try:
            kept = os.dup(2)
        except OSError:  # it is closed
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def most_bytes(pixels: int) -> int:
    """How many bytes an image of so many pixels may take."""
    return pixels * _BYTES_PER_PIXEL + _BYTES_BESIDES


def _check_bytes(path: Path, file: BinaryIO, pixels: int) -> None:
    """Some readers take the whole file into memory before they know the size of the image."""
    size = file.seek(0, 2)
    if size > most_bytes(pixels):
        raise _too_large(path, f"{size} bytes, more than an image of {pixels} pixels needs")
    file.seek(0)


def _check_image(path: Path, image: Image, shape: tuple[int, ...] | None) -> None:
    if image.mode[0] in "IF":
        raise BadInputError(f"{path}: pixels of more than 8 bits ({image.mode}); save as 8 bit")
    found = f"{image.height}x{image.width}"
    if shape is not None and (image.height, image.width) != shape[1:]:
        message = f"{path}: image is {found}, expected {shape[1]}x{shape[2]}"
        raise BadInputError(f"{message}; nothing is resized silently, preprocess the images")
    if shape is None and image.height * image.width > MOST_PIXELS:
        raise _too_large(path, f"image is {found}, at most {MOST_PIXELS} pixels are decoded")


def _too_large(path: Path, why: str) -> BadInputError:
    return BadInputError(f"{path}: too large ({why}); preprocess the images")
