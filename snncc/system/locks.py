"""Locks on files, which the kernel lets go of when their holder is gone, however it ended."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

__all__ = ["Lock"]

_MARK = b"snncc "
#: Seconds between two looks at a lock that the kernel does not hold.
_PATIENCE = 0.05


class Lock:
    """A file that one run holds at a time, and that is gone when none does.

    Args:
        path: The file; made where it is not there.

    Attributes:
        holder: Who has it, for messages, if ``take`` gave None: ``process 123``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.holder = ""
        self._file = -1

    def take(self, wait: bool = False) -> bool | None:
        """Take the lock; whether a run that was killed has left its mark, None if another has it.

        Args:
            wait: Until the other lets go of it.

        Raises:
            OSError: The file cannot be made, or is something else.
        """
        while True:
            file = self._opened()
            try:
                mark = self._mark_if_free(file, wait)
                if mark is None or self._is_here(file):
                    break
            except BaseException:
                os.close(file)
                raise
            os.close(file)  # its holder has removed it in the meantime
        if mark is None:
            os.close(file)
            return None
        self._file = file
        return bool(mark)

    @property
    def is_held(self) -> bool:
        """Whether it has been taken and not let go of."""
        return self._file >= 0

    def mark(self) -> None:
        """Say whose it is, before anything is made that a killed run would leave."""
        os.pwrite(self._file, b"%s%10d\n" % (_MARK, os.getpid()), 0)

    def remove(self) -> None:
        """Remove the file, while it is held.

        Raises:
            OSError: It cannot be removed.
        """
        if self.is_held:
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of it."""
        if self.is_held:
            os.close(self._file)
            self._file = -1

    def _opened(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        return os.open(self.path, flags, 0o666)

    def _mark_if_free(self, file: int, wait: bool) -> bytes | None:
        """What is written in it, once it is held; None if another holds it."""
        mode = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
        try:
            fcntl.flock(file, mode)
            is_free = True
        except BlockingIOError:
            is_free = False
        except OSError:  # some file systems have no locks: then the mark has to do
            while wait and _runs(os.pread(file, 64, 0)):
                time.sleep(_PATIENCE)
            is_free = not _runs(os.pread(file, 64, 0))
        mark = os.pread(file, 64, 0)
        if is_free and mark and not mark.startswith(_MARK):
            raise FileExistsError(f"{self.path} is there and is not ours")
        if not is_free:
            self.holder = f"process {_number(mark)}"
        return mark if is_free else None

    def _is_here(self, file: int) -> bool:
        """Whether the open file is still the one of that name."""
        try:
            return os.path.samestat(os.fstat(file), os.lstat(self.path))
        except FileNotFoundError:
            return False


def _number(mark: bytes) -> int:
    """Of the process that left the mark; 0 if it has left none yet."""
    text = mark.removeprefix(_MARK).strip()
    return int(text) if text.isdigit() else 0


def _runs(mark: bytes) -> bool:
    """Whether the process that left the mark runs, as far as can be seen here."""
    number = _number(mark)
    if number in (0, os.getpid()):
        return False
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, but there
    return True
