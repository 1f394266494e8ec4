"""fold-batch-norm: a batch norm after a linear layer disappears into its weights and bias."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from snncc.ir.graphs import attribute, constant, label, nodes
from snncc.ir.metadata import STILL_NORMS
from snncc.passes.base import Pass
from snncc.passes.reading import fold_after

__all__ = ["FoldBatchNorm", "still_norms"]

#: Of epsilon: below that it is epsilon alone that a channel is divided by.
_STILL_SHARE = 1e-3


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """w * g / sqrt(var + eps), (b - mean) * g / sqrt(var + eps) + beta, computed in float64."""

    name: ClassVar[str] = "fold-batch-norm"
    stage_in: ClassVar[str] = "imported"
    stage_out: ClassVar[str] = "imported"

    def run(self, model: ir.Model) -> int:
        """Fold every BatchNormalization whose input is a linear layer read by nobody else."""
        still = [label(node) for node in nodes(model, "BatchNormalization") if _is_still(node)]
        model.metadata_props[STILL_NORMS] = json.dumps(still)
        return sum(fold_after(node, self.name) for node in nodes(model, "BatchNormalization"))


def _is_still(node: ir.Node) -> bool:
    """Whether a channel did not vary in training: the norm multiplies it by 1 / sqrt(epsilon)."""
    variance = constant(node.inputs[4])
    epsilon = attribute(node, "epsilon", 1e-5)
    return variance is not None and bool((variance < _STILL_SHARE * epsilon).any())


def still_norms(model: ir.Model) -> list[str]:
    """Batch norms, by module path, some channel of which did not vary in training."""
    found: list[str] = json.loads(model.metadata_props.get(STILL_NORMS, "[]"))
    return found
