"""The report of a compilation: plain data, the same for the same input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from snncc.backends.chip.chips import demand_json
from snncc.program import Accumulator, Program, sources_of
from snncc.runtime.bounds import bounds
from snncc.runtime.contract import InputContract

if TYPE_CHECKING:
    from snncc.frontends.import_law import ImportLaw
    from snncc.passes import PassManager
    from snncc.runtime.measure import Measured

__all__ = ["make_report", "silent_modules"]


def make_report(
    weight_bits: int | str,
    origins: Mapping[str, str],
    contract: InputContract,
    manager: PassManager,
    program: Program,
    law: ImportLaw,
    measured: Measured | None,
    target: str | None = None,
) -> dict[str, Any]:
    """Everything the compiler did, proved and measured, ahead of ``observed`` and ``verify``.

    ``changed`` is the share of ``compared`` activations that differ end to end from the trained
    network in float64, ``changed_teacher_forced`` that of each layer's own rounding, ``agreement``
    the share of samples with the trained network's class (None for results that are maps).
    ``float32`` counts the activations and classes in which the trained network's own float32 is
    not its float64: no change of ours. Without calibration data all that is measured is None.
    ``squeezed`` are layers with fewer bits than were asked for, as others fill their potentials,
    ``still_norms`` batch norms with channels of variance 0, which is mostly why. ``target`` is
    what the network was compiled for and would take of it, or None.
    """
    from snncc.passes.fold.fold_batch_norm import still_norms
    from snncc.passes.integers.quantise_weights import squeezed
    from snncc.passes.judge.diagnose import diagnose

    found = diagnose(manager.after["merge-linear"])
    return {
        "activations_found": found.activations_found,
        "activations_lowered": len(program.neurons),
        "macs": found.macs,
        "target": demand_json(program, target) if target is not None else None,
        "weight_bits": weight_bits,
        "layer_bits": _layer_bits(manager),
        "squeezed": squeezed(manager.stages["quantised"]),
        "still_norms": still_norms(manager.stages["quantised"]),
        "samples": measured.samples if measured else 0,
        "compared": measured.total if measured else None,
        "agreement": _agreement(measured),
        "changed": measured.share("end_to_end") if measured else None,
        "changed_teacher_forced": measured.share("teacher_forced") if measured else None,
        "changed_by_input": _changed_by_input(measured),
        "float32": _float32(measured),
        "saturated": measured.share("saturated") if measured else None,
        "ties": sum(layer.ties for layer in measured.layers) if measured else None,
        "layers": _layers(program, measured),
        "analog": analog_layers(program),
        "windows": program.windows,
        "latency_ticks": program.latency,
        "bounds": bounds(program),
        "passes": [
            {"name": r.name, "rewrites": r.rewrites, "checked": r.checked, "worst": r.worst}
            for r in manager.records
        ],
        "import_law": asdict(law),
        "input": contract.to_json(),
        "origins": dict(origins),
    }


def _layer_bits(manager: PassManager) -> dict[str, int]:
    """Weight bits by the module path of the layer."""
    from snncc.ir.graphs import label
    from snncc.passes.integers.precision import Precision

    bits = Precision.read(manager.stages["quantised"], 16).layers
    layers = manager.stages["integer"].graph
    made = {str(v.name): label(node) for node in layers for v in node.outputs}
    return {made.get(name, name): count for name, count in bits.items()}


def _changed_by_input(measured: Measured | None) -> float | None:
    """The share of activations that input quantisation changes; 0 where it is not ours."""
    if measured is None:
        return None
    return _ratio(measured.input_changed or 0, measured.total)


def _float32(measured: Measured | None) -> dict[str, Any] | None:
    """What float32 decides otherwise than float64 in the trained network, and whose float32."""
    if measured is None:
        return None
    return {
        "of": measured.against,
        "activations": measured.float32_changed,
        "classes": measured.float32_classes,
    }


def _ratio(part: int, whole: int) -> float:
    return part / max(whole, 1)


def _agreement(measured: Measured | None) -> float | None:
    if measured is None or measured.same_class is None:
        return None
    return _ratio(measured.same_class, measured.samples)


def _layers(program: Program, measured: Measured | None) -> list[dict[str, Any]]:
    rows = []
    for i, neuron in enumerate(program.neurons):
        row: dict[str, Any] = {
            "module": neuron.module or neuron.name,
            "population": neuron.name,
            "shape": list(neuron.shape),
            "D": neuron.D,
            "rounding": neuron.rounding,
            "window": neuron.depth,
        }
        if measured is not None:
            seen = measured.layers[i]
            row["changed"] = _ratio(seen.end_to_end, seen.total)
            row["changed_teacher_forced"] = _ratio(seen.teacher_forced, seen.total)
            row["saturated"] = _ratio(seen.saturated, seen.total)
            row["ties"] = seen.ties
            row["spikes"] = seen.spikes
            row["trained_spikes"] = seen.trained_spikes
        rows.append(row)
    return rows


def analog_layers(program: Program) -> list[str]:
    """Layers that read the input: multi-bit integers, not spikes."""
    source = program.source.name
    return [
        node.module or node.name
        for node in program.nodes
        if isinstance(node, Accumulator) and _reads(program, node, source)
    ]


def _reads(program: Program, node: Accumulator, source: str) -> bool:
    names = set(sources_of(node))
    pooled = {program.by_name[n] for n in names if type(program.by_name[n]).__name__ == "Pool"}
    return source in names or any(source in sources_of(p) for p in pooled)


def silent_modules(report: Mapping[str, Any]) -> list[str]:
    """Modules of the populations that never fired, on calibration data or else in ``verify``."""
    if report["samples"]:
        return [row["module"] for row in report["layers"] if not row["spikes"]]
    silent = set(report["verify"]["coverage"]["silent"])
    return [row["module"] for row in report["layers"] if row["population"] in silent]
