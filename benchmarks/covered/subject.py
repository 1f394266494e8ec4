"""What a network of the coverage table is: how it is built, fed, and run by its own framework."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

__all__ = [
    "Network",
    "Subject",
    "calibrated",
    "folder",
    "images",
    "noise",
    "of_module",
    "ready_torchvision",
]

Array = npt.NDArray[Any]

#: Samples that a network is compared on.
SAMPLES = 8
_MEAN, _STD = 0.45, 0.25


@dataclass(frozen=True)
class Subject:
    """A network that is ready to be compiled.

    Attributes:
        network: A module in eval mode, or the path of a file.
        samples: As a session takes them: uint8 pixels or float32, samples first.
        framework: Its result of such samples, by the framework that it comes from.
        options: Keywords of ``snncc.compile``.
    """

    network: nn.Module | Path
    samples: Array
    framework: Callable[[Array], Array]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    """A row of the table.

    Attributes:
        family: What its users call it.
        needs: Packages that it is built from.
        build: Makes it, with random weights.
    """

    family: str
    needs: tuple[str, ...]
    build: Callable[[], Subject]


def images(shape: tuple[int, ...], seed: int = 1, count: int = SAMPLES) -> Array:
    """Pixels of blurred noise: neighbours are alike, as in pictures."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, *shape[:-2], -(-shape[-2] // 4), -(-shape[-1] // 4)))
    fine = coarse.repeat(4, -2).repeat(4, -1)[..., : shape[-2], : shape[-1]]
    grain = rng.integers(-32, 33, fine.shape)
    return np.clip(fine + grain, 0, 255).astype(np.uint8)


def noise(shape: tuple[int, ...], seed: int = 1, count: int = SAMPLES) -> Array:
    """Normal numbers, float32."""
    return np.random.default_rng(seed).normal(0, 1, (count, *shape)).astype(np.float32)


def folder() -> Path:
    """Where files of this run go."""
    return Path(tempfile.mkdtemp(prefix="covered-"))


def normalised(pixels: Array) -> Array:
    """What networks read of pixels."""
    return ((pixels / np.float32(255) - np.float32(_MEAN)) / np.float32(_STD)).astype(np.float32)


def calibrated(network: nn.Module, run: Callable[[], Any]) -> nn.Module:
    """Batch norms have the statistics of what they read; the network is in eval mode after it."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    network.eval()
    for norm in norms:
        norm.train()
        norm.momentum = None
        norm.reset_running_stats()
    with torch.no_grad():
        run()
    for norm in norms:
        norm.momentum = 0.1
        nn.init.uniform_(norm.weight, 0.8, 1.2)
        nn.init.uniform_(norm.bias, -0.1, 0.3)
    return network.eval()


def of_module(
    network: nn.Module,
    shape: tuple[int, ...],
    reset: Callable[[nn.Module], None] | None = None,
    batch_first: bool = True,
    **options: Any,
) -> Subject:
    """A torch module that reads normalised pixels, its batch norms calibrated.

    Args:
        network: With random weights.
        shape: Of a sample; of sequences with T first.
        reset: Brings neurons back to their first state.
        batch_first: It reads samples before timesteps, where ``shape`` has timesteps.
        **options: Of the compilation, besides shape and normalisation.
    """
    from snncc import InputOptions

    pixels = images(shape)
    is_film = "timesteps" in options

    def framework(pixels: Array) -> Array:
        x = torch.from_numpy(normalised(pixels))
        if reset is not None:
            reset(network)
        with torch.no_grad():
            out = network(x.transpose(0, 1) if is_film and not batch_first else x)
        return np.asarray(_first(out))

    calibrated(network, lambda: framework(pixels))
    if reset is not None:
        reset(network)
    channels = shape[-3] if len(shape) > 2 else 1
    given = InputOptions(mean=(_MEAN,) * channels, std=(_STD,) * channels)
    told = {"input_shape": shape[1:] if is_film else shape, "input": given, **options}
    return Subject(network, pixels, framework, told)


def ready_torchvision() -> None:
    """Let torchvision's networks be built where its wheel is for another device.

    Its compiled operators are missing then; no network here uses one, but it registers shapes for
    two of them when it is imported.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        try:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        except RuntimeError:
            return  # they are there
    _KEPT.append(library)


#: Libraries of operators; what one has defined goes with it.
_KEPT: list[Any] = []


def _first(out: Any) -> torch.Tensor:
    """The first tensor of what a network returns."""
    while not isinstance(out, torch.Tensor):
        out = next(iter(out.values() if isinstance(out, Mapping) else out))
    return out
