"""A Program as the bytes that the C core reads; core/net.h has the fields.

Channels become the last axis, a burst of n spikes one value n, and weight slices are merged to
parts of 16 bits where sums of those still fit 32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from snncc.backends.base import runner
from snncc.errors import SnnccError
from snncc.program import (
    SLICE_LIMIT,
    Accumulator,
    Array,
    Attention,
    Gate,
    Neuron,
    Node,
    Pool,
    Program,
    Projection,
    Readout,
    Relay,
    Shape,
    Source,
    Sum,
)
from snncc.program.bounds import weight_reach
from snncc.program.nodes.base import Item

__all__ = ["HEAD", "KINDS", "MAGIC", "NODE", "PROJECTION", "laid_out", "layout"]

MAGIC = int.from_bytes(b"SNCCEV01", "little")

#: The fields of the head, of a node and of a projection, in the order of the enums of core/net.h;
#: a test compares them, and what there is of each kind.
HEAD = ("magic", "timesteps", "nodes", "projections", "keep", "data_bytes")
_PLACE = ("kind", "channels", "height", "width", "source", "payload")
_ACCUMULATED = ("first", "count", "bias", "bias_is_map")
_DECAYS = ("decay", "decay_shift", "fraction", "threshold", "current", "current_shift")
_FIRED = ("ticks", "levels", "carry", *_DECAYS)
_WINDOW = ("kernel_h", "kernel_w", "stride_h", "stride_w", "pad_top", "pad_left")
_MASK = ("patches_h", "patches_w")
_ATTENTION = ("k", "v", "heads", "order")
_PAIR = ("gate", "b")
NODE = (*_PLACE, *_ACCUMULATED, *_FIRED, "pool", *_WINDOW, *_MASK, *_ATTENTION, *_PAIR)
_PARTS = ("part0", "shift0", "part1", "shift1", "part2", "shift2")
_DILATION = ("dilation_h", "dilation_w")
PROJECTION = ("source", "kind", *_WINDOW, *_DILATION, "groups", "drop", "parts", *_PARTS)

Fields = dict[str, int]


def layout(program: Program, keep: bool = False) -> Array:
    """The network as bytes, uint8.

    Args:
        program: A valid Program.
        keep: Potentials of all accumulators can be read after a run.
    """
    return _Writer(program).written(keep)


def laid_out(program: Program) -> tuple[Node, ...]:
    """The nodes that the bytes have, in order: all but relays, which repeat what is still there."""
    return tuple(node for node in program.nodes if runner(WRITERS, node, "event") is not _repeat)


class _Writer:
    """Gathers records and data."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.nodes = laid_out(program)
        self.index = {node.name: i for i, node in enumerate(self.nodes)}
        for node in program.nodes:
            if node.name not in self.index:
                (source,) = node.sources
                self.index[node.name] = self.index[source]
        self.data: list[bytes] = []
        self.size = 0
        self.projections: list[Fields] = []

    def written(self, keep: bool) -> Array:
        nodes = [self._node(node) for node in self.nodes]
        head = {
            "magic": MAGIC,
            "timesteps": self.program.timesteps,
            "nodes": len(nodes),
            "projections": len(self.projections),
            "keep": int(keep),
            "data_bytes": self.size,
        }
        words = _words(HEAD, head)
        words += [word for node in nodes for word in _words(NODE, node)]
        words += [word for p in self.projections for word in _words(PROJECTION, p)]
        records = np.array(words, dtype="<i8").tobytes()
        return np.frombuffer(b"".join([records, *self.data]), dtype=np.uint8)

    def _add(self, values: Array, dtype: str) -> int:
        """Offset of the values in the data."""
        offset, raw = self.size, np.ascontiguousarray(values, dtype=dtype).tobytes()
        self.data.append(raw + bytes(-len(raw) % 8))
        self.size += len(self.data[-1])
        return offset

    def _node(self, node: Node) -> Fields:
        channels, height, width = _planes(node.shape)
        fields = {"kind": KINDS.index(type(node))}
        fields |= {"channels": channels, "height": height, "width": width}
        return fields | WRITERS[type(node)](self, node)

    # -- nodes -----------------------------------------------------------------------------

    def source(self, node: Source) -> Fields:
        return {"payload": node.payload}

    def accumulator(self, node: Accumulator) -> Fields:
        first, is_map = len(self.projections), node.bias.ndim > 1
        self.projections += [self._projection(node, p) for p in node.projections]
        bias = self._add(np.moveaxis(node.bias, 0, -1), "<i8")
        count, (h, w) = len(node.projections), node.masked or (0, 0)
        fields = {"first": first, "count": count, "bias": bias, "bias_is_map": int(is_map)}
        return {**fields, "patches_h": h, "patches_w": w}

    def neuron(self, node: Neuron) -> Fields:
        channels = node.shape[0]
        levels = np.broadcast_to(node.levels, (channels, node.D))
        fields = {
            "source": self.index[node.source],
            "ticks": node.D,
            "levels": self._add(levels.T, "<i8"),
            "carry": _place(node),
        }
        if node.threshold is None:
            return fields
        threshold = self._add(np.broadcast_to(node.threshold, channels), "<i8")
        carried = {"threshold": threshold, "fraction": node.fraction}
        for name, (numerator, shift) in (("decay", node.decay), ("current", node.current)):
            each = np.broadcast_to(np.asarray(numerator), channels)
            carried |= {name: self._add(each, "<i8"), f"{name}_shift": shift}
        return {**fields, **carried}

    def pool(self, node: Pool) -> Fields:
        return {
            "source": self.index[node.source],
            "pool": _place(node),
            **_pair("kernel", node.kernel),
            **_pair("stride", node.strides),
            **_pad(node.pads),
        }

    def attention(self, node: Attention) -> Fields:
        q, k, v = (self.index[name] for name in (node.q, node.k, node.v))
        return {
            "source": q,
            "k": k,
            "v": v,
            "heads": node.heads,
            "order": _place(node),
        }

    def gate(self, node: Gate) -> Fields:
        a, b = (self.index[name] for name in node.sources)
        most = self.program.by_name[node.b].reach
        return {"source": a, "b": b, "gate": _place(node), "payload": most}

    def sum(self, node: Sum) -> Fields:
        a, b = (self.index[name] for name in node.sources)
        return {"source": a, "b": b}

    def readout(self, node: Readout) -> Fields:
        return {"source": self.index[node.source]}

    # -- projections -----------------------------------------------------------------------

    def _projection(self, node: Accumulator, p: Projection) -> Fields:
        fields = {"source": self.index[p.source], "kind": _place(p)}
        if p.kind == "identity":
            return fields | {"drop": p.drop}
        shape = self.program.by_name[p.source].shape
        kernel = p.weights[0].shape[2:] if p.kind == "conv" else (1, 1)
        fields |= _pair("kernel", kernel) | _pair("stride", p.strides)
        fields |= _pad(p.pads) | _pair("dilation", p.dilations) | {"groups": p.groups}
        parts = _parts(p, self.program.by_name[p.source].is_potential)
        fields["parts"] = len(parts)
        for i, (weights, shift) in enumerate(parts):
            fields[f"part{i}"] = self._add(_channels_last(p, weights, shape), "<i2")
            fields[f"shift{i}"] = shift
        return fields


def _repeat(writer: _Writer, node: Relay) -> Fields:
    """Nothing is written: who reads it reads its source, which is still there."""
    return {}


#: What writes the fields of a node, kinds in the order of ``ev_kind``.
WRITERS: Mapping[type[Node], Callable[[_Writer, Any], Fields]] = {
    Source: _Writer.source,
    Accumulator: _Writer.accumulator,
    Neuron: _Writer.neuron,
    Pool: _Writer.pool,
    Attention: _Writer.attention,
    Gate: _Writer.gate,
    Sum: _Writer.sum,
    Readout: _Writer.readout,
    Relay: _repeat,
}
KINDS = tuple(kind for kind, write in WRITERS.items() if write is not _repeat)


def _words(names: Sequence[str], fields: Fields) -> list[int]:
    """A record's words in order; those of other kinds are 0."""
    if lost := sorted(fields.keys() - set(names)):
        raise SnnccError(f"engine 'event' has no place for {', '.join(lost)}")
    return [fields.get(name, 0) for name in names]


def _place(item: Item) -> int:
    """Number of its variant, as the core counts them."""
    word, variants = item.variants
    if item.variant not in variants:
        raise SnnccError(f"engine 'event' has no {word} '{item.variant}'")
    return variants.index(item.variant)


def _planes(shape: Shape) -> tuple[int, int, int]:
    """Channels, height, width: of a shape with more or fewer axes, those of the same C order."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    return shape[0], 1, prod(shape[1:])


def _pair(name: str, values: Sequence[int]) -> Fields:
    return {f"{name}_h": values[0], f"{name}_w": values[1]}


def _pad(pads: Sequence[int]) -> Fields:
    return {"pad_top": pads[0], "pad_left": pads[1]}


def _parts(p: Projection, is_graded: bool = False) -> list[tuple[Array, int]]:
    """Weights as parts of 16 bits, w = sum of part << shift: few, if their sums fit 32 bits.

    Of graded payloads the core makes digits, so that they do: the parts with the fewest of these.
    """
    total = p.total() >> p.shift
    low = ((total + 2**15) & 0xFFFF) - 2**15
    merged = [(low, 0), ((total - low) >> 16, 16)]
    found = [(w, shift) for w, shift in merged if shift == 0 or w.any()]
    apart = [(w, 8 * i) for i, w in enumerate(p.weights)]
    if is_graded:
        found = min(found, apart, key=lambda parts: _products(p.payload, [w for w, _ in parts]))
    elif any(p.payload * weight_reach(w) >= SLICE_LIMIT for w, _ in found):
        found = apart
    return [(w, shift + p.shift) for w, shift in found]


def _products(payload: int, parts: Sequence[Array]) -> int:
    """About how many digits of a payload meet how many parts, if sums of each fit 32 bits."""
    most = min(2**15, SLICE_LIMIT // max(1, *map(weight_reach, parts)))
    bits = max(1, most.bit_length() - 1)
    return len(parts) * max(1, -(-payload.bit_length() // bits))


def _channels_last(p: Projection, weights: Array, shape: Shape) -> Array:
    """Conv weights as (O, kH, kW, C), linear ones as (O, H W C)."""
    if p.kind == "conv":
        return np.moveaxis(weights, 1, -1)
    rows = weights.reshape(-1, *_planes(shape))
    return np.moveaxis(rows, 1, -1).reshape(len(rows), -1)
