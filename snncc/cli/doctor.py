"""``snncc doctor``: what is installed, what runs, and what to type for the rest."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from typing import Any

import click

from snncc.cli.screen import Screen, spinner, write_json
from snncc.cli.shared_options import json_option

__all__ = ["doctor"]

_PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "networkx", "onnxscript", "torch")


@click.command("doctor", short_help="Say what is installed; install what Lava needs.")
@click.option(
    "--install-lava",
    is_flag=True,
    help="Make an environment for engine lava in the cache: needs a Python 3.10 and network.",
)
@json_option
def doctor(install_lava: bool, as_json: bool) -> None:
    """Say what is installed, which engines run here, and what to type for those that do not."""
    if install_lava:
        from snncc.backends.lava.environment import install

        with spinner() as say:
            install(say)
    found = _found()
    if as_json:
        write_json(found)
    else:
        _show(Screen(), found)


def _found() -> dict[str, Any]:
    import snncc
    from snncc.backends.engines import ENGINES
    from snncc.system.cache import cache_folder, why_not_own

    return {
        "snncc": snncc.__version__,
        "python": {"version": platform.python_version(), "path": sys.executable},
        "packages": {name: _version(name) for name in _PACKAGES},
        "engines": {name: target.unavailable for name, target in ENGINES.items()},
        "lava_python": _lava_python(),
        "cache": str(cache_folder()),
        "cache_unused": why_not_own(cache_folder()),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _lava_python() -> str | None:
    from snncc.backends.lava.interpreter import find_python
    from snncc.errors import MissingDependencyError

    try:
        return find_python()
    except MissingDependencyError:
        return None


def _show(screen: Screen, found: dict[str, Any]) -> None:
    python, packages = found["python"], found["packages"]
    screen.line("snncc", found["snncc"])
    screen.line("python", python["version"], python["path"])
    there = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
    absent = ", ".join(name for name, version in packages.items() if not version)
    screen.line("packages", there, f"absent: {absent}" if absent else "")
    unused = found["cache_unused"]
    screen.line("cache", found["cache"], f"not used: {unused}" if unused else "")
    screen.text("")
    rows = [(name, why or _runs(name, found)) for name, why in found["engines"].items()]
    screen.table(("engine", "runs here"), rows)


def _runs(engine: str, found: dict[str, Any]) -> str:
    return f"yes, in {found['lava_python']}" if engine == "lava" else "yes"
