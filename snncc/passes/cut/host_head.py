"""The network's affine end, which the host computes by consent: ``--host NODE``.

Networks whose last layer reads membrane potentials, with no neuron between, end for the engines at
those potentials: integers, bit-equal on all of them. The layer itself is a product of real numbers,
and so is what stands behind it: sums with the results of other layers, factors and shifts. The
host's part is an affine map of what the engines return, potentials or spike counts:
y = sum_i (x_i weight_iᵀ) + bias, or x_i alone where no layer of the host reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnx_ir.passes.common as common

from snncc.errors import Option, UsageError, Words
from snncc.ir.exact import Exact
from snncc.ir.graphs import attribute, constant, label, static_shape
from snncc.ir.results import ALONE, results_of, write_results
from snncc.passes.reading import Affine, Linear, read_affine, read_linear
from snncc.program import Program, Readout

__all__ = ["HostPart", "HostTerm", "hosted", "split_off"]

Array = npt.NDArray[np.float32]

_MINUS = Affine(Exact(-np.ones(1)), Exact(np.zeros(1)))


@dataclass(frozen=True, eq=False)
class HostTerm:
    """What one result of the engines, (N, F_in), adds to the network's.

    Attributes:
        layers: Module paths of the layers it goes through on the host.
        weight: Their product with all factors, float32 (F_out, F_in); none: it goes through none.
        factor: Without a weight: what it is multiplied with, positive.
    """

    layers: tuple[str, ...]
    weight: Array | None
    factor: float = 1.0

    def __call__(self, x: Array) -> Array:
        """Returns (N, F_out)."""
        return np.asarray(x * self.factor if self.weight is None else x @ self.weight.T)


@dataclass(frozen=True, eq=False)
class HostPart:
    """The sum of its terms and a bias, float32 (F_out,)."""

    terms: tuple[HostTerm, ...]
    bias: Array

    @property
    def macs(self) -> int:
        """Multiply-accumulates per sample."""
        return sum(term.weight.size for term in self.terms if term.weight is not None)

    def __call__(self, results: Sequence[Array]) -> Array:
        """The network's result (N, F_out) of the engines' real values (N, F_in), one per term."""
        parts = [term(x) for term, x in zip(self.terms, results, strict=True)]
        return np.asarray(np.sum(parts, axis=0) + self.bias)


def split_off(model: ir.Model, names: str | Iterable[str]) -> dict[str, HostPart]:
    """Take the affine ends off the graph, which then ends with what these read.

    Args:
        model: In stage ``imported``.
        names: Nodes or modules of the linear layers that the host may compute.

    Returns:
        Of each result that one of these layers leads to, what the host computes.

    Raises:
        UsageError: The network does not end in linear layers of these names.
    """
    work = _Split(model, (names,) if isinstance(names, str) else tuple(names))
    outs, read, parts = list[ir.Value](), dict[str, list[int]](), dict[str, HostPart]()
    for name, (place,) in results_of(model).items():
        found = work.end(model.graph.outputs[place])
        if found is not None:
            parts[name] = _part(found)
        values = [model.graph.outputs[place]] if found is None else [*found.terms]
        outs += [value for value in values if value not in outs]
        read[name] = [outs.index(value) for value in values]
    model.graph.outputs[:] = outs
    write_results(model, read)
    common.RemoveUnusedNodesPass()(model)
    return parts


def _part(found: _Sum) -> HostPart:
    terms = [_term(value, term) for value, term in found.terms.items()]
    size = next(len(term.weight) for term in terms if term.weight is not None)
    bias = np.broadcast_to(found.bias, (size,)).astype(np.float32)
    return HostPart(tuple(terms), bias)


def hosted(program: Program, parts: Mapping[str, HostPart]) -> Program:
    """The Program whose results the host's parts read; a bias goes with the first layer of each."""
    terms = {name: iter(part.terms) for name, part in parts.items()}
    biases = {name: part.bias for name, part in parts.items()}
    nodes = []
    for node in program.nodes:
        name = (node.result or ALONE) if isinstance(node, Readout) else ""
        if isinstance(node, Readout) and name in parts:
            term, bias = next(terms[name]), biases[name]
            node = _hosted(node, term, bias)
            biases[name] = np.zeros_like(bias) if term.weight is not None else bias
        nodes.append(node)
    return Program(program.name, tuple(nodes), program.timesteps, program.ticks)


def _hosted(readout: Readout, term: HostTerm, bias: Array) -> Readout:
    if term.weight is None:
        return replace(readout, scale=readout.scale * term.factor)
    return replace(readout, host=" and ".join(term.layers), weight=term.weight, bias=bias)


# -- the affine end ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Term:
    """x times ``weight``, or times ``scale`` (F,) or (1,) where there is none; float64."""

    layers: tuple[str, ...]
    weight: npt.NDArray[np.float64] | None
    scale: npt.NDArray[np.float64]

    def after(self, linear: Linear) -> _Term:
        """Followed by a layer."""
        before = self.weight
        weight = linear.weight * self.scale if before is None else linear.weight @ before
        return _Term((*self.layers, label(linear.node)), weight, np.ones(1))

    def mapped(self, affine: Affine) -> _Term:
        """Followed by a factor."""
        if self.weight is None:
            return replace(self, scale=self.scale * affine.scale)
        return replace(self, weight=self.weight * affine.scale[:, None])


@dataclass(frozen=True)
class _Sum:
    """What a value of the end is, in terms of what the end reads."""

    terms: dict[ir.Value, _Term]
    bias: npt.NDArray[np.float64]


class _Split:
    """The end of a graph that begins with the named layers."""

    def __init__(self, model: ir.Model, names: tuple[str, ...]) -> None:
        self.model, self.names = model, names
        self.after: set[ir.Value] = set()  # results of the named layers, and all that reads them
        found = set()
        for node in model.graph:
            named = {label(node), str(node.name)} & set(names)
            found |= named
            if named or any(x in self.after for x in node.inputs):
                self.after.update(node.outputs)
        lost = [name for name in names if name not in found]
        if lost or not any(out in self.after for out in model.graph.outputs):
            raise self._error((lost or names)[0])

    def end(self, out: ir.Value) -> _Sum | None:
        """What a result is; None: no named layer goes into it."""
        if out not in self.after:
            return None
        found = self._sum(out)
        if all(term.weight is None for term in found.terms.values()):
            raise self._error(self.names[0])
        return found

    def _sum(self, value: ir.Value) -> _Sum:
        node = value.producer()
        if value not in self.after or node is None:
            self._check_features(value)
            return _Sum({value: _Term((), None, np.ones(1))}, np.zeros(1))
        linear = read_linear(value)
        if linear is not None and linear.node is node:
            return self._through(linear)
        if (found := read_affine(node)) is not None:
            return _mapped(self._sum(found[0]), found[1])
        if _is_sum(node):
            one, two = (self._sum(x) for x in node.inputs if x is not None)
            return _added(one, _mapped(two, _MINUS) if node.op_type == "Sub" else two)
        raise self._error(self.names[0])

    def _through(self, linear: Linear) -> _Sum:
        node = linear.node
        if not {label(node), str(node.name)} & set(self.names):
            raise self._error(self.names[0])
        if linear.kind != "gemm" or attribute(node, "transB", 0) != 1:
            told = f": {node.op_type} is no linear layer on (N, features)"
            raise UsageError(Words(Option("host", label(node)), told))
        before = self._sum(linear.x)
        bias = linear.bias + linear.weight @ np.broadcast_to(before.bias, linear.weight.shape[1:])
        return _Sum({x: term.after(linear) for x, term in before.terms.items()}, bias)

    def _check_features(self, value: ir.Value) -> None:
        if len(static_shape(value) or ()) != 1 or value.is_graph_input():
            told = f": '{value.name}' is not (N, features) of a layer"
            names = self.names[0] if len(self.names) == 1 else self.names
            raise UsageError(Words(Option("host", names), told))

    def _error(self, name: str) -> UsageError:
        outs = self.model.graph.outputs
        ends = " and ".join(dict.fromkeys(layer for out in outs for layer in _last_layers(out)))
        told = f": the network ends in {ends}; only its end can be hosted"
        return UsageError(Words(Option("host", name), told))


def _last_layers(value: ir.Value) -> list[str]:
    """The layers that the result is a sum of, or else what makes it."""
    node = value.producer()
    if node is None:
        return ["its input"]
    if read_linear(value) is None:
        if (found := read_affine(node)) is not None:
            return _last_layers(found[0])
        if _is_sum(node):
            return [name for x in node.inputs if x is not None for name in _last_layers(x)]
    return [label(node)]


def _is_sum(node: ir.Node) -> bool:
    return node.op_type in ("Add", "Sub") and all(constant(x) is None for x in node.inputs)


def _added(one: _Sum, two: _Sum) -> _Sum:
    terms = dict(one.terms)
    for value, term in two.terms.items():
        terms[value] = _joined(terms[value], term) if value in terms else term
    return _Sum(terms, one.bias + two.bias)


def _joined(one: _Term, two: _Term) -> _Term:
    """Two terms of the same result."""
    layers = tuple(dict.fromkeys((*one.layers, *two.layers)))
    if one.weight is None and two.weight is None:
        return _Term(layers, None, one.scale + two.scale)
    size = next(t.weight.shape[1] for t in (one, two) if t.weight is not None)
    return _Term(layers, _dense(one, size) + _dense(two, size), np.ones(1))


def _dense(term: _Term, size: int) -> npt.NDArray[np.float64]:
    if term.weight is not None:
        return term.weight
    return np.diag(np.broadcast_to(term.scale, (size,)))


def _mapped(before: _Sum, affine: Affine) -> _Sum:
    terms = {value: term.mapped(affine) for value, term in before.terms.items()}
    return _Sum(terms, before.bias * affine.scale + affine.shift)


def _term(value: ir.Value, term: _Term) -> HostTerm:
    """A positive factor alone joins the result's own; anything else is a matrix."""
    if term.weight is None and len(np.unique(term.scale)) == 1 and term.scale[0] > 0:
        return HostTerm((), None, float(term.scale[0]))
    (size,) = static_shape(value) or (1,)
    node = value.producer()
    layers = term.layers or (f"factors after {label(node)}" if node is not None else "factors",)
    return HostTerm(layers, _dense(term, size).astype(np.float32))
