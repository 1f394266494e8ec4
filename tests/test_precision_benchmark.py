"""The table of precisions can be made, on a few images of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fashion_files import write_folder

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def images(tmp_path):
    return write_folder(tmp_path, test=12, train=18)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/precision.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_table_is_made(images):
    done = run("--data", str(images), "--limit", "10", "--networks", "cnn_d4", "--bits", "24,4",
               "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["images"] == 10
    rows = {(row["network"], row["bits"]): row for row in document["rows"]}
    assert set(rows) == {("cnn_d4", 24), ("cnn_d4", 4)}
    assert rows["cnn_d4", 24]["changed"] == 0 < rows["cnn_d4", 4]["changed"]
    assert rows["cnn_d4", 24]["accuracy"] == rows["cnn_d4", 24]["pytorch"]
    assert all(row["samples"] == 10 and row["mismatched"] == 0 for row in rows.values())


def test_missing_images_are_an_error_with_advice(tmp_path):
    done = run("--data", str(tmp_path))
    assert done.returncode == 2
    assert "install the Debian package dataset-fashion-mnist" in done.stderr
