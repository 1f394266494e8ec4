"""What is no regular file is neither read nor replaced: nothing waits, nothing of it is lost."""

from __future__ import annotations

import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_model
from command_line import run_cli
from data_files import IMAGES, npz, png
from exported_files import import_exported

from snncc.errors import BadInputError
from snncc.frontends.checkpoint import read_weights
from snncc.frontends.onnx_file import import_onnx
from snncc.runtime.artifact import load
from snncc.runtime.coding import read_data

_SECONDS = 20


@pytest.fixture(autouse=True)
def _nothing_waits() -> Iterator[None]:
    """Opening a pipe that nobody writes to waits for ever."""

    def late(*_: object) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)


def folder(path: Path) -> None:
    path.mkdir()
    (path / "kept").write_text("kept")


def link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def device(path: Path) -> None:
    """A node of its own, where one may be made."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except OSError:
        path.symlink_to("/dev/zero")


KINDS = [pipe, a_socket, device, link_to_a_pipe, link_to_a_device]
READERS: dict[str, Callable[[Path], Any]] = {
    "net.snn": load,
    "net.onnx": import_onnx,
    "net.pt": read_weights,
    "net.pt2": lambda path: import_exported(path, trust_pickle=True),
    "x.npz": read_data,
    "labels": lambda path: read_data(npz(path.with_name("x.npz"), x=IMAGES), labels=path),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_not_read(kind, name, tmp_path):
    path = tmp_path / name
    kind(path)
    with pytest.raises(BadInputError, match=r"cannot be read, it is a (pipe|socket|device)"):
        READERS[name](path)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_no_image_of_a_folder(kind, tmp_path):
    png(tmp_path / "images" / "a.png", IMAGES[0])
    kind(tmp_path / "images" / "b.png")
    with pytest.raises(BadInputError, match=r"b\.png: cannot be read, it is a "):
        read_data(tmp_path / "images", shape=(1, 4, 5))


def test_links_to_images_are_read_and_folders_named_as_images_are_classes(tmp_path):
    png(tmp_path / "real.png", IMAGES[0])
    (tmp_path / "images" / "x.png").mkdir(parents=True)
    (tmp_path / "images" / "x.png" / "a.png").symlink_to(tmp_path / "real.png")
    found = read_data(tmp_path / "images")
    assert (found.x.shape, found.y.tolist()) == ((1, 1, 4, 5), [0])


COMMANDS = {
    "compile": "compile {it} --arch x:y",
    "check": "check {it} --arch x:y",
    "inspect": "inspect {it}",
    "run": "run {it} --input {x}",
    "verify": "verify {it}",
    "data": "run {net} --input {it}",
    "labels": "run {net} --input {x} --labels {it}",
    "verified data": "verify {net} --input {it}",
    "observed data": "inspect {net} bounds --input {it}",
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", [pipe, device])
def test_commands_say_so_at_once(kind, command, tmp_path):
    net = small_model.compiled().save(tmp_path / "net.snn")
    x = npz(tmp_path / "x.npz", x=np.zeros((1, 1, 6, 6), np.uint8))
    it = tmp_path / "it.pt"
    kind(it)
    args = COMMANDS[command].format(it=it, net=net, x=x).split(" ")
    done = run_cli(tmp_path, *args)
    assert (done.code, done.stdout) == (6, "")
    assert "it.pt: is a " in done.stderr
    assert "a regular file is expected" in done.stderr
