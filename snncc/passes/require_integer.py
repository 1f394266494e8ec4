"""require-integer: fail closed, with one report of everything that cannot become spikes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from snncc.errors import UnsupportedModelError
from snncc.passes.base import Pass
from snncc.passes.diagnose import diagnose

__all__ = ["RequireInteger"]


@dataclass(frozen=True)
class RequireInteger(Pass):
    """The border between float networks and SFA networks: everything behind it has levels."""

    name: ClassVar[str] = "require-integer"
    stage_in: ClassVar[str] = "imported"
    stage_out: ClassVar[str] = "integer"

    def run(self, model: ir.Model) -> int:
        """Change nothing; raise if anything is left that has no spiking form."""
        found = diagnose(model)
        if found.faults:
            kinds = len({fault.kind for fault in found.faults})
            raise UnsupportedModelError(
                f"{len(found.faults)} nodes of {kinds} kinds cannot become spikes", found.faults
            )
        return 0
