"""Changed checkpoints and ONNX files are judged by ``check``, whatever was changed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import model_fuzz
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("kind", "first", "end"), [("onnx", 0, 60), ("pt", 16, 26)])
def test_some_changed_models_are_judged(kind, first, end, tmp_path):
    found = [model_fuzz.judged(kind, number, 0, tmp_path) for number in range(first, end)]
    assert [one["fault"] for one in found if one["fault"]] == []
    assert len({one["code"] for one in found}) > 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "pt"])
def test_many_changed_models_are_judged(kind, tmp_path):
    command = [sys.executable, model_fuzz.__file__, kind, "--files", "20000"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"] == 20_000
