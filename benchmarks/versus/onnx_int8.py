"""The network as an int8 graph that gives the same integers: QLinearConv + Clip.

A population's count is the requantised potential, clip(round(v / theta), 0, 255), clipped again to
D. Where a potential is added to or read twice there is no such form: ConvInteger leaves it in 32
bits and the population is computed in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from snncc.errors import UnsupportedModelError
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
from versus.onnx_graph import MICROSOFT, Graph, pooling, window

__all__ = ["Int8Form", "int8_model"]

Array = npt.NDArray[Any]
TENSOR = onnx.TensorProto
_ONE, _ZERO = np.float32(1), np.uint8(0)
#: Where two products of an unsigned and a signed byte may exceed 16 bits, machines without VNNI
#: saturate; with unsigned weights they do not.
_PAIR = 2**15


@dataclass(frozen=True)
class Int8Form:
    """Which of several graphs for the same integers.

    Attributes:
        channels_last: ONNX Runtime's own operators in that layout; else standard ones.
        unsigned: Weights with zero point 128 where products of pairs may exceed 16 bits.
        point: Zero point of all other weights, 0 or -1: weights w - 1 with zero point -1 are the
            same integers. ONNX Runtime sums symmetric ones and others by different kernels; on
            Intel's cores with AMX the others are faster.
    """

    channels_last: bool
    unsigned: bool
    point: int = 0

    def __str__(self) -> str:
        layout = "channels last" if self.channels_last else "channels first"
        point = f", weights with zero point {self.point}" if self.point else ""
        return f"QLinearConv, {layout}{point}" + (", u8 stem weights" if self.unsigned else "")


def int8_model(program: Program, form: Int8Form) -> onnx.ModelProto:
    """The int8 graph; its results are int32 potentials or uint8 counts.

    Raises:
        UnsupportedModelError: No dense form, weights of more than 8 bits, or none in this layout.
    """
    lowering = _Lowering(program, form)
    for node in program.nodes:
        lowering.add(node)
    return lowering.graph.model()


def _refuse(what: str) -> UnsupportedModelError:
    return UnsupportedModelError(f"no int8 form of the network: {what}")


def _is_wide(node: Node) -> bool:
    """Whether a node emits integers of 32 bits."""
    return isinstance(node, Accumulator) or (isinstance(node, Pool) and node.kind == "sum")


class _Lowering:
    def __init__(self, program: Program, form: Int8Form) -> None:
        self.program, self.form = program, form
        self.thetas = thresholds(program)
        self.foldable = foldable(program, self.thetas)
        self.graph = Graph(program.source.shape)
        self.values: dict[str, str] = {}
        self.fused: set[str] = set()  # accumulators that QLinearConv computed up to the count
        self.planar: set[str] = set()  # nodes whose value is channels first whatever the form

    def add(self, node: Node) -> None:
        if isinstance(node, Source):
            self.values[node.name] = self._enter(node, "x")
        elif isinstance(node, Accumulator):
            self.values[node.name] = self._potential(node)
        elif isinstance(node, Neuron):
            self.values[node.name] = self._fire(node)
        elif isinstance(node, Pool):
            self.values[node.name] = self._pool(node)
        elif isinstance(node, Readout):
            self._result(node)
        else:
            raise TypeError(f"{type(node).__name__} is not in the benchmark")

    def _is_map(self, node: Node) -> bool:
        """Whether the value of a node has its channels last."""
        return len(node.shape) == 3 and self.form.channels_last and node.name not in self.planar

    def _enter(self, node: Node, value: str) -> str:
        return self.graph.op("Transpose", value, perm=[0, 2, 3, 1]) if self._is_map(node) else value

    def _leave(self, node: Node) -> str:
        value = self.values[node.name]
        return self.graph.op("Transpose", value, perm=[0, 3, 1, 2]) if self._is_map(node) else value

    # -- linear layers -----------------------------------------------------------------------

    def _potential(self, node: Accumulator) -> str:
        first = node.projections[0]
        if node.name in self.foldable and node.bias.ndim == 1 and first.kind == "conv":
            self.fused.add(node.name)
            return self._requantised(node, first, self.foldable[node.name])
        self.planar.add(node.name)
        total = ""
        for p in node.projections:
            term = self._sums(p)
            total = self.graph.op("Add", total, term) if total else term
        bias = node.bias_map().astype(np.int32)
        return self.graph.op("Add", total, bias) if bias.any() else total

    def _requantised(self, node: Accumulator, p: Projection, theta: Array) -> str:
        weights, zero = self._weights(p)
        scale = np.broadcast_to((1 / theta).astype(np.float32), (node.shape[0],)).copy()
        zeros = np.full(node.shape[0], zero, weights.dtype)
        inputs = (self.values[p.source], _ONE, _ZERO, weights, scale, zeros, _ONE, _ZERO)
        own: dict[str, Any] = (
            {"domain": MICROSOFT, "channels_last": 1} if self.form.channels_last else {}
        )
        bias = node.bias.astype(np.int32)
        return self.graph.op("QLinearConv", *inputs, bias, **own, **window(p))

    def _weights(self, p: Projection) -> tuple[Array, int]:
        """8-bit weights and their zero point."""
        if _is_wide(self.program.by_name[p.source]):
            raise _refuse("a layer reads potentials")
        if len(p.weights) > 1 or p.payload > 255:
            raise _refuse(f"{8 * len(p.weights)}-bit weights, payload {p.payload}")
        weights = p.weights[0]
        if self.form.unsigned and 2 * p.payload * int(np.abs(weights.astype(int)).max()) >= _PAIR:
            return (weights.astype(np.int16) + 128).astype(np.uint8), 128
        shifted = weights.astype(np.int16) + self.form.point
        if shifted.min() < np.iinfo(np.int8).min:
            raise _refuse(f"a weight of {weights.min()} with zero point {self.form.point}")
        return shifted.astype(np.int8), self.form.point

    def _sums(self, p: Projection) -> str:
        """Potentials in 32 bits."""
        source = self.program.by_name[p.source]
        if p.kind == "identity":
            value = self._leave(source)
            return self.graph.op("Cast", value, to=TENSOR.INT32)
        weights, zero = self._weights(p)
        point = np.asarray(zero, weights.dtype)
        if p.kind == "conv":
            value = self._leave(source)
            return self.graph.op("ConvInteger", value, weights, _ZERO, point, **window(p))
        if self._is_map(source):
            rows = weights.reshape(-1, *source.shape).transpose(0, 2, 3, 1)
            weights = np.ascontiguousarray(rows.reshape(len(rows), -1))
        flat = self.graph.op("Flatten", self.values[p.source])
        return self.graph.op("MatMulInteger", flat, np.ascontiguousarray(weights.T), _ZERO, point)

    # -- the rest ----------------------------------------------------------------------------

    def _fire(self, node: Neuron) -> str:
        source = self.program.by_name[node.source]
        if node.source not in self.fused:
            return self._enter(node, self._counted(node, source))
        value = self.values[node.source]
        if node.D < 255:
            value = self.graph.op("Clip", value, _ZERO, np.uint8(node.D))
        if node.shape != source.shape:
            raise _refuse("a population that reshapes what a convolution gives")
        return value

    def _counted(self, node: Neuron, source: Node) -> str:
        """Counts, channels first, of potentials in 32 bits."""
        theta = column(self.thetas[node.name], len(source.shape))
        u = self.graph.op("Cast", self.values[source.name], to=TENSOR.FLOAT)
        u = self.graph.op("Round", self.graph.op("Div", u, theta.astype(np.float32)))
        u = self.graph.op("Clip", u, np.float32(0), np.float32(node.D))
        counts = self.graph.op("Cast", u, to=TENSOR.UINT8)
        if node.shape == source.shape:
            return counts
        return self.graph.op("Reshape", counts, np.array([-1, *node.shape]))

    def _pool(self, node: Pool) -> str:
        source = self.program.by_name[node.source]
        if node.kind == "max":
            own = ("NhwcMaxPool", MICROSOFT) if self._is_map(source) else ("MaxPool", "")
            value = self.values[source.name]
            return self.graph.op(own[0], value, domain=own[1], **pooling(node))
        if node.kernel != source.shape[1:]:
            raise _refuse("a sum-pool of parts of a map")
        self.planar.add(node.name)
        value = self.graph.op("Cast", self._leave(source), to=TENSOR.INT32)
        return self.graph.op("ReduceSum", value, np.array([2, 3]), keepdims=1)

    def _result(self, node: Readout) -> None:
        source = self.program.by_name[node.source]
        value = self._leave(source)
        if node.shape != source.shape:
            value = self.graph.op("Reshape", value, np.array([-1, *node.shape]))
        self.graph.output(value, TENSOR.INT32 if _is_wide(source) else TENSOR.UINT8)
