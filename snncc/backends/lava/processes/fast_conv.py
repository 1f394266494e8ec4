"""A faster ProcessModel for Lava's own Conv: the same integers, by matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.conv.models import PyConvModelFixed
from lava.proc.conv.process import Conv
from numpy.lib.stride_tricks import sliding_window_view

__all__ = ["PyFastConv"]


@implements(proc=Conv, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyFastConv(PyConvModelFixed):
    """As PyConvModelFixed, which loops over pairs of channels in Python.

    Sums are computed in floating point, in the narrowest type in which every integer that may
    occur is exact: float32 up to 2**24, else float64.
    """

    #: 8 bits in Lava's model, which is too few for a depthwise convolution of 128 channels.
    groups: np.ndarray = LavaPyType(np.ndarray, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.matrix: Any = None
        self.may_wrap = True
        self.a_buf: Any = None

    def run_spk(self) -> None:
        """One tick; what is sent is the sum of the tick before, as in every Conv."""
        self.a_out.send(self.a_buf)
        s_in = self.s_in.recv()
        if self.num_message_bits.item() == 0:
            s_in = s_in.astype(bool)
        if s_in.any():
            sums = self.convolved(s_in)
            self.a_buf = self.clamp_precision(sums) if self.may_wrap else sums
        else:
            self.a_buf = np.zeros_like(self.a_buf)

    def convolved(self, s_in: np.ndarray) -> np.ndarray:
        """The convolution of (W, H, C), int32."""
        if self.matrix is None:
            self.matrix = self.prepared()
        (px, py), (sx, sy), (dx, dy) = self.padding, self.stride, self.dilation
        values = np.pad(s_in.astype(self.matrix.dtype), ((px, px), (py, py), (0, 0)))
        extent = [d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True)]
        every = sliding_window_view(values, extent, axis=(0, 1))
        windows = every[::sx, ::sy, :, ::dx, ::dy]
        w, h = windows.shape[:2]
        groups, taps, outputs = self.matrix.shape
        patches = windows.reshape(w * h, groups, taps).transpose(1, 0, 2)
        sums = (patches @ self.matrix).transpose(1, 0, 2)
        return np.asarray(sums.reshape(w, h, groups * outputs), dtype=np.int32)

    def prepared(self) -> np.ndarray:
        """Weights as (groups, taps, outputs of a group); a convolution turns its kernel round."""
        groups = int(self.groups[0])
        turned = self.weight[:, ::-1, ::-1].transpose(0, 3, 1, 2)
        matrix = turned.reshape(groups, len(turned) // groups, -1).transpose(0, 2, 1)
        reach = int(np.abs(matrix).sum(axis=1).max()) << int(self.num_message_bits.item())
        self.may_wrap = reach >= 2**23
        return np.ascontiguousarray(matrix, dtype=np.float32 if reach < 2**24 else np.float64)
