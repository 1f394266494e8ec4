"""Options of the engine ``lava``, for every command that runs engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from snncc.cli.screen import plural

__all__ = ["given_options", "lava_options", "ran_pieces"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--executor",
        type=click.Choice(["direct", "lava"]),
        help="lava: Lava's runtime; direct: its process models in one thread, which is faster; "
        "engine lava, default: direct above 60 processes.",
    ),
    click.option(
        "--lava-python",
        metavar="PYTHON",
        help="A Python 3.10 with lava-nc; engine lava. Default: $SNNCC_LAVA_PYTHON, or one that "
        "is found.",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="That a run may take; engine lava, default 600.",
    ),
)
_NAMES = ("executor", "lava_python", "timeout")


def lava_options(command: _Command) -> _Command:
    """A command that takes them, too."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def given_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those that were given, of all of a command's."""
    return {name: values[name] for name in _NAMES if values.get(name) is not None}


def ran_pieces(report: Mapping[str, Any]) -> list[str]:
    """Which executor ran, why, and how long it took."""
    processes = plural(report["processes"], "process|processes")
    rate = report["samples"] / max(report["run_s"], 1e-9)
    return [
        f"{report['executor']} executor ({report['why']}), {processes}",
        f"start-up {report['startup_s']:.1f} s, then {rate:.0f} samples/s",
        plural(report["ticks"], "tick"),
    ]
