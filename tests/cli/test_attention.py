"""A network with spike-driven attention from the command line: compiled, inspected, run."""

import os
from dataclasses import replace

import numpy as np
import pytest
from command_line import MODELS, ROOT, run_cli
from report_schema import require_valid

import snncc as package
from snncc.backends.engines import ENGINES
from snncc.program import Attention, Relay

ARCH = f"--arch={MODELS}:attending"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "x.npz"
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 1, 6, 6)).astype(np.uint8)
    np.savez(path, x=pixels, y=rng.integers(0, 3, 40))
    return path


@pytest.fixture(scope="module")
def attending(weights, data, tmp_path_factory):
    """The screen of its compilation, and the path of its ``.snn``."""
    folder, before = tmp_path_factory.mktemp("attending"), os.getcwd()
    out = folder / "attending.snn"
    os.chdir(ROOT)
    try:
        args = ("compile", weights("attending"), ARCH, "--calibration", data, "-o", out)
        return run_cli(folder, *args), out
    finally:
        os.chdir(before)


def test_compile_inspect_and_verify(snncc, attending, data, golden):
    compiled, file = attending
    require_valid(file)
    screens = [
        compiled,
        snncc("inspect", file, "neurons"),
        snncc("inspect", file, "bounds"),
        snncc("verify", file, "--input", data),
    ]
    assert [(s.code, s.stderr) for s in screens] == [(0, "")] * len(screens)
    assert "\n".join(s.stdout for s in screens) == golden


def test_the_graph_shows_trains_that_are_multiplied(snncc, attending):
    done = snncc("inspect", attending[1], "graph", "--stage", "spiking")
    assert "SpikeAttention(" in done.stdout
    assert "{heads=2 order=kv}" in done.stdout
    assert "QAttention" in snncc("inspect", attending[1], "diff").stdout


@pytest.mark.parametrize("more", [(), ("--pipelined",), ("--engine", "event")])
def test_it_runs(snncc, attending, data, more):
    done = snncc("run", attending[1], "--input", data, "--limit", 8, "--json", *more)
    assert done.code == 0
    assert done.json["samples"] == 8
    populations = {p["module"]: p for p in done.json["rates"]["populations"]}
    assert populations["q.1"]["sops"] == 2 * populations["q.1"]["spikes"]  # two channels a head
    assert all(p["spikes"] for p in populations.values())


def test_the_file_holds_attention_and_the_relay(snncc, attending):
    kinds = [type(n) for n in package.load(attending[1]).program.nodes]
    assert (kinds.count(Attention), kinds.count(Relay)) == (1, 1)
    done = snncc("inspect", attending[1], "weights", "--format", "json")
    assert any(row["kind"] == "identity" for row in done.json["weights"])


@pytest.fixture
def refusing(monkeypatch):
    """The event engine, as if it could not run the network."""
    target = replace(ENGINES["event"], refusal=lambda program: f"refuses {program.name}")
    monkeypatch.setitem(ENGINES, "event", target)


def test_an_engine_that_cannot_run_it_says_so(snncc, attending, data, refusing):
    for args in (("run", "--input", data, "--engine", "event"), ("verify", "--engines", "event")):
        done = snncc(args[0], attending[1], *args[1:])
        assert done.code == 4
        assert "engine 'event' refuses attending" in done.stderr
        assert "there are integer, spike-form, clocked" in done.stderr


@pytest.mark.parametrize("engines", [(), ("--engines", "all")])
def test_the_others_are_compared_all_the_same(snncc, attending, engines, refusing):
    done = snncc("verify", attending[1], *engines, "--json")
    assert done.code == 0
    assert "event" not in done.json["engines"]
    assert done.json["not_run"]["event"] == "refuses attending"
    assert done.json["mismatched"] == 0


def test_check_names_the_softmax(snncc, weights, golden):
    path = weights("attending")
    given = ("--arch-args", '{"softmax": true}')
    done = snncc("check", path, ARCH, *given)
    assert done.code == 3
    assert f"{done.stdout}\n{done.stderr}" == golden


def test_check_of_attention_without_it(snncc, weights):
    done = snncc("check", weights("attending"), ARCH)
    assert done.code == 0
    assert "6/6 activations have levels" in done.stdout
