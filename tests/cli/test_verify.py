"""``snncc verify``: agreement, coverage, and a difference that is located."""

from dataclasses import replace

import pytest
from command_line import EXAMPLE

import snncc as package
from snncc.ir.program import Neuron

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


def test_a_difference_is_located(snncc, tampered, golden):
    done = snncc("verify", tampered, "--limit", 8)
    assert (done.code, done.stderr) == (5, "error: engines disagree; first differences:\n")
    assert done.stdout == golden


def test_a_difference_in_json_is_no_error_document(snncc, tampered):
    done = snncc("verify", tampered, "--limit", 8, "--engines", "clocked", "--json")
    assert done.code == 5
    first = done.json["engines"]["clocked"]["differences"][0]
    assert (first["name"], first["first"]["channel"]) == ("fire2", 7)
