"""require-integer: fail closed, with one report of everything that cannot become spikes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from snncc.errors import Option, UnsupportedModelError, Words
from snncc.passes.base import Pass
from snncc.passes.judge.diagnose import diagnose, only

__all__ = ["RequireInteger"]


@dataclass(frozen=True)
class RequireInteger(Pass):
    """The border between float networks and SFA networks: everything after it has levels."""

    name: ClassVar[str] = "require-integer"
    stage_in: ClassVar[str] = "imported"
    stage_out: ClassVar[str] = "integer"

    def run(self, model: ir.Model) -> int:
        """Change nothing; raise if anything is left that has no spiking form."""
        found = diagnose(model)
        if found.faults:
            kinds = len({fault.kind for fault in found.faults})
            nodes, kind = _plural(len(found.faults), "node"), _plural(kinds, "kind")
            what = f"{nodes} of {kind} cannot become spikes"
            until = (f" {found.until} (", Option("until", found.until), ")")
            prefix = ("; the longest exact prefix ends at", *until) if found.until else ()
            others = found.results
            clean = ("; nothing stands in the way of ", only(others)) if others else ()
            raise UnsupportedModelError(Words(what, *prefix, *clean), found.faults)
        return 0


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
