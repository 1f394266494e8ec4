"""The Program: the one thing a backend sees, as plain arrays and JSON."""

from __future__ import annotations

from snncc.program.network import (
    MASKED,
    SLICE_LIMIT,
    TOTAL_LIMIT,
    Accumulator,
    Array,
    Attention,
    Neuron,
    Node,
    Pool,
    Program,
    Projection,
    Readout,
    Relay,
    Shape,
    Source,
    pooled_size,
    sources_of,
    walk_projections,
)

__all__ = [
    "MASKED",
    "SLICE_LIMIT",
    "TOTAL_LIMIT",
    "Accumulator",
    "Array",
    "Attention",
    "Neuron",
    "Node",
    "Pool",
    "Program",
    "Projection",
    "Readout",
    "Relay",
    "Shape",
    "Source",
    "pooled_size",
    "sources_of",
    "walk_projections",
]
