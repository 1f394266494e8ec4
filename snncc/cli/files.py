"""Files a command reads and writes: checked before the work, written whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from snncc.errors import BadInputError

__all__ = ["check_dump_folder", "check_input_file", "check_output_file", "write_file"]


def check_input_file(path: Path, may_be_folder: bool = False) -> None:
    """Fail at once if there is no such file.

    Raises:
        BadInputError: Missing, or a folder where a file is expected.
    """
    if not path.exists():
        raise BadInputError(f"{path}: no such file")
    if path.is_dir() and not may_be_folder:
        raise BadInputError(f"{path}: is a folder, a file is expected")


def check_output_file(path: Path, force: bool) -> None:
    """Fail at once if the file could not be written later.

    Raises:
        BadInputError: It exists and ``force`` is not set, or its folder is missing or read-only.
    """
    folder = path.parent
    if path.is_dir():
        raise BadInputError(f"{path}: is a folder; name a file")
    if os.path.lexists(path) and not force:
        raise BadInputError(f"{path}: exists already; choose another name or overwrite it with -f")
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
