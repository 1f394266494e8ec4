"""Small operations on onnx-ir graphs that all passes share.

A value's *name* means one quantity for ever: a pass that keeps a name keeps its meaning, a pass
that changes the meaning gives a new name. Translation validation compares what shares a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from snncc.ir.exact import Exact
from snncc.ir.metadata import CALL, MODULE, OPERATOR, PASS, SEQUENCE, SOURCE
from snncc.ir.names import REPLACED
from snncc.ir.ops import DOMAIN, OPSET, VERSION, functions_of

__all__ = [
    "Edit",
    "Provenance",
    "attribute",
    "constant",
    "explicit_pads",
    "initializer",
    "integer_range",
    "is_op",
    "is_sequence",
    "is_zero",
    "label",
    "nodes",
    "only_reader",
    "provenance",
    "remove_dead",
    "replace_value",
    "same_graph",
    "set_provenance",
    "static_shape",
    "to_proto",
]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Provenance:
    """Where a node comes from, as far as known.

    Attributes:
        module: Torch module path.
        source: ``file:line`` in the author's code.
        operator: What PyTorch runs there, as ``adaptive_avg_pool2d``; several nodes may be one.
        call: Which call of it, the same for all nodes that it became.
    """

    module: str = ""
    source: str = ""
    operator: str = ""
    call: str = ""


def provenance(node: ir.Node) -> Provenance:
    """What a node's metadata say of its origin."""
    props = node.metadata_props
    return Provenance(*(props.get(key, "") for key in (MODULE, SOURCE, OPERATOR, CALL)))


def set_provenance(node: ir.Node, origin: Provenance, made_by: str = "") -> None:
    """Write provenance into a node's metadata."""
    pairs = (
        (MODULE, origin.module),
        (SOURCE, origin.source),
        (OPERATOR, origin.operator),
        (CALL, origin.call),
        (PASS, made_by),
    )
    node.metadata_props.update({key: value for key, value in pairs if value})


def label(node: ir.Node) -> str:
    """The name people know a node by: its module path, else its own name or first output."""
    return provenance(node).module or node.name or (node.outputs[0].name or "?")


def nodes(model: ir.Model, *op_types: str) -> Iterator[ir.Node]:
    """Nodes in topological order, of the given kinds if any; safe while editing."""
    for node in list(model.graph):
        if (not op_types or node.op_type in op_types) and node.graph is not None:
            yield node


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Whether ``node`` exists and is of one of the kinds."""
    return node is not None and node.op_type in op_types


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """An attribute as a plain Python value."""
    found = node.attributes.get(name)
    if found is None:
        return default
    return list(found.value) if isinstance(found.value, tuple) else found.value


def constant(value: ir.Value | None) -> Array | None:
    """The array behind an initializer or constant, if ``value`` is one."""
    if value is None or value.const_value is None:
        return None
    if value.producer() is None and not value.is_initializer():
        return None
    return np.asarray(value.const_value.numpy())


def is_zero(value: ir.Value | None) -> bool:
    """Whether ``value`` holds zeros only: a constant, or one that is spread over the batch."""
    array, node = constant(value), value.producer() if value is not None else None
    if array is not None or node is None:
        return array is not None and not array.any()
    if node.op_type == "ConstantOfShape":
        fill = attribute(node, "value")
        return fill is None or not fill.numpy().any()
    return node.op_type in ("Expand", "Cast", "Identity") and is_zero(node.inputs[0])


def integer_range(dtype: ir.DataType | None) -> tuple[int, int] | None:
    """Smallest and largest number of an integer type of 4 to 16 bits; None for other types."""
    found = re.fullmatch(r"(U?)INT(4|8|16)", dtype.name if dtype is not None else "")
    if found is None:
        return None
    count = 2 ** int(found[2])
    return (0, count - 1) if found[1] else (-count // 2, count // 2 - 1)


def explicit_pads(
    node: ir.Node, span: Sequence[int], strides: Sequence[int], size: Sequence[int]
) -> list[int]:
    """What a window pads, before each axis and then after each; ``auto_pad`` is resolved.

    Args:
        node: A convolution or pool.
        span: How far its window reaches along each axis.
        strides: Along each.
        size: Of its input after samples and channels.
    """
    mode, rank = attribute(node, "auto_pad", "NOTSET"), len(span)
    pads = list(attribute(node, "pads") or [0] * (2 * rank))
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        return pads
    for axis in range(rank):
        reach = max((-(-size[axis] // strides[axis]) - 1) * strides[axis] + span[axis], 0)
        total = max(reach - size[axis], 0)
        small, large = total // 2, total - total // 2
        pads[axis], pads[axis + rank] = (small, large) if mode == "SAME_UPPER" else (large, small)
    return pads


def static_shape(value: ir.Value) -> tuple[int, ...] | None:
    """Per-sample shape (without the batch axis) when all of it is known."""
    if value.shape is None or len(value.shape) == 0:
        return None
    sizes = tuple(d for d in value.shape[1:] if isinstance(d, int))
    return sizes if len(sizes) == len(value.shape) - 1 else None


def initializer(graph: ir.Graph, name: str, array: Array | Exact) -> ir.Value:
    """A new initializer; the name is made unique. Of exact numbers it is float32 and knows them."""
    unique, n = name, 1
    while unique in graph.initializers:
        n += 1
        unique = f"{name}.{n}"
    if isinstance(array, Exact):
        tensor = array.tensor(unique)
    else:
        tensor = ir.tensor(np.require(array, requirements="C"), name=unique)
    value = ir.Value(
        name=unique,
        shape=ir.Shape(tensor.shape.numpy()),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


class Edit:
    """New nodes in front of an anchor; they inherit its provenance."""

    def __init__(self, anchor: ir.Node, made_by: str) -> None:
        if anchor.graph is None or not isinstance(anchor.graph, ir.Graph):
            raise ValueError("the anchor is not in a graph")
        self.anchor, self.made_by, self.graph = anchor, made_by, anchor.graph

    def const(self, name: str, array: Array | Exact) -> ir.Value:
        """A new initializer; see ``initializer``."""
        return initializer(self.graph, name, array)

    def op(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        name: str,
        like: ir.Value | None = None,
        dtype: ir.DataType | None = None,
        shape: Iterable[Any] | None = None,
        domain: str = "",
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Value:
        """A new node's only output, named ``name``; shape and dtype as given or as ``like``."""
        node = ir.Node(
            domain, op_type, inputs, ir.convenience.convert_attributes(attributes or {}), name=name
        )
        set_provenance(node, provenance(self.anchor), self.made_by)
        out = node.outputs[0]
        out.name = name
        out.shape = ir.Shape(list(shape)) if shape is not None else like.shape if like else None
        kind = dtype if dtype is not None else like.dtype if like else None
        out.type = ir.TensorType(kind) if kind is not None else None
        self.graph.insert_before(self.anchor, node)
        return out

    def own(self, op_type: str, *inputs: ir.Value | None, **rest: Any) -> ir.Value:
        """A new node of domain ``ai.snncc``."""
        return self.op(op_type, *inputs, domain=DOMAIN, **rest)


def is_sequence(model: ir.Model) -> bool:
    """Whether a sample is a sequence: the input is [N, T, ...]."""
    return SEQUENCE in model.metadata_props


def only_reader(value: ir.Value) -> ir.Node | None:
    """The one node that reads ``value``, if there is exactly one reader and it is a node."""
    readers = [node for node, _ in value.uses()]
    return readers[0] if len(readers) == 1 and not value.is_graph_output() else None


def replace_value(old: ir.Value, new: ir.Value, keep_name: bool = True) -> None:
    """Let all readers of ``old`` (and the graph's outputs) read ``new``; the old node goes."""
    producer = old.producer()
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    if keep_name:
        name, old.name = old.name, f"{old.name}{REPLACED}"
        new.name = name
        if (maker := new.producer()) is not None:
            maker.name = name
    if producer is not None:
        remove_dead(producer)


def same_graph(one: ir.Model, two: ir.Model) -> bool:
    """Whether two graphs compute by the same nodes, under the same names, from the same constants.

    A copy is the same; so is a graph whose metadata alone differ. Nodes in another order are not.
    """
    pairs = zip(one.graph, two.graph, strict=False)
    return (
        len(one.graph) == len(two.graph)
        and _names(one.graph.inputs) == _names(two.graph.inputs)
        and _names(one.graph.outputs) == _names(two.graph.outputs)
        and all(_same_node(a, b) for a, b in pairs)
        and _same_constants(one.graph, two.graph)
    )


def _names(values: Iterable[ir.Value | None]) -> list[str | None]:
    return [None if value is None else value.name for value in values]


def _same_node(one: ir.Node, two: ir.Node) -> bool:
    return (
        (one.domain, one.op_type) == (two.domain, two.op_type)
        and _names(one.inputs) == _names(two.inputs)
        and _names(one.outputs) == _names(two.outputs)
        and one.attributes.keys() == two.attributes.keys()
        and all(_same_attribute(a, two.attributes[key]) for key, a in one.attributes.items())
    )


def _same_attribute(one: ir.Attr, two: ir.Attr) -> bool:
    if one.type != two.type or one.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        return False
    if one.type == ir.AttributeType.TENSOR:
        return _same_array(one.value, two.value)
    return bool(one.value == two.value)


def _same_constants(one: ir.Graph, two: ir.Graph) -> bool:
    if one.initializers.keys() != two.initializers.keys():
        return False
    return all(
        _same_array(value.const_value, two.initializers[name].const_value)
        for name, value in one.initializers.items()
    )


def _same_array(one: Any, two: Any) -> bool:
    """Whether two tensors are one, or hold the same bytes of the same type and shape."""
    if one is two or one is None or two is None:
        return one is two
    if (one.dtype, tuple(one.shape)) != (two.dtype, tuple(two.shape)):
        return False
    return bool(one.tobytes() == two.tobytes())


def remove_dead(node: ir.Node) -> None:
    """Remove a node that nobody reads, and then its producers likewise."""
    if node.graph is None or any(o.uses() or o.is_graph_output() for o in node.outputs):
        return
    inputs = [v for v in node.inputs if v is not None]
    graph = node.graph
    graph.remove(node, safe=True)
    for value in inputs:
        if (producer := value.producer()) is not None:
            remove_dead(producer)
        elif value.is_initializer() and not value.uses() and isinstance(graph, ir.Graph):
            graph.initializers.pop(value.name or "", None)


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The model as protobuf, with the bodies of the operators it uses."""
    proto = ir.to_proto(model)
    used = {node.op_type for node in proto.graph.node if node.domain == DOMAIN}
    del proto.functions[:]
    proto.functions.extend(functions_of(used))
    del proto.opset_import[:]
    proto.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    if used:
        proto.opset_import.append(onnx.helper.make_opsetid(DOMAIN, VERSION))
    return proto
