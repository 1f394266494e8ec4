"""Patch masks as data: which patches of each sample a network sees.

In files and feeds a mask is an array of zeros and ones, 1 for an active patch, beside the samples.
Inside, image and mask are one array of integers, see ``with_planes``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from snncc.errors import BadInputError
from snncc.program import MASKED

__all__ = ["MASK", "check_mask", "random_masks", "with_planes"]

#: Name of the second input, and of the array in npz files.
MASK = "mask"

Array = npt.NDArray[Any]


def check_mask(
    mask: Array | None, samples: int, patches: tuple[int, int], where: str = MASK
) -> npt.NDArray[np.uint8]:
    """The same mask as uint8 ``[N, 1, h, w]``; without one every patch is active.

    Args:
        mask: Zeros and ones ``[N, 1, h, w]`` or ``[N, h, w]``, of any type of number.
        samples: N.
        patches: (h, w).
        where: What it is, for messages: a file's array.

    Raises:
        BadInputError: Another shape or other values.
    """
    shape = (samples, 1, *patches)
    if mask is None:
        return np.ones(shape, np.uint8)
    if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "buif":
        kind = getattr(mask, "dtype", type(mask).__name__)
        raise BadInputError(f"{where}: {kind}, not a numpy array of zeros and ones")
    if mask.shape not in (shape, (samples, *patches)):
        n, h, w = samples, *patches
        raise BadInputError(
            f"{where}: shape {list(mask.shape)}, the network takes [{n}, 1, {h}, {w}] or "
            f"[{n}, {h}, {w}]: one mask of {h}x{w} patches for each sample"
        )
    wrong = (mask != 0) & (mask != 1)
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise BadInputError(
            f"{where}: {mask[first]} at index {list(first)}, {int(wrong.sum())} such values; 1 is "
            "an active patch, 0 a masked one"
        )
    return mask.astype(np.uint8).reshape(shape)


def with_planes(x: Array, mask: Array) -> npt.NDArray[np.uint8]:
    """Pixels, 0 where masked, and for each channel a plane with 255 in masked patches, 0 elsewhere.

    Args:
        x: uint8 ``[N, C, H, W]``.
        mask: uint8 ``[N, 1, h, w]``; h divides H and w divides W.

    Returns:
        uint8 ``[N, 2 C, H, W]``, the integers of the source.
    """
    rows, columns = (x.shape[i] // mask.shape[i] for i in (2, 3))
    active = mask.repeat(rows, axis=2).repeat(columns, axis=3)
    planes = np.broadcast_to(MASKED * (1 - active), x.shape)
    return np.concatenate([x * active, planes], axis=1, dtype=np.uint8)


def random_masks(samples: int, patches: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Masks ``[N, 1, h, w]``, always the same, with half of the patches active, rounded up."""
    count = patches[0] * patches[1]
    order = np.random.default_rng(0).random((samples, count)).argsort(axis=1).argsort(axis=1)
    return (2 * order < count).astype(np.uint8).reshape(samples, 1, *patches)
