"""Streams that are full, closed or left, and signals: nothing is hidden, nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import small_model
from float_networks import Net

from snncc.system.process import LOST

ROOT = Path(__file__).parents[2]


def first(values):
    """The first of them, and the others where there is time."""
    return [values[0], *(pytest.param(value, marks=pytest.mark.slow) for value in values[1:])]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A network whose vectors are right, one whose vectors are wrong, and a graph to compile."""
    folder = tmp_path_factory.mktemp("process")
    model = small_model.compiled()
    model.save(folder / "right.snn")
    wrong = {name: counts ^ 1 for name, counts in model.reference.counts.items()}
    model.reference = replace(model.reference, counts=wrong)
    model.save(folder / "wrong.snn")
    net = Net((1, 8, 8), seed=3).conv(2).fire(4).flatten().linear(4)
    (folder / "net.onnx").write_bytes(net.proto().SerializeToString())
    return folder


def shell(line, files, **more):
    """A line of bash, with ``snncc`` in it; what it printed, codes of a pipe with it."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "SNNCC_CACHE": str(files / "cache")}
    head = f'python() {{ {sys.executable} "$@"; }}; snncc() {{ python -m snncc "$@"; }};'
    done = subprocess.run(
        ["bash", "-c", head + line], env=env, cwd=files, capture_output=True, text=True, **more
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done


LOST_STREAMS = {"full": "> /dev/full", "closed": ">&-"}


@pytest.mark.parametrize("stream", LOST_STREAMS)
@pytest.mark.parametrize(
    "command", first(["ops", "ops --json", "--help", "inspect right.snn bounds"])
)
def test_a_result_that_is_lost_has_a_code_of_its_own(command, stream, files):
    done = shell(f"snncc {command} {LOST_STREAMS[stream]}", files)
    assert done.returncode == LOST
    assert done.stderr.startswith("error: stdout: cannot be written (")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("stream", first([*LOST_STREAMS]))
def test_an_error_keeps_its_code_and_its_words(stream, files):
    for options in ("", "--json"):
        done = shell(f"snncc run absent.snn --input x {options} {LOST_STREAMS[stream]}", files)
        assert done.returncode == 6
        words = "error: absent.snn: no such file\n"
        assert done.stderr.startswith(words) if options else done.stderr == words


RESTS = ["| head -c 1", "| true", "> /dev/full", ">&-", ">&- 2>&-"]


@pytest.mark.parametrize("rest", first(["> /dev/full", "| head -c 1"]))
def test_a_verdict_keeps_its_code_whoever_reads_it(rest, files):
    line = f"snncc verify wrong.snn --engines clocked {rest}"
    assert shell(f"{line}; exit ${{PIPESTATUS[0]}}", files).returncode == 5


@pytest.mark.slow
@pytest.mark.parametrize("options", ["", "--json"])
@pytest.mark.parametrize("rest", RESTS)
def test_every_verdict_keeps_its_code_whoever_reads_it(rest, options, files):
    codes = {}
    for name in ("right", "wrong"):
        line = f"snncc verify {name}.snn --engines clocked {options} {rest}"
        codes[name] = shell(f"{line}; exit ${{PIPESTATUS[0]}}", files).returncode
    assert codes == {"right": 0 if "|" in rest else LOST, "wrong": 5}


def test_a_long_result_may_be_read_in_part(files):
    done = shell("snncc ops --json | head -c 1; echo ${PIPESTATUS[@]}", files)
    assert (done.stdout, done.stderr) == ("{0 0\n", "")


@pytest.mark.parametrize("rest", first([">&- 2>&- <&-", "2> /dev/full", "2>&-"]))
def test_without_stderr_a_command_does_what_it_does(rest, files):
    assert shell(f"snncc inspect absent.snn {rest}", files).returncode == 6
    assert shell(f"snncc ops FireCount {rest}", files).returncode == (LOST if "<" in rest else 0)


def test_a_closed_stdout_is_not_the_next_file_that_is_opened(files):
    code = "import os; from snncc.system.process import replace_streams; replace_streams();"
    code += "f = open('precious', 'wb'); os.write(1, b'junk'); f.write(b'p'); f.close()"
    done = shell(f'{sys.executable} -c "{code}" >&-', files)
    assert (done.returncode, (files / "precious").read_bytes()) == (0, b"p")


def test_a_slow_reader_of_a_stream_that_does_not_block_gets_everything(files):
    code = "import os, sys; os.set_blocking(1, False)"
    code += "; from snncc.system.process import replace_streams;"
    code += "replace_streams(); sys.stdout.write('x' * 10**6); sys.stdout.flush()"
    done = shell(f'python -c "{code}" | (sleep 0.3; wc -c)', files)
    assert (done.stdout.strip(), done.stderr) == ("1000000", "")


# --- signals --------------------------------------------------------------------------------------

COMPILE = [
    sys.executable,
    "-m",
    "snncc",
    "compile",
    "net.onnx",
    "--input-range",
    "0,1",
    "-o",
    "sub/out.snn",
]


def started(files, command, **more):
    """A process, once it has claimed its output."""
    out = files / "sub"
    out.mkdir(exist_ok=True)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "SNNCC_CACHE": str(files / "cache")}
    process = subprocess.Popen(
        command,
        env=env,
        cwd=files,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )
    deadline = time.monotonic() + 60
    while not list(out.glob(".*.lock")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("name", first(["SIGTERM", "SIGHUP", "SIGINT"]))
def test_a_signal_ends_a_command_in_order(name, files):
    process = started(files, COMPILE)
    process.send_signal(signal.Signals[name])
    out, err = process.communicate(timeout=60)
    how = "interrupted" if name == "SIGINT" else f"ended by {name}"
    assert (process.returncode, out) == (128 + signal.Signals[name], "")
    assert err.strip() == f"{how}; nothing written"
    assert list((files / "sub").iterdir()) == []


@pytest.mark.slow
def test_a_signal_that_was_ignored_stays_so(files):
    process = started(files, ["nohup", *COMPILE])
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, [p.name for p in (files / "sub").iterdir()]) == (0, ["out.snn"]), (
        err
    )
    (files / "sub" / "out.snn").unlink()


LATE = """
import os, signal, sys
from pathlib import Path
import snncc.cli.files as files
from snncc.cli import cli
from snncc.system.process import end_in_order
import click

@cli.command("late")
def late():
    files.write_file(Path("sub/late"), b"whole", force=True)
    os.kill(os.getpid(), signal.SIGTERM)

end_in_order()
cli(["late"])
"""

SWALLOWED = LATE.replace(
    "    os.kill(os.getpid(), signal.SIGTERM)",
    """
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException as e:
        raise ImportError("initialization failed") from None""",
)


@pytest.mark.parametrize("code", [LATE, SWALLOWED])
def test_what_was_written_before_a_signal_is_said_to_be(code, files):
    process = started(files, [sys.executable, "-c", code])
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (143, "ended by SIGTERM; sub/late is written")
    (files / "sub" / "late").unlink()


SHIELDED = """
import os, signal
from snncc.system.process import Ended, end_in_order, shielded
end_in_order()
done = []
try:
    with shielded():
        with shielded():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append(1)
        done.append(2)
    done.append(3)
except Ended as e:
    print(done, e.number)
"""


def test_short_work_is_not_cut_in_two(files):
    done = shell(f"python -c '{SHIELDED}'", files)
    assert done.stdout == "[1, 2] 15\n"
