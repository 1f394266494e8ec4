"""quantise-weights: linear layers get int8 weight slices, neurons get integer levels.

What integers mean is decided in ``shared_grids``. Only weights and biases round; what follows is
integer arithmetic.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.errors import Fault, SnnccError, UnsupportedModelError
from snncc.ir.graphs import (
    Edit,
    attribute,
    is_op,
    label,
    nodes,
    provenance,
    remove_dead,
)
from snncc.ir.metadata import NORM, ROUNDING, SQUEEZED
from snncc.ir.names import INTEGER, POTENTIAL, is_potential
from snncc.ir.ops import traits
from snncc.ir.traits import Numbers
from snncc.passes.base import Law, Pass
from snncc.passes.fold.fold_scale import output_scales, write_output_scales
from snncc.passes.integers.fit_weights import Fit, fit
from snncc.passes.integers.grid import Grid
from snncc.passes.integers.heavy_weights import reach
from snncc.passes.integers.neurons import Refusal, kind_of
from snncc.passes.integers.payloads import PLACES, digits_of, potential_grid
from snncc.passes.integers.precision import Precision
from snncc.passes.integers.products import reach_of_product, trains_of
from snncc.passes.integers.round_for_pixels import round_for_pixels
from snncc.passes.integers.shared_grids import QuantisedLayer, plan, slices
from snncc.passes.reading import Linear, is_branch_sum, linear_behind, read_affine, read_linear
from snncc.program import SLICE_LIMIT, TOTAL_LIMIT
from snncc.program.attention import EXACT_PRODUCTS
from snncc.program.bounds import DIGIT
from snncc.program.nodes.gate import MOST_COUNT

__all__ = ["QuantiseWeights", "squeezed"]

_REAL = ir.DataType.FLOAT
#: ONNX Runtime convolves in float32: exact below this, proved per layer and slice.
_FLOAT_EXACT = 2**24
#: And takes maxima of potentials in float64.
_DOUBLE_EXACT = 2**53


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
        of_weights = len(faults)
        Precision(self.bits, {str(v.name): p.bits for v, p in planned.items()}).write(model)
        _remember_squeezed(model, planned)
        planned = round_for_pixels(planned)
        if self.fit is not None and not faults:
            planned = fit(model, planned, self.fit)
        work = _Work(model, self.name, planned, faults)
        for node in nodes(model):
            work.convert(node)
        if faults:
            others = "layers or neurons do not fit integers"
            what = others if len(faults) > of_weights else "the weights do not fit their bits"
            raise UnsupportedModelError(what, faults)
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
    coarse: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def convert(self, node: ir.Node) -> None:
        """Give the node's result its integer twin."""
        out, asked = node.outputs[0], traits(node)
        if out in self.twins or self._is_lost(node):
            return
        if asked.emits is Numbers.SOURCE or is_op(node, "Cast"):
            self._source(node)
        elif asked.weighs:
            if (linear := linear_behind(node)) is not None:
                self._layer(self.planned[linear.out])
        elif asked.fires:
            self._fire(node)
        elif asked.multiplies:
            self._product(node)
        elif is_branch_sum(node):
            self._sum(node)
        elif asked.joins and asked.keeps_counts:
            self._join(node)
        elif asked.masks:
            self._mask(node)
        elif asked.keeps_counts or asked.takes_maximum:
            self._pass_on(node)
        elif (asked.keeps_grid and not asked.is_affine) or _is_affine(node):
            self._rescale(node)

    def _is_lost(self, node: ir.Node) -> bool:
        """Whether it reads what has no integers, of which there is a fault."""
        read = (x for x in node.inputs if x is not None and x.producer() is not None)
        return bool(self.faults) and any(x.dtype is _REAL and x not in self.grids for x in read)

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
            if old.graph is None and new.name == f"{old.name}{INTEGER}":
                new.name = old.name
                new.producer().name = old.name  # type: ignore[union-attr]

    # -- one kind of node each -------------------------------------------------------------

    def _source(self, node: ir.Node) -> None:
        x, out = node.inputs[0], node.outputs[0]
        is_first = traits(node).emits is Numbers.SOURCE
        maker = node if is_first else x.producer() if x is not None else None
        self.twins[out] = out if is_first else _required(x)
        self.grids[out] = Grid.counts(255 if maker is None else attribute(maker, "top", 255))

    def _layer(self, layer: QuantisedLayer) -> None:
        linear = layer.linear
        payload = self.grids[linear.x].without(linear.drop).payload
        self._require_counts(linear)
        self.grids[linear.out] = grid = potential_grid(layer, payload)
        if linear.payload is None:
            self.twins[linear.out] = self._emit(layer, payload)
            return
        if grid.payload >= TOTAL_LIMIT:
            what = f"reads a potential, and its own may reach {grid.payload:,}, beyond 62 bits"
            self._fault(linear.node, what, "fewer weight bits, or a neuron between the layers")
        self.twins[linear.out] = self._emit(layer, DIGIT + 1, self._digits(linear, payload))

    def _digits(self, linear: Linear, payload: int) -> list[ir.Value]:
        """What a layer reads of a potential: digits that its slices multiply, the lowest first."""
        edit, base, read = Edit(linear.node, self.made_by), linear.out.name, self._coarse(linear)
        return [
            edit.own(
                "PayloadDigit", read, name=f"{base}/digit{place}",
                dtype=ir.DataType.INT64, shape=linear.x.shape, attributes={"place": place},
            )
            for place in range(digits_of(payload))
        ]  # fmt: skip

    def _coarse(self, linear: Linear) -> ir.Value:
        """The potential that a layer reads, without the bits that it does not; once for all."""
        x = linear.x
        if linear.drop and x not in self.coarse:
            self.coarse[x] = Edit(linear.node, self.made_by).own(
                "CoarsePotential", self.twins[x], name=f"{x.name}/coarse{POTENTIAL}",
                dtype=ir.DataType.INT64, shape=x.shape, attributes={"drop": linear.drop},
            )  # fmt: skip
        return self.coarse[x] if linear.drop else self.twins[x]

    def _require_counts(self, linear: Linear) -> None:
        """Weights were made for counts: a factor or shift on the way to them would be lost.

        Those for integers of a potential know its thresholds; a shift would be lost there, too.
        """
        grid, twin = self.grids[linear.x], self.twins[linear.x]
        if linear.payload is not None and twin.dtype is ir.DataType.INT64:
            if any(grid.shifts):
                self._fault(linear.node, "reads a shifted potential", "a layer right before it")
        elif any(t != 1 for t in grid.thresholds) or any(grid.shifts):
            what = f"reads '{linear.x.name}', which are no counts but multiples of them"
            raise SnnccError("a layer of no counts", [Fault(what, label(linear.node))])

    def _rescale(self, node: ir.Node) -> None:
        """The same integers on another grid, which a factor of zero does not leave."""
        x, out, found = _required(node.inputs[0]), node.outputs[0], read_affine(node)
        self.twins[out], self.grids[out] = self.twins[x], self.grids[x]
        if found is not None and not found[1].scale.all():
            channel = int(np.flatnonzero(found[1].scale == 0)[0])
            self._fault(node, f"channel {channel}: multiplied by zero", "leave the channel out")
            return
        self.grids[out] = self.grids[x].after(node)

    def _fire(self, node: ir.Node) -> None:
        """What counts its spikes, on the grid of its potential."""
        x, out = _required(node.inputs[0]), node.outputs[0]
        found = kind_of(node).counter(node, self.grids[x])
        if isinstance(found, Refusal):
            self._fault(node, found.what, found.todo)
            if found.instead is None:
                return
            found = found.instead
        edit = Edit(node, self.made_by)
        constants = [edit.const(f"{out.name}.{k}", a) for k, a in found.constants.items()]
        new = edit.own(
            traits(node).becomes, self.twins[x], *constants, name=f"{out.name}{INTEGER}",
            dtype=ir.DataType.UINT8, shape=out.shape, attributes=found.attributes,
        )  # fmt: skip
        _remember(new, found.rounding, node)
        self.twins[out], self.grids[out] = new, Grid.counts(found.D)

    def _product(self, node: ir.Node) -> None:
        """Products of counts, one the unit: nothing rounds."""
        out, trains = node.outputs[0], trains_of(node)
        payloads = [self.grids[train].payload for train in trains]
        most, reach = reach_of_product(node, payloads)
        counts = traits(node).makes_counts
        limit = MOST_COUNT if counts else EXACT_PRODUCTS - 1
        if most > SLICE_LIMIT or reach > limit:
            self._fault(node, f"its products may reach {reach:,}", "fewer levels D or positions")
        self.twins[out] = Edit(node, self.made_by).own(
            traits(node).becomes, *(self.twins[train] for train in trains),
            name=f"{out.name}{INTEGER if counts else POTENTIAL}",
            dtype=ir.DataType.UINT8 if counts else ir.DataType.INT64, shape=out.shape,
            attributes={k: a.value for k, a in node.attributes.items()},
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
            "Add", self.twins[left], self.twins[right], name=f"{out.name}{POTENTIAL}",
            dtype=ir.DataType.INT64, shape=out.shape,
        )  # fmt: skip

    def _join(self, node: ir.Node) -> None:
        """A sum of counts that count alike."""
        out, read = node.outputs[0], [_required(v) for v in node.inputs]
        self.grids[out] = Grid.counts(sum(self.grids[x].payload for x in read))
        self.twins[out] = Edit(node, self.made_by).own(
            traits(node).becomes, *(self.twins[x] for x in read), name=f"{out.name}{INTEGER}",
            dtype=ir.DataType.INT64, shape=out.shape,
        )  # fmt: skip

    def _mask(self, node: ir.Node) -> None:
        x, mask, out = *(_required(v) for v in node.inputs), node.outputs[0]
        if any(self.grids[x].shifts):
            self._fault(node, "masks a shifted potential", "a convolution right before the mask")
        self.twins[out] = Edit(node, self.made_by).own(
            traits(node).becomes, self.twins[x], self.twins[mask], name=f"{out.name}{POTENTIAL}",
            dtype=ir.DataType.INT64, shape=out.shape,
        )  # fmt: skip
        self.grids[out] = self.grids[x]

    def _pass_on(self, node: ir.Node) -> None:
        x, out = _required(node.inputs[0]), node.outputs[0]
        twin, edit = self.twins[x], Edit(node, self.made_by)
        attributes = {k: a.value for k, a in node.attributes.items()}
        if traits(node).sums and twin.dtype != ir.DataType.INT64:
            twin = edit.op(
                "Cast", twin, name=f"{out.name}/wide", dtype=ir.DataType.INT64, shape=x.shape,
                attributes={"to": ir.DataType.INT64.value},
            )  # fmt: skip
        if traits(node).takes_maximum and twin.dtype == ir.DataType.INT64:
            self._require_maximum(node, self.grids[x])
        padded = traits(node).sums and any(attribute(node, "pads", ()))
        if padded and any(self.grids[x].shifts):
            self._fault(node, "pools a shifted potential with padding", "pool without padding")
        suffix = POTENTIAL if is_potential(self.twins[x].name) else INTEGER
        args = (twin, *node.inputs[1:])
        self.twins[out] = edit.op(
            node.op_type, *args, name=f"{out.name}{suffix}",
            dtype=twin.dtype, shape=out.shape, domain=node.domain, attributes=attributes,
        )  # fmt: skip
        self.grids[out] = self.grids[x].after(node)

    def _require_maximum(self, node: ir.Node, grid: Grid) -> None:
        """The largest integer is the largest value, and the graph's arithmetic holds it."""
        if not traits(node).keeps_grid:
            self._fault(node, "max-pool of sums of spikes", "max-pool the spikes instead")
        elif any(t <= 0 for t in grid.thresholds):
            self._fault(node, "negative scale before a max-pool", "a positive one")
        elif grid.payload >= _DOUBLE_EXACT:
            self._fault(node, f"its potentials may reach {grid.payload:,}", "fewer weight bits")

    # -- nodes -----------------------------------------------------------------------------

    def _emit(
        self, layer: QuantisedLayer, payload: int, digits: Sequence[ir.Value] = ()
    ) -> ir.Value:
        """The layer's slices, with all digits of what it reads if that is a potential.

        Args:
            layer: In integers.
            payload: The largest that a slice meets.
            digits: Of what it reads, the lowest first; none: it reads counts.
        """
        linear, b = layer.linear, layer.bias
        edit, base, out = Edit(linear.node, self.made_by), linear.out.name, linear.out
        tail = (1,) * (linear.weight.ndim - 2)
        v = edit.const(f"{base}.bias.int", b if b.ndim == 3 else b.reshape(-1, *tail))
        chunks = [
            (p, shift, chunk)
            for whole, shift in layer.parts()
            for p, digit in enumerate(_used(slices(whole, layer.bits)))
            for chunk in self._chunks(linear, digit, payload)
        ]
        weights = [edit.const(f"{base}.slice{p}", chunk) for p, _, chunk in chunks]
        read = list(enumerate(digits or [self.twins[linear.x]]))
        pairs = [
            (place + p, shift, x, weight)
            for (p, shift, _), weight in zip(chunks, weights, strict=True)
            for place, x in read
            if place + p < PLACES
        ]
        for i, (p, shift, x, weight) in enumerate(pairs):
            acc = self._multiply(edit, linear, x, weight, f"{base}/acc{i}")
            name = f"{base}{POTENTIAL}" if i == len(pairs) - 1 else f"{base}/sum{i}"
            v = edit.own(
                "SliceSum", v, acc, name=name, dtype=ir.DataType.INT64, shape=out.shape,
                attributes={"slice": p, "shift": shift},
            )  # fmt: skip
        return v

    def _multiply(
        self, edit: Edit, linear: Linear, x: ir.Value, weight: ir.Value, name: str
    ) -> ir.Value:
        is_conv = linear.kind == "conv"
        geometry = {
            "strides": list(linear.strides),
            "pads": list(linear.pads),
            "dilations": list(linear.dilations),
            "group": linear.group,
        }
        return edit.own(
            traits(linear.node).becomes, x, weight, name=name,
            dtype=ir.DataType.INT32, shape=linear.out.shape,
            attributes=geometry if is_conv else {},
        )  # fmt: skip

    def _chunks(
        self, linear: Linear, digit: npt.NDArray[np.int8], payload: int
    ) -> list[npt.NDArray[np.int8]]:
        """The slice split over its inputs until float32 holds every partial sum exactly."""
        reach = payload * np.abs(digit.astype(np.int64)).reshape(len(digit), -1)
        if reach.max(initial=0) * 2 >= _FLOAT_EXACT:
            self._fault(
                linear.node,
                f"inputs up to {payload} are too large",
                "smaller windows in the pool before it",
            )
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
    model.metadata_props[SQUEEZED] = json.dumps(found)


def squeezed(model: ir.Model) -> list[dict[str, Any]]:
    """Those of a quantised graph, plain data.

    Of each its module, bits and bits left, by which module, and how far that takes potentials, in
    thresholds.
    """
    found: list[dict[str, Any]] = json.loads(model.metadata_props.get(SQUEEZED, "[]"))
    return found


def _used(digits: list[npt.NDArray[np.int8]]) -> list[npt.NDArray[np.int8]]:
    """Without the highest slices that are all zero; one stays."""
    last = max((p for p, digit in enumerate(digits) if digit.any()), default=0)
    return digits[: last + 1]


def _remember(fired: ir.Value, rounding: str, node: ir.Node) -> None:
    """What people want to know of a neuron and its levels do not tell."""
    made = fired.producer()
    if made is not None:
        made.metadata_props[ROUNDING] = rounding
        made.metadata_props[NORM] = node.metadata_props.get(NORM, "1")


def _is_affine(node: ir.Node) -> bool:
    """Whether a node multiplies or shifts each channel, and is no layer's bias map."""
    return read_linear(node.outputs[0]) is None and read_affine(node) is not None


def _required(value: ir.Value | None) -> ir.Value:
    if value is None:
        raise UnsupportedModelError("a required input is missing")
    return value
