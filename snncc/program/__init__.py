"""The Program: the one thing a backend sees, as plain arrays and JSON."""

from __future__ import annotations

from snncc.program.network import Program, sources_of, walk_projections
from snncc.program.nodes.accumulator import Accumulator
from snncc.program.nodes.attention import Attention
from snncc.program.nodes.base import SLICE_LIMIT, TOTAL_LIMIT, Array, Node, Shape
from snncc.program.nodes.gate import Gate
from snncc.program.nodes.neuron import CARRIES, Neuron
from snncc.program.nodes.pool import Pool
from snncc.program.nodes.projection import Projection
from snncc.program.nodes.readout import Readout
from snncc.program.nodes.relay import Relay
from snncc.program.nodes.source import MASKED, Source
from snncc.program.nodes.sum import Sum
from snncc.program.windows import pooled_size

__all__ = [
    "CARRIES",
    "MASKED",
    "SLICE_LIMIT",
    "TOTAL_LIMIT",
    "Accumulator",
    "Array",
    "Attention",
    "Gate",
    "Neuron",
    "Node",
    "Pool",
    "Program",
    "Projection",
    "Readout",
    "Relay",
    "Shape",
    "Source",
    "Sum",
    "pooled_size",
    "sources_of",
    "walk_projections",
]
