"""Convolution kernels as Lava's Conv takes them."""

from __future__ import annotations

import numpy as np

from snncc.program import Array

__all__ = ["lava_kernel", "symmetric"]

Pair = tuple[int, int]


def lava_kernel(kernel: Array) -> Array:
    """(O, I, H, W), which is correlated, as (O, W, H, I), which Lava convolves."""
    return np.ascontiguousarray(kernel[:, :, ::-1, ::-1].transpose(0, 3, 2, 1))


def symmetric(
    kernel: Array, pads: tuple[int, int, int, int], dilations: Pair
) -> tuple[Array, Pair, Pair]:
    """Kernel, padding and dilations (h, w) of the same convolution padded alike at both ends.

    Lava pads both ends of an axis alike. Where ONNX does not, the kernel grows by zeros at the end
    that has less padding; its dilations become zeros, too.

    Args:
        kernel: (O, I, H, W).
        pads: (top, left, bottom, right).
        dilations: (h, w).
    """
    before, after = pads[:2], pads[2:]
    if before == after:
        return kernel, before, dilations
    size = [d * (k - 1) + 1 for k, d in zip(kernel.shape[2:], dilations, strict=True)]
    wide = np.zeros((*kernel.shape[:2], *size), dtype=kernel.dtype)
    wide[:, :, :: dilations[0], :: dilations[1]] = kernel
    padding = (max(before[0], after[0]), max(before[1], after[1]))
    grown = [(p - b, p - e) for p, b, e in zip(padding, before, after, strict=True)]
    return np.pad(wide, ((0, 0), (0, 0), *grown)), padding, (1, 1)
