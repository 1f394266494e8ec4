"""Consistent forged files: a valid network edited by hand, with every hash and contract right.

An edit is drawn from all that a file may hold: numbers, words, arrays, whole nodes, fields of
other nodes. Most files are settled afterwards, as a careful forger would: bounds, payloads, shapes
and firing windows follow the edit, so that the network is wrong in nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from artifact_files import forged

from snncc.program import (
    Accumulator,
    Attention,
    Neuron,
    Node,
    Pool,
    Program,
    Projection,
    Readout,
    Relay,
    Source,
    pooled_size,
    sources_of,
)
from snncc.program.attention import reach_of
from snncc.program.bounds import bounded, emitted_payload
from snncc.program.network import _node_from_json
from snncc.program.timing import firing_window, required_depth
from snncc.runtime.container import Blob
from snncc.runtime.contract import InputContract
from snncc.runtime.manifest import manifest_of

__all__ = ["Forger", "fileable", "forgery"]

#: Values of a node that is settled: larger ones would take this process minutes and gigabytes.
_MOST = 2**20
_WORDS = (
    *(
        "conv",
        "linear",
        "identity",
        "max",
        "sum",
        "none",
        "soft",
        "hard",
        "delayed",
        "raised",
        "kv",
        "qk",
    ),
    *("each", "host", "source", "accumulator", "neuron", "pool", "relay", "attention", "readout"),
    "",
)
_NUMBERS = (-1, 0, 1, 2, 3, 4, 7, 24, 255, 256, 2**15, 2**31, 2**53, 2**62, 2**63, 10**30)
_CELLS = (-(2**62), -(2**31), -128, -1, 0, 1, 2, 127, 128, 2**31, 2**53, 2**62)
_JUNK = (None, True, 1.5, [], [1], {}, "z", [[1]], 1e300)
#: Fields of any node, to be put where they do not belong.
_STRAY = {
    "strides": [2, 1], "pads": [0, 1, 0, 1], "dilations": [2, 2], "groups": 2, "shift": 3,
    "masked": [1, 1], "decay": [1, 1], "current": [1, 1], "fraction": 2, "carry": "soft",
    "payload": 3, "heads": 2,
    "kernel": [2, 2], "over_time": "sum", "host": "fc", "depth": 3, "extra": 1, "order": "qk",
}  # fmt: skip


def _members(
    data: dict[str, Any], arrays: dict[str, np.ndarray], program: Program | None
) -> dict[str, bytes]:
    blob = Blob()
    entries = {name: blob.add_array(a) for name, a in arrays.items() if a.size}
    members = {
        "program.json": json.dumps({**data, "arrays": entries}).encode(),
        "report.json": b"{}",
        "weights.bin": blob.tobytes(),
    }
    manifest = _manifest(data, program)
    return {**members, "manifest.json": json.dumps({**manifest, "sha256": ""}).encode()}


def _manifest(data: dict[str, Any], program: Program | None) -> dict[str, Any]:
    """As consistent with the network as it can be."""
    if program is None:
        program = Program(str(data.get("name")), (), 1, 1)
        return {"schema_version": 1, "name": program.name}
    source = program.source
    top = source.payload if 0 < source.payload < 255 else 255
    masks = {a.masked for a in program.accumulators} - {None}
    if masks and source.shape[0] % 2 == 0:
        shape = (source.shape[0] // 2, *source.shape[1:])
        return manifest_of(program, InputContract("x", shape, patches=min(masks)))
    kind = "uint8" if top == 255 else "float32"
    return manifest_of(program, InputContract("x", tuple(source.shape), kind, top=top))


def fileable(program: Program) -> Program:
    """The network as a file may hold it: with one patch mask, of raw pixels, or with none."""
    even = program.source.shape[0] % 2 == 0
    masks = [a.masked for a in program.accumulators if a.masked][: int(even)]
    seen: dict[str, Node] = {}
    for node in program.nodes:
        if isinstance(node, Source) and masks:
            node = replace(node, payload=255)
        if isinstance(node, Accumulator) and node.masked not in masks:
            node = replace(node, masked=None)
        seen[node.name] = _settled(node, seen)
    return replace(program, nodes=tuple(seen.values()))


def forgery(program: Program, rng: np.random.Generator, path: Path) -> Path:
    """A forged file of the network, with one to three edits."""
    forger = Forger(program, rng)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        forger.edit()
    if rng.random() < 0.7:
        forger.settle()
    return forged(path, _members(forger.data, forger.arrays, forger.program()))


class Forger:
    """Edits the plain data and the arrays of one network."""

    def __init__(self, program: Program, rng: np.random.Generator) -> None:
        data, arrays = program.to_json()
        self.data: dict[str, Any] = json.loads(json.dumps(data))
        self.arrays = {name: a.copy() for name, a in arrays.items()}
        self.rng = rng

    def pick(self, options: Any) -> Any:
        """One of the options, as it is."""
        return options[self.rng.integers(len(options))]

    def edit(self) -> None:
        """One edit; where it cannot be made, none."""
        kinds = (self.number, self.number, self.numbers, self.numbers, self.stray, self.word,
                 self.array, self.array, self.structure, self.junk)  # fmt: skip
        with suppress(Exception):  # an edit before may have left nothing to edit
            self.pick(kinds)()

    # -- edits -----------------------------------------------------------------------------

    def _entries(self) -> list[dict[str, Any]]:
        nodes = [n for n in self.data["nodes"] if isinstance(n, dict)]
        inner = [p for n in nodes for p in n.get("projections") or () if isinstance(p, dict)]
        return [*nodes, *inner]

    def _places(self, wanted: type) -> list[tuple[Any, Any]]:
        """(container, key) of all values of a type."""
        return [
            (holder, key)
            for entry in [self.data, *self._entries()]
            for holder, key, value in _leaves(entry)
            if type(value) is wanted
        ]

    def number(self) -> None:
        holder, key = self.pick(self._places(int))
        old = holder[key]
        near = (old + 1, old - 1, old * 2, old // 2, -old)
        holder[key] = int(self.pick(near) if self.rng.random() < 0.5 else self.pick(_NUMBERS))
        if holder is self.data and key == "timesteps":
            holder[key] = min(holder[key], 6)  # more take the clocked engine minutes

    def numbers(self) -> None:
        """All numbers of one field at once."""
        fields = [
            (e, k) for e in self._entries() for k, v in e.items()
            if isinstance(v, list) and v and all(type(i) is int for i in v)
        ]  # fmt: skip
        if fields:
            entry, key = self.pick(fields)
            entry[key] = [int(self.rng.integers(0, 4)) for _ in entry[key]]

    def stray(self) -> None:
        key = self.pick(sorted(_STRAY))
        self.pick(self._entries())[key] = _STRAY[key]

    def word(self) -> None:
        holder, key = self.pick(self._places(str))
        names = [str(n.get("name")) for n in self.data["nodes"]]
        holder[key] = self.pick(names if self.rng.random() < 0.6 else _WORDS)

    def junk(self) -> None:
        entry = self.pick([self.data, *self._entries()])
        key = self.pick(sorted(entry.keys() - {"nodes"}))
        if self.rng.random() < 0.5:
            entry[key] = self.pick(_JUNK)
        else:
            del entry[key]

    def structure(self) -> None:
        nodes = self.data["nodes"]
        i, j = (int(self.rng.integers(len(nodes))) for _ in "ij")
        kind = self.pick(("drop", "swap", "copy"))
        if kind == "drop":
            del nodes[i]
        elif kind == "swap":
            nodes[i], nodes[j] = nodes[j], nodes[i]
        else:
            nodes.insert(j, {**nodes[i], "name": "copy"})
        self.data["nodes"] = nodes or [{}]

    def array(self) -> None:
        if not self.arrays:
            return
        name = self.pick(sorted(self.arrays))
        old = self.arrays[name]
        kind = self.pick(("cells", "cells", "random", "shape", "dtype", "turned"))
        if kind == "shape":
            shape = [max(1, n + int(self.rng.integers(-1, 2))) for n in old.shape]
            self.arrays[name] = np.resize(old, shape)
        elif kind == "dtype":
            self.arrays[name] = old.astype(self.pick((np.int8, np.int64, np.float32)))
        elif kind == "turned":
            self.arrays[name] = np.ascontiguousarray(old.T)
        else:
            self._cells(old, kind)

    def _cells(self, values: np.ndarray, kind: str) -> None:
        bits = 8 * values.dtype.itemsize - 1 if values.dtype.kind == "i" else 20
        limit = 2 ** min(bits, 62)
        for _ in range(self.rng.choice([1, 3])):
            new = int(self.pick(_CELLS)) if kind == "cells" else int(self.rng.integers(-99, 99))
            values.flat[self.rng.integers(values.size)] = max(-limit, min(new, limit - 1))
        if self.rng.random() < 0.5:
            values.sort(axis=-1)  # levels stay in order

    # -- consistency -----------------------------------------------------------------------

    def program(self) -> Program | None:
        """The network as it is, valid or not; None if it is no network at all."""
        try:
            nodes = tuple(_node_from_json(entry, self.arrays) for entry in self.data["nodes"])
            made = Program(self.data["name"], nodes, self.data["timesteps"], self.data["ticks"])
            _manifest(self.data, made)
        except Exception:
            return None
        return made

    def settle(self) -> None:
        """Shapes, bounds, payloads and firing windows follow the edits, as far as they can."""
        made = self.program()
        if made is None:
            return
        seen: dict[str, Node] = {}
        for node in made.nodes:
            try:
                seen[node.name] = _settled(node, seen)
            except Exception:  # then validation has something to say of it
                seen[node.name] = node
        self.data, self.arrays = replace(made, nodes=tuple(seen.values())).to_json()
        self.data = json.loads(json.dumps(self.data))


def _leaves(entry: dict[str, Any]) -> Iterator[tuple[Any, Any, Any]]:
    for key, value in entry.items():
        if key in ("nodes", "projections", "arrays"):
            continue
        if isinstance(value, list):
            yield from ((value, i, v) for i, v in enumerate(value))
        else:
            yield entry, key, value


def _settled(node: Node, seen: dict[str, Node]) -> Node:
    sources = [seen[name] for name in sources_of(node)]
    if isinstance(node, Accumulator):
        return _settled_sums(node, seen)
    if isinstance(node, (Neuron, Relay)):
        depth = max(node.depth, required_depth(node, seen))
        shape = sources[0].shape if len(sources[0].shape) == len(node.shape) else node.shape
        node = replace(node, depth=depth, shape=shape)
        return node if isinstance(node, Neuron) else replace(
            node, payload=emitted_payload(sources[0]))  # fmt: skip
    if isinstance(node, Pool):
        return _settled_pool(node, sources[0])
    if isinstance(node, Attention):
        return _settled_products(node, seen)
    if isinstance(node, Readout) and len(sources[0].shape) == len(node.shape):
        return replace(node, shape=sources[0].shape)
    return node


def _settled_sums(node: Accumulator, seen: dict[str, Node]) -> Accumulator:
    made, shape = [], node.shape
    for p in node.projections:
        if p.shift > 64:
            return node
        source = seen[p.source]
        if prod(source.shape) > _MOST:
            return node
        p = replace(p, payload=max(p.payload, emitted_payload(source)))
        if p.kind == "linear":
            width = prod(source.shape)
            weights = tuple(np.resize(w, (len(w), width)) for w in p.weights)
            p, shape = replace(p, weights=weights), (len(weights[0]),)
        elif p.kind == "conv":
            shape = _conv_shape(p, source)
        else:
            shape = source.shape
        made.append(p)
    if prod(shape) > _MOST:
        return node
    bias = node.bias if node.bias.shape in (shape, shape[:1]) else np.resize(node.bias, shape[0])
    return bounded(replace(node, projections=tuple(made), shape=shape, bias=bias), seen)


def _conv_shape(p: Projection, source: Node) -> tuple[int, ...]:
    out, _, *kernel = p.weights[0].shape
    pads = p.pads[0] + p.pads[2], p.pads[1] + p.pads[3]
    whole = zip(source.shape[1:], kernel, p.strides, pads, p.dilations, strict=True)
    return (out, *(pooled_size(*sizes) for sizes in whole))


def _settled_pool(node: Pool, source: Node) -> Pool:
    pads = node.pads[0] + node.pads[2], node.pads[1] + node.pads[3]
    sizes = zip(source.shape[1:], node.kernel, node.strides, pads, strict=True)
    shape = (source.shape[0], *(pooled_size(*s) for s in sizes))
    reach = emitted_payload(source) * (1 if node.kind == "max" else prod(node.kernel))
    return replace(node, shape=shape, payload=max(reach, 1))


def _settled_products(node: Attention, seen: dict[str, Node]) -> Attention:
    q, k, v = (seen[name] for name in (node.q, node.k, node.v))
    payloads = emitted_payload(q), emitted_payload(k), emitted_payload(v)
    _, reach = reach_of(node.order, q.shape, k.shape, node.heads, payloads)
    last = seen[node.last]
    complete = 1 + max(firing_window(seen[name], seen) or 0 for name in node.first)
    if isinstance(last, Relay) and last.depth < complete:
        seen[last.name] = replace(last, depth=complete)
    return replace(node, shape=(v.shape[0], *q.shape[1:]), payload=max(node.payload, reach))
