"""Files a command reads and writes: checked before the work, written whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from snncc.errors import BadInputError
from snncc.system.damage import irregular, reason
from snncc.system.outputs import (
    FileClaim,
    FolderClaim,
    check_file,
    check_folder,
    claim_file,
    claim_folder,
)

__all__ = [
    "WRITTEN",
    "check_dump_folder",
    "check_input_file",
    "check_output_file",
    "output_file",
    "output_folder",
    "write_file",
]

#: What the command at work has written, for who interrupts it.
WRITTEN: list[Path] = []


def check_input_file(path: Path, may_be_folder: bool = False) -> None:
    """Fail at once if there is no such file, or none that can be read.

    Raises:
        BadInputError: Missing, not to be read, or no regular file; a folder where a file is
            expected.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as e:
        raise BadInputError(f"{path}: no such file") from e
    except (OSError, ValueError) as e:
        raise BadInputError(f"{path}: cannot be read ({reason(e)})") from e
    if stat.S_ISDIR(mode) and not may_be_folder:
        raise BadInputError(f"{path}: is a folder, a file is expected")
    if not stat.S_ISDIR(mode) and (kind := irregular(mode)):
        raise BadInputError(
            f"{path}: is {kind}, a regular file is expected; save what it gives to a file"
        )
    if not os.access(path, os.R_OK):
        raise BadInputError(f"{path}: cannot be read (Permission denied)")


def check_output_file(path: Path, force: bool) -> None:
    """Fail at once if the file could not be written later.

    Raises:
        BadInputError: It exists and ``force`` is not set, or it is no regular file, or its folder
            is missing or read-only.
    """
    _check_parent(path, check_file(path, force).parent)


def _check_parent(path: Path, folder: Path) -> None:
    try:
        is_there = stat.S_ISDIR(folder.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        is_there = False
    except OSError as e:
        raise BadInputError(f"{path}: cannot be written ({reason(e)})") from e
    if not is_there:
        raise BadInputError(f"{path}: no folder '{folder}'; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadInputError(f"{path}: folder '{folder}' cannot be written")


@contextmanager
def output_file(path: Path, force: bool) -> Iterator[FileClaim]:
    """The right to write a file, held from before the work to its end.

    Raises:
        BadInputError: See ``check_output_file``; or another run is writing it.
    """
    check_output_file(path, force)
    with claim_file(path, force) as claim:
        try:
            yield claim
        finally:
            WRITTEN.extend([path] if claim.is_written else [])


def check_dump_folder(path: Path, force: bool) -> None:
    """Make the folder for graph dumps.

    Raises:
        BadInputError: It cannot be made, or has files and ``force`` is not set.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        is_empty = not any(path.iterdir())
    except OSError as e:
        raise BadInputError(f"{path}: cannot be used as a folder ({e.strerror})") from e
    if not is_empty and not force:
        raise BadInputError(f"{path}: not empty; choose another folder or overwrite with -f")
    for entry in path.glob("*.txt"):  # as dumps are called: none is written through a link or pipe
        if not stat.S_ISREG(entry.lstat().st_mode):
            raise BadInputError(f"{entry}: is no regular file; choose another folder")


def write_file(path: Path, data: bytes, force: bool) -> None:
    """Write a file.

    Raises:
        BadInputError: It exists and ``force`` is not set, or cannot be written.
    """
    with output_file(path, force) as claim:
        claim.write(lambda file: file.write(data))


@contextmanager
def output_folder(path: Path, force: bool, parts: Collection[str]) -> Iterator[FolderClaim]:
    """The right to write a folder, held from before the work to its end.

    Args:
        path: What is to be made; an empty folder is as good as none.
        force: An earlier result may be replaced.
        parts: Names of all that a result holds.

    Raises:
        BadInputError: Something else is there, or ``force`` is not set, or the folder it is to be
            in is missing or read-only, or another run is writing it.
    """
    check_folder(path, force, parts)
    _check_parent(path, path.parent)
    with claim_folder(path, force, parts) as claim:
        try:
            yield claim
        finally:
            WRITTEN.extend([path] if claim.is_written else [])
