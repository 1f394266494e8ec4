"""The command line on an example network that is compiled once."""

import os

import cli_models
import pytest
import torch
from command_line import ARCH, CALIBRATION, CHECKPOINT, ROOT, run_cli


@pytest.fixture(autouse=True)
def _in_root(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    for name in ("FORCE_COLOR", "SNNCC_DEBUG", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SNNCC_CACHE", str(tmp_path / "cache"))


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
        options = ("--weight-bits", 8, "--calibration", CALIBRATION, "--calibration-limit", 32)
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
    folder = tmp_path_factory.mktemp("weights")

    def make(name):
        path = folder / f"{name}.pt"
        torch.manual_seed(0)
        torch.save(getattr(cli_models, name)().state_dict(), path)
        return path

    return make
