"""Files and folders that are written whole or not at all, by one run at a time.

While a run makes NAME it holds the lock ``.NAME.lock`` beside it and writes ``.NAME.part``; a
folder that is replaced waits as ``.NAME.old``. A run that is killed leaves them. The next one on
that output finds the lock held by nobody and puts things right: an old folder whose place is empty
goes back there, and the rest is removed. Where there is no such lock, nothing beside it is ours.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from errno import EINVAL, ELOOP, EMLINK, ENOSYS, ENOTSUP, EPERM
from pathlib import Path
from typing import BinaryIO

from snncc.errors import BadInputError, Option, Words
from snncc.system.damage import irregular, reason
from snncc.system.locks import Lock
from snncc.system.process import shielded

__all__ = ["FileClaim", "FolderClaim", "check_file", "check_folder", "claim_file", "claim_folder"]

_OVERWRITE = Option("overwrite", True)

_StrPath = str | os.PathLike[str]

_MOST_LINKS = 40
_NO_LINKS = (EPERM, EMLINK, ENOSYS, ENOTSUP)  # not every file system has hard links


class FileClaim:
    """The right to write one file, see ``claim_file``.

    Attributes:
        made: What it has made beside the file.
        is_written: Whether the file is there.
    """

    def __init__(self, path: Path, place: Path, overwrite: bool) -> None:
        self._path, self._place, self._overwrite = path, place, overwrite
        self.made: list[Path] = []
        self.is_written = False

    def write(self, write: Callable[[BinaryIO], object]) -> None:
        """Put what ``write`` writes in place of what is there, at once.

        Raises:
            BadInputError: It cannot be written, or without ``overwrite`` something has come there.
        """
        part = _beside(self._place, "part")
        self.made = _free(part)
        try:
            with open(part, "xb") as file:
                write(file)
                _flush(file)
            check_file(self._path, self._overwrite)  # it may have become something else
            with shielded():
                _move(part, self._place, self._overwrite)
                self.is_written = True
        except FileExistsError as e:
            raise BadInputError(_exists(Path(e.filename2 or part))) from e
        except OSError as e:
            raise _unwritten(self._path, e) from e


class FolderClaim:
    """The right to write one folder, see ``claim_folder``.

    Attributes:
        made: What it has made beside the folder.
        is_written: Whether the folder is there.
    """

    def __init__(self, path: Path, parts: Collection[str] | None) -> None:
        self._path, self._parts = path, parts
        self.made: list[Path] = []
        self.is_written = False

    def write(self, make: Callable[[Path], object]) -> None:
        """Put the folder that ``make`` fills in place of an earlier one.

        Args:
            make: Called with the path of a folder that does not exist yet.

        Raises:
            BadInputError: It cannot be written, or the earlier one now holds what is no part of it.
        """
        part, old = _beside(self._path, "part"), _beside(self._path, "old")
        self.made = _free(part, old)
        try:
            make(part)
            with shielded():
                if self._path.exists():
                    os.rename(self._path, old)
                    if other := _others(old, self._parts):  # it has come since this run began
                        raise BadInputError(_holds(self._path, other))
                os.rename(part, self._path)
                self.is_written = True
        except OSError as e:
            raise _unwritten(self._path, e) from e


@contextmanager
def claim_file(path: _StrPath, overwrite: bool) -> Iterator[FileClaim]:
    """Nobody else writes this file meanwhile; what a killed run has left beside it goes.

    A symlink is followed: the file it leads to is replaced, and the link stays.

    Args:
        path: The file.
        overwrite: Whether it may be there.

    Raises:
        BadInputError: See ``check_file``; or another run writes it, or its folder cannot be
            written.
    """
    given = Path(path)
    place = check_file(given, overwrite)
    claim = FileClaim(given, place, overwrite)
    with _held(given, place, claim):
        check_file(given, overwrite)
        yield claim


@contextmanager
def claim_folder(
    path: _StrPath, overwrite: bool, parts: Collection[str] | None
) -> Iterator[FolderClaim]:
    """Nobody else writes this folder meanwhile; what a killed run has left is put right.

    Args:
        path: The folder; an empty one is as good as none.
        overwrite: Whether an earlier result may be replaced.
        parts: Names of all that a result holds; None: whatever is there is one.

    Raises:
        BadInputError: See ``check_folder``; or another run writes it, or the folder it is to be in
            cannot be written.
    """
    place = Path(path)
    check_folder(place, overwrite, parts)
    claim = FolderClaim(place, parts)
    with _held(place, place, claim):
        check_folder(place, overwrite, parts)
        yield claim


@contextmanager
def _held(path: Path, place: Path, claim: FileClaim | FolderClaim) -> Iterator[None]:
    """The lock is held, a killed run's leavings are gone; ours are, too, in the end."""
    with closing(Lock(_beside(place, "lock"))) as lock:
        try:
            with shielded():
                _take(lock, path, place)
            yield
        finally:
            with shielded(), suppress(OSError):  # the lock that then stays tells the next run
                if lock.is_held:
                    _put_right(place, claim.made)
                    lock.remove()


def _take(lock: Lock, path: Path, place: Path) -> None:
    try:
        was_left = lock.take()
        if was_left:
            _put_right(place, [_beside(place, "part"), _beside(place, "old")])
        if was_left is not None:
            lock.mark()
    except OSError as e:
        lock.close()  # and it stays: the next run is to know of what is left
        raise _unwritten(path, e) from e
    if was_left is None:
        holder = lock.holder
        raise BadInputError(f"{path}: {holder} is writing it; wait for it, or choose another name")


def _free(*paths: Path) -> list[Path]:
    """These, which are not there yet: whatever is then there under these names is ours."""
    if blocked := next((path for path in paths if os.path.lexists(path)), None):
        raise BadInputError(_exists(blocked))
    return list(paths)


def _sweep(path: Path, place: Path, claim: FileClaim | FolderClaim) -> None:
    """Put right what a killed run has left, also for a run that is about to be refused."""
    if os.path.lexists(_beside(place, "lock")):
        with suppress(BadInputError), _held(path, place, claim):
            pass


def _put_right(place: Path, made: Sequence[Path]) -> None:
    """Bring an earlier folder back whose place is empty, and remove the rest."""
    old = _beside(place, "old")
    if old in made and os.path.lexists(old) and not os.path.lexists(place):
        os.rename(old, place)
    for path in made:
        _remove(path)


def _move(part: Path, place: Path, overwrite: bool) -> None:
    if overwrite:
        os.replace(part, place)
        return
    try:
        os.link(part, place)  # replaces nothing, unlike a rename
    except OSError as e:
        if e.errno not in _NO_LINKS:
            raise
        os.rename(part, place)


# -- checks --------------------------------------------------------------------------------


def check_file(path: _StrPath, overwrite: bool) -> Path:
    """Where a file of this name would be written: there, or where links lead.

    Args:
        path: The file.
        overwrite: Whether it may be there.

    Raises:
        BadInputError: It is there, or it is no regular file, which is never replaced; or a link of
            another user leads there.
    """
    given = Path(path)
    place = _followed(given)
    try:
        mode = os.stat(place).st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = stat.S_IFREG
    except OSError as e:
        raise _unwritten(given, e) from e
    if stat.S_ISDIR(mode):
        raise BadInputError(f"{given}: is a folder; name a file")
    if kind := irregular(mode):
        link = "a link to " if place != given else ""
        raise BadInputError(f"{given}: is {link}{kind}, which is not replaced; name a file")
    if os.path.lexists(given) and not overwrite:
        _sweep(given, place, FileClaim(given, place, overwrite))
        raise BadInputError(_exists(given))
    return place


def _followed(path: Path) -> Path:
    """Where links lead to in the end; only the file's own name is looked at, not its folders."""
    place = path
    for _ in range(_MOST_LINKS):
        if not os.path.islink(place):
            return place
        owner = os.lstat(place).st_uid
        if owner not in (0, os.geteuid()):
            raise BadInputError(
                f"{path}: is a link of another user ({owner}), which is not followed; name the file"
            )
        if os.path.realpath(place.parent).startswith("/proc/"):
            raise BadInputError(f"{path}: is a stream of a process and no file; name a file")
        place = place.parent / os.readlink(place)
    raise _unwritten(path, OSError(ELOOP, os.strerror(ELOOP)))


def check_folder(path: Path, overwrite: bool, parts: Collection[str] | None) -> None:
    """Whether a folder may be written here, or replaced; see ``claim_folder``.

    Raises:
        BadInputError: Something else is there, a link is, or the folder holds what is no part of a
            result; or it holds one, and ``overwrite`` is not set.
    """
    if path.name in ("", ".."):
        raise BadInputError(f"{path}: has no name of its own; give the folder's name")
    _sweep(path, path, FolderClaim(path, parts))
    is_folder = os.path.isdir(path)
    if os.path.lexists(path) and (os.path.islink(path) or not is_folder):
        raise BadInputError(f"{path}: is not a folder; choose another name")
    try:
        found = {entry.name for entry in path.iterdir()} if is_folder else set()
    except OSError as e:
        raise _unwritten(path, e) from e
    if found and not overwrite:
        told = f"{path}: not empty; choose another name or replace it with "
        raise BadInputError(Words(told, _OVERWRITE))
    if other := _others(path, parts) if found else "":
        raise BadInputError(_holds(path, other))


def _others(folder: Path, parts: Collection[str] | None) -> str:
    """What is in the folder and is no part of a result; nothing, if it is one."""
    found = {entry.name for entry in folder.iterdir()}
    return min(found - (found if parts is None else set(parts)), default="")


def _holds(path: Path, other: str) -> str:
    return f"{path}: holds what is no part of it, {other}; move it or choose another name"


def _exists(path: Path) -> str:
    return Words(f"{path}: exists already; choose another name or overwrite it with ", _OVERWRITE)


def _unwritten(path: Path, error: OSError) -> BadInputError:
    return BadInputError(f"{path}: cannot be written ({reason(error)})")


# -- files beside the output ---------------------------------------------------------------


def _beside(place: Path, end: str) -> Path:
    return place.with_name(f".{place.name}.{end}")


def _flush(file: BinaryIO) -> None:
    """What is moved into place is on the disk, whatever stops the machine afterwards."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as e:
        if e.errno != EINVAL:  # some file systems have nothing to do
            raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
