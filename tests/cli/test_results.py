"""A network that returns several results, on the command line from check to run."""

import numpy as np
import pytest
from command_line import MODELS

ARCH = f"--arch={MODELS}:several"
X = np.random.default_rng(0).integers(0, 256, (24, 1, 6, 6)).astype(np.uint8)


def test_check_names_the_results_that_nothing_stands_in_the_way_of(snncc, weights):
    screen = snncc("check", weights("several"), ARCH)
    assert screen.code == 3
    last = "nothing stands in the way of these results: --results features,scores"
    assert last in " ".join(screen.stdout.split())


def test_check_takes_mean_and_std_as_compile_does(snncc, weights):
    given = ("check", weights("several"), ARCH, "--results", "scores")
    assert snncc(*given, "--mean", "0.5", "--std", "0.25").code == 0
    screen = snncc(*given, "--mean", "0.5,0.5,0.5", "--std", "0.25")
    assert (screen.code, screen.stdout) == (2, "")
    assert "one number, or one for each of 1" in screen.stderr


@pytest.mark.parametrize("names", ["scores,,features", "", ","])
def test_what_is_no_list_of_names_is_refused(snncc, weights, names):
    screen = snncc("check", weights("several"), ARCH, "--results", names)
    assert screen.code == 2
    assert "is not A,B, names of results" in screen.stderr


def test_a_compiled_network_says_its_results_everywhere(snncc, weights, tmp_path):
    data, out, file = tmp_path / "x.npz", tmp_path / "out.npz", tmp_path / "net.snn"
    np.savez(data, x=X, y=np.arange(24) % 3)
    chosen = ("--results", "features,scores", "--calibration", data)
    done = snncc("compile", weights("several"), ARCH, *chosen, "-o", file, "--json")
    assert done.code == 0, done.stderr
    results = {r["name"]: (r["shape"], r["kind"]) for r in done.json["results"]}
    assert results == {"features": ([4, 4, 4], "counts"), "scores": ([3], "potential")}
    assert done.json["besides_sops_per_sample"] == {}
    shown = " ".join(snncc("inspect", file).stdout.split())
    told = "results features 4x4x4 spike counts, scores 3 membrane potentials class: of scores"
    assert told in shown
    verified = " ".join(snncc("verify", file, "--input", data).stdout.split())
    assert verified.count("results features, scores, 0 mismatched") == 3
    ran = snncc("run", file, "--input", data, "-o", out)
    assert "by scores" in ran.stdout
    rows = [line.split()[:2] for line in ran.stdout.splitlines()]
    assert ["features", "4x4x4"] in rows
    assert ["scores", "3"] in rows
    with np.load(out) as found:
        assert {name: x.shape for name, x in found.items()} == {
            "output.features": (24, 4, 4, 4), "output.scores": (24, 3),
        }  # fmt: skip
        classes = found["output.scores"].argmax(1)
    again = snncc("run", file, "--input", data, "--json").json
    assert (again["class_of"], again["predictions"]) == ("scores", classes.tolist())
