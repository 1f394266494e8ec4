"""How the report of a compilation is made of what its phases found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from snncc.backends.chip.chips import demand_json
from snncc.compiler.given import Given
from snncc.compiler.inputs import Inputs
from snncc.program import Program
from snncc.runtime.bounds import bounds
from snncc.runtime.contract import InputContract
from snncc.runtime.report import (
    Float32Report,
    ImportReport,
    LayerReport,
    LayersCompared,
    NoNeuronBetween,
    Observed,
    PassReport,
    Report,
    Squeezed,
    TargetReport,
    VerifyReport,
    decode,
)
from snncc.runtime.verify import Verification

if TYPE_CHECKING:
    from snncc.frontends.import_law import ImportLaw
    from snncc.passes import PassManager
    from snncc.passes.fold.no_neuron_between import Between
    from snncc.passes.judge.diagnose import Diagnosis
    from snncc.runtime.measure import Measured

__all__ = ["Findings", "findings_of", "make_report"]


@dataclass(frozen=True)
class Findings:
    """What was found on the way to the Program; the graphs it was found in are not kept.

    Attributes:
        program: The Program.
        contract: What the network takes.
        origins: Option -> where its value came from, as far as it was found on the way.
        activations_found: In the trained network.
        macs: Multiply-accumulates of a sample.
        layer_bits: Module path -> bits of its weights.
        squeezed: Layers with fewer bits than were asked for.
        between: What became of layers with no neuron between.
        still_norms: Batch norms with channels that did not vary in training.
        passes: What each did.
        import_law: The graph beside the trained network.
        layers: Every layer by itself.
        measured: What quantisation changes; None: there is no calibration data.
    """

    program: Program
    contract: InputContract
    origins: Mapping[str, str]
    activations_found: int
    macs: int
    layer_bits: Mapping[str, int]
    squeezed: tuple[Squeezed, ...]
    between: tuple[NoNeuronBetween, ...]
    still_norms: tuple[str, ...]
    passes: tuple[PassReport, ...]
    import_law: ImportReport
    layers: LayersCompared
    measured: Measured | None


def _origin_of_leaves(found: Diagnosis) -> dict[str, str]:
    return {"leaves": found.found_neurons} if found.found_neurons else {}


def findings_of(
    manager: PassManager,
    program: Program,
    inputs: Inputs,
    law: ImportLaw,
    layers: LayersCompared,
    measured: Measured | None,
) -> Findings:
    """What the phases found, and what the graphs say of themselves."""
    from snncc.passes.fold.fold_batch_norm import still_norms
    from snncc.passes.fold.no_neuron_between import pairs_of
    from snncc.passes.integers.quantise_weights import squeezed
    from snncc.passes.judge.diagnose import diagnose

    found = diagnose(manager.after["merge-linear"])
    records = manager.records
    return Findings(
        program=program,
        contract=inputs.contract,
        origins={**inputs.origins, **_origin_of_leaves(found)},
        activations_found=found.activations_found,
        macs=found.macs,
        layer_bits=_layer_bits(manager),
        squeezed=tuple(Squeezed(**row) for row in squeezed(manager.stages["quantised"])),
        between=tuple(_between(pair) for pair in pairs_of(manager.stages["quantised"])),
        still_norms=tuple(still_norms(manager.stages["quantised"])),
        passes=tuple(PassReport(r.name, r.rewrites, r.checked, r.worst) for r in records),
        import_law=ImportReport(**asdict(law)),
        layers=layers,
        measured=measured,
    )


def _between(pair: Between) -> NoNeuronBetween:
    return decode(NoNeuronBetween, asdict(pair), "no_neuron_between")


def _layer_bits(manager: PassManager) -> dict[str, int]:
    """Weight bits by the module path of the layer."""
    from snncc.ir.graphs import label
    from snncc.passes.integers.precision import Precision

    bits = Precision.read(manager.stages["quantised"], 16).layers
    layers = manager.stages["integer"].graph
    made = {str(v.name): label(node) for node in layers for v in node.outputs}
    return {made.get(name, name): count for name, count in bits.items()}


def make_report(
    given: Given, found: Findings, verdict: Verification, observed: Observed | None, available: int
) -> Report:
    """The report, whole.

    Args:
        given: Network and options.
        found: On the way to the Program.
        verdict: Of the engines.
        observed: Membrane potentials on calibration data, if there is some.
        available: Samples there were.
    """
    program, target = found.program, given.options.target
    layers = _layers(program, found.measured)
    verified = {**verdict.to_json(), "available": available, "layers": asdict(found.layers)}
    demand = demand_json(program, target) if target is not None else None
    return Report(
        activations_found=found.activations_found,
        activations_lowered=len(program.neurons),
        macs=found.macs,
        target=None if demand is None else decode(TargetReport, demand, "target"),
        weight_bits=given.bits,
        layer_bits=found.layer_bits,
        squeezed=found.squeezed,
        still_norms=found.still_norms,
        no_neuron_between=found.between,
        **_changes(found.measured),
        layers=layers,
        analog=tuple(node.module or node.name for node in program.analog),
        windows=program.windows,
        latency_ticks=program.latency,
        bounds=bounds(program),
        passes=found.passes,
        import_law=found.import_law,
        input=found.contract,
        origins={**given.options.origins, **found.origins},
        observed=observed,
        verify=decode(VerifyReport, verified, "verify"),
        silent=_silent_modules(layers, verdict),
        checkpoint=given.options.checkpoint,
    )


# -- what was measured ---------------------------------------------------------------------


def _changes(measured: Measured | None) -> dict[str, Any]:
    """The fields of the report that say what quantisation changes on all layers together."""
    if measured is None:
        names = ("compared", "agreement", "changed", "changed_teacher_forced", "changed_by_input",
                 "float32", "saturated", "ties")  # fmt: skip
        return {"samples": 0, **dict.fromkeys(names)}
    same, samples = measured.same_class, measured.samples
    return {
        "samples": samples,
        "compared": measured.total,
        "agreement": None if same is None else _ratio(same, samples),
        "changed": measured.share("end_to_end"),
        "changed_teacher_forced": measured.share("teacher_forced"),
        "changed_by_input": _ratio(measured.input_changed or 0, measured.total),
        "float32": Float32Report(
            measured.against, measured.float32_changed, measured.float32_classes
        ),
        "saturated": measured.share("saturated"),
        "ties": sum(layer.ties for layer in measured.layers),
    }


def _layers(program: Program, measured: Measured | None) -> tuple[LayerReport, ...]:
    return tuple(
        LayerReport(
            module=neuron.module or neuron.name,
            population=neuron.name,
            shape=neuron.shape,
            D=neuron.D,
            rounding=neuron.rounding,
            window=neuron.depth,
            **_changes_of_layer(measured, i),
        )
        for i, neuron in enumerate(program.neurons)
    )


def _changes_of_layer(measured: Measured | None, index: int) -> dict[str, Any]:
    if measured is None:
        return {}
    seen = measured.layers[index]
    return {
        "changed": _ratio(seen.end_to_end, seen.total),
        "changed_teacher_forced": _ratio(seen.teacher_forced, seen.total),
        "saturated": _ratio(seen.saturated, seen.total),
        "ties": seen.ties,
        "spikes": seen.spikes,
        "trained_spikes": seen.trained_spikes,
    }


def _ratio(part: int, whole: int) -> float:
    return part / max(whole, 1)


# -- what the Program says -----------------------------------------------------------------


def _silent_modules(layers: tuple[LayerReport, ...], verdict: Verification) -> tuple[str, ...]:
    """Modules of the populations that never fired, on calibration data or else in ``verify``."""
    if any(row.spikes is not None for row in layers):
        return tuple(row.module for row in layers if not row.spikes)
    silent = set(verdict.coverage.silent)
    return tuple(row.module for row in layers if row.population in silent)
