"""The network as a float32 graph, Conv + Round + Clip, as it would be exported from training."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from snncc.program import (
    Accumulator,
    Neuron,
    Node,
    Pool,
    Program,
    Projection,
    Readout,
    Source,
)
from versus.dense_form import column, foldable, thresholds
from versus.onnx_graph import Graph, pooling, window

__all__ = ["float_model"]

Array = npt.NDArray[Any]
FLOAT = onnx.TensorProto.FLOAT


def float_model(program: Program, folded: bool, late: bool) -> onnx.ModelProto:
    """The float32 graph.

    Args:
        program: T = 1.
        folded: Thresholds divide the weights before a population, where they can; else they
            divide its potential. Then weights are integers and sums are exact below 2**24.
        late: Round after Clip and max-pool, which commutes and leaves ONNX Runtime more to fuse.

    Raises:
        UnsupportedModelError: No dense form.
    """
    lowering = _Lowering(program, folded, late)
    for node in program.nodes:
        lowering.add(node)
    return lowering.graph.model()


class _Lowering:
    def __init__(self, program: Program, folded: bool, late: bool) -> None:
        self.program, self.late = program, late
        self.thetas = thresholds(program)
        self.folded = foldable(program, self.thetas) if folded else {}
        self.graph = Graph(program.source.shape)
        self.values: dict[str, str] = {}
        self.unrounded: set[str] = set()

    def add(self, node: Node) -> None:
        if isinstance(node, Source):
            self.values[node.name] = self.graph.op("Cast", "x", to=FLOAT)
        elif isinstance(node, Accumulator):
            self.values[node.name] = self._potential(node)
        elif isinstance(node, Neuron):
            self._fire(node)
        elif isinstance(node, Pool):
            self._pool(node)
        elif isinstance(node, Readout):
            self._result(node)
        else:
            raise TypeError(f"{type(node).__name__} is not in the benchmark")

    def _read(self, name: str) -> str:
        """What a node emits, rounded."""
        if name in self.unrounded:
            self.unrounded.remove(name)
            self.values[name] = self.graph.op("Round", self.values[name])
        return self.values[name]

    # -- linear layers -----------------------------------------------------------------------

    def _potential(self, node: Accumulator) -> str:
        scale, first = self.folded.get(node.name, np.ones(1)), node.projections[0]
        bias = node.bias / scale if node.bias.ndim == 1 and first.weights else None
        terms: list[str | Array] = [
            self._linear(p, scale, bias if p is first else None)
            if p.weights
            else self._read(p.source)
            for p in node.projections
        ]
        if bias is None:
            terms.append((node.bias_map() / column(scale, len(node.shape))).astype(np.float32))
        return str(reduce(lambda total, term: self.graph.op("Add", total, term), terms))

    def _linear(self, p: Projection, scale: Array, bias: Array | None) -> str:
        total = p.total()
        weights = (total / column(scale, total.ndim)).astype(np.float32)
        inputs = [weights] if bias is None else [weights, bias.astype(np.float32)]
        if p.kind == "conv":
            return self.graph.op("Conv", self._read(p.source), *inputs, **window(p))
        flat = self.graph.op("Flatten", self._read(p.source))
        return self.graph.op("Gemm", flat, *inputs, transB=1)

    # -- the rest ----------------------------------------------------------------------------

    def _fire(self, node: Neuron) -> None:
        source = self.program.by_name[node.source]
        u = self.values[node.source]
        if source.name not in self.folded:
            theta = column(self.thetas[node.name], len(source.shape))
            u = self.graph.op("Div", u, theta.astype(np.float32))
        if not self.late:
            u = self.graph.op("Round", u)
        u = self.graph.op("Clip", u, np.float32(0), np.float32(node.D))
        if node.shape != source.shape:
            u = self.graph.op("Reshape", u, np.array([-1, *node.shape]))
        self.values[node.name] = u
        if self.late:
            self.unrounded.add(node.name)

    def _pool(self, node: Pool) -> None:
        if node.kind == "sum":
            ones = np.ones((node.shape[0], 1, *node.kernel), np.float32)
            inputs, groups = (self._read(node.source), ones), node.shape[0]
            self.values[node.name] = self.graph.op("Conv", *inputs, group=groups, **pooling(node))
            return
        alone = len(self.program.readers(node.source)) == 1
        source = self.values[node.source] if alone else self._read(node.source)
        self.values[node.name] = self.graph.op("MaxPool", source, **pooling(node))
        if node.source in self.unrounded:
            self.unrounded.remove(node.source)
            self.unrounded.add(node.name)

    def _result(self, node: Readout) -> None:
        value = self._read(node.source)
        if node.shape != self.program.by_name[node.source].shape:
            value = self.graph.op("Reshape", value, np.array([-1, *node.shape]))
        self.graph.output(value, FLOAT)
