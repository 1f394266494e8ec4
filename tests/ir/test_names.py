"""Suffixes of value names and keys of metadata stand in one module each."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import snncc
from snncc.ir import metadata, names

ROOT = Path(snncc.__file__).parent
SOURCES = [p for p in sorted(ROOT.rglob("*.py")) if p.stem not in ("names", "metadata")]
SUFFIXES = {
    getattr(names, name) for name in names.__all__ if name.isupper() and name != "MARKS"
}  # fmt: skip
KEYS = {getattr(metadata, name) for name in metadata.__all__}
#: So short that they mean other things inside of other texts.
ALONE = {names.TRAINED, names.REPLACED}


def literals(code: str) -> Iterator[str]:
    """Texts in code, of f-strings their two ends; docstrings are no code."""
    tree = ast.parse(code)
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values[1:-1]}
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in skipped:
            yield node.value


def written_out(code: str) -> set[str]:
    """The suffixes and keys that code has as literals."""
    ends = tuple(SUFFIXES - ALONE)
    return {text for text in literals(code) if text in ALONE | KEYS or text.endswith(ends)}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_suffix_or_key_is_written_out_elsewhere(path):
    assert written_out(path.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    "code",
    ['f"{x.name}:v"', 'name.endswith(("/map", other))', 'props["snncc.norm"]', 'f"@{name}"'],
)
def test_a_literal_is_seen(code):
    assert len(written_out(f"found = {code}")) == 1


def test_each_means_one_thing():
    assert len(SUFFIXES) == sum(name.isupper() for name in names.__all__) - 1
    assert len(KEYS) == len(metadata.__all__)
    assert all(key.startswith(metadata.PREFIX) for key in KEYS)


def test_names_are_read_as_they_are_written():
    assert names.counted(f"fire1{names.TICKS}") == "fire1"
    assert names.counted("fire1") == "fire1"
    assert names.stem(f"a:2{names.COUNT}") == "a:2"
    assert names.is_potential(f"conv1{names.POTENTIAL}")
    assert not names.is_potential(f"conv1{names.INTEGER}")
    assert not names.is_potential(None)
    assert names.is_made_of_tokens(f"q{names.MAP}")
    assert not names.is_made_of_tokens("q")
