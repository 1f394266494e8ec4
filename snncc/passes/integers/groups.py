"""Layers whose membrane potentials are added share a grid: which these are, and in which order.

Where layers read potentials, with no neuron between, the grids of those are made before theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

import networkx as nx
import onnx_ir as ir

from snncc.errors import Fault, UnsupportedModelError
from snncc.ir.graphs import attribute, label, nodes, provenance
from snncc.ir.ops import summed, traits
from snncc.passes.fold.fold_batch_norm import still_norms
from snncc.passes.integers.heavy_weights import reach
from snncc.passes.integers.neurons import kind_of
from snncc.passes.integers.own_grids import Demands
from snncc.passes.integers.payloads import reads_potential
from snncc.passes.integers.writers import MOST_SHIFT
from snncc.passes.reading import Linear, linear_behind

__all__ = ["Group", "groups_of", "in_order", "layers_of", "most_threshold"]

#: Potentials stay below 2^62; half of the rest is for what rounding adds.
_ROOM = 2.0**60


@dataclass(frozen=True)
class Group:
    """Layers that share a grid.

    Attributes:
        layers: In topological order.
        is_result: They feed the result.
        is_carried: They feed a neuron with memory.
        is_fixed: Something on the way to its readers takes no shift: a mask, a padded pool.
        levels: The most levels that a neuron after them has; 0: there is none.
        room: How far their potential may reach, so that it fits, and what it is added up to.
        potentials: All that are on its grid.
        chain: A number that all have whose layers read each other's potentials; -1: none of others.
        still: Batch norms of the network that may be why weights are heavy.
    """

    layers: list[Linear]
    is_result: bool
    is_carried: bool
    is_fixed: bool
    levels: int
    room: float
    potentials: frozenset[ir.Value] = frozenset()
    chain: int = -1
    still: tuple[str, ...] = ()

    @property
    def reads_payloads(self) -> bool:
        """Whether layers of it read integers of potentials."""
        return any(linear.payload is not None for linear in self.layers)

    @property
    def is_between(self) -> bool:
        """Whether layers alone read it: no neuron, and nobody outside."""
        return not self.levels and not self.is_result

    @property
    def widest(self) -> Linear:
        """The layer that takes potentials farthest."""
        return max(self.layers, key=lambda linear: float(reach(linear).max()))

    @property
    def most_shift(self) -> int:
        """Of a layer among others."""
        return MOST_SHIFT + max(linear.steps_read for linear in self.layers)

    @property
    def has_one_scale(self) -> bool:
        """Whether all channels need the same threshold."""
        return self.is_result or len({len(x.weights.values) for x in self.layers}) > 1

    def demands(self, bits: int) -> Demands:
        """What its readers need of a grid."""
        shift = not (self.is_result or self.is_carried or self.is_fixed or self.has_one_scale)
        threshold = most_threshold(bits, self) if self.is_carried else None
        return Demands(self.has_one_scale, shift, self.is_result, threshold)


def layers_of(model: ir.Model) -> Iterator[Linear]:
    """All linear layers of a graph, in topological order."""
    for node in nodes(model, "Conv", "Gemm"):
        if (linear := linear_behind(node)) is not None:
            yield linear


def groups_of(model: ir.Model, layers: dict[ir.Value, Linear]) -> list[Group]:
    """Connected components of potentials under addition, scaling, pooling and reshaping."""
    graph = nx.Graph()
    graph.add_nodes_from(layers)
    for node in model.graph:
        out = node.outputs[0]
        if not traits(node).keeps_grid or out in layers:
            continue
        for x in node.inputs:
            if x is not None and x in graph:
                graph.add_edge(x, out)
    order = {value: i for i, value in enumerate(layers)}
    growth, still = _growth(model, layers), tuple(still_norms(model))
    found = []
    for component in nx.connected_components(graph):
        members = sorted((v for v in component if v in layers), key=order.__getitem__)
        is_result = any(v.is_graph_output() for v in component)
        readers = [user for v in component for user, _ in v.uses() if traits(user).fires]
        is_carried = any(traits(r).remembers for r in readers)  # integer thresholds
        fixed = any(_takes_no_shift(user) for v in component for user, _ in v.uses())
        levels = max((int(attribute(r, "D")) for r in readers), default=0)
        added = max(growth[v][1] for v in component if v in growth)
        kept = max((kind_of(r).membrane_bits(r) for r in readers), default=0)
        room = _ROOM / added / 2.0**kept
        writers = [layers[v] for v in members]
        found.append(
            Group(
                writers,
                is_result,
                is_carried,
                fixed,
                levels,
                room,
                frozenset(component),
                still=still,
            )
        )
    return sorted(found, key=lambda g: order[g.layers[0].out])


def _growth(
    model: ir.Model, layers: Mapping[ir.Value, Linear]
) -> dict[ir.Value, tuple[frozenset[ir.Value], int]]:
    """Of every potential the layers in it, and how often one of them is in it at most."""
    found = {value: (frozenset([value]), 1) for value in layers}
    for node in model.graph:
        out = node.outputs[0]
        ahead = [found[x] for x in node.inputs if x in found]
        if not traits(node).keeps_grid or out in layers or not ahead:
            continue
        members = frozenset().union(*(m for m, _ in ahead))
        disjoint = sum(len(m) for m, _ in ahead) == len(members)
        times = (max if disjoint else sum)(n for _, n in ahead)
        found[out] = members, times * summed(node)
    return found


def _takes_no_shift(node: ir.Node) -> bool:
    """Whether a shift of what the node reads is there at some places only, or would be lost."""
    padded = traits(node).sums and any(attribute(node, "pads", ()))
    return bool(padded) or traits(node).masks or traits(node).weighs


def in_order(groups: list[Group], faults: list[Fault]) -> list[Group]:
    """Each after those whose potentials its layers read, else as they are.

    Args:
        groups: Of one network.
        faults: Gets one where there is no such order.
    """
    order: nx.DiGraph[int] = nx.DiGraph()
    order.add_nodes_from(range(len(groups)))
    for i, group in enumerate(groups):
        read = [linear for linear in group.layers if reads_potential(linear)]
        for linear, (j, other) in product(read, enumerate(groups)):
            if linear.x in other.potentials:
                order.add_edge(j, i)
    if nx.is_directed_acyclic_graph(order):
        chains = {i: min(c) for c in nx.weakly_connected_components(order) for i in c if len(c) > 1}
        topological = nx.lexicographical_topological_sort(order)
        return [replace(groups[i], chain=chains.get(i, -1)) for i in topological]
    for component in nx.strongly_connected_components(order):
        first = min(component)
        if len(component) > 1 or order.has_edge(first, first):
            faults += [_own_reader(linear) for linear in groups[first].layers[-1:]]
    raise UnsupportedModelError("layers read potentials that they are added to", faults)


def _own_reader(linear: Linear) -> Fault:
    origin = provenance(linear.node)
    what = "is added, through layers with no neuron between, to a potential that it reads"
    kind, todo = linear.node.op_type, "a neuron before the layer"
    return Fault(what, label(linear.node), kind, origin.module, origin.source, todo)


def most_threshold(bits: int, group: Group | None = None) -> int:
    """Finer by as much as what layers read is, where that are integers of potentials."""
    finer = 1 << max((linear.steps_read for linear in group.layers), default=0) if group else 1
    return int(2 ** (12 + bits) * finer - 1)
