"""``snncc compile`` and ``snncc check``: the first screens a user sees."""

import os
import sys
from dataclasses import replace

import cli_models
import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from command_line import MODELS
from report_schema import require_valid

import snncc as package


def test_compile_screen(compiled, golden):
    screen, out = compiled
    assert (screen.code, screen.stderr) == (0, "")
    assert screen.stdout == golden
    require_valid(out)


def test_compile_without_calibration_claims_nothing(snncc, weights, tmp_path, golden):
    out = tmp_path / "tiny.snn"
    screen = snncc("compile", weights("tiny"), f"--arch={MODELS}:tiny", "-o", out)
    assert screen.code == 0
    assert screen.stdout == golden


def test_compile_says_which_layer_takes_the_room_of_others(snncc, weights, tmp_path, golden):
    """A branch that never fires, with weights of 10^12 thresholds and more."""
    out, arch = tmp_path / "idle.snn", f"--arch={MODELS}:idle"
    screen = snncc("compile", weights("idle"), arch, "--weight-bits=24", "-o", out)
    assert screen.code == 0
    assert screen.stdout == golden
    report = package.load(out).report
    assert [layer.module for layer in report.squeezed] == ["stem"]
    assert [*report.still_norms] == [f"branch.{i}" for i in (1, 3, 5, 7, 9)]


def test_compile_without_room_for_light_weights_is_refused(snncc, tmp_path, golden):
    torch.manual_seed(0)
    torch.save(cli_models.idle(8).state_dict(), tmp_path / "idle.pt")
    args = (f"--arch={MODELS}:idle", "--arch-args", '{"norms": 8}', "-o", tmp_path / "idle.snn")
    screen = snncc("compile", tmp_path / "idle.pt", *args)
    assert screen.code == 3
    assert screen.stderr == golden


LAZY = """\
import sys
from pathlib import Path
from torch import nn
from snncc.nn import IntegerFire

sys.path.insert(0, str(Path(__file__).parent / "lib"))

class Lazy(nn.Module):
    default_cfg = {"input_size": (1, 4, 4), "mean": (0.0,), "std": (1.0,)}

    def __init__(self):
        super().__init__()
        import snncc_test_lazy_layers
        self.layer, self.fire = snncc_test_lazy_layers.layer(), IntegerFire(4)

    def forward(self, x):
        import snncc_test_lazy_forward
        return self.fire(self.layer(snncc_test_lazy_forward.flat(x)))
"""


@pytest.mark.parametrize("command", ["compile", "check"])
def test_paths_that_the_arch_file_adds_hold_in_constructor_and_forward(snncc, tmp_path, command):
    (tmp_path / "models.py").write_text(LAZY)
    (tmp_path / "lib").mkdir()
    layers = "from torch import nn\nlayer = lambda: nn.Linear(16, 3)\n"
    (tmp_path / "lib" / "snncc_test_lazy_layers.py").write_text(layers)
    forward = "def flat(x):\n    return x.flatten(1)\n"
    (tmp_path / "lib" / "snncc_test_lazy_forward.py").write_text(forward)
    state = {"layer.weight": torch.ones(3, 16), "layer.bias": torch.zeros(3)}
    torch.save(state, tmp_path / "lazy.pt")
    before = list(sys.path)
    out = ("-o", tmp_path / "lazy.snn") if command == "compile" else ()
    screen = snncc(command, tmp_path / "lazy.pt", f"--arch={tmp_path}/models.py:Lazy", *out)
    assert (screen.code, sys.path) == (0, before), screen.stderr
    for name in ("snncc_test_lazy_layers", "snncc_test_lazy_forward"):
        del sys.modules[name]


def test_states_in_a_checkpoint_are_left_out_and_named(snncc, tmp_path):
    file = tmp_path / "models.py"
    file.write_text(STATEFUL)
    state = {"0.weight": torch.ones(3, 16), "0.bias": torch.zeros(3), "1.v_mem": torch.ones(8, 3)}
    torch.save(state, tmp_path / "net.pt")
    out = tmp_path / "net.snn"
    screen = snncc("compile", tmp_path / "net.pt", f"--arch={file}:net", "-o", out)
    assert screen.code == 0, screen.stderr
    assert ", 1 state of neurons left out (1.v_mem)" in screen.stdout
    assert package.load(out).report.checkpoint["states"] == ["1.v_mem"]


STATEFUL = """\
import torch
from torch import nn
from snncc.nn import IntegerFire

class Spiking(IntegerFire):
    def __init__(self):
        super().__init__(4)
        self.register_buffer("v_mem", torch.zeros(0))

def net():
    made = nn.Sequential(nn.Linear(16, 3), Spiking())
    made.default_cfg = {"input_size": (16,), "mean": (0.0,), "std": (1.0,)}
    return made
"""


def test_compile_of_a_silent_network_is_called_vacuous(snncc, weights, tmp_path, golden):
    out = tmp_path / "silent.snn"
    args = ("--name=quiet", "--input=u8", "--weight-bits=12", "-o", out)
    screen = snncc("compile", weights("silent"), f"--arch={MODELS}:silent", *args)
    assert screen.code == 0
    assert screen.stdout == golden


def test_compile_of_real_values_says_what_the_grid_changes(snncc, weights, tmp_path, golden):
    data, out = tmp_path / "x.npy", tmp_path / "tiny.snn"
    np.save(data, np.random.default_rng(0).normal(size=(20, 1, 6, 6)).astype(np.float32))
    args = ("--input=f32", "--calibration", data, "-o", out)
    screen = snncc("compile", weights("tiny"), f"--arch={MODELS}:tiny", *args)
    assert screen.code == 0
    assert screen.stdout == golden


def test_what_calibration_samples_are_taken_for_is_told(snncc, weights, tmp_path):
    data, out = tmp_path / "x.npy", tmp_path / "tiny.snn"
    np.save(data, np.random.default_rng(0).normal(size=(20, 6, 6)))
    args = ("--input=f32", "--calibration", data, "-o", out)
    note = "[N, 6, 6] taken as [N, 1, 6, 6], grey, float64 rounded to float32"
    screen = snncc("compile", weights("tiny"), f"--arch={MODELS}:tiny", *args)
    assert f"\ndata       calibration: {note}\n" in screen.stdout
    assert f"\ndata       calibration: {note}\n" in snncc("inspect", out).stdout


@pytest.mark.parametrize(
    ("dtype", "why"),
    [
        ("i8", "calibration: dtype int64; give raw pixels as uint8, or real values as float32"),
        ("f4", "calibration: float samples for a uint8 input; give raw pixels, or --input f32"),
    ],
)
def test_calibration_of_another_dtype_is_refused(dtype, why, snncc, weights, tmp_path):
    data = tmp_path / "x.npy"
    np.save(data, np.zeros((2, 1, 6, 6), dtype))
    args = ("--calibration", data, "-o", tmp_path / "tiny.snn")
    done = snncc("compile", weights("tiny"), f"--arch={MODELS}:tiny", *args)
    assert (done.code, done.stdout, done.stderr) == (6, "", f"error: TMP/x.npy (npy): {why}\n")


def test_engines_are_compared_on_as_many_samples_as_wanted(snncc, weights, tmp_path, golden):
    data, out = tmp_path / "x.npy", tmp_path / "tiny.snn"
    np.save(data, np.random.default_rng(0).integers(0, 256, (20, 1, 6, 6), dtype=np.uint8))
    args = (weights("tiny"), f"--arch={MODELS}:tiny", "--calibration", data, "-o", out)
    screen = snncc("compile", *args, "--verify-samples", 3)
    assert screen.stdout == golden
    layers = "8 samples layer by layer, spike-form fed with the counts of integer"
    assert f"    {layers}: 0 of 2,144 values differ\n" in snncc("inspect", out).stdout
    few = snncc("compile", *args, "-f", "--verify-samples", 3, "--json").json["verify"]
    assert (few["samples"], few["layers"]["samples"], few["available"]) == (3, 8, 20)
    many = snncc("compile", *args, "-f", "--json").json["verify"]
    assert (many["samples"], many["layers"]) == (20, few["layers"])


def test_layers_of_large_networks_are_compared_a_few_samples_at_a_time(
    snncc, weights, tmp_path, monkeypatch
):
    """As many as fit into memory, until all have been seen."""
    args = (weights("tiny"), f"--arch={MODELS}:tiny", "-o", tmp_path / "tiny.snn", "--json")
    whole = snncc("compile", *args).json["verify"]["layers"]
    monkeypatch.setattr("snncc.ir.oracle._VALUES_AT_ONCE", 1)
    assert snncc("compile", *args, "-f").json["verify"]["layers"] == whole
    assert (whole["samples"], whole["mismatched"], whole["engine"]) == (8, 0, "spike-form")
    assert whole["elements"] > 0


def test_a_target_is_in_the_report_with_what_it_assumes(snncc, weights, tmp_path, golden):
    out = tmp_path / "tiny.snn"
    args = (weights("tiny"), f"--arch={MODELS}:tiny", "--target", "loihi2", "-o", out)
    done = snncc("compile", *args)
    assert done.code == 0
    assert done.stdout == golden
    require_valid(out)
    found = snncc("inspect", out, "--format", "json").json["report"]
    assert (found["weight_bits"], found["target"]["limits"]["state_bits"]) == (8, 24)
    assert snncc("compile", *args, "-f", "--json").json["target"] == found["target"]


def test_a_network_that_leaves_the_targets_bits_is_refused(snncc, weights, tmp_path, golden):
    args = (weights("wide"), f"--arch={MODELS}:wide", "-o", tmp_path / "wide.snn")
    done = snncc("compile", *args, "--target", "loihi2")
    assert (done.code, done.stdout) == (4, "")
    assert done.stderr == golden
    assert not (tmp_path / "wide.snn").exists()
    assert snncc("compile", *args, "--target", "loihi2", "--weight-bits", 7).code == 0


def test_a_target_takes_no_more_bits_than_it_holds(snncc, weights, tmp_path):
    args = (weights("tiny"), f"--arch={MODELS}:tiny", "--target", "loihi2")
    done = snncc("compile", *args, "--weight-bits", 16, "-o", tmp_path / "x.snn")
    assert (done.code, "takes weights of up to 8 bits, not 16" in done.stderr) == (2, True)


def test_json_is_one_document_whatever_the_network_prints(snncc, weights, tmp_path, monkeypatch):
    arch = f"--arch={os.path.abspath(MODELS)}:noisy"
    monkeypatch.chdir(tmp_path)
    done = snncc("compile", weights("noisy"), arch, "--json")
    assert done.stderr == "built\n"
    keys = {"activations_found", "activations_lowered", "layers", "agreement", "changed"}
    keys |= {"path", "bytes", "seconds", "seconds_import_torch", "checkpoint", "origins"}
    assert keys <= done.json.keys()
    assert done.json["changed"] is None
    assert done.json["checkpoint"]["parameters"] == 235
    assert os.listdir(tmp_path) == [done.json["path"]] == ["noisy.snn"]
    assert done.json["bytes"] == os.path.getsize("noisy.snn")


def test_the_checkpoint_is_remembered_in_the_file(cnn):
    assert package.load(cnn).report.checkpoint["file"] == "cnn_d4.pt"


def test_force_keep_stages_and_dump_ir_do_what_they_say(snncc, weights, tmp_path):
    out, dumps = tmp_path / "tiny.snn", tmp_path / "ir"
    out.write_text("worthless")
    args = ("-o", out, "-f", "--keep-stages", "--dump-ir", dumps)
    assert snncc("compile", weights("tiny"), f"--arch={MODELS}:tiny", *args).code == 0
    assert package.load(out).keep_stages
    graphs = [snncc("inspect", out, "graph", "--stage", "integer").stdout]
    replace(package.load(out), keep_stages=False).save(out, overwrite=True)
    graphs.append(snncc("inspect", out, "graph", "--stage", "integer").stdout)
    assert sorted(graphs[0].splitlines()) == sorted(graphs[1].splitlines())
    assert sorted(path.name for path in dumps.iterdir())[0] == "00-import.txt"
    again = snncc("compile", weights("tiny"), f"--arch={MODELS}:tiny", "--dump-ir", dumps)
    assert (again.code, "not empty" in again.stderr) == (6, True)


@pytest.fixture
def onnx_file(tmp_path):
    """A network with an int-free quantiser, as other tools export it."""
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 21]>
        net (float[N, 4] x) => (float[N, 2] y)
        <float[3, 4] w = {1,2,3,4,5,6,7,8,9,1,2,3}, float[2, 3] v = {1,-1,1,2,1,-2},
         float low = {0.0}, float high = {4.0}>
        {
            u = Gemm <transB: int = 1> (x, w)
            r = Round (u)
            a = Clip (r, low, high)
            y = Gemm <transB: int = 1> (a, v)
        }
    """)
    onnx.save(model, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_onnx_stands_alone(snncc, onnx_file, tmp_path, golden):
    args = ("--input-range=-0.5,0.5", "-o", tmp_path / "net.snn")
    screen = snncc("compile", onnx_file, *args)
    assert screen.code == 0
    assert screen.stdout == golden


def test_onnx_takes_no_checkpoint_options(snncc, onnx_file):
    done = snncc("compile", onnx_file, "--arch=a:b", "--trust-pickle")
    assert (done.code, done.stdout) == (2, "")
    assert "stands alone; --arch, --trust-pickle belong to checkpoints" in done.stderr


# -- check ---------------------------------------------------------------------------------


def test_check_screen(snncc, weights, golden):
    screen = snncc("check", weights("tiny"), f"--arch={MODELS}:tiny", "--input-shape", "1,1,6,6")
    assert (screen.code, screen.stderr) == (0, "")
    assert screen.stdout == golden


def test_check_screen_of_a_network_with_faults(snncc, weights, golden):
    screen = snncc("check", weights("unsupported"), f"--arch={MODELS}:unsupported")
    assert (screen.code, screen.stderr) == (3, "")
    assert screen.stdout == golden


def test_check_json_lists_every_fault_and_nothing_is_written(snncc, weights, tmp_path, monkeypatch):
    arch = f"--arch={os.path.abspath(MODELS)}:unsupported"
    monkeypatch.chdir(tmp_path)
    done = snncc("check", weights("unsupported"), arch, "--json")
    assert done.code == 3
    gelus = [fault["module"] for fault in done.json["faults"] if fault["kind"] == "Gelu"]
    assert gelus == ["blocks.0.1", "blocks.1.1", "blocks.2.1"]
    assert [miss["module"] for miss in done.json["near_misses"]] == ["act"]
    assert os.listdir(tmp_path) == []
