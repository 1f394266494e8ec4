"""``snncc run``: run a compiled network on data."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snncc.cli.accuracy import accuracy, accuracy_text
from snncc.cli.files import check_input_file, check_output_file, output_file
from snncc.cli.lava_options import given_options, lava_options, ran_pieces
from snncc.cli.pictures import check_picture, write_picture
from snncc.cli.report_lines import (
    KINDS_OF_RESULTS,
    besides_lines,
    mask_json,
    mask_line,
    note_lines,
)
from snncc.cli.screen import Screen, human, percent, plural, progress_bar, size, write_json
from snncc.cli.shared_options import PATH, data_option, file_argument, json_option, limit_option
from snncc.errors import BadInputError, UsageError

if TYPE_CHECKING:
    import numpy.typing as npt

    from snncc.cli.tally import Tally
    from snncc.runtime.coding import Dataset
    from snncc.runtime.contract import Result
    from snncc.runtime.result import PopulationRates, Rates
    from snncc.runtime.session import Session
    from snncc.runtime.trace import Trace
    from snncc.system.outputs import FileClaim

    Array = npt.NDArray[Any]

__all__ = ["run"]

_FIRST = 20
_MOST_CLASSES = 20
#: Batches simulated between two looks at the rates: bounds the memory they take.
_CHUNK, _SLOW_CHUNK = 8, 32
_OF_EVENT = ("threads", "kernels")


class _Threads(click.IntRange):
    """A number of threads, or ``auto``."""

    def __init__(self) -> None:
        super().__init__(min=1, max=1024)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or ``auto``."""
        if value == "auto":
            return value
        if not str(value).lstrip("+-").isdecimal():
            self.fail(f"'{value}' is neither a number nor auto", param, ctx)
        return super().convert(value, param, ctx)


@click.command("run", short_help="Run a compiled network on data.")
@file_argument
@data_option("npz, npy, idx or a folder of images.", required=True)
@click.option(
    "--labels",
    type=PATH,
    metavar="DATA",
    help="Classes, if DATA does not hold them.",
)
@limit_option
@click.option(
    "--engine", default="clocked", show_default=True, metavar="NAME", help="See snncc engines."
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    metavar="N",
    help="Samples simulated together.",
)
@click.option(
    "--pipelined",
    is_flag=True,
    help="Let a sample enter every D ticks, after the last one; engine clocked.",
)
@click.option(
    "--threads",
    type=_Threads(),
    metavar="N|auto",
    help="Share samples out to N threads, auto: as many as there are processors; engines event, "
    "integer and spike-form.",
)
@click.option(
    "--kernels",
    type=click.Choice(["auto", "event", "dense"]),
    help="Sum event by event, or all inputs of a dense layer at once; engine event, default auto.",
)
@lava_options
@click.option(
    "--probe",
    "probes",
    multiple=True,
    metavar="NAME",
    help="Record spike trains of a population, or potentials of a layer; repeatable, needs -o.",
)
@click.option(
    "-o",
    "out",
    type=PATH,
    metavar="OUT.npz",
    help="Write outputs and probes there.",
)
@click.option(
    "--raster",
    type=PATH,
    metavar="OUT.png",
    help="Draw the spikes of the first sample there: .png, .svg or .pdf; needs matplotlib.",
)
@click.option("-f", "--force", is_flag=True, help="Overwrite OUT.npz and OUT.png.")
@json_option
def run(as_json: bool, **given: Any) -> None:
    """Run a compiled network on data: classes, accuracy, firing rates and synaptic operations.

    A network that takes patch masks finds them in npz files as "mask", [N, 1, h, w], 1 for an
    active patch; without, all patches are active.

    NSFR is the fraction of a population's neurons that fire in a tick; a SOP is one spike crossing
    one synapse.
    """
    chosen = _chosen(given)
    _check_paths(chosen)
    out, raster = chosen.out, chosen.raster
    with ExitStack() as stack:
        claims = {p: stack.enter_context(output_file(p, chosen.force)) for p in chosen.outputs}
        from snncc.runtime.session import Session

        session = Session(chosen.file, chosen.engine, chosen.batch, **chosen.options)
        read = _read(chosen, session)
        start = time.perf_counter()
        tally = _simulate(session, read, chosen.probes)
        seconds = time.perf_counter() - start
        found = _result(session, read, tally, seconds)
        results = _results_table(session, tally)
        if out is not None:
            _write(tally, session, claims[out])
            found["path"] = str(out)
        if raster is not None:
            write_picture(_first_trace(session, read).plot_raster(), raster, claims[raster])
            found["raster"] = str(raster)
    found |= _told_by_engine(session, tally, is_pipelined="pipelined" in chosen.options)
    if as_json:
        write_json(found)
    else:
        _show(Screen(), found, tally.rates(), results)


@dataclass(frozen=True)
class _Chosen:
    """What the command line says; fields as its options.

    Attributes:
        options: Of the engine, as far as they are given.
    """

    file: Path
    data: Path
    labels: Path | None
    limit: int | None
    engine: str
    batch: int
    probes: tuple[str, ...]
    out: Path | None
    raster: Path | None
    force: bool
    options: dict[str, Any]

    @property
    def outputs(self) -> list[Path]:
        """What is to be written."""
        return [path for path in (self.out, self.raster) if path is not None]


def _chosen(given: dict[str, Any]) -> _Chosen:
    mine = {f.name: given.pop(f.name) for f in fields(_Chosen) if f.name != "options"}
    engines = {"pipelined": given["pipelined"] or None, **{k: given[k] for k in _OF_EVENT}}
    options = {name: value for name, value in engines.items() if value is not None}
    return _Chosen(**mine, options=options | given_options(given))


def _check_paths(chosen: _Chosen) -> None:
    """Whatever can fail without work fails before it."""
    if chosen.probes and chosen.out is None:
        raise UsageError("--probe records into a file; give -o OUT.npz")
    check_input_file(chosen.file)
    check_input_file(chosen.data, may_be_folder=True)
    if chosen.labels is not None:
        check_input_file(chosen.labels)
    if chosen.out is not None:
        check_output_file(chosen.out, chosen.force)
    if chosen.raster is not None:
        check_picture(chosen.raster, "--raster", chosen.force)
    if chosen.out is not None and chosen.out == chosen.raster:
        raise UsageError(f"-o and --raster both write {chosen.out}")


def _read(chosen: _Chosen, session: Session) -> Dataset:
    """The samples, all of them checked before any is run."""
    from snncc.runtime.coding import read_data

    contract, labels = session.contract, chosen.labels
    masks = bool(contract.patches)
    read = read_data(chosen.data, labels, contract.sample, chosen.limit, masks=masks)
    x, mask = contract.check(read.x, read.mask, read.origin)
    read = replace(read, x=x, mask=mask if read.mask is not None else None)
    _check_labels(read, session, labels)
    return read


def _classes(session: Session) -> int:
    """How many classes a result scores; 0 if none does."""
    found = _class_result(session)
    return found.shape[0] if found is not None else 0


def _class_result(session: Session) -> Result | None:
    from snncc.runtime.contract import class_result

    return class_result(session.model.results)


def _check_labels(read: Dataset, session: Session, labels: Path | None) -> None:
    classes = _classes(session)
    if read.y is not None and classes and read.y.max() >= classes:
        where = read.origin if labels is None else labels
        raise BadInputError(f"{where}: label {read.y.max()}, but the network has {classes} classes")


def _simulate(session: Session, read: Dataset, probes: Sequence[str]) -> Tally:
    from snncc.cli.tally import Tally

    tally = Tally(session.model.program)
    with progress_bar(f"run on {session.engine}", len(read)) as progress:
        chunk = _SLOW_CHUNK if session.starts_slowly else _CHUNK
        for feed in _feeds(read, session, session.batch * chunk):
            tally.add(session.trace(feed, probes, progress))
    return tally


def _first_trace(session: Session, read: Dataset) -> Trace:
    """The first sample once more: of a whole run no spike counts are kept."""
    return session.trace(next(_feeds(read, session, 1)))


def _feeds(read: Dataset, session: Session, length: int) -> Iterator[dict[str, Array]]:
    from snncc.runtime.masks import MASK

    arrays = {session.contract.name: read.x}
    if read.mask is not None:
        arrays[MASK] = read.mask
    for start in range(0, len(read), length):
        yield {name: array[start : start + length] for name, array in arrays.items()}


def _write(tally: Tally, session: Session, claim: FileClaim) -> None:
    """Outputs as real numbers, and what the probes recorded."""
    from snncc.runtime.coding import write_arrays

    integers = tally.readouts()
    arrays: dict[str, Array] = {
        f"output.{result.name}": result.real(integers) for result in session.model.results
    }
    arrays |= {f"spikes.{k}": v for k, v in tally.spikes().items()}
    arrays |= {f"potential.{k}": v for k, v in tally.potentials().items()}
    claim.write(lambda file: write_arrays(file, arrays))


# -- the result ----------------------------------------------------------------------------


def _result(session: Session, read: Dataset, tally: Tally, seconds: float) -> dict[str, Any]:
    from snncc.runtime.contract import class_scores

    rates = tally.rates()
    found: dict[str, Any] = {
        "name": session.model.name,
        "engine": session.engine,
        "data": read.origin,
        "samples": len(read),
        "seconds": round(seconds, 3),
        "samples_per_second": round(len(read) / max(seconds, 1e-9), 1),
        "outputs": {r.name: list(r.shape) for r in session.model.results},
        "class_of": None,
        "predictions": None,
        "accuracy": None,
        "standard_error": None,
        "interval": None,
        "sops_per_sample": rates.sops / len(read),
        "spikes_per_sample": rates.spikes / len(read),
        "besides_sops_per_sample": dict(session.model.program.besides),
        "rates": rates.to_json(),
    }
    if (result := _class_result(session)) is not None:
        found["class_of"] = result.name
        classes = class_scores(result, tally.readouts()).argmax(axis=1)
        found["predictions"] = classes.tolist()
        if read.y is not None:
            found |= accuracy(classes, read.y)
    if mask := mask_json(session.model, read):
        found["mask"] = mask
    return found | ({"notes": list(read.notes)} if read.notes else {})


def _told_by_engine(session: Session, tally: Tally, is_pipelined: bool) -> dict[str, Any]:
    """What the engine says of the run that others cannot."""
    found: dict[str, Any] = {}
    if is_pipelined:
        found["clock"] = _clock(session, tally)
    if (share := session.event_share) is not None:
        found["event_share"] = round(share, 4)
    if (ran := session.run_report) is not None:
        found["ran"] = ran
    return found


def _clock(session: Session, tally: Tally) -> dict[str, int | float]:
    """How long simulated time was; samples that are simulated together have a network each."""
    program, samples = session.model.program, tally.rates().samples
    networks = min(session.batch, samples)
    return {
        "ticks": tally.ticks,
        "networks": networks,
        "ticks_per_sample": tally.ticks * networks / samples,
        "interval": program.ticks * program.timesteps,
        "latency": program.latency + (program.timesteps - 1) * program.ticks,
    }


def _show(
    screen: Screen, found: Mapping[str, Any], rates: Rates, results: Sequence[list[str]]
) -> None:
    screen.line("ran", f"{found['name']} on {found['engine']}", _count(found), found["data"])
    for line in note_lines(found.get("notes", ())):
        screen.line(*line)
    if mask := found.get("mask"):
        screen.line(*mask_line(mask))
    if found["predictions"] is not None:
        which = f"by {found['class_of']}" if len(found["outputs"]) > 1 else ""
        screen.line("accuracy", accuracy_text(found), which)
        _show_classes(screen, found["predictions"])
    else:
        outputs = (f"{name} {size(shape)}" for name, shape in found["outputs"].items())
        screen.line("outputs", ", ".join(outputs), "not class scores")
    rate, seconds = found["samples_per_second"], found["seconds"]
    screen.line("speed", f"{rate:.0f} samples/s", f"{seconds:.1f} s")
    if clock := found.get("clock"):
        screen.line("clock", *_clock_texts(clock))
    if (share := found.get("event_share")) is not None:
        screen.line("kernels", f"{percent(share)} of synaptic work event by event, the rest dense")
    if ran := found.get("ran"):
        screen.line("lava", *ran_pieces(ran))
    spikes, sops = human(found["spikes_per_sample"]), human(found["sops_per_sample"])
    screen.line("activity", f"{spikes} spikes and {sops} SOPs per sample (SOPs without the input)")
    for line in besides_lines(found["besides_sops_per_sample"]):
        screen.line(*line)
    for key in ("path", "raster"):
        if path := found.get(key):
            screen.line("wrote", path)
    screen.text("")
    if results:
        screen.table(_RESULT_HEAD, results, right=(3, 4, 5))
        screen.text("")
    head, rows = _rates_table(rates)
    screen.table(head, rows, right=range(1, len(head)))
    if silent := [p.module or p.name for p in rates.populations if not p.spikes]:
        screen.text(f"silent: {', '.join(silent)}")


def _clock_texts(clock: Mapping[str, Any]) -> Iterator[str]:
    yield f"{clock['ticks_per_sample']:.4g} ticks per sample"
    each = plural(clock["networks"], "network")
    yield f"{clock['ticks']:,} ticks of {each}, a sample every {clock['interval']}"
    yield f"latency {clock['latency']}"


def _count(found: Mapping[str, Any]) -> str:
    return plural(found["samples"], "sample")


def _show_classes(screen: Screen, predictions: Sequence[int]) -> None:
    counts = Counter(predictions)
    shown = [c for c, _ in counts.most_common(_MOST_CLASSES)]
    more = f"and {len(counts) - len(shown)} more classes" if len(counts) > len(shown) else ""
    screen.line("classes", "  ".join(f"{c}: {counts[c]}" for c in sorted(shown)), more)
    first = " ".join(str(c) for c in predictions[:_FIRST])
    screen.line("first", first + (" …" if len(predictions) > _FIRST else ""))


_RESULT_HEAD = ("result", "numbers", "what", "nonzero", "smallest", "largest")


def _results_table(session: Session, tally: Tally) -> list[list[str]]:
    """Of each of several results what it holds; nothing of a single one."""
    results, integers = session.model.results, tally.readouts()
    return [_result_row(r, r.real(integers)) for r in results] if len(results) > 1 else []


def _result_row(result: Result, values: Array) -> list[str]:
    steps = f"{len(values)} of " if values.ndim > len(result.shape) + 1 else ""
    head = [result.name, f"{steps}{size(result.shape)}", KINDS_OF_RESULTS[result.kind]]
    return [
        *head,
        percent(float((values != 0).mean())),
        f"{values.min():.4g}",
        f"{values.max():.4g}",
    ]


def _rates_table(rates: Rates) -> tuple[list[str], list[list[str]]]:
    ticks = max((p.ticks for p in rates.populations), default=0)
    head = ["population", "neurons", *(f"tick {d}" for d in range(ticks))]
    head += ["spikes/neuron", "saturated", "silent", "SOPs/sample"]
    return head, [_rates_row(p, ticks, rates.samples) for p in rates.populations]


def _rates_row(p: PopulationRates, ticks: int, samples: int) -> list[str]:
    by_tick = [sum(step[d] for step in p.nsfr) / len(p.nsfr) for d in range(p.ticks)]
    cells = [f"{rate:.4f}" for rate in by_tick] + ["-"] * (ticks - p.ticks)
    tail = [f"{p.mean_count:.4f}", percent(p.saturated), f"{p.silent:,}", human(p.sops / samples)]
    return [p.module or p.name, f"{p.neurons:,}", *cells, *tail]
