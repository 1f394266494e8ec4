"""Random quantised files: chains of layers whose every number is exact, drawn by hypothesis.

Structure is drawn, so it shrinks; numbers come from a generator with a drawn seed. Scales are
float32 that do not survive 1 / (1 / s); those after pools often repeat, so that ties are met.
"""

from __future__ import annotations

from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
import onnx
from float_networks import Net
from hypothesis import strategies as st
from onnx import helper

__all__ = ["OFFSET", "QONNX", "Chain", "chains", "survives"]

QONNX = "qonnx.custom_op.general"


def survives(scale: float) -> bool:
    """Whether 1 / (1 / s) is s in float32."""
    s = np.float32(scale)
    return bool(np.float32(1) / (np.float32(1) / s) == s)


def scale_of(rng: np.random.Generator, size: Any = None, near: float = 0.1) -> np.ndarray:
    """Scales that do not survive, of some size; there is one for each channel."""
    drawn = near * 2 ** rng.uniform(-1, 1, (64, size or 1))
    lost = [next(v for v in column if not survives(v)) for column in drawn.T]
    return np.asarray(lost if size else lost[0], np.float32)


class Chain(Net):
    """A quantised file under construction.

    ``units`` are scales of its activations, by name, and ``lows`` their first integers.
    """

    def __init__(self, shape: tuple[int, ...], seed: int, batch: Any = "N") -> None:
        super().__init__(shape, seed)
        self.batch = batch
        self.units: dict[str, np.ndarray] = {}
        self.lows: dict[str, Fraction] = {}
        self.step = float(scale_of(self.rng))

    def model(self) -> onnx.ModelProto:
        """The file."""
        proto = self.proto(batch=self.batch)
        proto.opset_import.append(helper.make_opsetid(QONNX, 1))
        return proto

    def source(self, zero: int) -> Chain:
        """The input's own quantiser."""
        s, z = self.const(self.step), self.const(zero, np.uint8)
        self.zero = zero
        return self.then("QuantizeLinear", s, z).then("DequantizeLinear", s, z)  # type: ignore[return-value]

    def samples(self, count: int) -> np.ndarray:
        """Inputs on the input's grid."""
        k = self.rng.integers(0, 256, (count, *self.input))
        return np.asarray((k - self.zero) * np.float32(self.step), np.float32)

    def dequantised(self, integers: np.ndarray, scale: np.ndarray, dtype: Any = np.int8) -> str:
        """Constants through a DequantizeLinear, scales along axis 0."""
        args = (
            self.const(integers, dtype),
            self.const(scale),
            self.const(np.zeros_like(scale), dtype),
        )
        return self.node("DequantizeLinear", *args, axis=0)

    def layer(self, out: int, kernel: int, pads: int, group: int, per_channel: bool) -> Chain:
        """A convolution of 4-bit weights with a 32-bit bias, or a float one."""
        shape = (out, self.shape[0] // group, kernel, kernel)
        scale = scale_of(self.rng, out if per_channel else None, 0.2)
        w = self.rng.integers(-7, 8, shape)
        w.reshape(out, -1)[:, 0] = 7
        own = np.asarray(scale * np.float32(self.step), np.float32)
        reach = 7 * prod(shape[1:])
        bias = self.dequantised(self.rng.integers(-reach, reach, out), own, np.int32)
        args = [self.dequantised(w, scale)]
        if self.rng.random() < 0.8:
            args.append(bias if self.rng.random() < 0.5 else self.const(self.rng.normal(size=out)))
        self.then("Conv", *args, pads=[pads] * 4, kernel_shape=[kernel] * 2, group=group)
        self.shape = (out, *(n + 2 * pads - kernel + 1 for n in self.shape[1:]))
        self.rms = self.step * float(scale.mean()) * 4 * prod(shape[1:]) ** 0.5 * 40
        return self

    def quantise(self, D: int, scale: np.ndarray, spelling: str) -> Chain:
        """A quantiser of activations, QCDQ or QONNX; ``OFFSET`` those that count from below 0."""
        if spelling in OFFSET:
            return self.quantise_from_below(D, scale, spelling)
        self.then("Relu")
        s = self.const(scale)
        if spelling == "qcdq":
            z = self.const(np.zeros_like(scale), np.uint8)
            self.then("QuantizeLinear", s, z, axis=1)
            self.then("Clip", self.const(0, np.uint8), self.const(D, np.uint8))
            self.then("DequantizeLinear", s, z, axis=1)
        else:
            bits = int(D + 1).bit_length() - 1
            column = self.const(scale.reshape(scale.shape and (1, -1, 1, 1)))
            args = column, self.const(0.0), self.const(float(bits))
            mode = {"qonnx": "ROUND", "half-up": "HALF_UP"}[spelling]
            self.then("Quant", *args, domain=QONNX, signed=0, narrow=0, rounding_mode=mode)
        self.units[self.x] = scale
        self.step = float(scale.reshape(-1)[0])
        return self

    def quantise_from_below(self, D: int, scale: np.ndarray, spelling: str) -> Chain:
        """Integers from -zero to D - zero; a sign alone where a file's quantiser is bipolar."""
        is_cut = spelling == "offset, then a ReLU" and D > 1  # which leaves D - zero levels
        is_bipolar = spelling == "bipolar" or (spelling == "signed" and D == 1)
        zero = int(self.rng.integers(1, D if is_cut else D + 1))
        s, column = self.const(scale), scale.reshape(scale.shape and (1, -1, 1, 1))
        if spelling.startswith("offset"):
            z = self.const(np.full_like(scale, zero), np.uint8)
            self.then("QuantizeLinear", s, z, axis=1)
            self.then("Clip", self.const(0, np.uint8), self.const(D, np.uint8))
            self.then("DequantizeLinear", s, z, axis=1)
        elif is_bipolar:
            self.then("BipolarQuant", self.const(column), domain=QONNX)
        else:
            bits, signed = int(D + 1).bit_length() - 1, spelling == "signed"
            zero = 2 ** (bits - 1) if signed else zero
            args = self.const(column), self.const(0.0 if signed else zero), self.const(float(bits))
            mode = {"floor": "FLOOR"}.get(spelling, "ROUND")
            self.then(
                "Quant", *args, domain=QONNX, signed=int(signed), narrow=0, rounding_mode=mode
            )
        self.units[self.x] = 2 * scale if is_bipolar else scale  # -1 and 1 are two steps apart
        self.lows[self.x] = Fraction(-1, 2) if is_bipolar else Fraction(-zero)
        self.step = float(scale.reshape(-1)[0])
        if is_cut:
            self.units[self.then("Relu").x] = scale
        return self

    def truncated(self, share: int, lost: int, mode: str) -> Chain:
        """The integers of a mean of ``share`` activations, ``lost`` bits of them dropped."""
        scale = np.float32(self.step) / np.float32(share)
        after = np.float32(scale * np.float32(2**lost))
        numbers = (scale, 0.0, 8.0 + lost, after, 8.0)
        args = [self.const(np.asarray(number)) for number in numbers]
        more = {"rounding_mode": mode, "signed": 0, "narrow": 0}
        self.then("Trunc", *args, domain=QONNX, **more)
        self.units[self.x] = np.asarray(after)
        self.step = float(after)
        return self


#: Spellings of quantisers whose integers begin below 0.
OFFSET = ("offset", "offset, then a ReLU", "signed", "zero point", "floor", "bipolar")
SPELLINGS = ["qcdq", "qonnx", "half-up", *OFFSET]


@st.composite
def chains(draw: st.DrawFn, batch: Any = "N") -> Chain:
    """One to three layers, with pools before quantisers and after them, quantised again.

    Nothing in them needs to round at 8 bits.
    """
    size, channels = draw(st.integers(4, 6)), draw(st.integers(1, 2))
    net = Chain((channels, size, size), draw(st.integers(0, 2**16)), batch)
    net.source(draw(st.sampled_from([0, 0, 127])))
    for i in range(draw(st.integers(1, 3))):
        _layer(draw, net, i)
        _requantised(draw, net)
    w = net.rng.integers(-7, 8, (3, prod(net.shape)))
    net.then("Flatten", axis=1)
    net.shape = (prod(net.shape),)
    net.then("Gemm", net.dequantised(w, scale_of(net.rng)), transB=1)
    net.shape = (3,)
    return net


def _layer(draw: st.DrawFn, net: Chain, index: int) -> None:
    kernel = draw(st.sampled_from([1, 3])) if min(net.shape[1:]) >= 3 else 1
    out = draw(st.integers(1, 3)) * net.shape[0]
    group = draw(st.sampled_from([1, net.shape[0]]))
    net.layer(out, kernel, draw(st.integers(0, 1)) * (kernel > 1), group, draw(st.booleans()))
    if draw(st.integers(0, 3)) == 3:
        net.batch_norm()
    if draw(st.integers(0, 3)) == 3 and min(net.shape[1:]) >= 2:
        net.pool("AveragePool")
    D = draw(st.sampled_from([1, 3, 7, 15, 255]))
    near = 2 * float(net.rms) / D
    net.quantise(D, scale_of(net.rng, None, near), draw(st.sampled_from(SPELLINGS)))


def _requantised(draw: st.DrawFn, net: Chain) -> None:
    """Perhaps a pool of spikes, quantised again on the same scale or on another."""
    if min(net.shape[1:]) < 2 or draw(st.booleans()):
        return
    kind = draw(st.sampled_from(["AveragePool", "MaxPool"]))
    kernel = draw(st.integers(2, min(3, *net.shape[1:])))
    is_unsigned = net.x in net.units and net.x not in net.lows and net.units[net.x].size == 1
    net.pool(kind, kernel, draw(st.integers(1, 2)))
    if kind == "AveragePool" and is_unsigned and draw(st.booleans()):
        net.truncated(kernel**2, draw(st.integers(0, 4)), draw(st.sampled_from(["FLOOR", "ROUND"])))
    elif draw(st.booleans()):
        scale = np.float32(net.step) * np.float32(draw(st.sampled_from([1, 1, 0.5, 2])))
        scale = np.asarray(scale) if draw(st.booleans()) else scale_of(net.rng, None, net.step)
        net.quantise(15, scale, draw(st.sampled_from(SPELLINGS)))
