"""quantise-input: the network's input becomes uint8; its scale and offset enter the first layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from snncc.errors import Fault, Option, UnsupportedModelError, UsageError, Words
from snncc.ir.exact import Exact
from snncc.ir.graphs import (
    Edit,
    attribute,
    constant,
    is_op,
    is_sequence,
    nodes,
    only_reader,
    replace_value,
    static_shape,
)
from snncc.ir.names import PIXELS, SOURCE
from snncc.ir.ops import having, traits
from snncc.passes.base import Law, Pass
from snncc.passes.integers.masked_input import quantise_masked_input
from snncc.passes.reading import (
    Affine,
    absorb_affine_before,
    identity_layer,
    linear_behind,
    write_linear,
)

__all__ = ["QuantiseInput"]

#: Pixels are a network's own integers where no pixel is further than this from one.
_SAME_PIXEL = 1e-3
#: Largest denominator of a scale or offset that is a fraction but for the rounding of float64.
_SIMPLE, _ROUNDED = 2**20, Fraction(1, 2**51)


@dataclass(frozen=True)
class QuantiseInput(Pass):
    """x = scale * q + offset per channel, with q in 0..255.

    With raw pixels (``real=False``) q itself is the input: with scale 1 / (255 std) and offset
    -mean / std nothing is lost. With a real input q comes from QuantizeInput, a lossy step.
    Zero padding is zero *after* normalisation, so a padded first layer gets a bias map. With a
    patch mask as second input, see ``snncc.passes.integers.masked_input``.

    Attributes:
        scale: Per input channel, or one for all; positive.
        offset: Likewise.
        real: Keep the float input and put QuantizeInput after it.
    """

    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    real: bool = False

    name: ClassVar[str] = "quantise-input"
    stage_in: ClassVar[str] = "integer"
    stage_out: ClassVar[str] = "integer"

    @property
    def law(self) -> Law:  # type: ignore[override]
        """Exact up to float32 rounding for raw pixels; measured for real inputs."""
        return Law.LOSSY if self.real else Law.FLOAT

    def run(self, model: ir.Model) -> int:
        """Put the uint8 source into the graph."""
        x = model.graph.inputs[0]
        size = static_shape(x)
        if size is None:
            raise UnsupportedModelError(
                f"input '{x.name}' has no static shape after the batch axis"
            )
        affine, own = self._affine(size[is_sequence(model) :]), only_reader(x)
        if own is not None and is_op(own, "PatchMask"):
            quantise_masked_input(model, own, affine, self.name)
            return 1
        if is_op(own, "QuantizeInput") and own is not None:
            if self.real:  # the contract is the network's own grid
                _neurons_get_layers(_counts_of(own), self.name)
                return 1
            affine = _drop_own(own, x, affine)
        _neurons_get_layers(x, self.name)
        layers = _first_layers(x, affine, size)
        q = self._source(model, x)
        for value, reader, moved, shape in layers:
            _absorb(value, reader, moved, shape, self.name)
        _rewire(x, q, model)
        return 1

    def _affine(self, size: tuple[int, ...]) -> Affine:
        for what, given in (("scale", self.scale), ("offset", self.offset)):
            if len(given) not in (1, size[0]):
                raise UsageError(f"{len(given)} values of {what} for {size[0]} input channels")
        if min(self.scale) <= 0 or not np.isfinite(self.scale).all():
            raise UsageError("the input scale must be positive and finite")
        if not np.isfinite(self.offset).all():
            raise UsageError("the input offset must be finite")
        scales, offsets = (Exact.of_fractions(map(_simple, v)) for v in (self.scale, self.offset))
        return Affine(scales.spread(size[0]), offsets.spread(size[0]))

    def _source(self, model: ir.Model, x: ir.Value) -> ir.Value:
        first = next(iter(model.graph))
        edit, name = Edit(first, self.name), f"{x.name}{PIXELS}"
        if not self.real:
            q = ir.Value(name=name, shape=x.shape, type=ir.TensorType(ir.DataType.UINT8))
            model.graph.inputs.append(q)
        else:
            lead = (1,) * (1 + is_sequence(model))
            tail = (1,) * (len(x.shape or ()) - len(lead) - 1)
            scale, offset = (
                edit.const(f"{x.name}.{what}", np.array(v, np.float32).reshape(*lead, -1, *tail))
                for what, v in (("scale", self.scale), ("offset", self.offset))
            )
            q = edit.own(
                "QuantizeInput", x, scale, offset,
                name=name, dtype=ir.DataType.UINT8, shape=x.shape,
                attributes={"zero_point": 0, "top": 255},
            )  # fmt: skip
        return edit.op(
            "Cast", q, name=f"{x.name}{SOURCE}", dtype=ir.DataType.FLOAT, shape=x.shape,
            attributes={"to": ir.DataType.FLOAT.value},
        )  # fmt: skip


def _drop_own(own: ir.Node, x: ir.Value, pixels: Affine) -> Affine:
    """Raw pixels for a network with an input grid of its own: its integers, if they are pixels.

    Returns:
        The map of x as its readers see it, none.
    """
    steps = np.asarray(constant(own.inputs[1]), dtype=np.float64).reshape(-1)
    zero_point, top = attribute(own, "zero_point"), attribute(own, "top")
    slope, start = pixels.scale / steps, pixels.shift / steps + zero_point
    if top != 255 or (np.abs(slope - 1) * 255 + np.abs(start) >= _SAME_PIXEL).any():
        told = (
            f"the network quantises its input itself, to {top + 1} steps of {steps[0]:.6g} around "
            f"{zero_point}; pixels of this "
        )
        these = (Option("input.mean"), " and ", Option("input.std"))
        leave = (" are not its integers: leave ", Option("input.mode", "u8"))
        raise UsageError(Words(told, *these, *leave, " out and give normalised float32"))
    replace_value(_counts_of(own), x, keep_name=False)
    return Affine(Exact(np.ones(1)), Exact(np.zeros(1)))


def _simple(number: float) -> Fraction:
    """The fraction that was rounded to float64: scales are 1 / (255 std), offsets -mean / std."""
    exact = Fraction(number)
    near = exact.limit_denominator(_SIMPLE)
    return near if abs(near - exact) <= abs(exact) * _ROUNDED else exact


def _counts_of(own: ir.Node) -> ir.Value:
    """The integers of a QuantizeInput as floats."""
    cast, _ = next(iter(own.outputs[0].uses()))
    return cast.outputs[0]


_Reader = tuple[ir.Value, ir.Node, Affine, tuple[int, ...]]


def _neurons_get_layers(value: ir.Value, made_by: str) -> None:
    """A neuron or result that reads the input directly gets an identity layer of its own."""
    size = static_shape(value) or (1,)
    for node, index in list(value.uses()):
        if traits(node).keeps_counts:
            _neurons_get_layers(node.outputs[0], made_by)
        elif traits(node).fires:
            node.replace_input_with(index, identity_layer(node, value, size, made_by))


def _first_layers(value: ir.Value, affine: Affine, size: tuple[int, ...]) -> list[_Reader]:
    """Linear layers that the input reaches through pools and reshapes, with the map there."""
    found: list[_Reader] = []
    faults: list[Fault] = []
    for node, _ in value.uses():
        out = node.outputs[0]
        if traits(node).weighs:
            found.append((value, node, affine, size))
        elif (
            traits(node).averages
            and any(node.attributes["pads"].value)
            and (affine.shift != 0).any()
        ):  # its zeros are no pixels; those of a max-pool never win
            faults.append(
                Fault("padded average of the input", str(node.name), node.op_type, todo="pad less")
            )
        elif traits(node).keeps_counts:
            after = static_shape(out) or size
            moved = _through_reshape(affine, size, after) if traits(node).regroups else affine
            found += _first_layers(out, moved, after)
        else:
            faults.append(Fault("reads the input directly", str(node.name), node.op_type))
    if faults:
        raise UnsupportedModelError("the input cannot become uint8", faults)
    return found


def _through_reshape(affine: Affine, before: tuple[int, ...], after: tuple[int, ...]) -> Affine:
    """The map per channel of the new shape; flattening spreads it over the features."""
    if before[:1] == after[:1] and len(after) > 1:
        return affine
    tail = (1,) * (len(before) - 1)
    channels = np.broadcast_to(np.arange(before[0]).reshape(-1, *tail), before).reshape(-1)
    both = [v.spread(before[0]) for v in (affine.scales, affine.shifts)]
    if len(after) == 1:
        return Affine(*(v.rows(channels) for v in both))
    if all(np.ptp(v.real) == 0 for v in both):
        return Affine(*(v.rows(channels[:1]) for v in both))
    raise UnsupportedModelError("the input is regrouped over channels of different scale")


def _absorb(
    value: ir.Value, reader: ir.Node, affine: Affine, size: tuple[int, ...], made_by: str
) -> None:
    linear = linear_behind(reader)
    if linear is None:
        raise UnsupportedModelError(f"'{reader.name}' is not a layer with constant weights")
    write_linear(absorb_affine_before(replace(linear, x=value), affine, size), made_by)


def _rewire(x: ir.Value, q: ir.Value, model: ir.Model) -> None:
    """All former readers of x read the integers; values on the way get new names."""
    for node, index in list(x.uses()):
        if node.op_type != "QuantizeInput":
            node.replace_input_with(index, q)
    for node in nodes(model, *having("integer", lambda t: t.keeps_counts)):
        if _from_source(node.inputs[0], q):
            node.outputs[0].name = f"{node.outputs[0].name}{SOURCE}"
            node.name = node.outputs[0].name
    if not x.uses() and x.is_graph_input():
        model.graph.inputs.remove(x)


def _from_source(value: ir.Value | None, q: ir.Value) -> bool:
    while value is not None and value is not q:
        node = value.producer()
        if node is None or not traits(node).keeps_counts:
            return False
        value = node.inputs[0]
    return value is q
