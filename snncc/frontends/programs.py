"""What is done to a program of PyTorch before it becomes ONNX, and what is remembered of it.

The exporter drops the divisor of an average, takes a norm of the batch for one of kept statistics,
and does not know a clamp between an integer and a real number; all three are written here so that
it cannot go wrong. Every node of the graph learns which call of PyTorch it comes from, since one
call may become many nodes that tell nothing of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch.fx import Node

from snncc.errors import Fault
from snncc.frontends.tidy import users_line
from snncc.ir.exact import Exact, fraction_of
from snncc.ir.graphs import Provenance, constant, set_provenance

__all__ = ["argument", "faults_of", "name_calls", "prepare", "take_numbers"]

_aten = torch.ops.aten


def prepare(program: torch.export.ExportedProgram) -> None:
    """Rewrite what the exporter gets wrong, in place; every value keeps its name."""
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.op == "call_function" and (rule := _RULES.get(node.target)) is not None:
            rule(node)
    program.graph_module.recompile()


def _clamp(node: Node) -> None:
    """A clamp of real values has real bounds."""
    if not _is_real(node):
        return
    x, *bounds = node.args
    node.args = (x, *(float(b) if isinstance(b, int) else b for b in bounds))
    node.kwargs = {k: float(b) if isinstance(b, int) else b for k, b in node.kwargs.items()}


def _avg_pool(node: Node) -> None:
    """An average over another divisor than the window's size: of what is larger by the ratio."""
    divisor = argument(node, "divisor_override")
    if divisor is None:
        return
    x, kernel = node.args[0], node.args[1]
    sizes = list(kernel) * (3 - len(kernel))  # type: ignore[arg-type]
    with node.graph.inserting_before(node):
        larger = _like(node, _aten.mul.Tensor, (x, float(prod(sizes))))
        scaled = _like(node, _aten.div.Tensor, (larger, float(divisor)))
    plain = {"ceil_mode": argument(node, "ceil_mode"), "count_include_pad": True}
    names = ("stride", "padding")
    node.args = (scaled, kernel, *(argument(node, name) for name in names), *plain.values())
    node.kwargs = {}


def _adaptive_avg_pool3d(node: Node) -> None:
    """Global over the last two axes, and along the one before them every element by itself."""
    x, sizes = node.args[0], list(node.args[1])  # type: ignore[arg-type]
    before = x.meta["val"].shape[-3]  # type: ignore[union-attr]
    if sizes[1:] == [1, 1] and (sizes[0] is None or sizes[0] == before):
        node.target = _aten.mean.dim
        node.args = (x, [-2, -1], True)


def _batch_norm(node: Node) -> None:
    """A norm of the batch's own statistics keeps none: the exporter would take the kept ones."""
    if argument(node, "training"):
        x, weight, bias, _, _, *rest = node.args
        node.args = (x, weight, bias, None, None, *rest)


def _like(node: Node, target: Any, args: tuple[Any, ...]) -> Node:
    """A new node that stands for a part of ``node``."""
    made = node.graph.call_function(target, args)
    made.meta.update({k: v for k, v in node.meta.items() if k != "val"})
    made.meta["val"] = node.args[0].meta["val"]  # type: ignore[union-attr]
    return made


def argument(node: Node, name: str) -> Any:
    """An argument of a call, by its name; its default where it is not given."""
    for i, found in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if found.name == name:
            given = node.args[i] if i < len(node.args) else node.kwargs.get(name)
            return found.default_value if given is None else given
    return None


def _is_real(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


_RULES: dict[Any, Callable[[Node], None]] = {
    _aten.clamp.default: _clamp,
    _aten.clamp_.default: _clamp,
    _aten.adaptive_avg_pool3d.default: _adaptive_avg_pool3d,
    _aten.avg_pool2d.default: _avg_pool,
    _aten.batch_norm.default: _batch_norm,
}


def operator_of(target: Any) -> str:
    """``conv2d`` of ``aten.conv2d.default``, in place or not."""
    return (str(target).split(".")[1:2] or [str(target)])[0].rstrip("_")


def name_calls(model: ir.Model, program: torch.export.ExportedProgram) -> None:
    """Let every node of the graph say which call of PyTorch it comes from.

    Args:
        model: As exported, not changed since.
        program: The decomposed one; its nodes know those that the author's code made.
    """
    calls = {node.name: _origin(node) for node in program.graph.nodes}
    for node in model.graph:
        name = re.match(r"%(\w+)", node.metadata_props.get("pkg.torch.onnx.fx_node", ""))
        if name is not None and (found := calls.get(name[1])) is not None:
            set_provenance(node, Provenance(operator=found[0], call=found[1]))


def _origin(node: Node) -> tuple[str, str] | None:
    """Operator and name of the call, before it was decomposed."""
    sources = node.meta.get("from_node") or ()
    first: Any = sources[0] if sources else node
    while getattr(first, "from_node", None):
        deeper = first.from_node[0]
        if not str(deeper.target).startswith("aten."):
            break
        first = deeper
    return operator_of(first.target), first.name


def faults_of(
    program: torch.export.ExportedProgram, operators: Sequence[str], what: str, todo: str
) -> list[Fault]:
    """One fault for each call of some operators."""
    return [
        Fault(what, node.name, operator_of(node.target), module_of(node), source_of(node), todo)
        for node in program.graph.nodes
        if node.op == "call_function" and operator_of(node.target) in operators
    ]


def source_of(node: Node) -> str:
    """``file:line`` of a call in the author's code."""
    return users_line(node.meta.get("stack_trace") or "")


def module_of(node: Node) -> str:
    """The module path of a call."""
    stack = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return str(stack[-1]) if stack and not stack[-1].startswith("_empty_nn") else ""


def take_numbers(model: ir.Model, program: torch.export.ExportedProgram) -> None:
    """Let constants stand for the numbers that the author's code has there, such as 0.1.

    Args:
        model: The graph of the program, which has them as float32.
        program: Parameters and buffers of it are float32 themselves.
    """
    written = {np.float32(number): fraction_of(number) for number in _numbers(program)}
    for value in model.graph.initializers.values():
        array = constant(value)
        if array is None or array.dtype != np.float32 or array.size != 1:
            continue
        if (number := written.get(array.reshape(-1)[0])) is not None:
            units = np.full(array.shape, number, dtype=object)
            value.const_value = Exact(np.ones(array.shape), units).tensor(str(value.name))


def _numbers(program: torch.export.ExportedProgram) -> set[float]:
    args = [arg for node in program.graph.nodes for arg in (*node.args, *node.kwargs.values())]
    held = [t.item() for t in program.state_dict.values() if t.numel() == 1]
    return {arg for arg in args if isinstance(arg, float)} - set(map(float, held))
