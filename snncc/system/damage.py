"""Files that are no files, cut off or damaged: how one knows, and what is said of them."""

from __future__ import annotations

import errno
import os
import stat
import zipfile
from typing import BinaryIO

from snncc.errors import BadInputError

__all__ = ["damaged", "irregular", "open_regular", "reason", "require_whole_zip"]

_MAGIC = b"PK\x03\x04"

_Path = str | os.PathLike[str]

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def irregular(mode: int) -> str:
    """What something is that is no regular file, ``a pipe``; nothing of a regular file.

    Args:
        mode: As ``os.stat`` tells it.
    """
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "something else")


def open_regular(path: _Path) -> BinaryIO:
    """The file, open for reading: of others reading may wait for ever, or never end.

    What is no regular file is not even opened, as that alone can do things to a device.

    Raises:
        BadInputError: It is a pipe, a socket or a device.
        OSError: It cannot be opened, or is a folder.
    """
    _require_regular(os.stat(path).st_mode, path)
    file = open(path, "rb", opener=_opened_at_once)  # noqa: SIM115 (the caller closes it)
    try:
        _require_regular(os.fstat(file.fileno()).st_mode, path)  # it may have been replaced
    except (BadInputError, OSError):
        file.close()
        raise
    return file


def _opened_at_once(path: str, flags: int) -> int:
    """Opening waits for nobody and takes no terminal."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def _require_regular(mode: int, path: _Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if kind := irregular(mode):
        raise BadInputError(
            f"{path}: cannot be read, it is {kind} and a regular file is expected; save what it "
            "gives to a file"
        )


def reason(error: Exception) -> str:
    """First line of what an exception says, or its name."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]


def damaged(path: _Path, why: str, otherwise: str = "") -> BadInputError:
    """The error of a file that is not whole.

    Args:
        path: The file, as the user named it.
        why: What gave it away.
        otherwise: What else it may be, where that cannot be told.
    """
    what = f"cut off or damaged, or {otherwise}" if otherwise else "cut off or damaged"
    return BadInputError(f"{path}: {what} ({why}); copy or download it again")


def require_whole_zip(file: BinaryIO, path: _Path) -> None:
    """A file that begins as a zip ends as one; what is no zip passes, unless it is empty.

    Args:
        file: Read from its beginning, and left there.
        path: Its name, for the message.

    Raises:
        BadInputError: It is cut off.
    """
    head = file.read(len(_MAGIC))
    if not head:
        raise damaged(path, "empty")
    if _MAGIC.startswith(head) and not _has_directory(file):
        raise damaged(path, "a zip file whose directory, at its end, is not there")
    file.seek(0)


def _has_directory(file: BinaryIO) -> bool:
    """Whether the directory at the end is the file's own, not that of a zip inside it."""
    try:
        with zipfile.ZipFile(file) as archive:
            return min((info.header_offset for info in archive.infolist()), default=1) == 0
    except Exception:  # zipfile raises nearly anything on damaged bytes
        return False
