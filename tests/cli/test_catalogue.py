"""``snncc targets`` and ``snncc ops`` are the registries, printed."""

import pytest

from snncc.backends.chip.chips import CHIPS
from snncc.backends.engines import TARGETS
from snncc.backends.lava import interpreter
from snncc.ir.ops import OPS


def test_targets_screen(snncc, golden, monkeypatch):
    monkeypatch.setattr(interpreter, "find_python", lambda: "/a/python3.10")
    assert snncc("targets").stdout == golden


def test_targets_json(snncc):
    found = snncc("targets", "--json").json
    assert [t["name"] for t in found["targets"]] == list(TARGETS)
    assert [c["name"] for c in found["chips"]] == list(CHIPS)


def test_ops_screen(snncc, golden):
    assert snncc("ops").stdout == golden


@pytest.mark.parametrize("name", list(OPS))
def test_every_operator_has_a_page(name, snncc):
    page = snncc("ops", name).stdout
    assert f"ai.snncc {name}" in page
    assert all(port in page for port in (*OPS[name].inputs, *OPS[name].outputs))


def test_operator_screen(snncc, golden):
    assert snncc("ops", "FireCount").stdout == golden


def test_ops_json_has_the_body(snncc):
    (op,) = snncc("ops", "QGemm", "--json").json["ops"]
    assert "MatMul" in op["body"]
