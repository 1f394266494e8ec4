"""Validation of a Program that may come from an untrusted file: one fault per node at most.

What is valid is the same network on every engine. ``FIELDS`` says of each field who reads it: a
field that a node of its kind does not read has to be its default, since one engine might compute
with it while another passes it over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields
from math import prod
from typing import Any

import numpy as np

from snncc.errors import Fault
from snncc.program import (
    SLICE_LIMIT,
    TOTAL_LIMIT,
    Accumulator,
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
)
from snncc.program.attention import EXACT_PRODUCTS, ORDERS, reach_of
from snncc.program.bounds import emitted_payload, membrane_of, potential_bounds
from snncc.program.timing import firing_window, required_depth

__all__ = ["FIELDS", "faults_of", "kind_of"]

#: Guards against absurd sizes in a hand-edited file: elements per sample, ticks, timesteps.
MAX_ELEMENTS = 2**31
MAX_TICKS = 255
MAX_TIMESTEPS = 2**16
MAX_SHIFT = 24
#: Bits of a projection's weights, its shift included: what a spike adds must fit 64 bits.
MAX_PROJECTION_BITS = 62
#: Sizes, strides and the like: the event engine counts in 64 bits, and none comes near this.
MAX_SIZE = 2**31

#: Who reads a field: every node that has it, people alone, or nodes of these kinds.
ALL, PEOPLE = "all", "people"
_MEMORY = ("soft", "hard", "delayed")
_NODE = {"name": ALL, "shape": ALL, "module": PEOPLE}
#: Node -> field -> who reads it. Every field of every node is here, and so is every kind of node:
#: a kind that no entry names is refused.
FIELDS: Mapping[type[Any], Mapping[str, str | tuple[str, ...]]] = {
    Source: {**_NODE, "payload": ALL},
    Projection: {
        "source": ALL,
        "kind": ALL,
        "weights": ("conv", "linear"),
        "payload": ALL,
        "strides": ("conv",),
        "pads": ("conv",),
        "dilations": ("conv",),
        "groups": ("conv",),
        "shift": ("conv", "linear"),
    },
    Accumulator: {
        **_NODE,
        "projections": ALL,
        "bias": ALL,
        "low": ALL,
        "high": ALL,
        "masked": ("masked",),
    },
    Neuron: {
        **_NODE,
        "source": ALL,
        "levels": ALL,
        "depth": ALL,
        "carry": ALL,
        "norm": PEOPLE,
        "rounding": PEOPLE,
        "decay": _MEMORY,
        "fraction": _MEMORY,
        "threshold": _MEMORY,
    },
    Pool: {
        **_NODE,
        "source": ALL,
        "kind": ALL,
        "kernel": ALL,
        "strides": ALL,
        "pads": ALL,
        "payload": ALL,
    },
    Relay: {**_NODE, "source": ALL, "depth": ALL, "payload": ALL},
    Attention: {
        **_NODE,
        "q": ALL,
        "k": ALL,
        "v": ALL,
        "heads": ALL,
        "order": ALL,
        "payload": ALL,
    },
    Readout: {
        **_NODE,
        "source": ALL,
        "scale": ALL,
        "over_time": ALL,
        "host": ("host",),
        "weight": ("host",),
        "bias": ("host",),
    },
}
#: Node -> what its kind is called, and which there are.
_KINDS: Mapping[type[Any], tuple[str, tuple[str, ...]]] = {
    Projection: ("projection kind", ("conv", "linear", "identity")),
    Neuron: ("carry", ("none", *_MEMORY)),
    Pool: ("pool kind", ("max", "sum")),
    Attention: ("order", tuple(ORDERS)),
}


def kind_of(item: Node | Projection) -> str:
    """What decides which fields of a node are read, or nothing where all always are."""
    if isinstance(item, (Projection, Pool)):
        return item.kind
    if isinstance(item, Accumulator):
        return "whole" if item.masked is None else "masked"
    if isinstance(item, Neuron):
        return item.carry
    if isinstance(item, Attention):
        return item.order
    if isinstance(item, Readout):
        return "host" if item.host else "own"
    return ""


class _InvalidError(Exception):
    """Stops the check of one node at its first fault."""


def faults_of(program: Program) -> list[Fault]:
    """Everything wrong with the Program, at most one fault per node."""
    faults: list[Fault] = []
    seen: dict[str, Node] = {}
    for node in program.nodes:
        try:
            _check_node(program, node, seen)
        except _InvalidError as e:
            faults.append(Fault(str(e), node=str(node.name), kind=type(node).__name__))
        except (TypeError, ValueError, AttributeError, LookupError, OverflowError) as e:
            faults.append(Fault(f"malformed field: {e}", node=str(node.name)))
        seen[node.name] = node
    faults += [Fault(what) for what in _global_faults(program)]
    return faults


def _global_faults(program: Program) -> Iterator[str]:
    if sum(isinstance(n, Source) for n in program.nodes) != 1:
        yield "exactly one source is expected"
    if not program.readouts:
        yield "no readout"
    if not 0 < program.timesteps <= MAX_TIMESTEPS or not 0 < program.ticks <= MAX_TICKS:
        yield f"timesteps {program.timesteps} and ticks {program.ticks} out of range"
    if any(r.host for r in program.readouts) and len({*map(_result, program.readouts)}) > 1:
        yield "readouts that the host adds are of different shape or time"


def _result(readout: Readout) -> tuple[Any, str]:
    """What a readout is behind the host's layer: shape, and which timesteps."""
    w = readout.weight
    return readout.shape if w is None else w.shape[:1], readout.over_time


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise _InvalidError(what)


def _integers(value: Any, count: int) -> bool:
    return type(value) is tuple and len(value) == count and all(type(v) is int for v in value)


def _all_are(value: Any, kind: type) -> bool:
    return type(value) is tuple and all(isinstance(v, kind) for v in value)


#: By annotation: a file may hold anything, and 2.0 or True would pass for an integer for a while.
_FIELD_TYPES: dict[Any, Callable[[Any], bool]] = {
    "str": lambda v: type(v) is str,
    "int": lambda v: type(v) is int,
    "float": lambda v: isinstance(v, (int, float)) and bool(np.isfinite(v)),
    "Shape": lambda v: type(v) is tuple and _integers(v, len(v)),
    "tuple[int, int]": lambda v: _integers(v, 2),
    "tuple[int, int] | None": lambda v: v is None or _integers(v, 2),
    "tuple[int, int, int, int]": lambda v: _integers(v, 4),
    "Array": lambda v: isinstance(v, np.ndarray),
    "Array | None": lambda v: v is None or isinstance(v, np.ndarray),
    "tuple[Array, ...]": lambda v: _all_are(v, np.ndarray),
    "tuple[Projection, ...]": lambda v: _all_are(v, Projection),
}


def _check_fields(item: Node | Projection) -> None:
    for f in fields(item):
        fits = _FIELD_TYPES[f.type](getattr(item, f.name))
        _require(fits, f"field '{f.name}' is not of type {f.type}")
        _require(_is_in_range(getattr(item, f.name)), f"field '{f.name}' is out of range")
    kind = kind_of(item)
    word, kinds = _KINDS.get(type(item), ("kind", (kind,)))
    _require(kind in kinds, f"unknown {word} '{kind}'; there are {', '.join(kinds)}")
    for f in fields(item):
        readers = FIELDS[type(item)][f.name]
        if isinstance(readers, tuple) and kind not in readers:
            what = f"field '{f.name}' belongs to {' and '.join(readers)}, not to {kind}"
            _require(_is_default(f, getattr(item, f.name)), what)


def _is_in_range(value: Any) -> bool:
    """Whether integers fit the 64 bits that they are kept in, and sizes are none but those."""
    if type(value) is tuple:
        return all(type(v) is not int or abs(v) < MAX_SIZE for v in value)
    return type(value) is not int or abs(value) < 2**63


def _is_default(f: Field[Any], value: Any) -> bool:
    return f.default is not MISSING and type(value) is type(f.default) and value == f.default


def _check_node(program: Program, node: Node, seen: dict[str, Node]) -> None:
    _check_fields(node)
    _require(node.name not in seen, "name is not unique")
    sizes = all(s > 0 for s in node.shape)
    _require(sizes and len(node.shape) >= 1, f"shape {node.shape} is not positive")
    _require(prod(node.shape) < MAX_ELEMENTS, f"shape {node.shape} is too large")
    for name in sources_of(node):
        _require(name in seen, f"reads '{name}', which does not come before it")
        _require(not isinstance(seen[name], Readout), "a readout emits nothing")
    if isinstance(node, Source):
        _require(0 < node.payload < 2**31, f"payload {node.payload} out of range")
    elif isinstance(node, Accumulator):
        _check_accumulator(node, seen)
        _check_mask(program, node)
    elif isinstance(node, Neuron):
        _check_neuron(program, node, seen)
    elif isinstance(node, Pool):
        _check_pool(node, seen)
    elif isinstance(node, Relay):
        _check_relay(program, node, seen)
    elif isinstance(node, Attention):
        _check_attention(node, seen)
    else:
        _check_readout(node, seen)


def _check_accumulator(node: Accumulator, seen: dict[str, Node]) -> None:
    _require(len(node.projections) > 0, "no projection feeds it")
    for p in node.projections:
        _check_projection(node, p, seen[p.source])
    bias = node.bias
    _require(isinstance(bias, np.ndarray) and bias.dtype == np.int64, "bias is not int64")
    _require(bias.shape in ((node.shape[0],), node.shape), f"bias has shape {bias.shape}")
    low, high = potential_bounds(node, seen)
    _require(
        node.low <= low and high <= node.high,
        f"declared bounds [{node.low}, {node.high}] do not hold the proved [{low}, {high}]",
    )
    _require(node.low > -TOTAL_LIMIT and node.high < TOTAL_LIMIT, "potential may overflow int64")


def _check_mask(program: Program, node: Accumulator) -> None:
    if node.masked is None:
        return
    source = program.source
    _require(min(node.masked) > 0, f"masked by {node.masked} patches")
    _require(len(source.shape) == 3 and source.shape[0] > 1, "masked, but the source has no mask")
    for shape in (source.shape, node.shape):
        whole = len(shape) == 3 and not any(
            size % n for size, n in zip(shape[1:], node.masked, strict=True)
        )
        _require(whole, f"{node.masked} patches do not cover {shape}")


def _check_projection(node: Accumulator, p: Projection, source: Node) -> None:
    _check_fields(p)
    reach = emitted_payload(source)
    _require(p.payload >= reach, f"payload {p.payload} is below what '{p.source}' emits ({reach})")
    for w in p.weights:
        ok = isinstance(w, np.ndarray) and w.dtype == np.int8
        _require(ok and w.shape == p.weights[0].shape, "weight slices are not int8 of one shape")
    fits = p.shift + 8 * len(p.weights) <= MAX_PROJECTION_BITS
    _require(p.shift >= 0 and fits, f"shift {p.shift} out of range")
    if p.kind == "identity":
        _require(node.shape == source.shape, "identity changes the shape")
        return
    _require(0 < len(p.weights) <= 3, "one to three weight slices are expected")
    expected = _conv_shape(p, source.shape) if p.kind == "conv" else _linear_shape(p, source.shape)
    _require(node.shape == expected, f"'{p.source}' arrives as {expected}, not {node.shape}")
    for w in p.weights:
        reach = p.payload * int(np.abs(w.astype(np.int64)).reshape(len(w), -1).sum(1).max())
        _require(reach <= SLICE_LIMIT, f"a slice may reach {reach}, beyond 32 bits")


def _conv_shape(p: Projection, shape: Shape) -> Shape:
    _require(len(shape) == 3 and p.weights[0].ndim == 4, "conv needs (C, H, W) and 4-d weights")
    out, per_group, kh, kw = p.weights[0].shape
    _require(p.groups > 0 and out % p.groups == 0, f"groups {p.groups} does not divide {out}")
    _require(per_group * p.groups == shape[0], f"weights expect {per_group * p.groups} channels")
    _check_window(shape, p.strides, p.pads)
    _require(min(p.dilations) > 0, f"dilations {p.dilations}")
    h = pooled_size(shape[1], kh, p.strides[0], p.pads[0] + p.pads[2], p.dilations[0])
    w = pooled_size(shape[2], kw, p.strides[1], p.pads[1] + p.pads[3], p.dilations[1])
    return (out, h, w)


def _check_window(shape: Shape, strides: tuple[int, ...], pads: tuple[int, ...]) -> None:
    _require(min(strides) > 0, f"strides {strides}")
    _require(min(pads) >= 0, f"pads {pads}")
    height, width = shape[1] + pads[0] + pads[2], shape[2] + pads[1] + pads[3]
    _require(shape[0] * height * width < MAX_ELEMENTS, f"pads {pads} are too large")


def _linear_shape(p: Projection, shape: Shape) -> Shape:
    _require(p.weights[0].ndim == 2, "linear needs 2-d weights")
    out, features = p.weights[0].shape
    _require(features == prod(shape), f"weights expect {features} inputs, not {prod(shape)}")
    return (out,)


def _check_neuron(program: Program, node: Neuron, seen: dict[str, Node]) -> None:
    source = seen[node.source]
    _require(isinstance(source, Accumulator), f"reads '{node.source}', which is no accumulator")
    _require(prod(source.shape) == prod(node.shape), f"reads {source.shape} as {node.shape}")
    levels = node.levels
    _require(isinstance(levels, np.ndarray) and levels.dtype == np.int64, "levels are not int64")
    _require(
        levels.ndim == 2 and levels.shape[0] in (1, node.shape[0]),
        f"levels have shape {levels.shape}",
    )
    _require(0 < node.D <= min(255, program.ticks), f"{node.D} levels, {program.ticks} ticks")
    _require(bool((np.diff(levels, axis=1) >= 0).all()), "levels decrease")
    _require(bool((np.abs(levels.astype(np.float64)) < 2.0**62).all()), "levels out of range")
    _check_carry(program, node, source)
    _require(node.depth >= required_depth(node, seen), f"fires too early at depth {node.depth}")
    _require(node.depth <= len(program.nodes), f"fires too late at depth {node.depth}")


def _check_carry(program: Program, node: Neuron, source: Node) -> None:
    if node.carry == "none":
        return
    numerator, shift = node.decay
    _require(0 <= shift <= MAX_SHIFT, f"decay {node.decay} out of range")
    _require(0 <= numerator <= 1 << shift, f"decay {node.decay} out of range")
    _require(0 <= node.fraction < TOTAL_LIMIT.bit_length(), f"fraction {node.fraction}")
    taken = node.threshold
    _require(taken is not None and taken.dtype == np.int64, "threshold is not int64")
    assert taken is not None
    _require(taken.shape in ((1,), (node.shape[0],)), f"threshold has shape {taken.shape}")
    _require(int(taken.min()) > 0 and int(taken.max()) < TOTAL_LIMIT, "threshold out of range")
    drive = emitted_payload(source)
    reach = membrane_of(node, program.timesteps, (-drive, drive)).widest
    _require(reach < TOTAL_LIMIT, "membrane may overflow int64")


_NO_MAXIMUM = "max-pool over potentials or sums; only spikes and pixels have one tick by tick"


def _has_tickwise_maximum(node: Node) -> bool:
    """Whether the maxima of the single ticks add up to the maximum of the timestep.

    They do for thermometer trains and for pixels; a sum of trains is no such train.
    """
    is_max = isinstance(node, Pool) and node.kind == "max"
    return is_max or isinstance(node, (Source, Neuron, Relay))


def _check_pool(node: Pool, seen: dict[str, Node]) -> None:
    source = seen[node.source]
    _require(len(source.shape) == 3 and len(node.shape) == 3, "pools need (C, H, W)")
    _require(node.kind == "sum" or _has_tickwise_maximum(source), _NO_MAXIMUM)
    _check_window(source.shape, node.strides, node.pads)
    kernel, pads = node.kernel, node.pads
    _require(min(kernel) > 0, f"kernel {kernel}")
    _require(
        max(pads[0], pads[2]) < kernel[0] and max(pads[1], pads[3]) < kernel[1],
        "padding is larger than the kernel",
    )
    expected = (
        source.shape[0],
        pooled_size(source.shape[1], kernel[0], node.strides[0], pads[0] + pads[2]),
        pooled_size(source.shape[2], kernel[1], node.strides[1], pads[1] + pads[3]),
    )
    _require(node.shape == expected, f"gives {expected}, not {node.shape}")
    reach = emitted_payload(source) * (1 if node.kind == "max" else prod(kernel))
    _require(reach <= node.payload < TOTAL_LIMIT, f"payload {node.payload} is below {reach}")


def _check_relay(program: Program, node: Relay, seen: dict[str, Node]) -> None:
    source = seen[node.source]
    train = firing_window(source, seen) is not None
    _require(train, f"reads '{node.source}', which fires no spike train")
    _require(node.shape == source.shape, f"reads {source.shape} as {node.shape}")
    reach = emitted_payload(source)
    _require(reach <= node.payload <= program.ticks, f"payload {node.payload}, not {reach}")
    _require(node.depth >= required_depth(node, seen), f"fires too early at depth {node.depth}")
    _require(node.depth <= len(program.nodes), f"fires too late at depth {node.depth}")


def _check_attention(node: Attention, seen: dict[str, Node]) -> None:
    trains = q, k, v = [seen[name] for name in (node.q, node.k, node.v)]
    for name, train in zip((node.q, node.k, node.v), trains, strict=True):
        fires = firing_window(train, seen) is not None
        _require(fires, f"reads '{name}', which fires no spike train")
    whole = node.heads > 0 and not any(t.shape[0] % node.heads for t in trains)
    _require(whole, f"{node.heads} heads do not divide the channels")
    shapes = f"q {q.shape}, k {k.shape} and v {v.shape}"
    fit = q.shape[0] == k.shape[0] and prod(k.shape[1:]) == prod(v.shape[1:])
    _require(fit, f"{shapes} do not go together")
    _require(node.shape == (v.shape[0], *q.shape[1:]), f"{shapes} do not give {node.shape}")
    complete = 1 + max(firing_window(seen[name], seen) or 0 for name in node.first)
    late = (firing_window(seen[node.last], seen) or 0) >= complete
    _require(late, f"reads '{node.last}' before the other two are complete; relay it")
    payloads = emitted_payload(q), emitted_payload(k), emitted_payload(v)
    matrix, reach = reach_of(node.order, q.shape, k.shape, node.heads, payloads)
    _require(matrix <= SLICE_LIMIT, f"products may reach {matrix}, beyond 32 bits")
    _require(reach <= node.payload, f"payload {node.payload} is below {reach}")
    exact = node.payload < EXACT_PRODUCTS
    _require(exact, f"products may reach {node.payload}, beyond 2**53")


def _check_readout(node: Readout, seen: dict[str, Node]) -> None:
    source = seen[node.source]
    kept = not isinstance(source, (Relay, Attention))
    _require(kept, f"reads '{node.source}', of which no engine keeps values")
    _require(prod(source.shape) == prod(node.shape), f"reads {source.shape} as {node.shape}")
    _require(np.isfinite(node.scale) and node.scale > 0, f"scale {node.scale} is not positive")
    _require(node.over_time in ("each", "sum"), f"unknown over_time '{node.over_time}'")
    _check_host(node)


def _check_host(node: Readout) -> None:
    """All of a linear layer that fits, or of a result that no layer of the host reads nothing."""
    if not node.host:
        return
    w, b = node.weight, node.bias
    _require(w is not None and b is not None, "half of a host layer")
    if w is None or b is None:
        return
    _require(w.dtype == b.dtype == np.float32, "a host layer is float32")
    _require(w.ndim == 2 and w.shape[1:] == node.shape, f"host weights {w.shape} do not fit")
    _require(b.shape == w.shape[:1], f"host bias {b.shape} does not fit")
    _require(bool(np.isfinite(w).all() and np.isfinite(b).all()), "a host layer is not finite")
