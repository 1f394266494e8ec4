"""What a failure looks like: an exit code, one line, and a table of faults; never a traceback."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np

from snncc.cli.files import WRITTEN
from snncc.cli.flags import fault_in_flags, in_flags
from snncc.cli.screen import Screen, write_json
from snncc.errors import Fault, SnnccError
from snncc.system.process import asked_to_end

__all__ = ["Commands", "fault_json", "show_faults"]

_MOST_ROWS = 40


class Commands(click.Group):
    """The group of all commands; whatever they raise becomes a message and an exit code."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run the command line, then exit the process with its code."""
        given = list(sys.argv[1:] if args is None else args)
        WRITTEN.clear()
        extra = {**extra, "standalone_mode": False}
        extra["prog_name"] = extra.get("prog_name") or self.name
        try:
            # What is no number is found by its result, and named; numpy would name lines of ours.
            with np.errstate(all="ignore"):
                code = super().main(args, *rest, **extra)
        except Exception as error:
            code = _report(error, _wants_json(given))
        sys.exit(code if isinstance(code, int) else 0)


def _wants_json(args: Sequence[str]) -> bool:
    pairs = [f"{name}={value}" for name, value in pairwise(args)]
    is_format = "--format=json" in (*args, *pairs)
    return "--json" in args or is_format


def _report(error: Exception, as_json: bool) -> int:
    """Say what went wrong; the exit code."""
    if number := asked_to_end():
        return _interrupted(number)
    if isinstance(error, click.Abort):
        cause = error.__cause__
        if not isinstance(cause, Exception):  # none, or KeyboardInterrupt
            return _interrupted(signal.SIGINT)
        error = cause
    if os.environ.get("SNNCC_DEBUG"):
        traceback.print_exception(type(error), error, error.__traceback__)
    if isinstance(error, SnnccError):
        return _show(error.exit_code, in_flags(error.message), error.faults, as_json)
    if isinstance(error, click.ClickException):
        return _show(error.exit_code, _usage(error), (), as_json)
    return _show(1, _internal(error), (), as_json)


def _interrupted(number: int) -> int:
    """Say by what, and what there is of the work; the exit code, as a shell gives it."""
    how = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    done = f"{', '.join(map(str, WRITTEN))} is written" if WRITTEN else "nothing written"
    Screen(to_stderr=True).text(f"{how}; {done}")
    return 128 + number


def _show(code: int, message: str, faults: Sequence[Fault], as_json: bool) -> int:
    screen = Screen(to_stderr=True)
    screen.error(message)
    if as_json:
        found = {"code": code, "message": message, "faults": [fault_json(f) for f in faults]}
        write_json({"error": found})
    elif faults:
        show_faults(screen, faults)
    return code


def _usage(error: click.ClickException) -> str:
    message = error.format_message()
    context = getattr(error, "ctx", None)
    if context is None:
        return message
    return f"{message.rstrip('.')}; see {context.command_path} --help"


def _internal(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return (
        f"internal: {type(error).__name__}{place}: {text}; please report it with the command line "
        "(SNNCC_DEBUG=1 shows where it comes from)"
    )


# -- faults --------------------------------------------------------------------------------


def fault_json(fault: Fault) -> dict[str, str]:
    """Plain data."""
    return asdict(fault_in_flags(fault))


def show_faults(screen: Screen, faults: Sequence[Fault]) -> None:
    """A table: nodes of a kind counted together, other faults one by one."""
    faults = [fault_in_flags(fault) for fault in faults]
    if all(fault.kind for fault in faults):
        head = ("kind", "nodes", "first at", "why", "do this")
        _show_rows(screen, head, _grouped(faults), right=(1,))
    else:
        rows = [(fault.where, fault.what, fault.todo) for fault in faults]
        _show_rows(screen, ("where", "what", "do this"), rows)


def _grouped(faults: Sequence[Fault]) -> list[tuple[str, ...]]:
    groups: dict[tuple[str, str, str], list[Fault]] = {}
    for fault in faults:
        groups.setdefault((fault.kind, fault.what, fault.todo), []).append(fault)
    return [
        (kind, f"{len(found):,}", found[0].where, what, todo)
        for (kind, what, todo), found in groups.items()
    ]


def _show_rows(
    screen: Screen,
    head: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    right: Sequence[int] = (),
) -> None:
    filled = [i for i in range(len(head)) if any(row[i] for row in rows)]
    columns = [[row[i] for i in filled] for row in rows[:_MOST_ROWS]]
    screen.table([head[i] for i in filled], columns, [filled.index(i) for i in right])
    if len(rows) > _MOST_ROWS:
        screen.text(f"and {len(rows) - _MOST_ROWS:,} more (all of them: --json)")
