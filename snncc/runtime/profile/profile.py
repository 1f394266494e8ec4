"""The profile of a network on samples: what fired, how much work that was, and what it takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

from snncc.errors import UsageError
from snncc.program import Accumulator, Neuron, Program
from snncc.program.nodes.attention import Attention
from snncc.program.nodes.base import Node
from snncc.runtime.bounds import bits_of
from snncc.runtime.profile.counting import Counted, clock_ticks
from snncc.runtime.profile.energy import (
    NETWORKS,
    Energy,
    Neurons,
    energy_of,
    formula,
    published_energy,
)
from snncc.runtime.profile.models import EnergyModel
from snncc.runtime.profile.work import Work, works
from snncc.runtime.summary import Summary

if TYPE_CHECKING:
    from snncc.runtime.plots import Picture

__all__ = ["Layer", "Population", "Profile", "profile_of"]

_FORMAT = "snncc-profile"
_VERSION = 1

#: Counts of a layer that are sums over its projections.
_SUMS = (
    "weights", "weight_bytes", "synapses", "dense", "sops", "acs", "macs", "effective_macs", "adds",
    "ann_dense", "ann_nonzero", "ann_macs",
)  # fmt: skip


@dataclass(frozen=True)
class Population:
    """How one population fired; per sample where nothing else is said.

    Attributes:
        name, module, shape, neurons: Of the population.
        D: Ticks of its burst.
        timesteps: T.
        window: The firing window of timestep 0; in timestep t it fires that many windows later.
        nsfr: Share of its neurons that fire in each tick of their own windows, [T][D].
        nsfr_clock: Spikes per neuron and clock tick, over all ticks of a sample.
        mean_count: Spikes per neuron and timestep.
        nonzero, saturated: Shares of spike counts that are not 0, that are D.
        histogram: How often a spike count was 0, 1, … D, over all samples.
        silent: Neurons that never fired in any sample.
        spikes: Fired.
        sops, acs: What those spikes caused in all layers.
        updates: How often one of its neurons is compared with a level.
        state_bits: Of one membrane, as proved.
        state_bytes: Of all.
    """

    name: str
    module: str
    shape: tuple[int, ...]
    neurons: int
    D: int
    timesteps: int
    window: int
    nsfr: tuple[tuple[float, ...], ...]
    nsfr_clock: float
    mean_count: float
    nonzero: float
    saturated: float
    histogram: tuple[int, ...]
    silent: int
    spikes: float
    sops: float
    acs: float
    updates: int
    state_bits: int
    state_bytes: int


@dataclass(frozen=True)
class Layer:
    """What leads into one accumulator, attention or host layer; per sample.

    Attributes:
        name, module: Of the node.
        kind: That of its projections; ``a + b`` of several.
        neurons: Of the populations that read it.
        updates: Of those neurons.
        state_bytes: Of the potentials of the layer.
        state_touched: Bytes of potentials read and written.
        weights_touched: Bytes of weights read.
        work: Sums over its projections, by the names of ``Work``.
        energy: By the name of the model.
        outputs: Of the populations that read it, what energy depends on.
    """

    name: str
    module: str
    kind: str
    neurons: int
    updates: int
    state_bytes: int
    state_touched: float
    weights_touched: float
    work: Mapping[str, float]
    energy: Mapping[str, Energy]
    outputs: tuple[Neurons, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data; counts beside the rest."""
        inner = ("work", "energy", "outputs")
        plain = {k: v for k, v in vars(self).items() if k not in inner}
        energy = {name: found.to_json() for name, found in self.energy.items()}
        return {**plain, **self.work, "energy": energy}


@dataclass(frozen=True)
class Events:
    """Spikes in the clock ticks of a sample.

    Attributes:
        per_tick: Mean over the samples.
        mean: Over the ticks.
        peak: The most that one sample had in one tick.
    """

    per_tick: tuple[float, ...]
    mean: float
    peak: int


@dataclass(frozen=True, repr=False)
class Profile:
    """What a network did and takes; counts are per sample.

    Attributes:
        name, hash: Of the artefact.
        engine, data: What ran it, and on what.
        samples: How many.
        timesteps, ticks, windows, clock_ticks: T, D, firing windows, ticks of a sample.
        static: Whether a sample is shown in every timestep.
        populations, projections, layers: In the order of the Program.
        events: By clock tick.
        besides: What is computed beside synaptic operations: what -> how often.
        models: What energy is told under.
        energy: By the name of the model, of the whole network.
        maps: Spike counts of the first samples, if asked for.
    """

    name: str
    hash: str
    engine: str
    data: str
    samples: int
    timesteps: int
    ticks: int
    windows: int
    clock_ticks: int
    static: bool
    populations: tuple[Population, ...]
    projections: tuple[Work, ...]
    layers: tuple[Layer, ...]
    events: Events
    besides: Mapping[str, int]
    models: tuple[EnergyModel, ...]
    energy: Mapping[str, Energy]
    maps: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def spikes(self) -> float:
        """Of all populations."""
        return sum(p.spikes for p in self.populations)

    @property
    def neurons(self) -> int:
        """Of all populations."""
        return sum(p.neurons for p in self.populations)

    @property
    def nsfr(self) -> tuple[tuple[float, ...], ...]:
        """Share of all neurons that fire in each tick of their own windows, [T][D]."""
        return tuple(
            tuple(self._fire(t, d) / max(self.neurons, 1) for d in range(self.ticks))
            for t in range(self.timesteps)
        )

    def _fire(self, t: int, d: int) -> float:
        """How many neurons, on the average."""
        return sum(p.nsfr[t][d] * p.neurons for p in self.populations if d < p.D)

    @property
    def nsfr_clock(self) -> float:
        """Spikes per neuron and clock tick."""
        return self.spikes / max(self.neurons * self.clock_ticks, 1)

    def total(self, name: str) -> float:
        """A count of ``Work`` summed over all projections."""
        return float(sum(getattr(w, name) for w in self.projections))

    # -- to be looked at ---------------------------------------------------------------------------

    def plot_nsfr(self) -> Picture:
        """Share of each population's neurons that fire in each tick of their windows.

        Raises:
            MissingDependencyError: Without matplotlib.
        """
        from snncc.runtime.plots import nsfr_picture

        return nsfr_picture(self._rates())

    def plot_energy(self) -> Picture:
        """Energy under each model beside networks that do not spike, and where the layers stand.

        Published accountings are left out, which say nothing of these.

        Raises:
            MissingDependencyError: Without matplotlib.
            UsageError: The profile has no other models.
        """
        from snncc.runtime.plots import energy_picture

        return energy_picture(*self._energies())

    def plot(self) -> Picture:
        """Both, side by side; see ``plot_energy``."""
        from snncc.runtime.plots import overview

        return overview(self._rates(), *self._energies())

    def _rates(self) -> list[tuple[str, tuple[tuple[float, ...], ...]]]:
        return [(p.module or p.name, p.nsfr) for p in self.populations]

    def _energies(self) -> tuple[dict[str, Energy], list[tuple[str, Energy]]]:
        names = [m.name for m in self.models if not m.is_published]
        if not names:
            told = "a picture needs a model of operations, such as 45nm-int8, not only accountings"
            raise UsageError(told)
        layers = [(x.module or x.name, x.energy[names[-1]]) for x in self.layers]
        return {name: self.energy[name] for name in names}, layers

    def _summary(self) -> Summary:
        title = (
            f"Profile of '{self.name}' on {self.engine}, {self.samples:,} samples; per sample "
            f"{self.spikes:,.1f} spikes, {self.total('sops'):,.1f} SOPs, {self.total('macs'):,.0f} "
            "MACs; energy in µJ"
        )
        rows = [
            (name, *(_micro(getattr(e, network)) for network in NETWORKS))
            for name, e in self.energy.items()
        ]
        return Summary(title, ("model", "spiking", "dense", "quantised", "skipping zeros"), rows)

    def __repr__(self) -> str:
        return self._summary().text()

    def _repr_html_(self) -> str:
        return self._summary().html()

    # -- as a file ---------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Plain data, as ``docs/profile.md`` says."""
        head = ("name", "hash", "engine", "data", "samples", "timesteps", "ticks", "windows")
        totals = ("sops", "acs", "macs", "effective_macs", "dense", "adds", "weight_bytes")
        return {
            "format": _FORMAT,
            "version": _VERSION,
            **{name: getattr(self, name) for name in (*head, "clock_ticks", "static")},
            **{name: getattr(self, name) for name in ("neurons", "nsfr", "nsfr_clock", "spikes")},
            **{name: sum(getattr(w, name) for w in self.projections) for name in totals},
            **{name: sum(getattr(x, name) for x in self.layers) for name in _OF_LAYERS},
            "besides": dict(self.besides),
            "events": asdict(self.events),
            "energy_pj": {name: found.snn for name, found in self.energy.items()},
            "energy": {m.name: _model_json(m, self.energy[m.name]) for m in self.models},
            "populations": [asdict(p) for p in self.populations],
            "projections": [w.to_json() for w in self.projections],
            "layers": [layer.to_json() for layer in self.layers],
            "maps": self.maps,
        }


def _micro(picojoules: float | None) -> str:
    return "-" if picojoules is None else f"{picojoules / 1e6:.4g}"


_OF_LAYERS = ("updates", "state_bytes", "state_touched", "weights_touched")


def _model_json(model: EnergyModel, energy: Energy) -> dict[str, Any]:
    return {
        "description": model.description,
        "accounting": model.accounting,
        "formula": formula(model),
        "constants": model.constants,
        "sources": list(model.sources),
        **energy.to_json(),
    }


# -- assembling ------------------------------------------------------------------------------------


def profile_of(
    program: Program, counted: Counted, models: Sequence[EnergyModel], **head: Any
) -> Profile:
    """The profile of what was counted.

    Args:
        program: What ran.
        counted: Over at least one sample.
        models: Of energy.
        **head: Further fields of ``Profile``: ``hash``, ``engine``, ``data``, ``maps``.
    """
    projections = works(program, counted)
    layers = tuple(_layers(program, counted, projections, models))
    every = [n for node in program.nodes for n in _neurons_of(program, counted, node.name)]
    return Profile(
        name=program.name,
        samples=counted.samples,
        timesteps=program.timesteps,
        ticks=program.ticks,
        windows=program.windows,
        clock_ticks=clock_ticks(program),
        static=counted.is_static,
        populations=tuple(_population(program, counted, projections, n) for n in program.neurons),
        projections=projections,
        layers=layers,
        events=_events(counted),
        besides=program.besides,
        models=tuple(models),
        energy={m.name: _energy(m, projections, every, program.timesteps) for m in models},
        **head,
    )


def _energy(
    model: EnergyModel, projections: Sequence[Work], neurons: Sequence[Neurons], timesteps: int
) -> Energy:
    if model.is_published:
        return published_energy(model, projections, timesteps)
    return energy_of(model, projections, neurons)


def _events(counted: Counted) -> Events:
    per_tick = tuple(float(n) / counted.samples for n in counted.per_tick)
    return Events(per_tick, sum(per_tick) / max(len(per_tick), 1), counted.peak)


def _population(
    program: Program, counted: Counted, projections: Iterable[Work], neuron: Neuron
) -> Population:
    found, samples = counted.populations[neuron.name], counted.samples
    neurons, T = prod(neuron.shape), program.timesteps
    histogram = [int(n) for n in found.histogram]
    total, spikes = sum(histogram), int(found.by_tick.sum())
    bits = _state_bits(program, neuron)
    return Population(
        name=neuron.name,
        module=neuron.module,
        shape=tuple(neuron.shape),
        neurons=neurons,
        D=neuron.D,
        timesteps=T,
        window=neuron.depth,
        nsfr=tuple(tuple(float(n) / (samples * neurons) for n in row) for row in found.by_tick),
        nsfr_clock=spikes / (samples * neurons * clock_ticks(program)),
        mean_count=spikes / total,
        nonzero=1 - histogram[0] / total,
        saturated=histogram[-1] / total,
        histogram=tuple(histogram),
        silent=int((~found.fired).sum()),
        spikes=spikes / samples,
        sops=sum(w.sops_of.get(neuron.name, 0.0) for w in projections),
        acs=sum(w.acs_of.get(neuron.name, 0.0) for w in projections),
        updates=neurons * neuron.D * T,
        state_bits=bits,
        state_bytes=_bytes(neurons, bits),
    )


def _state_bits(program: Program, neuron: Neuron) -> int:
    """Of what is compared with its levels."""
    source = program.by_name[neuron.source]
    assert isinstance(source, Accumulator)
    potential = source.potential_bounds(program.by_name)
    return bits_of(*neuron.membrane_bounds(program.timesteps, potential))


def _bytes(count: int, bits: int) -> int:
    """Of numbers stored side by side."""
    return (count * bits + 7) // 8


# -- layers ----------------------------------------------------------------------------------------


def _layers(
    program: Program,
    counted: Counted,
    projections: Sequence[Work],
    models: Sequence[EnergyModel],
) -> Iterable[Layer]:
    by_target: dict[str, list[Work]] = {}
    for work in projections:
        by_target.setdefault(work.target, []).append(work)
    for target, found in by_target.items():
        yield _layer(program, counted, program.by_name[target], found, models)


def _layer(
    program: Program,
    counted: Counted,
    node: Node,
    found: Sequence[Work],
    models: Sequence[EnergyModel],
) -> Layer:
    readers = [n for n in program.neurons if n.source == node.name]
    updates = sum(prod(n.shape) * n.D for n in readers) * program.timesteps
    neurons = _neurons_of(program, counted, node.name)
    bits = _potential_bits(program, node)
    touched = sum(w.sops + w.adds for w in found) + updates
    return Layer(
        name=node.name,
        module=found[0].module,
        kind=" + ".join(dict.fromkeys(w.kind for w in found)),
        neurons=sum(prod(n.shape) for n in readers),
        updates=updates,
        state_bytes=_bytes(prod(node.shape), bits) * max(1, len(readers)) if bits else 0,
        state_touched=touched * 2 * bits / 8,
        weights_touched=sum((w.sops + w.macs) * w.weight_bits / 8 for w in found),
        work={name: sum(getattr(w, name) for w in found) for name in _SUMS},
        energy={m.name: energy_of(m, found, neurons) for m in models if not m.is_published},
        outputs=tuple(neurons),
    )


def _neurons_of(program: Program, counted: Counted, layer: str) -> list[Neurons]:
    """Of the populations that read a layer."""
    T = program.timesteps
    passes = 1 if counted.is_static else T
    return [
        Neurons(
            updates=prod(n.shape) * n.D * T,
            outputs=prod(n.shape) * passes,
            bits=(n.D * (T // passes)).bit_length(),
        )
        for n in program.neurons
        if n.source == layer
    ]


def _potential_bits(program: Program, node: Node) -> int:
    """Of one potential of the layer; 0: it keeps none in the spiking network."""
    if isinstance(node, Accumulator):
        return bits_of(node.low, node.high)
    if isinstance(node, Attention):
        return bits_of(0, node.products_reach(program.by_name)[0])
    return 0
