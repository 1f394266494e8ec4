"""Readers of data: npz, npy, idx (also gzipped) and folders of images become one ``Dataset``.

Nothing is resized, cropped or rescaled silently.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from snncc.errors import BadInputError, Option, UsageError, Words
from snncc.runtime.array_files import Rows, read_arrays, read_labels, read_masks, reading
from snncc.runtime.images import read_folder

__all__ = [
    "Dataset",
    "check_input",
    "check_labels",
    "check_shape",
    "lacks_channel",
    "normalise",
    "pieces",
    "read_data",
    "with_channel",
    "write_arrays",
]

Array = npt.NDArray[Any]
StrPath = str | os.PathLike[str]
_Read = tuple[Array, Rows | None, int, str]  # samples, labels, how many there are in all, format

_PIECE = 1 << 24  # bytes looked at together
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples, and their labels if there are any.

    Attributes:
        x: Samples ``[N, ...]``, dtype as stored, native byte order.
        y: Class indices ``[N]`` int64, or None.
        origin: Where the samples came from, for reports: path and format.
        mask: Patch masks ``[N, ...]``, as stored, or None.
        notes: What the samples are taken for that they are not as stored, for reports.
    """

    x: Array
    y: Array | None
    origin: str
    mask: Array | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def take(self, limit: int | None) -> Dataset:
        """The first ``limit`` samples (all of them for None or a large limit).

        Raises:
            UsageError: ``limit`` is below 1.
        """
        _check_limit(limit)
        y = None if self.y is None else self.y[:limit]
        mask = None if self.mask is None else self.mask[:limit]
        return replace(self, x=self.x[:limit], y=y, mask=mask)


def read_data(
    path: StrPath,
    labels: StrPath | None = None,
    shape: Sequence[int] | None = None,
    limit: int | None = None,
    masks: bool = False,
) -> Dataset:
    """Read samples, and labels where there are any.

    npz: ``x``, or ``images``, or the only array; labels in ``y`` or ``labels``, patch masks in
    ``mask``. npy and idx: the array. Sequences are ``[N, T, C, H, W]`` or ``[N, T, F]``. Grey
    images and sequences of them may lack their C, if the network's ``shape`` has one channel (an
    idx array ``[N, H, W]`` also without a ``shape``): they get it, and ``notes`` says so. Folder:
    one sub-folder per class (sorted by name: class 0, 1, ...) or images alone; uint8,
    ``[N, 3, H, W]`` RGB or ``[N, 1, H, W]`` grey, in the order of the names; EXIF rotation is not
    applied.

    Args:
        path: File or folder.
        labels: A file of its own for the labels (npz, npy or idx); it overrules labels in ``path``.
        shape: What the network takes per sample, e.g. ``(1, 28, 28)``, or ``(T, 1, 28, 28)`` of
            sequences; None: not checked.
        limit: At most so many samples, from the first, and no more of the data than they need;
            that the rest is whole is then not checked.
        masks: Read patch masks, too, if there are any.

    Raises:
        BadInputError: A file is missing, damaged, empty, of an unknown format or the wrong shape,
            or does not fit into memory.
        UsageError: ``limit`` is below 1.
        MissingDependencyError: A folder of images without pillow.
    """
    _check_limit(limit)
    source = Path(path)
    wanted = None if shape is None else tuple(int(n) for n in shape)
    with reading(source):
        is_folder = source.is_dir()
        x, y, total, kind = (_read_images if is_folder else _read_samples)(source, wanted, limit)
    if labels is not None:
        y = read_labels(Path(labels), limit)
    if y is not None:
        check_labels(y, total, Path(labels) if labels is not None else source)
    mask = _masks_of(source, limit, total) if masks and not is_folder else None
    x, notes = with_channel(x, wanted, kind)
    if wanted is not None:
        check_shape((total, *x.shape[1:]), wanted, str(source))
        notes += _rounding(x)
    return Dataset(
        x,
        None if y is None else y.values.astype(np.int64),
        f"{source} ({kind})",
        mask,
        notes,
    )


def _masks_of(source: Path, limit: int | None, total: int) -> Array | None:
    """The patch masks of a file of ``total`` samples, if it has any."""
    mask = read_masks(source, limit)
    if mask is None:
        return None
    if mask.shape[:1] != (total,):
        found = f"mask of shape {list(mask.shape)}"
        raise BadInputError(f"{source}: {found} for {total} samples; give one mask for each")
    return mask.values


def check_input(
    x: Array, shape: Sequence[int], dtype: npt.DTypeLike, where: str = "input"
) -> Array:
    """The same samples, contiguous, in native byte order and exactly of the dtype asked for.

    Args:
        x: Samples ``[N, *shape]``.
        shape: Shape of one sample.
        dtype: uint8 or float32. For float32, float64 is accepted and rounded.
        where: What they are, for messages: a file.

    Raises:
        BadInputError: No batch axis, wrong shape or dtype, no samples, NaN or infinity.
    """
    if not isinstance(x, np.ndarray):
        raise BadInputError(f"{where}: a {type(x).__name__}, not a numpy array; use numpy.asarray")
    wanted = np.dtype(dtype)
    if wanted not in (np.uint8, np.float32):
        raise BadInputError(f"input: the network asks for {wanted}; only uint8 or float32 can be")
    check_shape(x.shape, tuple(int(n) for n in shape), where)
    return _check_finite(_as_dtype(x, wanted, where), where)


def pieces(x: Array) -> Iterator[Array]:
    """The array in parts along its first axis, for work that would need as much memory again."""
    step = max(1, _PIECE * len(x) // max(1, x.nbytes))
    return (x[at : at + step] for at in range(0, len(x), step))


def normalise(x_u8: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """Raw images as the float network wants them: ``(x / 255 - mean) / std`` per channel.

    Every step is rounded to float32, in this order: x to float32, divide by 255, subtract float32
    mean, divide by float32 std; the same bits as torchvision's ``ToTensor`` and ``Normalize``.

    Args:
        x_u8: ``[N, C, ...]`` uint8.
        mean: One number per channel, or one for all; in units of x / 255.
        std: Likewise, above 0.

    Returns:
        float32 of the same shape.

    Raises:
        BadInputError: ``x_u8`` is not uint8 or has no channel axis.
        UsageError: ``mean`` or ``std`` has the wrong length or values.
    """
    if x_u8.dtype != np.uint8 or x_u8.ndim < 2:
        found = f"{x_u8.dtype} {list(x_u8.shape)}"
        raise BadInputError(f"normalise: input is {found}, expected raw uint8 [N, C, ...]")
    out = x_u8.astype(np.float32)
    out /= np.float32(255)
    out -= _per_channel("mean", mean, x_u8)
    deviation = _per_channel("std", std, x_u8)
    if not (deviation > 0).all():
        raise UsageError(Words(Option("std"), f": {list(std)} must be above 0"))
    out /= deviation
    return out


def _storable(name: str, array: Array) -> Array:
    array = np.asarray(array, order="C")
    if array.dtype.kind not in "buif":
        raise BadInputError(f"array '{name}': {array.dtype} cannot be stored, only numbers")
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def write_arrays(file: BinaryIO, arrays: Mapping[str, Array]) -> None:
    """Write an npz file whose bytes depend only on names and values.

    Args:
        file: Is written to.
        arrays: Numbers only; stored in order of their names, uncompressed, little endian.

    Raises:
        BadInputError: An array holds objects.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name in sorted(arrays):
            array = _storable(name, arrays[name])
            info = zipfile.ZipInfo(f"{name}.npy", date_time=_EPOCH)
            info.create_system, info.external_attr = 3, 0o644 << 16  # the same on every platform
            info.file_size = array.nbytes + 1024  # lets zipfile choose zip64 where it must
            with archive.open(info, "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


# --- checks ---------------------------------------------------------------------------------------


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise UsageError(Words(Option("limit", limit), ": must be at least 1"))


def check_shape(found: tuple[int, ...], shape: tuple[int, ...], where: str) -> None:
    """Samples are of the shape that the network takes, and there are some.

    Args:
        found: ``[N, ...]`` of all samples.
        shape: What the network takes of each.
        where: What they are, for the message.

    Raises:
        BadInputError: They are not; with what could be done.
    """
    if len(found) == len(shape) + 1 and found[1:] == shape and found[0]:
        return
    expected = ", ".join(map(str, ("N", *shape)))
    message = f"{where}: shape {list(found)}, the network takes [{expected}]"
    raise BadInputError(Words(message, "; ", _shape_hint(found, shape)))


def _shape_hint(found: tuple[int, ...], shape: tuple[int, ...]) -> str:
    if found == shape:
        return "this is a single sample: add a batch axis, x[None]"
    if found[1:] == shape:
        return "there are no samples"
    if lacks_channel(found, shape):
        return "grey images without their channel: add it, numpy.expand_dims(x, -3)"
    if len(shape) == 3 and found[1:] == (*shape[1:], shape[0]):
        return "channels are last: transpose with x.transpose(0, 3, 1, 2)"
    if len(shape) in (2, 4) and (hint := _sequence_hint(found, shape)):
        return hint
    if len(found) == len(shape) + 2 and found[2:] == shape:
        told = "these are sequences, it takes one static sample: compile it with "
        return Words(told, Option("timesteps"))
    return "nothing is resized or reshaped silently: preprocess the data"


def _sequence_hint(found: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """What is wrong with samples of a network that takes sequences ``(T, *frame)``."""
    T, *frame = shape
    if list(found[1:]) == frame:
        return f"these are static samples, it takes sequences of {T} timesteps"
    if list(found[2:]) != frame:
        return ""
    if found[0] == T:
        return "timesteps are first: transpose with x.swapaxes(0, 1)"
    steps = "1 timestep" if found[1] == 1 else f"{found[1]} timesteps"
    return f"these are sequences of {steps}, it takes {T}"


def _as_dtype(x: Array, wanted: np.dtype[Any], where: str) -> Array:
    found = x.dtype.newbyteorder("=")
    if found != wanted and not (wanted == np.float32 and found == np.float64):
        hint = "convert first, raw pixels with snncc.runtime.coding.normalise"
        if wanted == np.uint8:
            hint = "it takes raw pixels 0..255, normalisation is inside"
            hint += "; x.astype(numpy.uint8) if they are" if x.dtype.kind in "iu" else ""
        raise BadInputError(f"{where}: dtype {x.dtype}, the network takes {wanted}; {hint}")
    with np.errstate(over="ignore"):  # what overflows to infinity is refused right after
        return np.ascontiguousarray(x, dtype=wanted)


def _check_finite(x: Array, where: str) -> Array:
    if x.dtype.kind == "f" and not all(np.isfinite(part).all() for part in pieces(x)):
        finite = np.isfinite(x)
        first = np.unravel_index(int(np.argmin(finite)), x.shape)
        index = [int(i) for i in first]
        message = f"{where}: {x[first]} (as float32) at index {index}"
        raise BadInputError(f"{message}, {int((~finite).sum())} such values; clean the data")
    return x


def check_labels(labels: Rows, samples: int, path: Path) -> None:
    """Labels are class indices, one for each sample, before they are int64, which not all fit.

    Args:
        labels: As stored.
        samples: How many there are.
        path: The file of the labels, for messages.

    Raises:
        BadInputError: They are not.
    """
    y = labels.values
    if y.dtype.kind not in "ui" or y.ndim != 1:
        found = f"{y.dtype} {list(labels.shape)}"
        raise BadInputError(f"{path}: labels are {found}, expected class indices, integers [N]")
    if labels.total != samples:
        found = f"{labels.total} labels for {samples} samples"
        raise BadInputError(f"{path}: {found}; give one for each")
    wrong = (y < 0) | (y > np.iinfo(np.int64).max)
    if wrong.any():
        index = int(np.argmax(wrong))
        most = np.iinfo(np.int64).max
        raise BadInputError(f"{path}: label {y[index]} at index {index}; classes are 0 to {most}")


def _per_channel(name: str, values: Sequence[float], x: Array) -> Array:
    channels = x.shape[1]
    array = np.asarray(values, dtype=np.float32).reshape(-1)
    if len(array) not in (1, channels):
        told = f": {len(array)} values for {channels} channels"
        raise UsageError(Words(Option(name), told))
    if not np.isfinite(array).all():
        raise UsageError(Words(Option(name), f": {list(values)} must be finite"))
    return array.reshape(1, -1, *[1] * (x.ndim - 2))


def _read_samples(path: Path, shape: tuple[int, ...] | None, limit: int | None) -> _Read:
    def check(found: tuple[int, ...]) -> None:
        if shape is not None and 0 not in found and found and not lacks_channel(found, shape):
            check_shape(found, shape, str(path))

    x, y, kind = read_arrays(path, limit, check)
    if x.values.ndim == 0 or x.values.size == 0:
        raise BadInputError(f"{path}: no samples, shape {list(x.shape)}; expected [N, ...]")
    return x.values, y, x.total, kind


def _read_images(path: Path, shape: tuple[int, ...] | None, limit: int | None) -> _Read:
    x, y, total, kind = read_folder(path, shape, limit)
    return x, None if y is None else Rows(y[: len(x)], total), total, kind


def with_channel(
    x: Array, shape: tuple[int, ...] | None, kind: str
) -> tuple[Array, tuple[str, ...]]:
    """Grey samples with their channel axis, and a note of it if it was not stored."""
    is_bare_idx = shape is None and kind.startswith("idx") and x.ndim == 3
    if not (is_bare_idx or (shape is not None and lacks_channel(x.shape, shape))):
        return x, ()
    whole = np.expand_dims(x, -3)
    found, taken = (", ".join(map(str, ("N", *a.shape[1:]))) for a in (x, whole))
    return whole, (f"[{found}] taken as [{taken}], grey",)


def lacks_channel(found: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether these are the grey images, or sequences of them, that ``shape`` wants with a C."""
    return len(shape) in (3, 4) and shape[-3] == 1 and found[1:] == (*shape[:-3], *shape[-2:])


def _rounding(x: Array) -> tuple[str, ...]:
    """A note if ``check_input`` will change values."""
    with np.errstate(over="ignore"):  # what overflows is refused there
        is_rounded = x.dtype == np.float64 and not all(
            np.array_equal(part, part.astype(np.float32)) for part in pieces(x)
        )
    return ("float64 rounded to float32",) if is_rounded else ()
