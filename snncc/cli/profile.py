"""``snncc profile``: what a compiled network does and costs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snncc.cli.files import check_input_file, check_output_file, output_file
from snncc.cli.pictures import check_picture, write_picture
from snncc.cli.report_lines import besides_lines, note_lines
from snncc.cli.screen import (
    Screen,
    file_size,
    human,
    percent,
    plural,
    progress_bar,
    write_json,
)
from snncc.cli.shared_options import PATH, data_option, file_argument, json_option, limit_option
from snncc.errors import UsageError

if TYPE_CHECKING:
    from snncc.runtime.profile.energy import Energy
    from snncc.runtime.profile.folding import Folded
    from snncc.runtime.profile.models import EnergyModel
    from snncc.runtime.profile.profile import Population, Profile

__all__ = ["joules", "model_names", "profile"]

_ENGINES = ("event", "clocked", "integer")
#: Networks of ``runtime.profile.energy`` as the screen calls them.
_NAMES = {
    "snn": "spiking",
    "dense": "dense",
    "quantised": "quantised",
    "quantised_skipping": "skipping zeros",
}
_COMPARED = (
    "dense, quantised, skipping zeros: networks of the same shape that do not spike; quantised has "
    "activations as wide as a spike count, skipping zeros computes nothing where they are 0"
)


def model_names(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
    """Names with commas between; None: none were given."""
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if not all(names):
        raise click.BadParameter(f"'{value}' is not MODEL,MODEL, names of models or files")
    return names


@click.command("profile", short_help="Say what a compiled network does and costs on data.")
@file_argument
@data_option("npz, npy, idx or a folder of images.", required=True)
@limit_option
@click.option(
    "--engine",
    type=click.Choice(_ENGINES),
    default="event",
    show_default=True,
    help="What runs it; all fire the same spikes.",
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
    "--energy",
    "models",
    callback=model_names,
    metavar="MODEL,…",
    help="Models of energy by name, or OWN.toml with models of yours. Default: 45nm-fp32 and "
    "45nm-int8, each with and without +memory.",
)
@click.option(
    "--depth",
    type=click.IntRange(min=0),
    metavar="N",
    help="Fold layers by the first N parts of their module path; 0: the network as a whole.",
)
@click.option(
    "--maps",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Keep all spike counts of the first N samples, for OUT.json and the page.",
)
@click.option("--csv", "as_csv", is_flag=True, help="The table of layers as CSV on stdout.")
@json_option
@click.option("-o", "out", type=PATH, metavar="OUT.json", help="Write the whole profile there.")
@click.option(
    "--plot",
    type=PATH,
    metavar="OUT.png",
    help="Draw firing rates and energy there: .png, .svg or .pdf; needs matplotlib.",
)
@click.option("-f", "--force", is_flag=True, help="Overwrite OUT.json and OUT.png.")
def profile(as_json: bool, as_csv: bool, **given: Any) -> None:
    """Say what a compiled network does and costs on data: spikes, operations, energy.

    A SOP is one spike crossing one synapse; a MAC is a multiply-add, of layers that read pixels.
    The rate is that of spikes per synapse and tick. Energy is told beside that of networks of the
    same shape that do not spike: dense, of full width; and the quantised ANN, whose activations are
    as many bits wide as a spike count, and which may skip zeros. Below the break-even rate the
    spiking network takes less than the quantised ANN. docs/profile.md has every definition.
    """
    chosen = _Chosen(**given)
    if as_json and as_csv:
        raise UsageError("--json and --csv both want stdout; give one, or -o OUT.json")
    _check_paths(chosen)
    with ExitStack() as stack:
        claims = {p: stack.enter_context(output_file(p, chosen.force)) for p in chosen.outputs}
        found, notes = _profiled(chosen)
        if chosen.out is not None:
            claims[chosen.out].write(lambda file: file.write(_document(found)))
        if chosen.plot is not None:
            write_picture(found.plot(), chosen.plot, claims[chosen.plot])
    if as_json:
        write_json(found.to_json())
    elif as_csv:
        click.echo(_csv(found, chosen.depth), nl=False)
    else:
        _show(Screen(), found, chosen, notes)


@dataclass(frozen=True)
class _Chosen:
    """What the command line says; fields as its options."""

    file: Path
    data: Path
    limit: int | None
    engine: str
    batch: int
    models: tuple[str, ...] | None
    depth: int | None
    maps: int
    out: Path | None
    plot: Path | None
    force: bool

    @property
    def outputs(self) -> list[Path]:
        """What is to be written."""
        return [path for path in (self.out, self.plot) if path is not None]


def _check_paths(chosen: _Chosen) -> None:
    """Whatever can fail without work fails before it."""
    _check_models(chosen)
    check_input_file(chosen.file)
    check_input_file(chosen.data, may_be_folder=True)
    if chosen.out is not None:
        check_output_file(chosen.out, chosen.force)
    if chosen.plot is not None:
        check_picture(chosen.plot, "--plot", chosen.force)
    if chosen.out is not None and chosen.out == chosen.plot:
        raise UsageError(f"-o and --plot both write {chosen.out}")


def _check_models(chosen: _Chosen) -> None:
    """They are there; a picture needs one of operations, of which accountings tell nothing."""
    from snncc.runtime.profile.models import DEFAULT_MODELS, models_named

    models = models_named(chosen.models or DEFAULT_MODELS)
    if chosen.plot is not None and all(m.is_published for m in models):
        told = "--plot compares networks under a model such as 45nm-int8; --energy names none"
        raise UsageError(told)


def _profiled(chosen: _Chosen) -> tuple[Profile, tuple[str, ...]]:
    """The profile, and what the samples are taken for."""
    from snncc.runtime.coding import read_data
    from snncc.runtime.masks import MASK
    from snncc.runtime.profile.models import DEFAULT_MODELS
    from snncc.runtime.session import Session

    session = Session(chosen.file, chosen.engine, chosen.batch)
    contract = session.contract
    masks = bool(contract.patches)
    read = read_data(chosen.data, None, contract.sample, chosen.limit, masks=masks)
    x, mask = contract.check(read.x, read.mask, read.origin)
    feed = {contract.name: x} | ({MASK: mask} if mask is not None else {})
    with progress_bar(f"profile on {session.engine}", len(read)) as progress:
        models = chosen.models or DEFAULT_MODELS
        found = session.profile(feed, models, chosen.maps, read.origin, progress)
    return found, tuple(read.notes)


def _document(found: Profile) -> bytes:
    text = json.dumps(found.to_json(), indent=1, allow_nan=False, ensure_ascii=False)
    return f"{text}\n".encode()


# -- the screen ------------------------------------------------------------------------------------


def _show(screen: Screen, found: Profile, chosen: _Chosen, notes: Sequence[str]) -> None:
    screen.line("profile", f"{found.name} on {found.engine}", *_data(found))
    for line in note_lines(notes):
        screen.line(*line)
    _show_totals(screen, found)
    screen.text("")
    _show_populations(screen, found)
    screen.text("")
    _show_layers(screen, found, chosen.depth)
    screen.text("")
    _show_energy(screen, found)
    for path in chosen.outputs:
        screen.line("wrote", str(path))


def _data(found: Profile) -> tuple[str, str]:
    return plural(found.samples, "sample"), found.data


def _show_totals(screen: Screen, found: Profile) -> None:
    spikes, sops = human(found.spikes), human(found.total("sops"))
    rate = percent(_rate(found))
    screen.line("spikes", f"{spikes} per sample, {sops} SOPs", f"rate {rate} per synapse and tick")
    for line in _nsfr_lines(found):
        screen.line(*line)
    effective = f"{human(found.total('acs'))} ACs and {human(found.total('effective_macs'))} MACs"
    dense = human(found.total("dense"))
    screen.line("operations", f"effective {effective}, of {dense} if nothing is skipped")
    for line in besides_lines(found.besides):
        screen.line(*line)
    updates = sum(p.updates for p in found.populations)
    screen.line("neurons", f"{human(updates)} updates", *_bytes(found))
    events = found.events
    per_tick = f"{human(events.mean)} spikes a tick, at most {human(events.peak)}"
    screen.line("events", f"{per_tick}, in {plural(found.clock_ticks, 'tick')}")


def _nsfr_lines(found: Profile) -> Iterator[tuple[str, ...]]:
    """Shares of all neurons that fire, tick by tick; a line for each timestep."""
    clock = f"{percent(found.nsfr_clock)} per clock tick"
    for t, by_tick in enumerate(found.nsfr):
        rates = " ".join(f"{rate:.4f}" for rate in by_tick)
        of = f" in timestep {t}" if len(found.nsfr) > 1 else ""
        yield "NSFR" if t == 0 else "", f"{rates}{of}, of all neurons", clock if t == 0 else ""


def _rate(found: Profile) -> float | None:
    possible = found.total("possible")
    return found.total("sops") / possible if possible else None


def _bytes(found: Profile) -> Iterator[str]:
    state = file_size(sum(layer.state_bytes for layer in found.layers))
    weights = file_size(int(found.total("weight_bytes")))
    yield f"{state} of potentials and {weights} of weights"
    moved = int(sum(layer.state_touched for layer in found.layers))
    read = int(sum(layer.weights_touched for layer in found.layers))
    yield f"{file_size(moved)} and {file_size(read)} of them read and written per sample"


_POPULATION_TAIL = ("spikes/neuron", "nonzero", "saturated", "silent", "SOPs")


def _show_populations(screen: Screen, found: Profile) -> None:
    ticks = max((p.D for p in found.populations), default=0)
    head = ["population", "neurons", *(f"tick {d}" for d in range(ticks)), *_POPULATION_TAIL]
    rows = [_population_row(p, ticks) for p in found.populations]
    screen.table(head, rows, right=range(1, len(head)))


def _population_row(p: Population, ticks: int) -> list[str]:
    by_tick = [sum(step[d] for step in p.nsfr) / len(p.nsfr) for d in range(p.D)]
    cells = [f"{rate:.4f}" for rate in by_tick] + ["-"] * (ticks - p.D)
    shares = (percent(p.nonzero), percent(p.saturated))
    tail = [f"{p.mean_count:.4f}", *shares, f"{p.silent:,}", human(p.sops)]
    return [p.module or p.name, f"{p.neurons:,}", *cells, *tail]


def _show_layers(screen: Screen, found: Profile, depth: int | None) -> None:
    models = [m for m in found.models if not m.is_published]
    head = ["layer", "kind", "synapses", "SOPs", "MACs", "rate"]
    head += [heading for m in models for heading in (m.name, "least")]
    rows = [_layer_row(row, models) for row in _rows(found, depth)]
    right = [i for i, heading in enumerate(head) if heading not in ("layer", "kind", "least")]
    screen.table(head, rows, right)


def _rows(found: Profile, depth: int | None) -> list[Folded]:
    from snncc.runtime.profile.folding import folded

    return folded(found, depth)


def _layer_row(row: Folded, models: Sequence[EnergyModel]) -> list[str]:
    cells = [row.name, row.kind, human(row.work["synapses"]), human(row.work["sops"])]
    cells += [human(row.work["macs"]), _share(row.rate)]
    for m in models:
        energy = row.energy[m.name]
        cells += [joules(energy.snn), _NAMES.get(energy.least or "", "-")]
    return cells


def _share(rate: float | None) -> str:
    return "-" if rate is None else percent(rate)


def joules(picojoules: float | None) -> str:
    """An energy with three digits."""
    if picojoules is None:
        return "-"
    for limit, unit in ((1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ")):
        if picojoules >= limit:
            return f"{picojoules / limit:.3g} {unit}"
    return f"{picojoules:.3g} pJ"


def _show_energy(screen: Screen, found: Profile) -> None:
    from snncc.runtime.profile.energy import formula

    head = ("energy per sample", *_NAMES.values(), "least", "rate")
    rows = [_energy_row(m.name, found.energy[m.name]) for m in found.models]
    right = (1, 2, 3, 4, 6, 7, 8)
    screen.table((*head, "break-even quantised", "break-even skipping zeros"), rows, right)
    screen.text(_COMPARED)
    for m in found.models:
        screen.text("")
        screen.line("model", m.name, m.description)
        for network, text in formula(m).items():
            screen.line("", f"{_NAMES[network]} = {text}")
        for line in m.sources:
            screen.line("", f"source: {line}")


def _energy_row(name: str, energy: Energy) -> list[str]:
    least = _NAMES.get(energy.least or "", "-")
    rates = (energy.rate, energy.break_even, energy.break_even_skipping)
    costs = (energy.snn, energy.dense, energy.quantised, energy.quantised_skipping)
    return [name, *map(joules, costs), least, *map(_share, rates)]


# -- CSV -------------------------------------------------------------------------------------------


def _csv(found: Profile, depth: int | None) -> str:
    """A line for each layer: its counts, then its energies by model."""
    rows = [_csv_row(row) for row in _rows(found, depth)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _csv_row(row: Folded) -> Mapping[str, Any]:
    energies = {
        f"{name} {f.name}": getattr(energy, f.name)
        for name, energy in row.energy.items()
        for f in fields(energy)
    }
    least = {f"{name} least": energy.least for name, energy in row.energy.items()}
    plain = {k: v for k, v in asdict(row).items() if k not in ("work", "energy")}
    return {**plain, **row.work, **energies, **least}
