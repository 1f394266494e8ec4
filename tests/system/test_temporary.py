"""Temporary folders go with their process: in order, or swept by the next one after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from snncc.system.temporary import TemporaryFolder

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """The temp folder of these tests, and of the processes they start."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield tmp_path
    tempfile.tempdir = None


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def process(ends):
    """One that makes a folder, says its name, and ends so or waits."""
    code = (
        "import os, signal\nfrom snncc.system.temporary import TemporaryFolder\n"
        "folder = TemporaryFolder('x')\n"
        "(folder.path / 'sub').mkdir(); (folder.path / 'sub' / 'big').write_bytes(bytes(9))\n"
        f"print(folder.path, flush=True)\n{ends}"
    )
    command = [sys.executable, "-c", code]
    child = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    return child, Path(child.stdout.readline().strip())


def test_a_folder_goes_with_its_object_and_with_its_process(place):
    with TemporaryFolder("x") as path:
        (path / "file").write_text("")
        assert path.parent == place
        assert path.name.startswith("snncc-x-")
    other = TemporaryFolder("x")
    del other
    child, _ = process("")
    child.communicate()
    assert (child.returncode, names(place)) == (0, [])


def test_what_a_killed_process_left_goes_with_the_next_folder(place):
    child, left = process("os.kill(os.getpid(), signal.SIGKILL)")
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert names(left) == [".lock", "sub"]
    with TemporaryFolder("other") as path:
        assert names(place) == [path.name]


def test_folders_of_processes_that_run_stay(place):
    child, held = process("input()")
    with TemporaryFolder("x") as path, TemporaryFolder("x") as second:
        assert names(place) == sorted([held.name, path.name, second.name])
        pid = os.fork()
        if pid == 0:  # a child has its own end, not its parent's folders
            TemporaryFolder("x").close()
            os._exit(0)
        os.waitpid(pid, 0)
        assert names(place) == sorted([held.name, path.name, second.name])
    child.communicate("\n")
    assert names(place) == []


def test_what_is_not_ours_stays(place):
    (place / "far").mkdir()
    (place / "far" / ".lock").write_bytes(b"snncc          1\n")
    (place / "snncc-link-1").symlink_to(place / "far")
    (place / "snncc-no-lock").mkdir()
    (place / "snncc-file").write_text("mine")
    (place / "snncc-mine").mkdir()
    (place / "snncc-mine" / ".lock").write_text("mine")
    before = names(place)
    with TemporaryFolder("x"):
        pass
    assert names(place) == before
    assert (place / "far" / ".lock").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_folders_of_another_user_stay(place):
    child, left = process("os.kill(os.getpid(), signal.SIGKILL)")
    child.communicate()
    os.chown(left, 65534, 65534)
    with TemporaryFolder("x"):
        pass
    assert names(place) == [left.name]
