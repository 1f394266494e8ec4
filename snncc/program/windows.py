"""Windows over maps: how many there are, and all of them as a view. Channels are the last axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

__all__ = ["channels_first", "channels_last", "pooled_size", "windows_of"]

Array = npt.NDArray[Any]


def pooled_size(size: int, kernel: int, stride: int, pad: int, dilation: int = 1) -> int:
    """Output length of a window operation; ``pad`` is the sum of both sides."""
    return (size + pad - dilation * (kernel - 1) - 1) // stride + 1


def channels_last(values: Array) -> Array:
    """(N, C, H, W) as (N, H, W, C); (N, F) as it is."""
    return np.moveaxis(values, 1, -1)


def channels_first(values: Array) -> Array:
    """(N, H, W, C) as (N, C, H, W); (N, F) as it is."""
    return np.moveaxis(values, -1, 1)


def windows_of(
    values: Array,
    kernel: Sequence[int],
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilations: tuple[int, int] = (1, 1),
    padding: int = 0,
) -> Array:
    """All windows of padded (N, H, W, C) as a view (N, H', W', kH, kW, C)."""
    top, left, bottom, right = pads
    around = ((0, 0), (top, bottom), (left, right), (0, 0))
    padded = np.pad(values, around, constant_values=padding)
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    every = sliding_window_view(padded, extent, axis=(1, 2))
    (sh, sw), (dh, dw) = strides, dilations
    view: Array = every[:, ::sh, ::sw, :, ::dh, ::dw].transpose(0, 1, 2, 4, 5, 3)
    return view
