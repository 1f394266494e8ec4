"""The Program: the one thing a backend sees, as plain arrays and JSON.

A Program is a feed-forward graph of nodes in topological order. What a node *emits* travels
along projections into accumulators, through pools, or to a readout:

* ``Source`` emits the sample, once per timestep, as integers 0..payload in a single tick.
* ``Accumulator`` sums what its projections bring, plus its bias, once per timestep. It is
  complete when all its upstream bursts are; only then does it emit, its membrane potential, once.
  A ``masked`` one emits 0 in the sample's masked patches, whatever arrived there.
* ``Neuron`` reads one complete accumulator and fires for D ticks: spike k iff v >= level k. With
  ``carry`` its membrane remembers: v is then what is left of the last timestep plus the potential.
* ``Pool`` takes the maximum (OR of spikes) or the sum over windows of whatever arrives, potentials
  too.
* ``Attention`` multiplies three spike trains, and a ``Relay`` repeats a train in a later window.
* ``Gate`` is the product of two trains, number by number, and ``Sum`` their sum as one stream.
* ``Readout`` names a result: the potential of an accumulator or the spike counts of a neuron.

Axis order is (T, D, N, C, H, W). All arithmetic is in integers and bounds are proved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from snncc.errors import BadInputError, SnnccError
from snncc.program.check import faults_of
from snncc.program.nodes import KINDS
from snncc.program.nodes.accumulator import Accumulator
from snncc.program.nodes.base import Array, Node
from snncc.program.nodes.neuron import Neuron
from snncc.program.nodes.pool import Pool
from snncc.program.nodes.projection import Projection
from snncc.program.nodes.readout import Readout
from snncc.program.nodes.source import Source

__all__ = ["Program", "sources_of", "walk_projections"]

_N = TypeVar("_N", bound=Node)


@dataclass(frozen=True)
class Program:
    """Nodes in topological order, with T timesteps of D ticks.

    Attributes:
        name: Of the network.
        nodes: Topologically ordered: a node comes after everything it reads.
        timesteps: T.
        ticks: D, the length of a firing window (largest D of any population).
    """

    name: str
    nodes: tuple[Node, ...]
    timesteps: int = 1
    ticks: int = 1
    by_name: Mapping[str, Node] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {node.name: node for node in self.nodes})

    def _of(self, kind: type[_N]) -> tuple[_N, ...]:
        return tuple(node for node in self.nodes if isinstance(node, kind))

    @cached_property
    def source(self) -> Source:
        """The input."""
        return self._of(Source)[0]

    @cached_property
    def neurons(self) -> tuple[Neuron, ...]:
        """All populations, in topological order."""
        return self._of(Neuron)

    @cached_property
    def accumulators(self) -> tuple[Accumulator, ...]:
        """All accumulators, in topological order."""
        return self._of(Accumulator)

    @cached_property
    def analog(self) -> tuple[Accumulator, ...]:
        """Those that read the input, perhaps pooled: multi-bit integers, not spikes."""
        pixels = {self.source.name}
        for node in self.nodes:  # each comes after what it reads
            if isinstance(node, Pool) and node.source in pixels:
                pixels.add(node.name)
        return tuple(node for node in self.accumulators if pixels & {*node.sources})

    @cached_property
    def readouts(self) -> tuple[Readout, ...]:
        """All results, in the model's order."""
        return self._of(Readout)

    @property
    def windows(self) -> int:
        """Number of firing windows one sample passes through."""
        fired = (node.fires_at for node in self.nodes)
        return 1 + max((window for window in fired if window is not None), default=-1)

    @property
    def latency(self) -> int:
        """Ticks from the first firing to the last, one timestep."""
        return self.windows * self.ticks

    @cached_property
    def besides(self) -> Mapping[str, int]:
        """Operations of a sample beside synaptic ones, in all timesteps: what -> how many."""
        found: dict[str, int] = {}
        for node in self.nodes:
            if (work := node.besides(self.by_name)) is not None:
                what, count = work
                found[what] = found.get(what, 0) + count * self.timesteps
        return found

    def readers(self, name: str) -> tuple[Node, ...]:
        """Nodes that read what node ``name`` emits."""
        return tuple(node for node in self.nodes if name in node.sources)

    # -- JSON + arrays ---------------------------------------------------------------------

    def to_json(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """The Program as JSON-able data and the arrays it names."""
        arrays: dict[str, Array] = {}
        nodes = [_node_to_json(node, arrays) for node in self.nodes]
        head = {"name": self.name, "timesteps": self.timesteps, "ticks": self.ticks}
        return {**head, "nodes": nodes}, arrays

    @staticmethod
    def from_json(data: Mapping[str, Any], arrays: Mapping[str, Array]) -> Program:
        """The Program of ``to_json``; validated.

        Raises:
            BadInputError: A field or array is missing or of the wrong kind, naming it.
        """
        try:
            nodes = tuple(_node_from_json(entry, arrays) for entry in data["nodes"])
            program = Program(str(data["name"]), nodes, int(data["timesteps"]), int(data["ticks"]))
            if unknown := sorted(data.keys() - {"name", "nodes", "timesteps", "ticks"}):
                raise ValueError(f"no part of a program is named {', '.join(unknown)}")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as e:
            raise BadInputError(f"program: malformed entry: {type(e).__name__}: {e}") from e
        program.validate()
        return program

    def validate(self) -> None:
        """Check names, order, shapes, dtypes and bounds.

        Raises:
            BadInputError: The first fault of every node, all at once.
        """
        if faults := faults_of(self):
            raise BadInputError("program: not valid", faults)


def _node_to_json(node: Node, arrays: dict[str, Array]) -> dict[str, Any]:
    names = {kind: name for name, kind in KINDS.items()}
    if type(node) not in names:
        raise SnnccError(f"program: no file has nodes of kind '{type(node).__name__}'")
    return {"type": names[type(node)], **node.to_json(node.name, arrays)}


def _node_from_json(entry: Mapping[str, Any], arrays: Mapping[str, Array]) -> Node:
    fields = dict(entry)
    name = fields.pop("type")
    if name not in KINDS:
        raise ValueError(f"no kind of node is called '{name}'; there are {', '.join(KINDS)}")
    return KINDS[name].from_json(fields, arrays)


def sources_of(node: Node) -> tuple[str, ...]:
    """Names of the nodes that ``node`` reads."""
    return node.sources


def walk_projections(program: Program) -> Iterator[tuple[Accumulator, Projection]]:
    """Every projection with the accumulator it feeds."""
    for accumulator in program.accumulators:
        for projection in accumulator.projections:
            yield accumulator, projection
