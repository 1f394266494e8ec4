"""quantise-weights: linear layers get int8 weight slices, neurons get integer levels.

A layer that drives neurons uses, per output channel c, the potential of one spike
theta_c = the largest odd integer <= w_max / max|W_c|: weights are W * theta_c rounded, the
threshold is exact, and because theta_c is odd no rounding ties exist. The result layer has one
scale for all classes. Only weights and biases round; what follows is integer arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, prod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.errors import Fault, UnsupportedModelError, UsageError
from snncc.ir.graphs import (
    Edit,
    attribute,
    constant,
    label,
    nodes,
    provenance,
    remove_dead,
    static_shape,
)
from snncc.passes.base import Pass
from snncc.passes.fold_scale import OUTPUT_SCALE
from snncc.passes.levels import levels, rational
from snncc.passes.linear import Linear, read_linear

__all__ = ["QuantiseWeights", "largest_weight", "slices"]

#: ONNX Runtime convolves in float32: exact below this, proved per layer and slice.
_FLOAT_EXACT = 2**24


def largest_weight(bits: int) -> int:
    """w_max for ``bits``: as many int8 slices as needed, all digits within int8."""
    count = ceil(bits / 8)
    return int(min(2 ** (bits - 1) - 1, 127 * (256**count - 1) // 255))


def slices(weights: npt.NDArray[np.int64], bits: int) -> list[npt.NDArray[np.int8]]:
    """int8 digits, least significant first: weights == sum_p digit_p * 256**p."""
    rest, found = weights.copy(), []
    for _ in range(ceil(bits / 8)):
        digit = (rest + 128) % 256 - 128
        found.append(digit.astype(np.int8))
        rest = (rest - digit) // 256
    return found


@dataclass(frozen=True)
class _Grid:
    """What an integer means: real value = v / threshold + shift, per channel (axis 1)."""

    thresholds: tuple[Fraction, ...]
    shifts: tuple[Fraction, ...]
    payload: int


@dataclass(frozen=True)
class QuantiseWeights(Pass):
    """Weights in ``bits`` bits as int8 slices.

    Attributes:
        bits: 4 to 24; one slice up to 8, two up to 16, three up to 24.
    """

    bits: int = 16

    name: ClassVar[str] = "quantise-weights"
    stage_in: ClassVar[str] = "integer"
    stage_out: ClassVar[str] = "quantised"
    law: ClassVar[str] = "lossy"

    def run(self, model: ir.Model) -> int:
        """Replace layers, pools and neurons by their integer forms."""
        if not 4 <= self.bits <= 24:
            raise UsageError(f"--weight-bits {self.bits}: 4 to 24 are possible")
        work = _Work(model, self.bits, self.name)
        for node in nodes(model):
            work.convert(node)
        if work.faults:
            raise UnsupportedModelError("the weights do not fit their bits", work.faults)
        work.finish()
        return work.layers


@dataclass
class _Work:
    """The conversion under way: integer twin and grid of every value."""

    model: ir.Model
    bits: int
    made_by: str
    twins: dict[ir.Value, ir.Value] = field(default_factory=dict)
    grids: dict[ir.Value, _Grid] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    layers: int = 0

    def convert(self, node: ir.Node) -> None:
        """Give the node's result its integer twin."""
        out = node.outputs[0]
        if out in self.twins:
            return
        linear = read_linear(_behind_border(node))
        if node.op_type == "QuantizeInput" or (node.op_type == "Cast" and node.domain == ""):
            self._source(node)
        elif linear is not None and node.op_type in ("Conv", "Gemm"):
            self._layer(linear)
        elif node.op_type == "IntegerFire":
            self._fire(node)
        elif node.op_type in ("MaxPool", "Reshape", "SumPool"):
            self._pass_on(node)

    def finish(self) -> None:
        """Make the twins the graph's results and drop the float nodes."""
        out = self.model.graph.outputs[0]
        grid = self.grids[out]
        scale = float(self.model.metadata_props.get(OUTPUT_SCALE, "1.0"))
        self.model.metadata_props[OUTPUT_SCALE] = repr(scale / float(grid.thresholds[0]))
        self.model.graph.outputs[0] = self.twins[out]
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
        self.grids[out] = _counting(255)

    def _layer(self, linear: Linear) -> None:
        self.layers += 1
        payload = self.grids[linear.x].payload
        if _drives_only_neurons(linear.out):
            grid, w, b = self._single_tap(linear) or self._per_channel(linear)
        else:
            grid, w, b = self._one_scale(linear)
        reach = payload * int(np.abs(w).reshape(len(w), -1).sum(1).max(initial=0))
        bound = reach + int(np.abs(b).max(initial=0))
        self.grids[linear.out] = _Grid(grid.thresholds, grid.shifts, bound)
        self._emit(linear, w, b, payload)

    def _fire(self, node: ir.Node) -> None:
        x, out = _required(node.inputs[0]), node.outputs[0]
        grid = self.grids[x]
        D, rounding = attribute(node, "D"), attribute(node, "rounding")
        table = levels(grid.thresholds, D, rounding, grid.shifts)
        if (table == table[:1]).all():
            table = table[:1]
        edit = Edit(node, self.made_by)
        new = edit.own(
            "FireCount", self.twins[x], edit.const(f"{out.name}.levels", table),
            name=f"{out.name}~int", dtype=ir.DataType.UINT8, shape=out.shape,
        )  # fmt: skip
        new.producer().metadata_props["snncc.rounding"] = rounding  # type: ignore[union-attr]
        self.twins[out], self.grids[out] = new, _counting(D)

    def _pass_on(self, node: ir.Node) -> None:
        x, out = _required(node.inputs[0]), node.outputs[0]
        twin, edit = self.twins[x], Edit(node, self.made_by)
        attributes = {k: a.value for k, a in node.attributes.items()}
        if node.op_type == "SumPool" and twin.dtype != ir.DataType.INT64:
            twin = edit.op(
                "Cast", twin, name=f"{out.name}/wide", dtype=ir.DataType.INT64, shape=x.shape,
                attributes={"to": ir.DataType.INT64.value},
            )  # fmt: skip
        if node.op_type == "MaxPool" and twin.dtype == ir.DataType.INT64:
            self._fault(node, "max-pool of sums or potentials", "max-pool the spikes instead")
        potential = (self.twins[x].name or "").endswith(":v")
        args = (twin, *node.inputs[1:])
        self.twins[out] = edit.op(
            node.op_type, *args, name=f"{out.name}:v" if potential else f"{out.name}~int",
            dtype=twin.dtype, shape=out.shape, domain=node.domain, attributes=attributes,
        )  # fmt: skip
        self.grids[out] = _moved(self.grids[x], node, static_shape(x), static_shape(out))

    # -- grids -----------------------------------------------------------------------------

    def _single_tap(
        self, linear: Linear
    ) -> tuple[_Grid, npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
        """One positive weight per output: it is the threshold itself, nothing rounds."""
        rows = linear.weight.reshape(linear.weight.shape[0], -1)
        taps = rows.max(axis=1)
        if (np.count_nonzero(rows, axis=1) != 1).any() or (taps <= 0).any() or linear.bias.ndim > 1:
            return None
        grid = _Grid(
            tuple(1 / rational(t) for t in taps), tuple(rational(b) for b in linear.bias), 0
        )
        ones = (linear.weight != 0).astype(np.int64)
        return grid, ones, np.zeros(len(rows), dtype=np.int64)

    def _per_channel(
        self, linear: Linear
    ) -> tuple[_Grid, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        most = np.abs(linear.weight.reshape(linear.weight.shape[0], -1)).max(axis=1)
        cap = 2 ** (12 + self.bits) - 1
        with np.errstate(divide="ignore"):
            theta = np.minimum(largest_weight(self.bits) / most, cap)
        theta = np.floor(theta).astype(np.int64)
        theta -= (theta + 1) % 2
        for channel in np.flatnonzero(theta < 1):
            self._fault(
                linear.node,
                f"channel {channel}: weights up to {most[channel]:.4g} thresholds do not fit "
                f"{self.bits} bits",
                "more --weight-bits, or a larger threshold",
            )
        theta = np.maximum(theta, 1)
        w, b = _rounded(linear, theta.astype(np.float64))
        thresholds = tuple(Fraction(int(t)) for t in theta)
        return _Grid(thresholds, (Fraction(0),) * len(theta), 0), w, b

    def _one_scale(
        self, linear: Linear
    ) -> tuple[_Grid, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        most = float(np.abs(linear.weight).max(initial=0.0)) or 1.0
        theta = largest_weight(self.bits) / most
        channels = linear.weight.shape[0]
        w, b = _rounded(linear, np.full(channels, theta))
        return _Grid((Fraction(theta),) * channels, (Fraction(0),) * channels, 0), w, b

    # -- nodes -----------------------------------------------------------------------------

    def _emit(
        self, linear: Linear, w: npt.NDArray[np.int64], b: npt.NDArray[np.int64], payload: int
    ) -> None:
        edit, base, out = Edit(linear.node, self.made_by), linear.out.name, linear.out
        tail = (1,) * (linear.weight.ndim - 2)
        v = edit.const(f"{base}.bias.int", b if b.ndim == 3 else b.reshape(-1, *tail))
        parts = [
            (p, chunk)
            for p, digit in enumerate(slices(w, self.bits))
            for chunk in self._chunks(linear, digit, payload)
        ]
        for i, (p, chunk) in enumerate(parts):
            weight = edit.const(f"{base}.slice{p}", chunk)
            acc = self._product(edit, linear, weight, f"{base}/acc{i}")
            name = f"{base}:v" if i == len(parts) - 1 else f"{base}/sum{i}"
            v = edit.own(
                "SliceSum", v, acc, name=name, dtype=ir.DataType.INT64, shape=out.shape,
                attributes={"slice": p},
            )  # fmt: skip
        self.twins[out] = v

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
        if reach.sum(axis=1).max(initial=0) < _FLOAT_EXACT:
            return [digit]
        part = (np.cumsum(reach, axis=1) // (_FLOAT_EXACT // 2)).reshape(digit.shape)
        return [np.where(part == i, digit, 0).astype(np.int8) for i in range(int(part.max()) + 1)]

    def _fault(self, node: ir.Node, what: str, todo: str) -> None:
        origin = provenance(node)
        self.faults.append(
            Fault(what, label(node), node.op_type, origin.module, origin.source, todo)
        )


def _rounded(
    linear: Linear, theta: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    w = np.rint(linear.weight * theta.reshape(-1, *(1,) * (linear.weight.ndim - 1)))
    b = np.rint(linear.bias * theta.reshape(-1, *(1,) * (linear.bias.ndim - 1)))
    return w.astype(np.int64), b.astype(np.int64)


def _counting(payload: int) -> _Grid:
    return _Grid((Fraction(1),), (Fraction(0),), payload)


def _moved(
    grid: _Grid, node: ir.Node, before: tuple[int, ...] | None, after: tuple[int, ...] | None
) -> _Grid:
    """The grid behind a pool or reshape."""
    if node.op_type == "SumPool":
        n = prod(attribute(node, "kernel_shape"))
        return _Grid(grid.thresholds, tuple(s * n for s in grid.shifts), grid.payload * n)
    if node.op_type == "MaxPool" or before is None or after is None or len(grid.thresholds) == 1:
        return grid
    if before[0] == after[0]:
        return grid
    spread = prod(before[1:])
    return _Grid(_repeat(grid.thresholds, spread), _repeat(grid.shifts, spread), grid.payload)


def _repeat(values: tuple[Fraction, ...], times: int) -> tuple[Fraction, ...]:
    return tuple(v for v in values for _ in range(times))


def _drives_only_neurons(value: ir.Value) -> bool:
    if value.is_graph_output() or not value.uses():
        return False
    readers: list[Any] = [user for user, _ in value.uses()]
    return all(
        r.op_type == "IntegerFire"
        or (r.op_type in ("SumPool", "Reshape") and _drives_only_neurons(r.outputs[0]))
        for r in readers
    )


def _behind_border(node: ir.Node) -> ir.Value:
    out = node.outputs[0]
    for user, _ in out.uses():
        if user.op_type == "Add" and (found := read_linear(user.outputs[0])) is not None:
            return found.out
    return out


def _required(value: ir.Value | None) -> ir.Value:
    if value is None:
        raise UnsupportedModelError("a required input is missing")
    return value


def constants(model: ir.Model) -> dict[str, npt.NDArray[Any]]:
    """All initializers as arrays."""
    found = ((name, constant(value)) for name, value in model.graph.initializers.items())
    return {name: array for name, array in found if array is not None}
