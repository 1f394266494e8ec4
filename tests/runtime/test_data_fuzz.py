"""Changed bytes in data files and images raise one kind of error, in little time and memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "files", [300, pytest.param(20_000, marks=pytest.mark.slow)], ids=["few", "many"]
)
@pytest.mark.parametrize("kind", ["npz", "images"])
def test_changed_files_are_read_or_refused_by_name(kind, files, tmp_path):
    command = [sys.executable, str(ROOT / "tests" / "data_fuzz.py"), kind, "--files", str(files)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["read"] + found["refused"] == files
    assert "Warning" not in found["said"]
    assert min(found["read"], found["refused"]) > files // 50
    assert found["megabytes"]["worst"] < 100
    assert found["said"] == ""
