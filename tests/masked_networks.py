"""Hypothesis strategies: random networks with a patch mask as second input, with samples and masks.

Structure is drawn, so it shrinks; numbers come from a generator with a drawn seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from float_networks import Case, Net, imported
from hypothesis import strategies as st
from onnx import TensorProto, helper

from snncc.ir.ops import DOMAIN
from snncc.passes import PassManager, QuantiseInput, pipeline
from snncc.runtime.masks import with_planes

__all__ = ["MaskedCase", "MaskedNet", "masked_cases", "masked_lowered"]

Array = np.ndarray
Patches = tuple[int, int]


class MaskedNet(Net):
    """A chain whose image is masked; ``x`` and ``mask`` are its inputs.

    Args:
        shape: Of the image.
        patches: Of the mask.
        **options: Of ``Net``.
    """

    def __init__(self, shape: tuple[int, ...], patches: Patches, **options: Any) -> None:
        super().__init__(shape, **options)
        self.patches = patches
        self.sizes: dict[str, tuple[int, ...]] = {}
        self.mask()

    def mask(self) -> MaskedNet:
        """Masked patches are zero after it."""
        self.then("PatchMask", "mask", domain=DOMAIN, module=self.label("mask"))
        return self

    def sparse_conv(self, out: int, D: float = 4) -> MaskedNet:
        """SpikeSparseConv, 3x3 and padded."""
        w, b = self.weight((out, self.shape[0], 3, 3), D), self.bias(out, D)
        self.then(
            "SpikeSparseConv", self.const(w), self.const(b), "mask", domain=DOMAIN,
            module=self.label("sparse"), strides=[1, 1], pads=[1] * 4, dilations=[1, 1], group=1,
        )  # fmt: skip
        self.shape, self.rms = (out, *self.shape[1:]), D / 2
        self.sizes[self.x] = self.shape  # inference knows no operators but the standard ones
        return self

    def proto(self, opset: int = 21, batch: Any = "N", dtype: int = TensorProto.FLOAT) -> Any:
        """The network as a model with two inputs."""
        model = super().proto(opset, batch, dtype)
        kind = helper.make_tensor_value_info
        model.graph.input.append(kind("mask", TensorProto.FLOAT, [batch, 1, *self.patches]))
        known = [kind(name, TensorProto.FLOAT, [batch, *size]) for name, size in self.sizes.items()]
        model.graph.value_info.extend(known)
        return model


@dataclass(frozen=True)
class MaskedCase:
    """A network with pixels (N, C, H, W) and masks (N, 1, h, w); otherwise as ``Case``."""

    net: MaskedNet
    source: QuantiseInput
    pixels: Array
    mask: Array

    @property
    def q(self) -> Array:
        """What engines take."""
        return with_planes(self.pixels, self.mask)

    @property
    def whole(self) -> Case:
        """Network and pixels without the mask."""
        return Case(self.net, self.source, self.pixels)

    @property
    def feeds(self) -> dict[str, Array]:
        """Inputs under the names of all stages."""
        return {"x": self.whole.x, "x:u8": self.q, "mask": self.mask.astype(np.float32)}


def masked_lowered(case: MaskedCase, bits: int, check: bool = True) -> PassManager:
    """All passes with the mask kept, validated."""
    passes = pipeline(case.source, bits, masked=True)
    manager = PassManager(passes, feeds=case.feeds if check else None)
    manager.run(imported(case.net))
    return manager


@st.composite
def masked_cases(
    draw: st.DrawFn, max_layers: int = 3, published: bool = False, ties: bool | None = None
) -> MaskedCase:
    """Networks of masked and of unmasked layers, streams and pools.

    Args:
        draw: Hypothesis's.
        max_layers: At most so many neurons in a row.
        published: A mask is right before a neuron or sum, as after SparseBatchNorm2d.
        ties: Powers of two as weights; default: drawn.
    """
    patches: Patches = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    side = draw(st.sampled_from([1, 2, 4]))
    shape = (draw(st.integers(1, 3)), patches[0] * side, patches[1] * side)
    ties = draw(st.booleans()) if ties is None else ties
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    mean, std = rng.uniform(0.2, 0.6, shape[0]), rng.uniform(0.2, 0.5, shape[0])
    scale = (2.0**-6,) * shape[0] if ties else tuple(1 / (255 * std))
    source = QuantiseInput(scale, (-2.0,) * shape[0] if ties else tuple(-mean / std))
    net = MaskedNet(shape, patches, seed=draw(st.integers(0, 2**16)), ties=ties,
                    rms=128 * float(np.mean(scale)))  # fmt: skip
    author = _Author(draw, net, published)
    for _ in range(draw(st.integers(1, max_layers))):
        author.layer()
    author.head()
    samples = draw(st.integers(1, 2))
    q = rng.integers(0, 256, (samples, *shape)).astype(np.uint8)
    mask = rng.random((samples, 1, *patches)) < rng.choice([0.2, 0.5, 0.8])
    return MaskedCase(net, source, q, mask.astype(np.uint8))


class _Author:
    """Writes a network layer by layer, as hypothesis decides."""

    def __init__(self, draw: st.DrawFn, net: MaskedNet, published: bool) -> None:
        self.draw, self.net, self.published = draw, net, published

    def pick(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def layer(self) -> None:
        """A layer, perhaps a second one that is added to it, perhaps a pool; a neuron."""
        net, D = self.net, self.draw(st.integers(1, 8))
        if self.pick(True, False, False):
            self.stream(D, self.draw(st.integers(1, 3)))
        else:
            self.potential(D, self.draw(st.integers(1, 3)))
        halves = all(
            size % (2 * n) == 0 for size, n in zip(net.shape[1:], net.patches, strict=True)
        )
        pool = self.pick("none", "potential", "spikes") if halves else "none"
        if pool == "potential":
            net.pool("AveragePool")
        net.fire(D, self.pick(1.0, 2.0), self.pick("half-even", "half-up"))
        if pool == "spikes":
            net.pool(self.pick("MaxPool", "AveragePool"))

    def stream(self, D: int, out: int) -> None:
        """A layer, and what a neuron and a layer make of its potential, added."""
        self.masked(D, out)
        start = self.net.x
        self.net.fire(D)
        self.masked(D, out)
        self.net.add(start)

    def potential(self, D: int, out: int) -> None:
        """Masked in one of the ways there are, or not masked."""
        kinds = ["masked", "masked", "vanilla"] + ([] if self.published else ["plain norm"])
        kind = self.pick(*kinds)
        if kind == "masked":
            self.masked(D, out)
        elif kind == "vanilla":
            self.net.conv(out, 3, pads=1, D=D)
            if self.pick(True, False):
                self.net.batch_norm()
        else:
            self.net.conv(out, 3, pads=1, D=D)
            self.net.mask()
            self.net.batch_norm()

    def masked(self, D: int, out: int) -> None:
        """SpikeSparseConv, or a convolution and a mask; perhaps SparseBatchNorm after it."""
        if self.pick(True, False):
            self.net.sparse_conv(out, D)
        else:
            self.net.conv(out, 3, pads=1, bias=self.pick(True, False), D=D)
            self.net.mask()
        if self.pick(True, False):
            self.net.batch_norm()
            self.net.mask()

    def head(self) -> None:
        """A linear readout, or the spikes themselves."""
        if self.pick(True, False):
            self.net.flatten()
            self.net.linear(self.draw(st.integers(1, 4)))
