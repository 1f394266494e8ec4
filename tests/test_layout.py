"""Laws of the source tree: imports go down the floors, `import snncc` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import snncc

ROOT = Path(snncc.__file__).parent
FLOORS = (
    ("errors",),
    ("cache", "damage", "locks", "process"),
    ("outputs", "temporary"),
    ("ir",),
    ("nn_state",),
    ("nn_grid",),
    ("nn",),
    ("passes",),
    ("frontends",),
    ("backends",),
    ("runtime",),
    ("report", "inputs", "options", "steps"),
    ("grid", "compiler"),
    ("cli",),
    ("__main__",),
)
FLOOR = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}


def _part(module: str) -> str:
    return module.split(".")[1]


def _imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [name for name in found if name.startswith("snncc.")]


def _upward(path: Path) -> list[str]:
    own = path.relative_to(ROOT).with_suffix("").parts[0]
    return [
        name for name in _imports(path) if _part(name) != own and FLOOR[_part(name)] >= FLOOR[own]
    ]


@pytest.mark.parametrize(
    "path",
    [p for p in sorted(ROOT.rglob("*.py")) if p.parent != ROOT or p.stem != "__init__"],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_imports_go_down_only(path):
    assert _upward(path) == []


def test_every_part_has_a_floor():
    parts = {p.relative_to(ROOT).with_suffix("").parts[0] for p in ROOT.rglob("*.py")}
    assert parts - {"__init__"} <= set(FLOOR)


def test_import_is_light():
    heavy = ("torch", "onnxscript", "onnxruntime", "onnx", "lava")
    code = (
        "import sys, snncc, snncc.runtime.session, snncc.compiler; "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
