"""Validation of a Program that may come from an untrusted file: one fault per node at most.

What is valid is the same network on every engine. Here is what holds of all nodes alike; the rest
each kind checks itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields
from math import prod
from typing import Any

import numpy as np

from snncc.errors import Fault
from snncc.program.nodes import KINDS
from snncc.program.nodes.base import MAX_ELEMENTS, InvalidError, Item, Network, Node, Nodes, require
from snncc.program.nodes.neuron import MAX_TICKS
from snncc.program.nodes.projection import Projection
from snncc.program.nodes.readout import Readout, joined
from snncc.program.nodes.source import Source

__all__ = ["faults_of"]

#: Guards against absurd sizes in a hand-edited file.
_MAX_TIMESTEPS = 2**16
#: Sizes, strides and the like: the event engine counts in 64 bits, and none comes near this.
_MAX_SIZE = 2**31


def faults_of(program: Network) -> list[Fault]:
    """Everything wrong with the Program, at most one fault per node."""
    faults: list[Fault] = []
    seen: dict[str, Node] = {}
    for node in program.nodes:
        try:
            _check_node(program, node, seen)
        except InvalidError as e:
            faults.append(Fault(str(e), node=str(node.name), kind=type(node).__name__))
        except (TypeError, ValueError, AttributeError, LookupError, OverflowError) as e:
            faults.append(Fault(f"malformed field: {e}", node=str(node.name)))
        seen[node.name] = node
    faults += [Fault(what) for what in _global_faults(program)]
    return faults


def _global_faults(program: Network) -> Iterator[str]:
    if sum(isinstance(n, Source) for n in program.nodes) != 1:
        yield "exactly one source is expected"
    readouts = [node for node in program.nodes if isinstance(node, Readout)]
    if not readouts:
        yield "no readout"
    if not 0 < program.timesteps <= _MAX_TIMESTEPS or not 0 < program.ticks <= MAX_TICKS:
        yield f"timesteps {program.timesteps} and ticks {program.ticks} out of range"
    for name, parts in joined(readouts).items():
        if len({*map(_meaning, parts)}) > 1:
            yield "readouts that the host adds are of different shape or time"
        if len(parts) > 1 and not any(part.host for part in parts):
            yield f"the host adds nothing to the readouts of '{name}'"


def _meaning(readout: Readout) -> tuple[Any, str]:
    """What a readout is after the host's layer: shape, and which timesteps."""
    w = readout.weight
    return readout.shape if w is None else w.shape[:1], readout.over_time


def _check_node(program: Network, node: Node, seen: Nodes) -> None:
    require(type(node) in KINDS.values(), f"unknown kind of node; there are {', '.join(KINDS)}")
    _check_fields(node)
    require(node.name not in seen, "name is not unique")
    sizes = all(s > 0 for s in node.shape)
    require(sizes and len(node.shape) >= 1, f"shape {node.shape} is not positive")
    require(prod(node.shape) < MAX_ELEMENTS, f"shape {node.shape} is too large")
    for name in node.sources:
        require(name in seen, f"reads '{name}', which does not come before it")
        require(seen[name].emits, "a readout emits nothing")
    node.check(program, seen)


# -- fields --------------------------------------------------------------------------------


def _integers(value: Any, count: int | None = None) -> bool:
    """A tuple of so many integers, or of any number."""
    is_long = type(value) is tuple and count in (None, len(value))
    return is_long and all(type(v) is int for v in value)


def _all_are(value: Any, kind: type[Any]) -> bool:
    return type(value) is tuple and all(isinstance(v, kind) for v in value)


def _is_factor(value: Any) -> bool:
    """(numerator, shift), or a tuple of numerators."""
    if type(value) is not tuple or len(value) != 2:
        return False
    numerator, shift = value
    return type(shift) is int and _integers(numerator if type(numerator) is tuple else (numerator,))


#: By annotation: a file may hold anything, and 2.0 or True would pass for an integer for a while.
_FIELD_TYPES: dict[Any, Callable[[Any], bool]] = {
    "str": lambda v: type(v) is str,
    "int": lambda v: type(v) is int,
    "float": lambda v: isinstance(v, (int, float)) and bool(np.isfinite(v)),
    "Shape": _integers,
    "str | None": lambda v: v is None or type(v) is str,
    "tuple[int, int]": lambda v: _integers(v, 2),
    "Factor": _is_factor,
    "tuple[int, int] | None": lambda v: v is None or _integers(v, 2),
    "tuple[int, int, int, int]": lambda v: _integers(v, 4),
    "Array": lambda v: isinstance(v, np.ndarray),
    "Array | None": lambda v: v is None or isinstance(v, np.ndarray),
    "tuple[Array, ...]": lambda v: _all_are(v, np.ndarray),
    "tuple[Projection, ...]": lambda v: _all_are(v, Projection),
}


def _check_fields(item: Item) -> None:
    """Of the annotated types, in range, the default where no one reads them; those of parts too."""
    for f in fields(item):
        fits = _FIELD_TYPES[f.type](getattr(item, f.name))
        require(fits, f"field '{f.name}' is not of type {f.type}")
        require(_is_in_range(getattr(item, f.name)), f"field '{f.name}' is out of range")
    variant, (word, variants) = item.variant, item.variants
    require(variant in variants, f"unknown {word} '{variant}'; there are {', '.join(variants)}")
    for f in fields(item):
        readers, value = item.readers[f.name], getattr(item, f.name)
        if isinstance(readers, tuple) and variant not in readers:
            what = f"field '{f.name}' belongs to {' and '.join(readers)}, not to {variant}"
            require(_is_default(f, value), what)
        for part in value if type(value) is tuple else ():
            if isinstance(part, Item):
                _check_fields(part)


def _is_in_range(value: Any) -> bool:
    """Whether integers fit the 64 bits that they are kept in, and sizes are none but those."""
    if type(value) is tuple:
        return all(type(v) is not int or abs(v) < _MAX_SIZE for v in value)
    return type(value) is not int or abs(value) < 2**63


def _is_default(f: Field[Any], value: Any) -> bool:
    return f.default is not MISSING and type(value) is type(f.default) and value == f.default
