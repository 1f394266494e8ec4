"""What diagnose says of attention and of tokens that recognise-attention could not follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from snncc.ir.graphs import constant, label
from snncc.ir.metadata import FOLLOWED, LOST, NO_ATTENTION
from snncc.ir.ops import OPS, traits
from snncc.passes.integers.products import fault_of_product
from snncc.passes.tokens.recognise_attention import PRODUCT, TOKENS

__all__ = [
    "LINEAR_ATTENTION",
    "SHAPE",
    "Verdict",
    "is_near_attention",
    "is_of_shapes",
    "judge_tokens",
    "kind_of_followed",
    "read_tokens",
]

#: The kind of what is computed from shapes alone.
SHAPE = "shape"
LINEAR_ATTENTION = "(q k^T) v * scale without a softmax, then a neuron"
_MAPS = "tokens back to (N, C, H, W), or to (N, C, P), before it"
_NO_NEURON = "a neuron right after the attention"
_PRODUCTS = ("MatMul", "Einsum")


@dataclass(frozen=True)
class Verdict:
    """Why a node cannot be lowered and what to do; nothing of it if it can."""

    why: tuple[str, str] | None = None


def kind_of_followed(node: ir.Node) -> str | None:
    """``tokens`` or ``product`` for a node that was followed and still has no map.

    ``real`` for what is made of tokens that could not be followed.
    """
    return "real" if LOST in node.metadata_props else node.metadata_props.get(FOLLOWED)


def is_of_shapes(node: ir.Node, kinds: Mapping[ir.Value, str]) -> bool:
    """Whether a node is arithmetic on shapes: it reads no value of the network itself."""
    live = [v for v in node.inputs if v is not None and constant(v) is None]
    whole = all(out.dtype == ir.DataType.INT64 for out in node.outputs)
    from_shapes = all(kinds.get(v) == SHAPE for v in live)
    return node.op_type in ("Shape", "Size") or (whole and from_shapes)


def is_near_attention(node: ir.Node, kinds: Mapping[ir.Value, str]) -> bool:
    """Whether a node is all that keeps products from being attention."""
    return kind_of_followed(node) is None and _reads(node, kinds, PRODUCT)


def judge_tokens(node: ir.Node, kinds: Mapping[ir.Value, str]) -> Verdict | None:
    """The verdict on attention, and on what makes or reads tokens; None: on nothing of that."""
    if traits(node).multiplies:
        return _judge_product(node, kinds)
    if is_of_shapes(node, kinds):
        return Verdict()
    if LOST in node.metadata_props:
        return Verdict()  # innocent: what lost the tokens is reported
    if (kind := kind_of_followed(node)) is not None:
        ends = any(out.is_graph_output() for out in node.outputs)
        return Verdict((f"the result is {_NAMES[kind]}", _MAPS)) if ends else Verdict()
    if _reads(node, kinds, PRODUCT):
        return Verdict(_between(node))
    if node.op_type in _PRODUCTS and _is_live(node):
        why = node.metadata_props.get(NO_ATTENTION)
        return Verdict((why, LINEAR_ATTENTION)) if why else None
    if any(kinds.get(v) == "attention" for v in node.inputs if v is not None):
        return _judge_behind(node)
    return None


_TABLE = (
    "takes maxima over a table of tokens and channels, which no max-pool of a map does",
    "MaxPool2d on (N, C, H, W)",
)
_NAMES = {TOKENS: "tokens, not a map", PRODUCT: "a product of two of q, k and v"}


def read_tokens(node: ir.Node, kinds: Mapping[ir.Value, str]) -> tuple[str, str] | None:
    """Why a node that would do on a map cannot read tokens."""
    for value in node.inputs:
        if value is not None and kinds.get(value) == TOKENS and value.producer() is not None:
            if traits(node).takes_maximum:
                return node.metadata_props.get(NO_ATTENTION, _TABLE[0]), _TABLE[1]
            return f"reads '{_maker(value)}', which regroups channels and positions", _MAPS
    return None


def _maker(value: ir.Value) -> str:
    node = value.producer()
    return label(node) if node is not None else str(value.name)


def _reads(node: ir.Node, kinds: Mapping[ir.Value, str], kind: str) -> bool:
    return any(v is not None and kinds.get(v) == kind for v in node.inputs)


def _is_live(node: ir.Node) -> bool:
    return all(constant(v) is None for v in node.inputs)


def _between(node: ir.Node) -> tuple[str, str]:
    """What stands between the first product and the second."""
    if node.op_type in _PRODUCTS and _is_live(node):
        return node.metadata_props.get(
            NO_ATTENTION, "a product of three live values"
        ), LINEAR_ATTENTION
    return f"{node.op_type} between q k^T and v", LINEAR_ATTENTION


def _judge_product(node: ir.Node, kinds: Mapping[ir.Value, str]) -> Verdict:
    """The trains of a product must be spikes, of neurons or gates; of tokens others tell."""
    named = zip(map(str.lower, OPS[node.op_type].inputs), node.inputs, strict=True)
    found, product = [(letter, kinds.get(x, "")) for letter, x in named if x], node.op_type.lower()
    wrong = [letter for letter, kind in found if kind not in ("spikes", "real", TOKENS)]
    if why := fault_of_product(node):
        return Verdict(why if wrong or traits(node).makes_counts else None)
    if not wrong:
        return Verdict()
    return Verdict((f"{', '.join(wrong)} of {product} are no spikes", "a neuron after each"))


def _judge_behind(node: ir.Node) -> Verdict | None:
    """Attention has a grid of its own, which ends in the levels of a neuron."""
    if traits(node).weighs:
        return Verdict(("follows attention without a neuron between", _NO_NEURON))
    if node.op_type == "Add" and _is_live(node):
        return Verdict(("adds attention to a potential", _NO_NEURON))
    return None
