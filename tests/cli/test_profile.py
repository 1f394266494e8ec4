"""``snncc profile``: the screen, tables folded by module path, files, and what is refused."""

import csv
import io
import json
import sys

import numpy as np
import pytest
from command_line import EXAMPLE

import snncc as package

DATA = f"{EXAMPLE}/test_1000.npz"


@pytest.fixture
def profile(snncc, cnn):
    """Profile the example: ``profile("--csv")``."""
    return lambda *args: snncc("profile", cnn, "--input", DATA, "--limit", 20, *args)


def test_profile_screen(profile, golden):
    done = profile()
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == golden


def test_profile_json_is_one_document_and_the_file(profile, cnn, tmp_path):
    done = profile("--json", "-o", tmp_path / "p.json")
    assert done.code == 0
    found = json.loads((tmp_path / "p.json").read_text())
    assert done.stdout.count("\n") == (tmp_path / "p.json").read_text().count("\n")
    assert done.json["layers"] == found["layers"]
    assert (found["format"], found["version"], found["samples"]) == ("snncc-profile", 1, 20)
    assert found["hash"] == package.load(cnn).sha256
    assert found["energy_pj"].keys() == found["energy"].keys()
    sums = {key: sum(w[key] for w in found["projections"]) for key in ("sops", "macs", "acs")}
    assert sums == {key: found[key] for key in sums}
    assert found["spikes"] == sum(p["spikes"] for p in found["populations"])
    assert found["macs"] == 28 * 28 * 9 * 16 - 16 * (4 * 28 * 3 - 4)  # no padding
    for energy in found["energy"].values():
        of_layers = sum(layer["energy"]["45nm-fp32"]["snn"] for layer in found["layers"])
        assert energy["snn"] > 0
        assert of_layers == pytest.approx(found["energy_pj"]["45nm-fp32"])


def test_engines_give_one_profile(profile):
    found = [profile("--engine", name, "--json").json for name in ("event", "clocked", "integer")]
    assert [f.pop("engine") for f in found] == ["event", "clocked", "integer"]
    assert found[0] == found[1] == found[2]


def rows(done):
    assert (done.code, done.stderr) == (0, "")
    return list(csv.DictReader(io.StringIO(done.stdout)))


def test_csv_folds_by_module_path(profile):
    layers, whole = rows(profile("--csv")), rows(profile("--csv", "--depth", 0))
    assert [row["name"] for row in layers] == ["conv1", "conv2", "conv3", "conv4", "conv5", "head"]
    (total,) = whole
    assert (total["name"], total["kind"]) == ("cnn_d4", "6 layers")
    for key in ("sops", "macs", "dense", "neurons", "45nm-int8+memory quantised"):
        assert float(total[key]) == pytest.approx(sum(float(row[key]) for row in layers))


def test_models_are_chosen(profile, tmp_path):
    (tmp_path / "own.toml").write_text("[mine]\nweight_bits = 8\nmultiply_pj = 1\nadd_pj = 1.0\n")
    done = profile("--energy", f"{tmp_path}/own.toml,spikeyolo", "--json")
    assert list(done.json["energy_pj"]) == ["mine", "spikeyolo"]
    assert done.json["energy"]["mine"]["snn"] == done.json["sops"] + 2 * done.json["macs"]


def test_maps_are_kept_on_demand(profile):
    assert profile("--json").json["maps"] is None
    samples = profile("--json", "--maps", 2).json["maps"]["samples"]
    assert [sample["index"] for sample in samples] == [0, 1]


@pytest.mark.parametrize(
    ("args", "code", "why"),
    [
        (("--energy", "45nm"), 2, "--energy 45nm: no such model; there are 45nm-fp32, "),
        (("--energy", "45nm-int8,"), 2, "is not MODEL,MODEL"),
        (("--csv", "--json", "--depth", "-1"), 2, "not in the range"),
        (("--engine", "lava"), 2, "'lava' is not one of"),
        (("--energy", "missing.toml"), 6, "missing.toml: cannot be read"),
        (("-o", "missing/p.json"), 6, "no folder 'missing'"),
    ],
)
def test_what_is_refused(profile, args, code, why):
    done = profile(*args)
    assert done.code == code
    assert why in done.stderr


def test_stdout_has_one_document(profile):
    done = profile("--json", "--csv")
    assert done.code == 2
    assert done.json["error"]["message"].startswith("--json and --csv both want stdout")


def test_a_missing_constant_is_named(profile, tmp_path):
    (tmp_path / "own.toml").write_text("[mine]\nweight_bits = 8\nadd_pj = 0.1\n")
    done = profile("--energy", tmp_path / "own.toml")
    assert done.code == 6
    assert "own.toml: not models of energy" in done.stderr
    assert "mine" in done.stderr
    assert "multiply_pj is missing" in done.stderr


def test_data_of_another_shape(snncc, cnn, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 3, 8, 8), np.uint8))
    done = snncc("profile", cnn, "--input", tmp_path / "x.npz", "-o", tmp_path / "p.json")
    assert done.code == 6
    assert "shape [2, 3, 8, 8], the network takes [N, 1, 28, 28]" in done.stderr
    assert not (tmp_path / "p.json").exists()


def test_a_profile_is_not_overwritten(profile, tmp_path):
    (tmp_path / "p.json").write_text("kept")
    assert profile("-o", tmp_path / "p.json").code == 6
    assert (tmp_path / "p.json").read_text() == "kept"
    assert profile("-o", tmp_path / "p.json", "-f").code == 0


# -- pictures --------------------------------------------------------------------------------------


def test_pictures_are_written(snncc, cnn, profile, tmp_path):
    plot, raster = tmp_path / "p.png", tmp_path / "r.svg"
    done = profile("--plot", plot, "-o", tmp_path / "p.json")
    assert done.code == 0
    assert done.stdout.splitlines()[-2:] == ["wrote      TMP/p.json", "wrote      TMP/p.png"]
    assert plot.read_bytes()[:4] == b"\x89PNG"
    done = snncc("run", cnn, "--input", DATA, "--limit", 2, "--raster", raster)
    assert done.code == 0
    assert "wrote      TMP/r.svg" in done.stdout
    assert "fire5" in raster.read_text()


@pytest.mark.parametrize("option", ["--plot", "--raster"])
def test_pictures_that_cannot_be_written(snncc, cnn, tmp_path, option, monkeypatch):
    command = ("profile" if option == "--plot" else "run", cnn, "--input", DATA, "--limit", 1)
    done = snncc(*command, option, tmp_path / "p.gif")
    assert (done.code, done.stdout) == (2, "")
    assert "pictures are .png, .svg, .pdf" in done.stderr
    (tmp_path / "p.png").write_text("kept")
    assert snncc(*command, option, tmp_path / "p.png").code == 6
    assert snncc(*command, option, tmp_path / "q.png", "-o", tmp_path / "q.png").code == 2
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "snncc.runtime.plots", raising=False)
    done = snncc(*command, option, tmp_path / "q.png")
    assert done.code == 7
    assert "pip install 'snncc[plot]'" in done.stderr


def test_a_picture_needs_a_model_of_operations(profile, tmp_path):
    done = profile("--energy", "spikeyolo", "--plot", tmp_path / "p.png")
    assert done.code == 2
    assert "--plot compares networks under a model such as 45nm-int8" in done.stderr
