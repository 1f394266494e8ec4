"""What the documents show runs as written."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
#: Documents whose Python is one program from top to bottom.
PROGRAMS = ("adding_a_neuron", "adding_an_engine", "writing_operators", "writing_passes")
LINK = re.compile(r"\]\(([^)#:]+)\)")


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_code_of_a_document_runs(name, monkeypatch):
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert blocks
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile("\n".join(blocks), f"{name}.md", "exec"), module.__dict__)


@pytest.mark.parametrize(
    "path", [*DOCS.glob("*.md"), *DOCS.parent.glob("*.md")], ids=lambda p: p.name
)
def test_links_lead_somewhere(path):
    links = LINK.findall(path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []
