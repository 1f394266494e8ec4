"""The compiler: a trained network in, a verified spiking program out; phase after phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from snncc.backends.chip.chips import chip, require_fit
from snncc.backends.engines import make_engine
from snncc.compiler.given import Given, merged, read
from snncc.compiler.importing import Imported, import_network, require_import_law
from snncc.compiler.inputs import OWN_GRID, Inputs, floats, inputs_of_file, inputs_of_module
from snncc.compiler.options import DEFAULT_BITS, InputOptions, Options
from snncc.compiler.progress import Steps, Tell
from snncc.compiler.report import Findings, findings_of, make_report
from snncc.compiler.samples import CHECKED, Calibration, Feeds, feeds_for, halves
from snncc.errors import UnsupportedModelError
from snncc.ir.names import PIXELS
from snncc.runtime.artifact import RUNNABLE, CompiledModel, manifest_of
from snncc.runtime.bounds import observe
from snncc.runtime.contract import InputContract, by_timestep
from snncc.runtime.graph_store import LiveGraphs, summarised
from snncc.runtime.reference import Reference
from snncc.runtime.report import LayersCompared, Observed
from snncc.runtime.verify import (
    COMPARED,
    Verification,
    affordable_samples,
    batch_of,
    require_agreement,
    verify,
)
from snncc.system.collection import seldom_collected

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch  # noqa: TID251 (for annotations)

    from snncc.passes import Pass, PassManager
    from snncc.passes.cut.host_head import HostPart
    from snncc.passes.fold.merge_linear import MergeLinear
    from snncc.passes.judge.diagnose import Diagnosis
    from snncc.program import Program
    from snncc.runtime.measure import Measured

__all__ = ["InputOptions", "Options", "check", "compile"]

Array = npt.NDArray[Any]

#: Reference vectors in the file: so many at most.
_STORED = 8
_NO_NEURON = "the network has no neuron; nothing in it can spike"
#: Passes whose graphs are read later: of others' weights no copy is kept.
_WANTED = ("merge-linear", "fold-scale")


def compile(
    network: torch.nn.Module | str | Path,
    calibration: Calibration | None = None,
    options: Options | None = None,
    say: Tell | None = None,
    **more: Any,
) -> CompiledModel:
    """Compile a trained network; nothing is written.

    Args:
        network: A module, or the path of an ``.onnx`` or ``.pt2`` file.
        calibration: Samples on which changes are measured: uint8 pixels (N, C, H, W), or float32
            as the network takes them; sequences (N, T, C, H, W). Without: «not measured». With
            ``patch_mask`` a data set may have masks; without, half of the patches are masked at
            random.
        options: All choices; or give them as keywords (``weight_bits=8``).
        say: Called with each step as it begins, and again with each part of it that is done.
        **more: Fields of Options.

    Raises:
        UnsupportedModelError: Parts cannot become spikes; all of them are listed.
        BadInputError: Weights or data are not what they should be.
        UsageError: Options contradict each other or the network.
        TargetError: The network does not fit the target.
        VerificationError: A check failed: a fault of the compiler, never of the network.
    """
    given, steps = read(network, merged(options, more)), Steps(say or (lambda _: None))
    lowered = _lower(given, calibration, steps)
    verdict = _verify(lowered, steps)
    reference = _reference(lowered)
    observed = _observe(lowered, steps)
    report = make_report(given, lowered.findings, verdict, observed, len(lowered.integers))
    return replace(lowered.model, reference=reference, reported=report)


def check(
    network: torch.nn.Module | str | Path,
    options: Options | None = None,
    **more: Any,
) -> Diagnosis:
    """What would compile and what would not, in seconds; nothing is written.

    Args:
        network: As for ``compile``.
        options: As for ``compile``.
        **more: Fields of Options.
    """
    from snncc.passes import PassManager, front
    from snncc.passes.judge.diagnose import diagnose

    given = read(network, merged(options, more))
    passes = front(given.patches is not None, _merging(given))
    manager = PassManager(passes, dump_dir=given.dump_dir)
    with seldom_collected():
        imported = import_network(given)
        _check_pixels(given, imported)
        found = diagnose(manager.run(imported.model))
    if not found.faults and not found.activations_lowered:
        raise UnsupportedModelError(_NO_NEURON)
    return found


def _check_pixels(given: Given, imported: Imported) -> None:
    """Mean and standard deviation go with the network's channels, where they are given."""
    if given.options.input.mean is None and given.options.input.std is None:
        return
    if given.module is not None:
        inputs_of_module(given, None)
    else:
        inputs_of_file(given, imported.model, None)


# -- from the network to the Program -------------------------------------------------------


@dataclass(frozen=True)
class _Lowered:
    """A network that has its Program, and what was found on the way.

    Attributes:
        model: Without report and reference vectors.
        findings: For the report.
        integers: All samples as integers of the source.
        verified: As many of them as engines are compared on.
        measured: Those on which changes were measured; None: there is no calibration data.
    """

    model: CompiledModel
    findings: Findings
    integers: Array
    verified: Array
    measured: Array | None


def _lower(given: Given, calibration: Calibration | None, steps: Steps) -> _Lowered:
    """The network's Program. Earlier forms of all weights, which only passes need, are gone then.

    A module says what it takes before its export, which may take long; a file once it is read.
    """
    early = inputs_of_module(given, calibration) if given.module is not None else None
    steps.begin("import")
    with seldom_collected():
        imported = import_network(given)
    inputs = early or inputs_of_file(given, imported.model, calibration)
    inputs = inputs.of(imported.model, given.patches)
    neurons = _require_supported(imported.model, given)
    feeds = feeds_for(given, inputs.contract, inputs.data, imported.model)
    passes = _passes(given, inputs.contract, feeds.fitted)
    steps.plan(_steps_after_import(passes, feeds))
    steps.begin("import law")
    law = require_import_law(given, imported, feeds.spread, neurons)
    manager = _run(passes, imported.model, feeds, given, steps)
    layers = _compare_layers(manager, feeds, steps)
    program = _build(manager, given, imported.host, steps)
    measured = _measure(manager, imported, inputs, feeds, steps)
    findings = findings_of(manager, program, inputs, law, layers, measured)
    model = _model(manager, program, inputs.contract, given.options.keep_stages)
    source = f"{inputs.contract.name}{PIXELS}"
    whole, judged = feeds.whole[source], feeds.judged
    verified = whole[: given.options.verify_samples or affordable_samples(program)]
    return _Lowered(model, findings, whole, verified, judged[source] if judged else None)


def _require_supported(model: ir.Model, given: Given) -> list[list[str]]:
    """Refuse what ``check`` would refuse, before anything is compared or measured.

    Returns:
        Of each activation that becomes a neuron, the values of ``model`` that it is.
    """
    from snncc.ir.graphs import nodes
    from snncc.ir.lineage import Lineage
    from snncc.ir.ops import NEURONS
    from snncc.passes import PassManager, front
    from snncc.passes.judge.require_integer import RequireInteger

    passes = (*front(given.patches is not None, _merging(given)), RequireInteger())
    made = PassManager(passes, begin=None, kept=()).run(model)
    lineage, known = Lineage.of(made), {str(v.name) for n in model.graph for v in n.outputs}
    fired = [str(node.outputs[0].name) for node in nodes(made, *NEURONS)]
    if not fired:
        raise UnsupportedModelError(_NO_NEURON)
    return [lineage.origins(name, known) or [] for name in fired]


def _passes(
    given: Given, contract: InputContract, fitted: Mapping[str, Array] | None
) -> Sequence[Pass]:
    """All passes, with the data that they choose weights and bits on."""
    from snncc.passes import pipeline
    from snncc.passes.integers.fit_weights import wanted_fit
    from snncc.passes.integers.quantise_input import QuantiseInput

    source = QuantiseInput(
        floats(contract.scale, 1.0),
        floats(contract.offset, 0.0),
        real=contract.dtype == "float32",
    )
    options, judged = given.options, fitted
    fit = wanted_fit(fitted, given.bits, options.rounding, options.bias_correction)
    if fit is not None and given.bits == "auto":  # rounding flatters its own data
        first, judged = halves(fit.feeds)
        fit = replace(fit, feeds=first)
    masked, merge = given.patches is not None, _merging(given)
    return pipeline(source, given.bits, judged, fit, masked, merge)


def _merging(given: Given) -> MergeLinear:
    """What was chosen for layers with no neuron between: potentials have to fit the target, too."""
    from snncc.passes.fold.merge_linear import MergeLinear
    from snncc.passes.fold.no_neuron_between import POTENTIAL_BITS

    target, bits = given.options.target, given.bits
    room = POTENTIAL_BITS if target is None else chip(target).state_bits
    form = given.options.no_neuron_between
    return MergeLinear(form, DEFAULT_BITS if isinstance(bits, str) else bits, room)


def _steps_after_import(passes: Sequence[Pass], feeds: Feeds) -> int:
    others = ("import law", "layer by layer", "build-program", "verify")
    measured = ("measure", "observe") if feeds.judged is not None else ()
    return len(passes) + len(others) + len(measured)


def _run(
    passes: Sequence[Pass], model: ir.Model, feeds: Feeds, given: Given, steps: Steps
) -> PassManager:
    """What the passes made of the graph, each validated on a few samples."""
    from snncc.passes import PassManager

    manager = PassManager(passes, feeds.checked, given.dump_dir, steps.begin, _WANTED)
    manager.run(model)
    return manager


def _compare_layers(manager: PassManager, feeds: Feeds, steps: Steps) -> LayersCompared:
    """Every layer of the spike form by itself, fed with the integers of ``integer``.

    Of large networks the last pass has done that on few samples.
    """
    from snncc.ir.validation import validate_translation

    done, elements = _size(feeds.checked), manager.records[-1].elements
    samples = min(CHECKED, _size(feeds.whole))
    before, after = manager.stages["quantised"], manager.stages["spiking"]
    steps.begin("layer by layer", samples)
    steps.advance(done)
    for start in range(done, samples, done):
        part = {k: v[start : min(start + done, samples)] for k, v in feeds.whole.items()}
        elements += sum(d.total for d in validate_translation(before, after, part, exact=True))
        steps.advance(_size(part))
    return LayersCompared("spike-form", samples, elements, mismatched=0)


def _size(feeds: Mapping[str, Array]) -> int:
    return len(next(iter(feeds.values())))


def _build(
    manager: PassManager, given: Given, host: Mapping[str, HostPart], steps: Steps
) -> Program:
    """The Program, which fits the target if there is one."""
    from snncc.passes.cut.host_head import hosted
    from snncc.passes.spikes.build_program import build_program

    steps.begin("build-program")
    model = manager.stages["quantised"]
    program = build_program(model, given.name, end=lambda built: hosted(built, host))
    if given.options.target is not None:
        require_fit(program, given.options.target)
    return program


def _measure(
    manager: PassManager, imported: Imported, inputs: Inputs, feeds: Feeds, steps: Steps
) -> Measured | None:
    """What quantisation changes on calibration data; None if there is none."""
    from snncc.passes.integers.quantise_weights import squeezed
    from snncc.runtime.measure import measure, require_spikes

    if feeds.judged is None:
        return None
    steps.begin("measure", _size(feeds.judged))
    quantised, contract = manager.stages["quantised"], inputs.contract
    is_own = inputs.origins.get("input_range") == OWN_GRID
    found = measure(
        imported.trained,
        manager.after["fold-scale"],
        quantised,
        feeds.judged,
        imported.host,
        steps.advance,
        is_real=contract.dtype == "float32" and not is_own,
        exactly=lambda batch: _exactly(contract, batch),
    )
    require_spikes(found, squeezed(quantised))
    return found


def _exactly(contract: InputContract, batch: Mapping[str, Array]) -> dict[str, Array]:
    """What pixels stand for, which float32 need not hold; nothing of real inputs."""
    if contract.dtype != "uint8":
        return {}
    pixels = batch[f"{contract.name}{PIXELS}"]
    if contract.patches:  # without the planes that say which patches are active
        pixels = pixels[:, : contract.shape[0]]
    return {contract.name: contract.exactly(pixels)}


def _model(
    manager: PassManager, program: Program, contract: InputContract, keep_stages: bool
) -> CompiledModel:
    """What is written to a file, before anything was verified."""
    from snncc.ir.lineage import forget

    for graph in manager.stages.values():
        forget(graph)  # nothing is compared any more
    graphs = {
        stage: graph if keep_stages or stage in RUNNABLE else summarised(graph)
        for stage, graph in manager.stages.items()
    }
    manifest = manifest_of(program, contract)
    return CompiledModel(program, manifest, LiveGraphs(graphs), keep_stages=keep_stages)


# -- what the engines make of it -----------------------------------------------------------


def _verify(lowered: _Lowered, steps: Steps) -> Verification:
    """All engines beside ``integer``, which they agree with."""
    steps.begin("verify", len(lowered.verified) * len(COMPARED))
    verdict = verify(lowered.model, lowered.verified, progress=steps.advance)
    require_agreement(verdict)
    return verdict


def _reference(lowered: _Lowered) -> Reference:
    """Samples, and what each population must do with them."""
    model, few = lowered.model, lowered.verified[:_STORED]
    engine, batch = make_engine("integer", model), batch_of(model.program)
    return Reference.of(few, engine.run(by_timestep(few, model.input.shape), batch=batch))


def _observe(lowered: _Lowered, steps: Steps) -> Observed | None:
    """Membrane potentials on calibration data; None if there is none."""
    if lowered.measured is None:
        return None
    steps.begin("observe", len(lowered.measured))
    return observe(lowered.model, lowered.measured, steps.advance)
