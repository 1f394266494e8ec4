"""How much work a projection is: per sample, counted from its synapses and from what was fired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from snncc.program import Program, Readout
from snncc.program.nodes.base import Node, Synapses
from snncc.runtime.profile.counting import Counted

__all__ = ["Work", "works"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Work:
    """The work of a projection, an operand of attention, or a layer of the host; per sample.

    An ANN is a network of the same shape that computes with whole numbers and does not spike. It
    makes one pass for a static sample, and one for each frame of a sequence.

    Attributes:
        source, target: Names of nodes.
        module: Torch module path of the target.
        kind: ``conv``, ``linear``, ``identity``, ``attention`` or ``host``.
        reads: ``spikes``, ``pixels`` or ``potentials``.
        weights: How many, ``weight_bits`` each, ``weight_bytes`` all.
        synapses: Connections that are there, none into padding.
        dense: Multiply-adds if nothing is skipped, in all timesteps: as NeuroBench's Dense.
        padded: The same with those into padding.
        sops: Spikes that crossed a synapse.
        acs: Of layers with weights, those whose weight is not 0: NeuroBench's Effective_ACs.
        macs: Multiply-adds of layers that multiply pixels or potentials; 0 where spikes are added.
        effective_macs: Those of them of which neither factor is 0: NeuroBench's Effective_MACs.
            Potentials count as not 0.
        adds: Additions of whole potentials, without a weight.
        possible: SOPs if every neuron fired in each of its ticks.
        mean_count: Spikes of an element of the source per timestep; None: it emits none.
        is_binary: Whether the source emits at most one spike per element and tick.
        ann_dense: Multiply-adds of an ANN, where the spiking network adds spikes.
        ann_nonzero: Those of them whose input is not 0.
        ann_macs, ann_adds: What ``macs`` and ``adds`` are in an ANN.
        activation_bits: Of its activations.
        partner_bits: In attention, of what they are multiplied with; 0: a weight.
        sops_of: Population -> those of ``sops`` that it caused.
        acs_of: Likewise of ``acs``.
    """

    source: str
    target: str
    module: str
    kind: str
    reads: str
    weights: int = 0
    weight_bits: int = 0
    weight_bytes: int = 0
    synapses: int = 0
    dense: int = 0
    padded: int = 0
    sops: float = 0.0
    acs: float = 0.0
    macs: int = 0
    effective_macs: float = 0.0
    adds: int = 0
    possible: int = 0
    mean_count: float | None = None
    is_binary: bool = False
    ann_dense: int = 0
    ann_nonzero: float = 0.0
    ann_macs: int = 0
    ann_adds: int = 0
    activation_bits: int = 0
    partner_bits: int = 0
    sops_of: Mapping[str, float] = field(default_factory=dict, repr=False)
    acs_of: Mapping[str, float] = field(default_factory=dict, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain data, without what populations tell themselves."""
        return {k: v for k, v in vars(self).items() if k not in ("sops_of", "acs_of")}


def works(program: Program, counted: Counted) -> tuple[Work, ...]:
    """The work of every projection, in the order of the Program, then that of the host."""
    passes = 1 if counted.is_static else program.timesteps
    nodes = program.by_name
    found = [
        _Counter(program, counted, node, synapses, passes).work()
        for node in program.nodes
        for synapses in node.synapses(nodes)
    ]
    return (*found, *_of_host(program))


def _of_host(program: Program) -> list[Work]:
    return [_host(r, r.weight, program) for r in program.readouts if r.weight is not None]


def _host(readout: Readout, weight: Array, program: Program) -> Work:
    macs = weight.size * (1 if readout.over_time == "sum" else program.timesteps)
    return Work(
        source=readout.source,
        target=readout.name,
        module=readout.host,
        kind="host",
        reads="potentials",
        weights=weight.size,
        weight_bits=8 * weight.itemsize,
        weight_bytes=weight.nbytes,
        synapses=weight.size,
        dense=macs,
        padded=macs,
        macs=macs,
        effective_macs=macs,
        ann_macs=macs,
    )


@dataclass(frozen=True)
class _Counter:
    """What one bundle of synapses comes to."""

    program: Program
    counted: Counted
    target: Node
    synapses: Synapses
    passes: int

    @property
    def source(self) -> Node:
        return self.program.by_name[self.synapses.source]

    @property
    def reads(self) -> str:
        name = self.synapses.source
        if name in self.counted.spikes:
            return "spikes"
        return "pixels" if name in self.counted.nonzero else "potentials"

    def work(self) -> Work:
        made = self._of_spikes() if self.reads == "spikes" else self._of_numbers()
        return Work(**self._common(), **made)

    def _common(self) -> dict[str, Any]:
        s = self.synapses
        return {
            "source": s.source,
            "target": self.target.name,
            "module": self.target.module,
            "kind": s.kind,
            "reads": self.reads,
            "weights": s.weights,
            "weight_bits": 8 * s.weight_bytes // max(s.weights, 1),
            "weight_bytes": s.weight_bytes,
            "synapses": self._sum(s.leaving),
            "dense": self._sum(s.products) * self.program.timesteps,
            "padded": s.padded * self.program.timesteps,
        }

    def _of_spikes(self) -> dict[str, Any]:
        s, samples, T = self.synapses, self.counted.samples, self.program.timesteps
        by = self.counted.spikes[s.source]
        sops = {name: int((spikes * s.leaving).sum()) / samples for name, spikes in by.items()}
        counted = by if s.weights else {}
        acs = {name: int((n * s.weighted).sum()) / samples for name, n in counted.items()}
        reach, elements = self.source.reach, prod(self.source.shape)
        spikes = sum(int(part.sum()) for part in by.values()) / samples
        adds = self._sum(s.leaving) if s.kind == "identity" else 0
        return {
            "sops": sum(sops.values()),
            "acs": sum(acs.values()),
            "possible": self._sum(s.leaving) * T * reach,
            "mean_count": spikes / (elements * T),
            "is_binary": self.source.tick_reach(self.program.by_name) == 1,
            "ann_dense": self._sum(s.products) * self.passes,
            "ann_nonzero": self._nonzero(s.products),
            "ann_adds": adds * self.passes,
            "activation_bits": (reach * (T // self.passes)).bit_length(),
            "partner_bits": s.partner.bit_length(),
            "sops_of": sops,
            "acs_of": acs,
        }

    def _of_numbers(self) -> dict[str, Any]:
        """Of pixels and potentials: what has weights multiplies, what has none adds.

        Products of attention are added to a potential where they are formed: that is counted there.
        """
        s, T = self.synapses, self.program.timesteps
        if not s.weights:
            adds = self._sum(s.leaving) if self.source.is_potential else 0
            return {"adds": adds * T, "ann_adds": adds * self.passes}
        macs = self._sum(s.products)
        effective: float = self._sum(s.weighted) * T
        if self.reads == "pixels":
            effective = self._nonzero(s.weighted) * (T // self.passes)
        return {"macs": macs * T, "ann_macs": macs * self.passes, "effective_macs": effective}

    def _nonzero(self, per_element: Array) -> float:
        nonzero = self.counted.nonzero[self.synapses.source]
        return int((nonzero * per_element).sum()) / self.counted.samples

    def _sum(self, per_element: Array) -> int:
        """Over the elements of the source."""
        return int(np.broadcast_to(per_element, self.source.shape).sum())
