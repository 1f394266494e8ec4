"""Lava from the command line: run, verify, export, doctor, and what is said where it is missing."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import EXAMPLE, MODELS

import snncc as package
from snncc.backends.lava import environment, interpreter

DATA = f"{EXAMPLE}/test_1000.npz"


@pytest.fixture
def lava(lava_python, monkeypatch):
    """Lava is there."""
    monkeypatch.setenv("SNNCC_LAVA_PYTHON", lava_python)
    return lava_python


def script(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A machine where no Python has Lava; python3.10 on the path is a wrapper that exits 127."""
    wrapper = script(tmp_path / "bin" / "python3.10", "exit 127")
    for name in ("SNNCC_LAVA_PYTHON", "PYENV_ROOT", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(wrapper.parent))
    this = script(tmp_path / "this", "echo 3.12", "echo it has no lava-nc")
    monkeypatch.setattr(sys, "executable", str(this))
    interpreter.probe.cache_clear()
    yield wrapper
    interpreter.probe.cache_clear()


# -- run and verify ------------------------------------------------------------------------


def test_run_screen(snncc, cnn, lava, golden):
    args = ("--input", DATA, "--limit", 12, "--engine", "lava", "--executor", "direct")
    done = snncc("run", cnn, *args)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == golden


def test_run_agrees_with_the_clocked_engine(snncc, cnn, lava, tmp_path):
    args = ("--input", DATA, "--limit", 6, "--json", "-f", "-o")
    files = tmp_path / "clocked.npz", tmp_path / "lava.npz"
    probe = ("--probe", "fire3")
    clocked = snncc("run", cnn, *args, files[0], *probe).json
    lava = snncc("run", cnn, *args, files[1], *probe, "--engine", "lava").json
    assert lava["rates"] == clocked["rates"]
    assert lava["predictions"] == clocked["predictions"]
    assert (lava["ran"]["executor"], lava["ran"]["why"]) == ("lava", "default")
    with np.load(files[0]) as one, np.load(files[1]) as two:
        assert set(one) == set(two) == {"output.output", "spikes.fire3"}
        assert all(np.array_equal(one[key], two[key]) for key in one)


def test_verify_screen(snncc, cnn, lava, golden):
    engines = ("--engines", "clocked,event,lava", "--executor", "direct")
    done = snncc("verify", cnn, *engines, "--limit", 8)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == golden


def test_its_options_belong_to_it(snncc, cnn):
    done = snncc("verify", cnn, "--executor", "direct", "--timeout", 5)
    words = "error: --executor, --timeout: of engine lava, which is not among --engines\n"
    assert (done.code, done.stderr) == (2, words)
    done = snncc("run", cnn, "--input", DATA, "--executor", "direct")
    assert (done.code, done.stderr) == (2, "error: engine 'clocked' has no option 'executor'\n")


def test_a_late_run_is_one_line(snncc, cnn, lava):
    args = ("--input", DATA, "--limit", 1, "--engine", "lava", "--timeout", 0.01)
    done = snncc("run", cnn, *args)
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "error: lava, lava executor: no result within 0.01 s, all its processes"
    )
    assert done.stderr.count("\n") == 1


# -- what is missing, what does not fit ----------------------------------------------------


@pytest.mark.parametrize(
    "args", [("run", "--input", DATA, "--engine", "lava"), ("verify", "--engines", "clocked,lava")]
)
def test_without_lava_it_is_said_what_to_type(args, snncc, cnn, nowhere, golden):
    command, *rest = args
    done = snncc(command, cnn, *rest)
    assert (done.code, done.stdout) == (7, "")
    assert done.stderr == golden


def test_all_engines_are_those_that_run_here(snncc, cnn, nowhere):
    done = snncc("verify", cnn, "--engines", "all", "--limit", 1)
    assert done.code == 0
    assert "lava       not run: needs lava-nc 0.10.0, which needs Python 3.10, and none" in (
        done.stdout
    )


def test_a_wrapper_is_no_python(snncc, cnn, nowhere):
    args = ("--input", DATA, "--engine", "lava", "--lava-python", nowhere)
    done = snncc("run", cnn, *args)
    assert done.code == 7
    assert "it does not run as Python (exit code 127)" in done.stderr


@pytest.mark.parametrize(
    "args",
    [("run", "--input", DATA, "--engine", "lava"), ("export", "--to", "lava", "-o", "made")],
    ids=["run", "export"],
)
def test_sixteen_bits_are_refused_with_layers_bounds_and_a_way_out(
    args, snncc, weights, tmp_path, golden
):
    sixteen = tmp_path / "tiny.snn"
    assert snncc("compile", weights("tiny"), f"--arch={MODELS}:tiny", "-o", sixteen).code == 0
    command, *rest = args
    done = snncc(command, sixteen, *rest)
    assert (done.code, done.stdout) == (4, "")
    assert done.stderr == golden
    assert not Path("made").exists()


# -- export --------------------------------------------------------------------------------


def test_what_is_exported_runs_alone(snncc, cnn, lava, tmp_path):
    out = tmp_path / "lava"
    done = snncc("export", cnn, "--to", "lava", "-o", out)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.startswith("wrote      TMP/lava    19 processes\nruns       python ")
    x = np.load(DATA)["x"][:3]
    np.save(tmp_path / "x.npy", x.reshape(-1, 1, 28, 28))
    files = ["--input", tmp_path / "x.npy", "--output", tmp_path / "y.npz"]
    subprocess.run([lava, "-E", out / "run.py", *files], check=True, capture_output=True)
    session = package.Session(cnn)
    with np.load(tmp_path / "y.npz") as found:
        assert json.loads(str(found["report"]))["processes"] == 19
        assert np.array_equal(found["readout/output"], session.run_integers(x)["output"])


def test_an_export_is_never_overwritten_by_chance(snncc, cnn, tmp_path):
    out = tmp_path / "lava"
    assert snncc("export", cnn, "--to", "lava", "-o", out, "--json").json["processes"] == 19
    (out / "mine.txt").write_text("precious")
    done = snncc("export", cnn, "--to", "lava", "-o", out)
    assert (done.code, done.stdout) == (6, "")
    assert "not empty; choose another name or replace it with -f" in done.stderr
    assert (out / "mine.txt").exists()
    done = snncc("export", cnn, "--to", "lava", "-o", out, "-f")
    assert (done.code, "holds what is no part of it, mine.txt" in done.stderr) == (6, True)
    (out / "mine.txt").unlink()
    assert snncc("export", cnn, "--to", "lava", "-o", out, "-f").code == 0
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_force_replaces_only_an_export(snncc, cnn, tmp_path):
    home, file, link = tmp_path / "home", tmp_path / "file", tmp_path / "link"
    home.mkdir()
    (home / "mine.txt").write_text("precious")
    file.write_text("precious")
    link.symlink_to(home)
    for out, words in (
        (home, "holds what is no part of it, mine.txt"),
        (Path("."), "has no name of its own"),
        (file, "is not a folder"),
        (link, "is not a folder"),
        (tmp_path / "none" / "x", "make it first"),
    ):
        done = snncc("export", cnn, "--to", "lava", "-o", out, "-f")
        assert (done.code, words in done.stderr) == (6, True), done.stderr
    assert (home / "mine.txt").read_text() == file.read_text() == "precious"
    (home / "mine.txt").unlink()
    assert snncc("export", cnn, "--to", "lava", "-o", home).code == 0  # empty by now


# -- doctor --------------------------------------------------------------------------------


def test_doctor_says_what_runs_and_what_to_type(snncc, nowhere):
    done = snncc("doctor")
    assert done.code == 0
    assert "clocked     yes\n" in done.stdout
    assert "then type: snncc doctor --install-lava" in done.stdout
    found = snncc("doctor", "--json").json
    assert (found["engines"]["clocked"], found["lava_python"]) == ("", None)
    assert found["packages"]["numpy"] == np.__version__


def test_doctor_finds_lava(snncc, lava):
    found = snncc("doctor", "--json").json
    assert (found["engines"]["lava"], found["lava_python"]) == ("", lava)


def test_nothing_is_installed_without_a_python(snncc, nowhere):
    done = snncc("doctor", "--install-lava")
    assert (done.code, "none was found that runs" in done.stderr) == (7, True)


def test_an_environment_is_there_whole_or_not_at_all(snncc, nowhere, tmp_path):
    installs = 'if [ "$2" = pip ]; then echo no network >&2; exit 1; fi'
    made = f"mkdir -p $3/bin && cp {nowhere} $3/bin/python"
    make = f'if [ "$2" = venv ]; then {made}; exit; fi'
    tail = ("echo 3.10", 'case "$0" in */bin/python) echo ok;; *) echo no;; esac')
    script(nowhere, "PATH=/usr/bin:/bin", installs, make, *tail)
    done = snncc("doctor", "--install-lava")
    assert done.code == 7
    assert done.stderr.startswith("error: failed: ")
    assert done.stderr.endswith("requirements.txt\n  no network\n")
    assert list((tmp_path / "cache").iterdir()) == []
    script(nowhere, "PATH=/usr/bin:/bin", make, *tail)
    assert snncc("doctor", "--install-lava").code == 0
    own = interpreter.environment_folder() / "bin" / "python"
    assert interpreter.find_python() == str(own)
    assert environment.install(print) == own


@pytest.mark.slow
def test_the_pinned_environment_runs_a_network(snncc, cnn, monkeypatch, tmp_path, lava_python):
    monkeypatch.delenv("SNNCC_LAVA_PYTHON", raising=False)
    assert snncc("doctor", "--install-lava").code == 0
    own = interpreter.environment_folder() / "bin" / "python"
    args = ("--input", DATA, "--limit", 2, "--engine", "lava", "--lava-python", own)
    assert snncc("run", cnn, *args).code == 0


def test_a_network_compiled_for_it_runs_there(snncc, weights, lava, tmp_path):
    out = tmp_path / "film.snn"
    args = ("--timesteps", 3, "--target", "loihi2", "-o", out)
    assert snncc("compile", weights("film"), f"--arch={MODELS}:film", *args).code == 0
    done = snncc("verify", out, "--engines", "lava", "--executor", "direct", "--json")
    assert (done.code, done.json["engines"]["lava"]["mismatched"]) == (0, 0)
