"""Chips to compile for: what one holds, and how much of it a network would take.

Limits are in ``<name>.toml`` beside this file. Bits of weights and potentials are hard, as
arithmetic depends on them; cores are assumed, and so is the layout: a network is feasible under it
or not, and whether it runs on silicon is not known here.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from math import ceil
from typing import Any

from snncc.backends.lava.kinds.base import LAVA, Bits
from snncc.backends.lava.limits import unsupported
from snncc.errors import Option, TargetError, UsageError, Words
from snncc.program import Node, Program
from snncc.program.nodes.base import Taken

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "CHIPS",
    "Chip",
    "Demand",
    "chip",
    "demand_json",
    "demands",
    "require_fit",
]

#: Names of the chips there are.
CHIPS = ("loihi2",)

#: What ``Demand`` assumes, in words for people.
_LAYOUT = (
    "a core holds neurons of one layer; an element of a membrane potential is a neuron, and so is "
    "each of a further population that reads it, each output of a pool, relay, gate or sum and "
    "each element of an attention's matrix; a weight is a byte; the input comes from outside; one "
    "sample at a time"
)


@dataclass(frozen=True)
class Chip:
    """What a chip holds.

    Attributes:
        name: As on the command line.
        description: What it is, for people.
        weight_bits: Of a stored weight, signed.
        state_bits: Of a membrane potential, sign included.
        cores: On the chip; assumed, as what follows.
        neurons_per_core: At most.
        synapse_bytes_per_core: For weights.
    """

    name: str
    description: str
    weight_bits: int
    state_bits: int
    cores: int
    neurons_per_core: int
    synapse_bytes_per_core: int


@cache
def chip(name: str) -> Chip:
    """The chip of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in CHIPS:
        told = f": no such target; there are {', '.join(CHIPS)}"
        raise UsageError(Words(Option("target", name), told))
    path = files("snncc.backends.chip") / f"{name}.toml"
    text = path.read_text(encoding="utf-8")
    return Chip(**tomllib.loads(text))


def require_fit(program: Program, name: str) -> None:
    """Every weight and every potential fits the chip's bits, and those of Lava's processes.

    Raises:
        TargetError: Some do not; each layer with its bound.
    """
    if faults := unsupported(program, _bits(chip(name))):
        raise TargetError(f"the network does not fit {chip(name).name}", faults)


def _bits(on: Chip) -> Bits:
    """The chip's bits, as far as Lava's process models have as many."""
    return Bits(min(on.weight_bits, LAVA.weight_bits), min(on.state_bits, LAVA.state_bits))


# -- what it takes -------------------------------------------------------------------------


@dataclass(frozen=True)
class Demand:
    """What a layer would take of a chip.

    Attributes:
        module: Torch module path of the layer or pool.
        node: Its name in the Program.
        neurons: Of the layer, with its populations.
        synapses: Of all its neurons.
        weight_bytes: Each weight stored once.
        state_bits: Of its potential, sign included.
        cores_shared: Cores if neurons of a channel on a core share its weights; None: one
            channel's weights do not fit a core.
        cores_unrolled: Cores if every synapse is stored; None: those of one neuron do not fit.
    """

    module: str
    node: str
    neurons: int
    synapses: int
    weight_bytes: int
    state_bits: int
    cores_shared: int | None
    cores_unrolled: int | None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def demands(program: Program, on: Chip) -> list[Demand]:
    """Of every node that takes something of a chip, in topological order.

    Raises:
        SnnccError: It is not known what a node takes, naming its kind.
    """
    taken = ((node, node.taken(program)) for node in program.nodes)
    return [_demand(node, what, on) for node, what in taken if what is not None]


def _demand(node: Node, taken: Taken, on: Chip) -> Demand:
    held = taken.kept * ceil(on.state_bits / 8)
    return Demand(
        node.module or node.name,
        node.name,
        taken.neurons,
        taken.synapses,
        held or taken.channels * taken.weights,
        taken.reach.bit_length() + 1,
        *_cores(taken, held, on),
    )


def _cores(taken: Taken, held: int, on: Chip) -> tuple[int | None, int | None]:
    """Shared and unrolled; where ``held`` bytes of state are read like weights there is one way."""
    if held:
        cores = max(taken.neurons / on.neurons_per_core, held / on.synapse_bytes_per_core)
        return ceil(cores), ceil(cores)
    each = taken.neurons // taken.channels
    shared = _shared(taken.channels, each, taken.weights, on)
    return shared, _unrolled(taken.neurons, taken.weights, on)


def _shared(channels: int, each: int, channel_bytes: int, on: Chip) -> int | None:
    """The fewest cores when every core holds neurons of as many whole channels as is best."""
    most = min(channels, on.synapse_bytes_per_core // channel_bytes)
    if most == 0:
        return None
    return min(
        ceil(channels / some) * ceil(some * each / on.neurons_per_core)
        for some in range(1, most + 1)
    )


def _unrolled(neurons: int, neuron_bytes: int, on: Chip) -> int | None:
    each = min(on.neurons_per_core, on.synapse_bytes_per_core // neuron_bytes)
    return ceil(neurons / each) if each else None


def demand_json(program: Program, name: str) -> dict[str, Any]:
    """What the network would take of a chip, and what that assumes; plain data."""
    on, rows = chip(name), demands(program, chip(name))
    shared = _total([row.cores_shared for row in rows])
    unrolled = _total([row.cores_unrolled for row in rows])
    return {
        "name": name,
        "limits": asdict(on),
        "layout": _LAYOUT,
        "state_bits": max(row.state_bits for row in rows),
        "neurons": sum(row.neurons for row in rows),
        "synapses": sum(row.synapses for row in rows),
        "weight_bytes": sum(row.weight_bytes for row in rows),
        "cores_shared": shared,
        "cores_unrolled": unrolled,
        "fits_bits": not unsupported(program, _bits(on)),
        "feasible": shared is not None and shared <= on.cores,
        "layers": [row.to_json() for row in rows],
    }


def _total(cores: list[int | None]) -> int | None:
    """Layers do not share cores; None: one of them fits none."""
    return None if None in cores else sum(count or 0 for count in cores)
