"""The graph of a stage as plain data: its nodes, where they come from, and their weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from snncc.cli import tables
from snncc.ir.metadata import CLASS, PASS
from snncc.ir.names import COUNT, POTENTIAL, SPIKES
from snncc.program import Neuron

if TYPE_CHECKING:
    import onnx_ir as ir

    from snncc.program import Node
    from snncc.runtime.artifact import CompiledModel

__all__ = ["stage_json"]

#: Constants of so few numbers are written out.
_FEW = 4
_LONGEST = 200  # characters of an attribute


def stage_json(model: CompiledModel, stage: str) -> dict[str, Any]:
    """A stage: ``name``, whether its ``weights`` are kept, ``nodes`` in topological order.

    Inputs come first, as nodes of operator ``input``; outputs last, as ``output``. A node's
    ``inputs`` are indices of nodes, its ``fact`` the node of the Program that it computes. What is
    empty is left out.
    """
    import onnx_ir as ir

    proto = tables.graph_of(model, stage)
    statistics = tables.statistics_of(proto)
    graph = _Graph(ir.from_proto(proto).graph, statistics, model.program.by_name)
    return {
        "name": stage,
        "weights": "statistics" if statistics else "weights",
        "nodes": graph.nodes(),
        "constants": graph.constants,
    }


class _Graph:
    """One graph on its way into plain data.

    Attributes:
        constants: Name -> figures of a weight, or the numbers of a small one.
    """

    def __init__(
        self,
        graph: ir.Graph,
        statistics: Mapping[str, dict[str, Any]],
        program: Mapping[str, Node],
    ) -> None:
        self.graph, self.statistics, self.program = graph, statistics, program
        self.constants: dict[str, Any] = {}
        self._index: dict[int, int] = {}  # of the node that makes a value
        self._taken = 0

    def nodes(self) -> list[dict[str, Any]]:
        """See ``stage_json``."""
        live = [v for v in self.graph.inputs if v.name not in self.statistics]
        found = [self._input(value) for value in live]
        found += [self._node(node) for node in self.graph]
        found += [self._output(value) for value in self.graph.outputs]
        return [{k: v for k, v in node.items() if v} for node in found]

    def _add(self, *values: ir.Value) -> None:
        self._index.update((id(value), self._taken) for value in values)
        self._taken += 1

    def _input(self, value: ir.Value) -> dict[str, Any]:
        self._add(value)
        name = value.name or ""
        fact = name if name in self.program else ""
        return {"name": name, "op": "input", "type": _type(value), "fact": fact}

    def _output(self, value: ir.Value) -> dict[str, Any]:
        source = self._index.get(id(value))
        inputs = [] if source is None else [source]
        return {"name": value.name, "op": "output", "type": _type(value), "inputs": inputs}

    def _node(self, node: ir.Node) -> dict[str, Any]:
        from snncc.ir.graphs import provenance

        origin = provenance(node)
        given = [value for value in node.inputs if value is not None]
        self._add(*node.outputs)
        name, kind = node.outputs[0].name or "", _kind(node)
        return {
            "name": name,
            "op": node.op_type,
            "kind": kind,
            "fact": self._fact(name, kind == "neuron"),
            "module": origin.module,
            "source": origin.source,
            "pass": node.metadata_props.get(PASS, ""),
            "class": node.metadata_props.get(CLASS, ""),
            "inputs": [self._index[id(v)] for v in given if id(v) in self._index],
            "constants": [name for v in given if (name := self._constant(v))],
            "type": _type(node.outputs[0]),
            "attributes": _attributes(node),
        }

    def _fact(self, name: str, is_neuron: bool) -> str:
        """The node of the Program that a value is, in the units of its stage; empty: of none."""
        for known in (name, name.removesuffix(SPIKES), f"{name}{COUNT}", f"{name}{POTENTIAL}"):
            node = self.program.get(known)
            if node is not None and isinstance(node, Neuron) == is_neuron:
                return known
        return ""

    def _constant(self, value: ir.Value) -> str:
        """The name of a weight, whose figures are then known; empty for values of nodes."""
        if id(value) in self._index:
            return ""
        name = value.name or ""
        if name and name not in self.constants:
            self.constants[name] = {"type": _type(value), **self._figures(value)}
        return name

    def _figures(self, value: ir.Value) -> dict[str, Any]:
        from snncc.ir.graphs import constant

        if (known := self.statistics.get(value.name or "")) is not None:
            return {key: known[key] for key in ("min", "max", "mean", "std")}
        array = constant(value)
        if array is None or not array.size:
            return {}
        if array.size <= _FEW:
            return {"values": array.ravel().tolist()}
        wide = array.astype(np.float64)
        low, high = array.min().item(), array.max().item()
        return {"min": low, "max": high, "mean": float(wide.mean()), "std": float(wide.std())}


def _kind(node: ir.Node) -> str:
    """What a node is to people, by what its operator says of itself; empty: nothing special."""
    from snncc.ir.ops import traits
    from snncc.ir.traits import Numbers

    found = traits(node)
    adds = found.joins or bool(found.sums) or found.reads is Numbers.CURRENTS
    kinds = {
        "neuron": found.fires,
        "product": found.multiplies,
        "layer": found.weighs,
        "pool": found.pools,
        "sum": adds,
        "view": found.regroups,
    }
    return next((kind for kind, holds in kinds.items() if holds), "")


def _type(value: ir.Value) -> str:
    """As ``f32[N,16,28,28]``; a batch that exporters number is N."""
    from snncc.ir.text import declared

    return re.sub(r"\bs\d+\b", "N", declared(value))


def _attributes(node: ir.Node) -> dict[str, str]:
    from snncc.ir.text import attribute_text

    held = sorted(node.attributes.items())
    return {key: attribute_text(found)[:_LONGEST] for key, found in held if key != "body"}
