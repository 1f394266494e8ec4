"""``snncc diff``: what is different between two compiled networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snncc.cli.accuracy import interval
from snncc.cli.files import check_input_file
from snncc.cli.profile import joules, model_names
from snncc.cli.screen import Screen, human, percent, plural, progress_bar, write_json
from snncc.cli.shared_options import PATH, data_option, json_option, limit_option
from snncc.errors import UsageError

if TYPE_CHECKING:
    from snncc.runtime.artifact import CompiledModel
    from snncc.runtime.difference import Difference, Layer, OnData, Pair, Population

__all__ = ["diff"]

_MODELS = ("45nm-int8", "45nm-int8+memory")


@click.command("diff", short_help="Compare two compiled networks.")
@click.argument("a", metavar="A.snn", type=PATH)
@click.argument("b", metavar="B.snn", type=PATH)
@data_option("Run both on it: npz, npy, idx or a folder of samples, as of snncc eval.")
@click.option("--labels", type=PATH, metavar="DATA", help="Classes, if DATA does not hold them.")
@limit_option
@click.option(
    "--engine", default="event", show_default=True, metavar="NAME", help="See snncc engines."
)
@click.option(
    "--energy",
    "models",
    callback=model_names,
    metavar="MODEL,…",
    help="Models of energy by name, or OWN.toml, as of snncc profile.  [default: 45nm-int8 and "
    "45nm-int8+memory]",
)
@json_option
def diff(
    a: Path,
    b: Path,
    data: Path | None,
    labels: Path | None,
    limit: int | None,
    engine: str,
    models: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Compare two compiled networks: options, bits, and on data spikes, SOPs, energy and changes.

    Layers and populations are matched by their torch module path. An activation is changed if its
    spike count differs. The networks may be compiled from different checkpoints, too.
    """
    if data is None and (labels is not None or limit is not None):
        raise UsageError(f"{'--labels' if labels else '--limit'} is given without --input")
    for file in (a, b):
        check_input_file(file)
    if data is not None:
        check_input_file(data, may_be_folder=True)
    from snncc.runtime.artifact import load
    from snncc.runtime.difference import difference

    pair = (load(a), load(b))
    found = difference(*pair)
    energy = models or _MODELS
    ran = None if data is None else _ran(pair, data, labels, limit, engine, energy)
    if as_json:
        write_json(_json((a, b), pair, found, ran))
    else:
        _show(Screen(), (a, b), pair, found, ran)


def _ran(
    models: tuple[CompiledModel, CompiledModel],
    data: Path,
    labels: Path | None,
    limit: int | None,
    engine: str,
    energy: Sequence[str],
) -> OnData:
    from snncc.runtime.data_sets import open_data
    from snncc.runtime.difference import on_data

    contract = models[0].input
    masks = bool(contract.patches)
    with closing(open_data(data, labels, contract.sample, limit, masks)) as opened:
        for model in models:
            model.input.check(*_first(opened), f"{data} (network {model.name})")
        with progress_bar("diff", len(opened)) as progress:
            return on_data(*models, opened, engine, energy, progress)


def _first(opened: Any) -> tuple[Any, Any]:
    part = opened.read(0, 1)
    return part.x, part.mask


# -- the result ----------------------------------------------------------------------------


def _json(
    files: Sequence[Path],
    models: Sequence[CompiledModel],
    found: Difference,
    ran: OnData | None,
) -> dict[str, Any]:
    return {
        "a": {"path": str(files[0]), "name": models[0].name},
        "b": {"path": str(files[1]), "name": models[1].name},
        "options": {name: asdict(pair) for name, pair in found.options.items()},
        "layers": [asdict(layer) for layer in found.layers],
        "populations": [asdict(p) for p in (ran.populations if ran else found.populations)],
        "data": None
        if ran is None
        else {k: v for k, v in ran.to_json().items() if k != "populations"},
    }


def _show(
    screen: Screen,
    files: Sequence[Path],
    models: Sequence[CompiledModel],
    found: Difference,
    ran: OnData | None,
) -> None:
    for letter, file, model in zip("ab", files, models, strict=True):
        screen.line(letter, f"{file}: {model.name}")
    if ran is not None:
        _show_run(screen, ran)
    elif not _differs(found):
        screen.line("same", "options, weights and populations")
    if found.options:
        screen.text("")
        rows = [(name, _text(pair.a), _text(pair.b)) for name, pair in found.options.items()]
        screen.table(("option", "a", "b"), rows)
    screen.text("")
    layers = [
        (layer.module, _both(layer.bits), _both(layer.weights), _changed_weights(layer))
        for layer in found.layers
    ]
    screen.table(("layer", "bits", "weights", "weights changed"), layers, right=(1, 2, 3))
    screen.text("")
    _show_populations(screen, found, ran)


def _differs(found: Difference) -> bool:
    return bool(
        found.options
        or any(n.changed != 0 or n.bits.differs or n.weights.differs for n in found.layers)
        or any(p.neurons.differs or p.ticks.differs for p in found.populations)
    )


def _show_run(screen: Screen, ran: OnData) -> None:
    samples = plural(ran.samples, "sample")
    if ran.other_class is None:
        screen.line("classes", "none: the results are maps", samples)
    else:
        low, high = (f"{100 * share:.2f}" for share in interval(ran.other_class, ran.samples))
        share = percent(ran.other_class / ran.samples)
        told = f"{ran.other_class:,} of {samples} change class, {share}"
        screen.line("classes", f"{told} (95 % interval: {low} to {high} %)")
    if ran.right is not None:
        shares = (f"{count / ran.samples:.2%}".replace("%", " %") for count in ran.right)
        screen.line("top-1", " -> ".join(shares))
    changed = sum(p.changed for p in ran.populations)
    compared = sum(p.compared for p in ran.populations)
    if compared:
        share = percent(changed / compared)
        screen.line("changed", f"{changed:,} of {compared:,} activations, {share}")
    totals = [
        [sum(getattr(p, what)[i] for p in ran.populations) / ran.samples for i in (0, 1)]
        for what in ("spikes", "sops")
    ]
    screen.line("per sample", f"spikes {_two(totals[0])}", f"SOPs {_two(totals[1])}")
    energy = (f"{_two(pj, joules)} ({name})" for name, pj in ran.energy_pj.items())
    screen.line("energy", "per sample", *energy)


def _show_populations(screen: Screen, found: Difference, ran: OnData | None) -> None:
    head = ["population", "neurons", "D"]
    rows = [[p.module, _both(p.neurons), _both(p.ticks)] for p in found.populations]
    if ran is not None:
        head += ["spikes/sample", "SOPs/sample", "changed"]
        rows = [
            row + _on_data(p, ran.samples) for row, p in zip(rows, ran.populations, strict=True)
        ]
    screen.table(head, rows, right=range(1, len(head)))


def _on_data(p: Population, samples: int) -> list[str]:
    figures = []
    for values in (p.spikes, p.sops):
        known = [v / samples for v, has in zip(values, _has(p), strict=True) if has]
        figures.append(_two(known))
    changed = percent(p.changed / p.compared) if p.compared else "-"
    return [*figures, changed]


def _has(p: Population) -> tuple[bool, bool]:
    return p.neurons.a is not None, p.neurons.b is not None


def _two(values: Sequence[float], words: Callable[[float], str] = human) -> str:
    """One figure where both are the same, ``a -> b`` otherwise."""
    return " -> ".join(dict.fromkeys(map(words, values)))


def _both(pair: Pair) -> str:
    if not pair.differs:
        return f"{pair.a:,}"
    return " -> ".join("none" if value is None else f"{value:,}" for value in (pair.a, pair.b))


def _changed_weights(layer: Layer) -> str:
    return "-" if layer.changed is None else f"{layer.changed:,}"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(_text(v) for v in value) or "none"
    return "none" if value is None else str(value)
