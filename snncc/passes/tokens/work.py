"""What the rules for tokens work with: views, and new nodes on maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.exact import Exact
from snncc.ir.graphs import Edit, constant, static_shape
from snncc.ir.lineage import Lineage
from snncc.ir.metadata import MAP_OF
from snncc.ir.names import MAP, SCALED
from snncc.passes.tokens.channel_parts import Parts
from snncc.passes.tokens.products import Product, Tokens
from snncc.passes.tokens.views import of_map, regrouped

__all__ = [
    "Rule",
    "View",
    "Views",
    "Work",
    "attributes_of",
    "axes_of",
    "first_of",
    "sizes_of",
]

Array = npt.NDArray[Any]
View = Tokens | Product
Views = Sequence[View | None] | None


@dataclass
class Work:
    """Nodes on maps, before those on tokens."""

    parts: Parts
    made_by: str

    @property
    def lineage(self) -> Lineage:
        """Of the graph; it grows with every map."""
        return self.parts.lineage

    def note(self, view: Tokens, out: ir.Value) -> None:
        """Say how the map of a view that ``out`` is comes from it, where it was made for that."""
        maker = view.twin.producer()
        if maker is None or maker.metadata_props.get(MAP_OF) != out.name or view.scale != 1.0:
            return
        groups = [[(d.axis, d.size, d.stride) for d in group] for group in view.groups]
        name, sizes = str(view.twin.name), list(sizes_of(view))
        self.lineage.note(name, "map", str(out.name), groups=groups, sizes=sizes)

    def map(
        self, node: ir.Node, op_type: str, *inputs: ir.Value | None, shape: Sequence[int],
        domain: str = "", attributes: dict[str, Any] | None = None, name: str = "",
    ) -> ir.Value:  # fmt: skip
        """A new map (C, H, W), or a new vector, before ``node`` and named after its result."""
        out, x = node.outputs[0], next((v for v in inputs if constant(v) is None), None)
        samples = x.shape[0] if x is not None and x.shape is not None else None
        made = Edit(node, self.made_by).op(
            op_type, *inputs, name=name or f"{out.name}{MAP}", dtype=ir.DataType.FLOAT,
            shape=[samples, *shape], domain=domain, attributes=attributes or {},
        )  # fmt: skip
        if (maker := made.producer()) is not None:
            maker.metadata_props[MAP_OF] = str(out.name)
        return made

    def const(self, node: ir.Node, what: str, array: Array | Exact) -> ir.Value:
        """A new constant, float32 unless it is of integers."""
        if not isinstance(array, Exact) and array.dtype.kind not in "iu":
            array = array.astype(np.float32)
        return Edit(node, self.made_by).const(f"{node.outputs[0].name}.{what}", array)

    def scaled(self, view: Tokens, node: ir.Node) -> ir.Value:
        """The map times the view's scale."""
        if view.scale == 1:
            return view.twin
        factor = self.const(node, "scale", Exact.number(view.scale))
        name = f"{node.outputs[0].name}{SCALED}"
        return self.map(node, "Mul", view.twin, factor, shape=sizes_of(view), name=name)

    def flattened(self, view: Tokens, node: ir.Node, out: ir.Value) -> ir.Value | None:
        """The map as one axis of features, in its own order; None if the view has another."""
        sizes = sizes_of(view)
        whole = regrouped(of_map(sizes), (None, prod(sizes)))
        if view.groups != whole:
            return None
        target = self.const(node, "flat", np.array([-1, prod(sizes)]))
        return self.map(node, "Reshape", self.scaled(view, node), target, shape=[prod(sizes)])


def sizes_of(view: Tokens) -> tuple[int, ...]:
    """(C, H, W) of the map."""
    return static_shape(view.twin) or ()


def attributes_of(node: ir.Node) -> dict[str, Any]:
    """All attributes as plain values."""
    return {name: a.value for name, a in node.attributes.items()}


def axes_of(value: ir.Value) -> list[int | None]:
    """Sizes of a value's axes, None for the one of samples."""
    return [d if isinstance(d, int) else None for d in value.shape or ()]


def first_of(seen: Sequence[View | None]) -> View | None:
    """What is known of a node's first input."""
    return seen[0] if seen else None


#: What a node does, given what is known of its inputs; None: it cannot be followed.
Rule = Callable[[Work, ir.Node, Sequence[View | None]], Views]
