"""The views of ``snncc inspect`` as rows of plain data, and how each column is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from difflib import unified_diff
from math import prod
from typing import TYPE_CHECKING, Any

from snncc.cli.screen import percent, size
from snncc.errors import BadInputError

if TYPE_CHECKING:
    import onnx

    from snncc.program import Projection
    from snncc.runtime.artifact import CompiledModel
    from snncc.runtime.report import TargetReport

__all__ = ["demand", "graph_of", "graph_text", "rows", "statistics_of", "texts"]

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]  # heading, cell; a heading that ends in ">": numbers


# -- neurons -------------------------------------------------------------------------------


def _neurons(model: CompiledModel) -> list[Row]:
    measured = {layer.population: layer for layer in model.report.layers}
    return [
        {
            "module": neuron.module or neuron.name,
            "population": neuron.name,
            "shape": list(neuron.shape),
            "neurons": prod(neuron.shape),
            "D": neuron.D,
            "norm": neuron.norm,
            "rounding": neuron.rounding,
            "window": neuron.depth,
            "first_level": [int(neuron.levels[:, 0].min()), int(neuron.levels[:, 0].max())],
            "last_level": [int(neuron.levels[:, -1].min()), int(neuron.levels[:, -1].max())],
            "changed": measured[neuron.name].changed,
            "changed_teacher_forced": measured[neuron.name].changed_teacher_forced,
            "saturated": measured[neuron.name].saturated,
            "ties": measured[neuron.name].ties,
        }
        for neuron in model.program.neurons
    ]


_NEURON_COLUMNS: tuple[Column, ...] = (
    ("module", lambda r: r["module"]),
    ("shape", lambda r: size(r["shape"])),
    ("D>", lambda r: str(r["D"])),
    ("rounding", lambda r: r["rounding"]),
    ("window>", lambda r: str(r["window"])),
    ("first level>", lambda r: _range(r["first_level"])),
    ("last level>", lambda r: _range(r["last_level"])),
    ("changed>", lambda r: percent(r["changed"])),
    ("by own weights>", lambda r: percent(r["changed_teacher_forced"])),
    ("saturated>", lambda r: percent(r["saturated"])),
)


def _range(pair: list[int]) -> str:
    low, high = pair
    return f"{low:,}" if low == high else f"{low:,}..{high:,}"


# -- weights -------------------------------------------------------------------------------


def _weights(model: CompiledModel) -> list[Row]:
    return [
        _projection(model, accumulator.module or accumulator.name, projection)
        for accumulator in model.program.accumulators
        for projection in accumulator.projections
    ]


def _projection(model: CompiledModel, module: str, projection: Projection) -> Row:
    source = model.program.by_name[projection.source]
    row: Row = {
        "module": module,
        "reads": source.module or source.name,
        "kind": projection.kind,
        "payload": projection.payload,
        "shape": [],
        "slices": len(projection.weights),
        "shift": projection.shift,
        "low": None,
        "high": None,
        "zeros": None,
        "fan_in": 1,
    }
    if projection.weights:
        w = projection.total()
        row["shape"], row["fan_in"] = list(w.shape), prod(w.shape[1:])
        row["low"], row["high"] = int(w.min()), int(w.max())
        row["zeros"] = float((w == 0).mean())
    return row


_WEIGHT_COLUMNS: tuple[Column, ...] = (
    ("module", lambda r: r["module"]),
    ("reads", lambda r: r["reads"]),
    ("kind", lambda r: r["kind"]),
    ("weights", lambda r: size(r["shape"]) or "-"),
    ("slices>", lambda r: str(r["slices"])),
    ("shift>", lambda r: str(r["shift"])),
    ("range>", lambda r: "-" if r["low"] is None else _range([r["low"], r["high"]])),
    ("zeros>", lambda r: "-" if r["zeros"] is None else percent(r["zeros"])),
    ("fan-in>", lambda r: f"{r['fan_in']:,}"),
    ("payload>", lambda r: f"{r['payload']:,}"),
)


# -- passes and bounds ---------------------------------------------------------------------

_PASS_COLUMNS: tuple[Column, ...] = (
    ("pass", lambda r: r["name"]),
    ("rewrites>", lambda r: f"{r['rewrites']:,}"),
    ("values compared>", lambda r: f"{r['checked']:,}" if r["checked"] else "-"),
    ("worst change / sum|w||a|>", lambda r: f"{r['worst']:.1e}" if r["checked"] else "-"),
)

_BOUND_COLUMNS: tuple[Column, ...] = (
    ("module", lambda r: r["module"]),
    ("proved>", lambda r: _range([r["low"], r["high"]])),
    ("bits>", lambda r: str(r["bits"])),
    ("observed>", lambda r: _range(r["observed"]) if r["observed"] else "-"),
    ("bits>", lambda r: str(r["observed_bits"] or "-")),
    ("bits left: slice>", lambda r: "-" if r["slice_left"] is None else str(r["slice_left"])),
    ("potential>", lambda r: _left(r["left"])),
)


def _left(by_target: Mapping[str, int]) -> str:
    """Bits left of what targets hold; those with less by name."""
    most = max(by_target.values())
    others = [f"{name} {bits}" for name, bits in by_target.items() if bits < most]
    return "; ".join([str(most), *others])


def _passes(model: CompiledModel) -> list[Row]:
    return [asdict(made) for made in model.report.passes]


def _bounds(model: CompiledModel) -> list[Row]:
    from snncc.backends.engines import ENGINES
    from snncc.runtime.bounds import bits_of, bounds

    observed = model.report.observed
    ranges = observed.ranges if observed is not None else {}
    limits = {target.name: target.state_bits + 1 for target in ENGINES.values()}
    return [
        {
            **asdict(row),
            "observed": seen,
            "observed_bits": bits_of(*seen) if seen else None,
            "slice_left": 32 - row.slice_bits if row.slice_bits > 1 else None,
            "left": {name: bits - row.bits for name, bits in limits.items()},
        }
        for row in bounds(model.program)
        for seen in [ranges.get(row.accumulator)]
    ]


# -- what a chip would be asked for --------------------------------------------------------


def demand(model: CompiledModel) -> TargetReport:
    """What the network would take of a chip: of that it was compiled for, or of the first."""
    from snncc.backends.chip.chips import CHIPS, demand_json
    from snncc.runtime.report import TargetReport, decode

    target = model.report.target
    found = demand_json(model.program, target.name if target is not None else CHIPS[0])
    return decode(TargetReport, found, "resources")


def _resources(model: CompiledModel) -> list[Row]:
    from snncc.runtime.report import encode

    found = encode(demand(model))
    return [*found["layers"], {"module": "all", **found}]


_RESOURCE_COLUMNS: tuple[Column, ...] = (
    ("module", lambda r: r["module"]),
    ("neurons>", lambda r: f"{r['neurons']:,}"),
    ("synapses>", lambda r: f"{r['synapses']:,}"),
    ("weight bytes>", lambda r: f"{r['weight_bytes']:,}"),
    ("state bits>", lambda r: str(r["state_bits"])),
    ("cores>", lambda r: _count(r["cores_shared"])),
    ("cores, every synapse stored>", lambda r: _count(r["cores_unrolled"])),
)


def _count(cores: int | None) -> str:
    return "too many" if cores is None else f"{cores:,}"


_VIEWS: dict[str, tuple[Callable[[CompiledModel], list[Row]], tuple[Column, ...]]] = {
    "neurons": (_neurons, _NEURON_COLUMNS),
    "weights": (_weights, _WEIGHT_COLUMNS),
    "passes": (_passes, _PASS_COLUMNS),
    "bounds": (_bounds, _BOUND_COLUMNS),
    "resources": (_resources, _RESOURCE_COLUMNS),
}


def rows(model: CompiledModel, view: str) -> list[Row]:
    """The view as plain data."""
    return _VIEWS[view][0](model)


def texts(model: CompiledModel, view: str) -> tuple[list[str], list[list[str]], list[int]]:
    """The view as headings, cells, and which columns are numbers."""
    make, columns = _VIEWS[view]
    head = [heading.rstrip(">") for heading, _ in columns]
    right = [i for i, (heading, _) in enumerate(columns) if heading.endswith(">")]
    return head, [[cell(row) for _, cell in columns] for row in make(model)], right


# -- graphs --------------------------------------------------------------------------------


def graph_of(model: CompiledModel, stage: str) -> onnx.ModelProto:
    """The graph of a stage.

    Raises:
        BadInputError: The file has no such graph.
    """
    if stage not in model.graphs:
        there = ", ".join(model.graphs)
        raise BadInputError(f"{model.name}: no graph of stage '{stage}'; there are {there}")
    return model.graphs[stage]


def graph_text(model: CompiledModel, *stages: str) -> str:
    """The text of one stage, or the difference of two."""
    dumps = [_dump(graph_of(model, stage)) for stage in stages]
    if len(dumps) == 1:
        return dumps[0]
    old, new = (text.splitlines() for text in dumps)
    lines = unified_diff(old, new, stages[0], stages[1], lineterm="", n=1)
    return "".join(f"{line}\n" for line in lines)


def _dump(proto: onnx.ModelProto) -> str:
    import onnx_ir as ir

    from snncc.ir.text import dump

    text = dump(ir.from_proto(proto))
    statistics = statistics_of(proto)
    lines = (_with_statistics(line, statistics) for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines)


def statistics_of(proto: onnx.ModelProto) -> dict[str, dict[str, Any]]:
    """Weight -> its statistics, where a graph is stored without its weights."""
    from snncc.ir.metadata import STATISTICS

    found = {}
    for value in proto.graph.input:
        for prop in value.metadata_props:
            if prop.key == STATISTICS:
                found[value.name] = json.loads(prop.value)
    return found


def _with_statistics(line: str, statistics: Mapping[str, dict[str, Any]]) -> str:
    """The line of an input that stands for a weight, written as the weight it was."""
    name, _, kind = line.removeprefix("input  %").partition(": ")
    if not line.startswith("input  %") or name not in statistics:
        return line
    figures = statistics[name]
    low, high = (_figure(figures[key], kind) for key in ("min", "max"))
    return f"weight %{name}: {kind} {low}..{high} #{figures['sha256'][:6]}"


def _figure(value: float, kind: str) -> str:
    return f"{value:.4g}" if kind.startswith("f") else str(int(value))
