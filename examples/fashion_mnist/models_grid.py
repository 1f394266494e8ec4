"""Networks of this folder on the compiler's integer grid; their weights come from finetune_grid.py.

They take raw pixels: float32 ``[N, 1, 28, 28]``, 0 to 255, not normalised.
"""

from __future__ import annotations

import models
import spikeformer
from torch import nn

import snncc

__all__ = ["cnn_grid", "spikeformer_grid"]


def cnn_grid(D: int = 4, width: int = 16, weight_bits: int = 8) -> nn.Module:
    """Returns an untrained ``models.cnn`` on its grid; the grid itself is in the checkpoint."""
    return snncc.on_grid(models.cnn(D, width), weight_bits)


def spikeformer_grid(D: int = 4, width: int = 32, weight_bits: int = 8) -> nn.Module:
    """Returns an untrained ``spikeformer.spikeformer`` on its grid, which is in the checkpoint."""
    return snncc.on_grid(spikeformer.spikeformer(D, width), weight_bits)
