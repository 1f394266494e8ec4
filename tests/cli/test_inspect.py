"""``snncc inspect``: every view of the example network."""

import json
import zipfile
from dataclasses import replace

import onnx
import pytest
from artifact_files import forged
from command_line import EXAMPLE, MODELS

import snncc as package

DATA = f"{EXAMPLE}/test_1000.npz"


@pytest.mark.parametrize("view", ["summary", "neurons", "weights", "passes", "bounds", "resources"])
def test_view(view, snncc, cnn, golden):
    done = snncc("inspect", cnn, view)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == golden


@pytest.mark.parametrize("stage", ["imported", "integer", "quantised", "spiking"])
def test_graph_leads_with_its_stage_and_shows_weights(stage, snncc, cnn):
    lines = snncc("inspect", cnn, "graph", "--stage", stage).stdout.splitlines()
    assert lines[0] == f"stage {stage}"
    assert sum(line.startswith("input ") for line in lines) == 1
    assert sum(line.startswith("weight ") for line in lines) > 5
    assert all("None..None" not in line for line in lines)


def test_diff_removes_counts_and_adds_spikes(snncc, cnn):
    lines = snncc("inspect", cnn, "diff", "--from", "quantised", "--to", "spiking").stdout
    changes = [line for line in lines.splitlines() if line[0] in "+-"]
    assert changes[:2] == ["--- quantised", "+++ spiking"]
    assert sum("FireCount" in line for line in changes if line[0] == "-") == 5
    assert sum("IFSoftReset" in line for line in changes if line[0] == "+") == 5


@pytest.mark.parametrize(
    "view", ["summary", "graph", "neurons", "weights", "passes", "bounds", "resources"]
)
def test_json_of_every_view(view, snncc, cnn):
    found = snncc("inspect", cnn, view, "--format", "json").json
    assert found["report" if view == "summary" else view]


def test_onnx_can_be_written_and_checked(snncc, cnn, tmp_path):
    out = tmp_path / "spiking.onnx"
    args = ("inspect", cnn, "graph", "--format", "onnx", "-o", out)
    assert snncc(*args).code == 0
    onnx.checker.check_model(str(out))
    again = snncc(*args)
    assert (again.code, "exists already" in again.stderr) == (6, True)
    assert snncc(*args, "-f").code == 0


def test_onnx_without_weights_says_so(snncc, cnn, tmp_path):
    out = tmp_path / "imported.onnx"
    args = ("--stage=imported", "--format=onnx", "-o", out)
    assert "compile with --keep-stages" in snncc("inspect", cnn, "graph", *args).stderr
    assert len(onnx.load(str(out)).graph.input) > 1


def test_text_can_be_written_to_a_file(snncc, cnn, tmp_path):
    out = tmp_path / "graph.txt"
    done = snncc("inspect", cnn, "graph", "-o", out)
    assert (done.code, done.stdout) == (0, "")
    assert out.read_text() == snncc("inspect", cnn, "graph").stdout


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weight_bits": None}, "weight_bits: None where int or str is expected"),
        ({"silent": [1]}, "silent.0: 1 where str is expected"),
        ({"verify": {}}, "verify: no 'available'"),
        ({"more": 1}, "unknown 'more'"),
        ({"version": 2}, "version 2; this snncc reads 1"),
    ],
)
def test_a_report_of_other_make_is_a_bad_file(snncc, cnn, tmp_path, change, told):
    with zipfile.ZipFile(cnn) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    report = {**json.loads(members["report.json"]), **change}
    odd = forged(tmp_path / "odd.snn", {**members, "report.json": json.dumps(report).encode()})
    done = snncc("inspect", odd)
    assert (done.code, done.stdout) == (6, "")
    assert f"odd.snn: report.json: {told}; compile again" in done.stderr


def test_a_model_made_by_hand_has_no_report(snncc, cnn, tmp_path):
    hand_made = replace(package.load(cnn), reported=None).save(tmp_path / "hand.snn")
    assert snncc("verify", hand_made).code == 0
    done = snncc("inspect", hand_made)
    assert (done.code, done.stdout) == (6, "")
    assert "cnn_d4: has no report; compile the network" in done.stderr


def test_a_network_without_some_stage_says_which_it_has(snncc, cnn, tmp_path):
    model = package.load(cnn)
    graphs = {k: model.graphs[k] for k in ("quantised", "spiking")}
    replace(model, graphs=graphs, keep_stages=False).save(tmp_path / "two.snn")
    done = snncc("inspect", tmp_path / "two.snn", "graph", "--stage", "integer", "--format=json")
    assert done.code == 6
    assert "there are quantised, spiking" in json.loads(done.stdout)["error"]["message"]


def test_bounds_of_your_own_data(snncc, cnn):
    """More samples can only widen what was observed."""
    few, many = (
        snncc("inspect", cnn, "bounds", "--input", DATA, "--limit", n, "--format", "json").json
        for n in (5, 40)
    )
    for one, more in zip(few["bounds"], many["bounds"], strict=True):
        assert one["low"] <= more["observed"][0] <= one["observed"][0]
        assert one["observed"][1] <= more["observed"][1] <= one["high"]
        assert more["left"]["clocked"] == 63 - one["bits"] <= 63 - more["observed_bits"]
        assert one["slice_left"] == 32 - one["slice_bits"]
    screen = snncc("inspect", cnn, "bounds", "--input", DATA, "--limit", 5).stdout
    assert screen.splitlines()[0] == "observed   on 5 samples"


def test_without_data_nothing_was_observed(snncc, weights, tmp_path):
    out = tmp_path / "tiny.snn"
    assert snncc("compile", weights("tiny"), f"--arch={MODELS}:tiny", "-o", out).code == 0
    done = snncc("inspect", out, "bounds")
    assert done.stdout.startswith("observed   on nothing yet; give --input DATA\n")
    rows = snncc("inspect", out, "bounds", "--format=json").json["bounds"]
    assert {row["observed"] for row in rows} == {None}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("weights", "--input", DATA), "--input belongs to the view 'bounds'"),
        (("bounds", "--limit", 3), "--limit is given without --input"),
        (("bounds", "--input", "nowhere.npz"), "nowhere.npz: no such file"),
    ],
)
def test_data_where_it_has_no_place(args, words, snncc, cnn):
    done = snncc("inspect", cnn, *args)
    assert done.code in (2, 6)
    assert words in done.stderr
