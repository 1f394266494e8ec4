"""Layers for authors: neurons to train with, and layers that compile without any change."""

from __future__ import annotations

from snncc.nn.grid import (
    GridConv2d,
    GridLinear,
    GridStateful,
    GridTimeSum,
    SpikeAttention,
    SumPool2d,
)
from snncc.nn.layers import (
    IntegerFire,
    SparseBatchNorm2d,
    SpikeSparseConv2d,
    apply_patch_mask,
    masked,
    random_patch_mask,
)
from snncc.nn.state import ILIF, LIF, Stateful

__all__ = [
    "ILIF",
    "LIF",
    "GridConv2d",
    "GridLinear",
    "GridStateful",
    "GridTimeSum",
    "IntegerFire",
    "SparseBatchNorm2d",
    "SpikeAttention",
    "SpikeSparseConv2d",
    "Stateful",
    "SumPool2d",
    "apply_patch_mask",
    "masked",
    "random_patch_mask",
]

#: Their name for people, and in what is saved, is the one they are imported by.
for _name in __all__:
    globals()[_name].__module__ = __name__
