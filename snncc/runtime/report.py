"""The report of a compilation: what the compiler did, proved, measured and verified.

``report.json`` of a ``.snn`` file and ``--json`` hold its fields under their names;
``docs/report.schema.json`` says the same as a JSON schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache, partial
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from snncc.backends.chip.chips import Chip, Demand
from snncc.errors import BadInputError
from snncc.runtime.contract import InputContract

__all__ = [
    "REPORT_VERSION",
    "Bound",
    "CoverageReport",
    "EngineReport",
    "Float32Report",
    "FormCost",
    "ImportReport",
    "LayerReport",
    "LayersCompared",
    "NoNeuronBetween",
    "Observed",
    "PassReport",
    "Report",
    "Squeezed",
    "TargetReport",
    "VerifyReport",
    "decode",
    "encode",
]

T = TypeVar("T")

#: Version of the keys and their meaning. Files that were written before there was one have none,
#: and the keys of version 1.
REPORT_VERSION = 1


# -- its parts -----------------------------------------------------------------------------


@dataclass(frozen=True)
class PassReport:
    """What one pass did.

    Attributes:
        name: Of the pass.
        rewrites: Places that it rewrote.
        checked: Values that were compared before and after; 0: none.
        worst: Largest change of one, relative to the sum of abs(weight * activation) behind it.
    """

    name: str
    rewrites: int
    checked: int
    worst: float


@dataclass(frozen=True)
class ImportReport:
    """The imported graph beside the trained network itself, each value on the network's own.

    Attributes:
        against: What the graph was compared with.
        samples: On how many.
        neurons: Activations that become neurons; all of them were compared.
        results: Results, likewise.
        values: Values compared, these included.
        elements: Numbers that these hold.
        worst: Largest change of one, relative to the sum of abs(weight * activation) behind it.
        changed: Activations that differ end to end (counted, not judged).
        activations: Of so many.
        margin: What is allowed of ``worst``.
    """

    against: str
    samples: int
    neurons: int
    results: int
    values: int
    elements: int
    worst: float
    changed: int
    activations: int
    margin: float


@dataclass(frozen=True)
class LayerReport:
    """One population; without calibration data all from ``changed`` on is left out.

    Attributes:
        module: Module path.
        population: Its name.
        shape: Of one sample.
        D: Ticks, and its highest spike count.
        rounding: At its levels; of neurons with memory how they compare.
        window: The firing window in which it fires.
        changed: Share of its activations that are not the trained network's, end to end.
        changed_teacher_forced: Share that its own weight quantisation alone changes.
        saturated: Share of its spike counts that are D.
        ties: Potentials of the trained network exactly on a rounding border.
        spikes: All counts.
        trained_spikes: Those of the trained network.
    """

    module: str
    population: str
    shape: tuple[int, ...]
    D: int
    rounding: str
    window: int
    changed: float | None = None
    changed_teacher_forced: float | None = None
    saturated: float | None = None
    ties: int | None = None
    spikes: int | None = None
    trained_spikes: int | None = None


@dataclass(frozen=True)
class Float32Report:
    """What the trained network's own float32 decides otherwise than its float64.

    Attributes:
        of: Whose float32.
        activations: Decided otherwise.
        classes: Samples in another class; None where the result is a map.
    """

    of: str
    activations: int
    classes: int | None


@dataclass(frozen=True)
class Squeezed:
    """A layer with fewer bits than were asked for, as another fills its potential.

    Attributes:
        module: Module path of the layer.
        bits: Asked for.
        bits_left: To its weights.
        by: Module path of the other one.
        reach: How far that takes the potential, in thresholds.
    """

    module: str
    bits: int
    bits_left: float
    by: str
    reach: float


@dataclass(frozen=True)
class FormCost:
    """What a form of two layers with no neuron between takes.

    Attributes:
        weights: Bytes of weights, in slices of 8 bits, and of bias maps.
        operations: Multiplications per sample and timestep, if every input comes.
        payloads: Those of them whose input is a graded payload.
    """

    weights: int
    operations: int
    payloads: int


@dataclass(frozen=True)
class NoNeuronBetween:
    """What became of two layers with no neuron between; either form takes as many ticks.

    Attributes:
        first: Module path of the first; of a sum of layers that of its reader.
        module: Module path of the second.
        form: ``merged``: one layer; ``graded``: the second reads the first one's potential.
        why: ``cheaper``, ``asked``, ``only``: no other form is exact, or ``room``: the other form's
            potentials have too many bits.
        merged, graded: Costs of both forms; None: there is no such form.
    """

    first: str
    module: str
    form: str
    why: str
    merged: FormCost | None
    graded: FormCost | None


@dataclass(frozen=True)
class Bound:
    """Proved range of a membrane potential.

    Attributes:
        module: Module path of the layer.
        accumulator: Its name in the Program.
        low, high: Smallest and largest value.
        bits: Of these, sign included.
        slice_bits: Of the largest sum over one weight slice, which is kept in 32 bits.
    """

    module: str
    accumulator: str
    low: int
    high: int
    bits: int
    slice_bits: int


@dataclass(frozen=True)
class Observed:
    """Membrane potentials on data.

    Attributes:
        samples: How many.
        ranges: Accumulator -> (smallest, largest).
        notes: What the samples were taken for that they were not as stored.
    """

    samples: int
    ranges: Mapping[str, tuple[int, int]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TargetReport:
    """What the network would take of a chip, under an assumed layout.

    Attributes:
        name: Of the chip.
        limits: What the chip holds.
        layout: What is assumed, for people.
        state_bits: Most that a potential takes, sign included.
        neurons, synapses, weight_bytes: Of all layers.
        cores_shared: Cores, if neurons of a channel share its weights; None: too many.
        cores_unrolled: Cores, if every synapse is stored; None: too many.
        fits_bits: Weights and potentials fit the chip's bits.
        feasible: ``cores_shared`` are there.
        layers: Layer by layer.
    """

    name: str
    limits: Chip
    layout: str
    state_bits: int
    neurons: int
    synapses: int
    weight_bytes: int
    cores_shared: int | None
    cores_unrolled: int | None
    fits_bits: bool
    feasible: bool
    layers: tuple[Demand, ...]


@dataclass(frozen=True)
class EngineReport:
    """One engine against ``integer``.

    Attributes:
        populations: Compared.
        spikes: Fired by ``integer`` over all samples.
        elements: Counts, readouts and spike trains compared.
        mismatched: Of them differ.
        differences: The populations and readouts that differ.
        ran: What an engine that runs elsewhere says of its runs.
    """

    populations: int
    spikes: int
    elements: int
    mismatched: int
    differences: tuple[Mapping[str, Any], ...]
    ran: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class CoverageReport:
    """What the comparison has exercised: for silent populations it says nothing.

    Attributes:
        populations: How many there are.
        fired: Of them did.
        silent: Names of the others.
        levels: Population -> (highest level reached, D).
        spikes: Compared, over all populations and samples.
        samples: How many.
    """

    populations: int
    fired: int
    silent: tuple[str, ...]
    levels: Mapping[str, tuple[int, int]]
    spikes: int
    samples: int


@dataclass(frozen=True)
class LayersCompared:
    """Every layer by itself, fed with the counts of ``integer``.

    Attributes:
        engine: What computed it.
        samples: On how many.
        elements: Numbers compared.
        mismatched: Of them differ.
    """

    engine: str
    samples: int
    elements: int
    mismatched: int


@dataclass(frozen=True)
class VerifyReport:
    """All engines beside ``integer``.

    Attributes:
        samples: On how many.
        available: Samples there were.
        mismatched: Differences over all engines.
        stored: Differences from vectors that a file held.
        engines: By name.
        coverage: What the samples exercised.
        layers: Every layer by itself.
    """

    samples: int
    available: int
    mismatched: int
    stored: tuple[Mapping[str, Any], ...]
    engines: Mapping[str, EngineReport]
    coverage: CoverageReport
    layers: LayersCompared


# -- the whole -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """What the compiler did, proved, measured and verified; built once.

    Without calibration data all that is measured on it is None.

    Attributes:
        activations_found: In the trained network.
        activations_lowered: Populations of the Program.
        macs: Multiply-accumulates of a sample, the host's left out.
        target: What the network was compiled for and would take of it, or None.
        weight_bits: As chosen; or ``auto``.
        layer_bits: Module path -> bits of its weights.
        squeezed: Layers with fewer bits than were asked for.
        still_norms: Batch norms with channels of variance 0, which is mostly why.
        no_neuron_between: What became of layers with no neuron between.
        samples: Calibration samples that changes were measured on; 0: none.
        compared: Activations compared on them.
        agreement: Share of samples with the trained network's class; None for results that are
            maps.
        changed: Share of ``compared`` that differ, end to end, from the trained network in float64.
        changed_teacher_forced: Share that each layer's own rounding changes.
        changed_by_input: Share that input quantisation changes; 0 where it is not ours.
        float32: Where the trained network's own float32 is not its float64: no change of ours.
        saturated: Share of spike counts that are D.
        ties: Potentials of the trained network exactly on a rounding border.
        layers: Population by population, in topological order.
        analog: Layers that read the input: multi-bit integers, not spikes.
        windows: Firing windows.
        latency_ticks: Ticks from the input to the result, of a timestep.
        bounds: Proved range of every membrane potential.
        passes: What each did, in order.
        import_law: The imported graph beside the trained network.
        input: How samples become integers.
        origins: Option -> where its value came from.
        observed: Membrane potentials on calibration data, or None.
        verify: All engines beside ``integer``.
        silent: Modules of populations that never fired.
        checkpoint: What became of the checkpoint, if there was one.
    """

    activations_found: int
    activations_lowered: int
    macs: int
    target: TargetReport | None
    weight_bits: int | str
    layer_bits: Mapping[str, int]
    squeezed: tuple[Squeezed, ...]
    still_norms: tuple[str, ...]
    no_neuron_between: tuple[NoNeuronBetween, ...]
    samples: int
    compared: int | None
    agreement: float | None
    changed: float | None
    changed_teacher_forced: float | None
    changed_by_input: float | None
    float32: Float32Report | None
    saturated: float | None
    ties: int | None
    layers: tuple[LayerReport, ...]
    analog: tuple[str, ...]
    windows: int
    latency_ticks: int
    bounds: tuple[Bound, ...]
    passes: tuple[PassReport, ...]
    import_law: ImportReport
    input: InputContract
    origins: Mapping[str, str]
    observed: Observed | None
    verify: VerifyReport
    silent: tuple[str, ...]
    checkpoint: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data, with its version."""
        return {"version": REPORT_VERSION, **encode(self)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Report:
        """The report of ``to_json``.

        Raises:
            BadInputError: Of another version, or a value is missing or of the wrong type.
        """
        version = data.get("version", REPORT_VERSION)
        if version != REPORT_VERSION:
            raise BadInputError(f"version {version!r}; this snncc reads {REPORT_VERSION}")
        return decode(Report, {k: v for k, v in data.items() if k != "version"})


# -- dataclasses as plain data and back ----------------------------------------------------


def encode(value: Any) -> Any:
    """Plain data; a field that has its default is left out."""
    if is_dataclass(value) and not isinstance(value, type):
        if isinstance(value, InputContract):
            return value.to_json()
        held = {f.name: (getattr(value, f.name), f.default) for f in fields(value)}
        return {name: encode(v) for name, (v, default) in held.items() if v != default}
    if isinstance(value, Mapping):
        return {str(k): encode(v) for k, v in value.items()}
    return [encode(v) for v in value] if isinstance(value, (list, tuple)) else value


def decode(kind: type[T], value: Any, where: str = "") -> T:
    """Plain data as an instance of a dataclass, every value of the type of its field.

    Args:
        kind: The dataclass; its fields may be dataclasses, tuples and mappings of them.
        value: What ``encode`` made of it.
        where: What it is, for messages.

    Raises:
        BadInputError: A value is missing, unknown or of another type; the first such is named.
    """
    read: Callable[[Any, str], T] = _decoder(kind)  # type: ignore[arg-type]
    return read(value, where)


@cache
def _decoder(kind: Any) -> Callable[[Any, str], Any]:
    """What reads values of a type."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is InputContract:
        return lambda value, _: InputContract.from_json(value)
    if is_dataclass(kind):
        return partial(_read_fields, kind)
    if origin is UnionType:
        return partial(_read_one_of, inner)
    if origin is tuple:
        return partial(_read_tuple, inner)
    if origin is Mapping:
        return partial(_read_mapping, inner[1])
    return partial(_read_plain, (int, float) if kind is float else kind)


def _read_fields(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong(where, "an object", value)
    hints, names = get_type_hints(kind), [f.name for f in fields(kind)]
    needed = {f.name for f in fields(kind) if f.default is MISSING}
    if missing := sorted(needed - value.keys()):
        raise BadInputError(f"{_at(where)}no '{missing[0]}'")
    if unknown := sorted(value.keys() - set(names)):
        raise BadInputError(f"{_at(where)}unknown '{unknown[0]}'")
    return kind(**{k: _decoder(hints[k])(v, f"{where}.{k}") for k, v in value.items()})


def _read_one_of(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    """Of several types; one that can be None or something else is read as that."""
    if NoneType in kinds and value is None:
        return None
    others = [kind for kind in kinds if kind is not NoneType]
    if len(others) == 1:
        return _decoder(others[0])(value, where)
    return _read_plain(tuple(others), value, where)


def _read_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise _wrong(where, "an array", value)
    each = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
    if len(each) != len(value):
        raise _wrong(where, f"an array of {len(each)}", value)
    pairs = enumerate(zip(each, value, strict=True))
    return tuple(_decoder(kind)(v, f"{where}.{i}") for i, (kind, v) in pairs)


def _read_mapping(kind: Any, value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(where, "an object", value)
    return {k: _decoder(kind)(v, f"{where}.{k}") for k, v in value.items()}


def _read_plain(kinds: Any, value: Any, where: str) -> Any:
    """A number, a text or a truth value; a truth value is no number."""
    if kinds is Any:
        return value
    is_other = isinstance(value, bool) and kinds is not bool
    if is_other or not isinstance(value, kinds):
        told = kinds if isinstance(kinds, tuple) else (kinds,)
        raise _wrong(where, " or ".join(kind.__name__ for kind in told), value)
    return value


def _wrong(where: str, expected: str, value: Any) -> BadInputError:
    return BadInputError(f"{_at(where)}{repr(value)[:40]} where {expected} is expected")


def _at(where: str) -> str:
    return f"{where.removeprefix('.')}: " if where else ""
