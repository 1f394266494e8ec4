"""The command line in-process, on an example network that is compiled once."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from snncc.cli import cli

ROOT = Path(__file__).parents[2]
EXAMPLE = "examples/fashion_mnist"
CHECKPOINT = f"{EXAMPLE}/cnn_d4.pt"
ARCH = f"--arch={EXAMPLE}/models.py:cnn"
CALIBRATION = f"{EXAMPLE}/calibration_256.npz"
MODELS = "tests/cli/cli_models.py"

_VOLATILE = (
    (r"\d+\.\d s\b", "TIME"),
    (r"\d+(\.\d)? [kM]?B\b", "SIZE"),
    (r"\b\d\.\de-\d\d\b(?! allowed)", "TINY"),
    (r"\d+ samples/s", "RATE samples/s"),
    (r"made by .*", "made by    VERSIONS"),
    (r", of which import torch TIME", ""),
)


@dataclass
class Ran:
    """What a command did; volatile figures and the temporary folder are masked."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self):
        return json.loads(self.stdout)


@pytest.fixture(autouse=True)
def _in_root(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    for name in ("FORCE_COLOR", "SNNCC_DEBUG", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SNNCC_CACHE", str(tmp_path / "cache"))


def run_cli(folder, *args):
    result = CliRunner().invoke(cli, [str(a) for a in args], terminal_width=80)
    texts = [result.stdout, result.stderr]
    for pattern, word in ((re.escape(str(folder)), "TMP"), *_VOLATILE):
        texts = [re.sub(pattern, word, text) for text in texts]
    return Ran(result.exit_code, *texts)


@pytest.fixture
def snncc(tmp_path):
    """Run a command: ``snncc("run", file, ...)``."""
    return lambda *args: run_cli(tmp_path, *args)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """The screen of the example's compilation, and the path of its ``.snn``."""
    folder = tmp_path_factory.mktemp("compiled")
    before = os.getcwd()
    os.chdir(ROOT)
    try:
        out = folder / "cnn.snn"
        options = ("--weight-bits", 8, "--calibration", CALIBRATION, "--calibration-limit", 64)
        return run_cli(folder, "compile", CHECKPOINT, ARCH, *options, "-o", out), out
    finally:
        os.chdir(before)


@pytest.fixture(scope="session")
def cnn(compiled):
    """The example's ``.snn``."""
    return compiled[1]


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Makes a checkpoint of a network in cli_models.py: ``weights("tiny")``."""
    import sys

    sys.path.insert(0, str(ROOT / "tests/cli"))
    import cli_models

    folder = tmp_path_factory.mktemp("weights")

    def make(name):
        path = folder / f"{name}.pt"
        torch.manual_seed(0)
        torch.save(getattr(cli_models, name)().state_dict(), path)
        return path

    return make
