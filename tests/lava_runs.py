"""Emitted directories, run by a Python that has Lava, and compared with the clocked engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path
from select import select
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from snncc.backends.clocked.engine import ClockedEngine
from snncc.backends.lava.emit import write
from snncc.backends.lava.interpreter import find_python, python_310
from snncc.errors import MissingDependencyError
from snncc.program import Accumulator, Program

__all__ = ["differences", "emitted", "expected", "lava_python", "python", "run", "simpler"]

Arrays = dict[str, np.ndarray]

STARTER = Path(__file__).parent / "backends" / "lava" / "starter.py"


def lava_python() -> str:
    """The interpreter that has Lava.

    Where a Python 3.10 runs, Lava is to be there: the test fails without. Elsewhere it is skipped.
    """
    try:
        return find_python()
    except MissingDependencyError as e:
        if python_310():
            pytest.fail(f"no Lava, but a Python 3.10 that runs it: {e.message}")
        pytest.skip(e.message)


@cache
def _starter() -> subprocess.Popen[str]:
    """The interpreter with Lava imported; it ends with this process."""
    return subprocess.Popen(
        [lava_python(), "-E", STARTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def python(*arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """The interpreter with Lava on a script, apart from this one's environment.

    Raises:
        subprocess.TimeoutExpired: It took longer; it is ended.
    """
    command, starter = list(map(str, arguments)), _starter()
    assert starter.stdin is not None
    assert starter.stdout is not None
    with TemporaryDirectory() as folder:
        files = [str(Path(folder, name)) for name in ("stdout", "stderr")]
        starter.stdin.write(json.dumps([*files, *command]) + "\n")
        starter.stdin.flush()
        if not select([starter.stdout], [], [], timeout)[0]:
            os.killpg(starter.pid, signal.SIGKILL)
            _starter.cache_clear()
            raise subprocess.TimeoutExpired(command, timeout)
        answer = starter.stdout.readline()
        assert answer, "the interpreter with Lava has ended"
        said = [Path(file).read_text(encoding="utf-8") for file in files]
    return subprocess.CompletedProcess(command, int(answer), *said)


def simpler(program: Program) -> Program:
    """Without masks, and with one slice of each weight."""

    def single(node: Any) -> Any:
        if not isinstance(node, Accumulator):
            return node
        projections = tuple(replace(p, weights=p.weights[:1]) for p in node.projections)
        return replace(node, projections=projections, masked=None)

    return replace(program, nodes=tuple(map(single, program.nodes)))


def emitted(program: Program, x: np.ndarray, directory: Path) -> Path:
    """The Program's directory, with its samples in it."""
    write(program, directory, name=program.name)
    np.save(directory / "x.npy", x)
    return directory


def run(directory: Path, *flags: str) -> Arrays:
    """What run.py writes for the samples in the directory, trains and all."""
    files = ["--input", directory / "x.npy", "--output", directory / "y.npz"]
    done = python(directory / "run.py", *files, "--trains", *flags)
    assert done.returncode == 0, done.stderr
    return results(directory)


def results(directory: Path) -> Arrays:
    """The content of y.npz."""
    with np.load(directory / "y.npz") as found:
        return dict(found)


def expected(program: Program, x: np.ndarray) -> Arrays:
    """What y.npz should hold."""
    activity = ClockedEngine(program).run(x, [n.name for n in program.neurons])
    kinds = {
        "counts": activity.counts,
        "readout": activity.readouts,
        "tick_spikes": activity.tick_spikes,
        "trains": activity.spikes,
    }
    return {f"{kind}/{name}": a for kind, arrays in kinds.items() for name, a in arrays.items()}


def differences(wanted: Arrays, found: Arrays) -> list[str]:
    """Keys of arrays that are not the same."""
    return [key for key, values in wanted.items() if not np.array_equal(values, found[key])]
