"""What goes wrong, and how it is said: an exit code, a message, never a traceback, no file."""

import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from command_line import ARCH, CALIBRATION, CHECKPOINT, MODELS

import snncc as package
from snncc.cli import cli, network

TINY = f"--arch={MODELS}:tiny"


class _Evil:
    def __reduce__(self):
        return os.mkdir, ("owned",)


def _state(path, change):
    state = torch.load(path)
    change(state)
    torch.save(state, path)


def _wrong_keys(state):
    state["head.weights"] = state.pop("head.weight")
    state["extra"] = torch.zeros(2)


def _not_finite(state):
    state["conv.weight"][0] = float("nan")


@pytest.fixture
def files(tmp_path, cnn, weights):
    """Bad files by name, in a folder of their own."""
    for name in ("tiny", "unsupported"):
        shutil.copy(weights(name), tmp_path)
    for name, change in (("keys", _wrong_keys), ("nan", _not_finite)):
        shutil.copy(weights("tiny"), tmp_path / f"{name}.pt")
        _state(tmp_path / f"{name}.pt", change)
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"state_dict": _Evil()}, protocol=2))
    (tmp_path / "cut.snn").write_bytes(cnn.read_bytes()[:-1000])
    (tmp_path / "cut.pt").write_bytes((tmp_path / "tiny.pt").read_bytes()[:1500])
    (tmp_path / "cut.npz").write_bytes(Path(CALIBRATION).read_bytes()[:100_000])
    (tmp_path / "cut.onnx").write_bytes(b"\x08\x0a\x3a\x7f")
    (tmp_path / "old.snn").write_text("precious")
    rng = np.random.default_rng(0)
    np.save(tmp_path / "float.npy", rng.random((2, 1, 28, 28), dtype=np.float32))
    np.save(tmp_path / "wide.npy", np.zeros((2, 1, 28, 29), np.uint8))
    np.savez(tmp_path / "labels.npz", x=np.zeros((2, 1, 28, 28), np.uint8), y=np.array([3, 11]))
    return tmp_path


CASES = {
    "missing_file": (6, "compile {f}/none.pt " + TINY),
    "no_constructor": (2, "compile {f}/tiny.pt"),
    "unknown_constructor": (6, f"compile {{f}}/tiny.pt --arch={MODELS}:tinny"),
    "unknown_network": (2, "compile {f}/tiny.pt --arch e-spikeformer-x"),
    "weights_of_no_such_network": (6, "compile {f}/tiny.pt --arch e-spikeformer-s"),
    "wrong_arguments": (2, "compile {f}/tiny.pt " + TINY + ' --arch-args {{"width":3}}'),
    "wrong_keys": (6, "compile {f}/keys.pt " + TINY),
    "not_finite": (6, "compile {f}/nan.pt " + TINY),
    "pickle_that_runs_code": (6, "compile {f}/evil.pt " + TINY),
    "no_such_weights": (6, "compile {f}/tiny.pt " + TINY + " --weights ema"),
    "existing_output": (6, "compile {f}/tiny.pt " + TINY + " -o {f}/old.snn"),
    "missing_output_folder": (6, "compile {f}/tiny.pt " + TINY + " -o {f}/none/x.snn"),
    "wrong_shape": (6, "compile {f}/tiny.pt " + TINY + " --input-shape 2,6,6 -o {f}/x.snn"),
    "unsupported": (3, f"compile {{f}}/unsupported.pt --arch={MODELS}:unsupported -o {{f}}/x.snn "
                       "--input-range 0,1"),
    "missing_calibration": (6, "compile {f}/tiny.pt " + TINY + " --calibration {f}/none.npz"),
    "calibration_of_wrong_shape": (6, "compile {f}/tiny.pt " + TINY + " -o {f}/x.snn "
                                      f"--calibration {CALIBRATION}"),
    "range_of_raw_pixels": (2, "compile {f}/tiny.pt " + TINY + " -o {f}/x.snn --input-range 0,1"),
    "truncated_artefact": (6, "inspect {f}/cut.snn"),
    "truncated_checkpoint": (6, "compile {f}/cut.pt " + TINY + " -o {f}/x.snn"),
    "truncated_data": (6, "run {cnn} --input {f}/cut.npz"),
    "truncated_graph": (6, "check {f}/cut.onnx"),
    "not_an_artefact": (6, "verify {f}/tiny.pt"),
    "missing_artefact": (6, "run {f}/none.snn --input {f}/float.npy"),
    "wrong_dtype": (6, "run {cnn} --input {f}/float.npy"),
    "wrong_data_shape": (6, "run {cnn} --input {f}/wide.npy"),
    "label_out_of_range": (6, "run {cnn} --input {f}/labels.npz"),
    "probe_without_file": (2, "run {cnn} --input {f}/float.npy --probe fire1"),
    "unknown_probe": (2, f"run {{cnn}} --input {CALIBRATION} --limit 1 --probe fire9 -o {{f}}/o"),
    "unknown_engine": (2, "verify {cnn} --engines warp"),
    "stage_of_another_view": (2, "inspect {cnn} neurons --stage spiking"),
    "onnx_needs_a_file": (2, "inspect {cnn} graph --format onnx"),
    "unknown_operator": (2, "ops FireCounts"),
}  # fmt: skip


def _tree(folder):
    return sorted(str(path) for path in folder.rglob("*") if "cache" not in path.parts)


@pytest.mark.parametrize("case", CASES)
def test_error(case, snncc, files, cnn, golden):
    code, line = CASES[case]
    before = _tree(files)
    args = [part.format(f=files, cnn=cnn) for part in line.split()]
    done = snncc(*args)
    assert (done.code, done.stdout) == (code, "")
    assert done.stderr.replace(str(cnn), "CNN") == golden
    assert _tree(files) == before
    assert not os.path.exists("owned")


USAGE = {
    "--weight-bits": "compile x --weight-bits 3",
    "--input": "compile x --input u16",
    "--mean": "compile x --mean red",
    "--input-range": "compile x --input-range 2,1",
    "--input-shape": "check x --input-shape 3,32",
    "--arch-args": "check x --arch-args [1]",
    "--limit": "run x --input y --limit 0",
    "--colour": "verify x --colour",
    "paint": "paint x",
}


@pytest.mark.parametrize("option", USAGE)
def test_usage_errors_name_the_option(option, snncc):
    done = snncc(*USAGE[option].split())
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert option in done.stderr
    assert done.stderr.count("\n") == 1


def test_json_errors_are_a_document(snncc, files):
    done = snncc("compile", files / "keys.pt", TINY, "--json")
    error = done.json["error"]
    assert (done.code, error["code"]) == (6, 6)
    assert {fault["node"] for fault in error["faults"]} == {"head.weight", "head.weights", "extra"}
    assert done.stderr == f"error: {error['message']}\n"


def test_json_errors_cover_usage(snncc):
    assert snncc("compile", "x", "--weight-bits", "3", "--json").json["error"]["code"] == 2
    assert snncc("inspect", "x", "--format", "json").json["error"]["code"] == 6


def test_many_faults_are_cut_short(snncc, files):
    _state(files / "tiny.pt", lambda s: s.update({f"more.{i}": torch.ones(1) for i in range(60)}))
    done = snncc("compile", files / "tiny.pt", TINY)
    assert done.stderr.count("\n") == 1 + 1 + 40 + 1
    assert done.stderr.endswith("and 20 more (all of them: --json)\n")


def test_missing_package_is_exit_7(snncc, monkeypatch):
    monkeypatch.setattr(network, "find_spec", lambda name: None)
    done = snncc("compile", CHECKPOINT, ARCH, "-o", os.devnull + "x")
    assert (done.code, "pip install 'snncc[torch]'" in done.stderr) == (7, True)


@pytest.fixture
def failing(monkeypatch):
    """A command that raises what it is told to."""

    def fail(error):
        def raise_it():
            raise error

        monkeypatch.setitem(cli.commands, "fail", click.Command("fail", callback=raise_it))

    return fail


def test_unexpected_errors_are_one_line(snncc, failing):
    failing(ZeroDivisionError("division by zero\nand more"))
    done = snncc("fail")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: internal: ZeroDivisionError at test_failures.py:")
    assert "please report" in done.stderr
    assert done.stderr.count("\n") == 1


def test_debug_shows_the_traceback(snncc, failing, monkeypatch):
    monkeypatch.setenv("SNNCC_DEBUG", "1")
    failing(ZeroDivisionError("division by zero"))
    assert "Traceback" in snncc("fail").stderr


def test_end_of_file_inside_is_no_interrupt(snncc, failing):
    failing(EOFError("oops"))
    assert snncc("fail").code == 1


def test_interrupt_is_clean(snncc, failing):
    failing(KeyboardInterrupt())
    done = snncc("fail")
    assert (done.code, done.stdout) == (130, "")
    assert done.stderr.strip() == "interrupted; nothing written"


def test_names_in_files_do_not_steer_the_terminal(snncc, cnn, tmp_path):
    model = package.load(cnn)
    model.program = replace(model.program, name="\x1b[2Jx")
    model.manifest["name"] = "\x1b[2Jx"
    model.save(tmp_path / "odd.snn")
    assert "\x1b" not in snncc("inspect", tmp_path / "odd.snn").stdout
