"""Channels that are sliced, joined, shuffled: of which value each is, and which of its channels.

Every element gets a number, and what only moves elements moves these: whatever reshapes,
transposes, slices and concatenations are written, they say where each channel came from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.graphs import attribute, constant, static_shape

__all__ = ["moved_channels"]

_Ids = npt.NDArray[np.int64]

#: Elements of a map whose numbers are followed, at most.
_MOST = 2**24


def moved_channels(value: ir.Value) -> list[tuple[ir.Value, int]] | None:
    """Of each channel of a map (C, H, W), or of features, which value's it is, and its place there.

    None: ``value`` is no such, or its channels are joined at most.
    """
    known: dict[ir.Value, _Ids] = {}
    sources: list[ir.Value] = []
    size = static_shape(value)
    if not size or not _is_moved(value):
        return None
    ids = _ids(value, known, sources, top=True)
    if ids is None or ids.shape != size:
        return None
    return _places(ids, known, sources)


def _is_moved(value: ir.Value) -> bool:
    """Whether anything but concatenations moves channels on the way to it."""
    node = value.producer()
    if node is None or node.op_type not in _MOVES:
        return False
    if node.op_type == "Concat":
        return any(v is not None and _is_moved(v) for v in node.inputs)
    return True


def _ids(
    value: ir.Value | None, known: dict[ir.Value, _Ids], sources: list[ir.Value], top: bool = False
) -> _Ids | None:
    """Numbers of the elements of a value, without samples."""
    if value is None or value in known:
        return None if value is None else known[value]
    node, size = value.producer(), static_shape(value)
    if not size or np.prod(size) > _MOST:
        return None
    rule = _MOVES.get(node.op_type) if node is not None and not node.domain else None
    if rule is not None and node is not None:
        read = [_ids(v, known, sources) for v in node.inputs if constant(v) is None]
        made = None if any(r is None for r in read) else rule(node, value, read)
        if made is not None:
            known[value] = made
            return made
    if top:
        return None
    count = int(np.prod(size))
    start = sum(known[source].size for source in sources)
    known[value] = np.arange(start, start + count).reshape(size)
    sources.append(value)
    return known[value]


def _places(
    ids: _Ids, known: dict[ir.Value, _Ids], sources: list[ir.Value]
) -> list[tuple[ir.Value, int]] | None:
    """The channel that each row of ``ids`` is, whole and in its order."""
    found = {int(known[s][c].flat[0]): (s, c) for s in sources for c in range(len(known[s]))}
    places = [found.get(int(row.flat[0])) for row in ids]
    if any(place is None for place in places):
        return None
    kept = [place for place in places if place is not None]
    same = all(np.array_equal(known[s][c], row) for (s, c), row in zip(kept, ids, strict=True))
    return kept if same else None


# -- moves; numbers have no axis of samples --------------------------------------------------


def _reshape(node: ir.Node, out: ir.Value, read: list[Any]) -> _Ids | None:
    size = static_shape(out)
    is_same = size is not None and np.prod(size) == read[0].size
    return read[0].reshape(size) if is_same else None


def _transpose(node: ir.Node, out: ir.Value, read: list[Any]) -> _Ids | None:
    order = attribute(node, "perm") or [0]
    if order[0] != 0 or len(order) != read[0].ndim + 1:
        return None
    return np.asarray(read[0].transpose([axis - 1 for axis in order[1:]]))


def _axis(node: ir.Node, rank: int, default: int = 0) -> int:
    """Without samples; -1: it is theirs."""
    return int(attribute(node, "axis", default)) % (rank + 1) - 1


def _concat(node: ir.Node, out: ir.Value, read: list[Any]) -> _Ids | None:
    axis = _axis(node, read[0].ndim)
    is_whole = len(read) == len(node.inputs)
    return np.concatenate(read, axis) if axis >= 0 and is_whole else None


def _gather(node: ir.Node, out: ir.Value, read: list[Any]) -> _Ids | None:
    index, axis = constant(node.inputs[1]), _axis(node, read[0].ndim)
    if index is None or index.ndim != 1 or axis < 0:
        return None
    return np.asarray(read[0].take(index, axis))


def _slice(node: ir.Node, out: ir.Value, read: list[Any]) -> _Ids | None:
    given = [constant(v) for v in (*node.inputs[1:], None, None)[:4]]
    starts, ends, axes, steps = given
    if starts is None or ends is None:
        return None
    along = range(len(starts)) if axes is None else axes.tolist()
    strides = [1] * len(starts) if steps is None else steps.tolist()
    cut: list[slice] = [slice(None)] * (read[0].ndim + 1)
    for axis, start, end, step in zip(along, starts.tolist(), ends.tolist(), strides, strict=True):
        cut[axis] = slice(start, end, step)
    is_whole = cut[0] == slice(None) or (cut[0].start == 0 and cut[0].stop >= 2**31)
    made = np.asarray(read[0][tuple(cut[1:])])
    return made if is_whole and made.shape == static_shape(out) else None


def _split(node: ir.Node, out: ir.Value, read: list[Any]) -> _Ids | None:
    axis, sizes = _axis(node, read[0].ndim), [static_shape(v) for v in node.outputs]
    if axis < 0 or any(size is None for size in sizes):
        return None
    ends = np.cumsum([size[axis] for size in sizes if size is not None])[:-1]
    parts = np.split(read[0], ends, axis)
    return np.asarray(parts[list(node.outputs).index(out)])


_MOVES: dict[str, Callable[[ir.Node, ir.Value, list[Any]], _Ids | None]] = {
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Concat": _concat,
    "Gather": _gather,
    "Slice": _slice,
    "Split": _split,
}
