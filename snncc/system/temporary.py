"""Temporary folders that go with their process, however it ends.

A folder holds a lock of its owner. One that is killed leaves the folder; the next process that
makes one finds the lock held by nobody, and removes what was left.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import weakref
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType

from snncc.system.locks import Lock

__all__ = ["TemporaryFolder"]

_PREFIX, _LOCK = "snncc-", ".lock"
#: Those of this process: where a file system has no locks, its own mark looks like a dead one's.
_mine: set[str] = set()


class TemporaryFolder:
    """A new folder that goes when this object goes; a forked process leaves it to its parent.

    Args:
        what: A word for its name, ``snncc-WORD-…``.

    Attributes:
        path: The folder; ``.lock`` in it is not the user's.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, what: str) -> None:
        _sweep()
        self.path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{what}-"))
        _mine.add(self.path.name)
        lock = Lock(self.path / _LOCK)
        self._remove = weakref.finalize(self, _removed, self.path, lock, os.getpid())
        with suppress(OSError):  # then nobody sweeps it
            lock.take()
            lock.mark()

    def close(self) -> None:
        """Remove the folder now."""
        self._remove()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _removed(path: Path, lock: Lock, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)
    _mine.discard(path.name)
    lock.close()


def _sweep() -> None:
    """Remove what killed processes of this user have left."""
    with suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX) and entry.name not in _mine and _is_own(entry):
                with suppress(OSError):  # another process sweeps it, too
                    _remove_if_left(Path(entry.path))


def _is_own(entry: os.DirEntry[str]) -> bool:
    info = entry.stat(follow_symlinks=False)
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid()


def _remove_if_left(path: Path) -> None:
    if not os.path.lexists(path / _LOCK):
        return  # not ours, or made just now
    with closing(Lock(path / _LOCK)) as lock:
        if lock.take():  # by a mark that nobody holds
            shutil.rmtree(path, ignore_errors=True)
