"""fold-time: the timesteps of a network become the outer part of the batch axis.

After it every value is [T*N, ...]; only neurons with memory know T. A static input is repeated
once, at the input; a sequence [N, T, ...] is laid out there. What is computed anew in every
timestep, by a loop in the network's code, is computed once on all of them. A mean or sum over time
is moved past the affine maps that follow it, to the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from snncc.errors import Option, UnsupportedModelError, Words
from snncc.ir.exact import Exact
from snncc.ir.graphs import (
    Edit,
    attribute,
    constant,
    initializer,
    is_op,
    nodes,
    provenance,
    set_provenance,
    static_shape,
)
from snncc.ir.lineage import Lineage
from snncc.ir.metadata import SEQUENCE, TIMESTEPS
from snncc.ir.names import NEW
from snncc.ir.ops import having, traits
from snncc.passes.base import Pass
from snncc.passes.padding import restate
from snncc.passes.time import unrolled as time_steps
from snncc.passes.time.forms import SHAPING, form_of, sizes_of
from snncc.passes.time.layout import Layout, Seen, Work

__all__ = ["FoldTime"]

#: Affine with constant operands: a mean over time may wait until after them.
_AFFINE = {
    "Conv", "Gemm", "MatMul", "BatchNormalization", "Add", "Sub", "Mul", "Div", "AveragePool",
    "GlobalAveragePool", "ReduceMean", "Identity", "Dropout", *SHAPING,
}  # fmt: skip
_OVER_SAMPLES = (
    "averages or adds up samples",
    Words(
        "over timesteps instead; a network that reads [N, T, ...] needs ",
        Option("batch_first", True),
        ", one that reads [T, N, ...] must not have it",
    ),
)


@dataclass(frozen=True)
class FoldTime(Pass):
    """Repeat or TimeFirst at the input, TimeSum at the result, nothing of T between but neurons."""

    name: ClassVar[str] = "fold-time"
    stage_in: ClassVar[str] = "imported"
    stage_out: ClassVar[str] = "imported"

    def run(self, model: ir.Model) -> int:
        """Rewrite the graph if it has neurons with memory, or reads a sequence."""
        neurons = list(nodes(model, *having("imported", lambda t: t.remembers)))
        sequence = int(model.metadata_props.get(SEQUENCE, "0"))
        if not neurons and not sequence:
            return 0
        restate(model, self.name)  # whose sizes are those of timesteps and samples together
        work = _Folding(
            model, sequence or attribute(neurons[0], "T"), self.name, is_sequence=sequence > 0
        )
        work.check(neurons)
        for node in list(model.graph):
            work.visit(node)
        work.finish()
        return max(len(neurons), 1)


@dataclass
class _Folding(Work):
    """The rewriting under way."""

    is_sequence: bool = False
    made: dict[Any, ir.Value] = field(default_factory=dict)
    steps: dict[str, dict[int, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lineage = Lineage.of(self.model)
        x = self.model.graph.inputs[0]
        kind, layout = ("TimeFirst", Layout.LINED) if self.is_sequence else ("Repeat", Layout.STILL)
        size = static_shape(x) or ()
        twin = Edit(next(iter(self.model.graph)), self.made_by).own(
            kind, x, name=f"{x.name}/{'steps' if self.is_sequence else 'repeated'}", like=x,
            attributes={"T": self.T},
        )  # fmt: skip
        twin.shape = _folded(size[1:] if self.is_sequence else size)
        self.seen[x] = Seen(Layout.FLAT if layout is Layout.STILL and self.T == 1 else layout, twin)

    def check(self, neurons: list[ir.Node]) -> None:
        """Raise unless all neurons see T timesteps."""
        who = "the input has" if self.is_sequence else "others"
        for node in neurons:
            if (found := attribute(node, "T")) != self.T:
                self.fault(node, f"{found} timesteps, {who} {self.T}", "one T for all")
        self._require_no_faults()

    def _require_no_faults(self) -> None:
        if self.faults:
            count = len(self.faults)
            what = "node whose timesteps" if count == 1 else "nodes whose timesteps"
            raise UnsupportedModelError(f"{count} {what} cannot be followed", self.faults)

    # -- one node --------------------------------------------------------------------------

    def visit(self, node: ir.Node) -> None:
        """Give each result its layout and its folded twin."""
        live = [v for v in node.inputs if v is not None and v in self.seen]
        if not live or traits(node).begins_time:
            return
        if time_steps.visit(self, node, live):
            return
        first = self.seen[live[0]]
        if node.op_type == "Shape" or first.layout is Layout.SHAPE:
            self.seen[node.outputs[0]] = Seen(Layout.SHAPE, first.twin)
            return
        live = [v for v in live if self.seen[v].layout is not Layout.SHAPE]
        if (layout := self._plumbing(node, live)) is not None:
            self.seen[node.outputs[0]] = Seen(layout, first.twin)
        elif (node.op_type in SHAPING and self._rejoined(node, live[0])) or (
            node.op_type == "Split" and self._parted(node, live[0])
        ):
            return
        elif node.op_type in ("ReduceMean", "ReduceSum") and self._reduces(node, over_time=True):
            self._reduce(node, first.twin)
        elif node.op_type in ("ReduceMean", "ReduceSum") and self._reduces(node, over_time=False):
            self.fault(node, *_OVER_SAMPLES)
            self.seen[node.outputs[0]] = Seen(Layout.MEAN, first.twin)
        else:
            self._judge(node, live)

    def _judge(self, node: ir.Node, live: list[ir.Value]) -> None:
        """Compute the node on folded values if it keeps timesteps apart."""
        found = {self.seen[v].layout for v in live}
        when = {self.seen[v].when for v in live if self.seen[v].layout is not Layout.STILL}
        first = self.seen[live[0]]
        if Layout.MEAN in found and not _may_wait(node, live, found):
            self.fault(node, "reads a mean over time", "only affine layers after the mean")
            self.seen[node.outputs[0]] = Seen(Layout.MEAN, first.twin)
        elif traits(node).remembers and found != {Layout.FLAT}:
            self.fault(
                node,
                "reads no timesteps",
                Words(
                    f"one static input, repeated over T = {self.T}, or a sequence (",
                    Option("timesteps"),
                    ")",
                ),
            )
            self.seen[node.outputs[0]] = Seen(Layout.FLAT, first.twin)
        elif (
            found & {Layout.ONE, Layout.CUT, Layout.PART}
            or len(found - {Layout.STILL}) > 1
            or len(when) > 1
        ):
            self.mixed(node, live)
        elif any(out.uses() for out in node.outputs[1:]):
            self.fault(node, "has several results", "a layer of one result")
            self.seen.update(dict.fromkeys(node.outputs, first))
        else:
            self._compute(node, live, found)

    def _regroups(self, node: ir.Node, x: ir.Value) -> bool:
        """Whether the node moves elements of single timesteps alone; it is computed then."""
        if node.op_type == "Split":
            return self._parted(node, x)
        return node.op_type in SHAPING and self._rejoined(node, x)

    def _parted(self, node: ir.Node, x: ir.Value) -> bool:
        """A split along an axis that holds no timesteps: a slice for each part."""
        found, rank = self.seen[x], len(x.shape or ())
        lead, axis = len(found.layout.leading), attribute(node, "axis", 0) % max(rank, 1)
        sizes = [(sizes_of(out) or ())[axis : axis + 1] for out in node.outputs]
        whole = all(size and size[0] is not None for size in sizes)
        if axis < lead or not whole or found.layout in (Layout.ONE, Layout.CUT, Layout.PART):
            return False
        start = 0
        for out, (size,) in zip(node.outputs, sizes, strict=True):
            end, along = start + (size or 0), axis - lead + 1
            key = "part", id(found.twin), start, end, along
            if key not in self.made:
                self.made[key] = self._part(node, out, found, (start, end, along))
            self.seen[out] = found.renamed(found.layout, *found.when, twin=self.made[key])
            self._note(out, self.seen[out])
            start = end
        return True

    def _part(
        self, node: ir.Node, out: ir.Value, found: Seen, bounds: tuple[int, int, int]
    ) -> ir.Value:
        edit = Edit(node, self.made_by)
        given = [
            edit.const(f"{out.name}.{what}", np.array([number], np.int64))
            for what, number in zip(("start", "end", "axis"), bounds, strict=True)
        ]
        part = edit.op("Slice", found.twin, *given, name=f"{out.name}{NEW}", dtype=out.dtype)
        # [T*N, ...] is the same quantity under the same name; other layouts are another one
        part.name = out.name if found.layout is Layout.FLAT else f"{out.name}/folded"
        part.shape = _folded(tuple(out.shape or ())[len(found.layout.leading) :])
        return part

    def _plumbing(self, node: ir.Node, live: list[ir.Value]) -> Layout | None:
        """The layout of the result if the node only regroups or repeats timesteps."""
        x, out = live[0], node.outputs[0]
        layout, before, after = self.seen[x].layout, sizes_of(x), sizes_of(out)
        if before is None or after is None:
            return None
        if layout is Layout.STILL and after == (1, None, *before[1:]):
            return Layout.ONE if node.op_type in (*SHAPING, "Expand") else None
        repeated = node.op_type in ("Expand", "Tile") or _is_stack(node, live)
        if (repeated or _takes_all(node)) and after == before:
            return layout
        if repeated and after[:1] == (self.T,):
            if layout is Layout.ONE and after[2:] == before[2:]:
                return Layout.APART
            if layout is Layout.STILL and after[1:] == before and node.op_type == "Expand":
                return Layout.APART
        if node.op_type == "Transpose" and layout.time_axis is not None:
            return _turned(node, layout)
        return self._regrouped(layout, before, after) if node.op_type in SHAPING else None

    def _regrouped(
        self, layout: Layout, before: tuple[int | None, ...], after: tuple[int | None, ...]
    ) -> Layout | None:
        """The layout after a reshape of the axes of timesteps and samples alone."""
        joins = {Layout.APART: Layout.FLAT, Layout.ONE: Layout.STILL, Layout.LINED: Layout.ROWS}
        if layout in joins and after == (None, *before[2:]):
            return joins[layout]
        if layout is Layout.FLAT and after == (self.T, None, *before[1:]):
            return Layout.APART
        if layout is Layout.ROWS and after == (None, self.T, *before[1:]):
            return Layout.LINED
        return None

    def _rejoined(self, node: ir.Node, x: ir.Value) -> bool:
        """A reshape that joins timesteps and samples, or parts them, and regroups the rest at once.

        Computed on folded values, where only the rest is regrouped; whether that is what it does.
        """
        out, layout = node.outputs[0], self.seen[x].layout
        before, after = sizes_of(x) or (), sizes_of(out) or ()
        parts = {
            Layout.FLAT: (Layout.APART, (self.T, None)),
            Layout.ROWS: (Layout.LINED, (None, self.T)),
        }
        joins = {Layout.APART: (Layout.FLAT, (None,)), Layout.LINED: (Layout.ROWS, (None,))}
        if layout not in parts and layout not in joins:
            return False
        made, head = (parts | joins)[layout]
        rest, sizes = before[2 if layout in joins else 1 :], after[len(head) :]
        if after[: len(head)] != head or None in (*rest, *sizes):
            return False
        known = tuple(s for s in sizes if s is not None)
        if prod(known) != prod(s for s in rest if s is not None):
            return False
        target = initializer(
            self.model.graph, f"{out.name}.folded", np.array([-1, *known], np.int64)
        )
        node.op_type = "Reshape"
        twin = self._emit(node, made, {}, [self.seen[x].twin, target], known)
        self.seen[out] = Seen(made, twin)
        return True

    def _reduces(self, node: ir.Node, over_time: bool) -> bool:
        """Whether the node reduces exactly the axis of timesteps, or that of samples."""
        x = node.inputs[0]
        axes = constant(node.inputs[1]) if len(node.inputs) > 1 else attribute(node, "axes")
        time_axis = self.seen[x].layout.time_axis if x is not None else None
        if x is None or axes is None or time_axis is None:
            return False
        rank, axis = len(x.shape or ()), time_axis if over_time else 1 - time_axis
        return [int(a) % rank for a in axes] == [axis] and not attribute(node, "keepdims", 1)

    def _reduce(self, node: ir.Node, twin: ir.Value) -> None:
        out = node.outputs[0]
        is_sum = node.op_type == "ReduceSum"
        self.seen[out] = Seen(Layout.MEAN, self.times(node, twin, self.T) if is_sum else twin)

    def _compute(self, node: ir.Node, live: list[ir.Value], found: set[Layout]) -> None:
        """The same node on folded values, once for all timesteps that compute alike."""
        out = node.outputs[0]
        others = found - {Layout.STILL}
        layout = Layout.MEAN if Layout.MEAN in found else next(iter(others), Layout.STILL)
        key = time_steps.key_of(self, node) if layout in (Layout.STILL, Layout.STEP) else None
        if key is None or key not in self.made:
            if (twin := self._computed(node, live, layout)) is None:
                self.mixed(node, live)
                return
            self.made[key] = twin
        when = next((self.seen[v].when for v in live if self.seen[v].when), ())
        self.seen[out] = Seen(layout, self.made[key], when)
        self._note(out, self.seen[out])

    def _note(self, out: ir.Value, found: Seen) -> None:
        """Say how the folded value comes from ``out``, or from one value for each timestep."""
        twin, name = str(found.twin.name), str(out.name)
        if found.layout is Layout.STEP:
            self.steps.setdefault(twin, {}).setdefault(found.when[0], name)
        elif found.layout not in (Layout.FLAT, Layout.MEAN, Layout.PART, Layout.CUT):
            self.lineage.note(twin, "folded", name, layout=found.layout.value, T=self.T)

    def _computed(self, node: ir.Node, live: list[ir.Value], layout: Layout) -> ir.Value | None:
        if layout.time_axis is not None:
            form = form_of(self, node)
            return None if form is None else self._emit(node, layout, *form)
        attributes = {k: a.value for k, a in node.attributes.items()}
        sizes = static_shape(node.outputs[0])
        inputs = [self.seen[v].twin if v in self.seen else v for v in node.inputs]
        if node.op_type == "Reshape":
            before = static_shape(live[0])
            if before is None or sizes is None or prod(before) != prod(sizes):
                return None
            target, name = np.array([-1, *sizes], np.int64), f"{node.outputs[0].name}.folded"
            inputs = [self.seen[live[0]].twin, initializer(self.model.graph, name, target)]
        return self._emit(node, layout, attributes, inputs, sizes)

    def _emit(
        self,
        node: ir.Node,
        layout: Layout,
        attributes: dict[str, Any],
        inputs: list[ir.Value | None],
        sizes: tuple[int, ...] | None,
    ) -> ir.Value:
        out = node.outputs[0]
        new = ir.Node(
            node.domain, node.op_type, inputs,
            ir.convenience.convert_attributes(attributes),
        )  # fmt: skip
        set_provenance(new, provenance(node), self.made_by)
        twin = new.outputs[0]
        twin.type = out.type
        # [T*N, ...] is the same quantity under the same name; other layouts are another one
        twin.name = out.name if layout is Layout.FLAT else f"{out.name}/folded"
        new.name = twin.name
        twin.shape = _folded(sizes) if sizes is not None else None
        self.model.graph.insert_before(node, new)
        return twin

    # -- the result ------------------------------------------------------------------------

    def finish(self) -> None:
        """Make the twins the graph; sum the result over time if a mean is due."""
        graph = self.model.graph
        self._require_no_faults()
        for i, out in enumerate(graph.outputs):
            found = self.seen.get(out)
            if found is None or found.layout not in (Layout.APART, Layout.FLAT, Layout.MEAN):
                raise UnsupportedModelError(_no_result(found))
            is_mean = found.layout is Layout.MEAN
            graph.outputs[i] = self._mean(out, found.twin) if is_mean else found.twin
        common.RemoveUnusedNodesPass()(self.model)
        self.model.metadata_props[TIMESTEPS] = str(self.T)
        for twin, steps in self.steps.items():
            if len(steps) == self.T:
                self.lineage.note(twin, "steps", *(steps[t] for t in range(self.T)))
        self.lineage.write(self.model)

    def _mean(self, out: ir.Value, twin: ir.Value) -> ir.Value:
        last = list(self.model.graph)[-1]
        edit = Edit(last, self.made_by)
        share = edit.const(f"{out.name}.share", Exact.number(Fraction(1, self.T)))
        part = edit.op("Mul", twin, share, name=f"{out.name}/share", like=twin)
        total = edit.own(
            "TimeSum", part, name=f"{out.name}", dtype=out.dtype,
            shape=["N", *(static_shape(out) or ())], attributes={"T": self.T},
        )  # fmt: skip
        for value in (part, total):  # after all they read
            node = value.producer()
            assert node is not None
            self.model.graph.remove(node)
            self.model.graph.append(node)
        return total


def _no_result(found: Seen | None) -> str:
    """Why this cannot be what the network returns."""
    layout = found.layout if found is not None else None
    if found is not None and layout in (Layout.STEP, Layout.PART):
        which = ", ".join(map(str, found.when))
        return f"the result is that of timestep {which} alone; return all of them, or their mean"
    if layout in (Layout.LINED, Layout.ROWS):
        return "the result has samples first; return [T, N, ...], or the mean over T"
    return "the result does not depend on time; return it per timestep, or its mean"


def _folded(sizes: tuple[Any, ...]) -> ir.Shape:
    return ir.Shape(["M", *sizes])


def _turned(node: ir.Node, layout: Layout) -> Layout | None:
    """The layout after a swap of the axes of timesteps and samples."""
    rank = len(node.outputs[0].shape or ())
    swaps = list(attribute(node, "perm", [])) == [1, 0, *range(2, rank)]
    return {Layout.APART: Layout.LINED, Layout.LINED: Layout.APART}[layout] if swaps else None


def _may_wait(node: ir.Node, live: list[ir.Value], found: set[Layout]) -> bool:
    """Whether the node is affine, so that the mean over time of its results is its result."""
    if found != {Layout.MEAN} or node.op_type not in _AFFINE:
        return False
    if node.op_type in ("Add", "Sub"):
        return True
    return len(live) == 1 and node.inputs[0] in (live[0], *_commuting(node))


def _commuting(node: ir.Node) -> tuple[ir.Value | None, ...]:
    return tuple(node.inputs[:1]) if node.op_type == "Mul" else ()


def _takes_all(node: ir.Node) -> bool:
    """Whether it is a Slice that keeps the order; one backwards has the same sizes, too."""
    if node.op_type != "Slice":
        return False
    given = node.inputs[4] if len(node.inputs) > 4 else None
    steps = constant(given)
    return given is None or (steps is not None and bool((steps == 1).all()))


def _is_stack(node: ir.Node, live: list[ir.Value]) -> bool:
    """A concatenation of one value with itself, along the first axis."""
    same = all(_unsqueezed(v) is _unsqueezed(live[0]) for v in node.inputs)
    return node.op_type == "Concat" and attribute(node, "axis") == 0 and same


def _unsqueezed(value: ir.Value | None) -> ir.Value | None:
    node = value.producer() if value is not None else None
    return node.inputs[0] if is_op(node, "Unsqueeze") and node is not None else value
