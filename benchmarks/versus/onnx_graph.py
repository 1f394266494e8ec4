"""Little helpers to write an ONNX graph down, and to open it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from snncc.errors import UnsupportedModelError
from snncc.program import Pool, Projection, Shape

__all__ = ["MICROSOFT", "Graph", "open_session", "pooling", "window"]

Array = npt.NDArray[Any]
#: Domain of ONNX Runtime's own operators.
MICROSOFT = "com.microsoft"


class Graph:
    """Nodes and constants; values are known by name.

    Args:
        shape: Of one sample of the input ``x``, which is uint8.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.outputs: list[onnx.ValueInfoProto] = []

    def op(self, kind: str, *inputs: str | Array, domain: str = "", **attributes: Any) -> str:
        """Appends a node; arrays become constants. Returns the name of its value."""
        names = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        result = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [result], domain=domain, **attributes))
        return result

    def _constant(self, value: Array) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def output(self, value: str, kind: int) -> None:
        """Makes ``value`` a result."""
        self.outputs.append(helper.make_tensor_value_info(value, kind, None))

    def model(self) -> onnx.ModelProto:
        """The whole, with a free batch size."""
        x = helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, ["N", *self.shape])
        constants = list(self.constants.values())
        graph = helper.make_graph(self.nodes, "dense", [x], self.outputs, constants)
        domains = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=domains, ir_version=8)


def window(p: Projection) -> dict[str, Any]:
    """Attributes of a convolution."""
    return {
        "kernel_shape": p.weights[0].shape[2:],
        "strides": p.strides,
        "pads": p.pads,
        "dilations": p.dilations,
        "group": p.groups,
    }


def pooling(node: Pool) -> dict[str, Any]:
    """Attributes of a pool."""
    return {"kernel_shape": node.kernel, "strides": node.strides, "pads": node.pads}


def open_session(model: onnx.ModelProto, threads: int) -> Any:
    """An ONNX Runtime session as a user would open it: all optimisations, CPU.

    Between two calls its threads do not spin, so that they do not disturb what is timed next.

    Raises:
        UnsupportedModelError: This ONNX Runtime does not take the graph.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as e:  # what it raises has no common base of its own
        reason = str(e).strip().splitlines()[0]
        raise UnsupportedModelError(f"ONNX Runtime refuses the graph: {reason}") from e
