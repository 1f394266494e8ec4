"""Kinds of products of spike trains: how far they reach, and what they cost.

A kind is an operator that multiplies (``snncc.ir.traits``), with a form on counts and one tick by
tick, and its rules here. To add one, add an entry to ``PRODUCTS``, and what it is in a Program to
``snncc.passes.spikes.build_program``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from snncc.ir.graphs import attribute, static_shape
from snncc.ir.metadata import APART
from snncc.ir.ops import having, summed, traits
from snncc.ir.traits import Numbers
from snncc.passes.reading import Linear
from snncc.program.attention import reach_of
from snncc.program.nodes.gate import MOST_COUNT

__all__ = [
    "PRODUCTS",
    "Product",
    "fault_of_product",
    "largest_count",
    "largest_input",
    "reach_of_product",
    "trains_of",
]

#: Largest pixel.
_PIXEL = 255


@dataclass(frozen=True)
class Product:
    """The rules of one kind.

    Attributes:
        reach: Of a node and the largest counts of its trains: the largest number that is formed on
            the way, and the largest of its result.
        macs: Of a node: multiply-accumulates per sample; 0 where shapes are not known.
        fault: Of a node: why its trains do not multiply so and what to do, or None.
    """

    reach: Callable[[ir.Node, Sequence[int]], tuple[int, int]]
    macs: Callable[[ir.Node], int]
    fault: Callable[[ir.Node], tuple[str, str] | None]


def trains_of(node: ir.Node) -> list[ir.Value]:
    """What a product multiplies."""
    return [value for value in node.inputs if value is not None]


def reach_of_product(node: ir.Node, payloads: Sequence[int]) -> tuple[int, int]:
    """Largest numbers on the way and at the end, for the largest counts of its trains."""
    return PRODUCTS[node.op_type].reach(node, payloads)


def fault_of_product(node: ir.Node) -> tuple[str, str] | None:
    """Why trains do not multiply as the node says and what to do, or None."""
    return PRODUCTS[node.op_type].fault(node)


def largest_count(value: ir.Value) -> int:
    """The most that a value of counts or pixels holds; of an average, what it averages."""
    return _largest(value, {})


def largest_input(linear: Linear) -> int:
    """The most that a layer reads: counts, pixels, or integers of a potential."""
    return largest_count(linear.x) if linear.payload is None else linear.payload


def _largest(value: ir.Value, known: dict[ir.Value, int]) -> int:
    if value not in known:
        known[value] = _largest_of(value, known)
    return known[value]


def _largest_of(value: ir.Value, known: dict[ir.Value, int]) -> int:
    node = value.producer()
    if node is None:
        return _PIXEL
    asked = traits(node)
    if asked.fires:
        return int(attribute(node, "D"))
    if asked.emits is Numbers.SOURCE:
        return int(attribute(node, "top", _PIXEL))
    if asked.multiplies:
        return reach_of_product(node, [_largest(train, known) for train in trains_of(node)])[1]
    read = node.inputs if asked.joins else node.inputs[:1]
    return summed(node) * sum(_largest(x, known) for x in read if x is not None)


def _attention_reach(node: ir.Node, payloads: Sequence[int]) -> tuple[int, int]:
    q, k, _ = (static_shape(train) or () for train in trains_of(node))
    of_q, of_k, of_v = payloads
    order, heads = attribute(node, "order"), attribute(node, "heads")
    return reach_of(order, q, k, heads, (of_q, of_k, of_v))


def _attention_macs(node: ir.Node) -> int:
    """(q k^T) v, or q (k^T v), of all heads."""
    q, k, v = (static_shape(x) if x is not None else None for x in node.inputs)
    if not q or not k or not v:
        return 0
    heads, n, m = attribute(node, "heads"), prod(q[1:]), prod(k[1:])
    d, e = q[0] // heads, v[0] // heads
    each = (n + m) * d * e if attribute(node, "order") == "kv" else n * m * (d + e)
    return int(heads * each)


def _attention_fault(node: ir.Node) -> tuple[str, str] | None:
    """Factors that recognise-attention could not move after it."""
    apart = node.metadata_props.get(APART)
    if not apart:
        return None
    what = f"{apart} of attention: factors differ within a head"
    return what, "one factor for all channels of a head; those of v may differ"


def _gate_reach(node: ir.Node, payloads: Sequence[int]) -> tuple[int, int]:
    return prod(payloads), prod(payloads)


def _gate_fault(node: ir.Node) -> tuple[str, str] | None:
    reach = largest_count(node.outputs[0])
    if reach <= MOST_COUNT:
        return None
    return (
        f"multiplies bursts to up to {reach} spikes",
        f"neurons whose D multiply to {MOST_COUNT} at most",
    )


#: By operator. A gate multiplies no weights.
PRODUCTS: Mapping[str, Product] = {
    "Attention": Product(_attention_reach, _attention_macs, _attention_fault),
    "Gate": Product(_gate_reach, lambda _: 0, _gate_fault),
}
if missing := {*having("imported", lambda t: t.multiplies)} ^ {*PRODUCTS}:
    raise ValueError(f"products without operator, or operators without rules: {sorted(missing)}")
