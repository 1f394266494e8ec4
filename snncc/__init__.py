"""snncc: a compiler from trained PyTorch networks to verified spiking programs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snncc.compiler import InputOptions, Options, compile
    from snncc.compiler.on_grid import on_grid
    from snncc.runtime.artifact import CompiledModel, load
    from snncc.runtime.session import Session

    __version__: str

__all__ = [
    "CompiledModel",
    "InputOptions",
    "Options",
    "Session",
    "__version__",
    "compile",
    "load",
    "on_grid",
]

#: Where public names live; their modules are imported when they are first used.
_HOMES = {
    "CompiledModel": "snncc.runtime.artifact",
    "InputOptions": "snncc.compiler",
    "Options": "snncc.compiler",
    "Session": "snncc.runtime.session",
    "compile": "snncc.compiler",
    "load": "snncc.runtime.artifact",
    "on_grid": "snncc.compiler.on_grid",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name == "nn":  # which needs torch
        return import_module("snncc.nn")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'snncc' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("snncc")
    except PackageNotFoundError:  # a source tree that is not installed
        return "0+source"
