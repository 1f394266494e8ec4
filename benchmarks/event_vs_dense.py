"""Times the event engine against dense inference and a spiking library, in one run.

Networks of integer weights are built directly as Programs, so that every engine computes the same
integers; outputs are compared before anything is timed. Ratios are their time / ours.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import click

from snncc.backends.engines import ENGINES
from snncc.cli.screen import Screen, spinner, write_json
from snncc.errors import BadInputError, MissingDependencyError, SnnccError, UsageError
from versus.cases import SECTIONS, Case, quick
from versus.machine import machine
from versus.memory import measure_memory
from versus.plot import draw
from versus.report import document, show
from versus.trial import Result, Settings, run_case

__all__ = ["main"]

_QUICK_SECONDS = 3.0


@click.command(context_settings={"show_default": True, "max_content_width": 100})
@click.option("--engine", default="event", help="Ours: event or clocked.")
@click.option(
    "--kernels",
    type=click.Choice(["auto", "event", "dense"]),
    help="Of the event engine. Default: its own choice.",
)
@click.option("--threads", default=1, type=click.IntRange(min=1), help="Of everything.")
@click.option("--batch", default=1, type=click.IntRange(min=1), help="Samples per call.")
@click.option(
    "--only", multiple=True, type=click.Choice(list(SECTIONS)), help="Sections; default: all."
)
@click.option(
    "--seconds", default=4.0, type=click.FloatRange(min=0), help="Of measuring, per case."
)
@click.option("--memory", is_flag=True, help="Also measure peak memory.")
@click.option("--quick", "is_quick", is_flag=True, help="W1 against ONNX Runtime, in seconds.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, no tables.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for event_vs_dense.json and .png. Default: build/benchmarks; --quick: none.",
)
def main(
    engine: str,
    kernels: str | None,
    threads: int,
    batch: int,
    only: tuple[str, ...],
    seconds: float,
    memory: bool,
    is_quick: bool,
    as_json: bool,
    out: Path | None,
) -> None:
    """Time the event engine against what a user would run instead."""
    if is_quick and only:
        raise click.UsageError("--quick has cases of its own; leave out --only")
    options = {} if kernels is None else {"kernels": kernels}
    duration = min(seconds, _QUICK_SECONDS) if is_quick else seconds
    settings = Settings(engine, options, threads, batch, duration)
    try:
        _check_engine(engine)
        folder = _folder(out, is_quick)
        cases = quick() if is_quick else _chosen(only)
        results, skipped = _run(cases, settings)
        footprint = measure_memory(engine) if memory else None
    except SnnccError as e:
        Screen(to_stderr=True).error(str(e))
        sys.exit(e.exit_code)
    found = document(machine(), settings, results, skipped, footprint)
    if as_json:
        write_json(found)
    else:
        show(Screen(), found)
    if folder is not None:
        _write(found, folder)


def _check_engine(name: str) -> None:
    """Before anything is built."""
    if name not in ENGINES:
        raise UsageError(f"unknown engine '{name}'; there are {', '.join(ENGINES)}")


def _folder(out: Path | None, is_quick: bool) -> Path | None:
    """Where results go; it is made before anything is measured.

    Raises:
        BadInputError: It cannot be made.
    """
    if out is None and is_quick:
        return None
    folder = out or Path("build") / "benchmarks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise BadInputError(f"{folder}: cannot be made ({e.strerror})") from e
    return folder


def _chosen(only: Iterable[str]) -> Iterator[Case]:
    return chain.from_iterable(SECTIONS[name]() for name in list(only) or SECTIONS)


def _run(cases: Iterable[Case], settings: Settings) -> tuple[list[Result], dict[str, str]]:
    """Results, and why there is none of some.

    Raises:
        SnnccError: Our engine cannot be had, or is wrong.
    """
    results, skipped = [], {}
    with spinner() as say:
        for case in cases:
            say(f"{case.section} {case.key}")
            try:
                results.append(run_case(case, settings))
            except MissingDependencyError as e:
                if case.section != "examples":
                    raise
                skipped[f"{case.section} {case.key}"] = str(e)
    return results, skipped


def _write(found: dict[str, Any], folder: Path) -> None:
    """The document, and its picture if that can be drawn."""
    log = Screen(to_stderr=True)
    path = folder / "event_vs_dense.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    log.line("wrote", str(path))
    try:
        draw(found, path.with_suffix(".png"))
        log.line("wrote", str(path.with_suffix(".png")))
    except MissingDependencyError as e:
        log.line("note", str(e))


if __name__ == "__main__":
    main()
