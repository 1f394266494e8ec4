"""Products of tokens: which contractions of three views are spike-driven attention.

With labels for the axes, as einsum has them, attention is two contractions. The first multiplies
two maps and sums over channels of a head (scores q k^T) or over positions (k v^T); the second sums
what is left of one of them against the third map. Heads are the outermost digits of the channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod

import onnx_ir as ir

from snncc.ir.axes import Digit, Group
from snncc.ir.graphs import static_shape
from snncc.passes.tokens.views import BATCH, Groups

__all__ = ["Attended", "Labels", "NotAttentionError", "Product", "Tokens", "attended", "multiplied"]

Labels = tuple[str, ...]
COPIES = "multiplies what was summed over channels"


class NotAttentionError(Exception):
    """Why two views do not multiply to attention, or to a part of it."""


@dataclass(frozen=True)
class Tokens:
    """A view of a map, times a number.

    Attributes:
        groups: Digits of each axis. Channels that differ in a digit that no axis has are copies.
        twin: The map, [N, C, H, W].
        scale: The value is that of the map times this.
    """

    groups: Groups
    twin: ir.Value
    scale: Fraction = Fraction(1)

    @property
    def channels(self) -> int:
        """C of the map."""
        return (static_shape(self.twin) or (1,))[0]

    @property
    def has_copies(self) -> bool:
        """Whether the map holds numbers more than once."""
        held = prod(d.size or 1 for group in self.groups for d in group if d.axis in ("C", "P"))
        return held < prod(static_shape(self.twin) or ())


@dataclass(frozen=True)
class Product:
    """Two maps multiplied, head by head, and summed over one axis.

    Attributes:
        groups: Digits of each axis: ``N``, ``H`` (heads), ``1`` and ``2`` (what is left of the
            factors, with the strides it has there).
        factors: The views.
        heads: How many.
        over: ``C``, channels were summed, positions are left; or ``P``, the other way round.
        scale: As in Tokens.
    """

    groups: Groups
    factors: tuple[Tokens, Tokens]
    heads: int
    over: str
    scale: Fraction = Fraction(1)


@dataclass(frozen=True)
class Attended:
    """Attention over three maps; ``groups`` are those of a view of its map."""

    q: Tokens
    k: Tokens
    v: Tokens
    heads: int
    groups: Groups
    scale: Fraction


def multiplied(one: Tokens, two: Tokens, labels: tuple[Labels, Labels, Labels]) -> Product:
    """The first contraction; ``labels`` are those of both and of the result.

    Raises:
        NotAttentionError: It is none of attention's.
    """
    first, second, out = labels
    if one.has_copies or two.has_copies:
        raise NotAttentionError(COPIES)
    shared = [x for x in first if x in second and x in out]
    summed = [x for x in first if x in second and x not in out]
    heads = prod(d.size or 1 for d in _digits(one, first, shared) if d.axis == "C")
    if two.channels % heads:
        raise NotAttentionError(f"{two.channels} channels for {heads} heads")
    each = one.channels // heads, two.channels // heads
    for x in shared:
        if _of_heads(one, first, x, each[0]) != _of_heads(two, second, x, each[1]):
            raise NotAttentionError("pairs heads, samples or positions that are not the same")
    over = _summed_axis(one, two, labels, summed)
    groups = []
    for x in out:
        if x in shared:
            groups.append(_of_heads(one, first, x, each[0]))
        else:
            name, view, own = ("1", one, first) if x in first else ("2", two, second)
            group = view.groups[own.index(x)]
            _require_axis(group, "P" if over == "C" else "C")
            groups.append(tuple(replace(d, axis=name) for d in group))
    return Product(tuple(groups), (one, two), heads, over, one.scale * two.scale)


def attended(
    product: Product, third: Tokens, labels: tuple[Labels, Labels, Labels], product_first: bool
) -> Attended:
    """The second contraction; ``labels`` are those of product, third map and result.

    Raises:
        NotAttentionError: It is none of attention's.
    """
    first, second, out = labels
    shared = [x for x in first if x in second and x in out]
    summed = [x for x in first if x in second and x not in out]
    heads = product.heads
    if third.has_copies:
        raise NotAttentionError(COPIES)
    if third.channels % heads:
        raise NotAttentionError(f"{third.channels} channels for {heads} heads")
    each = third.channels // heads
    for x in shared:
        if product.groups[first.index(x)] != _of_heads(third, second, x, each):
            raise NotAttentionError("pairs heads, samples or positions that are not the same")
    side = _side(product, first, summed, product_first)
    left = [d for x in summed for d in product.groups[first.index(x)]]
    met = [d for x in summed for d in third.groups[second.index(x)]]
    axis = "P" if product.over == "C" else "C"
    _require_axis(met, axis)
    if [(d.size, d.stride) for d in left] != [(d.size, d.stride) for d in met]:
        raise NotAttentionError("sums positions or channels that are not the same")
    k, other = product.factors[side], product.factors[1 - side]
    q, v = (other, third) if product.over == "C" else (third, other)
    groups = tuple(
        tuple(_of_result(d, product, v.channels // heads) for d in product.groups[first.index(x)])
        if x in first
        else third.groups[second.index(x)]
        for x in out
    )
    return Attended(q, k, v, heads, groups, product.scale * third.scale)


def _digits(view: Tokens, labels: Labels, chosen: Iterable[str]) -> list[Digit]:
    return [d for x in chosen for d in view.groups[labels.index(x)]]


def _of_heads(view: Tokens, labels: Labels, label: str, each: int) -> Group:
    """An axis of samples and heads, as digits ``N`` and ``H``."""
    group = view.groups[labels.index(label)]
    if any(d.axis == "P" for d in group):
        raise NotAttentionError("keeps positions apart that it should sum over")
    if any(d.stride % each or d.stride < each for d in group if d != BATCH):
        raise NotAttentionError("the channels of a head do not lie side by side")
    return tuple(d if d == BATCH else Digit("H", d.size, d.stride // each) for d in group)


def _summed_axis(
    one: Tokens, two: Tokens, labels: tuple[Labels, Labels, Labels], summed: Sequence[str]
) -> str:
    """``C`` or ``P``; of axes of one element, whichever the other axes leave."""
    left, right = _digits(one, labels[0], summed), _digits(two, labels[1], summed)
    if left != right:
        raise NotAttentionError("sums positions or channels that are not the same")
    axes = {d.axis for d in left}
    if not axes:
        kept = [d.axis for x in labels[2] for d in _free(one, two, labels, x)]
        return "P" if "C" in kept else "C"
    if len(axes) > 1 or BATCH in left:
        raise NotAttentionError("sums positions and channels at once")
    return axes.pop()


def _free(one: Tokens, two: Tokens, labels: tuple[Labels, Labels, Labels], label: str) -> Group:
    """Digits of an axis that only one of the two has."""
    first, second, _ = labels
    if label in first and label not in second:
        return one.groups[first.index(label)]
    if label in second and label not in first:
        return two.groups[second.index(label)]
    return ()


def _require_axis(digits: Iterable[Digit], axis: str) -> None:
    if any(d.axis != axis for d in digits):
        raise NotAttentionError("mixes positions and channels")


def _side(product: Product, labels: Labels, summed: Sequence[str], product_first: bool) -> int:
    """Which factor of the product is summed: 0 or 1."""
    axes = {d.axis for x in summed for d in product.groups[labels.index(x)]}
    if len(axes) > 1 or axes - {"1", "2"}:
        raise NotAttentionError("sums what is left of both factors at once")
    if axes:
        return 0 if axes == {"1"} else 1
    kept = {d.axis for group in product.groups for d in group} & {"1", "2"}
    if len(kept) == 1:
        return 1 if kept == {"1"} else 0
    return int(product_first)  # of one element both: as matrix products are written


def _of_result(digit: Digit, product: Product, each: int) -> Digit:
    """A digit of the product as one of the result's map; ``each`` channels a head."""
    if digit == BATCH:
        return digit
    if digit.axis == "H":
        return Digit("C", digit.size, digit.stride * each)
    return replace(digit, axis="P" if product.over == "C" else "C")
