"""What a node of a Program is: the questions that everything else asks of it.

A Program walks its nodes and asks them; only engines know more, each in one table from kinds of
node to what runs them. What a kind does not answer is an error that names it and who asked: no node
is ever passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from snncc.errors import SnnccError

__all__ = [
    "ALL",
    "MAX_ELEMENTS",
    "NODE_READERS",
    "PEOPLE",
    "SLICE_LIMIT",
    "TOTAL_LIMIT",
    "Array",
    "InvalidError",
    "Item",
    "Network",
    "Node",
    "Nodes",
    "Readers",
    "Shape",
    "Spikes",
    "Synapses",
    "Taken",
    "require",
    "restored",
]

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
_Item = TypeVar("_Item", bound="Item")

#: Every slice accumulates in 32 bits, slices are combined in 64.
SLICE_LIMIT = 2**31 - 1
TOTAL_LIMIT = 2**62
#: Elements per sample: guards against absurd sizes in a hand-edited file.
MAX_ELEMENTS = 2**31

#: Who reads a field: every node that has it, people alone, or nodes of these variants.
ALL, PEOPLE = "all", "people"
Readers = Mapping[str, "str | tuple[str, ...]"]
#: Of the fields that all nodes have.
NODE_READERS: Readers = {"name": ALL, "shape": ALL, "module": PEOPLE}


class InvalidError(Exception):
    """Stops the check of one node at its first fault."""


def require(condition: bool, what: str) -> None:
    """Raises InvalidError with what is wrong, unless the condition holds."""
    if not condition:
        raise InvalidError(what)


class Network(Protocol):
    """What a node sees of its Program."""

    @property
    def nodes(self) -> tuple[Node, ...]:
        """In topological order."""
        ...

    @property
    def by_name(self) -> Mapping[str, Node]:
        """The same, by name."""
        ...

    @property
    def source(self) -> Node:
        """The input."""
        ...

    @property
    def timesteps(self) -> int:
        """T."""
        ...

    @property
    def ticks(self) -> int:
        """D, the length of a firing window."""
        ...

    def readers(self, name: str) -> tuple[Node, ...]:
        """Nodes that read what node ``name`` emits."""
        ...


class Item:
    """What nodes and their projections have in common: fields, and who reads them.

    Attributes:
        readers: Every field -> who reads it. A field that an item of its variant does not read has
            to be its default, since one engine might compute with it while another passes it over.
        variants: What the variant is called, and which there are.
    """

    readers: ClassVar[Readers]
    variants: ClassVar[tuple[str, tuple[str, ...]]] = ("variant", ("",))
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def variant(self) -> str:
        """What decides which fields are read, or nothing where all always are."""
        return ""

    def to_json(self, path: str, arrays: dict[str, Array]) -> dict[str, Any]:
        """All fields that have a value, as plain data; one that is None is left to its default.

        Args:
            path: What names of arrays begin with.
            arrays: Gets the arrays, by the names that the data has for them.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: _plain(v, f"{path}.{k}", arrays) for k, v in values.items() if v is not None}

    @classmethod
    def from_json(cls: type[_Item], entry: Mapping[str, Any], arrays: Mapping[str, Array]) -> _Item:
        """The item of ``to_json``, not validated.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: It is none.
        """
        return cls(**{key: restored(value, arrays) for key, value in entry.items()})


def _plain(value: Any, path: str, arrays: dict[str, Array]) -> Any:
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return {"array": path}
    if isinstance(value, Item):
        return value.to_json(path, arrays)
    if isinstance(value, tuple):
        return [_plain(v, f"{path}.{i}", arrays) for i, v in enumerate(value)]
    return value


def restored(value: Any, arrays: Mapping[str, Array]) -> Any:
    """The value of a field from plain data: arrays by name, lists as tuples."""
    if isinstance(value, dict):
        return arrays[value["array"]]
    if isinstance(value, list):
        return tuple(restored(v, arrays) for v in value)
    return value


class Spikes(NamedTuple):
    """The spikes that a node emits.

    Attributes:
        values: Per element and timestep, (T * N, *shape).
        by: Population -> those of them that it fired, over all timesteps and samples, int64
            (*shape).
    """

    values: Array
    by: Mapping[str, Array]

    @staticmethod
    def of(population: str, values: Array) -> Spikes:
        """All of them fired by one population."""
        return Spikes(values, {population: values.sum(axis=0, dtype=np.int64)})


@dataclass(frozen=True, eq=False)
class Synapses:
    """What leads from one node into another: a projection, or an operand of attention.

    Attributes:
        source: Name of the node that is read.
        kind: ``conv``, ``linear``, ``identity`` or ``attention``.
        leaving: Synapses that leave each element of the source, int64, broadcastable to its shape;
            none lead into the padding of a convolution.
        weighted: Likewise, those whose weight is not 0.
        products: Likewise, multiply-adds in a network that multiplies whole numbers: one for each
            synapse with a weight; of the products of attention each is at one of its operands.
        padded: Multiply-adds of a timestep if those with padding are counted, too.
        weights: How many there are.
        weight_bytes: Bytes of all of them.
        partner: Largest number that an element is multiplied with in attention; 0: a weight.
    """

    source: str
    kind: str
    leaving: Array
    weighted: Array
    products: Array
    padded: int
    weights: int = 0
    weight_bytes: int = 0
    partner: int = 0


@dataclass(frozen=True)
class Taken:
    """What a node takes of a chip, whichever chip that is.

    Attributes:
        neurons: With the populations that read it.
        synapses: Of all of them.
        channels: In how many groups the neurons share their weights.
        weights: Bytes of the weights of a neuron, which its channel shares.
        kept: Neurons whose potentials are read like weights.
        reach: Largest absolute potential.
    """

    neurons: int
    synapses: int
    channels: int
    weights: int
    reach: int
    kept: int = 0


class Node(Item):
    """A node: emits to those that read it, given what it reads.

    A kind is a frozen dataclass in a module of its own, listed in ``KINDS``, that answers every
    question here. ``nodes`` are, by name, those that it reads and what these read. A file may have
    thousands in a chain: no answer may ask along one by recursion.

    Attributes:
        name: Unique in the Program.
        shape: Of what it emits, per sample: (C, H, W), (F,) or another that begins with channels.
        module: Torch module path, for people.
        emits: Whether other nodes may read it.
        is_potential: Whether it is a membrane potential: populations read such, when complete.
    """

    name: str
    shape: Shape
    module: str
    emits: ClassVar[bool] = True
    is_potential: ClassVar[bool] = False

    def _unanswered(self, asked: str) -> SnnccError:
        kind = type(self).__name__
        return SnnccError(f"{asked}: nodes of kind '{kind}' do not answer, such as '{self.name}'")

    # -- what it reads, and whether that is right ---------------------------------------------

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the nodes that it reads."""
        raise self._unanswered("sources")

    def check(self, program: Network, nodes: Nodes) -> None:
        """Everything that has to hold besides fields of the right types and unique names.

        Args:
            program: Its own.
            nodes: Those before it; what it reads is among them.

        Raises:
            InvalidError: The first fault.
        """
        raise self._unanswered("validation")

    # -- what it emits -------------------------------------------------------------------------

    @property
    def reach(self) -> int:
        """Largest absolute value per element that it emits in one timestep.

        Raises:
            ValueError: It emits nothing.
        """
        raise self._unanswered("bounds")

    def tick_reach(self, nodes: Nodes) -> int:
        """Largest absolute value per element that it emits in one tick; 0: it emits nothing."""
        raise self._unanswered("bounds of a tick")

    def is_signed(self, nodes: Nodes) -> bool:
        """Whether it may emit negative values: potentials may, spikes and pixels never."""
        raise self._unanswered("bounds")

    @property
    def is_kept(self) -> bool:
        """Whether engines keep what it emits in a timestep, so that a readout can read it."""
        raise self._unanswered("readouts")

    @property
    def has_tickwise_maximum(self) -> bool:
        """Whether the maxima of the single ticks add up to the maximum of the timestep.

        They do for thermometer trains and for pixels; a sum of trains is no such train.
        """
        raise self._unanswered("max-pools")

    # -- when ----------------------------------------------------------------------------------

    @property
    def fires_at(self) -> int | None:
        """Its own firing window; None: it emits when what it reads arrives or is complete."""
        raise self._unanswered("firing windows")

    @property
    def train_window(self) -> int | str | None:
        """The window in which it emits a spike train; None: it emits none.

        Or the name of a node that it reads, whose window is its own (see
        ``program.timing.firing_window``).
        """
        raise self._unanswered("firing windows")

    # -- what its spikes cost ------------------------------------------------------------------

    def spikes(
        self, counts: Mapping[str, Array], before: Mapping[str, Spikes], nodes: Nodes
    ) -> Spikes | None:
        """The spikes that it emits; None: it emits something else.

        Args:
            counts: Population -> spike counts (T, N, *shape).
            before: Node -> what this says of it, of all before this one that emit spikes.
            nodes: See Node.
        """
        raise self._unanswered("spikes")

    def operations(self, source: str, spikes: Array, nodes: Nodes) -> int:
        """How many synaptic operations the spikes of a node that it reads cause in it.

        Args:
            source: The node.
            spikes: Some of its spikes, or all: per element, int64 (*shape).
            nodes: See Node.
        """
        raise self._unanswered("synaptic operations")

    def synapses(self, nodes: Nodes) -> tuple[Synapses, ...]:
        """What leads into it, one for each projection or operand; what spikes cross is their work.

        Args:
            nodes: See Node.
        """
        raise self._unanswered("synapses")

    def besides(self, nodes: Nodes) -> tuple[str, int] | None:
        """What it computes in a timestep beside synaptic operations, and how often; None: nothing.

        Whether spikes come or not: a chip may do less.

        Args:
            nodes: See Node.
        """
        return None

    def taken(self, program: Network) -> Taken | None:
        """What it takes of a chip; None: nothing, or what it takes is counted with another node."""
        raise self._unanswered("resources of a chip")


#: By name.
Nodes = Mapping[str, Node]
