"""Makes the environment that Lava runs in: Python 3.10 with pinned packages, in the cache."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path

from snncc.backends.lava.interpreter import (
    environment,
    environment_folder,
    probe,
    python_310,
    why_not,
)
from snncc.errors import BadInputError, MissingDependencyError
from snncc.system.cache import own_cache
from snncc.system.outputs import claim_folder

__all__ = ["install"]

_SECONDS = 1800  # a slow network
_MOST_LINES = 12


def install(say: Callable[[str], None]) -> Path:
    """Make the environment, unless it is there; its Python.

    Args:
        say: Called with what is being done.

    Raises:
        MissingDependencyError: There is no Python 3.10 that runs, or packages cannot be had.
    """
    folder = environment_folder()
    python = folder / "bin" / "python"
    if os.path.exists(python) and probe(str(python)).lava:
        return python
    base = python_310()
    if not base:
        raise MissingDependencyError(f"engine 'lava' {why_not()}")
    try:
        own_cache()
        with claim_folder(folder, overwrite=True, parts=None) as claim:  # whole or not at all
            claim.write(lambda part: _fill(part, base, say))
    except BadInputError as e:
        raise MissingDependencyError(e.message) from e
    except OSError as e:
        raise MissingDependencyError(f"{folder}: cannot be made ({e.strerror})") from e
    probe.cache_clear()
    return python


def _fill(folder: Path, base: str, say: Callable[[str], None]) -> None:
    say(f"make an environment with {base}")
    _do([base, "-m", "venv", str(folder)], base)
    python = str(folder / "bin" / "python")
    say("install lava-nc and what it needs")
    with as_file(files("snncc.backends.lava") / "requirements.txt") as pins:
        quiet = ["--quiet", "--disable-pip-version-check"]
        _do([python, "-m", "pip", "install", *quiet, "-r", str(pins)], python)
    if not (found := probe(python)).lava:
        raise MissingDependencyError(f"lava-nc was installed, but {found.why}")


def _do(command: list[str], python: str) -> None:
    shown = " ".join(command)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            env=environment(python),
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise MissingDependencyError(f"failed: {shown} ({e})") from e
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-_MOST_LINES:]
        lines = "\n".join(f"  {line}" for line in said)
        raise MissingDependencyError(f"failed: {shown}\n{lines}")
