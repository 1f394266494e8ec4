"""Outputs appear whole or not at all, one run at a time, and nothing else is replaced."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import kills
import numpy as np
import pytest
import small_model
from command_line import run_cli
from data_files import write_npz
from test_irregular import KINDS, folder, pipe

from snncc.errors import BadInputError
from snncc.system.outputs import claim_file, claim_folder

PARTS = ("a", "b")


def write(path, data=b"new", overwrite=True):
    with claim_file(path, overwrite) as claim:
        claim.write(lambda file: file.write(data))


def fill(text):
    def make(part):
        part.mkdir()
        for name in PARTS:
            (part / name).write_text(text)

    return make


def replace(path, text="new", overwrite=True):
    with claim_folder(path, overwrite, PARTS) as claim:
        claim.write(fill(text))


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


# --- what is no regular file ----------------------------------------------------------------------


def seen(path):
    """What there is, told by more than its name."""
    info = os.lstat(path)
    return info.st_ino, info.st_mode, info.st_rdev


WRITERS = {
    "file": write,
    "npz": lambda path: write_npz(path, overwrite=True, x=np.zeros(1)),
    "snn": lambda path: small_model.compiled().save(path, overwrite=True),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("kind", [*KINDS, folder])
def test_no_output_replaces_what_is_no_regular_file(kind, writer, tmp_path):
    out = tmp_path / "out"
    kind(out)
    before, there = seen(out), names(tmp_path)
    with pytest.raises(BadInputError, match=r"out: is (a link to )?a .*; name a file"):
        WRITERS[writer](out)
    assert (seen(out), names(tmp_path)) == (before, there)


COMMANDS = {
    "compile": "compile x.pt --arch a:b -o {out} -f",
    "run": "run {net} --input {x} -o {out} -f",
    "inspect": "inspect {net} graph --format onnx -o {out} -f",
    "export": "export {net} --to lava -o {out} -f",
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_command_replaces_what_is_no_regular_file(kind, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.pt").write_bytes(b"")
    net = small_model.compiled().save(tmp_path / "net.snn")
    write_npz(tmp_path / "x.npz", x=np.zeros((1, 1, 6, 6), np.uint8))
    (tmp_path / "here").mkdir()
    out = tmp_path / "here" / "out"
    kind(out)
    before, there = seen(out), names(out.parent)
    done = run_cli(tmp_path, *COMMANDS[command].format(net=net, x="x.npz", out=out).split())
    assert (done.code, done.stdout) == (6, "")
    assert "out: is " in done.stderr
    assert (seen(out), names(out.parent)) == (before, there)


@pytest.mark.parametrize("kind", [pipe, folder])
def test_dumps_are_not_written_through_pipes_and_links(kind, tmp_path):
    (tmp_path / "ir").mkdir()
    kind(tmp_path / "ir" / "03-merge-linear.txt")
    Path(tmp_path / "x.onnx").write_bytes(b"")
    done = run_cli(tmp_path, "compile", tmp_path / "x.onnx", "--dump-ir", tmp_path / "ir", "-f")
    assert (done.code, "03-merge-linear.txt: is no regular file" in done.stderr) == (6, True)


# --- links ----------------------------------------------------------------------------------------


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "real").write_bytes(b"old")
    (tmp_path / "middle").symlink_to("far/real")
    (tmp_path / "link").symlink_to(tmp_path / "middle")
    with pytest.raises(BadInputError, match="link: exists already"):
        write(tmp_path / "link", overwrite=False)
    write(tmp_path / "link")
    assert (tmp_path / "link").readlink() == tmp_path / "middle"
    assert (tmp_path / "far" / "real").read_bytes() == b"new"
    assert [names(tmp_path), names(tmp_path / "far")] == [["far", "link", "middle"], ["real"]]


def test_a_link_to_nothing_is_there_and_leads_to_the_new_file(tmp_path):
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(BadInputError, match="link: exists already"):
        write(tmp_path / "link", overwrite=False)
    write(tmp_path / "link")
    assert names(tmp_path) == ["link", "real"]
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(BadInputError, match="loop: cannot be written"):
        write(tmp_path / "loop")


def test_a_stream_of_a_process_is_no_file(tmp_path):
    with open(tmp_path / "stdout", "wb") as stdout:
        link = f"/proc/{os.getpid()}/fd/{stdout.fileno()}"
        with pytest.raises(BadInputError, match="is a stream of a process and no file"):
            write(link)
    assert names(tmp_path) == ["stdout"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link away")
def test_the_link_of_another_user_is_not_followed(tmp_path):
    (tmp_path / "precious").write_bytes(b"old")
    (tmp_path / "link").symlink_to("precious")
    os.lchown(tmp_path / "link", 65534, 65534)
    with pytest.raises(BadInputError, match=r"is a link of another user \(65534\)"):
        write(tmp_path / "link")
    assert (tmp_path / "precious").read_bytes() == b"old"


# --- one run at a time ----------------------------------------------------------------------------


@contextmanager
def elsewhere(code, *args):
    """A process that has said ``ready`` and waits."""
    command = [sys.executable, "-c", code, *map(str, args)]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


CLAIM = """
import sys
from snncc.system.outputs import claim_file, claim_folder
kind, path = sys.argv[1:]
with claim_file(path, True) if kind == "file" else claim_folder(path, True, ("a", "b")) as claim:
    print("ready", flush=True)
    input()
"""


@pytest.mark.parametrize(("kind", "again"), [("file", write), ("folder", replace)])
def test_a_second_run_on_one_output_is_refused_until_the_first_is_gone(kind, again, tmp_path):
    with elsewhere(CLAIM, kind, tmp_path / "out") as first:
        with pytest.raises(BadInputError, match=rf"out: process {first.pid} is writing it"):
            again(tmp_path / "out")
        first.kill()
        first.wait()
        again(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_two_threads_do_not_write_one_output_at_once(tmp_path):
    with claim_file(tmp_path / "out", overwrite=False):
        with pytest.raises(BadInputError, match="is writing it"):
            write(tmp_path / "out")
        with claim_file(tmp_path / "other", overwrite=False):
            pass
    assert names(tmp_path) == []


def test_what_comes_meanwhile_is_not_overwritten_unasked(tmp_path):
    out = tmp_path / "out"
    with claim_file(out, overwrite=False) as claim:
        out.write_bytes(b"mine")
        with pytest.raises(BadInputError, match="out: exists already"):
            claim.write(lambda file: file.write(b"new"))
    assert (names(tmp_path), out.read_bytes()) == (["out"], b"mine")


def test_nor_is_what_comes_in_the_last_moment(tmp_path, monkeypatch):
    out = tmp_path / "out"
    link = os.link

    def late(*args):
        out.write_bytes(b"mine")
        link(*args)

    monkeypatch.setattr("os.link", late)
    with pytest.raises(BadInputError, match="out: exists already"):
        write(out, overwrite=False)
    assert (names(tmp_path), out.read_bytes()) == (["out"], b"mine")


def test_what_the_user_puts_into_a_folder_meanwhile_is_kept(tmp_path):
    out = tmp_path / "out"
    replace(out, "old")
    with claim_folder(out, True, PARTS) as claim:
        (out / "mine").write_text("precious")
        with pytest.raises(BadInputError, match="holds what is no part of it, mine"):
            claim.write(fill("new"))
    assert (names(tmp_path), names(out)) == (["out"], ["a", "b", "mine"])


def test_without_hard_links_files_are_moved(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    write(tmp_path / "out", overwrite=False)
    assert (names(tmp_path), (tmp_path / "out").read_bytes()) == (["out"], b"new")


def test_without_locks_the_process_that_left_its_mark_is_asked_for(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with (
        elsewhere(CLAIM, "file", tmp_path / "out") as other,
        pytest.raises(BadInputError, match=f"process {other.pid} is writing it"),
    ):
        write(tmp_path / "out")
    write(tmp_path / "out")
    assert names(tmp_path) == ["out"]


# --- what is not ours, and what a killed run leaves -----------------------------------------------


def test_files_that_are_named_like_ours_are_never_touched(tmp_path):
    for name in (".out.part", ".out.old", ".out.1234.part"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(BadInputError, match=r"\.out\.part: exists already"):
        write(tmp_path / "out")
    with pytest.raises(BadInputError, match=r"\.out\.part: exists already"):
        replace(tmp_path / "out")
    assert names(tmp_path) == [".out.1234.part", ".out.old", ".out.part"]
    (tmp_path / ".x.lock").write_text("mine")
    with pytest.raises(BadInputError, match=r"\.x\.lock is there and is not ours"):
        write(tmp_path / "x")
    assert (tmp_path / ".x.lock").read_text() == "mine"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_run_that_is_refused_puts_right_what_a_killed_one_left(kind, tmp_path):
    out = tmp_path / "out"
    kills.written(kind, out, "old")
    (tmp_path / ".out.lock").write_bytes(b"snncc          1\n")
    (tmp_path / ".out.part").mkdir()
    if kind == "folder":
        out.rename(tmp_path / ".out.old")
    with pytest.raises(BadInputError, match=r"out: (exists already|not empty)"):
        write(out, overwrite=False) if kind == "file" else replace(out, overwrite=False)
    assert (names(tmp_path), kills.content(out)) == (["out"], "old")


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_run_that_is_killed_at_any_step_loses_nothing_and_leaves_nothing(kind, exists, tmp_path):
    done = kills.at_every_step(kind, tmp_path / "out", exists)
    assert len(done) > 5
    assert {after for after, _ in done} == ({"old", "new"} if exists else {"nothing", "new"})
    assert {tuple(left) for _, left in done} == {()}


@pytest.mark.slow
def test_a_thousand_kills_lose_nothing_and_leave_nothing():
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, kills.__file__, "--kills", "1000"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_writing_that_fails_midway_loses_nothing_and_leaves_nothing(tmp_path):
    write(tmp_path / "file", b"old")
    replace(tmp_path / "folder", "old")

    def fail(_):
        raise OSError(28, "No space left on device")

    for name, claim in (
        ("file", claim_file(tmp_path / "file", True)),
        ("folder", claim_folder(tmp_path / "folder", True, PARTS)),
    ):
        with claim as held, pytest.raises(BadInputError, match=f"{name}: cannot be written .No sp"):
            held.write(fail)
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"old"
    assert (tmp_path / "folder" / "a").read_text() == "old"


def test_an_error_of_the_work_is_not_blamed_on_the_output(tmp_path):
    with pytest.raises(OSError, match="no such thing"), claim_file(tmp_path / "out", True):
        raise OSError("no such thing")
    assert names(tmp_path) == []


def test_models_are_written_as_they_are_saved(tmp_path):
    model = small_model.compiled()
    buffer = io.BytesIO()
    model.write(buffer)
    assert model.save(tmp_path / "a.snn").read_bytes() == buffer.getvalue()
