"""What a small file may ask for: bounds that hold before anything is inlined, computed or run.

Some hundred bytes can describe constants of gigabytes, or functions whose bodies double thirty
times. So calls are counted before they are inlined, the size of every value is known before ONNX
Runtime runs the file, and what is folded has a budget of bytes and of time.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import onnx
import onnx.helper
import onnx.shape_inference
import onnx_ir as ir

from snncc.errors import BadInputError, Fault

__all__ = ["FoldingBudget", "live", "require_affordable", "require_few_nodes"]

#: Nodes of a file whose functions are inlined.
MAX_NODES = 2**15
#: Functions that call each other, one inside the other.
MAX_DEPTH = 64
#: Bytes of all constants that a file computes: these, and so many times what it stores.
CONSTANT_BYTES, TIMES_STORED = 2**28, 16
#: Bytes of all values of one sample.
SAMPLE_BYTES = 2**31
#: Seconds that constants may take.
FOLDING_SECONDS = 60.0
#: Elements that operators read and write whose evaluation is no numpy function, but a loop.
LOOPED_ELEMENTS = 2**22

#: Elements of constants that may say shapes, repeats, axes.
_FEW = 1024
_BIT_SIZES = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
#: The result has as many elements as the data decide, but at most one for each that is read and
#: axis.
_BY_DATA = {"NonZero", "Unique", "Compress"}
_LOOPED = {
    *("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv", "Col2Im"),
    *("MaxPool", "AveragePool", "LpPool", "MaxUnpool", "MaxRoiPool", "RoiAlign"),
    *("Resize", "Upsample", "GridSample", "AffineGrid", "CenterCropPad"),
    *("ScatterND", "ScatterElements", "Scatter", "GatherND", "GatherElements"),
    *("LSTM", "GRU", "RNN", "TopK", "OneHot", "NonMaxSuppression", "Einsum", "Det", "LRN"),
    *("DFT", "STFT", "MelWeightMatrix", "TfIdfVectorizer", "ReverseSequence", "Unique"),
}


def _bytes(elements: int, dtype: int) -> int:
    """Of a tensor of so many elements of a protobuf type."""
    name = onnx.TensorProto.DataType.Name(dtype)
    if dtype in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        return 8 * elements
    size = 8 * onnx.helper.tensor_dtype_to_np_dtype(dtype).itemsize
    return elements * _BIT_SIZES.get(name, size) // 8


# -- functions ------------------------------------------------------------------------------

_Key = tuple[str, str, str]


@dataclass(frozen=True)
class _Inlined:
    """What is left of a call or a graph when all is inlined: nodes, and calls inside calls."""

    nodes: int
    depth: int


def require_few_nodes(proto: onnx.ModelProto) -> None:
    """Inlining all functions of the file leaves a graph that can be worked with.

    Raises:
        BadInputError: It would have too many nodes, or functions call themselves.
    """
    functions = {(f.domain, f.name, f.overload): f for f in proto.functions}
    if _inlined(proto.graph.node, functions, {}, ()).nodes > MAX_NODES:
        raise BadInputError(
            f"the file's functions make more than {MAX_NODES:,} nodes of {len(proto.graph.node)}"
        )


def _inlined(
    nodes: Iterable[onnx.NodeProto],
    functions: Mapping[_Key, onnx.FunctionProto],
    known: dict[_Key, _Inlined],
    callers: tuple[_Key, ...],
) -> _Inlined:
    """All calls inlined, those of inner graphs too; counted up to one node more than is allowed."""
    found = [_call(node, functions, known, callers) for node in _all_nodes(nodes)]
    total = sum(one.nodes for one in found)
    return _Inlined(min(total, MAX_NODES + 1), max((one.depth for one in found), default=0))


def _call(
    node: onnx.NodeProto,
    functions: Mapping[_Key, onnx.FunctionProto],
    known: dict[_Key, _Inlined],
    callers: tuple[_Key, ...],
) -> _Inlined:
    key = (node.domain, node.op_type, node.overload)
    if key not in functions:
        return _Inlined(1, 0)
    if key not in known and key not in callers and len(callers) < MAX_DEPTH:
        body = _inlined(functions[key].node, functions, known, (*callers, key))
        known[key] = _Inlined(body.nodes + 1, body.depth + 1)
    if key not in known or known[key].depth > MAX_DEPTH:
        raise BadInputError(f"function '{node.op_type}' calls itself, or is {MAX_DEPTH} calls deep")
    return known[key]


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            inner = [attribute.g] if attribute.HasField("g") else attribute.graphs
            for graph in inner:
                yield from _all_nodes(graph.node)


# -- values ---------------------------------------------------------------------------------


def live(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that the results need, in order."""
    wanted = {value.name for value in proto.graph.output}
    found = []
    for node in reversed(proto.graph.node):
        if wanted & set(node.output):
            found.append(node)
            wanted.update(_read(node))
    return found[::-1]


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, in inner graphs too."""
    for inner in _all_nodes([node]):
        yield from inner.input
        for attribute in inner.attribute:
            for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from (value.name for value in graph.output)


def require_affordable(proto: onnx.ModelProto) -> None:
    """The values of one sample, and all constants, are no larger than a network's may be.

    Args:
        proto: Its input has a batch axis of known size.

    Raises:
        BadInputError: They are larger; with the largest values.
    """
    stored, light = stored_bytes(proto), _light(proto)
    # Data are followed last: onnx follows those of any size, and by then all sizes are bounded.
    for follow_data in (False, True):
        light = onnx.shape_inference.infer_shapes(light, data_prop=follow_data)
        _check_sizes(light, stored)


def _check_sizes(proto: onnx.ModelProto, stored: int) -> None:
    """Sizes that are known count: what stays unknown is not folded, and has no spiking form."""
    x, sizes = proto.graph.input[0], _sizes(proto)
    dims = x.type.tensor_type.shape.dim
    batch = max(1, dims[0].dim_value) if dims else 1
    varying = {x.name}
    constants, values = {}, {x.name: sizes.get(x.name, 0) // batch}
    for node in live(proto):
        depends = not varying.isdisjoint(_read(node))
        for name in node.output:
            if depends:
                varying.add(name)
                values[name] = sizes.get(name, 0) // batch
            else:
                constants[name] = sizes.get(name, 0)
    _require_elements(proto, varying)
    _require(constants, CONSTANT_BYTES + TIMES_STORED * stored, "the constants that it computes")
    _require(values, SAMPLE_BYTES, "the values of one sample")


def _require_elements(proto: onnx.ModelProto, names: Collection[str]) -> None:
    """Lists of integers may be empty, as that of no axes is; what a network computes may not."""
    graph = proto.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        is_real = kind.elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
        sizes = [d.dim_value for d in kind.shape.dim if d.HasField("dim_value")]
        if is_real and value.name in names and 0 in sizes:
            raise BadInputError(f"'{value.name}' has an axis of 0 elements")


def _light(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without its large weights, which become further inputs."""
    light = onnx.ModelProto(ir_version=proto.ir_version)
    light.opset_import.extend(proto.opset_import)
    light.functions.extend(proto.functions)
    graph = light.graph
    graph.name = proto.graph.name
    graph.node.extend(proto.graph.node)
    graph.input.extend(proto.graph.input)
    graph.output.extend(proto.graph.output)
    for tensor in proto.graph.initializer:
        if prod(tensor.dims) <= _FEW:
            graph.initializer.append(tensor)
        else:
            made = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            graph.input.append(made)
    return light


def _require(sizes: Mapping[str, int], limit: int, what: str) -> None:
    total = sum(sizes.values())
    if total <= limit:
        return
    largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:5]
    faults = [Fault(f"takes {_amount(sizes[name])}", node=name) for name in largest]
    raise BadInputError(f"{what} take {_amount(total)}; {_amount(limit)} are the most", faults)


def _amount(size: int) -> str:
    return f"{size / 2**30:,.3g} GiB" if size < 2**60 else "more than an exbibyte"


def _sizes(proto: onnx.ModelProto) -> dict[str, int]:
    """Bytes of every value whose shape is known."""
    graph, found = proto.graph, {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        sizes = [d.dim_value for d in kind.shape.dim if d.HasField("dim_value")]
        if any(size < 0 for size in sizes):
            raise BadInputError(f"'{value.name}' has an axis of {min(sizes)} elements")
        if kind.HasField("shape") and len(sizes) == len(kind.shape.dim):
            found[value.name] = _bytes(prod(sizes), kind.elem_type)
    return found


def stored_bytes(proto: onnx.ModelProto) -> int:
    """Bytes of all weights in the file.

    Raises:
        BadInputError: Some are stored sparsely, which may be of any size in few bytes.
    """
    attributes = [a for node in proto.graph.node for a in node.attribute]
    sparse = len(proto.graph.sparse_initializer) + sum(
        a.HasField("sparse_tensor") for a in attributes
    )
    if sparse:
        raise BadInputError(f"{sparse} weights are stored sparsely; store them as plain tensors")
    tensors = [*proto.graph.initializer, *(a.t for a in attributes if a.HasField("t"))]
    return sum(_bytes(prod(t.dims), t.data_type) for t in tensors)


# -- constants ------------------------------------------------------------------------------


class FoldingBudget:
    """Whether a constant is computed: ``should_fold`` of onnxscript's optimizer.

    Args:
        model: What is folded; its weights decide how much that may give.

    Raises:
        BadInputError: When it is called and the budget of bytes or time is spent.
    """

    def __init__(self, model: ir.Model) -> None:
        held = (v.const_value for v in model.graph.initializers.values())
        self.limit = CONSTANT_BYTES + TIMES_STORED * sum(t.nbytes for t in held if t is not None)
        self.spent = 0
        self.end = time.monotonic() + FOLDING_SECONDS
        self.versions = dict(model.opset_imports)

    def __call__(self, node: ir.Node) -> bool | None:
        """None: as the optimizer thinks right; False: its result cannot be known to be small."""
        if time.monotonic() > self.end:
            raise BadInputError(
                f"the file's constants take longer than {FOLDING_SECONDS:.0f} s to compute; "
                "export the network with its weights computed"
            )
        size, elements = self._result(node)
        if size is None:
            return False
        read = sum(x.const_value.size for x in node.inputs if x is not None and x.const_value)
        if node.op_type in _LOOPED and elements + read > LOOPED_ELEMENTS:
            return False
        self.spent += size
        _require(
            {str(node.outputs[0].name): self.spent}, self.limit, "the constants that it computes"
        )
        return None

    def _result(self, node: ir.Node) -> tuple[int | None, int]:
        """Bytes and elements of what a node of constants gives, as inference knows them."""
        kinds = self._inferred(node)
        if node.op_type in _BY_DATA and node.inputs[0] is not None:
            tensor: Any = node.inputs[0].const_value
            elements = tensor.size * max(1, len(tensor.shape)) * len(node.outputs)
            return 8 * elements, elements
        total = size = 0
        for out in node.outputs:
            kind = kinds.get(str(out.name))
            dims = [d.dim_value for d in kind.shape.dim if d.HasField("dim_value")] if kind else []
            if kind is None or not kind.HasField("shape") or len(dims) < len(kind.shape.dim):
                return None, 0
            total += prod(dims)
            size += _bytes(prod(dims), kind.elem_type)
        return size, total

    def _inferred(self, node: ir.Node) -> dict[str, Any]:
        types, data = {}, {}
        for x in node.inputs:
            if x is None or x.const_value is None:
                continue
            tensor = x.const_value
            dtype, shape = tensor.dtype.value, tensor.shape.numpy()
            types[str(x.name)] = onnx.helper.make_tensor_type_proto(dtype, shape)
            if tensor.size <= _FEW:
                data[str(x.name)] = ir.serde.serialize_tensor(tensor)
        try:
            version = self.versions[node.domain]
            schema = onnx.defs.get_schema(node.op_type, version, node.domain)
            opsets = [onnx.helper.make_opsetid(d, v) for d, v in self.versions.items()]
            made = onnx.shape_inference.infer_node_outputs(
                schema, ir.to_proto(node), types, data, opset_imports=opsets
            )
        except Exception:  # what cannot be inferred is not computed
            return {}
        return {
            name: kind.tensor_type for name, kind in made.items() if kind.HasField("tensor_type")
        }
