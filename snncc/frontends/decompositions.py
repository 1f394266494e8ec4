"""Decompositions of a program call by call, for the ONNX exporter.

``ExportedProgram.run_decompositions`` runs the whole program, and traces it anew after that: a
third of an export, though most calls stay what they are. Here each call runs by itself, on tensors
that have no numbers, and what it runs takes its place. PyTorch's own way is taken where a program
does what is not known here: calls operators that are not listed, has branches, changes in place
what others read a part of; and where names that people see would be others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import getitem, mul
from typing import Any

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, OutputKind, TensorArgument
from torch.fx import Graph, Node
from torch.fx.node import map_arg
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from snncc.frontends.programs import CALL, first_call, module_of

__all__ = ["by_calls", "decomposed"]

_aten = torch.ops.aten

#: Where a call comes from.
_KEPT = ("nn_module_stack", "stack_trace", "torch_fn")
#: Operators that sizes are computed with as well.
_OF_SIZES = {
    "add", "sub", "mul", "div", "floordiv", "truediv", "mod", "pow", "neg", "eq", "ne", "lt", "le",
    "gt", "ge", "and", "or", "slice", "copy", "slice_scatter",
}  # fmt: skip

_Table = Mapping[Any, Callable[..., Any]]


#: Operators that were compared with PyTorch's own way; random ones and casts are not among them.
_KNOWN = {
    "onnx_symbolic::_symbolic", "onnx_symbolic::_symbolic_multi_out",
    *(f"aten::{name}" for name in (
        "abs", "adaptive_avg_pool2d", "adaptive_max_pool2d", "alias", "add", "amax", "avg_pool2d",
        "batch_norm", "bmm", "cat", "chunk", "clamp", "clone", "contiguous", "conv1d", "conv2d",
        "cumsum", "detach", "div", "dropout", "einsum", "eq", "expand", "expand_as",
        "feature_dropout", "flatten", "flip", "floor", "ge", "gelu", "gt", "hardtanh", "index",
        "layer_norm", "le", "linear", "lt", "mT", "matmul", "max_pool2d", "maximum", "mean",
        "minimum", "movedim", "mul", "narrow", "neg", "ones", "pad", "permute", "pixel_shuffle",
        "pixel_unshuffle", "pow", "relu", "relu6", "repeat", "repeat_interleave", "reshape",
        "roll", "round", "rsub", "select", "sigmoid", "silu", "slice", "softmax", "split", "sqrt",
        "squeeze", "stack", "sub", "sum", "swapaxes", "sym_size", "tile", "transpose", "unbind",
        "unflatten", "unsqueeze", "upsample_nearest2d", "view", "where", "zeros", "zeros_like",
    )),
}  # fmt: skip
#: What those run that is not listed with them.
_PARTS = {"aten::empty", "aten::_native_batch_norm_legit_no_training", "aten::_unsafe_view"}
#: The order of inputs; buffers of submodules come after constants.
_RANKS = {
    InputKind.PARAMETER: 0,
    InputKind.BUFFER: 1,
    InputKind.CONSTANT_TENSOR: 2,
    InputKind.USER_INPUT: 4,
}


class _UnknownError(Exception):
    """A program that only PyTorch's own way decomposes."""


def by_calls(program: ExportedProgram) -> None:
    """Let ``program.run_decompositions`` go call by call where it can."""
    whole: Callable[..., ExportedProgram] = program.run_decompositions

    def run_decompositions(table: Any = None, *args: Any, **kwargs: Any) -> ExportedProgram:
        if table is None or args or kwargs:
            return whole(table, *args, **kwargs)
        return decomposed(program, dict(table)) or whole(table)

    program.run_decompositions = run_decompositions


def decomposed(program: ExportedProgram, table: _Table) -> ExportedProgram | None:
    """The program that ``program.run_decompositions(table)`` returns, or None where it is to.

    Nodes are the same in the same order, except that some may have other names: those of
    multiplications, additions and the like, that sizes have as well, and only inside modules.

    Args:
        program: As exported. It stays as it is.
        table: Operators that may not stay, and what takes their place.
    """
    try:
        with torch.no_grad():
            return _Calls(program, table).program()
    except Exception:  # of another version of PyTorch, say: its own way is always right
        return None


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What runs within it, as (operator, arguments, keywords, result); ``table`` is followed."""

    def __init__(self, table: _Table) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.table = table
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is _aten.native_batch_norm.default:  # its schema does not say what it writes
            func, args = _kept_statistics(*args, **kwargs)
            kwargs = {}
        if (instead := self.table.get(func)) is not None:
            with self:
                out = instead(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if isinstance(out, (torch.Tensor, tuple, list)):  # sizes are followed by what they are
            self.calls.append((func, args, kwargs, out))
        return out


class _Calls:
    """A program that is made of the calls of another one."""

    def __init__(self, program: ExportedProgram, table: _Table) -> None:
        self.before, self.table, self.graph = program, table, Graph()
        self.specs, self.nodes = _in_order(program)
        place = {node: i for i, node in enumerate(self.nodes)}
        self.last_use = {n: max((place[u] for u in n.users), default=-1) for n in self.nodes}
        self.mode = self._mode()
        #: Nodes of the program before -> what stands for them, as last changed.
        self.now: dict[Node, Node] = {}
        #: Results that are several -> each of them.
        self.parts: dict[Node, list[Node]] = {}
        #: Sizes as expressions -> the node that has it.
        self.sizes: dict[Any, Node] = {}
        #: Views -> what they are a view of.
        self.viewed: dict[Node, Node] = {}
        #: What has been changed in place, and whether by a view of it: further views are made where
        #: they are first used ...
        self.changed: dict[Node, bool] = {}
        #: ... unless they are these.
        self.settled: set[Node] = set()
        #: Operators that stay what they are.
        self.plain: set[Any] = set()

    def program(self) -> ExportedProgram:
        """The program, decomposed.

        Raises:
            _UnknownError: Only PyTorch's own way decomposes it.
        """
        for place, node in enumerate(self.nodes):
            self._take(node, place)
        self.graph.eliminate_dead_code()
        _require_same_names(self.graph)
        before = self.before
        return ExportedProgram(
            root=before.graph_module,
            graph=self.graph,
            graph_signature=self._signature(),
            state_dict=before.state_dict,
            range_constraints=before.range_constraints,
            module_call_graph=before.module_call_graph,
            example_inputs=before.example_inputs,
            constants=before.constants,
        )

    def _mode(self) -> Any:
        """That of the program's tensors, which have no numbers."""
        found = [getattr(node.meta.get("val"), "fake_mode", None) for node in self.nodes]
        modes = {id(mode): mode for mode in found if mode is not None}
        if len(modes) != 1:
            raise _UnknownError
        return next(iter(modes.values()))

    def _signature(self) -> Any:
        """That of the program before, with the names of results."""
        signature, (results,) = self.before.graph_signature, self.graph.output_node().args
        specs = []
        for spec, result in zip(signature.output_specs, results, strict=True):  # type: ignore[arg-type]
            is_plain = spec.kind is OutputKind.USER_OUTPUT and isinstance(spec.arg, TensorArgument)
            if not is_plain or not isinstance(result, Node):
                raise _UnknownError
            specs.append(replace(spec, arg=TensorArgument(name=result.name)))
        return replace(signature, input_specs=self.specs, output_specs=specs)

    # -- nodes -------------------------------------------------------------------------------

    def _take(self, node: Node, place: int) -> None:
        if node.op == "placeholder":
            made = self.graph.node_copy(node)
            made.name = node.name  # even that of a function of Python's
            self.now[node] = made
        elif node.op == "output":
            made = self.graph.output(map_arg(node.args[0], self._result))
            made.meta = {**node.meta}
        elif node.op != "call_function":
            raise _UnknownError
        elif isinstance(node.meta.get("val"), torch.SymInt):
            self.now[node] = self._size(node)
        elif node.target is getitem:
            whole, index = node.args
            part = self.parts[self.now[whole]][index]  # type: ignore[index]
            part.meta[CALL] = first_call(node)
            self.now[node] = part
        elif not isinstance(node.target, torch._ops.OpOverload):
            raise _UnknownError
        elif node.target._schema.is_mutable:
            self._change(node, place)
        elif str(node.target._schema.name) not in _KNOWN:
            raise _UnknownError
        else:
            self.now[node] = self._run(node, node.target, *self._arguments(node))

    def _result(self, node: Node) -> Node:
        made = self.now[node]
        if made in self.viewed and self._base(made) in self.changed:
            raise _UnknownError
        return made

    def _arguments(self, node: Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return map_arg((node.args, node.kwargs), self.now.__getitem__)

    def _size(self, node: Node) -> Node:
        expression = node.meta["val"].node.expr
        if (known := self.sizes.get(expression)) is None:
            args, kwargs = self._arguments(node)
            known = self._add(node, node.target, args, kwargs, node.meta["val"])
            self.sizes[expression] = known
        return known

    def _add(self, origin: Node, target: Any, args: Any, kwargs: Any, value: Any) -> Node:
        """A call that stands for a part of ``origin``, and all of its results."""
        args = _without_defaults(target, args)
        made = self.graph.create_node("call_function", target, args, kwargs, _named(target))
        made.meta = {k: v for k, v in origin.meta.items() if k in _KEPT}
        made.meta["val"] = value
        made.meta[CALL] = first_call(origin)
        if isinstance(value, (tuple, list)):
            parts = enumerate(value)
            self.parts[made] = [self._add(origin, getitem, (made, i), {}, v) for i, v in parts]
        if _is_view(target) and isinstance(args[0], Node):
            self.viewed[made] = args[0]
        return made

    def _run(self, origin: Node, target: Any, args: Any, kwargs: Any) -> Node:
        """A call, or what it runs if it may not stay."""
        args, kwargs = self._read(origin, target, args, kwargs)
        if target in self.plain:
            return self._add(origin, target, args, kwargs, origin.meta["val"])
        known: dict[int, Node] = {}
        with self.mode, enable_python_dispatcher(), _Recorder(self.table) as recorder:
            given = map_arg((args, kwargs), lambda node: _value(node, known))
            out = target(*given[0], **given[1])
        calls = recorder.calls
        if [call[0] for call in calls] == [target] or self._stays(target):
            self.plain.add(target)
            return self._add(origin, target, args, kwargs, origin.meta["val"])
        if any(call[0]._schema.name not in _KNOWN | _PARTS for call in calls):
            raise _UnknownError
        for size in _sizes([call[1:3] for call in calls]):  # they are computed before all else
            self._size_of(origin, size)
        for function, *taken, result in calls:
            a, k = tree_map(lambda value: self._standing(origin, value, known), taken)
            made = self._add(origin, function, a, k, result)
            for value, node in zip(*_results(result, made, self.parts), strict=True):
                known[id(value)] = node
        if id(out) not in known:
            raise _UnknownError
        return known[id(out)]

    def _stays(self, target: Any) -> bool:
        """What runs as something else stays if it can be no view, and has no table's rule."""
        alias = torch.Tag.maybe_aliasing_or_mutating in target.tags or _is_view(target)
        return not alias and target not in self.table

    def _standing(self, origin: Node, value: Any, known: Mapping[int, Node]) -> Any:
        """What stands for an argument of a call that ran."""
        if isinstance(value, torch.SymInt):
            return self._size_of(origin, value)
        if isinstance(value, (torch.Tensor, torch.SymFloat, torch.SymBool)):
            if id(value) not in known:
                raise _UnknownError
            return known[id(value)]
        return value

    def _size_of(self, origin: Node, size: torch.SymInt) -> Any:
        expression = size.node.expr
        if expression.is_Integer:
            return int(expression)
        if expression not in self.sizes and expression.is_Symbol:
            self.sizes[expression] = self._read_off(expression)
        elif expression not in self.sizes:
            factor, rest = expression.as_coeff_Mul()
            if not rest.is_Symbol or not factor.is_Integer or not _merges_two(origin):
                raise _UnknownError
            whole = self.sizes.get(rest) or self._read_off(rest)
            args = (int(factor), whole)
            self.sizes[expression] = self._add(origin, mul, args, {}, size)
        return self.sizes[expression]

    def _read_off(self, symbol: Any) -> Node:
        """The node that has a size of an input, after all inputs."""
        inputs = [node for node in self.graph.nodes if node.op == "placeholder"]
        for node in inputs:
            for axis, size in enumerate(getattr(node.meta["val"], "shape", ())):
                if isinstance(size, torch.SymInt) and size.node.expr == symbol:
                    with self.graph.inserting_after(inputs[-1]):
                        self.sizes[symbol] = self._add(
                            node, _aten.sym_size.int, (node, axis), {}, size
                        )
                    return self.sizes[symbol]
        raise _UnknownError

    # -- what is changed in place ------------------------------------------------------------

    def _change(self, node: Node, place: int) -> None:
        """The tensor, as it is afterwards, stands for what is changed, and for all it is a view of.

        Whoever reads another view of it later is not followed.
        """
        args, kwargs = self._arguments(node)
        subject, target = args[0], _as_function(node.target)
        chain = self._chain(subject)
        base = self.viewed[chain[-1]] if chain else subject
        alike = [p for p, n in self.now.items() if self._base(n) is base]
        read = [
            p for p in alike if self.last_use[p] > place and (chain or self.now[p] in self.viewed)
        ]
        if base.op == "placeholder" or any(self.now[p] is not base for p in read):
            raise _UnknownError
        made = self._run(node, target, args, kwargs)
        if not _alike(made, subject):
            raise _UnknownError
        if chain:
            made = self._scattered(node, chain, base, made)
        self.changed[made] = bool(chain)
        for p in alike:
            if self.now[p] is base:
                self.now[p] = made
        if node.users:
            if chain:
                raise _UnknownError
            self.now[node] = made

    def _chain(self, node: Node) -> list[Node]:
        """The views that lead to a tensor which is none, innermost first."""
        chain = []
        while node in self.viewed:
            chain.append(node)
            node = self.viewed[node]
        return chain

    def _base(self, node: Node) -> Node:
        chain = self._chain(node)
        return self.viewed[chain[-1]] if chain else node

    def _again(self, origin: Node, chain: Sequence[Node], base: Node) -> list[Node]:
        """The same views of a tensor, outermost first, after it."""
        found = [base]
        for view in reversed(chain):
            value, rest = view.meta["val"], view.args[1:]
            found.append(self._add(origin, view.target, (found[-1], *rest), view.kwargs, value))
        return found

    def _scattered(self, origin: Node, chain: Sequence[Node], base: Node, made: Node) -> Node:
        """The tensor of which a view has become ``made``."""
        if any(view.target is not _aten.slice.Tensor for view in chain):
            raise _UnknownError
        wholes = self._again(origin, chain[1:], base)
        for whole, view in zip(reversed(wholes), chain, strict=True):
            args = (whole, made, *view.args[1:])
            value = whole.meta["val"]
            made = self._add(origin, _aten.slice_scatter.default, args, view.kwargs, value)
        return made

    def _read(self, origin: Node, target: Any, args: Any, kwargs: Any) -> Any:
        """Arguments; views of what has been changed are made where they are used."""
        if not self.changed or _is_view(target):
            return args, kwargs
        return map_arg((args, kwargs), lambda node: self._settled(origin, node))

    def _settled(self, origin: Node, node: Node) -> Node:
        chain = self._chain(node)
        if not chain or node in self.settled or self._base(node) not in self.changed:
            return node
        if not self.changed[self._base(node)]:
            raise _UnknownError
        made = self._again(origin, chain, self._base(node))[-1]
        self.settled.add(made)
        self.now |= {before: made for before, now in self.now.items() if now is node}
        return made


def _in_order(program: ExportedProgram) -> tuple[list[InputSpec], list[Node]]:
    """Inputs, and nodes that begin with those: constants come after the module's own buffers."""
    nodes, specs = list(program.graph.nodes), program.graph_signature.input_specs
    if len(specs) != sum(node.op == "placeholder" for node in nodes):
        raise _UnknownError
    inputs = sorted(zip(specs, nodes, strict=False), key=lambda pair: _rank(pair[0]))
    return [spec for spec, _ in inputs], [*(node for _, node in inputs), *nodes[len(specs) :]]


def _rank(spec: InputSpec) -> int:
    if spec.kind not in _RANKS:
        raise _UnknownError
    is_inner = "." in (spec.target or "")
    if spec.kind is InputKind.CONSTANT_TENSOR and is_inner:
        raise _UnknownError
    return _RANKS[spec.kind] + 2 * (spec.kind is InputKind.BUFFER and is_inner)


def _kept_statistics(
    x: Any, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, *rest: float
) -> tuple[Any, tuple[Any, ...]]:
    """The operator that a batch norm of kept statistics is, with its arguments."""
    if training or mean is None or variance is None:
        raise _UnknownError
    found = _aten._native_batch_norm_legit_no_training.default
    return found, (x, weight, bias, mean, variance, *rest)


def _named(target: Any) -> str:
    """The name that PyTorch gives a call."""
    if target is _aten.sym_size.int:
        return "sym_size_int"
    is_operator = isinstance(target, torch._ops.OpOverload)
    return str((target.overloadpacket if is_operator else target).__name__)


def _without_defaults(target: Any, args: Any) -> Any:
    """Arguments up to the last that is no default."""
    if isinstance(target, torch._ops.OpOverload):
        known = [found.default_value for found in target._schema.arguments]
        while args and not isinstance(args[-1], Node) and args[-1] == known[len(args) - 1]:
            args = args[:-1]
    return args


def _is_view(target: Any) -> bool:
    """Whether what an operator returns is a part of what it is given."""
    if not isinstance(target, torch._ops.OpOverload):
        return False
    return any(found.alias_info is not None for found in target._schema.returns)


def _value(node: Node, known: dict[int, Node]) -> Any:
    known[id(node.meta["val"])] = node
    return node.meta["val"]


def _merges_two(node: Node) -> bool:
    """Whether a call makes one axis of two: of more the products of some are computed as well."""
    if node.target is not _aten.flatten.using_ints:
        return False
    return int(node.args[0].meta["val"].ndim) == int(node.meta["val"].ndim) + 1  # type: ignore[union-attr]


def _sizes(arguments: Any) -> list[torch.SymInt]:
    return [value for value in tree_leaves(arguments) if isinstance(value, torch.SymInt)]


def _results(result: Any, made: Node, parts: Mapping[Node, list[Node]]) -> tuple[Any, list[Node]]:
    return (result, parts[made]) if isinstance(result, (tuple, list)) else ([result], [made])


def _as_function(target: Any) -> Any:
    """The operator that returns what ``target`` writes into its first argument."""
    name, others = str(target._schema.name), target._schema.arguments[1:]
    writes = [a for a in others if a.alias_info is not None]
    packet = getattr(_aten, name.removeprefix("aten::").removesuffix("_"), None)
    found = getattr(packet, target._overloadname, None)
    if writes or found is None or not name.endswith("_") or found._schema.is_mutable:
        raise _UnknownError
    return found


def _alike(a: Node, b: Node) -> bool:
    x, y = a.meta["val"], b.meta["val"]
    return x.dtype == y.dtype and str(x.shape) == str(y.shape)


def _require_same_names(graph: Graph) -> None:
    """Names that PyTorch's own way would number otherwise are not seen by anybody.

    Outside modules values keep the name of their call. Computing with sizes takes numbers of some.
    """
    given = {_plain(node.name) for node in graph.nodes if node.op == "placeholder"}
    for node in graph.nodes:
        if node.op != "call_function" or isinstance(node.meta["val"], torch.SymInt):
            continue
        name = _plain(node.name)
        if name in given or (name in _OF_SIZES and not module_of(node)):
            raise _UnknownError


def _plain(name: str) -> str:
    """Without its number."""
    return re.sub(r"_\d+$", "", name)
