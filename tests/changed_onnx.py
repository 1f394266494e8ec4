"""ONNX files with something changed, most of them files that protobuf still reads.

Changed are bytes, fields of the protobuf with all lengths made right, and what the format knows:
nodes, edges, attributes, tensors, shapes, operator sets, functions, subgraphs.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import data_fuzz
import numpy as np
import onnx
import onnx.parser
import quantised_networks
from float_networks import Net
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from state_networks import mean_over_time, repeated

__all__ = ["changed_onnx", "seeds"]

#: Names of operators, known and not, of other domains and none.
_KINDS = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul", "Div", "Relu", "Clip"),
    *("Round", "Floor", "Ceil", "Min", "Max", "Reshape", "Transpose", "Flatten", "MaxPool"),
    *("AveragePool", "GlobalAveragePool", "BatchNormalization", "QuantizeLinear", "Concat"),
    *("DequantizeLinear", "Split", "Slice", "Gather", "Squeeze", "Unsqueeze", "Softmax", "Cast"),
    *("Identity", "Shape", "Size", "Expand", "Tile", "Range", "Where", "ConstantOfShape", "Pad"),
    *("Einsum", "ReduceMean", "ReduceSum", "Sigmoid", "LSTM", "If", "Loop", "Scan", "OneHot"),
    *("Resize", "RandomNormal", "Dropout", "TopK", "NonZero", "Constant", "SequenceAt", "Layer"),
    *("IntegerFire", "FireCount", "Quant", "Trunc", "Fire", "Nonsense", ""),
)
_DOMAINS = ("", "", "ai.onnx", "ai.onnx.ml", "com.microsoft", "ai.snncc", "qonnx.custom_op.general")
_NUMBERS = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 7, 16, 255, 2**16, 2**31 - 1, 2**40, 2**62)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-40, 1e38, float("nan"), float("inf"), float("-inf"))
_NAMES = (
    *("axis", "axes", "perm", "pads", "strides", "dilations", "group", "kernel_shape", "to"),
    *("auto_pad", "ceil_mode", "alpha", "transB", "epsilon", "value", "keepdims", "block_size"),
    *("equation", "mode", "storage_order", "count_include_pad", "body", "then_branch"),
)


@cache
def seeds() -> dict[str, bytes]:
    """Small valid files: layers, sums, timesteps, arithmetic on shapes, functions, quantisers."""
    layers = Net((1, 6, 6), seed=1).conv(4, 3, pads=1).batch_norm().fire(3, spelling="relu-clamp")
    layers.affine("Mul", [2.0, 0.5, 1.0, 1.0], per_channel=True).conv(4, 3, group=4)
    layers.pool("AveragePool").affine("Div", 2.0).fire(4).flatten().linear(6).fire(2).linear(3)
    sums = Net((2, 6, 6), seed=2).affine("Sub", 0.5).batch_norm().conv(3, 3, pads=1)
    one = sums.x
    sums.fire(4).conv(3, 3, pads=1).batch_norm().add(one).pool("MaxPool")
    sums.fire(2, norm=2.0, spelling="round-of-clip").mean().linear(3)
    time = repeated(Net((1, 4, 4), seed=3).conv(2, 3), 2).fire(1).flatten()
    mean_over_time(time.linear(4), 2).linear(3)
    protos = {
        **{"layers": layers.proto(), "sums": sums.proto(), "time": time.proto()},
        **{"float": quantised_networks.cnn(), "qdq": _quantised()},
        **{"shapes": _shapes(), "functions": _functions()},
    }
    return {name: proto.SerializeToString() for name, proto in protos.items()}


def _quantised() -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        return onnx.load(str(quantised_networks.quantised(Path(folder) / "net.onnx")))


def _shapes() -> onnx.ModelProto:
    """A reshape to what the file computes from the shape of its input."""
    rng = np.random.default_rng(0)
    body = """
        size = Shape (x) n = Gather (size, first) all = Concat <axis: int = 0> (n, rest)
        flat = Reshape (x, all) u = MatMul (flat, w) c = Clip (u, low, high) a = Round (c)
        y = Gemm (a, v)
    """
    return quantised_networks.parsed(
        body, w=rng.normal(0, 0.5, (32, 4)).astype(np.float32), low=np.float32(0),
        high=np.float32(4), v=np.ones((4, 3), np.float32), first=np.array([0]), rest=np.array([-1]),
    )  # fmt: skip


def _functions() -> onnx.ModelProto:
    """Neurons and layers are functions of the file, one in the other."""
    text = """
        <ir_version: 10, opset_import: ["": 21, "local": 1]>
        g (float[N,8] x) => (float[N,3] y)
        <float[4,8] w = {WEIGHTS}, float[3,4] v = {HEAD}>
        { a = local.Layer (x, w) y = Gemm <transB: int = 1> (a, v) }
        <domain: "local", opset_import: ["": 21, "local": 1]>
        Layer (i, k) => (o) { u = Gemm <transB: int = 1> (i, k) o = local.Fire (u) }
        <domain: "local", opset_import: ["": 21]>
        Fire (i) => (o)
        { l = Constant <value_float: float = 0.0> () h = Constant <value_float: float = 4.0> ()
          c = Clip (i, l, h) o = Round (c) }
    """
    for name, size in (("WEIGHTS", 32), ("HEAD", 12)):
        values = ", ".join(str((7 * i % 11 - 5) / 4) for i in range(size))
        text = text.replace(f"{{{name}}}", f"{{{values}}}")
    return onnx.parser.parse_model(text)


# -- what the format knows -----------------------------------------------------------------


def _graphs(model: onnx.ModelProto) -> list[Any]:
    """The graph, and every function and subgraph."""
    found = [model.graph, *model.functions]
    for graph in found:
        found += [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return found


def _node(model: onnx.ModelProto, rng: random.Random) -> tuple[Any, Any]:
    """Some graph that has nodes, and one of them."""
    graph = rng.choice([graph for graph in _graphs(model) if graph.node])
    return graph, rng.choice(list(graph.node))


def _values(graph: Any, node: Any = None) -> list[str]:
    """Names that may be an input, of the node if it is given, and one that is nowhere."""
    nodes = list(graph.node)
    if node is not None:
        nodes = nodes[: nodes.index(node)]
    given = [i if isinstance(i, str) else i.name for i in graph.input]
    given += [t.name for t in getattr(graph, "initializer", ())]
    return [*given, *(name for node in nodes for name in node.output)]


def _name(graph: Any, node: Any, rng: random.Random) -> str:
    """Mostly one that is computed before the node."""
    chance = rng.random()
    if chance < 0.05:
        return rng.choice(["", "nowhere", "\xff", "x" * 3000])
    return rng.choice(_values(graph, node if chance < 0.95 else None) or [""])


def edge(model: onnx.ModelProto, rng: random.Random) -> None:
    graph, node = _node(model, rng)
    names = node.input if rng.random() < 0.9 and node.input else node.output
    if names:
        names[rng.randrange(len(names))] = _name(graph, node, rng)


def edges(model: onnx.ModelProto, rng: random.Random) -> None:
    """More inputs or outputs, fewer, or in another order."""
    graph, node = _node(model, rng)
    names = rng.choice([node.input, node.input, node.output])
    kept = [*names, _name(graph, node, rng)] if rng.random() < 0.4 else list(names)[:-1]
    if rng.random() < 0.3:
        rng.shuffle(kept)
    del names[:]
    names.extend(kept)


def structure(model: onnx.ModelProto, rng: random.Random) -> None:
    """A node is gone, there twice, elsewhere, or in a branch."""
    graph, node = _node(model, rng)
    kind, copy = rng.choice(["drop", "twice", "move", "renamed", "branch"]), onnx.NodeProto()
    copy.CopyFrom(node)
    if kind != "twice":
        graph.node.remove(node)
    if kind == "renamed":
        names = {name: f"{name}_" for name in copy.output}
        copy.output[:] = list(names.values())
        graph.node.append(helper.make_node("Identity", list(names.values())[:1], list(names)[:1]))
    if kind == "branch":
        copy = _branch(copy, rng)
    if kind != "drop":
        graph.node.insert(rng.randrange(len(graph.node) + 1), copy)


def _branch(node: onnx.NodeProto, rng: random.Random) -> onnx.NodeProto:
    """The node inside of an If, or the body of a Loop."""
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output]
    body = helper.make_graph([node], "body", [], outputs)
    if rng.random() < 0.3:
        return helper.make_node("Loop", ["", "", ""], list(node.output), body=body)
    branches = {"then_branch": body, "else_branch": body}
    return helper.make_node("If", [node.input[0] if node.input else ""], node.output, **branches)


def kind(model: onnx.ModelProto, rng: random.Random) -> None:
    _, node = _node(model, rng)
    if rng.random() < 0.7:
        node.op_type = rng.choice(_KINDS)
    else:
        node.domain = rng.choice(_DOMAINS)


def attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    _, node = _node(model, rng)
    if node.attribute and rng.random() < 0.8:
        chosen = rng.choice(list(node.attribute))
        how = rng.choice(["value", "value", "value", "drop", "name", "kind"])
        if how == "drop":
            node.attribute.remove(chosen)
        elif how == "name":
            chosen.name = rng.choice(_NAMES)
        elif how == "kind":
            chosen.type = rng.randrange(16)
        else:
            _new_value(chosen, rng)
    else:
        values = [rng.choice(_NUMBERS), [rng.choice(_NUMBERS)] * rng.randrange(1, 5),
                  rng.choice(_FLOATS), "NOTSET", "i,j->ij"]  # fmt: skip
        node.attribute.append(helper.make_attribute(rng.choice(_NAMES), rng.choice(values)))


def _new_value(chosen: AttributeProto, rng: random.Random) -> None:
    if chosen.type == AttributeProto.INT:
        chosen.i = rng.choice(_NUMBERS)
    elif chosen.type == AttributeProto.FLOAT:
        chosen.f = rng.choice(_FLOATS)
    elif chosen.type == AttributeProto.STRING:
        chosen.s = rng.choice([b"", b"SAME_UPPER", b"VALID", b"\xff", b"x" * 5000])
    elif chosen.type == AttributeProto.TENSOR:
        _new_tensor(chosen.t, rng)
    elif chosen.ints:
        if rng.random() < 0.3:
            del chosen.ints[rng.randrange(len(chosen.ints))]
        else:
            chosen.ints[rng.randrange(len(chosen.ints))] = rng.choice(_NUMBERS)


def tensor(model: onnx.ModelProto, rng: random.Random) -> None:
    if model.graph.initializer:
        _new_tensor(rng.choice(list(model.graph.initializer)), rng)


def _new_tensor(chosen: TensorProto, rng: random.Random) -> None:
    how = rng.choice(["values"] * 5 + ["shape", "shape", "cast", "cast", "dtype", "bytes", "where"])
    try:
        array = numpy_helper.to_array(chosen).copy()
    except Exception:  # a change before has made it unreadable
        how = "bytes"
    if how == "values" and array.size and array.dtype.kind in "iuf":
        places = slice(None) if rng.random() < 0.3 else rng.randrange(array.size)
        many = _FLOATS if array.dtype.kind == "f" else _NUMBERS
        with np.errstate(all="ignore"):
            array.reshape(-1)[places] = np.array(rng.choice(many)).astype(array.dtype)
        chosen.CopyFrom(numpy_helper.from_array(array, chosen.name))
    elif how == "cast":
        kind = rng.choice(["f2", "f4", "f8", "i1", "i4", "i8", "u1", "u2", "?"])
        with np.errstate(all="ignore"):
            chosen.CopyFrom(numpy_helper.from_array(array.astype(kind), chosen.name))
    elif how == "shape":
        _new_shape(chosen, rng)
    elif how == "dtype":
        chosen.data_type = rng.randrange(26)
    elif how == "where":
        chosen.data_location = TensorProto.EXTERNAL
        chosen.external_data.add(key="location", value=rng.choice(["net.onnx", "..", "/x", "none"]))
        chosen.external_data.add(key="offset", value=str(rng.choice(_NUMBERS)))
    else:
        chosen.raw_data = chosen.raw_data[: rng.randrange(len(chosen.raw_data) + 1)] * rng.choice(
            [1, 1, 2]
        )


def _new_shape(chosen: TensorProto, rng: random.Random) -> None:
    dims = list(chosen.dims)
    how = rng.choice(["turn", "turn", "one", "one", "flat", "flat", "number"])
    if how == "turn":
        dims.reverse()
    elif how == "one":
        dims.insert(rng.randrange(len(dims) + 1), 1)
    elif how == "flat":
        dims = [int(np.prod(dims, dtype=object))]
    elif dims:
        dims[rng.randrange(len(dims))] = rng.choice(_NUMBERS)
    with suppress(ValueError):
        del chosen.dims[:]
        chosen.dims.extend(dims)


def port(model: onnx.ModelProto, rng: random.Random) -> None:
    """Inputs, outputs and what is said of values."""
    graph = model.graph
    ports = [*graph.input, *graph.output, *graph.value_info]
    if not ports:
        return
    chosen = rng.choice(ports)
    dims = chosen.type.tensor_type.shape.dim
    how = rng.choice(["dim", "dim", "dtype", "rank", "name", "drop", "kind"])
    if how == "dim" and dims:
        rng.choice(list(dims)).dim_value = rng.choice(_NUMBERS)
    elif how == "dtype":
        chosen.type.tensor_type.elem_type = rng.randrange(26)
    elif how == "rank":
        dims.add().dim_param = "M"
    elif how == "name":
        chosen.name = rng.choice(_values(graph))
    elif how == "kind":
        chosen.type.sequence_type.elem_type.tensor_type.elem_type = 1
    else:
        rng.choice([graph.input, graph.output])[:] = []


def head(model: onnx.ModelProto, rng: random.Random) -> None:
    """Versions, operator sets, functions, notes."""
    how = rng.choice(["opset", "opset", "ir", "import", "function", "notes"])
    if how == "ir":
        model.ir_version = rng.choice([0, 1, 3, 9, 12, 99, 2**40])
    elif how == "import":
        model.opset_import.add(domain=rng.choice(_DOMAINS), version=rng.choice([1, 13, 2**40]))
    elif how == "function":
        inside = helper.make_node(rng.choice(_KINDS), ["i"], ["o"])
        imports = [helper.make_opsetid("", 21)]
        name, domain = rng.choice(_KINDS), rng.choice(_DOMAINS)
        model.functions.append(helper.make_function(domain, name, ["i"], ["o"], [inside], imports))
    elif how == "notes":
        model.metadata_props.add(key="snncc.stage", value=rng.choice(["integer", "x", ""]))
    elif model.opset_import:
        chosen = rng.choice(list(model.opset_import))
        chosen.version = rng.choice([-1, 0, 1, 6, 11, 13, 18, 20, 22, 26, 2**40])


_CHANGES: tuple[Callable[[onnx.ModelProto, random.Random], None], ...] = (
    *(edge, edge, edges, structure, structure, kind, kind, attribute, attribute, tensor, tensor),
    *(tensor, port, head),
)


def _import_all(model: onnx.ModelProto) -> None:
    """Every domain that is used has a version."""
    there = {entry.domain for entry in model.opset_import}
    for domain in {node.domain for graph in _graphs(model) for node in graph.node} - there:
        model.opset_import.add(domain=domain, version=1)


# -- fields of the protobuf ----------------------------------------------------------------


def _fields(data: bytes) -> list[tuple[int, Any]] | None:
    """Key and value of each field; None if this is no message."""
    found, at = [], 0
    while at < len(data):
        key, at = _number(data, at)
        if at < 0 or key & 7 not in (0, 1, 2, 5) or key < 8:
            return None
        if key & 7 == 0:
            value, at = _number(data, at)
        else:
            size, at = _number(data, at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
            value, at = data[at : at + size], at + size
        if not 0 <= at <= len(data):
            return None
        found.append((key, value))
    return found


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number of any length and where it ends; −1 if it does not."""
    value = 0
    for place, byte in enumerate(data[at : at + 10] if at >= 0 else b""):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    return 0, -1


def _bytes_of(number: int) -> bytes:
    number &= 2**64 - 1
    parts = [number >> 7 * i & 127 for i in range(max(1, -(-number.bit_length() // 7)))]
    return bytes([*(part | 128 for part in parts[:-1]), parts[-1]])


def _joined(fields: list[tuple[int, Any]]) -> bytes:
    out = b""
    for key, value in fields:
        out += _bytes_of(key)
        if key & 7 == 0:
            out += _bytes_of(value)
        else:
            out += (_bytes_of(len(value)) if key & 7 == 2 else b"") + value
    return out


def changed_fields(data: bytes, rng: random.Random) -> bytes:
    """One field changed, at any depth, and all lengths made right."""
    fields = _fields(data)
    if not fields:
        return bytes(data_fuzz.changed(data, rng)) if data else data
    place = rng.randrange(len(fields))
    key, value = fields[place]
    if key & 7 == 2 and rng.random() < 0.85:
        fields[place] = key, changed_fields(value, rng)
    else:
        how = rng.choice(["drop", "twice", "number", "key", "move"])
        if how == "drop":
            del fields[place]
        elif how == "twice":
            fields.insert(rng.randrange(len(fields)), fields[place])
        elif how == "move":
            fields.insert(rng.randrange(len(fields)), fields.pop(place))
        elif how == "number" and key & 7 == 0:
            fields[place] = key, rng.choice(_NUMBERS)
        else:
            fields[place] = rng.randrange(1, 30) << 3 | key & 7, value
    return _joined(fields)


def changed_onnx(data: bytes, rng: random.Random) -> bytes:
    """The file with something changed: rarely bytes, mostly what the format knows."""
    chance = rng.random()
    if chance < 0.1:
        return data_fuzz.changed(data, rng)
    if chance < 0.3:
        for _ in range(rng.choice([1, 1, 2, 4])):
            data = changed_fields(data, rng)
        return data
    model = onnx.load_from_string(data)
    for _ in range(rng.choice([1, 1, 1, 1, 1, 2, 3])):
        with suppress(Exception):  # a change before may have left nothing to change
            rng.choice(_CHANGES)(model, rng)
    if rng.random() < 0.9:
        _import_all(model)
    return bytes(model.SerializeToString())
