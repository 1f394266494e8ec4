"""Programs of PyTorch in operators that have an ONNX form, without being traced anew.

The exporter asks a program to decompose what has no ONNX form, and PyTorch traces the whole of it
again for that, whatever it holds: a third of what an import costs, and more the longer a loop over
timesteps is. Most networks call operators that tracing leaves alone, and a few that it writes in
another way; those few are written so here. A program that calls any other one is PyTorch's to
decompose.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.onnx.ops  # which makes known what leaves become
from torch.fx import Graph, Node, map_arg
from torch.fx.traceback import NodeSource

from snncc.frontends.programs import argument

__all__ = ["decomposed"]

_aten = torch.ops.aten
_own = torch.ops.onnx_symbolic

#: Operators whose calls tracing leaves as they are: they read and make values, in no other terms.
_KEPT = frozenset({
    operator.getitem, operator.mul, _aten.sym_size.int,
    _own._symbolic.default, _own._symbolic_multi_out.default,
    _aten.conv1d.default, _aten.conv2d.default, _aten.conv3d.default, _aten.linear.default,
    _aten.matmul.default, _aten.add.Tensor, _aten.sub.Tensor, _aten.mul.Tensor, _aten.div.Tensor,
    _aten.neg.default, _aten.maximum.default, _aten.minimum.default, _aten.clamp.default,
    _aten.round.default, _aten.floor.default, _aten.relu.default, _aten.sigmoid.default,
    _aten.mean.dim, _aten.sum.dim_IntList, _aten.amax.default,
    _aten.max_pool2d.default, _aten.max_pool3d.default, _aten.avg_pool2d.default,
    _aten.cat.default, _aten.stack.default, _aten.select.int, _aten.slice.Tensor,
    _aten.split.Tensor, _aten.unsqueeze.default, _aten.squeeze.dim, _aten.transpose.int,
    _aten.permute.default, _aten.repeat.default, _aten.expand.default, _aten.view.default,
    _aten.pad.default, _aten.zeros.default, _aten.zeros_like.default, _aten.ones.default,
    _aten.full.default, _aten.detach.default, _aten.clone.default, _aten.contiguous.default,
})  # fmt: skip


class _Decomposed(torch.export.ExportedProgram):
    """A program in which nothing is left to decompose."""

    def run_decompositions(
        self, decomp_table: Any = None, decompose_custom_triton_ops: bool = False
    ) -> torch.export.ExportedProgram:
        """Itself; what PyTorch makes of it where the table has one of its operators after all."""
        table = torch.export.default_decompositions() if decomp_table is None else decomp_table
        if any(node.target in table for node in self.graph.nodes if node.op == "call_function"):
            found = super().run_decompositions(decomp_table, decompose_custom_triton_ops)
            assert isinstance(found, torch.export.ExportedProgram)
            return found
        return self


def decomposed(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """A program that decomposes into itself, if that is known to be right, or the given one.

    Args:
        program: Each of its values has its name in the one that is returned as well; what no
            result depends on is dropped from it.
    """
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    if not all(node.target in _KEPT or node.target in _RULES for node in calls):
        return program
    program.graph.eliminate_dead_code()
    try:
        graph = _Writer().written(program.graph)
    except _UnknownError:
        return program
    return _Decomposed(
        root=program.graph_module,
        graph=graph,
        graph_signature=program.graph_signature,
        state_dict=program.state_dict,
        range_constraints=program.range_constraints,
        module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs,
        constants=program.constants,
    )


class _UnknownError(Exception):
    """A call or a size of which it is not known what tracing makes of it."""


class _Writer:
    """Writes a graph anew, call by call.

    Attributes:
        graph: The new one.
        made: Its node for each node of the old one.
        sizes: Its node for each size that varies, by the size as an expression.
    """

    def __init__(self) -> None:
        self.graph = Graph()
        self.made: dict[Node, Node] = {}
        self.sizes: dict[str, Node] = {}

    def written(self, graph: Graph) -> Graph:
        """The graph, all of it."""
        for node in graph.find_nodes(op="placeholder"):
            self.made[node] = self.copy(node)
        self._name_sizes()
        for node in graph.nodes:
            if node.op != "placeholder":
                rule = _RULES.get(node.target, _Writer.copy)
                self.made[node] = rule(self, node)
        self.graph.eliminate_dead_code()
        self.graph.lint()
        return self.graph

    def _name_sizes(self) -> None:
        """A node for each size of an input that varies."""
        for x in list(self.graph.nodes):
            for axis, size in enumerate(getattr(x.meta.get("val"), "shape", ())):
                if isinstance(size, torch.SymInt) and str(size) not in self.sizes:
                    made = self.graph.create_node(
                        "call_function", _aten.sym_size.int, (x, axis), name=f"{x.name}_size"
                    )
                    made.meta["val"] = size
                    self.sizes[str(size)] = made

    def copy(self, node: Node) -> Node:
        """The same call; one of a size that there is already is that."""
        value = node.meta.get("val")
        size = str(value) if isinstance(value, torch.SymInt) else ""
        if size in self.sizes:
            return self.sizes[size]
        made = self.graph.node_copy(node, self.made.__getitem__)
        made.name = node.name  # "input" is one that a new node may not have
        _remember(made, node)
        if size:
            self.sizes[size] = made
        return made

    def call(self, node: Node, target: Any, *args: Any) -> Node:
        """A call in place of ``node``, of its name and value."""
        return self._call(node, target, args, node.name)

    def helper(self, node: Node, part: str, target: Any, *args: Any) -> Node:
        """A call more, which is a part of what ``node`` does."""
        return self._call(node, target, args, f"{node.name}_{part}")

    def _call(self, node: Node, target: Any, args: tuple[Any, ...], name: str) -> Node:
        made = self.graph.create_node("call_function", target, args, name=name)
        made.meta = dict(node.meta)
        _remember(made, node)
        return made

    def size(self, size: int | torch.SymInt) -> int | Node:
        """A number, or the node that has the size.

        Raises:
            _UnknownError: No node has it.
        """
        if isinstance(size, int):
            return size
        if str(size) not in self.sizes:
            raise _UnknownError
        return self.sizes[str(size)]

    def product(self, node: Node, sizes: Sequence[int | torch.SymInt]) -> None:
        """Let the product of the sizes that ``node`` multiplies be known."""
        total: int | torch.SymInt = 1
        for size in sizes:
            before, total = total, total * size
            if isinstance(total, torch.SymInt) and str(total) not in self.sizes:
                made = self.helper(node, "size", operator.mul, self.size(before), self.size(size))
                made.meta["val"] = total
                self.sizes[str(total)] = made


def _remember(made: Node, node: Node) -> None:
    """Let a node know which one it stands for, as tracing does."""
    made.meta["from_node"] = [NodeSource(node)]


# -- what becomes of calls -------------------------------------------------------------------


def _same(writer: _Writer, node: Node) -> Node:
    """Nothing: what it reads; a result keeps its name."""
    if any(user.op == "output" for user in node.users):
        raise _UnknownError
    return writer.made[node.all_input_nodes[0]]


def _dropout(writer: _Writer, node: Node) -> Node:
    if node.args[2]:
        raise _UnknownError
    return _same(writer, node)


def _flatten(writer: _Writer, node: Node) -> Node:
    before, after = node.all_input_nodes[0].meta["val"].shape, node.meta["val"].shape
    if len(before) == len(after):
        return _same(writer, node)
    start, end = argument(node, "start_dim"), argument(node, "end_dim")
    writer.product(node, before[start : end % len(before) + 1])
    return _view(writer, node, after)


def _unflatten(writer: _Writer, node: Node) -> Node:
    return _view(writer, node, node.meta["val"].shape)


def _reshape(writer: _Writer, node: Node) -> Node:
    """A view with the author's own sizes, -1 among them."""
    if not _in_order(node.all_input_nodes[0]):
        return _view(writer, node, node.meta["val"].shape)
    x, shape = _mapped(writer, node.args)
    return writer.call(node, _aten.view.default, x, list(shape))


def _view(writer: _Writer, node: Node, sizes: Sequence[int | torch.SymInt]) -> Node:
    """A view of what lies in memory in its order; of a copy that does, where it does not."""
    x = node.all_input_nodes[0]
    made, shape = writer.made[x], [writer.size(size) for size in sizes]
    if _in_order(x):
        return writer.call(node, _aten.view.default, made, shape)
    copy = writer.helper(x, "copy", _aten.clone.default, made)
    copy.kwargs = {"memory_format": torch.contiguous_format}
    copy.meta["val"] = x.meta["val"].contiguous()
    return writer.call(node, _aten._unsafe_view.default, copy, shape)


def _in_order(x: Node) -> bool:
    return bool(x.meta["val"].is_contiguous())


def _mapped(writer: _Writer, args: Any) -> Any:
    return map_arg(args, writer.made.__getitem__)


def _adaptive_avg_pool(writer: _Writer, node: Node) -> Node:
    """A mean over rows and columns, where one of each is left."""
    x, sizes = node.args
    if list(sizes) != [1, 1]:  # type: ignore[arg-type]
        raise _UnknownError
    return writer.call(node, _aten.mean.dim, writer.made[x], [-1, -2], True)  # type: ignore[index]


def _batch_norm(writer: _Writer, node: Node) -> Node:
    """One with kept statistics, which returns two more values that nobody reads."""
    *tensors, training, momentum, epsilon, _ = node.args
    if training or None in tensors[3:]:
        raise _UnknownError
    out = node.meta["val"]
    given = _mapped(writer, tensors)
    target = _aten._native_batch_norm_legit_no_training.default
    norm = writer.helper(node, "norm", target, *given, momentum, epsilon)
    norm.meta["val"] = out, out.new_empty(0), out.new_empty(0)
    return writer.call(node, operator.getitem, norm, 0)


_RULES: Mapping[Any, Callable[[_Writer, Node], Node]] = {
    _aten.dropout.default: _dropout,
    _aten.feature_dropout.default: _dropout,
    _aten.adaptive_avg_pool2d.default: _adaptive_avg_pool,
    _aten.flatten.using_ints: _flatten,
    _aten.unflatten.int: _unflatten,
    _aten.reshape.default: _reshape,
    _aten.batch_norm.default: _batch_norm,
}
