"""Files that are cut off or damaged: how one knows, and what is said of them."""

from __future__ import annotations

import os
import zipfile
from typing import BinaryIO

from snncc.errors import BadInputError

__all__ = ["damaged", "require_whole_zip"]

_MAGIC = b"PK\x03\x04"

_Path = str | os.PathLike[str]


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
