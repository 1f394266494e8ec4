"""Some channels of a map: what makes it, made for these channels alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.exact import Exact
from snncc.ir.graphs import Edit, constant, provenance, set_provenance, static_shape
from snncc.ir.lineage import Lineage
from snncc.ir.ops import having

__all__ = ["Parts"]

Array = npt.NDArray[Any]


@dataclass
class Parts:
    """Makes parts of maps, each once.

    A split of channels, as of one layer for q, k and v, has no spiking form; layers and neurons of
    fewer channels do, and they compute the same.
    """

    made_by: str
    lineage: Lineage
    made: dict[tuple[ir.Value, bytes], ir.Value | None] = field(default_factory=dict)

    def of(self, value: ir.Value, channels: Array, anchor: ir.Node) -> ir.Value | None:
        """The channels of ``value`` [N, C, H, W], before ``anchor``; None: it has no parts."""
        key = (value, channels.tobytes())
        if key not in self.made:
            node = value.producer()
            rule = _RULES.get(node.op_type) if node is not None else None
            new = None if node is None or rule is None else rule(self, node, channels, anchor)
            self.made[key] = new
        return self.made[key]

    def emit(
        self, node: ir.Node, inputs: list[ir.Value | None], channels: Array, anchor: ir.Node
    ) -> ir.Value:
        """The node again, for these channels."""
        out = node.outputs[0]
        shape = [out.shape[0] if out.shape else None, len(channels), *(static_shape(out) or ())[1:]]
        name = f"{out.name}/{channels[0]}..{channels[-1]}"
        self.lineage.note(name, "channels", str(out.name), kept=channels.tolist())
        made = Edit(anchor, self.made_by).op(
            node.op_type, *inputs, name=name,
            dtype=out.dtype, shape=shape, domain=node.domain,
            attributes={k: a.value for k, a in node.attributes.items()},
        )  # fmt: skip
        if (part := made.producer()) is not None:
            set_provenance(part, provenance(node), self.made_by)
        return made

    def constant(
        self, value: ir.Value | None, array: Array | Exact, anchor: ir.Node
    ) -> ir.Value | None:
        """A constant in place of ``value``."""
        if value is None:
            return None
        return Edit(anchor, self.made_by).const(f"{value.name}.part", array)


def _conv(parts: Parts, node: ir.Node, channels: Array, anchor: ir.Node) -> ir.Value | None:
    group = node.attributes["group"].as_int() if "group" in node.attributes else 1
    if group != 1:
        return None
    inputs = list(node.inputs[:1])
    for value in node.inputs[1:]:
        numbers = Exact.of(value)
        if value is not None and numbers is None:
            return None
        part = None if numbers is None else parts.constant(value, numbers.rows(channels), anchor)
        inputs.append(part)
    return parts.emit(node, inputs, channels, anchor)


def _batch_norm(parts: Parts, node: ir.Node, channels: Array, anchor: ir.Node) -> ir.Value | None:
    x = node.inputs[0]
    part = parts.of(x, channels, anchor) if x is not None else None
    arrays = [constant(v) for v in node.inputs[1:]]
    if part is None or any(a is None for a in arrays):
        return None
    inputs = [part]
    for value, array in zip(node.inputs[1:], arrays, strict=True):
        made = parts.constant(value, array[channels], anchor) if array is not None else None
        inputs += [made] if made is not None else []
    return parts.emit(node, [*inputs], channels, anchor)


def _same(parts: Parts, node: ir.Node, channels: Array, anchor: ir.Node) -> ir.Value | None:
    """Neurons, pools, and sums or products with other maps or with constants."""
    inputs: list[ir.Value | None] = []
    for value in node.inputs:
        array = constant(value)
        if value is None:
            inputs.append(None)
        elif array is None:
            part = parts.of(value, channels, anchor)
            if part is None:
                return None
            inputs.append(part)
        else:
            rank = len(node.outputs[0].shape or ())
            whole: Array = array.reshape((1,) * (rank - array.ndim) + array.shape)
            one_for_all = whole.size == 1 or whole.shape[1] == 1
            apart = whole if one_for_all else np.take(whole, channels, axis=1)
            inputs.append(parts.constant(value, apart, anchor))
    return parts.emit(node, inputs, channels, anchor)


_Rule = Callable[[Parts, ir.Node, Array, ir.Node], "ir.Value | None"]
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(having("imported", lambda t: t.fires or t.pools or t.is_affine), _same),
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
}
