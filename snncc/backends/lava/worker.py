"""Runs an emitted directory in a process of its own, which leaves nothing behind.

Lava forks, sets the start method of the whole process, and waits for ever where a process of its
died: so it never runs in this one, but in a new session with a time limit, whose whole process
group is ended, whatever happens. Arrays travel in files, and so does what the process says: a pipe
would stay open as long as any child that inherited it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from snncc.backends.lava.interpreter import environment
from snncc.errors import Option, SnnccError, Words
from snncc.system.temporary import TemporaryFolder

__all__ = ["EXECUTORS", "TIMEOUT", "Ran", "run"]

EXECUTORS = ("direct", "lava")
#: Seconds that a run may take, if not said otherwise.
TIMEOUT = 600.0

_WANTED = {"readouts": ["--readouts-only"], "counts": [], "trains": ["--trains"]}
_GRACE = 3.0  # seconds in which Python's resource tracker gives shared memory back
_MOST_LINES = 30


@dataclass(frozen=True)
class Ran:
    """What a run gave.

    Attributes:
        arrays: ``counts/<population>``, ``readout/<name>`` and ``trains/<population>``.
        report: Of the run: ``executor``, ``processes``, ``samples``, ``ticks``, seconds
            ``startup_s`` and ``run_s``, and ``wall_s`` of the whole operating system process.
    """

    arrays: dict[str, npt.NDArray[Any]]
    report: dict[str, Any]


def run(
    directory: Path,
    x: npt.NDArray[Any],
    python: str,
    executor: str = "direct",
    wanted: str = "counts",
    timeout: float = TIMEOUT,
) -> Ran:
    """Run samples through an emitted directory.

    Args:
        directory: As ``emit.write`` makes it.
        x: Integers of the source, (N, *shape), or (T, N, *shape) for a sequence.
        python: An interpreter in which Lava imports.
        executor: ``lava``: Lava's runtime, a process for each process; ``direct``: the same
            process models, one after the other.
        wanted: ``readouts`` alone, ``counts`` besides, or ``trains`` besides.
        timeout: Seconds after which the run is ended.

    Raises:
        SnnccError: It failed, or took too long; with what it wrote to stderr.
    """
    with TemporaryFolder("run") as job:
        np.save(job / "x.npy", x)
        command = [python, str(directory / "run.py"), "--input", str(job / "x.npy")]
        command += ["--output", str(job / "y.npz"), "--executor", executor]
        start = time.perf_counter()
        code = _finished([*command, *_WANTED[wanted]], job, environment(python), timeout)
        seconds = time.perf_counter() - start
        if code is None:
            raise _late(executor, timeout, job)
        if code != 0:
            raise _failed(executor, code, job)
        return _read(job / "y.npz", executor, seconds)


def _read(path: Path, executor: str, seconds: float) -> Ran:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        report = json.loads(str(arrays.pop("report")[()]))
    except (OSError, ValueError, KeyError, BadZipFile) as e:
        raise SnnccError(f"lava, {executor} executor: the run left no readable result ({e})") from e
    return Ran(arrays, {**report, "wall_s": seconds})


# -- what went wrong -----------------------------------------------------------------------


def _late(executor: str, timeout: float, job: Path) -> SnnccError:
    others = ("; ", Option("executor", "direct"), " is faster") if executor == "lava" else ()
    lines = [line for line in _lines(job) if "resource_tracker" not in line]  # that was our doing
    said = f"; its last words: {lines[-1].strip()}" if lines else ""
    late = f"no result within {timeout:g} s, all its processes were ended; allow more with "
    allowed = Option("timeout", like="SECONDS")
    fewer = (allowed, ", or give fewer samples", *others)
    return SnnccError(Words(f"lava, {executor} executor: {late}", *fewer, said))


def _failed(executor: str, code: int, job: Path) -> SnnccError:
    how = f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"
    head = f"lava, {executor} executor: the run failed ({how})"
    return SnnccError(": ".join(part for part in (head, _cause(_lines(job))) if part) + _said(job))


def _cause(lines: list[str]) -> str:
    """What run.py says itself, else the first exception: later ones waited for that model."""
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return next(iter([*said, *raised, *lines[-1:]]), "").strip()


def _lines(job: Path) -> list[str]:
    return (job / "err").read_text("utf-8", "replace").splitlines()


def _said(job: Path) -> str:
    """The end of what it wrote to stderr, as lines of their own; one line is all in the cause."""
    lines = _lines(job)
    if len(lines) < 2:
        return ""
    shown = lines[-_MOST_LINES:]
    head = "its messages" + (f", the last {_MOST_LINES} lines" if len(lines) > len(shown) else "")
    return "\n".join([f"\n{head}:", *(f"  {line}" for line in shown)])


# -- the process ---------------------------------------------------------------------------


def _finished(
    command: list[str], job: Path, variables: dict[str, str], timeout: float
) -> int | None:
    """Its exit code; None if it had to be ended."""
    with open(job / "out", "wb") as out, open(job / "err", "wb") as err, _interruptible():
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=variables,
            start_new_session=True,
        )
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole group; after a regular end there is mostly nobody left."""
    group = process.pid  # a new session: its first process leads the group
    is_running = process.poll() is None
    grace = 0.1 if process.poll() == 0 else _GRACE
    deadline = time.monotonic() + grace
    _signalled(group, signal.SIGTERM)
    while _signalled(group, 0) and time.monotonic() < deadline:
        process.poll()  # a process that has ended still counts until it is asked
        time.sleep(0.02)
    _signalled(group, signal.SIGKILL)
    if is_running:
        process.wait()


def _signalled(group: int, number: int) -> bool:
    """Whether there was a process left to send it to."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


@contextmanager
def _interruptible() -> Iterator[None]:
    """A request to terminate is an exception meanwhile, so that the group is ended, too."""
    is_free = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not is_free or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
