"""The nodes of a Program, one kind a module; ``base`` says what a node is."""

from __future__ import annotations

from collections.abc import Mapping

from snncc.program.nodes.accumulator import Accumulator
from snncc.program.nodes.attention import Attention
from snncc.program.nodes.base import Node
from snncc.program.nodes.gate import Gate
from snncc.program.nodes.neuron import Neuron
from snncc.program.nodes.pool import Pool
from snncc.program.nodes.readout import Readout
from snncc.program.nodes.relay import Relay
from snncc.program.nodes.source import Source
from snncc.program.nodes.sum import Sum

__all__ = [
    "KINDS",
    "Accumulator",
    "Attention",
    "Gate",
    "Neuron",
    "Pool",
    "Readout",
    "Relay",
    "Source",
    "Sum",
]

#: What a kind of node is called in files -> the kind. A kind that is not here is valid nowhere.
KINDS: Mapping[str, type[Node]] = {
    "source": Source,
    "accumulator": Accumulator,
    "neuron": Neuron,
    "pool": Pool,
    "relay": Relay,
    "attention": Attention,
    "gate": Gate,
    "sum": Sum,
    "readout": Readout,
}
