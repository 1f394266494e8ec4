"""fold-time: the timesteps of a network become the outer part of the batch axis.

After it every value is [T*N, ...]; only neurons with memory know T. A static input is repeated
once, at the input; a sequence [N, T, ...] is laid out there. What is computed anew in every
timestep, by a loop in the network's code, is computed once on all of them. A mean or sum over time
is moved past the affine maps that follow it, to the end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from hashlib import sha256
from typing import Any, ClassVar

import onnx_ir as ir
import onnx_ir.passes.common as common

from snncc.errors import Option, UnsupportedModelError, Words
from snncc.ir.axes import Digit, View
from snncc.ir.exact import Exact
from snncc.ir.graphs import (
    Edit,
    attribute,
    constant,
    nodes,
    provenance,
    set_provenance,
    static_shape,
)
from snncc.ir.metadata import SEQUENCE, TIMESTEPS
from snncc.ir.ops import having, traits
from snncc.ir.results import results_of
from snncc.passes.base import Pass
from snncc.passes.padding import restate
from snncc.passes.time.filled import restate_filled
from snncc.passes.time.forms import Form, MixedError, form_of, groups_of
from snncc.passes.time.lay_out import Laid, laid_out
from snncc.passes.time.layout import (
    SAMPLES,
    TIME,
    Seen,
    When,
    Work,
    folded_shape,
    outer,
    sizes_of,
)
from snncc.passes.time.moves import moved
from snncc.passes.time.sums import REDUCTIONS, reduced, running_sum

__all__ = ["FoldTime"]

#: Affine with constant operands: a mean over time may wait until after them.
_AFFINE = {
    "Conv", "Gemm", "MatMul", "BatchNormalization", "Add", "Sub", "Mul", "Div", "AveragePool",
    "GlobalAveragePool", "ReduceMean", "ReduceSum", "Identity", "Dropout",
}  # fmt: skip


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
        restate_filled(model, self.name)
        work = _Folding(
            model, sequence or attribute(neurons[0], "T"), self.name, is_sequence=sequence > 0
        )
        work.check(neurons)
        work.begin()
        for node in list(model.graph):
            work.visit(node)
        work.finish()
        return max(len(neurons), 1)


@dataclass
class _Folding(Work):
    """The rewriting under way."""

    is_sequence: bool = False

    def begin(self) -> None:
        """Lay the input out, or repeat it."""
        x = self.model.graph.inputs[0]
        edit, size = Edit(next(iter(self.model.graph)), self.made_by), sizes_of(x) or ()
        own = list(size[2:] if self.is_sequence else size[1:])
        kind, name = ("TimeFirst", "steps") if self.is_sequence else ("Repeat", "repeated")
        twin = edit.own(
            kind, x, name=f"{x.name}/{name}", dtype=x.dtype, shape=folded_shape(own),
            attributes={"T": self.T},
        )  # fmt: skip
        lead = [(SAMPLES, None), (TIME, self.T)] if self.is_sequence else [(SAMPLES, None)]
        view = View.of([*lead, *((str(axis), size) for axis, size in enumerate(own, 1))])
        is_still = not self.is_sequence and self.T > 1
        self.seen[x] = Seen(view, twin, When.STILL if is_still else When.EACH)

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
        """Say of each result which folded value it is."""
        live = [v for v in node.inputs if v is not None and v in self.seen]
        if not live or traits(node).begins_time:
            return
        if any(self.seen[v].when is When.LOST for v in live):
            self.lose(node, live)
        elif node.op_type == "Add" and running_sum(self, node):
            return
        elif node.op_type == "Shape" or all(self.seen[v].when is When.SHAPE for v in live):
            self.seen[node.outputs[0]] = replace(self.seen[live[0]], when=When.SHAPE)
        elif (found := moved(self, node)) is not None:
            self.seen.update(zip(node.outputs, found, strict=True))
        else:
            self._judge(node, [v for v in live if self.seen[v].when is not When.SHAPE])

    def _judge(self, node: ir.Node, live: list[ir.Value]) -> None:
        """Compute the node on folded values if it keeps timesteps apart."""
        found = {self.seen[v].when for v in live}
        if When.MEAN in found and not _may_wait(node, live, found):
            self.fault(node, "reads a mean over time", "only affine layers after the mean")
            self.lose(node, live)
        elif When.PART in found:
            self.mixed(node, live)
        elif any(out.uses() for out in node.outputs[1:]):
            self.fault(node, "has several results", "a layer of one result")
            self.lose(node, live)
        elif node.op_type in REDUCTIONS:
            self._reduce(node)
        else:
            self._compute(node, live)

    def _reduce(self, node: ir.Node) -> None:
        """A mean or sum; one over timesteps waits until the end."""
        out = node.outputs[0]
        if (found := reduced(self, node)) is None:
            return
        form, seen = found
        if form is not None:
            seen = self._made(node, form, seen)
        was = self.seen[node.inputs[0]].when  # type: ignore[index]
        if node.op_type == "ReduceSum" and seen.when is When.MEAN and was is not When.MEAN:
            seen = replace(seen, twin=self.times(node, seen.twin, self.T))
        self.seen[out] = seen

    def _compute(self, node: ir.Node, live: list[ir.Value]) -> None:
        """The same node on folded values, once for all timesteps that compute alike."""
        laid = {v: found for v in live if (found := laid_out(self, v)) is not None}
        each = [found.seen for found in laid.values() if found.seen.when is not When.STILL]
        starts = {tuple(found.view.starts.items()) for found in each}
        if len(laid) < len(set(live)) or len(starts) > 1:
            self.mixed(node, live)
            return
        if traits(node).remembers and not self._has_time_in_front(node, live[0], laid[live[0]]):
            return
        try:
            form = form_of(self, node, laid)
        except MixedError as error:
            self.mixed(node, live, error.axis)
            return
        if form is None:
            self.mixed(node, live)
            return
        lead = each[0] if each else next(iter(laid.values())).seen
        self.seen[node.outputs[0]] = self._made(node, form, lead)

    def _has_time_in_front(self, node: ir.Node, x: ir.Value, laid: Laid) -> bool:
        """Whether a neuron with memory sees all timesteps in order, and each sample by itself."""
        found, first = laid.seen, outer(laid.groups[0])
        if found.when is not When.EACH or len(found.timesteps()) < self.T:
            repeated = f"one static input, repeated over T = {self.T}, or a sequence ("
            self.fault(node, "reads no timesteps", Words(repeated, Option("timesteps"), ")"))
            flat = View(((Digit(TIME, self.T), Digit(SAMPLES, None)), *laid.groups[1:]))
            self.seen[node.outputs[0]] = Seen(flat, laid.twin)
            return False
        whole = (Digit(TIME, self.T),) if self.T > 1 else ()
        if first == (*whole, Digit(SAMPLES, None)) == laid.groups[0][: len(first)]:
            return True
        what = f"takes {self.axes(x)} for [T·N, ...], so that samples become timesteps"
        self.fault(node, what, "timesteps in front of the samples")
        self.lose(node, [x])
        return False

    def _made(self, node: ir.Node, form: Form, lead: Seen) -> Seen:
        """The node's folded twin: that of another timestep, or a new one."""
        out = node.outputs[0]
        is_step = lead.when is When.EACH and len(lead.timesteps()) < self.T
        starts = {name: start for name, start in lead.view.starts.items() if name == TIME}
        found = replace(lead, view=View(groups_of(form), starts))
        key = self._key(node, form) if is_step or lead.when is When.STILL else None
        twin = self.made.get(key) if key is not None else None
        if twin is None:
            twin = self._emitted(node, form, self.name_of(out, found))
            if key is not None:
                self.made[key] = twin
        found = replace(found, twin=twin)
        self.note(out, found)
        return found

    def _emitted(self, node: ir.Node, form: Form, name: str) -> ir.Value:
        own = [size for size in form.sizes if size is not None]
        attributes = ir.convenience.convert_attributes(form.attributes)
        new = ir.Node(node.domain, node.op_type, form.inputs, attributes, name=name)
        set_provenance(new, provenance(node), self.made_by)
        twin = new.outputs[0]
        twin.name, twin.type, twin.shape = name, node.outputs[0].type, folded_shape(own)
        self.model.graph.insert_before(node, new)
        return twin

    def _key(self, node: ir.Node, form: Form) -> Any:
        """What a node computes from folded values; a constant is what it holds."""
        inputs = [_input_key(value) for value in form.inputs]
        attributes = sorted((name, repr(value)) for name, value in form.attributes.items())
        return node.domain, node.op_type, *inputs, *attributes, form.groups, form.sizes

    # -- the result ------------------------------------------------------------------------

    def finish(self) -> None:
        """Make the twins the graph; sum the result over time if a mean is due."""
        graph = self.model.graph
        self._require_no_faults()
        self._require_results()
        for i, out in enumerate(graph.outputs):
            found = laid_out(self, out)
            assert found is not None
            is_mean = found.seen.when is When.MEAN
            graph.outputs[i] = self._mean(out, found.twin) if is_mean else found.twin
        common.RemoveUnusedNodesPass()(self.model)
        self.model.metadata_props[TIMESTEPS] = str(self.T)
        for twin, steps in self.steps.items():
            if len(steps) == self.T:
                self.lineage.note(twin, "steps", *(steps[t] for t in range(self.T)))
        self.lineage.write(self.model)

    def _require_results(self) -> None:
        """Raise where a result is none over timesteps; all of them are told, by name if several."""
        outs, names = self.model.graph.outputs, results_of(self.model)
        found = {name: self._no_result(outs[places[0]]) for name, places in names.items()}
        if not (wrong := {name: why for name, why in found.items() if why}):
            return
        told = [why if len(names) == 1 else f"'{name}': {why}" for name, why in wrong.items()]
        raise UnsupportedModelError("; ".join(told))

    def _no_result(self, out: ir.Value) -> str:
        """Why this cannot be what the network returns; empty if it can."""
        laid = laid_out(self, out) if out in self.seen else None
        if laid is None:
            return _STILL
        found, times = laid.seen, laid.seen.timesteps()
        if found.when is When.STILL:
            return _STILL
        if found.when is When.PART or (found.when is When.EACH and len(times) < self.T):
            which = ", ".join(map(str, found.summed or times))
            return (
                f"the result is that of timestep {which} alone; return all of them, or their mean"
            )
        digits = [d for group in laid.groups for d in group]
        lead = [TIME, SAMPLES] if self.T > 1 and found.when is When.EACH else [SAMPLES]
        if [d.axis for d in digits[: len(lead)]] == lead and not any(
            outer(group) for group in laid.groups[len(lead) :]
        ):
            return ""
        if found.when is When.EACH and digits[0].axis == SAMPLES:
            return "the result has samples first; return [T, N, ...], or the mean over T"
        return f"the result is {self.axes(out)}; return [T, N, ...], or the mean over T, [N, ...]"

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


_STILL = "the result does not depend on time; return it per timestep, or its mean"


def _input_key(value: ir.Value | None) -> Any:
    array = constant(value)
    if array is None:
        return id(value)
    return str(array.dtype), array.shape, sha256(array.tobytes()).digest()


def _may_wait(node: ir.Node, live: list[ir.Value], found: set[When]) -> bool:
    """Whether the node is affine, so that the mean over time of its results is its result."""
    if found != {When.MEAN} or node.op_type not in _AFFINE:
        return False
    if node.op_type in ("Add", "Sub"):
        return True
    return len(live) == 1 and node.inputs[0] in (live[0], *_commuting(node))


def _commuting(node: ir.Node) -> tuple[ir.Value | None, ...]:
    return tuple(node.inputs[:1]) if node.op_type == "Mul" else ()
