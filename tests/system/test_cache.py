"""The cache is this user's alone, and what lies there is what was put there."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import small_model
from command_line import run_cli

from snncc.backends.lava.interpreter import environment_folder, find_python
from snncc.errors import MissingDependencyError
from snncc.runtime.artifact import load
from snncc.runtime.graph_store import extract
from snncc.system.cache import own_cache, why_not_own

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give things away")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where the cache would be; whether the process knows its files already is forgotten."""
    monkeypatch.setenv("SNNCC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("snncc.runtime.graph_store._compared", set())
    return tmp_path / "cache"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def foreign(path):
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


# --- whose it is ----------------------------------------------------------------------------------


def test_the_cache_is_made_for_this_user_alone(cache):
    umask = os.umask(0)
    try:
        assert own_cache() == cache
        folder, _ = extract({"a": b"a"}, "0" * 64)
    finally:
        os.umask(umask)
    assert (mode(cache), mode(folder)) == (0o700, 0o700)


@pytest.mark.parametrize("before", [0o755, 0o775, 0o777])
def test_others_lose_their_rights_to_an_empty_folder(cache, before):
    cache.mkdir()
    cache.chmod(before)
    own_cache()
    assert mode(cache) == 0o700


def test_others_lose_their_rights_to_what_is_only_ours(cache):
    extract({"a": b"a"}, "0" * 64)
    cache.chmod(0o755)
    own_cache()
    assert mode(cache) == 0o700


def test_a_folder_with_other_things_in_it_keeps_its_rights(cache):
    cache.mkdir()
    (cache / "mine").write_text("mine")
    cache.chmod(0o755)
    folder, temporary = extract({"a": b"a"}, "0" * 64)
    assert (folder.parent, temporary) == (cache, None)
    assert (mode(cache), mode(folder)) == (0o755, 0o700)


def _writable(cache):
    cache.mkdir()
    (cache / "mine").write_text("mine")
    cache.chmod(0o1777)


def _another_users(cache):
    cache.mkdir(mode=0o700)
    foreign(cache)


def _another_users_link(cache):
    (cache.parent / "real").mkdir(mode=0o700)
    cache.symlink_to("real")
    foreign(cache)


def _below_another_users_link(cache):
    (cache.parent / "real" / "cache").mkdir(mode=0o700, parents=True)
    (cache.parent / "elsewhere").symlink_to("real")
    foreign(cache.parent / "elsewhere")
    os.environ["SNNCC_CACHE"] = str(cache.parent / "elsewhere" / "cache")


def _a_file(cache):
    cache.write_text("mine")


FOREIGN = {
    _writable: "others may write there",
    _another_users: "it belongs to another user",
    _another_users_link: "cache is a link of another user",
    _below_another_users_link: "elsewhere is a link of another user",
    _a_file: "it is no folder",
}


@as_root
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_cache_that_others_could_write_is_neither_used_nor_changed(kind, cache, monkeypatch):
    monkeypatch.setenv("SNNCC_CACHE", str(cache))  # kinds may change it, and it comes back
    kind(cache)
    place = Path(os.environ["SNNCC_CACHE"])
    before = sorted(p.lstat().st_mode for p in (cache.parent, *cache.parent.rglob("*")))
    assert why_not_own(place).endswith(FOREIGN[kind])
    with pytest.raises(OSError):  # noqa: PT011 (whichever it is)
        own_cache()
    folder, temporary = extract({"a": b"a"}, "0" * 64)
    assert temporary is not None
    assert (folder / "a").read_bytes() == b"a"
    assert sorted(p.lstat().st_mode for p in (cache.parent, *cache.parent.rglob("*"))) == before
    done = run_cli(Path("/nowhere"), "doctor")
    assert f"not used: {why_not_own(place)}" in done.stdout


def test_links_of_ones_own_are_followed(cache):
    (cache.parent / "large" / "disk").mkdir(parents=True)
    cache.symlink_to(cache.parent / "large" / "link")
    (cache.parent / "large" / "link").symlink_to("disk")
    assert own_cache() == cache
    assert extract({"a": b"a"}, "0" * 64)[1] is None
    assert mode(cache.parent / "large" / "disk") == 0o700


@as_root
def test_no_python_is_run_that_another_user_has_put_there(cache, monkeypatch, tmp_path):
    for name in ("SNNCC_LAVA_PYTHON", "PATH"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "none"))
    python = environment_folder() / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n/usr/bin/touch {tmp_path}/ran\necho 3.10\necho ok\n")
    python.chmod(0o755)
    foreign(cache)
    with pytest.raises(MissingDependencyError):
        find_python()
    assert not (tmp_path / "ran").exists()


# --- what lies there ------------------------------------------------------------------------------


def _changed(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _a_link(path):
    path.rename(path.with_name("other"))
    path.symlink_to("other")


def _cut(path):
    path.write_bytes(path.read_bytes()[:10])


def _gone(path):
    path.unlink()


def _replaced_by_a_folder(path):
    path.unlink()
    path.mkdir()


def _joined(path):
    path.with_name("more.bin").write_bytes(b"")


@pytest.mark.parametrize("name", ["weights.bin", "quantised.onnx"])
@pytest.mark.parametrize("harm", [_changed, _a_link, _cut, _gone, _replaced_by_a_folder, _joined])
def test_an_entry_is_compared_when_it_is_first_used_and_put_right(
    harm, name, cache, tmp_path, monkeypatch
):
    saved = small_model.compiled().save(tmp_path / "a.snn")
    folder = Path(load(saved).onnx("quantised")).parent
    right = {path.name: path.read_bytes() for path in folder.iterdir()}
    harm(folder / name)
    monkeypatch.setattr("snncc.runtime.graph_store._compared", set())  # as in another process
    assert Path(load(saved).onnx("quantised")).parent == folder
    assert all(not path.is_symlink() for path in folder.iterdir())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == right
    assert [path.name for path in cache.iterdir()] == [folder.name]


def test_a_link_in_place_of_an_entry_is_not_followed(cache, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a").write_bytes(b"a")
    own_cache()
    (cache / ("0" * 64)).symlink_to(tmp_path / "other")
    folder, _ = extract({"a": b"a"}, "0" * 64)
    assert not folder.is_symlink()
    assert (tmp_path / "other" / "a").exists()


def test_what_a_killed_process_has_left_goes_whatever_it_was_at(cache):
    extract({"a": b"a"}, "0" * 64)
    (cache / f".{'0' * 64}.lock").write_bytes(b"snncc          1\n")
    (cache / ("0" * 64) / ".a.1.part").write_bytes(b"")
    extract({"b": b"b"}, "1" * 64)
    assert sorted(p.name for p in cache.rglob("*")) == sorted(["0" * 64, "1" * 64, "a", "b"])


EXTRACT = """
from snncc.runtime.graph_store import extract
for number in range(40):
    files = {"a": bytes(range(256)) * 400, "b": b"%d" % number}
    folder, temporary = extract(files, f"{number:064}")
    assert temporary is None
    for name, data in files.items():
        assert (folder / name).read_bytes() == data
"""


def test_processes_that_extract_one_entry_at_once_are_safe(cache):
    root = str(Path(__file__).parents[2])
    workers = [subprocess.Popen([sys.executable, "-c", EXTRACT], cwd=root) for _ in range(4)]
    assert [worker.wait() for worker in workers] == [0] * 4
    assert {p.name for p in cache.iterdir()} == {f"{number:064}" for number in range(40)}
    assert {p.name for p in cache.glob("*/*")} == {"a", "b"}
