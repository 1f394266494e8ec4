"""Weights that depend on nothing but their keys, with which small spiking networks are alive."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import torch

__all__ = ["filled", "values"]


def filled(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same keys and shapes with numbers of their own, batch norms with statistics, too."""
    return {key: _numbers(key, value, state) for key, value in state.items()}


def values(*shape: int) -> np.ndarray:
    """Inputs 0 to 255 as uint8."""
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


def _numbers(key: str, value: torch.Tensor, state: Mapping[str, torch.Tensor]) -> torch.Tensor:
    if not value.is_floating_point():
        return torch.zeros_like(value)
    rng, shape = np.random.default_rng(zlib.crc32(key.encode())), tuple(value.shape)
    path, _, name = key.rpartition(".")
    normed = f"{path}.running_var" in state
    if name == "running_var":
        found = rng.uniform(0.2, 0.4, shape)
    elif normed and name == "weight":
        found = rng.uniform(1.0, 2.0, shape)
    elif normed and name == "bias":
        found = rng.uniform(0.2, 1.0, shape)
    else:
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 100
        found = rng.normal(0, fan_in**-0.5, shape)
    return torch.from_numpy(np.asarray(found, np.float32))
