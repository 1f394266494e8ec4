"""``snncc engines``, ``chips`` and ``ops`` are the registries, printed."""

import pytest

from snncc.backends.chip.chips import CHIPS
from snncc.backends.engines import ENGINES
from snncc.backends.lava import interpreter
from snncc.ir.ops import OPS


def test_engines_screen(snncc, golden, monkeypatch):
    monkeypatch.setattr(interpreter, "find_python", lambda: "/a/python3.10")
    assert snncc("engines").stdout == golden


def test_chips_screen(snncc, golden):
    assert snncc("chips").stdout == golden


def test_engines_and_chips_as_json(snncc):
    assert [t["name"] for t in snncc("engines", "--json").json["engines"]] == list(ENGINES)
    assert [c["name"] for c in snncc("chips", "--json").json["chips"]] == list(CHIPS)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_the_old_name_says_which_two_to_use(snncc, options):
    done = snncc("targets", *options)
    assert done.code == 2
    assert "snncc engines" in done.stderr
    assert "snncc chips" in done.stderr
    assert "targets" not in snncc("--help").stdout


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
