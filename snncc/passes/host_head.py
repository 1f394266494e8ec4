"""A linear layer at the very end that the host computes, by consent: ``--host NODE``.

Networks whose last layer reads membrane potentials, with no neuron between, end for the engines at
those potentials: integers, bit-equal on all of them. The layer itself is a product of real numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnx_ir.passes.common as common

from snncc.errors import UsageError
from snncc.ir.graphs import attribute, label, static_shape
from snncc.ir.program import Program, Readout
from snncc.passes.linear import read_linear

__all__ = ["HostLayer", "hosted", "split_off"]

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class HostLayer:
    """y = x weightᵀ + bias.

    Attributes:
        name: Module path.
        weight, bias: float32 (F_out, F_in), (F_out,).
    """

    name: str
    weight: Array
    bias: Array

    @property
    def macs(self) -> int:
        """Multiply-accumulates per sample."""
        return self.weight.size

    def __call__(self, x: Array) -> Array:
        """Returns (N, F_out) of (N, F_in)."""
        return np.asarray(x @ self.weight.T + self.bias)


def split_off(model: ir.Model, name: str) -> HostLayer:
    """Take the last layer off the graph, which then ends with what that layer reads.

    Args:
        model: In stage ``imported``.
        name: Node or module of the layer.

    Raises:
        UsageError: The network does not end in a linear layer of that name.
    """
    out = model.graph.outputs[0]
    last = out.producer()
    found = read_linear(out)
    if last is None or name not in (label(last), last.name):
        known = label(last) if last is not None else "its input"
        raise UsageError(f"--host {name}: the network ends in {known}; only its end can be hosted")
    if found is None or found.kind != "gemm" or attribute(last, "transB", 0) != 1:
        raise UsageError(f"--host {name}: {last.op_type} is no linear layer on (N, features)")
    if len(static_shape(found.x) or ()) != 1 or found.x.is_graph_input():
        raise UsageError(f"--host {name}: it does not read features of a layer; (N, features)")
    model.graph.outputs[:] = [found.x]
    common.RemoveUnusedNodesPass()(model)
    return HostLayer(label(last), found.weight.astype(np.float32), found.bias.astype(np.float32))


def hosted(program: Program, layer: HostLayer) -> Program:
    """The Program whose result the host's layer reads."""
    nodes = tuple(_hosted(n, layer) if isinstance(n, Readout) else n for n in program.nodes)
    made = Program(program.name, nodes, program.timesteps, program.ticks)
    made.validate()
    return made


def _hosted(readout: Readout, layer: HostLayer) -> Readout:
    return replace(readout, host=layer.name, weight=layer.weight, bias=layer.bias)
