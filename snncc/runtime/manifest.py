"""The manifest of a compiled network: what it takes and gives, how its parts are computed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from typing import Any

from snncc.errors import BadInputError
from snncc.program import Program
from snncc.runtime.contract import InputContract, outputs_of

__all__ = ["PARTS", "SCHEMA_VERSION", "check_manifest", "manifest_of"]

#: Version of the file format; a reader refuses any other.
SCHEMA_VERSION = 1
#: How parts of a network are computed; the keys of the manifest's ``parts``.
PARTS = ("exact", "analog", "host", "approximate")

_TOOLS = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "torch")


def manifest_of(
    program: Program,
    contract: InputContract,
    parts: Mapping[str, Collection[str]] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The manifest of a network.

    Args:
        program: The network.
        contract: What it takes.
        parts: Names of layers by how they are computed, keys of ``PARTS``; by default neurons are
            ``exact`` and what reads the input is ``analog``.
        **more: Further plain data.
    """
    given = _default_parts(program) if parts is None else parts
    return {
        **more,
        "schema_version": SCHEMA_VERSION,
        "name": program.name,
        "timesteps": program.timesteps,
        "ticks": program.ticks,
        "rounding": sorted({n.rounding for n in program.neurons}),
        "input": contract.to_json(),
        "outputs": [output.to_json() for output in outputs_of(program)],
        "parts": {kind: list(given.get(kind, ())) for kind in PARTS},
        "tools": tool_versions(),
    }


def _default_parts(program: Program) -> dict[str, list[str]]:
    return {
        "exact": [n.module or n.name for n in program.neurons],
        "analog": [n.module or n.name for n in program.analog],
        "host": [readout.host for readout in program.readouts if readout.host],
    }


def tool_versions() -> dict[str, str]:
    """Versions of snncc and of the installed packages it works with; nothing is imported."""
    return dict(_tool_versions())


@cache  # reading what is installed takes longer than all else of a manifest
def _tool_versions() -> dict[str, str]:
    found = {}
    for name in ("snncc", *_TOOLS):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def check_manifest(manifest: Mapping[str, Any], program: Program) -> None:
    """What the manifest says again is what the Program says.

    Raises:
        BadInputError: It is not; with all that is wrong.
    """
    contract = InputContract.from_json(manifest.get("input"))
    said = {key: manifest.get(key) for key in ("name", "timesteps", "ticks", "outputs")}
    meant = {
        "name": program.name,
        "timesteps": program.timesteps,
        "ticks": program.ticks,
        "outputs": [output.to_json() for output in outputs_of(program)],
    }
    wrong = [key for key in said if said[key] != meant[key]]
    if contract.source_shape != tuple(program.source.shape):
        wrong.append("input.shape")
    if contract.top != program.source.payload:
        wrong.append("input.top")
    if {a.masked for a in program.accumulators} - {None, contract.patches}:
        wrong.append("input.patches")
    if contract.timesteps not in (0, program.timesteps):
        wrong.append("input.timesteps")
    if not _are_parts(manifest.get("parts")):
        wrong.append("parts")
    if wrong:
        raise BadInputError(f"manifest: {', '.join(wrong)} not as in the program")


def _are_parts(value: Any) -> bool:
    if not isinstance(value, dict) or sorted(value) != sorted(PARTS):
        return False
    lists = all(isinstance(names, list) for names in value.values())
    return lists and all(isinstance(name, str) for names in value.values() for name in names)
