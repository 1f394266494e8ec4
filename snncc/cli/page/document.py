"""What the page is told about a network: plain data, described in ``web/src/document.ts``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snncc.cli import tables
from snncc.cli.page.activity import recorded, shown_maps, stored_maps
from snncc.cli.page.facts import facts
from snncc.cli.page.stages import stage_json

if TYPE_CHECKING:
    from snncc.runtime.artifact import CompiledModel

__all__ = ["STAGES", "document"]

#: In the order in which the compiler goes through them.
STAGES = ("imported", "integer", "quantised", "spiking")


def document(model: CompiledModel, profile: dict[str, Any] | None = None) -> dict[str, Any]:
    """All that the page shows.

    Args:
        model: As loaded.
        profile: See ``page``.

    Raises:
        BadInputError: The file has no report.
    """
    report = model.report.to_json()
    maps = profile.get("maps") if profile is not None else None
    return {
        "name": model.name,
        "sha256": model.sha256,
        "timesteps": model.program.timesteps,
        "ticks": model.program.ticks,
        "tools": model.manifest.get("tools") or {},
        "parts": model.manifest["parts"],
        "outputs": model.manifest["outputs"],
        "report": {
            key: value for key, value in report.items() if key not in ("bounds", "observed")
        },
        "passes": tables.rows(model, "passes"),
        "program": facts(model),
        "stages": [stage_json(model, stage) for stage in STAGES if stage in model.graphs],
        "reference": recorded(model),
        "profile": _without_maps(profile),
        "maps": shown_maps(maps, "profile") if maps else stored_maps(model),
    }


def _without_maps(profile: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if profile is None else {k: v for k, v in profile.items() if k != "maps"}
