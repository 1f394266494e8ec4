"""``snncc verify``: do all engines fire the same spikes?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snncc.cli.files import check_input_file
from snncc.cli.flags import in_flags
from snncc.cli.lava_options import given_options, lava_options, ran_pieces
from snncc.cli.report_lines import fired, mask_json, mask_line, note_lines
from snncc.cli.screen import Screen, plural, progress_bar, write_json
from snncc.cli.shared_options import data_option, file_argument, json_option, limit_option
from snncc.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from snncc.runtime.artifact import CompiledModel
    from snncc.runtime.result import Mismatch
    from snncc.runtime.verify import Verification

__all__ = ["verify_"]

_MISMATCH = 5
_DEFAULT = "clocked,event,spike-form"
_LENIENT = (_DEFAULT, "all")
_MOST_ROWS = 20


@click.command("verify", short_help="Compare the spikes of all engines.")
@file_argument
@click.option(
    "--engines",
    default=_DEFAULT,
    show_default=True,
    metavar="NAMES",
    help="With commas between, or 'all' that can run here.",
)
@data_option("npz, npy, idx or a folder of images. Default: the samples in the file.")
@limit_option
@lava_options
@json_option
def verify_(
    file: Path,
    engines: str,
    data: Path | None,
    limit: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Recompute the spikes of a compiled network and compare every engine with them.

    The baseline, integer, is computed anew and compared with the vectors in the file; then each
    engine with it: counts, spike trains tick by tick, and readouts. Exit code 5 if any differs.
    A network that takes patch masks finds them in npz files as "mask", as snncc run does.
    """
    check_input_file(file)
    if data is not None:
        check_input_file(data, may_be_folder=True)
    from snncc.runtime.artifact import load

    model = load(file)
    names, absent = _engines(engines, model)
    options = given_options(given)
    if options and "lava" not in names:
        names_given = ", ".join(f"--{name.replace('_', '-')}" for name in options)
        raise UsageError(f"{names_given}: of engine lava, which is not among --engines")
    samples, told = _samples(model, data, limit)
    found = _verify(model, samples, names, {"lava": options})
    if as_json:
        head = {"path": str(file), "name": model.name, **told}
        write_json({**head, **found.to_json(), "not_run": absent})
    else:
        _show(Screen(), found, absent, told, [result.name for result in model.results])
    if found.mismatched:
        raise click.exceptions.Exit(_MISMATCH)


def _engines(given: str, model: CompiledModel) -> tuple[list[str], dict[str, str]]:
    """The engines to compare; of ``all`` and of the default those not run, with the reason."""
    from snncc.backends.engines import ENGINES

    others = [name for name in ENGINES if name != "integer"]
    names = others if given == "all" else list(dict.fromkeys(n.strip() for n in given.split(",")))
    if unknown := [name for name in names if name not in ENGINES]:
        known = ", ".join(ENGINES)
        raise UsageError(f"--engines: no engine '{unknown[0]}'; there are {known}, or all")
    absent = {n: ENGINES[n].refusal(model.program) for n in names} if given in _LENIENT else {}
    if given == "all":
        absent = {n: absent[n] or ENGINES[n].unavailable for n in names}
    absent = {name: in_flags(why) for name, why in absent.items() if why}
    return [name for name in names if name not in absent], absent


def _samples(
    model: CompiledModel, data: Path | None, limit: int | None
) -> tuple[npt.NDArray[np.uint8] | None, dict[str, Any]]:
    """Integers of the source, None for all those in the file; and what is to be told of them."""
    if data is not None:
        from snncc.runtime.coding import read_data

        takes_mask = bool(model.input.patches)
        read = read_data(data, shape=model.input.sample, limit=limit, masks=takes_mask)
        told = {"notes": list(read.notes), "mask": mask_json(model, read)}
        return model.input.encode(read.x, read.mask, read.origin), {
            k: v for k, v in told.items() if v
        }
    if limit is None or model.reference is None:
        return None, {}
    return model.reference.x[:limit], {}


def _verify(
    model: CompiledModel,
    x: npt.NDArray[np.uint8] | None,
    names: list[str],
    options: dict[str, dict[str, Any]],
) -> Verification:
    from snncc.runtime.verify import verify

    stored = model.reference.x if model.reference is not None else ()
    samples = len(x if x is not None else stored)
    compared = sum(name != "integer" for name in names)
    with progress_bar("verify", samples * compared) as progress:
        return verify(model, x, names, progress, options)


# -- the result ----------------------------------------------------------------------------


def _show(
    screen: Screen,
    found: Verification,
    absent: dict[str, str],
    told: dict[str, Any],
    results: list[str],
) -> None:
    stored = sum(m.mismatched for m in found.stored)
    against = f"{stored:,} differ from the vectors" if found.stored else "there are no vectors"
    samples = plural(found.samples, "sample")
    screen.line("integer", f"baseline, {samples}; recomputed, {against} in the file")
    for line in note_lines(told.get("notes", ())):
        screen.line(*line)
    if mask := told.get("mask"):
        screen.line(*mask_line(mask))
    also = f"results {', '.join(results)}, " if len(results) > 1 else ""
    for name, verdict in found.engines.items():
        screen.line(
            name,
            f"{plural(verdict.populations, 'population')}, {plural(verdict.spikes, 'spike')}, "
            f"{also}{verdict.mismatched:,} mismatched",
            *(ran_pieces(verdict.ran) if verdict.ran else ()),
        )
    for name, why in absent.items():
        screen.line(name, f"not run: {why}")
    screen.line("coverage", fired(found.coverage), _levels(found))
    differences = [("integer", m) for m in found.stored if m.mismatched]
    differences += [(name, m) for name, v in found.engines.items() for m in v.worst.values()]
    if differences:
        _show_differences(screen, differences)


def _levels(found: Verification) -> str:
    levels = found.coverage.levels.values()
    highest = sum(reached == D for reached, D in levels)
    return f"{highest}/{len(levels)} reached their highest level"


def _show_differences(screen: Screen, differences: list[tuple[str, Mismatch]]) -> None:
    Screen(to_stderr=True).error("engines disagree; first differences:")
    head = ("engine", "population", "what", "differ", "sample", "channel", "position", "tick")
    rows = [_difference(engine, m) for engine, m in differences[:_MOST_ROWS]]
    screen.table((*head, "expected", "got"), rows, right=(3,))
    if len(differences) > _MOST_ROWS:
        screen.text(f"and {len(differences) - _MOST_ROWS:,} more (all of them: --json)")


def _difference(engine: str, m: Mismatch) -> tuple[str, ...]:
    head = (engine, m.name, m.kind, f"{m.mismatched:,} of {m.total:,}")
    if m.first is None:
        return (*head, *("-",) * 5, m.note or "-")
    first: Any = m.first
    position = ",".join(str(i) for i in first.position) or "-"
    tick = "-" if first.tick is None else str(first.tick)
    place = (str(first.sample), str(first.channel), position, tick)
    return (*head, *place, str(first.expected), str(first.got))
