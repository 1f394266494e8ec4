"""fold-time: the timesteps of a network with memory become the outer part of the batch axis.

Behind it every value is [T*N, ...]; only neurons with memory know T. A static input is repeated
once, at the input; a mean or sum over time goes behind the affine maps that follow it, to the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from snncc.errors import Fault, UnsupportedModelError
from snncc.ir.graphs import (
    Edit,
    attribute,
    constant,
    initializer,
    is_op,
    label,
    nodes,
    provenance,
    set_provenance,
    static_shape,
)
from snncc.passes.base import Pass

__all__ = ["TIMESTEPS", "FoldTime"]

#: Metadata key of the model: T.
TIMESTEPS = "snncc.timesteps"

_ELEMENTWISE = {"Add", "Sub", "Mul", "Div", "Relu", "Clip", "Round", "Floor", "Min", "Max", "Cast"}
_SHAPING = {"Reshape", "Flatten", "Squeeze", "Unsqueeze"}
#: Affine with constant operands: a mean over time may wait until behind them.
_AFFINE = {
    "Conv", "Gemm", "MatMul", "BatchNormalization", "Add", "Sub", "Mul", "Div", "AveragePool",
    "GlobalAveragePool", "ReduceMean", "Identity", "Dropout", *_SHAPING,
}  # fmt: skip


@dataclass(frozen=True)
class FoldTime(Pass):
    """Repeat at the input, TimeSum at the result, nothing of T between but neurons."""

    name: ClassVar[str] = "fold-time"
    stage_in: ClassVar[str] = "imported"
    stage_out: ClassVar[str] = "imported"

    def run(self, model: ir.Model) -> int:
        """Rewrite the graph if it has neurons with memory."""
        neurons = list(nodes(model, "StatefulFire"))
        if not neurons:
            return 0
        T = attribute(neurons[0], "T")
        work = _Folding(model, T, self.name)
        for node in neurons:
            if attribute(node, "T") != T:
                work.fault(node, f"{attribute(node, 'T')} timesteps, others {T}", "one T for all")
        for node in list(model.graph):
            work.visit(node)
        work.finish()
        return len(neurons)


@dataclass
class _Folding:
    """The rewriting under way.

    Layouts: ``still`` [N, ...], the same in every timestep; ``one`` [1, N, ...]; ``apart``
    [T, N, ...]; ``flat`` [T*N, ...]; ``mean`` [N, ...], to be averaged over time; ``shape``:
    arithmetic on shapes.
    """

    model: ir.Model
    T: int
    made_by: str
    layouts: dict[ir.Value, str] = field(default_factory=dict)
    twins: dict[ir.Value, ir.Value] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        x = self.model.graph.inputs[0]
        first = next(iter(self.model.graph))
        self.layouts[x] = "still" if self.T > 1 else "flat"
        self.twins[x] = Edit(first, self.made_by).own(
            "Repeat", x, name=f"{x.name}/repeated", like=x, attributes={"T": self.T}
        )
        self.twins[x].shape = self._folded(static_shape(x) or ())

    def _folded(self, sizes: tuple[Any, ...]) -> ir.Shape:
        return ir.Shape(["M", *sizes])

    def fault(self, node: ir.Node, what: str, todo: str) -> None:
        """Note what cannot be folded."""
        origin = provenance(node)
        where = (label(node), node.op_type, origin.module, origin.source)
        self.faults.append(Fault(what, *where, todo))

    # -- one node --------------------------------------------------------------------------

    def visit(self, node: ir.Node) -> None:
        """Give each result its layout and its folded twin."""
        if node.op_type == "Repeat" and node.domain:
            return
        live = [v for v in node.inputs if v is not None and v in self.layouts]
        out = node.outputs[0]
        if not live:
            return
        if node.op_type == "Shape" or self.layouts[live[0]] == "shape":
            self.layouts[out] = "shape"
            return
        live = [v for v in live if self.layouts[v] != "shape"]
        found = {self.layouts[v] for v in live}
        if (plumbing := self._plumbing(node, live)) is not None:
            self.layouts[out], self.twins[out] = plumbing, self.twins[live[0]]
        elif node.op_type in ("ReduceMean", "ReduceSum") and self._over_time(node):
            self._reduce(node)
        elif "mean" in found and not _may_wait(node, live, found):
            self.fault(node, "reads a mean over time", "only affine layers behind the mean")
            self.layouts[out], self.twins[out] = "mean", self.twins[live[0]]
        elif node.op_type == "StatefulFire" and found != {"flat"}:
            todo = f"one static input, repeated over T = {self.T}; sequences are not accepted yet"
            self.fault(node, "reads no timesteps", todo)
            self.layouts[out], self.twins[out] = "flat", self.twins[live[0]]
        elif "one" in found or len(found - {"still"}) > 1:
            self._mixed(node, live)
        else:
            self._compute(node, live, found)

    def _mixed(self, node: ir.Node, live: list[ir.Value]) -> None:
        self.fault(
            node,
            "mixes timesteps",
            f"only neurons with memory and a final mean or sum may see T = {self.T}",
        )
        self.layouts[node.outputs[0]] = "flat"
        self.twins[node.outputs[0]] = self.twins[live[0]]

    def _plumbing(self, node: ir.Node, live: list[ir.Value]) -> str | None:
        """The layout of the result if the node only regroups or repeats timesteps."""
        x, out = live[0], node.outputs[0]
        layout, before, after = self.layouts[x], _sizes(x), _sizes(out)
        if before is None or after is None:
            return None
        if layout == "still" and after == (1, None, *before[1:]):
            return "one" if node.op_type in (*_SHAPING, "Expand") else None
        repeated = node.op_type in ("Expand", "Tile") or _is_stack(node, live)
        if repeated and after == before:
            return layout
        if repeated and after[:1] == (self.T,):
            if layout == "one" and after[2:] == before[2:]:
                return "apart"
            if layout == "still" and after[1:] == before and node.op_type == "Expand":
                return "apart"
        if node.op_type not in _SHAPING:
            return None
        if layout in ("apart", "one") and after == (None, *before[2:]):
            return "flat" if layout == "apart" else "still"
        if layout == "flat" and after == (self.T, None, *before[1:]):
            return "apart"
        return None

    def _over_time(self, node: ir.Node) -> bool:
        """Whether the node reduces exactly the axis of timesteps."""
        x = node.inputs[0]
        axes = constant(node.inputs[1]) if len(node.inputs) > 1 else attribute(node, "axes")
        rank = len(x.shape or ()) if x is not None else 0
        if x is None or axes is None or self.layouts[x] != "apart":
            return False
        return [int(a) % rank for a in axes] == [0] and not attribute(node, "keepdims", 1)

    def _reduce(self, node: ir.Node) -> None:
        x, out = node.inputs[0], node.outputs[0]
        assert x is not None
        twin = self.twins[x]
        if node.op_type == "ReduceSum":  # T times the mean
            edit = Edit(node, self.made_by)
            factor = edit.const(f"{out.name}.T", np.array(self.T, np.float32))
            twin = edit.op("Mul", twin, factor, name=f"{out.name}/times", like=twin)
        self.layouts[out], self.twins[out] = "mean", twin

    def _compute(self, node: ir.Node, live: list[ir.Value], found: set[str]) -> None:
        """The same node on folded values."""
        out = node.outputs[0]
        layout = "mean" if "mean" in found else next((n for n in found if n != "still"), "still")
        if layout == "apart":
            if (args := _ARGUMENTS.get(node.op_type, _no_form)(self, node)) is None:
                self._mixed(node, live)
                return
            attributes, inputs, sizes = args
        else:
            attributes = {k: a.value for k, a in node.attributes.items()}
            inputs = [self.twins.get(v, v) if v is not None else None for v in node.inputs]
            sizes = static_shape(out)
            if node.op_type == "Reshape":
                inputs = self._per_sample(node, live[0])
        self._emit(node, layout, inputs, attributes, sizes)

    def _per_sample(self, node: ir.Node, x: ir.Value) -> list[ir.Value | None]:
        """A reshape within samples; what else it does is left for the diagnosis to judge."""
        before, after = static_shape(x), static_shape(node.outputs[0])
        if before is None or after is None or prod(before) != prod(after):
            self._mixed(node, [x])
            return [self.twins[x], node.inputs[1]]
        target = np.array([-1, *after], np.int64)
        graph = self.model.graph
        return [self.twins[x], initializer(graph, f"{node.outputs[0].name}.folded", target)]

    def _emit(
        self,
        node: ir.Node,
        layout: str,
        inputs: list[ir.Value | None],
        attributes: dict[str, Any],
        sizes: tuple[int, ...] | None,
    ) -> None:
        out = node.outputs[0]
        new = ir.Node(
            node.domain, node.op_type, inputs,
            ir.convenience.convert_attributes(attributes),
        )  # fmt: skip
        set_provenance(new, provenance(node), self.made_by)
        twin = new.outputs[0]
        twin.type = out.type
        # [T*N, ...] is the same quantity under the same name; other layouts are another one
        twin.name = out.name if layout == "flat" else f"{out.name}/folded"
        new.name = twin.name
        twin.shape = self._folded(sizes) if sizes is not None else None
        self.model.graph.insert_before(node, new)
        self.layouts[out], self.twins[out] = layout, twin

    # -- the result ------------------------------------------------------------------------

    def finish(self) -> None:
        """Make the twins the graph; sum the result over time if a mean is due."""
        graph = self.model.graph
        out = graph.outputs[0]
        layout = self.layouts.get(out)
        if self.faults:
            count = len(self.faults)
            raise UnsupportedModelError(f"{count} nodes mix timesteps or T", self.faults)
        if layout not in ("apart", "flat", "mean"):
            raise UnsupportedModelError(
                "the result does not depend on time; return it per timestep, or its mean"
            )
        twin = self.twins[out]
        final = self._mean(out, twin) if layout == "mean" else twin
        graph.outputs[0] = final
        common.RemoveUnusedNodesPass()(self.model)
        self.model.metadata_props[TIMESTEPS] = str(self.T)

    def _mean(self, out: ir.Value, twin: ir.Value) -> ir.Value:
        last = list(self.model.graph)[-1]
        edit = Edit(last, self.made_by)
        share = edit.const(f"{out.name}.share", np.array(1.0 / self.T, np.float32))
        part = edit.op("Mul", twin, share, name=f"{out.name}/share", like=twin)
        total = edit.own(
            "TimeSum", part, name=f"{out.name}", dtype=out.dtype,
            shape=["N", *(static_shape(out) or ())], attributes={"T": self.T},
        )  # fmt: skip
        for value in (part, total):  # behind all they read
            node = value.producer()
            assert node is not None
            self.model.graph.remove(node)
            self.model.graph.append(node)
        return total


def _may_wait(node: ir.Node, live: list[ir.Value], found: set[str]) -> bool:
    """Whether the node is affine, so that the mean over time of its results is its result."""
    if found != {"mean"} or node.op_type not in _AFFINE:
        return False
    if node.op_type in ("Add", "Sub"):
        return True
    return len(live) == 1 and node.inputs[0] in (live[0], *_commuting(node))


def _commuting(node: ir.Node) -> tuple[ir.Value | None, ...]:
    return tuple(node.inputs[:1]) if node.op_type == "Mul" else ()


def _sizes(value: ir.Value) -> tuple[int | None, ...] | None:
    """Sizes with None for those that vary."""
    if value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else None for d in value.shape)


def _is_stack(node: ir.Node, live: list[ir.Value]) -> bool:
    """A concatenation of one value with itself, along the first axis."""
    same = all(_unsqueezed(v) is _unsqueezed(live[0]) for v in node.inputs)
    return node.op_type == "Concat" and attribute(node, "axis") == 0 and same


def _unsqueezed(value: ir.Value | None) -> ir.Value | None:
    node = value.producer() if value is not None else None
    return node.inputs[0] if is_op(node, "Unsqueeze") and node is not None else value


# -- nodes on [T, N, ...] ------------------------------------------------------------------

_Arguments = tuple[dict[str, Any], list["ir.Value | None"], "tuple[int, ...] | None"]


def _behind_batch(node: ir.Node) -> tuple[int, ...] | None:
    found = _sizes(node.outputs[0])
    return found[2:] if found is not None and None not in found[2:] else None  # type: ignore[return-value]


def _no_form(work: _Folding, node: ir.Node) -> _Arguments | None:
    return None


def _elementwise(work: _Folding, node: ir.Node) -> _Arguments | None:
    """Constants may vary behind the axes of timesteps and samples only."""
    inputs: list[ir.Value | None] = []
    rank = len(node.outputs[0].shape or ())
    for v in node.inputs:
        array = constant(v)
        if v is None or v in work.twins:
            inputs.append(None if v is None else work.twins[v])
        elif array is None or any(s != 1 for s in array.shape[: max(array.ndim - rank + 2, 0)]):
            return None
        else:
            slim = array.reshape(array.shape[max(array.ndim - rank + 1, 0) :])
            name = f"{node.outputs[0].name}.folded"
            inputs.append(v if slim is array else initializer(work.model.graph, name, slim))
    attributes = {k: a.value for k, a in node.attributes.items()}
    return attributes, inputs, _behind_batch(node)


def _matmul(work: _Folding, node: ir.Node) -> _Arguments | None:
    x, weight = node.inputs[0], constant(node.inputs[1])
    if x is None or weight is None or weight.ndim != 2 or len(x.shape or ()) != 3:
        return None
    return {}, [work.twins[x], node.inputs[1]], _behind_batch(node)


def _regrouped(work: _Folding, node: ir.Node) -> _Arguments | None:
    """[T, N, a...] as [T, N, b...]."""
    x, out = node.inputs[0], node.outputs[0]
    before, after = _sizes(x) if x is not None else None, _sizes(out)
    if x is None or before is None or after is None or after[:2] != (work.T, None):
        return None
    if None in before[2:] or None in after[2:]:
        return None
    sizes = tuple(d for d in after[2:] if d is not None)
    if prod(d for d in before[2:] if d is not None) != prod(sizes):
        return None
    target = initializer(work.model.graph, f"{out.name}.folded", np.array([-1, *sizes], np.int64))
    node.op_type = "Reshape"
    return {}, [work.twins[x], target], sizes


def _reduction(work: _Folding, node: ir.Node) -> _Arguments | None:
    """A mean over height and width."""
    x = node.inputs[0]
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else attribute(node, "axes")
    rank = len(x.shape or ()) if x is not None else 0
    if x is None or axes is None or any(int(a) % rank < 2 for a in axes):
        return None
    moved = np.array([int(a) % rank - 1 for a in axes], np.int64)
    keep = {"keepdims": attribute(node, "keepdims", 1)}
    inputs: list[ir.Value | None] = [
        work.twins[x],
        initializer(work.model.graph, f"{node.name}.folded", moved),
    ]
    return keep, inputs, _behind_batch(node)


_ARGUMENTS: dict[str, Callable[[_Folding, ir.Node], _Arguments | None]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(("Identity", "Dropout"), _elementwise),
    **dict.fromkeys(_SHAPING, _regrouped),
    "MatMul": _matmul,
    "ReduceMean": _reduction,
}
