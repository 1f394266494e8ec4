"""Networks that ``torch.export.save`` wrote."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from snncc.frontends.pytorch import export_program, load_program

__all__ = ["import_exported"]


def import_exported(path: str | Path, trust_pickle: bool = False) -> ir.Model:
    """The graph of such a file."""
    return export_program(load_program(path, trust_pickle)).model
