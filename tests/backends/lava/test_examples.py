"""The trained examples, compiled with 8 bits, on Lava."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import CALIBRATION, EXAMPLE, ROOT, run_cli
from lava_runs import differences, emitted, expected, lava_python, run

import snncc
from snncc.runtime.contract import by_timestep

EXAMPLES = {
    "cnn_d4": "models.py:cnn",
    "residual_d4": "models.py:residual",
    "ssc_d4": "models.py:ssc",
    "lif_t4": "lif_models.py:lif",
    "bands_t4": "lif_models.py:bands_lif",
    "cnn_d4_grid8": "models_grid.py:cnn_grid",
}


#: Its layers are those of cnn_d4.
LONGER = {"cnn_d4_grid8"}


@pytest.fixture(
    params=[pytest.param(n, marks=[pytest.mark.slow] * (n in LONGER)) for n in EXAMPLES]
)
def example(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """(name, Program, 24 images or films for it)."""
    lava_python()
    monkeypatch.chdir(ROOT)
    name, file = request.param, tmp_path / "net.snn"
    ran = run_cli(
        tmp_path, "compile", f"{EXAMPLE}/{name}.pt", f"--arch={EXAMPLE}/{EXAMPLES[name]}",
        "--weight-bits=8", "-o", file,
    )  # fmt: skip
    assert ran.code == 0, ran.stderr
    x = np.load(CALIBRATION)["x"][:24]
    model = snncc.load(file)
    if model.input.timesteps:  # the first sample of each film is shown whole
        x = np.stack([x] * model.input.timesteps, axis=1)
    return name, model.program, by_timestep(x, model.input.shape)


def test_examples_are_exact(example, tmp_path: Path) -> None:
    name, program, x = example
    wanted = expected(program, x)
    directory = emitted(program, x, tmp_path / "lava")
    assert differences(wanted, run(directory)) == []
    if name == "cnn_d4":
        assert differences(wanted, run(directory, "--executor", "lava")) == []
