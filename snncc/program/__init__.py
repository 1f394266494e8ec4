"""The Program: the one thing a backend sees, as plain arrays and JSON."""

from __future__ import annotations

from snncc.program import nodes
from snncc.program.network import Program, sources_of, walk_projections
from snncc.program.nodes import *  # noqa: F403 - every kind there is
from snncc.program.nodes.base import SLICE_LIMIT, TOTAL_LIMIT, Array, Node, Shape
from snncc.program.nodes.neuron import CARRIES
from snncc.program.nodes.projection import Projection
from snncc.program.nodes.source import MASKED
from snncc.program.windows import pooled_size

__all__ = [
    "CARRIES",
    "MASKED",
    "SLICE_LIMIT",
    "TOTAL_LIMIT",
    "Array",
    "Node",
    "Program",
    "Projection",
    "Shape",
    "pooled_size",
    "sources_of",
    "walk_projections",
]
__all__ += nodes.__all__
