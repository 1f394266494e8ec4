"""Graphs whose weights are fed: ONNX Runtime reads the arrays where they are, and copies none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx.helper import make_tensor_value_info, np_dtype_to_tensor_dtype

from snncc.ir.graphs import to_proto

__all__ = ["FedGraph", "fed"]

#: Smaller initializers, in bytes, stay in their graph: shapes and axes, which must be constant.
_SMALL = 256

_FED = {
    ir.DataType.FLOAT,
    ir.DataType.DOUBLE,
    ir.DataType.INT8,
    ir.DataType.UINT8,
    ir.DataType.INT16,
    ir.DataType.UINT16,
    ir.DataType.INT32,
    ir.DataType.INT64,
}


@dataclass(frozen=True, eq=False)
class FedGraph:
    """A graph without its weights, and the weights.

    Attributes:
        proto: The model; it names weights that it does not hold.
        weights: These, by name.
    """

    proto: onnx.ModelProto
    weights: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def serialised(self) -> bytes:
        """What ONNX Runtime opens: the weights are inputs, after those that the graph has."""
        whole = onnx.ModelProto()
        whole.CopyFrom(self.proto)
        for name, array in self.weights.items():
            kind = np_dtype_to_tensor_dtype(array.dtype)
            whole.graph.input.append(make_tensor_value_info(name, kind, array.shape))
        return bytes(whole.SerializeToString())


def fed(model: ir.Model) -> FedGraph:
    """The model apart from its weights, which stay where they are; the model is left as it is."""
    copy, weights = model.clone(), {}
    for name, value in list(copy.graph.initializers.items()):
        if _is_weight(value) and value.const_value is not None:
            weights[name] = np.asarray(value.const_value.numpy(), order="C")
            del copy.graph.initializers[name]
    return FedGraph(to_proto(copy), weights)


def _is_weight(value: ir.Value) -> bool:
    tensor, is_ends = value.const_value, value.is_graph_input() or value.is_graph_output()
    return tensor is not None and tensor.dtype in _FED and tensor.nbytes >= _SMALL and not is_ends
