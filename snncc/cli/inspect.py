"""``snncc inspect``: what is in a ``.snn`` file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snncc.cli import report_lines, tables
from snncc.cli.files import check_input_file, check_output_file, write_file
from snncc.cli.screen import Screen, file_size, plural, printable, progress_bar, size, write_json
from snncc.cli.shared_options import PATH, data_option, file_argument
from snncc.errors import UsageError
from snncc.ir.names import RESULT

if TYPE_CHECKING:
    from snncc.runtime.artifact import CompiledModel
    from snncc.runtime.contract import Output
    from snncc.runtime.report import Observed

__all__ = ["inspect_"]

_VIEWS = ("summary", "graph", "neurons", "weights", "passes", "bounds", "resources", "diff")
_STAGES = ("imported", "integer", "quantised", "spiking")
_FROM, _TO = "quantised", "spiking"


#: The line "\b" keeps click from filling the lines that follow.
_HELP = """Show what is in a compiled network.

\b
summary    what the compiler did and measured; populations
graph      the ONNX graph of a stage, one node a line
neurons    levels, changes and saturation per population
weights    slices, shift, range, zeros and fan-in per projection
passes     what each pass rewrote and how it was checked
bounds     proved and observed range of every membrane potential, and bits left
resources  what the network would take of a chip (loihi2), under an assumed layout
diff       two stages as a unified diff

With --html all of it is written as one page for a browser, which needs no network.
"""


@click.command("inspect", help=_HELP, short_help="Show what is in a .snn file.")
@file_argument
@click.argument("view", metavar="[VIEW]", type=click.Choice(_VIEWS), default="summary")
@click.option(
    "--stage", type=click.Choice(_STAGES), help=f"Which graph. Default: {_STAGES[-1]}. (graph)"
)
@click.option("--from", "before", type=click.Choice(_STAGES), help=f"Default: {_FROM}. (diff)")
@click.option("--to", "after", type=click.Choice(_STAGES), help=f"Default: {_TO}. (diff)")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["text", "json", "onnx"]),
    default="text",
    show_default=True,
    help="onnx only with graph and -o.",
)
@data_option(
    "Observe potentials on it: npz, npy, idx or a folder. Default: what the compiler saw. (bounds)"
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only its first N samples.")
@click.option(
    "--html", "html", type=PATH, metavar="FILE", help="Write a page that shows all of it there."
)
@click.option(
    "--profile",
    type=PATH,
    metavar="FILE",
    help="What 'snncc profile -o FILE' wrote: activity, operations and energy. (--html)",
)
@click.option("-o", "out", type=PATH, metavar="FILE", help="Write there, not to stdout.")
@click.option("-f", "--force", is_flag=True, help="Overwrite FILE.")
def inspect_(
    file: Path,
    view: str,
    stage: str | None,
    before: str | None,
    after: str | None,
    kind: str,
    data: Path | None,
    limit: int | None,
    html: Path | None,
    profile: Path | None,
    out: Path | None,
    force: bool,
) -> None:
    """Show a view of the file."""
    if profile is not None and html is None:
        raise UsageError("--profile belongs to --html")
    if html is not None:
        _check_alone(view, stage, before, after, kind, data, limit, out)
        _write_page(file, html, profile, force)
        return
    _check_options(view, stage, before, after, kind, out)
    _check_data(view, data, limit)
    check_input_file(file)
    if out is not None:
        check_output_file(out, force)
    from snncc.runtime.artifact import load

    model = load(file)
    if data is not None:
        report = replace(model.report, observed=_observed(model, data, limit))
        model = replace(model, reported=report)
    if kind == "onnx" and out is not None:
        _write_onnx(model, stage or _STAGES[-1], out, force)
    elif view in ("graph", "diff"):
        stages = (before or _FROM, after or _TO) if view == "diff" else (stage or _STAGES[-1],)
        _emit(tables.graph_text(model, *stages), view, kind, out, force)
    else:
        _show_view(model, view, kind, out, force)


def _check_options(
    view: str,
    stage: str | None,
    before: str | None,
    after: str | None,
    kind: str,
    out: Path | None,
) -> None:
    if stage is not None and view != "graph":
        raise UsageError("--stage belongs to the view 'graph'")
    if (before or after) and view != "diff":
        raise UsageError("--from and --to belong to the view 'diff'")
    if kind == "onnx" and (view != "graph" or out is None):
        raise UsageError(
            "--format onnx writes the graph of a stage: inspect FILE graph -o OUT.onnx"
        )


def _check_alone(view: str, *others: object) -> None:
    """The page shows every view: no option that chooses one belongs to it."""
    if view != _VIEWS[0] or any(other not in (None, "text") for other in others):
        raise UsageError("--html writes a page with all views: only --profile and -f belong to it")


def _write_page(file: Path, html: Path, profile: Path | None, force: bool) -> None:
    check_input_file(file)
    if profile is not None:
        check_input_file(profile)
    check_output_file(html, force)
    from snncc.cli.page import page
    from snncc.cli.page.profiles import read_profile
    from snncc.runtime.artifact import load

    model = load(file)
    known = read_profile(profile, model) if profile is not None else None
    data = page(model, known)
    write_file(html, data, force)
    Screen().line("wrote", str(html), file_size(len(data)))


def _check_data(view: str, data: Path | None, limit: int | None) -> None:
    if data is not None and view != "bounds":
        raise UsageError("--input belongs to the view 'bounds'")
    if data is None and limit is not None:
        raise UsageError("--limit is given without --input")
    if data is not None:
        check_input_file(data, may_be_folder=True)


def _observed(model: CompiledModel, data: Path, limit: int | None) -> Observed:
    from snncc.runtime.bounds import observe
    from snncc.runtime.coding import read_data

    masks = bool(model.input.patches)
    read = read_data(data, shape=model.input.sample, limit=limit, masks=masks)
    with progress_bar("observe", len(read.x)) as progress:
        found = observe(model, model.input.encode(read.x, read.mask, read.origin), progress)
    return replace(found, notes=tuple(read.notes))


def _write_onnx(model: CompiledModel, stage: str, out: Path, force: bool) -> None:
    proto = tables.graph_of(model, stage)
    write_file(out, proto.SerializeToString(deterministic=True), force)
    if tables.statistics_of(proto):
        Screen(to_stderr=True).text(
            f"weights of stage '{stage}' are not stored, they are inputs of {out}; "
            "compile with --keep-stages to have them"
        )


def _emit(text: str, view: str, kind: str, out: Path | None, force: bool) -> None:
    if out is not None:
        write_file(out, text.encode(), force)
    elif kind == "json":
        write_json({view: text.splitlines()})
    else:
        click.echo(printable(text), nl=False)


def _json(model: CompiledModel, view: str) -> dict[str, Any]:
    from snncc.runtime.report import encode

    if view == "summary":
        return _summary_json(model)
    return {view: encode(tables.demand(model)) if view == "resources" else tables.rows(model, view)}


def _show_view(model: CompiledModel, view: str, kind: str, out: Path | None, force: bool) -> None:
    if kind == "json":
        write_json(_json(model, view))
        return
    lines = _LINES[view](model) if view in _LINES else []
    head, rows, right = tables.texts(model, "neurons" if view == "summary" else view)
    screen = Screen()  # nothing is shown of a file that turns out malformed
    for line in lines:
        screen.line(*line)
    screen.table(head, rows, right)


# -- the summary ---------------------------------------------------------------------------


def _summary_json(model: CompiledModel) -> dict[str, Any]:
    reference = model.reference
    return {
        **{k: v for k, v in model.manifest.items() if k != "members"},
        "report": model.report.to_json(),
        "results": [result.to_json() for result in model.results],
        "besides_sops_per_sample": dict(model.program.besides),
        "neurons": tables.rows(model, "neurons"),
        "stages": _stages(model),
        "reference_samples": len(reference.x) if reference is not None else 0,
    }


def _stages(model: CompiledModel) -> dict[str, str]:
    """Stage -> what is stored of its weights."""
    return {
        stage: "statistics" if tables.statistics_of(model.graphs[stage]) else "weights"
        for stage in _STAGES
        if stage in model.graphs
    }


def _summary(model: CompiledModel) -> list[tuple[str, ...]]:
    reference = model.reference
    samples = plural(len(reference.x) if reference is not None else 0, "reference sample")
    stages = ", ".join(f"{stage} ({held})" for stage, held in _stages(model).items())
    tools = model.manifest.get("tools") or {}
    return [
        ("name", model.name),
        *report_lines.all_lines(model),
        *(_output(output) for output in model.outputs),
        *_sums(model),
        ("stored", samples, f"graphs: {stages}"),
        ("made by", ", ".join(f"{name} {version}" for name, version in tools.items())),
        ("",),
    ]


def _seen(model: CompiledModel) -> list[tuple[str, ...]]:
    """What potentials were observed on."""
    found = model.report.observed
    on = plural(found.samples, "sample") if found else "nothing yet; give --input DATA"
    notes = report_lines.note_lines(found.notes) if found else []
    return [("observed", f"on {on}"), *notes, ("",)]


def _demand(model: CompiledModel) -> list[tuple[str, ...]]:
    """What the network takes of the chip as a whole."""
    found = tables.demand(model)
    limits = found.limits
    return [
        ("target", *report_lines.target_pieces(found)),
        (
            "limits",
            f"{limits.cores} cores of {limits.neurons_per_core:,} neurons and "
            f"{limits.synapse_bytes_per_core // 1024} KB of synapses each, assumed",
        ),
        ("layout", f"assumed, not tried on silicon: {found.layout}"),
        ("",),
    ]


_LINES = {"summary": _summary, "bounds": _seen, "resources": _demand}


def _output(output: Output) -> tuple[str, str]:
    kind = "membrane potentials" if output.kind == "potential" else "spike counts"
    host = f", then {output.host} on the host: {size(output.real_shape)}" if output.host else ""
    name = output.name.removesuffix(RESULT)
    return "output", f"{name}: {size(output.shape)} {kind}, times {output.scale:.4g}{host}"


def _sums(model: CompiledModel) -> list[tuple[str, ...]]:
    """What the host adds up."""
    joined = [result for result in model.results if len(result.parts) > 1]
    return [("result", f"{r.name} = {' + '.join(p.name for p in r.parts)}") for r in joined]
