"""The networks that are timed: W1, the two stages of W2, and the trained examples."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

import snncc
from snncc.errors import MissingDependencyError
from versus.builder import Builder, Network

__all__ = ["EXAMPLES", "example", "stage_a", "stage_b", "w1"]

Array = npt.NDArray[Any]

_CALIBRATION, _TIMED = 12, 16
_FOLDER = Path(__file__).parents[2] / "examples" / "fashion_mnist"

#: Name -> checkpoint and constructor, in examples/fashion_mnist.
EXAMPLES = {
    "cnn": ("cnn_d4.pt", "models.py:cnn"),
    "cnn_grid8": ("cnn_d4_grid8.pt", "models_grid.py:cnn_grid"),
    "ssc": ("ssc_d4.pt", "models.py:ssc"),
    "residual": ("residual_d4.pt", "models.py:residual"),
}


def w1(
    density: float, D: int = 4, width: float = 1.0, bits: int = 8, seed: int = 0, size: int = 32
) -> Network:
    """VGG 64-64-P-128-128-P-256-256-P-FC10 on images of 3 x size x size.

    Args:
        density: Of what the layers after the first read: the fraction that is not zero.
        D: Ticks of a burst.
        width: Factor on the channels.
        bits: Of the weights.
        seed: Of weights and images.
        size: Of the images, a multiple of 8.
    """
    images = _images(_CALIBRATION + _TIMED, (3, size, size), seed)
    net = Builder(images[:_CALIBRATION], 255, D, bits, seed)
    for channels in (64, 128, 256):
        wide = int(channels * width)
        net.conv(wide, 3).fire(density).conv(wide, 3).fire(density, pool=True)
    program = net.linear(10).program("w1")
    return Network(f"W1 d={density:.2f} D={D}", program, images[_CALIBRATION:])


def stage_a(
    density: float, D: int = 4, seed: int = 0, channels: int = 64, size: int = 56
) -> Network:
    """Convolutions of an E-SpikeFormer convolution block, one after the other.

    SpikeSepConv (1x1, depthwise 7x7, 1x1), then the pair of 3x3 that widens by 4; a neuron ahead
    of each. The residual sums are left out: dense 8-bit inference has no integer form of them.
    """
    spikes = _spikes(_CALIBRATION + _TIMED, (channels, size, size), density, D, seed)
    net = Builder(spikes[:_CALIBRATION], D, D, 8, seed)
    _separable(net, channels, density)
    net.conv(4 * channels, 3).fire(density).conv(channels, 3).fire(density)
    return Network(f"W2 A {size}x{size} c{channels}", net.program("w2a"), spikes[_CALIBRATION:])


def stage_b(
    density: float, D: int = 4, seed: int = 0, channels: int = 256, size: int = 14
) -> Network:
    """Convolutions of an E-SpikeFormer transformer block, one after the other.

    SpikeSepConv, the attention's value (widened by 4) and output projections, the MLP; a neuron
    before each. Left out: query and key, the attention's products, the residual sums.
    """
    spikes = _spikes(_CALIBRATION + _TIMED, (channels, size, size), density, D, seed)
    net = Builder(spikes[:_CALIBRATION], D, D, 8, seed)
    _separable(net, channels, density)
    for outputs in (4 * channels, channels, 4 * channels, channels):
        net.conv(outputs, 1).fire(density)
    return Network(f"W2 B {size}x{size} c{channels}", net.program("w2b"), spikes[_CALIBRATION:])


def _separable(net: Builder, channels: int, density: float) -> None:
    hidden = 2 * channels
    net.conv(hidden, 1).fire(density).conv(hidden, 7, groups=hidden).fire(density)
    net.conv(channels, 1).fire(density)


def example(name: str) -> Network:
    """A trained network of ``EXAMPLES``, compiled at 8 bits, and test images.

    Raises:
        MissingDependencyError: It cannot be compiled here; the message has what the compiler says.
    """
    weights, constructor = EXAMPLES[name]
    command = [sys.executable, "-m", "snncc", "compile", str(_FOLDER / weights)]
    with TemporaryDirectory() as folder:
        out = Path(folder) / f"{name}.snn"
        command += ["--arch", str(_FOLDER / constructor), "--weight-bits", "8", "-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise MissingDependencyError(f"{name}: cannot be compiled: {done.stderr.strip()}")
        program = snncc.load(out).program
    images = np.load(_FOLDER / "test_1000.npz")["x"][:_TIMED]
    return Network(f"example {name}", program, images)


# -- inputs --------------------------------------------------------------------------------


def _fields(count: int, shape: tuple[int, ...], seed: int) -> Iterator[Array]:
    """Random fields (C, H, W) of mean 0 and variance 1, with a spectrum of 1/f as photographs."""
    rng = np.random.default_rng([seed, 1])
    h, w = shape[1:]
    frequency = np.hypot(np.fft.fftfreq(h)[:, np.newaxis], np.fft.rfftfreq(w))
    amplitude = 1 / np.maximum(frequency, 1 / max(h, w))
    for _ in range(count):
        noise = np.fft.rfft2(rng.normal(size=shape))
        field = np.fft.irfft2(noise * amplitude, s=(h, w))
        field -= field.mean((1, 2), keepdims=True)
        yield field / field.std((1, 2), keepdims=True)


def _images(count: int, shape: tuple[int, ...], seed: int) -> Array:
    """uint8 images whose channels are alike, as those of photographs are."""
    found = []
    for field in _fields(count, shape, seed):
        mixed = 0.8 * field[:1] + 0.6 * field
        found.append(np.clip(np.rint(118 + 50 * mixed), 0, 255).astype(np.uint8))
    return np.stack(found)


def _spikes(count: int, shape: tuple[int, ...], density: float, D: int, seed: int) -> Array:
    """uint8 spike counts 0..D, ``density`` of them not zero."""
    found = []
    for field in _fields(count, shape, seed):
        border = np.quantile(field, 1 - density)
        spikes = np.floor((field - border) / 0.7 + 1)
        found.append(np.clip(spikes, 0, D).astype(np.uint8))
    return np.stack(found)
