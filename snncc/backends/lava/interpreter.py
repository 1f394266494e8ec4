"""Which Python runs Lava: lava-nc 0.10.0 needs 3.10, whatever this process is.

A candidate counts when it has been executed: what version managers put on the path may be there
and exit 127.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from snncc.errors import MissingDependencyError, Option, Words
from snncc.system.cache import cache_folder, why_not_own

__all__ = [
    "LAVA_VERSION",
    "Probe",
    "environment",
    "environment_folder",
    "find_python",
    "probe",
    "python_310",
    "why_not",
]

LAVA_VERSION = "0.10.0"
WANTED = (3, 10)
VARIABLE = "SNNCC_LAVA_PYTHON"

_PROBE = """
import sys
from importlib.util import find_spec
print("%d.%d" % sys.version_info[:2])
if find_spec("lava") is None:
    print("it has no lava-nc")
else:
    try:
        import lava.magma.core.run_configs
        print("ok")
    except Exception as e:
        print("Lava does not import there:", type(e).__name__, str(e).replace(chr(10), " ")[:200])
"""
#: Where conda is below the home folder.
_CONDA = ("miniconda3", "anaconda3", "miniforge3")
_SECONDS = 120  # a cold import from a slow disk


@dataclass(frozen=True)
class Probe:
    """What came of executing a candidate.

    Attributes:
        version: Of Python; (): it did not run.
        lava: Whether Lava imports there.
        why: If not, the reason.
    """

    version: tuple[int, ...] = ()
    lava: bool = False
    why: str = ""


@cache
def probe(python: str) -> Probe:
    """Execute a candidate."""
    try:
        done = subprocess.run(
            [python, "-c", _PROBE],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            env=environment(python),
            stdin=subprocess.DEVNULL,
        )
    except OSError as e:
        return Probe(why=f"it does not run ({e.strerror})")
    except subprocess.TimeoutExpired:
        return Probe(why=f"it does not answer within {_SECONDS} s")
    return _understood(done.returncode, done.stdout.splitlines())


def _understood(code: int, lines: list[str]) -> Probe:
    try:
        version = tuple(int(part) for part in lines[0].split("."))
        lava = lines[1]
    except (IndexError, ValueError):
        return Probe(why=f"it does not run as Python (exit code {code})")
    return Probe(version, lava == "ok", "" if lava == "ok" else lava)


def environment(python: str) -> dict[str, str]:
    """The environment variables of a process of that Python.

    Packages of this process are not those of another Python; and one BLAS thread is faster, as
    Lava has a process for each layer.
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH")}
    if python == sys.executable:
        kept = dict(os.environ)
    return {**threads, **kept}


# -- candidates ----------------------------------------------------------------------------


def environment_folder() -> Path:
    """Where ``snncc doctor --install-lava`` makes its environment."""
    return cache_folder() / f"lava-{LAVA_VERSION}-py{WANTED[0]}.{WANTED[1]}"


def _candidates() -> Iterator[str]:
    """Every Python 3.10 there might be, likely ones first."""
    yield sys.executable
    name = f"python{WANTED[0]}.{WANTED[1]}"
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if folder and os.access(Path(folder, name), os.X_OK):
            yield str(Path(folder, name))
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv")
    uv = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share") / "uv"
    places = [
        (pyenv, f"versions/{WANTED[0]}.{WANTED[1]}*/bin/{name}"),
        (uv, f"python/cpython-{WANTED[0]}.{WANTED[1]}*/bin/{name}"),
        *((home / conda, f"envs/*/bin/{name}") for conda in _CONDA),
    ]
    for place, pattern in places:
        yield from map(str, sorted(place.glob(pattern)))


def python_310() -> str:
    """A Python 3.10 that executes, or nothing."""
    found = (python for python in _candidates() if probe(python).version == WANTED)
    return next(found, "")


# -- the choice ----------------------------------------------------------------------------


def find_python(given: str | os.PathLike[str] | None = None) -> str:
    """A Python in which Lava imports.

    Args:
        given: That of the user; default: ``$SNNCC_LAVA_PYTHON``, this process's, the environment
            of ``snncc doctor --install-lava``, then every Python 3.10 on the machine.

    Raises:
        MissingDependencyError: There is none, or the given one is none; with what to type.
    """
    chosen = os.fspath(given) if given is not None else os.environ.get(VARIABLE, "")
    if chosen:
        found = probe(chosen)
        if not found.lava:
            origin = Option("lava_python", chosen) if given is not None else f"${VARIABLE} {chosen}"
            told = f": {found.why}; {_by_hand(found.version, chosen)}"
            raise MissingDependencyError(Words(origin, told))
        return chosen
    for python in (sys.executable, *_own_environment(), *_candidates()):
        if probe(python).lava:
            return python
    raise MissingDependencyError(f"engine 'lava' {why_not()}")


def _own_environment() -> Iterator[str]:
    """The Python in the cache; not one that another user may have put there."""
    own = environment_folder() / "bin" / "python"
    if not why_not_own(cache_folder()) and own.exists():
        yield str(own)


def _by_hand(version: tuple[int, ...], python: str) -> str:
    if version == WANTED:
        return f"install it there: {python} -m pip install lava-nc=={LAVA_VERSION}"
    return f"name a Python 3.10 with lava-nc {LAVA_VERSION}"


def why_not() -> str:
    """What is missing where no Python has Lava, and what to type."""
    needs = f"needs lava-nc {LAVA_VERSION}, which needs Python 3.10"
    if python_310():
        return f"{needs}; there is one, so type: snncc doctor --install-lava"
    return (
        f"{needs}, and none was found that runs; get one (uv python install 3.10, or pyenv install "
        "3.10, or conda create -n py310 python=3.10), then type: snncc doctor --install-lava"
    )
