"""Nodes on values with an axis of timesteps, wherever it is: what they are on [T*N, ...]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from snncc.ir.axes import Digit, Group, merged
from snncc.ir.exact import Exact
from snncc.ir.graphs import attribute, constant
from snncc.ir.ops import having
from snncc.passes.time.lay_out import Laid
from snncc.passes.time.layout import TIME, When, Work, inner, outer, sizes_of

__all__ = ["OWN", "Form", "MixedError", "Operands", "form_of", "groups_of", "template"]

_ELEMENTWISE = (
    *having("imported", lambda t: t.fires or (t.keeps_shape and not t.is_affine)),
    *("Add", "Sub", "Mul", "Div", "Relu", "Clip", "Round", "Floor", "Ceil", "Min", "Max", "Cast"),
    *("Where", "Neg", "Abs", "Sqrt", "Pow", "Exp", "Erf", "Sigmoid", "Tanh", "Identity", "Dropout"),
    *("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "And", "Or", "Not"),
)
_POOLS = ("MaxPool", "AveragePool")

#: The live inputs of a node, laid out.
Operands = dict[ir.Value, Laid]
Inputs = Sequence[ir.Value | None]


class MixedError(Exception):
    """A node works along an axis of timesteps or samples.

    Attributes:
        axis: Which; None where nothing can be said of it.
    """

    def __init__(self, axis: int | None = None) -> None:
        super().__init__()
        self.axis = axis


@dataclass(frozen=True)
class Form:
    """A node as it is on folded values.

    Attributes:
        inputs: Folded, or constants.
        groups: Digits of timesteps and samples of each axis of the result, among them one called
            "own" where the axis has anything else.
        sizes: Of what each axis has besides; None where that is nothing.
        attributes: Of the node.
    """

    inputs: Inputs
    groups: tuple[Group, ...]
    sizes: tuple[int | None, ...]
    attributes: dict[str, Any]


def form_of(work: Work, node: ir.Node, laid: Operands) -> Form | None:
    """The node on folded values; None if it has no such form.

    Raises:
        MixedError: It would work along an axis of timesteps or samples.
    """
    return _RULES.get(node.op_type, _by_sample)(work, node, laid)


# -- helpers ---------------------------------------------------------------------------------


def _attributes(node: ir.Node) -> dict[str, Any]:
    return {name: a.value for name, a in node.attributes.items()}


def _own(laid: Laid, axis: int) -> int:
    """The twin's axis of an axis that has neither timesteps nor samples."""
    rank = len(laid.own)
    found = laid.own[axis % rank]
    if found is None or outer(laid.groups[axis % rank]):
        raise MixedError(axis % rank)
    return found


#: Stands for all digits of a group but those of timesteps and samples.
OWN = Digit("own", 0)


def template(laid: Laid, axis: int) -> Group:
    """The digits of an axis; all that are neither timesteps nor samples stand as one."""
    names = [OWN if inner([d]) else d for d in laid.groups[axis]]
    found = tuple(d for i, d in enumerate(names) if d != OWN or d not in names[:i])
    return found if laid.own[axis] is None or OWN in found else (*found, OWN)


def _templates(laid: Laid) -> tuple[Group, ...]:
    return tuple(template(laid, axis) for axis in range(len(laid.own)))


def _kept(node: ir.Node, laid: Laid) -> tuple[tuple[Group, ...], tuple[int | None, ...]] | None:
    """Groups and sizes of a result that has the operand's axes, with sizes of its own."""
    known = sizes_of(node.outputs[0])
    if known is None or len(known) != len(laid.own):
        return None
    sizes: list[int | None] = []
    for axis, (own, group, size) in enumerate(zip(laid.own, laid.groups, known, strict=True)):
        if own is not None and not outer(group) and size is None:
            return None
        sizes.append(None if own is None else laid.size(axis) if outer(group) else size)
    return _templates(laid), tuple(sizes)


def _on(node: ir.Node, laid: Laid, inputs: Inputs, attributes: dict[str, Any]) -> Form | None:
    kept = _kept(node, laid)
    return None if kept is None else Form(inputs, *kept, attributes)


# -- element by element ----------------------------------------------------------------------


def _elementwise(work: Work, node: ir.Node, laid: Operands) -> Form | None:
    """Constants may vary after the axes of timesteps and samples only."""
    rank = max(len(each.own) for each in laid.values())
    groups, sizes = _met(list(laid.values()), rank)
    inputs: list[ir.Value | None] = []
    for v in node.inputs:
        array = constant(v)
        if v is None or v in laid:
            inputs.append(None if v is None else laid[v].twin)
        elif array is None or array.ndim > rank:
            return None
        else:
            inputs.append(_slim(work, node, v, groups[rank - array.ndim :]))
            sizes = _widened(sizes, array, groups)
    return Form(inputs, groups, sizes, _attributes(node))


def _met(laid: Sequence[Laid], rank: int) -> tuple[tuple[Group, ...], tuple[int | None, ...]]:
    """Where the axes of operands meet: the digits of each axis of the result, and its size."""
    lead = next((each for each in laid if each.seen.when is not When.STILL), laid[0])
    groups: list[Group] = [()] * rank
    sizes: list[int | None] = [None] * rank
    shift = rank - len(lead.own)
    groups[shift:] = _templates(lead)
    for each in laid:
        shift = rank - len(each.own)
        padded: tuple[Group, ...] = ((),) * shift + _templates(each)
        for axis in range(rank):
            found, wanted = padded[axis], groups[axis]
            if each.seen.when is When.STILL:
                wanted = tuple(d for d in wanted if d.axis != TIME)
            if OWN not in found or OWN not in wanted:
                found, wanted = outer(found), outer(wanted)
            if found != wanted:
                raise MixedError
            if axis >= shift and each.own[axis - shift] is not None:
                sizes[axis] = max(sizes[axis] or 1, each.size(axis - shift))
                groups[axis] = groups[axis] if OWN in groups[axis] else (*groups[axis], OWN)
    if any(_missing(each, sizes) for each in laid):
        raise MixedError
    return tuple(groups), tuple(sizes)


def _missing(laid: Laid, sizes: Sequence[int | None]) -> bool:
    """Whether an operand lacks an axis of the result, other than of timesteps and samples."""
    own = (None,) * (len(sizes) - len(laid.own)) + laid.own
    return any((a is None) != (s is None) for a, s in zip(own, sizes, strict=True))


def _slim(work: Work, node: ir.Node, value: ir.Value, groups: Sequence[Group]) -> ir.Value:
    """A constant without the axes of timesteps and samples."""
    array = constant(value)
    assert array is not None
    places = [i for i, group in enumerate(groups) if OWN not in group]
    bare = {*places, *(i for i, group in enumerate(groups) if outer(group))}
    if any(array.shape[i] != 1 for i in bare):
        raise MixedError
    if not places or places == [0]:  # as it is, it meets [T*N, ...], too
        return value
    exact = Exact.of(value) or Exact(array)
    if array.dtype != np.float32:
        return work.const(node, "folded", array.squeeze(tuple(places)))
    return work.const(node, "folded", exact.moved(lambda a: a.squeeze(tuple(places))))


def _widened(
    sizes: tuple[int | None, ...], array: Any, groups: tuple[Group, ...]
) -> tuple[int | None, ...]:
    """The sizes after a constant is met, too."""
    shape = (1,) * (len(sizes) - array.ndim) + array.shape
    return tuple(s if s is None else max(s, n) for s, n in zip(sizes, shape, strict=True))


# -- products and layers ---------------------------------------------------------------------


def _matmul(work: Work, node: ir.Node, laid: Operands) -> Form | None:
    """A product over the last two axes, which timesteps and samples are none of."""
    known = sizes_of(node.outputs[0])
    live = [laid.get(v) if v is not None else None for v in node.inputs]
    others = [constant(v) for v in node.inputs if v not in laid]
    if (
        known is None
        or len(known) < 2
        or known[-1] is None
        or any(w is None or w.ndim != 2 for w in others)
    ):
        return None
    lead = next(each for each in live if each is not None)
    is_first = live[0] is not None
    for each in (each for each in live if each is not None):
        rank = len(each.own)
        if rank != len(lead.own):
            return None
        for axis in (rank - 1, *([rank - 2] if len(laid) > 1 or not is_first else [])):
            _own(each, axis)
    groups, sizes = _met([_lead(each) for each in live if each is not None], len(lead.own) - 2)
    tail = [template(lead, len(lead.own) - 2), (OWN,)]
    ends = list(known[-2:])
    if outer(lead.groups[-2]):  # [T, N, C] @ [C, M]: the axis before the last is that of samples
        ends[0] = None if lead.own[-2] is None else lead.size(-2)
    elif lead.own[-2] is None:
        ends[0] = None
    elif ends[0] is None:
        return None
    inputs = [v if each is None else each.twin for v, each in zip(node.inputs, live, strict=True)]
    return Form(inputs, (*groups, *tail), (*sizes, *ends), {})


def _lead(laid: Laid) -> Laid:
    """All axes but the last two."""
    groups = laid.groups[:-2]
    view = replace(laid.seen.view, groups=groups)
    return Laid(replace(laid.seen, view=view), laid.own[:-2])


def _by_sample(work: Work, node: ir.Node, laid: Operands) -> Form | None:
    """What works on each sample by itself, as it is: timesteps and samples are the first axis."""
    lead = next(iter(laid.values()))
    for each in laid.values():
        axes = [i for i, group in enumerate(each.groups) if outer(group)]
        if axes != [0] or each.own[0] is not None:
            raise MixedError
        if each.groups[0] != lead.groups[0]:
            return None
    if 0 in _axes(node, len(lead.own)):
        raise MixedError(0)
    known = sizes_of(node.outputs[0])
    if known is None or not known or known[0] is not None or None in known[1:]:
        return None
    groups = (lead.groups[0], *((OWN,) for _ in known[1:]))
    inputs = [laid[v].twin if v in laid else v for v in node.inputs]
    return Form(inputs, groups, (None, *known[1:]), _attributes(node))


def _axes(node: ir.Node, rank: int) -> list[int]:
    """The axes that a node names."""
    given = attribute(node, "axes") or attribute(node, "axis")
    found = [given] if isinstance(given, int) else list(given or [])
    return [int(a) % rank for a in found]


def _quantise(work: Work, node: ir.Node, laid: Operands) -> Form | None:
    """In steps of one size it is like arithmetic; otherwise their axis must stay where it is."""
    sizes = [constant(v) for v in node.inputs[1:] if v is not None]
    is_one = all(s is not None and s.ndim == 0 for s in sizes)
    found = _elementwise(work, node, laid) if is_one else _by_sample(work, node, laid)
    if found is not None and is_one:
        found.attributes.pop("axis", None)
    return found


def _batch_norm(work: Work, node: ir.Node, laid: Operands) -> Form | None:
    """Of channels, axis 1; the others are anywhere."""
    (x,) = laid.values()
    if _own(x, 1) != 1:
        raise MixedError(1)
    return _on(node, x, [x.twin, *node.inputs[1:]], _attributes(node))


def _windowed(work: Work, node: ir.Node, laid: Operands) -> Form | None:
    """Pools and convolutions whose windows hold single timesteps, as kernels of (1, k, k) do."""
    x = laid.get(node.inputs[0]) if node.inputs[0] is not None else None
    if x is None or len(laid) > 1:
        return None
    rank, is_conv = len(x.own), node.op_type not in _POOLS
    places = [i for i, group in enumerate(x.groups) if outer(group)]
    if places == [0] and x.own[0] is None:
        return _by_sample(work, node, laid)
    if (
        any(x.own[i] is not None for i in places)
        or attribute(node, "auto_pad", "NOTSET") != "NOTSET"
    ):
        raise MixedError(max(places))
    inputs = [x.twin, *node.inputs[1:]]
    attributes, weights = _attributes(node), constant(node.inputs[1]) if is_conv else None
    if is_conv and (_own(x, 1) != 1 or weights is None):
        raise MixedError(1)
    kernel = attributes.get("kernel_shape") or (() if weights is None else weights.shape[2:])
    windows = _Windows(rank - 2, list(kernel), attributes)
    kept = [i for i in range(2, rank) if i not in places]
    first = next(i for i in range(rank) if x.own[i] == 1)
    if not is_conv and first >= 2:  # its first axis of its own stands for channels
        kept.remove(first)
    dropped = [i - 2 for i in range(2, rank) if i not in kept]
    if not kept or not all(windows.is_single(i) for i in dropped):
        raise MixedError(max(places))
    if is_conv and weights is not None:
        slim = weights.reshape(*weights.shape[:2], *(weights.shape[i] for i in kept))
        inputs[1] = work.const(node, "folded", slim)
    if len([i for i in range(rank) if x.own[i] is not None]) != len(kept) + 1:
        return None
    return _on(node, x, inputs, {**attributes, **windows.only([i - 2 for i in kept])})


@dataclass(frozen=True)
class _Windows:
    """The windows of a pool or convolution along each of its ``rank`` axes after the channels."""

    rank: int
    kernel: list[int]
    attributes: dict[str, Any]

    def _of(self, name: str, default: int) -> list[int]:
        return list(self.attributes.get(name) or [default] * self.rank)

    def _pads(self) -> list[int]:
        return list(self.attributes.get("pads") or [0] * 2 * self.rank)

    def is_single(self, axis: int) -> bool:
        """Whether they hold one element along an axis, and all of them."""
        pads = self._pads()
        borders = pads[axis], pads[axis + self.rank]
        return (self.kernel[axis], self._of("strides", 1)[axis], *borders) == (1, 1, 0, 0)

    def only(self, axes: list[int]) -> dict[str, list[int]]:
        """Their attributes along some axes."""
        pads = self._pads()
        return {
            "kernel_shape": [self.kernel[i] for i in axes],
            "strides": [self._of("strides", 1)[i] for i in axes],
            "dilations": [self._of("dilations", 1)[i] for i in axes],
            "pads": [pads[i + side] for side in (0, self.rank) for i in axes],
        }


# -- along other axes ------------------------------------------------------------------------


def _concat(work: Work, node: ir.Node, laid: Operands) -> Form | None:
    if any(v not in laid for v in node.inputs):
        return None
    lead = next(iter(laid.values()))
    axis = attribute(node, "axis", 0) % len(lead.own)
    along = [_own(each, axis) for each in laid.values()]
    if len({(each.own, _templates(each)) for each in laid.values()}) > 1:
        return None
    inputs: Inputs = [laid[v].twin for v in node.inputs if v is not None]
    return _on(node, lead, inputs, {"axis": along[0]})


def _gather(work: Work, node: ir.Node, laid: Operands) -> Form | None:
    x, index = node.inputs[0], constant(node.inputs[1])
    if x not in laid or index is None or len(laid) > 1:
        return None
    lead, rank = laid[x], len(laid[x].own)
    axis = attribute(node, "axis", 0) % rank
    inputs, attributes = [lead.twin, node.inputs[1]], {"axis": _own(lead, axis)}
    groups, sizes = list(_templates(lead)), [
        None if own is None else lead.size(i) for i, own in enumerate(lead.own)
    ]  # fmt: skip
    groups[axis : axis + 1] = [(OWN,)] * index.ndim
    sizes[axis : axis + 1] = list(index.shape)
    return Form(inputs, tuple(groups), tuple(sizes), attributes)


def _slice(work: Work, node: ir.Node, laid: Operands) -> Form | None:
    """Ranges along other axes; all of an axis of timesteps or samples may be named, too."""
    x, given = node.inputs[0], [constant(v) for v in node.inputs[1:]]
    if x not in laid or len(given) < 3 or any(g is None for g in given):
        return None
    lead, columns = laid[x], [g.reshape(-1).tolist() for g in given if g is not None]
    columns += [[1] * len(columns[0])] * (4 - len(columns))
    rows = [row for row in zip(*columns, strict=True) if not _takes_all(lead, *row)]
    moved = [(start, end, _own(lead, axis), step) for start, end, axis, step in rows]
    if not moved:
        return None
    names = ("starts", "ends", "axes", "steps")
    inputs = [
        work.const(node, name, np.array(column, np.int64))
        for name, column in zip(names, zip(*moved, strict=True), strict=True)
    ]
    return _on(node, lead, [lead.twin, *inputs], {})


def _takes_all(laid: Laid, start: int, end: int, axis: int, step: int) -> bool:
    """A slice of an axis of timesteps or samples that leaves it as it is."""
    size = laid.seen.view.sizes[axis]
    count = 2**31 - 1 if size is None else size
    return bool(outer(laid.groups[axis])) and (start, step) == (0, 1) and end >= count


def _pad(work: Work, node: ir.Node, laid: Operands) -> Form | None:
    (x,), pads = laid.values(), constant(node.inputs[1])
    if pads is None or len(node.inputs) > 3:
        return None
    rank = len(x.own)
    for axis in np.flatnonzero(pads.reshape(2, rank).any(axis=0)):
        _own(x, int(axis))
    own = [i for i in range(rank) if x.own[i] is not None]
    kept = [0, *(int(pads[i]) for i in own), 0, *(int(pads[rank + i]) for i in own)]
    inputs = [x.twin, work.const(node, "folded", np.array(kept, np.int64)), *node.inputs[2:]]
    return _on(node, x, inputs, _attributes(node))


def _along(work: Work, node: ir.Node, laid: Operands) -> Form | None:
    """Softmax, and norms from an axis on to the last one."""
    x, rank = next(iter(laid.values())), len(next(iter(laid.values())).own)
    axis = attribute(node, "axis", -1) % rank
    last = axis + 1 if node.op_type != "LayerNormalization" else rank
    along = [_own(x, i) for i in range(axis, last)]
    inputs = [laid[v].twin if v in laid else v for v in node.inputs]
    return _on(node, x, inputs, {**_attributes(node), "axis": along[0]})


_RULES: dict[str, Callable[[Work, ir.Node, Operands], Form | None]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(("Conv", *_POOLS), _windowed),
    **dict.fromkeys(("Softmax", "LogSoftmax", "LayerNormalization"), _along),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _quantise),
    "BatchNormalization": _batch_norm,
    "Concat": _concat,
    "Gather": _gather,
    "MatMul": _matmul,
    "Pad": _pad,
    "Slice": _slice,
}


def groups_of(form: Form) -> tuple[Group, ...]:
    """Digits of each axis of the result, where its own axes have numbers."""
    found, own = [], 0
    for group, size in zip(form.groups, form.sizes, strict=True):
        own += size is not None
        digit = Digit(str(own), size or 1)
        digits = [digit if d == OWN else d for d in group]
        found.append(merged(digits))
    return tuple(found)
