"""Graphs are extracted for ONNX Runtime once, into a cache that may be broken or missing."""

import os
from pathlib import Path

import pytest
import small_model

from snncc.errors import BadInputError
from snncc.runtime.artifact import load
from snncc.runtime.session import Session


def test_graphs_are_extracted_once(saved, cache):
    first = load(saved).onnx("quantised")
    assert Path(first).is_relative_to(cache)
    stamp = os.stat(first).st_mtime_ns
    assert load(saved).onnx("quantised") == first
    assert os.stat(first).st_mtime_ns == stamp
    assert sorted(p.name for p in Path(first).parent.iterdir()) == [
        "quantised.onnx",
        "spiking.onnx",
        "weights.bin",
    ]


def test_an_incomplete_cache_is_repaired(saved, cache):
    path = Path(load(saved).onnx("quantised"))
    whole = (path.parent / "weights.bin").read_bytes()
    (path.parent / "weights.bin").write_bytes(whole[:10])
    load(saved).onnx("quantised")
    assert (path.parent / "weights.bin").read_bytes() == whole
    assert [p.name for p in cache.iterdir()] == [path.parent.name]


def test_a_cache_that_cannot_be_written_is_replaced_by_a_temporary_folder(
    saved, tmp_path, monkeypatch
):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SNNCC_CACHE", str(tmp_path / "file" / "cache"))
    model = load(saved)
    path = Path(model.onnx("quantised"))
    x = small_model.samples()
    assert not any(
        m.mismatched for m in model.reference.compare(Session(model, "integer").trace(x))
    )
    assert path.exists()
    del model
    assert not path.exists()


def test_graphs_without_weights_cannot_be_run(saved):
    for stage in ("integer", "absent"):
        with pytest.raises(BadInputError, match=f"no graph '{stage}' with weights"):
            load(saved).onnx(stage)
