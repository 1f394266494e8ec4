"""Maxima of spikes over a table of tokens and channels.

On tokens of a head a max-pool spreads spikes to tokens next to each other, the last of a row and
the first of the next among them, and to channels next to each other: no max-pool of a map does so.
Of spikes that come at most once it is an OR: a neuron with threshold 1 that reads how many there
are in the window, a layer of ones. A maximum over both axes is one over tokens of those over
channels, so there are two narrow layers in place of a wide one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.axes import Group
from snncc.ir.graphs import attribute
from snncc.ir.ops import DOMAIN, NEURONS, traits
from snncc.passes.tokens.products import NotAttentionError, Tokens
from snncc.passes.tokens.views import indices
from snncc.passes.tokens.work import Rule, View, Views, Work, first_of, sizes_of

__all__ = ["MAXIMA"]

Array = npt.NDArray[np.float32]
_ONCE = (
    "takes maxima over a table of tokens and channels of spikes that may come more than once a "
    "timestep"
)
CHANNELS, POSITIONS = "C", "P"  # digits of views
#: What fires once if its drive, a number of spikes, is not 0.
_OR = {"D": 1, "norm": 1.0, "rounding": "half-even"}


def _max_pool(work: Work, node: ir.Node, seen: Sequence[View | None]) -> Views:
    """A maximum over all positions side by side, over channels of heads, or over both."""
    view, reaches = first_of(seen), _reaches(node)
    if (
        not isinstance(view, Tokens)
        or len(sizes_of(view)) != 3
        or view.has_copies
        or view.scale != 1
        or reaches is None
    ):
        return None
    kinds = {_kind_of(view, view.groups[axis]): axis for axis in reaches}
    if None in kinds or len(kinds) < len(reaches):
        return None
    if not _comes_once(view.twin):
        raise NotAttentionError(_ONCE)
    if (axis := kinds.get(CHANNELS)) is not None:
        (head,) = view.groups[axis]
        twin = _channels(work, node, view, head.size or 1, reaches[axis])
        view = replace(view, twin=twin)
    if (axis := kinds.get(POSITIONS)) is not None:
        view = replace(view, twin=_tokens(work, node, view, reaches[axis]))
    return [view]


def _reaches(node: ir.Node) -> dict[int, int] | None:
    """How far windows reach along each axis that they take maxima of; None: they are uneven."""
    kernel = attribute(node, "kernel_shape")
    plain = {"strides": 1, "dilations": 1}
    if any(set(attribute(node, name, [1])) != {want} for name, want in plain.items()):
        return None
    pads = attribute(node, "pads", [0] * 2 * len(kernel))
    even = [size // 2 for size in kernel] * 2
    if len(node.outputs) > 1 or not all(size % 2 for size in kernel) or list(pads) != even:
        return None
    return {axis: size // 2 for axis, size in enumerate(kernel, 2) if size > 1}


def _kind_of(view: Tokens, group: Group) -> str | None:
    """All positions in their order, all channels of a head, or anything else."""
    _, *sizes = sizes_of(view)
    at = indices(group, POSITIONS)
    if at is not None and np.array_equal(at, np.arange(prod(sizes))):
        return POSITIONS
    is_head = len(group) == 1 and group[0].axis == CHANNELS and group[0].stride == 1
    return CHANNELS if is_head else None


def _comes_once(value: ir.Value | None) -> bool:
    """Whether a value is spikes that count one, of which there is at most one in a timestep."""
    todo = [value]
    while todo:
        made = todo.pop()
        node = made.producer() if made is not None else None
        if node is None:
            return False
        if node.op_type in NEURONS:
            if attribute(node, "D") != 1 or attribute(node, "norm") != 1:
                return False
        elif traits(node).takes_maximum:
            todo.append(node.inputs[0])
        elif node.op_type == "Mul" and (node.domain == ""):
            todo += node.inputs
        else:
            return False
    return True


def _fired(
    work: Work, node: ir.Node, view: Tokens, weight: Array, what: str, group: int
) -> ir.Value:
    """Whether there is a spike among those that ones in ``weight`` reach, on the map."""
    sizes, kernel = sizes_of(view), list(weight.shape[2:])
    pads = [size // 2 for size in kernel] * 2
    name = f"{node.outputs[0].name}/{what}"
    number = work.map(
        node, "Conv", view.twin, work.const(node, what, weight), shape=sizes, name=f"{name}/number",
        attributes={
            "kernel_shape": kernel, "strides": [1, 1], "pads": pads, "dilations": [1, 1],
            "group": group,
        },
    )  # fmt: skip
    return work.map(
        node, "IntegerFire", number, shape=sizes, domain=DOMAIN, attributes=_OR, name=name
    )


def _tokens(work: Work, node: ir.Node, view: Tokens, reach: int) -> ir.Value:
    """Over tokens: those of a map are its positions, row by row."""
    channels, _, width = sizes_of(view)
    offsets = [*_steps(reach, width)]
    up, left = (max(abs(offset[i]) for offset in offsets) for i in (0, 1))
    weight = np.zeros((channels, 1, 2 * up + 1, 2 * left + 1), np.float32)
    for y, x in offsets:
        weight[:, :, up + y, left + x] = 1
    return _fired(work, node, view, weight, "tokens", channels)


def _steps(reach: int, width: int) -> Iterator[tuple[int, int]]:
    """Rows and columns to the tokens that are up to ``reach`` further or before.

    From some columns one is reached within the row, from the others across its end: each of the
    two is outside of the map wherever the other is not.
    """
    for step in range(-reach, reach + 1):
        rows, columns = divmod(step, width)
        yield rows, columns
        if columns:
            yield rows + 1, columns - width


def _channels(work: Work, node: ir.Node, view: Tokens, size: int, reach: int) -> ir.Value:
    """Over the ``size`` channels of a head."""
    channels = sizes_of(view)[0]
    each = np.arange(size)
    near = np.abs(each[:, None] - each) <= reach
    weight = np.tile(near.astype(np.float32), (channels // size, 1))[:, :, None, None]
    fired = _fired(work, node, view, weight, "channels", channels // size)
    settings = {"group": size, "reach": reach}
    work.lineage.note(str(fired.name), "greatest", str(view.twin.name), **settings)
    return fired


MAXIMA: Mapping[str, Rule] = {"MaxPool": _max_pool}
