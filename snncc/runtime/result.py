"""What an activity says: firing rates, synaptic operations, differences, and what was covered.

NSFR, the normalised spiking firing rate, is the fraction of a population's neurons that fire in
tick d of a firing window, averaged over samples, one figure per tick. As SFA neurons fire their
spikes first, it is the fraction with spike count > d, and never rises with d.
Source: Yao et al., "Scaling Spike-driven Transformer with Efficient Spike Firing Approximation
Training", arXiv:2411.16061.

A SOP, synaptic operation, is one spike crossing one synapse. All synapses of a projection count,
whatever their weight; there are none into the zero padding of a convolution. In attention a spike
adds one row or column to the matrix that is formed first, or one of that matrix to the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from snncc.backends.base import Activity, spikes_by_tick
from snncc.program import Neuron, Program
from snncc.program.nodes.base import Spikes

__all__ = [
    "Coverage",
    "First",
    "Mismatch",
    "PopulationRates",
    "Rates",
    "coverage",
    "mismatch",
    "rates",
    "synaptic_operations",
]

Array = npt.NDArray[Any]


# -- rates ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class PopulationRates:
    """How one population fired.

    Attributes:
        name, module: Of the population.
        neurons: Per sample.
        ticks: D.
        nsfr: Fraction of neurons that fire, [T][D].
        mean_count: Spikes per neuron and timestep.
        saturated: Share of spike counts that are D.
        silent: Neurons that never fired.
        spikes: In all samples.
        sops: Synaptic operations those spikes caused, in all samples.
    """

    name: str
    module: str
    neurons: int
    ticks: int
    nsfr: tuple[tuple[float, ...], ...]
    mean_count: float
    saturated: float
    silent: int
    spikes: int
    sops: int


@dataclass(frozen=True)
class Rates:
    """How a network fired.

    Attributes:
        samples: N.
        populations: In topological order.
    """

    samples: int
    populations: tuple[PopulationRates, ...]

    @property
    def spikes(self) -> int:
        """Of all populations and samples."""
        return sum(p.spikes for p in self.populations)

    @property
    def sops(self) -> int:
        """Of all populations and samples."""
        return sum(p.sops for p in self.populations)

    @property
    def saturated(self) -> float:
        """Share of all spike counts that are D."""
        total = sum(p.neurons for p in self.populations)
        return sum(p.saturated * p.neurons for p in self.populations) / max(total, 1)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "spikes": self.spikes, "sops": self.sops}


def rates(activity: Activity, program: Program) -> Rates:
    """Rates of all populations.

    Args:
        activity: With the counts of all populations.
        program: What ran.
    """
    sops = synaptic_operations(activity, program)
    populations = tuple(_rates_of(n, activity, sops[n.name]) for n in program.neurons)
    return Rates(activity.samples, populations)


def _rates_of(neuron: Neuron, activity: Activity, sops: int) -> PopulationRates:
    counts = activity.counts[neuron.name]
    spikes = int(counts.sum(dtype=np.int64))
    return PopulationRates(
        name=neuron.name,
        module=neuron.module,
        neurons=prod(neuron.shape),
        ticks=neuron.D,
        nsfr=_nsfr(neuron, activity),
        mean_count=spikes / counts.size,
        saturated=int(np.count_nonzero(counts == neuron.D)) / counts.size,
        silent=int(np.count_nonzero(~counts.any(axis=(0, 1)))),
        spikes=spikes,
        sops=sops,
    )


def _nsfr(neuron: Neuron, activity: Activity) -> tuple[tuple[float, ...], ...]:
    counts = activity.counts[neuron.name]
    fired = activity.tick_spikes.get(neuron.name)
    if fired is None:  # an engine without ticks: spikes come first
        fired = spikes_by_tick(counts, neuron.D)
    return tuple(tuple(float(f) for f in row) for row in fired / counts[0].size)


# -- synaptic operations -------------------------------------------------------------------


def synaptic_operations(activity: Activity, program: Program) -> dict[str, int]:
    """SOPs that the spikes of each population caused, over all timesteps and samples."""
    sops = dict.fromkeys((n.name for n in program.neurons), 0)
    emitted: dict[str, Spikes] = {}
    nodes = program.by_name
    for node in program.nodes:
        for source in emitted.keys() & {*node.sources}:
            for population, spikes in emitted[source].by.items():
                sops[population] += node.operations(source, spikes, nodes)
        if (own := node.spikes(activity.counts, emitted, nodes)) is not None:
            emitted[node.name] = own
    return sops


# -- differences ---------------------------------------------------------------------------


@dataclass(frozen=True)
class First:
    """The first element that differs: in the first sample, then timestep, tick and place.

    Attributes:
        sample, timestep: From 0.
        tick: Of the firing window; None where values have no ticks.
        channel: Or feature.
        position: (row, column), empty for features.
        expected, got: The values.
    """

    sample: int
    timestep: int
    tick: int | None
    channel: int
    position: tuple[int, ...]
    expected: int
    got: int


@dataclass(frozen=True)
class Mismatch:
    """How the values of one population, accumulator or readout differ between two activities.

    Attributes:
        name: Of the node.
        kind: ``counts``, ``spikes``, ``readout`` or ``potential``.
        mismatched: Elements that differ, over all samples.
        total: Elements compared.
        first: The first of them.
        note: Why elements could not be compared one by one.
    """

    name: str
    kind: str
    mismatched: int
    total: int
    first: First | None = None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def mismatch(expected: Activity, got: Activity, trains: bool = False) -> list[Mismatch]:
    """Compare all counts and readouts, and the spike trains and potentials both have.

    Args:
        expected: What should be.
        got: What is.
        trains: Compare all spike trains of ``expected``, too.

    Returns:
        One entry per population and readout of ``expected``, in its order, also where nothing
        differs; what ``got`` lacks differs everywhere.
    """
    pairs = [*_pairs("counts", expected.counts, got.counts)]
    pairs += (_pairs if trains else _common)("spikes", expected.spikes, got.spikes)
    pairs += _common("potential", expected.potentials, got.potentials)
    pairs += _pairs("readout", expected.readouts, got.readouts)
    return [_compare(*pair) for pair in pairs]


_Pair = tuple[str, str, Array, "Array | None"]


def _pairs(kind: str, expected: Mapping[str, Any], got: Mapping[str, Any]) -> Iterator[_Pair]:
    return ((kind, name, values, got.get(name)) for name, values in expected.items())


def _common(kind: str, expected: Mapping[str, Any], got: Mapping[str, Any]) -> Iterator[_Pair]:
    return (pair for pair in _pairs(kind, expected, got) if pair[3] is not None)


def _compare(kind: str, name: str, expected: Array, got: Array | None) -> Mismatch:
    if got is None:
        return Mismatch(name, kind, expected.size, expected.size, note="missing")
    if got.shape != expected.shape:
        note = f"shape {list(got.shape)}, expected {list(expected.shape)}"
        return Mismatch(name, kind, expected.size, expected.size, note=note)
    differs = expected != got
    number = int(np.count_nonzero(differs))
    first = _first(kind, differs, expected, got) if number else None
    return Mismatch(name, kind, number, expected.size, first)


def _first(kind: str, differs: Array, expected: Array, got: Array) -> First:
    has_ticks = kind == "spikes"
    samples_first = np.moveaxis(differs, 2 if has_ticks else 1, 0)
    found = np.unravel_index(int(np.argmax(samples_first)), samples_first.shape)
    sample, timestep, *place = (int(i) for i in found)
    tick = place.pop(0) if has_ticks else None
    index = (timestep, *([tick] if has_ticks else []), sample, *place)
    values = int(expected[index]), int(got[index])
    return First(sample, timestep, tick, place[0], tuple(place[1:]), *values)


# -- coverage ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Coverage:
    """What a comparison has exercised: for silent populations it says nothing.

    Attributes:
        populations: How many there are.
        silent: Names of those that never fired; agreement there is vacuous.
        levels: Population -> (highest level reached, D).
        spikes: Compared, over all populations and samples.
        samples: N.
    """

    populations: int
    silent: tuple[str, ...]
    levels: dict[str, tuple[int, int]]
    spikes: int
    samples: int

    @property
    def fired(self) -> int:
        """Populations that fired."""
        return self.populations - len(self.silent)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "fired": self.fired}


def coverage(activity: Activity, program: Program) -> Coverage:
    """What the counts of an activity have exercised."""
    counts = activity.counts
    levels = {n.name: (int(counts[n.name].max(initial=0)), n.D) for n in program.neurons}
    return Coverage(
        populations=len(levels),
        silent=tuple(name for name, (reached, _) in levels.items() if not reached),
        levels=levels,
        spikes=sum(int(c.sum(dtype=np.int64)) for c in counts.values()),
        samples=activity.samples,
    )
