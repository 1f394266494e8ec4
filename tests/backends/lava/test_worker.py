"""The worker on stand-ins for an emitted directory: results, failures, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from snncc.backends.lava import worker
from snncc.errors import SnnccError

X = np.arange(12, dtype=np.uint8).reshape(3, 4)

#: Seconds that a process sleeps which is to be ended, and those in which that is long done even on
#: a busy machine.
SLEEP, SOON = 300, 100

HEAD = """
import argparse, json, os, signal, sys, time
import numpy as np
parser = argparse.ArgumentParser()
for name in ("--input", "--output", "--executor"):
    parser.add_argument(name)
for name in ("--trains", "--readouts-only"):
    parser.add_argument(name, action="store_true")
given = parser.parse_args()
def child():
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(SLEEP)
        os._exit(0)
    path = os.path.join(os.path.dirname(__file__), "pids")
    with open(path + ".part", "w") as file:
        print(pid, os.getpid(), file=file)
    os.rename(path + ".part", path)  # whoever sees it sees all of it
def write():
    report = json.dumps({"executor": given.executor, "flags": sys.argv[7:]})
    np.savez(given.output, **{"readout/y": np.load(given.input) * 2, "report": report})
"""


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch):
    monkeypatch.setattr(worker, "_GRACE", 0.3)


@pytest.fixture
def stand_in(tmp_path):
    """Makes a directory whose run.py does what it is told to."""

    def make(code: str) -> Path:
        lines = (f"SLEEP = {SLEEP}", HEAD, textwrap.dedent(code))
        (tmp_path / "run.py").write_text("\n".join(lines))
        return tmp_path

    return make


def run(directory: Path, **more: object) -> worker.Ran:
    return worker.run(directory, X, sys.executable, **more)


def running(directory: Path) -> list[int]:
    """Of the processes that noted their number, those that still run a moment later."""
    pids = [int(pid) for pid in (directory / "pids").read_text().split()]
    assert len(pids) == 2
    end = time.monotonic() + SOON  # a killed process ends when it is scheduled
    while any(map(_runs, pids)) and time.monotonic() < end:
        time.sleep(0.01)
    return [pid for pid in pids if _runs(pid)]


def await_pids(directory: Path) -> None:
    """Until the run is at work, which takes as long as the machine is busy."""
    end = time.monotonic() + SOON
    while not (directory / "pids").exists():
        assert time.monotonic() < end, "the run did not start"
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"  # ended, but nobody has asked yet


@pytest.mark.parametrize(
    ("wanted", "flags"),
    [("readouts", ["--readouts-only"]), ("counts", []), ("trains", ["--trains"])],
)
def test_arrays_and_the_report_come_back(stand_in, wanted, flags):
    ran = run(stand_in("write()"), executor="lava", wanted=wanted)
    assert (ran.arrays["readout/y"] == 2 * X).all()
    assert (ran.report["executor"], ran.report["flags"]) == ("lava", flags)
    assert ran.report["wall_s"] > 0


def test_what_it_prints_goes_nowhere(stand_in, capfd):
    run(stand_in("print('noise'); print('noise', file=sys.stderr); write()"))
    assert capfd.readouterr() == ("", "")


def test_a_failure_says_why_and_shows_the_end_of_stderr(stand_in):
    directory = stand_in("print('error: fire2: overflow', file=sys.stderr); sys.exit(1)")
    with pytest.raises(SnnccError) as caught:
        run(directory)
    assert caught.value.message == (
        "lava, direct executor: the run failed (exit code 1): fire2: overflow"
    )


def test_a_traceback_is_shown_under_its_first_error(stand_in):
    code = """
    for i in range(40):
        print("line", i, file=sys.stderr)
    try:
        {}["a"]
    except KeyError:
        raise RuntimeError("waited in vain")
    """
    with pytest.raises(SnnccError) as caught:
        run(stand_in(code))
    first, *rest = caught.value.message.splitlines()
    assert first == "lava, direct executor: the run failed (exit code 1): KeyError: 'a'"
    assert rest[0] == "its messages, the last 30 lines:"
    assert rest[-1] == "  RuntimeError: waited in vain"
    assert len(rest) == 31


def test_a_process_that_is_killed_is_said_to_be(stand_in):
    with pytest.raises(SnnccError, match=r"the run failed \(ended by SIGKILL\)$"):
        run(stand_in("os.kill(os.getpid(), signal.SIGKILL)"))


@pytest.mark.parametrize(
    "code",
    ["pass", "open(given.output, 'w').write('x')", "np.savez(given.output, report='{')",
     "np.savez(given.output, y=1)", "np.savez(given.output, y=np.array([{}], dtype=object))"],
)  # fmt: skip
def test_a_result_that_cannot_be_read_is_a_failure(stand_in, code):
    with pytest.raises(SnnccError, match="the run left no readable result"):
        run(stand_in(code))


# -- nothing is left behind ----------------------------------------------------------------


def test_a_late_run_is_ended_with_all_its_processes(stand_in, monkeypatch):
    directory = stand_in("print('so far', file=sys.stderr, flush=True); child(); time.sleep(SLEEP)")
    wait = subprocess.Popen.wait

    def once_at_work(self, timeout=None):
        await_pids(directory)  # time counts from then on: the start may take longer
        return wait(self, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", once_at_work)
    start = time.monotonic()
    with pytest.raises(SnnccError) as caught:
        run(directory, executor="lava", timeout=0.2)
    assert time.monotonic() - start < SLEEP
    assert running(directory) == []
    assert caught.value.message == (
        "lava, lava executor: no result within 0.2 s, all its processes were ended; allow more "
        "with timeout=SECONDS, or give fewer samples; executor='direct' is faster; its last "
        "words: so far"
    )


@pytest.mark.parametrize("code", ["child(); write()", "child(); sys.exit(3)"])
def test_children_that_outlive_their_run_are_ended(stand_in, code):
    directory = stand_in(code)  # they hold its stdout and stderr, too
    with pytest.raises(SnnccError, match="exit code 3") if "exit" in code else nullcontext():
        run(directory)
    assert running(directory) == []


def test_an_interrupt_ends_the_run(stand_in, monkeypatch):
    directory = stand_in("child(); time.sleep(SLEEP)")
    wait = subprocess.Popen.wait

    def interrupted(self, timeout=None):
        await_pids(directory)
        monkeypatch.setattr(subprocess.Popen, "wait", wait)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(directory)
    assert running(directory) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_request_to_terminate_ends_the_run(stand_in):
    directory = stand_in("child(); time.sleep(SLEEP)")
    code = f"""
import sys, numpy as np
from pathlib import Path
from snncc.backends.lava import worker
worker._GRACE = 0.3
worker.run(Path({str(directory)!r}), np.zeros((1, 4), np.uint8), sys.executable)
"""
    parent = subprocess.Popen([sys.executable, "-c", code])
    await_pids(directory)
    parent.terminate()
    assert parent.wait(SOON) == 128 + signal.SIGTERM
    assert running(directory) == []


def test_temporary_files_go(stand_in, tmp_path, monkeypatch):
    directory = stand_in("write()")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    run(directory)
    assert os.listdir(tmp_path / "tmp") == []
