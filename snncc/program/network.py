"""The Program: the one thing a backend sees, as plain arrays and JSON.

A Program is a feed-forward graph of nodes in topological order. What a node *emits* travels
along projections into accumulators, through pools, or to a readout:

* ``Source`` emits the sample, once per timestep, as integers 0..payload in a single tick.
* ``Accumulator`` sums what its projections bring, plus its bias, once per timestep. It is
  complete when all its upstream bursts are; only then does it emit, its membrane potential, once.
  A ``masked`` one emits 0 in the sample's masked patches, whatever arrived there.
* ``Neuron`` reads one complete accumulator and fires for D ticks: spike k iff v >= level k. With
  ``carry`` its membrane remembers: v is then what is left of the last timestep plus the potential.
* ``Pool`` takes the maximum (OR of spikes) or the sum over windows of whatever arrives.
* ``Attention`` multiplies three spike trains, and a ``Relay`` repeats a train in a later window.
* ``Readout`` names a result: the potential of an accumulator or the spike counts of a neuron.

Axis order is (T, D, N, C, H, W). All arithmetic is in integers and bounds are proved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, TypeVar, Union

import numpy as np
import numpy.typing as npt

from snncc.errors import BadInputError
from snncc.program.attention import Attention, Relay

__all__ = [
    "MASKED",
    "Accumulator",
    "Attention",
    "Neuron",
    "Node",
    "Pool",
    "Program",
    "Projection",
    "Readout",
    "Relay",
    "Source",
    "pooled_size",
]

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

#: What the planes of a source that hold the patch mask have in masked patches.
MASKED = 255
#: Every slice accumulates in 32 bits, slices are combined in 64.
SLICE_LIMIT = 2**31 - 1
TOTAL_LIMIT = 2**62


@dataclass(frozen=True)
class Source:
    """The network's input: integers 0..payload, sent once per timestep.

    Where accumulators are ``masked``, the last channel says which patches of the sample are: not 0
    in masked patches, 0 in active ones; the same in all of a patch.

    Attributes:
        name: Unique in the Program.
        shape: Per sample, (C, H, W) or (F,).
        payload: Largest value.
        module: Torch module path, for people.
    """

    name: str
    shape: Shape
    payload: int
    module: str = ""


@dataclass(frozen=True)
class Projection:
    """Synapses from one emitting node into an accumulator.

    Attributes:
        source: Name of the emitting node.
        kind: ``conv``, ``linear`` (reads the source flattened in C order) or ``identity``.
        weights: int8 slices, least significant first: w = sum_p w_p * 256**p.
            conv (C_out, C_in/groups, kH, kW); linear (F_out, F_in); identity: none.
        payload: Largest absolute value that arrives per element and timestep (all ticks).
        strides, dilations: (h, w). pads: (top, left, bottom, right), zeros. groups: of a conv.
        shift: Of a conv or linear: what it brings counts 2**shift times, v += sum(w * a) << shift.
            Projections into one accumulator so share its grid, each with all bits of its weights.
    """

    source: str
    kind: str
    weights: tuple[Array, ...] = ()
    payload: int = 1
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1
    shift: int = 0

    def total(self) -> Array:
        """What one spike adds to a potential: slices combined, shifted, int64."""
        parts = [w.astype(np.int64) << (8 * p + self.shift) for p, w in enumerate(self.weights)]
        return np.asarray(np.sum(parts, axis=0, dtype=np.int64))


@dataclass(frozen=True)
class Accumulator:
    """Membrane potential before firing: bias + all projections, once per timestep.

    Attributes:
        name: Unique in the Program.
        shape: (C, H, W) or (F,).
        projections: What feeds it; they are summed.
        bias: int64, shape (C,) or the full shape; enters once per timestep.
        low, high: Proved bounds of the potential.
        module: Torch module path of the linear layer.
        masked: Patches (h, w) of the patch mask, or None: unmasked. At (y, x) of a plane (H, W)
            the potential is 0 where patch (i, j) = (y * h // H, x * w // W) is masked: where the
            source's last channel, a plane (H', W'), is not 0 at (i * H' // h, j * W' // w).
            h and w divide both planes.
    """

    name: str
    shape: Shape
    projections: tuple[Projection, ...]
    bias: Array
    low: int
    high: int
    module: str = ""
    masked: tuple[int, int] | None = None

    def bias_map(self) -> Array:
        """The bias broadcastable against (N, *shape), int64."""
        if self.bias.shape == self.shape:
            return self.bias
        return self.bias.reshape(-1, *(1,) * (len(self.shape) - 1))


@dataclass(frozen=True)
class Neuron:
    """A population of IF neurons with soft reset, each with D integer levels.

    Attributes:
        name: Unique in the Program.
        shape: (C, H, W) or (F,).
        source: The accumulator it reads when that is complete.
        levels: int64 (C, D) or (1, D), never decreasing along D: spike k iff v >= level k.
        depth: Firing window: it fires in ticks [depth * ticks, (depth + 1) * ticks).
        carry: What stays over timesteps: ``none`` for SFA neurons; else the membrane
            h = floor(V * decay) + potential * 2**fraction, which the levels are compared with,
            starts from V = 0, and of its h there stays ``soft``: h less ``threshold`` per spike;
            ``hard``: h, or 0 after a spike; ``delayed``: h, and the next h is lowered by
            ``threshold`` per spike.
        decay: (numerator, shift): numerator / 2**shift.
        fraction: Bits of the membrane behind the potential's unit; shift * (T - 1) is exact.
        threshold: int64 (C,) or (1,), in units of the membrane; with ``carry`` only.
        norm: Value of one spike is 1 / norm (already folded; for people).
        rounding: ``half-even``, ``half-up``, ``>=`` or ``>`` (already in the levels; for people).
        module: Torch module path.
    """

    name: str
    shape: Shape
    source: str
    levels: Array
    depth: int
    carry: str = "none"
    norm: float = 1.0
    rounding: str = "half-even"
    module: str = ""
    decay: tuple[int, int] = (0, 0)
    fraction: int = 0
    threshold: Array | None = None

    @property
    def D(self) -> int:
        """Ticks of this population's burst."""
        return int(self.levels.shape[1])


@dataclass(frozen=True)
class Pool:
    """Maximum or sum over windows of what its source emits, at the moment it is emitted.

    Over binary spikes of one tick the maximum is an OR, and the OR of thermometer trains is the
    train of the maximum.

    Attributes:
        kind: ``max`` or ``sum``.
        kernel, strides: (h, w). pads: (top, left, bottom, right), neutral.
        payload: Largest absolute value it emits per element and timestep.
    """

    name: str
    shape: Shape
    source: str
    kind: str
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    payload: int
    module: str = ""


@dataclass(frozen=True)
class Readout:
    """A result: integers of ``source`` times ``scale`` are what the trained network computes.

    Attributes:
        name: The output's name, as in the model.
        shape: Per sample.
        source: Accumulator (potential) or neuron / pool of a neuron (spike counts).
        scale: Real value of one integer unit, or of what that adds to the host's sum.
        over_time: ``each``: a result per timestep; ``sum``: the integers are summed over T.
        host, weight, bias: A linear layer that the host, no engine, computes of the real values:
            its torch module path, float32 (F_out, F_in) and (F_out,). Where any readout has one,
            the network's result is the sum of all readouts.
    """

    name: str
    shape: Shape
    source: str
    scale: float
    module: str = ""
    over_time: str = "each"
    host: str = ""
    weight: Array | None = None
    bias: Array | None = None


Node = Union[Source, Accumulator, Neuron, Pool, Relay, Attention, Readout]  # noqa: UP007 (run time)
_NODE_TYPES: dict[str, type[Any]] = {
    "source": Source,
    "accumulator": Accumulator,
    "neuron": Neuron,
    "pool": Pool,
    "relay": Relay,
    "attention": Attention,
    "readout": Readout,
}
_N = TypeVar("_N", Source, Accumulator, Neuron, Readout)


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
    def readouts(self) -> tuple[Readout, ...]:
        """All results, in the model's order."""
        return self._of(Readout)

    @property
    def windows(self) -> int:
        """Number of firing windows one sample passes through."""
        return 1 + max((n.depth for n in self.nodes if isinstance(n, (Neuron, Relay))), default=-1)

    @property
    def latency(self) -> int:
        """Ticks from the first firing to the last, one timestep."""
        return self.windows * self.ticks

    def readers(self, name: str) -> tuple[Node, ...]:
        """Nodes that read what node ``name`` emits."""
        return tuple(node for node in self.nodes if name in sources_of(node))

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
        from snncc.program.check import faults_of

        if faults := faults_of(self):
            raise BadInputError("program: not valid", faults)


def sources_of(node: Node) -> tuple[str, ...]:
    """Names of the nodes that ``node`` reads."""
    if isinstance(node, Source):
        return ()
    if isinstance(node, Accumulator):
        return tuple(p.source for p in node.projections)
    if isinstance(node, Attention):
        return (node.q, node.k, node.v)
    return (node.source,)


def pooled_size(size: int, kernel: int, stride: int, pad: int, dilation: int = 1) -> int:
    """Output length of a window operation; ``pad`` is the sum of both sides."""
    return (size + pad - dilation * (kernel - 1) - 1) // stride + 1


# -- serialisation of one node -------------------------------------------------------------


def _plain(value: Any, path: str, arrays: dict[str, Array]) -> Any:
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return {"array": path}
    if isinstance(value, Projection):
        return _fields_to_json(value, path, arrays)
    if isinstance(value, tuple):
        return [_plain(v, f"{path}.{i}", arrays) for i, v in enumerate(value)]
    return value


def _fields_to_json(item: Node | Projection, path: str, arrays: dict[str, Array]) -> dict[str, Any]:
    """All fields that have a value; one that is None is left to its default."""
    values = {f.name: getattr(item, f.name) for f in fields(item)}
    return {k: _plain(v, f"{path}.{k}", arrays) for k, v in values.items() if v is not None}


def _node_to_json(node: Node, arrays: dict[str, Array]) -> dict[str, Any]:
    kind = type(node).__name__.lower()
    return {"type": kind, **_fields_to_json(node, node.name, arrays)}


def _restore(value: Any, arrays: Mapping[str, Array]) -> Any:
    if isinstance(value, dict):
        if "array" in value:
            return arrays[value["array"]]
        return Projection(**{key: _restore(inner, arrays) for key, inner in value.items()})
    if isinstance(value, list):
        return tuple(_restore(v, arrays) for v in value)
    return value


def _node_from_json(entry: Mapping[str, Any], arrays: Mapping[str, Array]) -> Node:
    kind = _NODE_TYPES[entry["type"]]
    node: Node = kind(**{k: _restore(v, arrays) for k, v in entry.items() if k != "type"})
    return node


def walk_projections(program: Program) -> Iterator[tuple[Accumulator, Projection]]:
    """Every projection with the accumulator it feeds."""
    for accumulator in program.accumulators:
        for projection in accumulator.projections:
            yield accumulator, projection
