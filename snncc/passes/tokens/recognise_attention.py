"""recognise-attention: products of tokens become Attention, and tokens the maps they come from.

Whatever people do to a map before q k^T v and after it (flatten, transpose, split heads, fold
them into the batch) only moves numbers. The pass follows these moves symbolically: it computes
every layer and neuron on maps [N, C, H, W], and finds in a matrix product or einsum which axes are
multiplied. After it there are no tokens left, unless something could not be followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import onnx_ir as ir
import onnx_ir.passes.common as common

from snncc.ir.graphs import constant, nodes, replace_value, static_shape
from snncc.ir.lineage import Lineage
from snncc.ir.metadata import FOLLOWED, LOST, NO_ATTENTION
from snncc.ir.names import is_made_of_tokens
from snncc.ir.ops import having, traits
from snncc.passes.base import Pass
from snncc.passes.padding import bordering
from snncc.passes.tokens.attention_scales import pull_out
from snncc.passes.tokens.channel_parts import Parts
from snncc.passes.tokens.layers import LAYERS
from snncc.passes.tokens.maxima import MAXIMA
from snncc.passes.tokens.moves import MOVES
from snncc.passes.tokens.products import NotAttentionError, Product, Tokens
from snncc.passes.tokens.views import of_map
from snncc.passes.tokens.work import Rule, Work

__all__ = ["PRODUCT", "TOKENS", "RecogniseAttention"]

_RULES: dict[str, Rule] = {**MOVES, **LAYERS, **MAXIMA}
#: What nodes that were followed but have no map hold.
TOKENS, PRODUCT = "tokens", "product"


@dataclass(frozen=True)
class RecogniseAttention(Pass):
    """MatMul, Einsum, Transpose, Reshape, Split around q, k and v; Conv1d and Linear on tokens."""

    name: ClassVar[str] = "recognise-attention"
    stage_in: ClassVar[str] = "imported"
    stage_out: ClassVar[str] = "imported"

    def run(self, model: ir.Model) -> int:
        """How many attentions were found."""
        lineage = Lineage.of(model)
        reader = _Reader(Work(Parts(self.name, lineage), self.name), bordering(model))
        for node in nodes(model):
            reader.visit(node)
        lineage.write(model)
        if pull_out(model, self.name) or reader.changed or reader.views:
            common.RemoveUnusedNodesPass()(model)
        found = having("imported", lambda t: t.multiplies and not t.makes_counts)
        return len(list(nodes(model, *found)))


@dataclass
class _Reader:
    """Goes through the graph; ``views`` are those of values that are no maps.

    ``lost`` are values made of these that could not be followed: whatever their shape, no maps.
    ``borders`` are nodes that only put a border around a map: what they make is a map again, and
    the single moves in between (RepConv writes rows as slices and transposes) mean nothing.
    """

    work: Work
    borders: set[ir.Node]
    views: dict[ir.Value, Tokens | Product] = field(default_factory=dict)
    lost: set[ir.Value] = field(default_factory=set)
    changed: bool = False

    def visit(self, node: ir.Node) -> None:
        """Follow one node, if it regroups or reads what was regrouped."""
        rule = None if node in self.borders else _RULES.get(node.op_type)
        live = [v for v in node.inputs if v is not None and _holds_numbers(v)]
        is_concerned = any(v in self.views or v in self.lost for v in live)
        found: Sequence[Tokens | Product | None] | None = None
        if rule is not None and (is_concerned or node.op_type in _STARTS):
            try:
                found = rule(self.work, node, [self._view(v) for v in node.inputs])
            except NotAttentionError as e:
                node.metadata_props[NO_ATTENTION] = str(e)
        if found is None and is_concerned:
            if rule is not None and any(v in self.lost for v in live):
                node.metadata_props[LOST] = "1"
            self.lost.update(filter(_holds_numbers, node.outputs))
        for out, view in zip(node.outputs, found or (), strict=False):
            if isinstance(view, Tokens):
                self.work.note(view, out)
            if view is not None:
                self._settle(node, out, view)

    def _view(self, value: ir.Value | None) -> Tokens | Product | None:
        """What is known of an input; a map is a view of itself."""
        if value is None or not _holds_numbers(value) or value in self.lost:
            return None
        if value in self.views:
            return self.views[value]
        size = static_shape(value)
        if size is None or len(size) != 3:
            return None
        free = value.shape is not None and not isinstance(value.shape[0], int)
        return Tokens(of_map(size), value) if free else None

    def _settle(self, node: ir.Node, out: ir.Value, view: Tokens | Product) -> None:
        """Where the value is a map again, its readers read that map."""
        if isinstance(view, Tokens) and self._is_map(out, view):
            twin = self.work.scaled(view, node)
            replace_value(out, twin, keep_name=_is_unnamed(twin))
            self.changed = True
            return
        if isinstance(view, Tokens) and (flat := self._flattened(node, out, view)) is not None:
            replace_value(out, flat)
            self.changed = True
            return
        self.views[out] = view
        node.metadata_props[FOLLOWED] = PRODUCT if isinstance(view, Product) else TOKENS

    def _is_map(self, out: ir.Value, view: Tokens) -> bool:
        size = static_shape(view.twin)
        return size is not None and static_shape(out) == size and view.groups == of_map(size)

    def _flattened(self, node: ir.Node, out: ir.Value, view: Tokens) -> ir.Value | None:
        """All of a map as one axis of features, from tokens."""
        if len(out.shape or ()) != 2:
            return None
        return self.work.flattened(view, node, out)


def _holds_numbers(value: ir.Value) -> bool:
    """Whether a value is no constant, and no arithmetic on shapes."""
    return constant(value) is None and value.dtype == ir.DataType.FLOAT


def _is_unnamed(twin: ir.Value) -> bool:
    """Whether a map is new, and better known by the name of what it stands for."""
    new = is_made_of_tokens(twin.name)
    return new and not traits(twin.producer()).fires


#: What can make tokens of a map, or a product of maps.
_STARTS = (
    "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Split", "Slice", "Gather",
    "MatMul", "Einsum",
)  # fmt: skip
