"""What is different between two compiled networks, as they are and on data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from snncc.backends.base import Activity, Progress
from snncc.errors import BadInputError
from snncc.program import Accumulator, Neuron
from snncc.program.nodes.base import Node
from snncc.runtime.artifact import CompiledModel
from snncc.runtime.coding import Dataset
from snncc.runtime.contract import by_timestep, class_result, class_scores
from snncc.runtime.data_sets import DataSet
from snncc.runtime.masks import MASK
from snncc.runtime.profile.counting import Counted
from snncc.runtime.profile.models import DEFAULT_MODELS, EnergyModel, models_named
from snncc.runtime.profile.profile import profile_of
from snncc.runtime.report import encode
from snncc.runtime.result import synaptic_operations
from snncc.runtime.session import Session
from snncc.runtime.verify import batch_of

__all__ = ["Difference", "Layer", "OnData", "Pair", "Population", "difference", "on_data"]

Array = npt.NDArray[Any]

#: Parts of a manifest and a report that are choices, or follow from them.
_OF_MANIFEST = ("name", "timesteps", "ticks", "rounding", "input", "outputs", "tools")
_OF_REPORT = ("weight_bits", "still_norms", "windows", "latency_ticks", "origins")


@dataclass(frozen=True)
class Pair:
    """A value in the first network and in the second; None where one has no such thing."""

    a: Any
    b: Any

    @property
    def differs(self) -> bool:
        """Whether they are not the same."""
        return bool(self.a != self.b)


@dataclass(frozen=True)
class Layer:
    """What sums into a membrane potential, in both networks.

    Attributes:
        module: Torch module path, or the node's name.
        bits: Of its weights; 0 without weights.
        weights: How many.
        changed: Weights that are not the same integers; None where their number differs, or one
            network lacks the layer.
    """

    module: str
    bits: Pair
    weights: Pair
    changed: int | None


@dataclass
class Population:
    """A population in both networks.

    Attributes:
        module: Torch module path, or the node's name.
        neurons, ticks: How many, and D.
        spikes, sops: Of all samples so far.
        changed: Spike counts that differ, of ``compared``; both 0 where shapes or D are not the
            same, or one network lacks the population.
    """

    module: str
    neurons: Pair
    ticks: Pair
    spikes: list[int] = field(default_factory=lambda: [0, 0])
    sops: list[int] = field(default_factory=lambda: [0, 0])
    changed: int = 0
    compared: int = 0


@dataclass(frozen=True)
class Difference:
    """Two networks as they are.

    Attributes:
        options: What was chosen, or follows: its name and both values, where these differ.
        layers, populations: By module path, those of the first in order, then what only the second
            has.
    """

    options: Mapping[str, Pair]
    layers: tuple[Layer, ...]
    populations: tuple[Population, ...]


@dataclass
class OnData:
    """What two networks make of the same samples.

    Attributes:
        samples: How many.
        other_class: Samples whose class differs; None where a network's results are all maps.
        right: Samples with the right class, in each; None without labels or classes.
        populations: With spikes, SOPs and what changed.
        energy_pj: Model of energy -> pJ per sample, of each network.
    """

    samples: int
    other_class: int | None
    right: list[int] | None
    populations: tuple[Population, ...]
    energy_pj: Mapping[str, list[float]]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def difference(a: CompiledModel, b: CompiledModel) -> Difference:
    """Compare two networks; parts are matched by module path."""
    return Difference(_options(a, b), tuple(_layers(a, b)), _populations(a, b))


# -- as they are ---------------------------------------------------------------------------


def _options(a: CompiledModel, b: CompiledModel) -> dict[str, Pair]:
    mine, others = dict(_chosen(a)), dict(_chosen(b))
    pairs = {name: Pair(mine.get(name), others.get(name)) for name in {**mine, **others}}
    return {name: pair for name, pair in pairs.items() if pair.differs}


def _chosen(model: CompiledModel) -> Iterator[tuple[str, Any]]:
    yield from _flat({name: model.manifest.get(name) for name in _OF_MANIFEST})
    if model.reported is not None:
        yield from _flat({name: encode(getattr(model.reported, name)) for name in _OF_REPORT})
        target = model.reported.target
        yield "target", None if target is None else target.name


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _keyed(nodes: Iterable[Node]) -> dict[tuple[str, int], Any]:
    """Nodes by module path, or name; where several are of one module, by their place in it."""
    seen: Counter[str] = Counter()
    found = {}
    for node in nodes:
        key = node.module or node.name
        found[key, seen[key]] = node
        seen[key] += 1
    return found


def _pairs(a: Iterable[Node], b: Iterable[Node]) -> Iterator[tuple[str, Any, Any]]:
    mine, others = _keyed(a), _keyed(b)
    for key in {**mine, **others}:
        yield key[0], mine.get(key), others.get(key)


def _layers(a: CompiledModel, b: CompiledModel) -> Iterator[Layer]:
    for module, mine, other in _pairs(a.program.accumulators, b.program.accumulators):
        weights = [_weights(node) for node in (mine, other)]
        counts = Pair(*(None if w is None else sum(x.size for x in w) for w in weights))
        bits = Pair(_bits(a, mine), _bits(b, other))
        yield Layer(module, bits, counts, _changed_weights(*weights))


def _weights(node: Accumulator | None) -> list[Array] | None:
    return None if node is None else [p.total() for p in node.projections if p.weights]


def _bits(model: CompiledModel, node: Accumulator | None) -> int | None:
    if node is None:
        return None
    stored = 8 * max((len(p.weights) for p in node.projections), default=0)
    known = model.reported.layer_bits if model.reported is not None else {}
    return known.get(node.module, stored) if stored else 0


def _changed_weights(a: list[Array] | None, b: list[Array] | None) -> int | None:
    if a is None or b is None or [w.shape for w in a] != [w.shape for w in b]:
        return None
    return sum(int(np.count_nonzero(x != y)) for x, y in zip(a, b, strict=True))


def _populations(a: CompiledModel, b: CompiledModel) -> tuple[Population, ...]:
    return tuple(
        Population(module, _of(mine, other, _size), _of(mine, other, lambda n: n.D))
        for module, mine, other in _pairs(a.program.neurons, b.program.neurons)
    )


def _size(neuron: Neuron) -> int:
    return prod(neuron.shape)


def _of(a: Neuron | None, b: Neuron | None, value: Any) -> Pair:
    return Pair(*(None if node is None else value(node) for node in (a, b)))


# -- on data -------------------------------------------------------------------------------


def on_data(
    a: CompiledModel,
    b: CompiledModel,
    data: DataSet,
    engine: str = "event",
    models: Sequence[str] = DEFAULT_MODELS,
    progress: Progress | None = None,
) -> OnData:
    """Run both networks on the same samples, batch by batch.

    Args:
        a: The first network.
        b: The second.
        data: Samples that both take.
        engine: What runs them.
        models: Of energy, by name, or TOML files.
        progress: Called with the number of samples of each batch.

    Raises:
        BadInputError: A network does not take the samples.
        UsageError, MissingDependencyError, TargetError: See ``Session``; an unknown model.
    """
    work = _Work(a, b, engine, models_named(models))
    size = min(batch_of(a.program), batch_of(b.program))
    for first in range(0, len(data), size):
        part = data.read(first, min(first + size, len(data)))
        work.add(part)
        if progress is not None:
            progress(len(part))
    return work.found(len(data), data.labels is not None)


class _Work:
    """The comparison under way."""

    def __init__(
        self, a: CompiledModel, b: CompiledModel, engine: str, energy: Sequence[EnergyModel]
    ) -> None:
        self.models, self.energy = (a, b), energy
        self.counted = [Counted(m.program, is_static=not m.input.timesteps) for m in self.models]
        self.sessions = [Session(model, engine) for model in self.models]
        self.results = [class_result(model.results) for model in self.models]
        self.pairs = list(_pairs(a.program.neurons, b.program.neurons))
        self.populations = _populations(a, b)
        self.other_class, self.right = 0, [0, 0]

    @property
    def has_classes(self) -> bool:
        """Of both."""
        return all(result is not None for result in self.results)

    def add(self, part: Dataset) -> None:
        """Compare one batch."""
        activities = [self._run(i, part) for i in (0, 1)]
        sops = [
            synaptic_operations(activity, model.program)
            for activity, model in zip(activities, self.models, strict=True)
        ]
        for population, (_, *nodes) in zip(self.populations, self.pairs, strict=True):
            for i, node in enumerate(nodes):
                if node is not None:
                    counts = activities[i].counts[node.name]
                    population.spikes[i] += int(counts.sum(dtype=np.int64))
                    population.sops[i] += sops[i][node.name]
            _add_changed(population, nodes, activities)
        if self.has_classes:
            self._add_classes(activities, part.y)

    def _run(self, i: int, part: Dataset) -> Activity:
        session, contract = self.sessions[i], self.models[i].input
        try:
            x, mask = contract.check(part.x, part.mask, part.origin)
        except BadInputError as e:
            raise e.within("", f" (network {session.model.name})") from e
        activity = session.trace({contract.name: x} | ({} if mask is None else {MASK: mask}))
        self.counted[i].add(activity, by_timestep(contract.encode(x, mask), contract.shape))
        return activity

    def _add_classes(self, activities: list[Activity], y: Array | None) -> None:
        found = [
            class_scores(result, activity.readouts).argmax(axis=1)
            for result, activity in zip(self.results, activities, strict=True)
            if result is not None
        ]
        self.other_class += int((found[0] != found[1]).sum())
        if y is not None:
            for i, classes in enumerate(found):
                self.right[i] += int((classes == y).sum())

    def found(self, samples: int, labelled: bool) -> OnData:
        """What was counted."""
        return OnData(
            samples,
            self.other_class if self.has_classes else None,
            self.right if self.has_classes and labelled else None,
            self.populations,
            self._energy(),
        )

    def _energy(self) -> dict[str, list[float]]:
        """Of each model, per sample, in both networks."""
        profiles = [
            profile_of(m.program, c, self.energy, hash="", engine="", data="", maps=None)
            for m, c in zip(self.models, self.counted, strict=True)
        ]
        return {m.name: [p.energy[m.name].snn for p in profiles] for m in self.energy}


def _add_changed(
    population: Population, nodes: list[Neuron | None], activities: list[Activity]
) -> None:
    a, b = nodes
    if a is None or b is None or a.D != b.D:
        return
    mine, others = activities[0].counts[a.name], activities[1].counts[b.name]
    if mine.shape == others.shape:
        population.changed += int(np.count_nonzero(mine != others))
        population.compared += mine.size
