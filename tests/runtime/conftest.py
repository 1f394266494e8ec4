"""The small network and its file, and a cache of graphs of its own for every test."""

import pytest
import small_model

from snncc.runtime.container import read_members


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNCC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def model():
    return small_model.compiled()


@pytest.fixture
def saved(model, tmp_path):
    return model.save(tmp_path / "small.snn")


@pytest.fixture
def members(saved):
    with open(saved, "rb") as file:
        return read_members(file, str(saved))
