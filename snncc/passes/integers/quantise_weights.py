"""quantise-weights: linear layers get int8 weight slices, neurons get integer levels.

Which integers mean what is decided in ``snncc.passes.integers.grids``. Only weights and biases
round; what follows is integer arithmetic.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.errors import Fault, UnsupportedModelError
from snncc.ir.carried import carry_of
from snncc.ir.graphs import (
    Edit,
    attribute,
    label,
    nodes,
    provenance,
    remove_dead,
    static_shape,
)
from snncc.passes.base import Law, Pass
from snncc.passes.fold.fold_scale import NORM, output_scales, write_output_scales
from snncc.passes.integers.fit_weights import Fit, fit
from snncc.passes.integers.grids import Grid, QuantisedLayer, plan, slices
from snncc.passes.integers.heavy_weights import reach
from snncc.passes.integers.levels import levels
from snncc.passes.integers.membranes import membrane
from snncc.passes.integers.precision import Precision
from snncc.passes.integers.round_for_pixels import round_for_pixels
from snncc.passes.reading import Linear, is_branch_sum, linear_behind, read_affine, read_linear
from snncc.program import SLICE_LIMIT
from snncc.program.attention import EXACT_PRODUCTS, reach_of

__all__ = ["QuantiseWeights", "squeezed"]

#: ONNX Runtime convolves in float32: exact below this, proved per layer and slice.
_FLOAT_EXACT = 2**24
#: Metadata key of the model.
_SQUEEZED = "snncc.squeezed"


@dataclass(frozen=True)
class QuantiseWeights(Pass):
    """Weights in ``bits`` bits as int8 slices.

    Attributes:
        bits: 4 to 24; one slice up to 8, two up to 16, three up to 24. Of layers that
            choose-bits has not decided about.
        fit: Data to choose weights and biases with; none: to nearest, on pixels with feedback.
    """

    bits: int = 16
    fit: Fit | None = None

    name: ClassVar[str] = "quantise-weights"
    stage_in: ClassVar[str] = "integer"
    stage_out: ClassVar[str] = "quantised"
    law: ClassVar[Law] = Law.LOSSY

    def run(self, model: ir.Model) -> int:
        """Replace layers, pools and neurons by their integer forms."""
        chosen = Precision.read(model, self.bits)
        planned, faults = plan(model, chosen)
        Precision(self.bits, {str(v.name): p.bits for v, p in planned.items()}).write(model)
        _remember_squeezed(model, planned)
        planned = round_for_pixels(planned)
        if self.fit is not None and not faults:
            planned = fit(model, planned, self.fit)
        work = _Work(model, self.name, planned, faults)
        for node in nodes(model):
            work.convert(node)
        if faults:
            raise UnsupportedModelError("the weights do not fit their bits", faults)
        work.finish()
        return len(planned)


@dataclass
class _Work:
    """The conversion under way: integer twin and grid of every value."""

    model: ir.Model
    made_by: str
    planned: dict[ir.Value, QuantisedLayer]
    faults: list[Fault]
    twins: dict[ir.Value, ir.Value] = field(default_factory=dict)
    grids: dict[ir.Value, Grid] = field(default_factory=dict)

    def convert(self, node: ir.Node) -> None:
        """Give the node's result its integer twin."""
        out = node.outputs[0]
        if out in self.twins:
            return
        if node.op_type == "QuantizeInput" or (node.op_type == "Cast" and node.domain == ""):
            self._source(node)
        elif node.op_type in ("Conv", "Gemm"):
            if (linear := linear_behind(node)) is not None:
                self._layer(self.planned[linear.out])
        elif node.op_type == "IntegerFire":
            self._fire(node)
        elif node.op_type == "StatefulFire":
            self._stateful(node)
        elif node.op_type == "Attention":
            self._attention(node)
        elif is_branch_sum(node):
            self._sum(node)
        elif node.op_type == "PatchMask":
            self._mask(node)
        elif node.op_type in ("MaxPool", "Reshape", "SumPool", "Repeat", "TimeFirst", "TimeSum"):
            self._pass_on(node)
        elif node.op_type == "OnGrid" or (
            read_linear(out) is None and read_affine(node) is not None
        ):
            self._rescale(node)

    def finish(self) -> None:
        """Make the twins the graph's results and drop the float nodes."""
        outs = [*self.model.graph.outputs]
        if shifted := [str(out.name) for out in outs if any(self.grids[out].shifts)]:
            named = ", ".join(shifted)
            raise UnsupportedModelError(f"the result '{named}' is shifted; add a linear layer")
        thresholds = [float(self.grids[out].thresholds[0]) for out in outs]
        scales = output_scales(self.model)
        units = [scale / one for scale, one in zip(scales, thresholds, strict=True)]
        write_output_scales(self.model, units)
        self.model.graph.outputs[:] = [self.twins[out] for out in outs]
        for node in reversed(list(self.model.graph)):
            remove_dead(node)
        for old, new in self.twins.items():
            if old.graph is None and new.name == f"{old.name}~int":
                new.name = old.name
                new.producer().name = old.name  # type: ignore[union-attr]

    # -- one kind of node each -------------------------------------------------------------

    def _source(self, node: ir.Node) -> None:
        out = node.outputs[0]
        self.twins[out] = out if node.op_type == "QuantizeInput" else _required(node.inputs[0])
        x = node.inputs[0]
        maker = node if node.op_type == "QuantizeInput" else x.producer() if x is not None else None
        self.grids[out] = Grid.counts(255 if maker is None else attribute(maker, "top", 255))

    def _layer(self, layer: QuantisedLayer) -> None:
        linear, w, b = layer.linear, layer.weight, layer.bias
        payload = self.grids[linear.x].payload
        moved = (np.abs(w) << layer.shift).reshape(len(w), -1).sum(1)
        bound = payload * int(moved.max(initial=0)) + int(np.abs(b).max(initial=0))
        self.grids[linear.out] = Grid(layer.grid.thresholds, layer.grid.shifts, bound)
        self.twins[linear.out] = self._emit(layer, payload)

    def _rescale(self, node: ir.Node) -> None:
        """The same integers on another grid, which a factor of zero does not leave."""
        x, out, found = _required(node.inputs[0]), node.outputs[0], read_affine(node)
        self.twins[out], self.grids[out] = self.twins[x], self.grids[x]
        if found is not None and not found[1].scale.all():
            channel = int(np.flatnonzero(found[1].scale == 0)[0])
            self._fault(node, f"channel {channel}: multiplied by zero", "leave the channel out")
            return
        self.grids[out] = self.grids[x].behind(node)

    def _fire(self, node: ir.Node) -> None:
        x, out = _required(node.inputs[0]), node.outputs[0]
        grid = self.grids[x]
        if any(t <= 0 for t in grid.thresholds):
            channel = next(i for i, t in enumerate(grid.thresholds) if t <= 0)
            self._fault(node, f"channel {channel}: negative scale ahead of it", "a positive one")
            grid = Grid.counts(grid.payload)  # to find all faults at once
        D, rounding = attribute(node, "D"), attribute(node, "rounding")
        table = levels(grid.thresholds, D, rounding, grid.shifts)
        if (table == table[:1]).all():
            table = table[:1]
        edit = Edit(node, self.made_by)
        new = edit.own(
            "FireCount", self.twins[x], edit.const(f"{out.name}.levels", table),
            name=f"{out.name}~int", dtype=ir.DataType.UINT8, shape=out.shape,
        )  # fmt: skip
        _remember(new, rounding, node)
        self.twins[out], self.grids[out] = new, Grid.counts(D)

    def _stateful(self, node: ir.Node) -> None:
        """Levels, threshold and decay on the grid of the membrane, which is finer."""
        x, out, carry = _required(node.inputs[0]), node.outputs[0], carry_of(node)
        grid = self.grids[x]
        if any(grid.shifts) or any(t <= 0 for t in grid.thresholds):
            self._fault(node, "a shift or negative scale ahead of a neuron with memory",
                        "a layer right ahead of it")  # fmt: skip
            return
        made = membrane(grid, carry)
        if made is None:
            self._fault(node, "its membrane does not fit 64 bits", "fewer weight bits")
            return
        edit = Edit(node, self.made_by)
        new = edit.own(
            "StatefulFireCount",
            self.twins[x],
            edit.const(f"{out.name}.levels", made.levels),
            edit.const(f"{out.name}.threshold", made.threshold),
            name=f"{out.name}~int", dtype=ir.DataType.UINT8, shape=out.shape,
            attributes={
                "T": carry.T, "numerator": made.decay[0], "shift": made.decay[1],
                "fraction": made.fraction, "reset": carry.reset,
            },
        )  # fmt: skip
        _remember(new, carry.rule, node)
        self.twins[out], self.grids[out] = new, Grid.counts(carry.D)

    def _attention(self, node: ir.Node) -> None:
        """Products of counts, one the unit: nothing rounds."""
        q, k, v = (_required(x) for x in node.inputs)
        out, order, heads = node.outputs[0], attribute(node, "order"), attribute(node, "heads")
        payloads = self.grids[q].payload, self.grids[k].payload, self.grids[v].payload
        shapes = static_shape(q) or (), static_shape(k) or ()
        matrix, reach = reach_of(order, *shapes, heads, payloads)
        if matrix > SLICE_LIMIT or reach >= EXACT_PRODUCTS:
            self._fault(node, f"its products may reach {reach:,}", "fewer levels D or positions")
        self.twins[out] = Edit(node, self.made_by).own(
            "QAttention", self.twins[q], self.twins[k], self.twins[v], name=f"{out.name}:v",
            dtype=ir.DataType.INT64, shape=out.shape,
            attributes={"heads": heads, "order": order},
        )  # fmt: skip
        self.grids[out] = Grid.counts(reach)

    def _sum(self, node: ir.Node) -> None:
        left, right = (_required(v) for v in node.inputs)
        out, one, two = node.outputs[0], self.grids[left], self.grids[right]
        if one.thresholds != two.thresholds:
            self._fault(node, "adds branches of different scale", "scale them alike")
        shifts = tuple(a + b for a, b in zip(one.shifts, two.shifts, strict=False))
        self.grids[out] = Grid(one.thresholds, shifts, one.payload + two.payload)
        self.twins[out] = Edit(node, self.made_by).op(
            "Add", self.twins[left], self.twins[right], name=f"{out.name}:v",
            dtype=ir.DataType.INT64, shape=out.shape,
        )  # fmt: skip

    def _mask(self, node: ir.Node) -> None:
        x, mask, out = *(_required(v) for v in node.inputs), node.outputs[0]
        if any(self.grids[x].shifts):
            self._fault(node, "masks a shifted potential", "a convolution right ahead of the mask")
        self.twins[out] = Edit(node, self.made_by).own(
            "MaskPotential", self.twins[x], self.twins[mask], name=f"{out.name}:v",
            dtype=ir.DataType.INT64, shape=out.shape,
        )  # fmt: skip
        self.grids[out] = self.grids[x]

    def _pass_on(self, node: ir.Node) -> None:
        x, out = _required(node.inputs[0]), node.outputs[0]
        twin, edit = self.twins[x], Edit(node, self.made_by)
        attributes = {k: a.value for k, a in node.attributes.items()}
        if node.op_type in ("SumPool", "TimeSum") and twin.dtype != ir.DataType.INT64:
            twin = edit.op(
                "Cast", twin, name=f"{out.name}/wide", dtype=ir.DataType.INT64, shape=x.shape,
                attributes={"to": ir.DataType.INT64.value},
            )  # fmt: skip
        if node.op_type == "MaxPool" and twin.dtype == ir.DataType.INT64:
            self._fault(node, "max-pool of sums or potentials", "max-pool the spikes instead")
        if node.op_type == "SumPool" and any(attribute(node, "pads")) and any(self.grids[x].shifts):
            self._fault(node, "pools a shifted potential with padding", "pool without padding")
        potential = (self.twins[x].name or "").endswith(":v")
        args = (twin, *node.inputs[1:])
        self.twins[out] = edit.op(
            node.op_type, *args, name=f"{out.name}:v" if potential else f"{out.name}~int",
            dtype=twin.dtype, shape=out.shape, domain=node.domain, attributes=attributes,
        )  # fmt: skip
        self.grids[out] = self.grids[x].behind(node)

    # -- nodes -----------------------------------------------------------------------------

    def _emit(self, layer: QuantisedLayer, payload: int) -> ir.Value:
        linear, b = layer.linear, layer.bias
        edit, base, out = Edit(linear.node, self.made_by), linear.out.name, linear.out
        tail = (1,) * (linear.weight.ndim - 2)
        v = edit.const(f"{base}.bias.int", b if b.ndim == 3 else b.reshape(-1, *tail))
        parts = [
            (p, shift, chunk)
            for whole, shift in layer.parts()
            for p, digit in enumerate(_used(slices(whole, layer.bits)))
            for chunk in self._chunks(linear, digit, payload)
        ]
        for i, (p, shift, chunk) in enumerate(parts):
            weight = edit.const(f"{base}.slice{p}", chunk)
            acc = self._product(edit, linear, weight, f"{base}/acc{i}")
            name = f"{base}:v" if i == len(parts) - 1 else f"{base}/sum{i}"
            v = edit.own(
                "SliceSum", v, acc, name=name, dtype=ir.DataType.INT64, shape=out.shape,
                attributes={"slice": p, "shift": shift},
            )  # fmt: skip
        return v

    def _product(self, edit: Edit, linear: Linear, weight: ir.Value, name: str) -> ir.Value:
        op = "QConv" if linear.kind == "conv" else "QGemm"
        geometry = {
            "strides": list(linear.strides),
            "pads": list(linear.pads),
            "dilations": list(linear.dilations),
            "group": linear.group,
        }
        return edit.own(
            op, self.twins[linear.x], weight, name=name, dtype=ir.DataType.INT32,
            shape=linear.out.shape, attributes=geometry if op == "QConv" else {},
        )  # fmt: skip

    def _chunks(
        self, linear: Linear, digit: npt.NDArray[np.int8], payload: int
    ) -> list[npt.NDArray[np.int8]]:
        """The slice split over its inputs until float32 holds every partial sum exactly."""
        reach = payload * np.abs(digit.astype(np.int64)).reshape(len(digit), -1)
        if reach.max(initial=0) * 2 >= _FLOAT_EXACT:
            self._fault(linear.node, f"inputs up to {payload} are too large", "pool less ahead")
            return [digit]
        total = reach.sum(axis=1).max(initial=0)
        if total > SLICE_LIMIT:
            self._fault(linear.node, f"its sums may reach {total}, beyond 32 bits", "fewer inputs")
        if total < _FLOAT_EXACT:
            return [digit]
        part = (np.cumsum(reach, axis=1) // (_FLOAT_EXACT // 2)).reshape(digit.shape)
        return [np.where(part == i, digit, 0).astype(np.int8) for i in range(int(part.max()) + 1)]

    def _fault(self, node: ir.Node, what: str, todo: str) -> None:
        origin = provenance(node)
        self.faults.append(
            Fault(what, label(node), node.op_type, origin.module, origin.source, todo)
        )


def _remember_squeezed(model: ir.Model, planned: Mapping[ir.Value, QuantisedLayer]) -> None:
    """Layers that lack a bit or more, as others take all room of their potentials."""
    found = [
        {
            "module": label(layer.linear.node),
            "bits": layer.bits,
            "bits_left": round(layer.bits - layer.squeezed, 1),
            "by": label(layer.squeezed_by.node),
            "reach": float(reach(layer.squeezed_by).max()),
        }
        for layer in planned.values()
        if layer.squeezed >= 1 and layer.squeezed_by is not None
    ]
    model.metadata_props[_SQUEEZED] = json.dumps(found)


def squeezed(model: ir.Model) -> list[dict[str, Any]]:
    """Those of a quantised graph, plain data.

    Of each its module, bits and bits left, by which module, and how far that takes potentials, in
    thresholds.
    """
    found: list[dict[str, Any]] = json.loads(model.metadata_props.get(_SQUEEZED, "[]"))
    return found


def _used(digits: list[npt.NDArray[np.int8]]) -> list[npt.NDArray[np.int8]]:
    """Without the highest slices that are all zero; one stays."""
    last = max((p for p, digit in enumerate(digits) if digit.any()), default=0)
    return digits[: last + 1]


def _remember(fired: ir.Value, rounding: str, node: ir.Node) -> None:
    """What people want to know of a neuron and its levels do not tell."""
    made = fired.producer()
    if made is not None:
        made.metadata_props["snncc.rounding"] = rounding
        made.metadata_props[NORM] = node.metadata_props.get(NORM, "1")


def _required(value: ir.Value | None) -> ir.Value:
    if value is None:
        raise UnsupportedModelError("a required input is missing")
    return value
