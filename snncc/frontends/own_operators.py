"""What PyTorch makes of operators of ours that an exported program holds beside neurons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from snncc.nn import apply_patch_mask

__all__ = ["compute"]

Settings = Mapping[str, Any]


def compute(kind: str, inputs: Sequence[torch.Tensor], settings: Settings) -> torch.Tensor:
    """The result of an operator; see its entry in ``snncc.ir.ops``.

    Args:
        kind: Its name.
        inputs: As it takes them.
        settings: Its attributes.
    """
    return _KINDS[kind](inputs, settings)


def _on_grid(inputs: Sequence[torch.Tensor], settings: Settings) -> torch.Tensor:
    v, theta = inputs
    return v / theta


def _patch_mask(inputs: Sequence[torch.Tensor], settings: Settings) -> torch.Tensor:
    x, mask = inputs
    return apply_patch_mask(x, mask)


def _spike_sparse_conv(inputs: Sequence[torch.Tensor], settings: Settings) -> torch.Tensor:
    x, weight, bias, mask = inputs
    top, left, bottom, right = settings["pads"]
    padded = functional.pad(x, (left, right, top, bottom))
    geometry = settings["strides"], 0, settings["dilations"], settings["group"]
    return apply_patch_mask(functional.conv2d(padded, weight, bias, *geometry), mask)


_KINDS: dict[str, Callable[[Sequence[torch.Tensor], Settings], torch.Tensor]] = {
    "OnGrid": _on_grid,
    "PatchMask": _patch_mask,
    "SpikeSparseConv": _spike_sparse_conv,
}
