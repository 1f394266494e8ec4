"""``snncc diff``: two compiled networks beside each other."""

import numpy as np
import pytest
import small_model
from command_line import EXAMPLE, run_cli

DATA = f"{EXAMPLE}/test_1000.npz"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    for name, seed in (("a", 0), ("b", 5)):
        small_model.compiled(seed=seed).save(folder / f"{name}.snn")
    x = np.random.default_rng(3).integers(0, 256, (40, 1, 6, 6), dtype=np.uint8)
    np.savez(folder / "x.npz", x=x, y=np.arange(40) % 5)
    return folder


def _diff(folder, *args):
    return run_cli(folder, "diff", folder / "a.snn", folder / "b.snn", *args)


def test_diff_screen(pair, golden):
    done = _diff(pair, "--input", pair / "x.npz")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == golden


def test_diff_of_the_same(pair):
    done = run_cli(pair, "diff", pair / "a.snn", pair / "a.snn")
    assert "same       options, weights and populations" in done.stdout
    assert " -> " not in done.stdout
    assert "same " not in _diff(pair).stdout


def test_diff_in_json(pair):
    found = _diff(pair, "--input", pair / "x.npz", "--limit", 30, "--json").json
    assert found["data"]["samples"] == 30
    assert found["data"]["other_class"] > 0
    names = [p["module"] for p in found["populations"]]
    assert names == ["net.act1", "net.act2"]
    assert all(p["changed"] > 0 for p in found["populations"])
    assert _diff(pair, "--json").json["data"] is None


def test_what_is_wrong_is_told(pair):
    done = _diff(pair, "--limit", 3)
    assert (done.code, done.stderr) == (2, "error: --limit is given without --input\n")
    done = _diff(pair, "--input", DATA)
    assert (done.code, "the network takes [N, 1, 6, 6]" in done.stderr) == (6, True)
    done = run_cli(pair, "diff", pair / "a.snn", pair / "none.snn")
    assert (done.code, done.stderr) == (6, "error: TMP/none.snn: no such file\n")
