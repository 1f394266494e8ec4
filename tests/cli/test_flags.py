"""An option that a message names: a parameter in Python, a flag on the command line."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli_models import tiny
from command_line import MODELS

import snncc as package
from snncc.cli.failures import fault_json
from snncc.cli.flags import in_flags
from snncc.compiler import InputOptions
from snncc.errors import Fault, Option, SnnccError, UsageError, Words
from snncc.frontends import zoo
from snncc.frontends.checkpoint import read_weights
from snncc.frontends.constructor import build
from snncc.frontends.pytorch import load_program

SOURCES = Path(package.__file__).parent
X = np.zeros((4, 1, 6, 6), np.uint8)
REAL = X.astype(np.float32)
REAL_INPUT = InputOptions("f32", range=(0.0, 1.0))


def compiled(calibration=None, network=None, **options):
    return lambda: package.compile(tiny() if network is None else network, calibration, **options)


#: Each raises an error of the library; then how it begins or goes on in Python, and as flags.
ERRORS: dict[str, tuple[Callable[[], object], str, str]] = {
    "bits": (compiled(weight_bits=3), "weight_bits=3: 4 to", "--weight-bits 3: 4 to"),
    "auto": (
        compiled(weight_bits="auto"), "weight_bits='auto' needs calibration",
        "--weight-bits auto needs --calibration",
    ),
    "word": (compiled(weight_bits="x"), "weight_bits='x': 4 to", "--weight-bits x: 4 to"),
    "rounding": (compiled(rounding="up"), "rounding='up': nearest", "--rounding up: nearest"),
    "data": (
        compiled(rounding="data"), "rounding='data' needs calibration",
        "--rounding data needs --calibration",
    ),
    "bias": (
        compiled(bias_correction=True), "bias_correction=True needs calibration",
        "--bias-correction needs --calibration",
    ),
    "samples": (
        compiled(verify_samples=0), "verify_samples=0 is not", "--verify-samples 0 is not"
    ),
    "no target": (compiled(target="loihi3"), "target='loihi3': no", "--target loihi3: no"),
    "target": (
        compiled(target="loihi2", weight_bits=16),
        "target='loihi2' takes weights of up to 8 bits, not 16; leave weight_bits out",
        "--target loihi2 takes weights of up to 8 bits, not 16; leave --weight-bits out",
    ),
    "patches": (compiled(patch_mask=3), "patch_mask=3: H,W", "--patch-mask 3: H,W"),
    "no layer": (compiled(patch_mask=(2, 2)), "or leave patch_mask out", "leave --patch-mask out"),
    "file": (
        compiled(network="a.onnx", patch_mask=(2, 2)), "patch_mask needs the network's module: a "
        "checkpoint and arch", "--patch-mask needs the network's module: a checkpoint and --arch",
    ),
    "file in time": (
        compiled(network="a.onnx", timesteps=2), "timesteps needs the", "--timesteps needs the"
    ),
    "no arch": (compiled(network="a.pth"), "checkpoint needs arch", "checkpoint needs --arch"),
    "timesteps": (compiled(timesteps=0), "timesteps=0: a positive", "--timesteps 0: a positive"),
    "first": (
        compiled(batch_first=True), "batch_first belongs to sequences: give timesteps, too",
        "--batch-first belongs to sequences: give --timesteps, too",
    ),
    "shape": (
        compiled(network=tiny().fire), "not known; give input_shape=(C, H, W)",
        "not known; give --input-shape C,H,W",
    ),
    "host": (
        compiled(host="conv", until="conv"), "host is the network's end, and until leaves",
        "--host is the network's end, and --until leaves",
    ),
    "hosted": (compiled(host="conv"), "host='conv': the network", "--host conv: the network"),
    "until": (compiled(until="x"), "until='x': no such node", "--until x: no such node"),
    "mode": (compiled(input=InputOptions("i8")), "input.mode='i8': u8", "--input i8: u8"),
    "range": (
        compiled(input=InputOptions("u8", range=(0.0, 1.0))), "input.range belongs to "
        "input.mode='f32'", "--input-range belongs to --input f32",
    ),
    "no range": (
        compiled(input=InputOptions("f32")),
        "give input.mode='u8' input.mean=… input.std=… for raw pixels, or calibration or "
        "input.range=(LOW, HIGH) for",
        "give --input u8 --mean … --std … for raw pixels, or --calibration or "
        "--input-range LOW,HIGH for",
    ),
    "low": (
        compiled(input=InputOptions("f32", range=(1.0, 0.0))), "input.range=(1.0, 0.0): low",
        "--input-range 1.0,0.0: low",
    ),
    "mean": (
        compiled(input=InputOptions("f32", mean=(0.0,))), "input.mean and input.std belong to "
        "input.mode='u8'", "--mean and --std belong to --input u8",
    ),
    "means": (
        compiled(input=InputOptions("u8", mean=(0.0, 0.5))), "input.mean=(0.0, 0.5) input.std=",
        "--mean 0.0,0.5 --std",
    ),
    "std": (
        compiled(input=InputOptions("u8", std=(0.0,))), "input.std=(0.0,): must", "--std 0.0: must"
    ),
    "floats": (
        compiled(REAL, input=InputOptions("u8")), "raw pixels, or input.mode='f32'",
        "raw pixels, or --input f32",
    ),
    "pixels": (
        compiled(X, input=REAL_INPUT), "use input.mode='u8'", "use --input u8"
    ),
    "pickle": (
        lambda: load_program(__file__), "pass trust_pickle=True if", "pass --trust-pickle if"
    ),
    "weights": (
        lambda: read_weights("a.pt", "both"), "weights='both': choose", "--weights both: choose"
    ),
    "constructor": (lambda: build("a:b c", {}), "arch='a:b c': expected", "--arch a:b c: exp"),
    "arguments": (
        lambda: build(f"{MODELS}:tiny", {"a": 1}), "give the arguments with arch_args=JSON",
        "give the arguments with --arch-args JSON",
    ),
    "zoo": (lambda: zoo.build("no-net", {}, {}), "arch='no-net': no", "--arch no-net: no"),
    "limit": (
        compiled("a.npz", calibration_limit=0), "calibration_limit=0 is not",
        "--calibration-limit 0 is not",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_library_errors_speak_python_and_those_of_the_command_line_flags(name):
    call, in_python, as_flags = ERRORS[name]
    with pytest.raises(SnnccError) as caught:
        call()
    assert in_python in str(caught.value)
    assert as_flags in in_flags(caught.value.message)
    assert "--" not in str(caught.value)


def test_the_command_line_says_flags(snncc, weights, tmp_path):
    given = (weights("tiny"), f"--arch={MODELS}:tiny", "--rounding", "data")
    done = snncc("compile", *given, "-o", tmp_path / "a.snn")
    assert done.stderr == "error: --rounding data needs --calibration\n"


def test_words_keep_their_options_when_more_is_said():
    error = UsageError(Words("give ", Option("weight_bits", 8)))
    more = error.within("fold-scale: ", "; nothing written")
    assert type(more) is UsageError
    assert str(more) == "fold-scale: give weight_bits=8; nothing written"
    assert in_flags(more.message) == "fold-scale: give --weight-bits 8; nothing written"
    assert copy.deepcopy(more.message).pieces == more.message.pieces


def test_faults_are_told_with_flags():
    fault = Fault("of ", todo=Words("cut with ", Option("until")))
    assert str(fault).endswith("cut with until")
    assert fault_json(fault)["todo"] == "cut with --until"


def _flags_in(path: Path) -> list[str]:
    """Texts of a module that name a flag, its docstrings left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = (n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in told)
    found = [n.value for n in texts if isinstance(n.value, str)]
    return [text for text in found if re.search(r"--([a-z]|$)", text)]


@pytest.mark.parametrize(
    "part", ["compiler", "frontends", "ir", "nn", "passes", "program", "runtime", "system"]
)
def test_the_library_writes_no_flags(part):
    found = {str(path): _flags_in(path) for path in (SOURCES / part).rglob("*.py")}
    assert {path: texts for path, texts in found.items() if texts} == {}


#: What backends write flags in: arguments of processes that they start, and commands to type.
COMMANDS = re.compile(r"--[a-z-]+|.*(snncc doctor|run\.py).*", re.DOTALL)


def test_backends_write_no_flags_but_those_of_commands():
    found = {str(path): _flags_in(path) for path in (SOURCES / "backends").rglob("*.py")}
    assert [t for texts in found.values() for t in texts if not COMMANDS.fullmatch(t)] == []
