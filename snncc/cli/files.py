"""Files a command reads and writes: checked before the work, written whole or not at all."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from snncc.damage import irregular, reason
from snncc.errors import BadInputError

__all__ = [
    "check_dump_folder",
    "check_input_file",
    "check_output_file",
    "check_output_folder",
    "write_file",
    "write_folder",
]


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
        BadInputError: It exists and ``force`` is not set, or its folder is missing or read-only.
    """
    if path.is_dir():
        raise BadInputError(f"{path}: is a folder; name a file")
    if os.path.lexists(path) and not force:
        raise BadInputError(f"{path}: exists already; choose another name or overwrite it with -f")
    _check_parent(path)


def _check_parent(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise BadInputError(f"{path}: no folder '{folder}'; make it first")
    if not os.access(folder, os.W_OK):
        raise BadInputError(f"{path}: folder '{folder}' cannot be written")


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


def write_file(path: Path, data: bytes, force: bool) -> None:
    """Write a file through a temporary one beside it.

    Raises:
        BadInputError: It exists and ``force`` is not set, or cannot be written.
    """
    check_output_file(path, force)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "xb") as file:
            file.write(data)
        os.replace(part, path)
    except OSError as e:
        raise BadInputError(f"{path}: cannot be written ({e.strerror})") from e
    finally:
        with suppress(OSError):  # mostly because it has been moved into place
            part.unlink()


def check_output_folder(path: Path, force: bool, parts: Collection[str]) -> None:
    """Fail at once if the folder could not be written later.

    Args:
        path: What is to be made; an empty folder is as good as none.
        force: An earlier result may be replaced.
        parts: Names of all that a result holds.

    Raises:
        BadInputError: Something else is there, or ``force`` is not set, or the folder it is to be
            in is missing or read-only.
    """
    if path.name in ("", ".."):
        raise BadInputError(f"{path}: has no name of its own; give the folder's name")
    if os.path.lexists(path) and (path.is_symlink() or not path.is_dir()):
        raise BadInputError(f"{path}: is not a folder; choose another name")
    if path.is_dir() and (found := {entry.name for entry in path.iterdir()}):
        if not force:
            raise BadInputError(f"{path}: not empty; choose another name or replace it with -f")
        if other := sorted(found - set(parts)):
            raise BadInputError(
                f"{path}: holds what is no part of it, {other[0]}; move it or choose another name"
            )
    _check_parent(path)


def write_folder(
    path: Path, make: Callable[[Path], None], force: bool, parts: Collection[str]
) -> None:
    """Write a folder through a temporary one beside it.

    Args:
        path: The folder.
        make: Fills a folder that does not exist yet.
        force: See ``check_output_folder``.
        parts: Likewise.

    Raises:
        BadInputError: See ``check_output_folder``; or it cannot be written.
    """
    check_output_folder(path, force, parts)
    part, old = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("part", "old"))
    try:
        make(part)
        if path.exists():
            os.rename(path, old)
        os.rename(part, path)
    except OSError as e:
        raise BadInputError(f"{path}: cannot be written ({e.strerror})") from e
    finally:
        if old.exists() and not path.exists():  # interrupted between the two
            os.rename(old, path)
        for folder in (part, old):
            shutil.rmtree(folder, ignore_errors=True)
