"""fold-batch-norm: a batch norm behind a linear layer disappears into its weights and bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from snncc.ir.graphs import nodes
from snncc.passes.base import Pass
from snncc.passes.linear import fold_after

__all__ = ["FoldBatchNorm"]


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """w * g / sqrt(var + eps), (b - mean) * g / sqrt(var + eps) + beta, computed in float64."""

    name: ClassVar[str] = "fold-batch-norm"
    stage_in: ClassVar[str] = "imported"
    stage_out: ClassVar[str] = "imported"

    def run(self, model: ir.Model) -> int:
        """Fold every BatchNormalization whose input is a linear layer read by nobody else."""
        return sum(fold_after(node, self.name) for node in nodes(model, "BatchNormalization"))
