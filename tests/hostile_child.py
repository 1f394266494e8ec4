"""Runs commands of snncc, each in a child whose every dangerous step is written down.

``python hostile_child.py < jobs.json > found.json``; a job is {"args", "folder", "env"}. The parent
imports what commands import, so that a child does nothing at import that a file could have caused.
Python's audit hooks see what Python does: processes, connections, libraries that are loaded, files
that are written, renamed and removed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

_SECONDS = 120
_STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty",
           "subprocess.Popen", "pty.spawn")  # fmt: skip
_CONNECTS = ("socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request")
_CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod",
            "os.chown", "os.truncate", "shutil.rmtree", "shutil.move")  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: Where libraries may come from, and what may be written although it is no file.
_LIBRARIES = tuple({sysconfig.get_path("purelib"), sys.base_prefix, "/lib", "/usr/lib"})
_DEVICES = ("/dev/null", "/dev/tty", "/proc/self/")


class Watch:
    """An audit hook that writes what is not allowed to a file descriptor."""

    def __init__(self, folder: str, report: int) -> None:
        self.folder, self.report = os.path.realpath(folder), report

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """Write the event down; nothing is prevented."""
        if self._is_wrong(event, args):
            os.write(self.report, f"{event} {args[:2]!r}\n".encode())

    def _is_wrong(self, event: str, args: tuple[Any, ...]) -> bool:
        if event in _STARTS or event in _CONNECTS:
            return True
        if event == "ctypes.dlopen":
            return "/" in str(args[0]) and not str(args[0]).startswith(_LIBRARIES)
        if event == "open":
            path, mode, flags = args
            writes = (flags or 0) & _WRITING or set(str(mode or "")) & set("wax+")
            return bool(writes) and self._is_outside(path)
        if event in _CHANGES:
            return any(self._is_outside(a) for a in args if isinstance(a, (str, bytes, Path)))
        return False

    def _is_outside(self, path: Any) -> bool:
        if isinstance(path, int):
            return False
        whole = os.path.realpath(os.fsdecode(path))
        return not whole.startswith((self.folder, *_DEVICES))


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Exit code (None: it took too long), what it wrote, and what was not allowed."""
    streams = [os.path.join(job["folder"], name) for name in (".stdout", ".stderr")]
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _be_the_child(job, streams, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as report:
        wrong = report.read().decode(errors="replace").splitlines()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    out, err = (Path(path).read_text(errors="replace") for path in streams)
    return {
        "code": None if code == -signal.SIGALRM else code,
        "out": out,
        "err": err,
        "wrong": wrong,
    }


def _be_the_child(job: dict[str, Any], streams: list[str], report: int) -> None:
    from snncc.__main__ import main

    for number, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.update(job["env"])
    tempfile.tempdir = None  # libraries have asked for it in the parent
    os.chdir(job["folder"])
    signal.alarm(_SECONDS)
    sys.addaudithook(Watch(job["folder"], report))
    code = 1
    try:
        sys.argv = ["snncc", *job["args"]]
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    from contextlib import suppress

    import PIL.Image
    import torch.onnx  # noqa: F401

    import snncc.compiler
    import snncc.frontends.pytorch
    import snncc.passes
    import snncc.runtime.evaluation.evaluate
    import snncc.runtime.session  # noqa: F401

    with suppress(ImportError):
        import datasets  # noqa: F401

    PIL.Image.init()
    json.dump([run(job) for job in json.load(sys.stdin)], sys.stdout)
