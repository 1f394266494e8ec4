"""The table of precisions can be made, on a few images of its own."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


def write_idx(path: Path, values: np.ndarray) -> None:
    head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(head + values.tobytes()))


@pytest.fixture
def images(tmp_path):
    sample = np.load(ROOT / "examples/fashion_mnist/test_1000.npz")
    for split, part in (("t10k", slice(0, 12)), ("train", slice(12, 30))):
        write_idx(tmp_path / f"{split}-images-idx3-ubyte.gz", sample["x"][part, 0])
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte.gz", sample["y"][part])
    return tmp_path


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
