"""Factors of q, k and v before attention go after it, where they end in levels of a neuron.

Channels of v are those of the result, so that each may have a factor of its own. A product of q and
k sums over the channels of a head: theirs must be one factor for each head.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.exact import Exact
from snncc.ir.graphs import Edit, attribute, nodes, replace_value, static_shape
from snncc.ir.metadata import APART
from snncc.ir.names import NEW
from snncc.passes.reading import read_affine

__all__ = ["pull_out"]

#: Fractions, by channel.
Array = npt.NDArray[np.object_]


def pull_out(model: ir.Model, made_by: str) -> int:
    """How many attentions read counts now instead of multiples of them."""
    return sum(_pull_out(node, made_by) for node in nodes(model, "Attention"))


def _pull_out(node: ir.Node, made_by: str) -> bool:
    out, heads = node.outputs[0], attribute(node, "heads")
    channels = (static_shape(out) or (1,))[0]
    after, inputs, apart = np.full(channels, Fraction(1)), [], []
    for letter, value in zip("qkv", node.inputs, strict=True):
        while value is not None and (found := _factors(value)) is not None:
            factors = found[1] if letter == "v" else _by_head(found[1], heads, channels)
            if factors is None:
                apart.append(letter)
                break
            value, after = found[0], after * factors
        inputs.append(value)
    if apart:
        node.metadata_props[APART] = " and ".join(apart)
    if inputs == [*node.inputs] or apart:
        return False
    edit = Edit(node, made_by)
    attributes = {key: a.value for key, a in node.attributes.items()}
    products = edit.own(
        "Attention", *inputs, name=f"{out.name}/products", like=out, attributes=attributes
    )
    by_channel = Exact.of_fractions(after).moved(lambda v: v.reshape(-1, 1, 1))
    factor = edit.const(f"{out.name}.factors", by_channel)
    replace_value(out, edit.op("Mul", products, factor, name=f"{out.name}{NEW}", like=out))
    return True


def _factors(value: ir.Value) -> tuple[ir.Value, Array] | None:
    """What a value is a multiple of, and the factor of each channel."""
    node = value.producer()
    found = read_affine(node) if node is not None else None
    if found is None or found[1].shift.any():
        return None
    factors = found[1].scales.spread((static_shape(value) or (1,))[0]).fractions()
    return found[0], np.array(factors, dtype=object)


def _by_head(factors: Array, heads: int, channels: int) -> Array | None:
    """One factor for each head as factors of the result's channels; None if they differ in one."""
    rows = factors.reshape(heads, -1)
    return np.repeat(rows[:, 0], channels // heads) if (rows == rows[:, :1]).all() else None
