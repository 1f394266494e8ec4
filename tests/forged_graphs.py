"""Consistent forged files whose graphs were edited: attributes, constants, shapes, bodies, order.

The Program stays as it was. Half of the spiking graphs are lowered anew from the edited quantised
graph, as a careful forger would.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from artifact_files import forged
from float_networks import Case
from onnx import AttributeProto, TensorProto
from onnx.numpy_helper import from_array, to_array

from snncc.ir.graphs import to_proto
from snncc.passes import PassManager
from snncc.passes.spikes.build_program import build_program
from snncc.passes.spikes.lower_to_spikes import LowerToSpikes
from snncc.runtime.artifact import CompiledModel
from snncc.runtime.container import read_members
from snncc.runtime.contract import InputContract
from snncc.runtime.graph_store import LiveGraphs
from snncc.runtime.manifest import manifest_of

__all__ = ["graph_forgery", "saved_members"]

_STAGES = ("quantised", "spiking")
_OPS = ("GreaterOrEqual", "Greater", "Less", "Add", "Sub", "Mul", "Conv", "MaxPool", "ReduceSum")
_TYPES = (TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32, TensorProto.INT64)


def saved_members(manager: PassManager, case: Case, path: Path) -> dict[str, bytes]:
    """The members of the file of a lowered network."""
    stages = {name: manager.stages[name] for name in _STAGES}
    program = build_program(stages["quantised"], "net")
    contract = InputContract("x", tuple(case.net.input))
    model = CompiledModel(program, manifest_of(program, contract), LiveGraphs(stages))
    return read_members(io.BytesIO(model.save(path, overwrite=True).read_bytes()), "net")


def graph_forgery(
    model: CompiledModel, members: dict[str, bytes], rng: np.random.Generator, path: Path
) -> Path:
    """A forged file: one graph, or both, edited in one or two places."""
    stage = str(rng.choice(_STAGES))
    graph = onnx.ModelProto()
    graph.CopyFrom(model.graphs[stage])
    editor = _Editor(graph, rng)
    for _ in range(rng.choice([1, 1, 2])):
        editor.edit()
    made = {f"graphs/{stage}.onnx": graph.SerializeToString()}
    if stage == "quantised" and rng.random() < 0.5:
        made["graphs/spiking.onnx"] = _lowered(graph) or members["graphs/spiking.onnx"]
    return forged(path, {**members, **made})


def _lowered(graph: onnx.ModelProto) -> bytes | None:
    try:
        model = ir.from_proto(graph)
        LowerToSpikes().run(model)
        return bytes(to_proto(model).SerializeToString())
    except Exception:  # then it is no graph that can be lowered
        return None


class _Editor:
    def __init__(self, model: onnx.ModelProto, rng: np.random.Generator) -> None:
        self.model, self.graph, self.rng = model, model.graph, rng

    def pick(self, options: Any) -> Any:
        return options[self.rng.integers(len(options))] if len(options) else None

    def edit(self) -> None:
        often = (self.attribute, self.constant, self.said, self.wire)
        seldom = (self.reshaped, self.drop, self.body, self.stage, self.result)
        self.pick((*often, *often, *seldom))()

    def attribute(self) -> None:
        node = self.pick(self.graph.node)
        given = self.pick(node.attribute)
        if given is None or self.rng.random() < 0.2:
            extra = {"ceil_mode": 1, "dilations": [2, 2], "axis": 2, "to": 3, "allowzero": 1}
            name = self.pick(sorted(extra))
            node.attribute.append(onnx.helper.make_attribute(name, extra[name]))
        elif given.type == AttributeProto.INT:
            given.i = int(self.pick((given.i + 1, 0, 1, 2, 3, 6, 7)))
        elif given.type == AttributeProto.INTS:
            given.ints[self.rng.integers(len(given.ints))] = int(self.rng.integers(0, 4))
        elif given.type == AttributeProto.STRING:
            given.s = self.pick((b"kv", b"qk", b"soft", b"hard", b"delayed"))

    def constant(self) -> None:
        tensor = self.pick(self.graph.initializer)
        values = to_array(tensor).copy()
        values.flat[self.rng.integers(values.size)] = int(self.rng.integers(-3, 100))
        tensor.CopyFrom(from_array(values, tensor.name))

    def reshaped(self) -> None:
        tensor = self.pick(self.graph.initializer)
        shape = [n for n in tensor.dims if n > 1 or self.rng.random() < 0.5]
        self.rng.shuffle(shape)
        if int(np.prod(shape)) == int(np.prod(tensor.dims)):
            tensor.dims[:] = shape

    def wire(self) -> None:
        node = self.pick(self.graph.node)
        names = [o for n in self.graph.node for o in n.output] + [i.name for i in self.graph.input]
        names += [t.name for t in self.graph.initializer]
        if node.input:
            node.input[self.rng.integers(len(node.input))] = self.pick(names)

    def drop(self) -> None:
        node = self.pick(self.graph.node)
        for reader in self.graph.node:
            for i, name in enumerate(reader.input):
                if name == node.output[0] and node.input:
                    reader.input[i] = node.input[0]
        self.graph.node.remove(node)

    def said(self) -> None:
        """What the graph says of a value's shape or type."""
        value = self.pick([*self.graph.value_info, *self.graph.output, *self.graph.input])
        dims = value.type.tensor_type.shape.dim
        if self.rng.random() < 0.2 or len(dims) < 3:
            value.type.tensor_type.elem_type = int(self.pick(_TYPES))
            return
        i, j = (int(self.rng.integers(1, len(dims))) for _ in "ij")
        dims[i].dim_value, dims[j].dim_value = dims[j].dim_value, dims[i].dim_value

    def body(self) -> None:
        """What an operator means."""
        function = self.pick(self.model.functions)
        node = self.pick(function.node)
        node.op_type = str(self.pick(_OPS))

    def stage(self) -> None:
        prop = self.pick(self.model.metadata_props)
        if prop is not None:
            prop.value = str(self.pick(("2", "3", "spiking", "{}", "")))

    def result(self) -> None:
        names = [o for n in self.graph.node for o in n.output]
        self.pick(self.graph.output).name = str(self.pick(names))
