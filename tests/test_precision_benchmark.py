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


@pytest.fixture
def main(monkeypatch):
    """The benchmark's own, which puts the examples on the path."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    import precision

    return precision.main


def test_a_table_is_made(images, main, capsys):
    main(["--data", str(images), "--limit", "10", "--networks", "cnn_d4", "--bits", "24,4",
          "--json"])  # fmt: skip
    document = json.loads(capsys.readouterr().out)
    assert document["images"] == 10
    rows = {(row["network"], row["bits"]): row for row in document["rows"]}
    assert set(rows) == {("cnn_d4", 24), ("cnn_d4", 4)}
    assert rows["cnn_d4", 24]["changed"] == 0 < rows["cnn_d4", 4]["changed"]
    assert rows["cnn_d4", 24]["accuracy"] == rows["cnn_d4", 24]["pytorch"]
    assert all(row["samples"] == 10 and row["mismatched"] == 0 for row in rows.values())


def test_missing_images_are_an_error_with_advice(tmp_path):
    command = [sys.executable, "benchmarks/precision.py", "--data", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "install the Debian package dataset-fashion-mnist" in done.stderr
