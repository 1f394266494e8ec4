"""Laws of the source tree: imports go down the floors, `import snncc` stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import networkx as nx
import pytest

import snncc

ROOT = Path(snncc.__file__).parent
FLOORS = (
    ("errors",),
    ("system",),
    ("ir", "program"),
    ("nn", "passes", "backends"),
    ("frontends", "runtime"),
    ("compiler",),
    ("cli",),
    ("__main__",),
)
#: Inside ``passes``: modules beside the folders are below them all, and the pipeline is above.
PASSES = (
    ("base", "reading"),
    ("padding",),
    ("cut", "recognise", "time", "tokens"),
    ("fold",),
    ("integers",),
    ("spikes",),
    ("judge",),
    ("__init__",),
)
FLOOR = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
PASS_FLOOR = {part: floor for floor, parts in enumerate(PASSES) for part in parts}


def _module(path: Path) -> str:
    name = ".".join(("snncc", *path.relative_to(ROOT).with_suffix("").parts))
    return name.removesuffix(".__init__")


MODULES = {_module(path) for path in ROOT.rglob("*.py")}


def _part(module: str) -> str:
    return module.split(".")[1]


def _imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [part if part in MODULES else node.module for part in parts]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [name for name in found if name.startswith("snncc.")]


def _upward(path: Path) -> list[str]:
    own = path.relative_to(ROOT).with_suffix("").parts[0]
    return [
        name for name in _imports(path) if _part(name) != own and FLOOR[_part(name)] >= FLOOR[own]
    ]


def _upward_in_passes(path: Path) -> list[str]:
    own = path.relative_to(ROOT / "passes").with_suffix("").parts[0]
    parts = [name.split(".")[2] for name in _imports(path) if name.startswith("snncc.passes.")]
    return [part for part in parts if part != own and PASS_FLOOR[part] >= PASS_FLOOR[own]]


@pytest.mark.parametrize(
    "path",
    [p for p in sorted(ROOT.rglob("*.py")) if p.parent != ROOT or p.stem != "__init__"],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_imports_go_down_only(path):
    assert _upward(path) == []


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "passes").rglob("*.py")),
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_imports_between_passes_go_down_only(path):
    assert _upward_in_passes(path) == []


def _parts(root: Path) -> set[str]:
    return {p.relative_to(root).with_suffix("").parts[0] for p in root.rglob("*.py")}


def test_every_part_has_a_floor():
    assert _parts(ROOT) - {"__init__"} <= set(FLOOR)
    assert _parts(ROOT / "passes") <= set(PASS_FLOOR)


def test_no_imports_go_in_circles():
    """Neither when modules are loaded, nor in functions, nor for annotations."""
    edges = [(_module(p), name) for p in ROOT.rglob("*.py") for name in _imports(p)]
    graph = nx.DiGraph((a, b) for a, b in edges if b in MODULES and a != b)
    assert [sorted(c) for c in nx.strongly_connected_components(graph) if len(c) > 1] == []


def test_import_is_light():
    heavy = ("torch", "onnxscript", "onnxruntime", "onnx", "lava")
    code = (
        "import sys, snncc, snncc.runtime.session, snncc.compiler; "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# -- what modules offer --------------------------------------------------------------------

SOURCES = {
    p: p.read_text(encoding="utf-8")
    for folder in ("snncc", "tests", "benchmarks", "examples")
    for p in (ROOT.parent / folder).rglob("*.py")
}
WORDS = {path: Counter(re.findall(r"\w+", text)) for path, text in SOURCES.items()}
#: Modules whose names are for users.
PUBLIC = ("snncc", "snncc.nn", "snncc.compiler", "snncc.__main__")
#: What runs in Lava's own Python.
OTHERS = ("snncc.backends.lava.emitted", "snncc.backends.lava.processes")


def _offers() -> dict[str, tuple[Path, list[str]]]:
    """Module -> its file, and the names in its ``__all__``."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        for node in ast.parse(SOURCES[path]).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                found[name] = path, ast.literal_eval(node.value)
            if isinstance(node, ast.AugAssign) and ast.unparse(node.target) == "__all__":
                found[name] = path, import_module(name).__all__  # with what another offers
    return found


OFFERS = _offers()
OWN = [name for name in OFFERS if not name.startswith(OTHERS)]


@pytest.mark.parametrize("module", OWN)
def test_names_that_a_module_offers_are_there_and_used(module):
    path, names = OFFERS[module]
    tree = ast.parse(SOURCES[path])
    types = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    own = [name for name in names if not hasattr(import_module(module), name)]
    assert own == []
    if module not in PUBLIC:
        assert [name for name in names if name not in types and not _is_used(name, path)] == []


def _is_used(name: str, path: Path) -> bool:
    """Outside of its module, which tests alone are only where the module itself uses it as well.

    A type is used by whom a function returns it to.
    """
    others = [other for other in WORDS if other != path and name in WORDS[other]]
    folders = {other.relative_to(ROOT.parent).parts[0] for other in others}
    uses_it_too = WORDS[path][name] > 2  # once it is made, and once in __all__
    return bool(folders - {"tests"}) or bool(folders and uses_it_too)


def test_names_that_others_import_are_offered():
    hidden = {
        (node.module, alias.name)
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(SOURCES[path]))
        if isinstance(node, ast.ImportFrom) and node.module in OWN
        for alias in node.names
        if alias.name != "*"
        if alias.name not in OFFERS[node.module][1] and f"{node.module}.{alias.name}" not in OFFERS
    }
    assert hidden == set()
