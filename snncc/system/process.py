"""What a process owes its surroundings: it survives dead streams, and ends in order when told to.

No command fails midway because nobody reads what it says: what cannot be written is dropped, and
the exit code tells of it in the end.
"""

from __future__ import annotations

import io
import os
import select
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EBADF, EPIPE
from types import FrameType
from typing import Any, TextIO

__all__ = [
    "LOST",
    "Ended",
    "Stream",
    "asked_to_end",
    "end_in_order",
    "end_now",
    "final_code",
    "replace_streams",
    "shielded",
]

#: Exit code of a command that did its work and could not tell the result.
LOST = 8

_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Ended(KeyboardInterrupt):
    """A signal asked the process to end; cleaned up after as an interrupt is.

    Attributes:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def end_in_order() -> None:
    """SIGTERM, SIGHUP and SIGINT raise ``Ended`` from now on; those that are ignored stay so."""
    for number in _SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _end)


def end_now() -> None:
    """All is done: what now asks the process to end has its wish already."""
    for number in _SIGNALS:
        if signal.getsignal(number) is _end:
            signal.signal(number, signal.SIG_IGN)


def asked_to_end() -> int:
    """The signal that asked for it, or 0: libraries may have made another error of ``Ended``."""
    return _shield.asked


def _end(number: int, _frame: FrameType | None) -> None:
    _shield.asked = number
    if _shield.depth:
        _shield.number = number
    else:
        raise Ended(number)


@dataclass
class _Shield:
    depth: int = 0
    number: int = 0  # waits until the work is done
    asked: int = 0


_shield = _Shield()


@contextmanager
def shielded() -> Iterator[None]:
    """Short work that no signal cuts in two: ``Ended`` is raised when it is done.

    Signals reach the main thread only, so other threads need no shield.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _shield.depth += 1
    try:
        yield
    finally:
        _shield.depth -= 1
        if not _shield.depth and _shield.number:
            number, _shield.number = _shield.number, 0
            raise Ended(number)


class Stream(io.RawIOBase):
    """A descriptor to write to; from its first error on it drops what it is given.

    Args:
        descriptor: 1 or 2.
        is_closed: Nothing can be written to it.

    Attributes:
        error: That error; None while nothing was dropped.
    """

    def __init__(self, descriptor: int, is_closed: bool) -> None:
        super().__init__()
        self.error: OSError | None = None
        self._is_closed = is_closed
        self.name, self.mode = f"<{'stdout' if descriptor == 1 else 'stderr'}>", "wb"
        self._descriptor = descriptor

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._descriptor)

    def write(self, data: Any, /) -> int:
        """Write some of it, waiting where the reader is slow; how much is done with."""
        while self.error is None:
            try:
                if self._is_closed:
                    raise OSError(EBADF, os.strerror(EBADF))
                return os.write(self._descriptor, data)
            except BlockingIOError:  # whoever shares the descriptor has made it so
                select.select([], [self._descriptor], [])
            except OSError as e:
                self.error = e
        return len(data)


def replace_streams() -> Stream:
    """Make stdout and stderr such streams, also where they are closed; that of stdout.

    A descriptor that is closed is filled, lest the next file that is opened becomes stdout.
    """
    closed = list(_filled((0, 1, 2)))
    out, err = (Stream(descriptor, descriptor in closed) for descriptor in (1, 2))
    sys.stdout, sys.stderr = _text(out, sys.stdout), _text(err, sys.stderr)
    return out


def _filled(descriptors: Iterable[int]) -> Iterator[int]:
    """Those that are closed, in order; they lead nowhere from now on."""
    for descriptor in descriptors:
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free, which is this one
            yield descriptor


def _text(stream: Stream, given: TextIO | None) -> TextIO:
    """What cannot be encoded is replaced: an ASCII terminal is no reason to fail either."""
    return io.TextIOWrapper(
        io.BufferedWriter(stream),
        encoding=getattr(given, "encoding", None) or "utf-8",
        errors="replace",
        line_buffering=stream.isatty() or stream.fileno() == 2,
        write_through=bool(getattr(given, "write_through", False)),
    )


def final_code(code: int, out: Stream) -> int:
    """The exit code, once everything is written: the command's, or ``LOST`` for a 0 untold.

    A reader that stops early, as ``head`` does, has what it wants, and changes no code.
    """
    _flush()
    if out.error is None or out.error.errno == EPIPE:
        return code
    why = out.error.strerror
    sys.stderr.write(f"error: stdout: cannot be written ({why}); the result is lost\n")
    _flush()
    return code or LOST


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed:
            stream.flush()
