"""``snncc verify``: agreement, coverage, and a difference that is located."""

from dataclasses import replace

import pytest
from command_line import EXAMPLE

import snncc as package
from snncc.program import Neuron

DATA = f"{EXAMPLE}/test_1000.npz"


def test_verify_screen(snncc, cnn, golden):
    done = snncc("verify", cnn, "--limit", 8)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == golden


def test_verify_json(snncc, cnn):
    done = snncc("verify", cnn, "--engines", "all", "--input", DATA, "--limit", 5, "--json")
    assert done.code == 0
    assert {"clocked", "spike-form"} <= done.json["engines"].keys()
    clocked = done.json["engines"]["clocked"]
    assert (clocked["populations"], clocked["mismatched"]) == (5, 0)
    assert clocked["spikes"] > 10_000
    assert done.json["samples"] == 5


@pytest.fixture
def tampered(cnn, tmp_path):
    """One neuron channel of the Program, but not of the graphs, fires too late."""
    model = package.load(cnn)
    nodes = []
    for node in model.program.nodes:
        if isinstance(node, Neuron) and node.module == "fire2":
            levels = node.levels.copy()
            levels[7] += 60
            node = replace(node, levels=levels)
        nodes.append(node)
    model.program = replace(model.program, nodes=tuple(nodes))
    model.save(tmp_path / "tampered.snn")
    return tmp_path / "tampered.snn"


@pytest.fixture
def mistaken(tampered, monkeypatch):
    """The same, as if the compiler had translated it so."""
    monkeypatch.setattr("snncc.runtime.same_network.require_same_network", lambda *_: None)
    return tampered


def test_a_file_of_two_networks_is_refused(snncc, tampered):
    for command in (("verify", tampered), ("run", tampered, "--engine", "integer")):
        done = snncc(*command, "--limit", 8, *(("--input", DATA) if "run" in command else ()))
        assert done.code == 6
        assert "graph 'quantised' is not the network of program.json" in done.stderr
        assert "'fire2' has another levels; compile again" in done.stderr


def test_a_difference_is_located(snncc, mistaken, golden):
    done = snncc("verify", mistaken, "--limit", 8)
    assert (done.code, done.stderr) == (5, "error: engines disagree; first differences:\n")
    assert done.stdout == golden


def test_a_difference_in_json_is_no_error_document(snncc, mistaken):
    done = snncc("verify", mistaken, "--limit", 8, "--engines", "clocked", "--json")
    assert done.code == 5
    first = done.json["engines"]["clocked"]["differences"][0]
    assert (first["name"], first["first"]["channel"]) == ("fire2", 7)
