"""The JSON schema of a report, made from its dataclasses and what their docstrings say.

``python tests/report_schema.py docs/report.schema.json`` writes it.
"""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from jsonschema import validate

from snncc.runtime.contract import InputContract
from snncc.runtime.report import REPORT_VERSION, Report

PLAIN = {int: "integer", float: "number", str: "string", bool: "boolean", NoneType: "null"}


def schema() -> dict[str, Any]:
    """Of ``report.json`` and ``Report.to_json``."""
    made: dict[str, Any] = {}
    whole = of_dataclass(Report, made)
    version = {"const": REPORT_VERSION, "description": "Of the keys; files without it are of 1."}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Report of a compilation, version {REPORT_VERSION}",
        **whole,
        "properties": {"version": version, **whole["properties"]},
        "$defs": dict(sorted(made.items())),
    }


def of_type(kind: Any, made: dict[str, Any]) -> dict[str, Any]:
    """Of a value; dataclasses go into ``made`` and are referred to."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return {}
    if kind in PLAIN:
        return {"type": PLAIN[kind]}
    if is_dataclass(kind):
        if kind.__name__ not in made:
            made[kind.__name__] = {}
            made[kind.__name__] = of_dataclass(kind, made)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    if origin is UnionType:
        return {"anyOf": [of_type(k, made) for k in inner]}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": of_type(inner[1], made)}
    assert origin is tuple, kind
    if not inner:  # the tuple of nothing
        return {"type": "array", "maxItems": 0}
    if inner[-1] is Ellipsis:
        return {"type": "array", "items": of_type(inner[0], made)}
    items = [of_type(k, made) for k in inner]
    return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}


def of_dataclass(kind: Any, made: dict[str, Any]) -> dict[str, Any]:
    """An object; fields that have their default may be missing."""
    hints, told = get_type_hints(kind), descriptions(kind)
    properties = {
        f.name: {**of_type(hints[f.name], made), "description": told[f.name]} for f in fields(kind)
    }
    optional = {f.name for f in fields(kind) if f.default is not MISSING}
    if kind is InputContract:  # writes its defaults, too
        optional = {"patches", "timesteps"}
    return {
        "description": kind.__doc__.split("\n\n")[0].replace("\n", " "),
        "type": "object",
        "properties": properties,
        "required": [f.name for f in fields(kind) if f.name not in optional],
        "additionalProperties": False,
    }


def descriptions(kind: Any) -> dict[str, str]:
    """What the docstring says of each attribute; several may share a line."""
    text = kind.__doc__.partition("Attributes:\n")[2]
    found = {}
    for names, words in re.findall(r"^ {8}([\w, ]+): ((?:.+\n?)(?: {9,}.+\n?)*)", text, re.M):
        for name in names.split(", "):
            found[name] = " ".join(words.split())
    return found


def require_valid(file: Path) -> None:
    """The report in a ``.snn`` file fits the schema."""
    with zipfile.ZipFile(file) as archive:
        validate(json.loads(archive.read("report.json")), schema())


def text() -> str:
    """As the file has it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(), encoding="utf-8")
