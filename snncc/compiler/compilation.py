"""The compiler: a trained network in, a verified spiking program out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from snncc.backends.chip.chips import require_fit
from snncc.backends.engines import make_engine
from snncc.compiler.inputs import (
    OWN_GRID,
    Samples,
    calibration_data,
    f32_contract,
    feeds_of,
    floats,
    frames_of,
    halves,
    input_shape,
    masked_contract,
    noise,
    origin_of_masks,
    patches_of,
    range_of,
    u8_contract,
)
from snncc.compiler.options import InputOptions, Options, bits_of
from snncc.compiler.progress import Steps, Tell
from snncc.compiler.report import make_report, silent_modules
from snncc.errors import UnsupportedModelError, UsageError, VerificationError
from snncc.ir.names import PIXELS
from snncc.runtime.artifact import RUNNABLE, CompiledModel, manifest_of
from snncc.runtime.bounds import observe
from snncc.runtime.coding import Dataset
from snncc.runtime.contract import InputContract, by_timestep
from snncc.runtime.graph_store import LiveGraphs, summarised
from snncc.runtime.reference import Reference
from snncc.runtime.verify import ENGINES, affordable_samples, batch_of, require_agreement, verify

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch  # noqa: TID251 (for annotations)

    from snncc.frontends.import_law import ImportLaw
    from snncc.frontends.sequences import Frames
    from snncc.passes import PassManager
    from snncc.passes.cut.host_head import HostPart
    from snncc.passes.judge.diagnose import Diagnosis
    from snncc.passes.recognise.recognise_qdq import InputGrid
    from snncc.program import Program
    from snncc.runtime.measure import Measured, Trained

__all__ = ["InputOptions", "Options", "check", "compile"]

Array = npt.NDArray[Any]

#: Samples on which passes are validated and layers compared one by one, and vectors in the file:
#: so many at most.
_CHECKED, _STORED = 8, 8
_NO_NEURON = "the network has no neuron; nothing in it can spike"
#: Passes whose graphs are read later: of others' weights no copy is kept.
_WANTED = ("merge-linear", "fold-scale")


def compile(
    network: torch.nn.Module | str | Path,
    calibration: Dataset | Array | str | Path | None = None,
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
    chosen = _merge(options, more)
    return _Compilation(network, chosen, say or (lambda _: None)).run(calibration)


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

    work = _Compilation(network, _merge(options, more), lambda _: None)
    passes = front(masked=work.patches is not None)
    found = diagnose(PassManager(passes, dump_dir=work.dump_dir).run(work.imported()))
    if not found.faults and not found.activations_lowered:
        raise UnsupportedModelError(_NO_NEURON)
    return found


def _merge(options: Options | None, more: dict[str, Any]) -> Options:
    if options is not None and more:
        raise UsageError("give either options or keywords")
    try:
        return options or Options(**more)
    except TypeError as e:
        raise UsageError(f"compile: {e}") from e


def _unwrapped(module: Any) -> Any:
    from snncc.frontends.pytorch import unwrapped

    return unwrapped(module)


class _Compilation:
    """One run of the compiler, step by step."""

    def __init__(self, network: torch.nn.Module | str | Path, options: Options, say: Tell) -> None:
        is_path = isinstance(network, (str, Path))
        network = network if is_path else _unwrapped(network)
        self.network, self.options, self.steps = network, options, Steps(say)
        self.bits = bits_of(options)
        self.module: Any = None if is_path else network
        config = getattr(self.module, "default_cfg", None)  # the user's: it may be anything
        self.config: Mapping[str, Any] = config if isinstance(config, Mapping) else {}
        default = Path(str(network)).stem if is_path else type(network).__name__.lower()
        self.name = options.name or default
        self.origins = dict(options.origins)
        self.dump_dir = Path(options.dump_ir) if options.dump_ir is not None else None
        self.patches = patches_of(options.patch_mask)
        self.host: HostPart | None = None
        self.trained: Trained
        self.layers: dict[str, Any] = {}
        if options.verify_samples is not None and options.verify_samples < 1:
            raise UsageError(f"--verify-samples {options.verify_samples} is not positive")

    def run(self, calibration: Dataset | Array | str | Path | None) -> CompiledModel:
        model, feeds, seen = self._compiled(calibration)
        x = feeds[f"{model.input.name}{PIXELS}"]
        whole = x[: self.options.verify_samples or affordable_samples(model.program)]
        self.steps.begin("verify", len(whole) * len(ENGINES))
        verdict = verify(model, whole, progress=self.steps.advance)
        require_agreement(verdict)
        few = whole[:_STORED]
        fed = by_timestep(few, model.input.shape)
        batch = batch_of(model.program)
        activity = make_engine("integer", model).run(fed, batch=batch)
        model.reference = Reference.of(few, activity)
        model.report["observed"] = self._observed(model, seen)
        model.report["verify"] = {**verdict.to_json(), "available": len(x), "layers": self.layers}
        model.report["silent"] = silent_modules(model.report)
        return model

    def _observed(self, model: CompiledModel, seen: Array | None) -> dict[str, Any] | None:
        if seen is None:
            return None
        self.steps.begin("observe", len(seen))
        return observe(model, seen, self.steps.advance)

    def _compiled(
        self, calibration: Dataset | Array | str | Path | None
    ) -> tuple[CompiledModel, dict[str, Array], Array | None]:
        """The network, samples, and the integers of those on which it was measured, if any.

        What only passes need, earlier forms of all weights, is gone behind this.
        """
        from snncc.ir.oracle import affordable

        data, contract = self._early(calibration)
        self.steps.begin("import")
        model = self.imported()
        if contract is None:
            data, contract = self._after_import(model, calibration)
        contract = replace(contract, name=str(model.graph.inputs[0].name))
        if self.patches is not None:
            contract = masked_contract(contract, self.patches)
            self.origins["mask"] = origin_of_masks(data)
        neurons = self._require_supported(model)
        wanted = max(_CHECKED, self.options.verify_samples or 0)
        feeds = feeds_of(contract, data if data is not None else noise(contract, wanted))
        few = {k: v[: affordable(model, _CHECKED)] for k, v in feeds.items()}
        fitted, judged = self._halves(feeds)
        manager = self._manager(contract, few, fitted if data is not None else None)
        self.steps.plan(self._steps_after_import(manager, data is not None))
        law = self._import_law(model, _spread(feeds, len(next(iter(few.values())))), neurons)
        manager.run(model)
        self.layers = self._layers(manager, feeds, few)
        self.steps.begin("build-program")
        program = self._program(manager)
        measured = self._measure(manager, judged, contract) if data is not None else None
        found = make_report(
            self.bits, self.origins, contract, manager, program, law, measured, self.options.target
        )
        seen = judged[f"{contract.name}{PIXELS}"] if data is not None else None
        return self._model(manager, program, contract, found), feeds, seen

    def _early(
        self, calibration: Dataset | Array | str | Path | None
    ) -> tuple[Samples | None, InputContract | None]:
        """Samples and input contract of a module, whose input is known before any export."""
        if self.module is None:
            return None, None
        frames, shape = self._frames, self._shape()
        data = self._data(calibration, frames.sample(shape))
        made = self._contract(shape, data.x if data is not None else None, None)
        return data, replace(made, timesteps=frames.timesteps)

    def _after_import(
        self, model: ir.Model, calibration: Dataset | Array | str | Path | None
    ) -> tuple[Samples | None, InputContract]:
        """Samples and input contract of a file, which says itself what it takes."""
        from snncc.passes.recognise.recognise_qdq import input_grid

        shape = input_shape(model)
        data = self._data(calibration, shape)
        return data, self._contract(shape, data.x if data is not None else None, input_grid(model))

    def _data(
        self, calibration: Dataset | Array | str | Path | None, shape: tuple[int, ...]
    ) -> Samples | None:
        limit, masks = self.options.calibration_limit, self.patches is not None
        data = calibration_data(calibration, shape, limit, masks)
        if data is not None and data.notes:
            self.origins["calibration"] = ", ".join(data.notes)
        return data

    def _require_supported(self, model: ir.Model) -> list[list[str]]:
        """Refuse what ``check`` would refuse, before anything is compared or measured.

        Returns:
            Of each activation that becomes a neuron, the values of ``model`` that it is.
        """
        from snncc.ir.graphs import nodes
        from snncc.ir.lineage import Lineage
        from snncc.ir.ops import NEURONS
        from snncc.passes import PassManager, front
        from snncc.passes.judge.require_integer import RequireInteger

        passes = (*front(masked=self.patches is not None), RequireInteger())
        made = PassManager(passes, begin=None, kept=()).run(model)
        lineage, known = Lineage.of(made), {str(v.name) for n in model.graph for v in n.outputs}
        fired = [str(node.outputs[0].name) for node in nodes(made, *NEURONS)]
        if not fired:
            raise UnsupportedModelError(_NO_NEURON)
        return [lineage.origins(name, known) or [] for name in fired]

    def _steps_after_import(self, manager: PassManager, has_data: bool) -> int:
        laws = ("import law", "layer by layer", "build-program", "verify")
        measured = ("measure", "observe") if has_data else ()
        return len(manager.passes) + len(laws) + len(measured)

    def imported(self) -> ir.Model:
        """The graph in stage ``imported``, cut at ``until`` or without what the host computes."""
        from snncc.passes.cut.host_head import split_off
        from snncc.passes.cut.until import cut

        model = self._import()
        if self.options.until and self.options.host:
            raise UsageError("--host is the network's end, and --until leaves it out; give one")
        if self.options.host:
            self.host = split_off(model, self.options.host)
        return cut(model, self.options.until) if self.options.until else model

    def _import(self) -> ir.Model:
        if self.module is not None:
            from snncc.frontends.pytorch import export_module
            from snncc.frontends.trained import TrainedModule

            found = export_module(self.module, self._shape(), self.patches, self._frames)
            self.trained = TrainedModule(found, self.module, self._frames)
            return found.model
        if self.patches is not None:
            raise UsageError("--patch-mask needs the network's module: a checkpoint and --arch")
        if self.options.timesteps is not None:
            raise UsageError("--timesteps needs the network's module: a checkpoint and --arch")
        path = Path(str(self.network))
        if path.suffix == ".onnx":
            from snncc.frontends.onnx_file import import_onnx
            from snncc.frontends.trained_file import TrainedFile

            self.trained = TrainedFile(path)
            return import_onnx(path)
        if path.suffix == ".pt2":
            from snncc.frontends.pytorch import export_program, load_program
            from snncc.frontends.trained import TrainedModule

            found = export_program(load_program(path, self.options.trust_pickle))
            self.trained = TrainedModule(found)
            return found.model
        raise UsageError(f"{path}: .onnx and .pt2 files stand alone; a checkpoint needs --arch")

    def _shape(self) -> tuple[int, ...]:
        shape = self.options.input_shape or self.config.get("input_size")
        if shape is None:
            raise UsageError("the input's shape is not known; give --input-shape C,H,W")
        try:
            return tuple(int(s) for s in shape)
        except (TypeError, ValueError) as e:
            raise UsageError(
                f"the module's default_cfg has input_size {shape!r}; give --input-shape C,H,W"
            ) from e

    @property
    def _frames(self) -> Frames:
        return frames_of(self.options.timesteps, self.options.batch_first, self.config)

    # -- input -----------------------------------------------------------------------------

    def _contract(
        self, shape: tuple[int, ...], data: Array | None, grid: InputGrid | None
    ) -> InputContract:
        """How the input becomes integers; its name and timesteps are the graph's.

        Args:
            shape: Of a sample; of a sequence that of one timestep.
            data: Calibration samples, if any.
            grid: On which the network quantises its input itself, if it does.
        """
        given = self.options.input
        mean = given.mean if given.mean is not None else self.config.get("mean")
        std = given.std if given.std is not None else self.config.get("std")
        known = mean is not None or std is not None
        mode = given.mode or ("u8" if known else "f32")
        if mode not in ("u8", "f32"):
            raise UsageError(f"--input {mode}: u8 or f32")
        if mode == "u8" and given.range is not None:
            raise UsageError("--input-range belongs to --input f32")
        if mode == "u8":
            return u8_contract("", shape, floats(mean, 0.0), floats(std, 1.0))
        if given.mean is not None or given.std is not None:
            raise UsageError("--mean and --std belong to --input u8")
        if grid is None:
            return f32_contract("", shape, given.range or range_of(data))
        if given.range is not None:
            raise UsageError("the network quantises its input itself; leave --input-range out")
        self.origins["input_range"] = OWN_GRID
        scale = grid.scale if len(grid.scale) > 1 else grid.scale[0]
        return InputContract(
            "", shape, "float32", scale=scale, zero_point=grid.zero_point, top=grid.top
        )

    # -- the steps -------------------------------------------------------------------------

    def _import_law(
        self, model: ir.Model, feeds: Mapping[str, Array], neurons: list[list[str]]
    ) -> ImportLaw:
        from snncc.frontends.import_law import check_import

        self.steps.begin("import law")
        given = {str(value.name): feeds[str(value.name)] for value in model.graph.inputs}
        try:
            found = self.trained.values(given)
            return check_import(model, given, found, neurons, self.trained.words)
        except (VerificationError, UnsupportedModelError):
            self._require_one_network(given[str(model.graph.inputs[0].name)])
            raise

    def _require_one_network(self, x: Array) -> None:
        """Refuse a module of which the comparison failed because it is not the same each time."""
        if self.module is None:
            return
        from snncc.frontends.varying import require_one_network

        require_one_network(self.module, self._frames, x)

    def _halves(self, feeds: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Data to choose weights and bits with, and other data to measure what they change."""
        chosen = self.options
        chooses = self.bits == "auto" or chosen.rounding == "data"
        return halves(feeds) if chooses or chosen.bias_correction else (feeds, feeds)

    def _manager(
        self,
        contract: InputContract,
        feeds: Mapping[str, Array],
        calibration: Mapping[str, Array] | None,
    ) -> PassManager:
        from snncc.passes import PassManager, pipeline
        from snncc.passes.integers.fit_weights import wanted_fit
        from snncc.passes.integers.quantise_input import QuantiseInput

        source = QuantiseInput(
            floats(contract.scale, 1.0),
            floats(contract.offset, 0.0),
            real=contract.dtype == "float32",
        )
        chosen = self.options
        fit = wanted_fit(calibration, self.bits, chosen.rounding, chosen.bias_correction)
        masked = self.patches is not None
        judged = calibration
        if fit is not None and self.bits == "auto":  # rounding flatters its own data
            fitted, judged = halves(fit.feeds)
            fit = replace(fit, feeds=fitted)
        passes = pipeline(source, self.bits, judged, fit, masked)
        return PassManager(passes, feeds, self.dump_dir, self.steps.begin, _WANTED)

    def _layers(
        self, manager: PassManager, feeds: Mapping[str, Array], first: Mapping[str, Array]
    ) -> dict[str, Any]:
        """Every layer of the spike form by itself, fed with the integers of ``integer``.

        Of large networks the last pass has done that on few samples, ``first``.
        """
        from snncc.ir.validation import validate_translation

        done, elements = len(next(iter(first.values()))), manager.records[-1].elements
        samples = min(_CHECKED, len(next(iter(feeds.values()))))
        before, after = manager.stages["quantised"], manager.stages["spiking"]
        self.steps.begin("layer by layer", samples)
        self.steps.advance(done)
        for start in range(done, samples, done):
            part = {k: v[start : min(start + done, samples)] for k, v in feeds.items()}
            elements += sum(d.total for d in validate_translation(before, after, part, exact=True))
            self.steps.advance(len(next(iter(part.values()))))
        return {"engine": "spike-form", "samples": samples, "elements": elements, "mismatched": 0}

    def _program(self, manager: PassManager) -> Program:
        from snncc.passes.cut.host_head import hosted
        from snncc.passes.spikes.build_program import build_program

        program = build_program(manager.stages["quantised"], self.name)
        if self.host is not None:
            program = hosted(program, self.host)
        if self.options.target is not None:
            require_fit(program, self.options.target)
        return program

    def _measure(
        self, manager: PassManager, feeds: Mapping[str, Array], contract: InputContract
    ) -> Measured:
        from snncc.passes.integers.quantise_weights import squeezed
        from snncc.runtime.measure import measure, require_spikes

        self.steps.begin("measure", len(next(iter(feeds.values()))))
        integer, quantised = manager.after["fold-scale"], manager.stages["quantised"]
        is_own = self.origins.get("input_range") == OWN_GRID
        told = self.steps.advance
        is_real = contract.dtype == "float32" and not is_own

        def exactly(given: Mapping[str, Array]) -> dict[str, Array]:
            if contract.dtype != "uint8":
                return {}
            pixels = given[f"{contract.name}{PIXELS}"]
            if contract.patches:  # without the planes that say which patches are active
                pixels = pixels[:, : contract.shape[0]]
            return {contract.name: contract.exactly(pixels)}

        found = measure(self.trained, integer, quantised, feeds, self.host, told, is_real, exactly)
        require_spikes(found, squeezed(quantised))
        return found

    def _model(
        self,
        manager: PassManager,
        program: Program,
        contract: InputContract,
        report: dict[str, Any],
    ) -> CompiledModel:
        from snncc.ir.lineage import forget

        kept = self.options.keep_stages
        for graph in manager.stages.values():
            forget(graph)  # nothing is compared any more
        graphs = {
            stage: graph if kept or stage in RUNNABLE else summarised(graph)
            for stage, graph in manager.stages.items()
        }
        return CompiledModel(
            program,
            manifest_of(program, contract),
            LiveGraphs(graphs),
            report,
            keep_stages=kept,
        )


def _spread(feeds: Mapping[str, Array], count: int) -> dict[str, Array]:
    """So many samples from all over the data: the first of them may be alike."""
    size = len(next(iter(feeds.values())))
    chosen = [i * size // count for i in range(count)]
    return {name: x[chosen] for name, x in feeds.items()}
