"""recognise-gate: a product of two spike trains is a gate, that of a train and 1 - another, too.

Networks write gates as products of tensors: k * v, or x * (1 - out). What they multiply must be
spikes as neurons fire them, perhaps after a max-pool or another gate, without a factor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from snncc.ir.exact import Exact
from snncc.ir.gate_ops import AND, AND_NOT
from snncc.ir.graphs import Edit, attribute, constant, is_op, nodes, replace_value, static_shape
from snncc.ir.names import NEW
from snncc.ir.ops import NEURONS, traits
from snncc.passes.base import Pass
from snncc.passes.reading import is_train

__all__ = ["RecogniseGate"]


@dataclass(frozen=True)
class RecogniseGate(Pass):
    """Mul of two trains, of one shape or one of them a number for each channel."""

    name: ClassVar[str] = "recognise-gate"
    stage_in: ClassVar[str] = "imported"
    stage_out: ClassVar[str] = "imported"

    def run(self, model: ir.Model) -> int:
        """How many gates were found."""
        return sum(_recognise(node, self.name) for node in nodes(model, "Mul"))


def _recognise(node: ir.Node, made_by: str) -> bool:
    one, two = node.inputs
    if one is None or two is None or constant(one) is not None or constant(two) is not None:
        return False
    for a, b in ((one, two), (two, one)):
        kind, train = (AND, b) if is_train(b) else (AND_NOT, _silent(b))
        if train is not None and is_train(a) and _fit(a, train):
            _write(node, a, train, kind, made_by)
            return True
    return False


def _fit(a: ir.Value, b: ir.Value) -> bool:
    """Whether their shapes are equal, or one has a number for each channel."""
    sizes = [static_shape(a), static_shape(b)]
    if sizes[0] is None or sizes[1] is None or len(sizes[0]) != len(sizes[1]):
        return False
    single = [(size[0], *(1 for _ in size[1:])) for size in sizes if size is not None]
    return sizes[0] == sizes[1] or sizes[0] == single[1] or sizes[1] == single[0]


def _silent(value: ir.Value) -> ir.Value | None:
    """Of ``D - x``, where x fires up to D spikes that count one each: x."""
    node = value.producer()
    if node is None or not is_op(node, "Sub"):
        return None
    top, x = Exact.of(node.inputs[0]), node.inputs[1]
    if top is None or top.values.size != 1 or not is_train(x):
        return None
    return x if top.fractions()[0] == _most(x) else None


def _most(value: ir.Value | None) -> int | None:
    """The most spikes of a neuron's train, if each of them counts one; None: of anything else."""
    node = value.producer() if value is not None else None
    while node is not None and traits(node).takes_maximum:
        x = node.inputs[0]
        node = x.producer() if x is not None else None
    if node is None or not is_op(node, *NEURONS):
        return None
    return int(attribute(node, "D")) if attribute(node, "norm") == 1 else None


def _write(node: ir.Node, a: ir.Value, b: ir.Value, kind: str, made_by: str) -> None:
    out, most = node.outputs[0], (_most(b) or 0) if kind == AND_NOT else 0
    made = Edit(node, made_by).own(
        "Gate", a, b, name=f"{out.name}{NEW}", like=out, attributes={"kind": kind, "most": most}
    )
    replace_value(out, made)
