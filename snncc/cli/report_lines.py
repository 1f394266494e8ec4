"""A compiled network in a few lines: what was lowered, what changed, what was proved and verified.

A figure that was not measured is called so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from snncc.cli.screen import file_size, human, number, percent, plural, size
from snncc.compiler.inputs import OWN_GRID
from snncc.runtime.contract import class_result

if TYPE_CHECKING:
    from snncc.program import Neuron, Program
    from snncc.runtime.artifact import CompiledModel
    from snncc.runtime.coding import Dataset
    from snncc.runtime.contract import InputContract, Result
    from snncc.runtime.report import (
        CoverageReport,
        FormCost,
        NoNeuronBetween,
        PassReport,
        Report,
        TargetReport,
        VerifyReport,
    )
    from snncc.runtime.result import Coverage

__all__ = [
    "KINDS_OF_RESULTS",
    "all_lines",
    "besides_lines",
    "fired",
    "found_neuron_lines",
    "mask_json",
    "mask_line",
    "network_line",
    "note_lines",
    "renamed_lines",
    "target_pieces",
    "zoo_lines",
]

Line = tuple[str, ...]

KINDS_OF_RESULTS = {
    "potential": "membrane potentials", "counts": "spike counts", "host": "of the host"
}  # fmt: skip

_PARTS = ("exact", "analog", "host", "approximate")
_MOST_NAMES = 3
#: Of layers with no neuron between that are named.
_PAIRS = 6


def all_lines(model: CompiledModel) -> list[Line]:
    """Label and pieces of every line, in order."""
    return [
        (*network_line(model.report.checkpoint, model.report.origins), _neurons(model)),
        *zoo_lines(model.report.checkpoint),
        *renamed_lines(model.report.checkpoint),
        *found_neuron_lines(model.report.origins.get("leaves", "")),
        _import(model),
        _input(model),
        *_calibration(model),
        *_mask(model),
        _lowered(model),
        *_results(model.results, model.program.timesteps),
        *_attention(model),
        *besides_lines(model.program.besides),
        _weights(model),
        *_trained(model),
        *_silent(model),
        *between_lines(model.report.no_neuron_between),
        *_squeezed(model),
        *_rounded_potentials(model),
        _latency(model),
        _bounds(model),
        *_memory(model),
        *_target(model),
        _verify(model),
    ]


def found_neuron_lines(found: str) -> list[Line]:
    """Neurons of the network's own code that were found by experiment."""
    return [("leaves", found, "found by experiment")] if found else []


def besides_lines(work: Mapping[str, int]) -> list[Line]:
    """What is computed beside synaptic operations, if anything is."""
    told = [f"{count:,} {what}" for what, count in work.items()]
    return [("besides", f"{', '.join(told)} per sample, counted apart from SOPs")] if work else []


def between_lines(pairs: Sequence[NoNeuronBetween]) -> list[Line]:
    """What became of layers with no neuron between, and what the other form would take of each."""
    lines: list[Line] = []
    for pair in pairs[:_PAIRS]:
        other = "graded" if pair.form == "merged" else "merged"
        costs = {form: getattr(pair, form) for form in (pair.form, other)}
        name = pair.module if pair.first == pair.module else f"{pair.first}, {pair.module}"
        told = [f"{form} {_cost(cost)}" for form, cost in costs.items() if cost is not None]
        lines.append(("no neuron", f"{name}: {told[0]} ({_WHY[pair.why]})", *told[1:]))
    if len(pairs) > _PAIRS:
        counts = Counter(pair.form for pair in pairs)
        many = ", ".join(f"{count} {form}" for form, count in sorted(counts.items()))
        lines.append(
            ("no neuron", f"{len(pairs)} pairs in all: {many}; either takes as many ticks")
        )
    return lines


def _cost(cost: FormCost) -> str:
    return f"{file_size(cost.weights)} and {human(cost.operations)} products"


#: Why a form was taken.
_WHY = {
    "cheaper": "less bytes times time",
    "asked": "as asked for",
    "only": "no other is exact",
    "room": "the other's potentials have too many bits",
}


def network_line(checkpoint: Mapping[str, Any] | None, origins: Mapping[str, str]) -> Line:
    """Where the weights come from."""
    if not checkpoint:
        return "network", "weights from the file itself"
    which, others = checkpoint["weights"], [*checkpoint["available"]]
    others.remove(which)
    is_choice = others and origins.get("weights") == "default"
    parts = [
        f"{which} weights",
        f"by default: {others[0]} is there, too" if is_choice else "",
        plural(checkpoint["parameters"], "param"),
        f"{len(checkpoint['missing'])} missing",
        f"{len(checkpoint['unexpected'])} unexpected",
        _states_left_out(checkpoint.get("states", [])),
        f"prefix '{checkpoint['stripped']}' taken off" if checkpoint["stripped"] else "",
        f"at {checkpoint['container']}" if checkpoint["container"] != "top level" else "",
    ]
    return "checkpoint", ", ".join(part for part in parts if part)


def _states_left_out(keys: list[str]) -> str:
    """What of the checkpoint is no weight: what neurons were left with when it was written."""
    if not keys:
        return ""
    more = ", …" if len(keys) > _MOST_NAMES else ""
    named = ", ".join(keys[:_MOST_NAMES]) + more
    return f"{plural(len(keys), 'state')} of neurons left out ({named})"


def renamed_lines(checkpoint: Mapping[str, Any] | None) -> list[Line]:
    """How many keys of the checkpoint were renamed, with one of them."""
    renamed = (checkpoint or {}).get("renamed")
    if not renamed:
        return []
    old, new = next(iter(renamed.items()))
    told = "by the module that SpikingJelly's containers put into keys, or leave out"
    return [("renamed", f"{plural(len(renamed), 'key')}, {old} -> {new} and so on: {told}")]


def zoo_lines(checkpoint: Mapping[str, Any] | None) -> list[Line]:
    """What weights do not carry, option by option with its origin, and what they told."""
    if not checkpoint or "zoo" not in checkpoint:
        return []
    zoo = checkpoint["zoo"]
    by_origin: dict[str, list[str]] = {}
    for key, (value, origin) in zoo["options"].items():
        by_origin.setdefault(origin, []).append(f"{key}={_word(value)}")
    parts = [f"{' '.join(found)} ({origin})" for origin, found in by_origin.items()]
    read = " ".join(f"{key}={_word(value)}" for key, value in zoo["read"].items())
    lines: list[Line] = [("zoo", zoo["name"], *parts), ("", f"{read} (from the weights)")]
    if left := zoo.get("left_out"):
        names = f"{', '.join(left)}: {sum(left.values()):,} of {checkpoint['parameters']:,} params"
        lines.append(("", f"loaded, and left out: {names}"))
    return lines


def _word(value: Any) -> str:
    """``32,64``, ``yes``, ``default``: a value without spaces."""
    if value is None or isinstance(value, bool):
        return {None: "default", True: "yes", False: "no"}[value]
    if isinstance(value, (list, tuple)):
        return ",".join(map(_word, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _neurons(model: CompiledModel) -> str:
    """``D=4 norm=1 half-even``, and where it comes from."""
    found = model.program.neurons
    if not found:
        return ""
    parts = [
        f"D={_span([n.D for n in found])}",
        f"norm={_span([n.norm for n in found])}",
        " and ".join(sorted({n.rounding for n in found})),
    ]
    origin = "module" if model.report.checkpoint else "graph"
    return f"{' '.join(parts)} (from the {origin})"


def _span(values: Collection[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g}..{high:g}"


def _names(names: Collection[str]) -> str:
    """``conv1, conv2, conv3 and 4 more``."""
    few = ", ".join(list(names)[:_MOST_NAMES])
    more = len(names) - _MOST_NAMES
    return f"{few} and {more} more" if more > 0 else few


# -- import and input ----------------------------------------------------------------------


def _import(model: CompiledModel) -> Line:
    law = model.report.import_law
    neurons, results = plural(law.neurons, "neuron layer"), plural(law.results, "result")
    of = model.report.verify.available
    return (
        "import",
        f"{neurons} and {results} compared with {law.against}, {_samples(law.samples, of)}: "
        f"{law.changed:,} of {law.activations:,} activations differ",
        f"values off by {law.worst:.1e} of sum|w||a| at most ({law.margin:.0e} allowed)",
    )


def _samples(count: int, of: int) -> str:
    """``8 of 256 samples``, or ``all 8 samples``."""
    return f"{count:,} of {plural(of, 'sample')}" if count < of else plural(of, "sample")


def _input(model: CompiledModel) -> Line:
    contract = model.input
    pieces = _raw_input(model, contract) if contract.dtype == "uint8" else _real_input(model)
    frames = f"{contract.timesteps} timesteps of " if contract.timesteps else ""
    head = f"{frames}{contract.dtype} {size(contract.shape)}"
    return ("input", f"{head}, {pieces}", _origins(model))


def _calibration(model: CompiledModel) -> list[Line]:
    """What calibration samples were taken for that they were not as stored."""
    note = model.report.origins.get("calibration")
    return [("data", f"calibration: {note}")] if note else []


def note_lines(notes: Sequence[str]) -> list[Line]:
    """What samples are taken for that they are not as stored, if anything."""
    return [("data", ", ".join(notes))] if notes else []


def _mask(model: CompiledModel) -> list[Line]:
    """The second input of a network that takes one."""
    if not model.input.patches:
        return []
    layers = sum(a.masked is not None for a in model.program.accumulators)
    origin = model.report.origins["mask"]
    pieces = f"{size(model.input.patches)} patches, a second input; masked pixels count as the mean"
    return [("mask", pieces, plural(layers, "masked layer"), f"(masks: {origin})")]


def mask_json(model: CompiledModel, read: Dataset) -> dict[str, Any] | None:
    """Which masks the samples had; None for a network that takes none."""
    if not model.input.patches:
        return None
    share = 1.0 if read.mask is None else float((read.mask != 0).mean())
    return {
        "patches": list(model.input.patches),
        "in_data": read.mask is not None,
        "active": share,
    }


def mask_line(found: dict[str, Any]) -> Line:
    """Such masks as people read them."""
    if not found["in_data"]:
        return "mask", "none in the data: all patches are active"
    return "mask", f"{size(found['patches'])} patches, {percent(found['active'])} active"


def _raw_input(model: CompiledModel, contract: InputContract) -> str:
    layers = model.report.analog
    maps = [a for a in model.program.accumulators if (a.module or a.name) in layers]
    borders = " incl. borders" if any(len(a.shape) > 1 and a.bias.ndim > 1 for a in maps) else ""
    folded = f"mean {_values(contract.mean)} std {_values(contract.std)} folded into"
    return f"{folded} {_names(layers)}{borders}: exact"


def _real_input(model: CompiledModel) -> str:
    step, low, top = _first(model.input.scale), model.input.low[0], model.input.top
    grid = f"quantised to {top + 1} steps of {step:.4g} from {low:.4g} to {low + top * step:.4g}"
    changed = model.report.changed_by_input
    if model.report.origins.get("input_range") == OWN_GRID:
        return f"{grid}: exact, as the network itself does"
    if changed is None:
        return f"{grid}: changes not measured"
    return f"{grid}: changes {percent(changed)} of activations"


def _first(value: float | tuple[float, ...]) -> float:
    return value[0] if isinstance(value, tuple) else value


def _values(values: tuple[float, ...]) -> str:
    return ",".join(f"{v:.4g}" for v in (values if len(set(values)) > 1 else values[:1]))


def _origins(model: CompiledModel) -> str:
    """``(shape, mean, std: the module's default_cfg; u8: default)``."""
    mode = "u8" if model.input.dtype == "uint8" else "f32"
    names = {"input_shape": "shape", "timesteps": "T", "mean": "mean", "std": "std",
             "input_range": "range"}  # fmt: skip
    groups: dict[str, list[str]] = {}
    for key, word in (names | {"input": mode}).items():
        if origin := model.report.origins.get(key):
            groups.setdefault(origin, []).append(word)
    text = "; ".join(f"{', '.join(words)}: {origin}" for origin, words in groups.items())
    return f"({text})" if text else ""


# -- what the compiler did -----------------------------------------------------------------


def _lowered(model: CompiledModel) -> Line:
    report, program = model.report, model.program
    parts = [
        f"{kind.upper()} {_part(kind, model.manifest['parts'][kind])}{_share(kind, model)}"
        for kind in _PARTS
        if kind != "approximate" or model.manifest["parts"][kind]
    ]
    return (
        "lowered",
        f"{report.activations_lowered}/{report.activations_found} activations "
        f"-> IF {_resets(program)} reset",
        f"T×D = {program.timesteps}×{program.ticks}",
        _folded(report.passes),
        " · ".join(parts),
    )


def _results(results: Sequence[Result], timesteps: int) -> list[Line]:
    """What a network gives that gives more than one thing."""
    if len(results) == 1:
        return []
    scores = class_result(results)
    told = f"class: of {scores.name}" if scores else "no class scores"
    return [("results", ", ".join(_result(r, timesteps) for r in results), told)]


def _result(result: Result, timesteps: int) -> str:
    steps = f"{timesteps} of " if timesteps > 1 and result.over_time == "each" else ""
    return f"{result.name} {steps}{size(result.shape)} {KINDS_OF_RESULTS[result.kind]}"


def _resets(program: Program) -> str:
    """How membranes are reset, in all ways that are there; without a memory it is soft."""
    from snncc.program import CARRIES

    found = {CARRIES[n.carry].reset for n in program.neurons}
    words = dict.fromkeys(rule.reset for rule in CARRIES.values())
    return ", ".join(word for word in words if word in found)


def _attention(model: CompiledModel) -> list[Line]:
    """How many, in which order of products, and what waits for them."""
    from snncc.program import Attention, Relay

    nodes = model.program.nodes
    found = [node for node in nodes if isinstance(node, Attention)]
    if not found:
        return []
    orders = {"kv": "q (k^T v)", "qk": "(q k^T) v"}
    counts = ((text, sum(n.order == order for n in found)) for order, text in orders.items())
    products = ", ".join(f"{count} as {text}" for text, count in counts if count)
    relays = sum(isinstance(node, Relay) for node in nodes)
    heads = f"{_span([node.heads for node in found])} heads"
    return [("attention", products, heads, f"{plural(relays, 'train')} relayed by a firing window")]


def _part(kind: str, names: list[str]) -> str:
    return str(len(names)) if kind == "exact" or not names else _names(names)


def _share(kind: str, model: CompiledModel) -> str:
    """How much of the work the host does, if any."""
    hosted = sum(o.weight.size for o in model.outputs if o.weight is not None)
    if kind != "host" or not hosted:
        return ""
    return f", {percent(hosted / (hosted + model.report.macs))} of MACs"


def _folded(passes: Collection[PassReport]) -> str:
    done = {record.name: record.rewrites for record in passes}
    norms = done.get("fold-batch-norm", 0)
    return f"folded: {plural(norms, 'batch norm')}" if norms else ""


def _weights(model: CompiledModel) -> Line:
    """Their bits, and what of the trained network they change."""
    report = model.report
    origin, compared = report.origins.get("weight_bits", "given"), report.compared
    is_auto = isinstance(report.weight_bits, str)
    head = _auto_bits(report.layer_bits) if is_auto else f"{report.weight_bits} bit ({origin}):"
    if compared is None:
        return "weights", f"{head} changes not measured (give --calibration DATA)"
    samples = plural(report.samples, "sample")
    changed = f"{percent(report.changed)} of {number(compared)} activations"
    same = f", same class for {percent(report.agreement)} of {samples}"
    classes = f", {samples}" if report.agreement is None else same
    told = f"{head} {changed} are not the trained network's{classes}"
    return "weights", told, _more_bits(report)


def _more_bits(report: Report) -> str:
    """How fewer activations would change, if it is the weights that change them."""
    chosen = report.weight_bits
    bits = max(report.layer_bits.values(), default=24) if isinstance(chosen, str) else chosen
    if not report.changed_teacher_forced or bits >= 24 or report.target is not None:
        return ""
    return f"(--weight-bits {16 if bits < 16 else 24} for fewer)"


def _trained(model: CompiledModel) -> list[Line]:
    """What the trained network's own float32 leaves open, so that it is no change of ours."""
    found, compared = model.report.float32, model.report.compared
    if found is None or compared is None:
        return []
    differs = f"{found.activations:,} of {number(compared)} activations"
    if found.classes is not None:
        samples = plural(model.report.samples, "sample")
        differs += f" and in the class of {found.classes} of {samples}"
    what = f"float32 and float64 of the trained network differ in {differs}"
    return [("trained", what, f"(float32: {found.of}; compared is float64)")]


def _silent(model: CompiledModel) -> list[Line]:
    """Populations about which nothing was learnt."""
    found = model.report.silent
    if not found:
        return []
    samples = plural(model.report.samples or model.report.verify.samples, "sample")
    what = f"{plural(len(found), 'population')} silent in {samples}: {_names(found)}"
    return [("warning", f"{what}; nothing is shown by comparing them")]


def _squeezed(model: CompiledModel) -> list[Line]:
    """Layers with fewer bits than asked for, who takes the room, and why that may be."""
    found = model.report.squeezed
    if not found:
        return []
    worst = min(found, key=lambda layer: layer.bits_left - layer.bits)
    others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    left = f"{worst.module}{others} has {worst.bits_left:.0f} of {worst.bits} weight bits"
    still = model.report.still_norms
    return [
        (
            "squeezed",
            f"{left}: {worst.by} takes its potential up to {worst.reach:.2g} thresholds",
            f"variance 0: {_names(still)}" if still else "",
            "(leave it out, or train on)",
        )
    ]


def _rounded_potentials(model: CompiledModel) -> list[Line]:
    """Potentials of which layers do not read the lowest bits, and the one that lacks most."""
    read = [(p.drop, a.module or a.name) for a in model.program.accumulators for p in a.projections]
    found = [(drop, module) for drop, module in read if drop]
    if not found:
        return []
    drop, module = max(found)
    many = plural(len(found), "potential")
    what = f"{many} before layers with no neuron between, by up to {plural(drop, 'bit')} ({module})"
    return [("rounded", f"{what}, so that all fit 62 bits; what that changes is in weights")]


def _auto_bits(layers: Mapping[str, int]) -> str:
    """Which layers got more than the fewest, of as many as there are."""
    fewest = min(layers.values(), default=0)
    more = [f"{name} {bits}" for name, bits in layers.items() if bits > fewest]
    return f"{fewest} bit (auto; {', '.join(more) or 'all layers'}):"


def _latency(model: CompiledModel) -> Line:
    program, noun = model.program, "image" if len(model.input.sample) == 3 else "sample"
    windows = plural(program.timesteps * program.windows, "firing window")
    interval = program.timesteps * program.ticks
    ticks = program.timesteps * program.latency
    return "latency", f"{windows} = {ticks} ticks; pipelined 1 {noun} / {plural(interval, 'tick')}"


def _memory(model: CompiledModel) -> list[Line]:
    """Which populations' membranes are rounded from timestep to timestep, and how."""
    program = model.program
    found = [(n, why) for n in program.neurons if (why := _how_rounded(n, program.timesteps))]
    if not found:
        return []
    whose = ", ".join(f"{node.module or node.name} {why}" for node, why in found[:_MOST_ROUNDED])
    more = f", and {len(found) - _MOST_ROUNDED} more" if len(found) > _MOST_ROUNDED else ""
    told = "part of what is measured as weights"
    return [("memory", f"membranes rounded: {whose}{more}", told)]


#: Populations that are named in a line.
_MOST_ROUNDED = 3


def _how_rounded(node: Neuron, timesteps: int) -> str:
    """How a membrane is rounded; empty: it is exact, or it has no time to be."""
    from snncc.program.membrane import is_simple

    if not node.remembers or timesteps == 1:
        return ""
    if not all(map(is_simple, (node.decay, node.current))):
        return f"(a decay to 16 bits, {node.fraction} further bits)"
    exact = max(node.decay[1], node.current[1]) * (timesteps - 1)
    if node.fraction >= exact:
        return ""
    return f"({node.fraction} of {exact} further bits that are exact)"


def _bounds(model: CompiledModel) -> Line:
    report = model.report
    slices = max(report.bounds, key=lambda b: b.slice_bits)
    total = max(report.bounds, key=lambda b: b.bits)
    ties = "ties not measured" if report.ties is None else f"ties met {number(report.ties)}"
    return (
        "bounds",
        f"worst sum 2^{slices.slice_bits - 1} of 2^31 ({slices.module})",
        f"worst potential 2^{total.bits - 1} of 2^62 ({total.module})",
        ties,
        f"saturated at D {percent(report.saturated)}",
    )


def _target(model: CompiledModel) -> list[Line]:
    found = model.report.target
    return [("target", *target_pieces(found))] if found else []


def target_pieces(found: TargetReport) -> list[str]:
    """What the network would take of a chip; never that it runs there."""
    limits, bits = found.limits, found.state_bits
    pieces = [f"{found.name}: potentials take {bits} of {limits.state_bits} bits, proved"]
    if not found.fits_bits:
        words = f"{limits.weight_bits}-bit weights, {limits.state_bits}-bit potentials"
        pieces = [f"{found.name}: does not fit its bits ({words})"]
    cores = f"{_cores(found.cores_shared)} of {limits.cores} cores"
    unrolled = f"{_cores(found.cores_unrolled)} if every synapse is stored"
    verdict = "feasible" if found.feasible else "not feasible"
    return [*pieces, f"{cores} ({unrolled}): {verdict} under the assumed layout"]


def _cores(count: int | None) -> str:
    return "too many" if count is None else f"{count:,}"


# -- what was verified ---------------------------------------------------------------------


def _verify(model: CompiledModel) -> Line:
    verdict = model.report.verify
    covered = verdict.coverage
    samples = _samples(verdict.samples, verdict.available)
    kind = "" if model.report.samples else " of noise"
    differ = f"{verdict.mismatched:,} of {covered.spikes:,} spikes differ"
    return (
        "verify",
        f"{samples}{kind}: {', '.join(verdict.engines)} == integer, {differ}",
        fired(covered),
        _layer_by_layer(verdict),
    )


def _layer_by_layer(verdict: VerifyReport) -> str:
    """What was compared on more samples than the whole network was; nothing if none were."""
    layers = verdict.layers
    if layers.samples <= verdict.samples:
        return ""
    samples = plural(layers.samples, "sample")
    return (
        f"{samples} layer by layer, {layers.engine} fed with the counts of integer: "
        f"{layers.mismatched:,} of {layers.elements:,} values differ"
    )


def fired(covered: Coverage | CoverageReport) -> str:
    """How many populations fired, and the names of those about which nothing was learnt."""
    text = f"{covered.fired}/{covered.populations} populations fired"
    if covered.silent:
        text += f"; vacuous for the silent ones: {_names(covered.silent)}"
    return text
