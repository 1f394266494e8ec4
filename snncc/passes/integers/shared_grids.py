"""Shared grids: the integers of layers whose membrane potentials are added.

Layers whose results are added share a grid, channel by channel. Where weights have a grid of their
own that the bits hold, it is kept (``own_grids``). Else theta_c, the potential of one spike, is
the largest odd integer <= w_max * 2^shift / max|W_c| over all layers: weights fit, and because it
is odd no rounding ties exist. A layer's weights count 2^shift times (``writers``,
``heavy_weights``), so that each has all its bits. A result has one scale for all its channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil, log2
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.errors import Fault, Option, UnsupportedModelError, Words
from snncc.ir.graphs import (
    label,
    only_reader,
    provenance,
)
from snncc.passes.integers.grid import Grid, frozen_thresholds
from snncc.passes.integers.groups import Group, groups_of, in_order, layers_of, most_threshold
from snncc.passes.integers.heavy_weights import heavy, needed_shifts, reach, row_maxima
from snncc.passes.integers.own_grids import Kept, common_step, kept_channels, shifts_for
from snncc.passes.integers.payloads import reading
from snncc.passes.integers.precision import Precision
from snncc.passes.integers.products import largest_input
from snncc.passes.integers.writers import error_of, writer_shifts
from snncc.passes.reading import Linear

__all__ = [
    "QuantisedLayer",
    "largest_weight",
    "odd_thresholds",
    "plan",
    "shared_grids",
    "slices",
]

Integers = npt.NDArray[np.int64]

#: Beyond all that inputs can do to a potential: a larger bias decides alone.
_FAR = 2**58
#: Steps of a spike, or up to twice as many, where weights of many thresholds take many at once.
_FEW = 16
#: Fewer bits than --weight-bits may ask for are a fault.
_LEAST_BITS = 4
#: Spikes; what takes a potential less far has hardly a say.
_SOME = 0.25
_NAMED = 3
#: Bits that the largest weight has and usual ones do not. Payloads are rounded to what are as many
#: steps beside what they usually come to as usual weights have.
_UNUSUAL = 3
#: Largest shift of a layer whose own grid is kept.
_MOST_SHIFT = 12


def largest_weight(bits: int) -> int:
    """w_max for ``bits``: as many int8 slices as needed, all digits within int8."""
    count = ceil(bits / 8)
    return int(min(2 ** (bits - 1) - 1, 127 * (256**count - 1) // 255))


def slices(weights: Integers, bits: int) -> list[npt.NDArray[np.int8]]:
    """int8 digits, least significant first: weights == sum_p digit_p * 256**p."""
    rest, found = weights.copy(), []
    for _ in range(ceil(bits / 8)):
        digit = (rest + 128) % 256 - 128
        found.append(digit.astype(np.int8))
        rest = (rest - digit) // 256
    return found


@dataclass(frozen=True)
class QuantisedLayer:
    """A layer in integers: weights and bias (int64, as in ``Linear``) and what they mean.

    Its potential is the sum of its inputs times 2**shift times their weights, plus the bias.

    Attributes:
        linear: The layer, float64.
        weight: Of its shape.
        bias: Likewise.
        grid: Of its potential.
        bits: Of its weights.
        shift: Of all its weights, or of each.
        squeezed: Bits of its weights that are missing, as potentials have no room for them.
        squeezed_by: The layer that takes the room.
        lost: Bits that its grid, after graded payloads, lacks for it to fit: others before it must
            lack some, too.
        kept: Channels in which nothing was rounded, bool (C,); or (1,), of all.
    """

    linear: Linear
    weight: Integers
    bias: Integers
    grid: Grid
    bits: int = 8
    shift: int | Integers = 0
    squeezed: float = 0.0
    squeezed_by: Linear | None = None
    lost: float = 0.0
    kept: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(1, dtype=bool))

    def rows(self) -> npt.NDArray[np.bool_]:
        """Channels that are kept, as they meet the weights."""
        whole = np.broadcast_to(self.kept, len(self.weight))
        return whole.reshape(-1, *(1,) * (self.weight.ndim - 1))

    def steps(self) -> npt.NDArray[np.float64]:
        """How many units of the integer weights one of the real weights is; broadcasts to them."""
        theta = np.array([float(t) for t in self.grid.thresholds])
        return np.asarray(_column(theta, self.linear.weight) / 2.0 ** np.asarray(self.shift))

    def exact_weight(self) -> npt.NDArray[np.float64]:
        """The real weights in units of the integer ones."""
        return np.asarray(self.linear.weight * self.steps())

    def parts(self) -> list[tuple[Integers, int]]:
        """Weights that share a shift, the others zero, and that shift; one part at least."""
        if isinstance(self.shift, int):
            return [(self.weight, self.shift)]
        shifts = np.unique(self.shift[self.weight != 0]).tolist() or [0]
        return [(np.where(self.shift == shift, self.weight, 0), shift) for shift in shifts]

    def exact_bias(self) -> npt.NDArray[np.float64]:
        """The real bias in units of the potential."""
        theta = np.array([float(t) for t in self.grid.thresholds])
        return np.asarray(self.linear.bias * _column(theta, self.linear.bias))


def plan(
    model: ir.Model, precision: Precision | int
) -> tuple[dict[ir.Value, QuantisedLayer], list[Fault]]:
    """Integer weights of every layer, by its result value; and what does not fit.

    Args:
        model: In stage ``integer``, after fold-scale.
        precision: Bits of the weights, of each layer or of all.
    """
    chosen = Precision(precision) if isinstance(precision, int) else precision
    layers = {linear.out: linear for linear in layers_of(model)}
    faults: list[Fault] = []
    groups = in_order(groups_of(model, layers), faults)
    room = _Room(dict.fromkeys((group.chain for group in groups), 0))
    planned = _planned(groups, chosen, room, faults)
    while not faults and room.make(groups, planned):
        planned = _planned(groups, chosen, room, faults)
    return planned, faults


@dataclass
class _Room:
    """What potentials after graded payloads are made narrower by.

    Attributes:
        less: Bits that weights lack, of each chain.
        drops: Bits that those do not read which read a potential.
    """

    less: dict[int, int]
    drops: dict[ir.Value, int] = field(default_factory=dict)

    def make(self, groups: Sequence[Group], planned: Mapping[ir.Value, QuantisedLayer]) -> bool:
        """Make some potentials narrower if one has no room; whether that was so.

        Of each chain the first one: those after it are narrower then, too. What it reads is
        rounded as far as weights are rounded anyway; if that is not enough all weights of the chain
        lose a bit, and what is rounded then is found anew.
        """
        made: set[int] = set()
        for group in groups:
            lost = max(planned[linear.out].lost for linear in group.layers)
            if lost < 1 or group.chain in made:
                continue
            made.add(group.chain)
            if not self._round(group, ceil(lost), planned):
                self.less[group.chain] += 1
                self.drops.clear()
        return bool(made)

    def _round(self, group: Group, lost: int, planned: Mapping[ir.Value, QuantisedLayer]) -> bool:
        """Drop so many bits of what a group reads, or as many as may be; whether there are any."""
        found = False
        for layer in (planned[linear.out] for linear in group.layers):
            weights = layer.bits - self.less[group.chain] - _UNUSUAL
            spare = int(log2(max(layer.linear.usual, 1.0))) - weights
            if layer.linear.payload is not None and spare > 0:
                x, drop = layer.linear.x, layer.linear.drop
                self.drops[x] = max(self.drops.get(x, 0), drop + min(lost, spare))
                found = True
        return found


def _planned(
    groups: list[Group], chosen: Precision, room: _Room, faults: list[Fault]
) -> dict[ir.Value, QuantisedLayer]:
    """The layers of all groups, one after the other.

    Args:
        groups: In order.
        chosen: Bits of weights.
        room: What potentials are made narrower by.
        faults: Gets what does not fit.
    """
    planned: dict[ir.Value, QuantisedLayer] = {}
    for group in groups:
        bits, lacking = chosen.of(*(str(x.out.name) for x in group.layers)), room.less[group.chain]
        layers = [reading(x, planned, room.drops.get(x.x, 0)) for x in group.layers]
        read = replace(group, layers=layers)
        if lacking and bits - lacking < _LEAST_BITS:
            fault = _no_room(group, read.widest, bits - lacking)
            raise UnsupportedModelError("the weights do not fit their bits", [*faults, fault])
        for layer in _quantise(read, bits - lacking, faults):
            short = max(layer.squeezed, float(lacking))
            by = layer.squeezed_by or (read.widest if lacking else None)
            planned[layer.linear.out] = replace(layer, bits=bits, squeezed=short, squeezed_by=by)
    return planned


def shared_grids(model: ir.Model) -> list[list[ir.Value]]:
    """The results of layers, those that share a grid together."""
    layers = {linear.out: linear for linear in layers_of(model)}
    return [[linear.out for linear in group.layers] for group in groups_of(model, layers)]


def _quantise(group: Group, bits: int, faults: list[Fault]) -> Sequence[QuantisedLayer]:
    if any(_frozen_by(linear) is not None for linear in group.layers):
        return _frozen(group, bits, faults)
    widest = largest_weight(bits) << (_MOST_SHIFT if len(group.layers) > 1 else 0)
    kept = kept_channels(group.layers, group.demands(bits), widest)
    if (whole := _all_kept(group, kept, bits)) is not None:
        return whole
    if group.has_one_scale:
        return _one_scale(group, bits, faults)
    rounded = _nearest(group, bits, faults)
    shifts = [layer.shift for layer in rounded if isinstance(layer.shift, int)]
    if len(shifts) < len(rounded):
        return rounded
    return _with_kept(rounded, _fitting(kept, shifts, bits))


def _all_kept(group: Group, kept: Sequence[Kept], bits: int) -> Sequence[QuantisedLayer] | None:
    """The layers without any rounding, if every channel fits on a grid of its own."""
    shifts = shifts_for(kept, len(group.layers), largest_weight(bits))
    fitting = _fitting(kept, shifts, bits) if max(shifts) <= _MOST_SHIFT else []
    channels = sum(len(linear.weights.values) for linear in group.layers)
    if sum(len(one.rows) for one in fitting) < channels:
        return None
    return _with_kept([_blank(x, s) for x, s in zip(group.layers, shifts, strict=True)], fitting)


def _fitting(kept: Sequence[Kept], shifts: Sequence[int], bits: int) -> list[Kept]:
    """Of the grids that channels have of their own those that fit, for these shifts."""
    found = (one.at(shifts, largest_weight(bits)) for one in kept)
    return [one for one in found if one is not None]


def _blank(linear: Linear, shift: int) -> QuantisedLayer:
    """The layer without any numbers."""
    count = len(linear.weights.values)
    grid = Grid((Fraction(1),) * count, (Fraction(0),) * count, 0)
    weight, bias = (np.zeros(x.shape, np.int64) for x in (linear.weight, linear.bias))
    return QuantisedLayer(linear, weight, bias, grid, shift=shift)


def _with_kept(layers: Sequence[QuantisedLayer], kept: Sequence[Kept]) -> Sequence[QuantisedLayer]:
    """The layers with the integers of kept channels in place of others."""
    if not kept:
        return layers
    work = [_Mixed(layer) for layer in layers]
    for one in kept:
        for row in one.rows:
            work[row.layer].take(row.channel, one.weight(row), one.bias(row))
            work[row.layer].thresholds[row.channel] = 1 / one.unit
            work[row.layer].shifts[row.channel] = one.left(row)
    return [mixed.made() for mixed in work]


class _Mixed:
    """A layer whose channels are exchanged one by one."""

    def __init__(self, layer: QuantisedLayer) -> None:
        self.layer, self.weight, self.bias = layer, layer.weight.copy(), layer.bias.copy()
        self.thresholds, self.shifts = list(layer.grid.thresholds), list(layer.grid.shifts)
        self.kept = np.zeros(len(self.weight), dtype=bool)

    def take(self, channel: int, weight: Integers, bias: npt.NDArray[Any]) -> None:
        """Put integers, in units of the potential, in place."""
        self.weight[channel] = weight >> int(self.layer.shift)
        self.bias[channel] = bias.astype(np.int64)
        self.kept[channel] = True

    def made(self) -> QuantisedLayer:
        """The layer."""
        grid = Grid(tuple(self.thresholds), tuple(self.shifts), 0)
        return replace(self.layer, weight=self.weight, bias=self.bias, grid=grid, kept=self.kept)


def _nearest(group: Group, bits: int, faults: list[Fault]) -> Sequence[QuantisedLayer]:
    """Weights rounded to thresholds that are odd, or else to those that taps come nearest to."""
    rounded = _per_channel(group, bits, faults)
    if group.is_carried or len(group.layers) == 1 or not all(map(_is_single_tap, group.layers)):
        return rounded
    near = _near_integers(group, bits)
    return near if _worst(near) <= _worst(rounded) else rounded


def _worst(layers: Sequence[QuantisedLayer]) -> float:
    """The largest error of a weight, times the largest count it meets, in spikes."""
    found = 0.0
    for x in layers:
        errors = np.abs(x.weight / x.steps() - x.linear.weight)
        found = max(found, float(errors.max()) * largest_input(x.linear))
    return found


def _near_integers(group: Group, bits: int) -> list[QuantisedLayer]:
    """Sums of spikes on different scales, each with one weight per output."""
    rows = [x.weight.reshape(len(x.weight), -1).max(axis=1) for x in group.layers]
    steps = [common_step(taps, largest_weight(bits)) for taps in np.stack(rows, axis=1)]
    grid = Grid(tuple(steps), (Fraction(0),) * len(steps), 0)
    theta = np.array([float(s) for s in steps])
    return [replace(_rounded(x, theta), grid=grid) for x in group.layers]


def _frozen_by(linear: Linear) -> ir.Node | None:
    """The OnGrid node that alone reads the layer's result."""
    reader = only_reader(linear.out)
    return reader if frozen_thresholds(reader) is not None else None


def _frozen(group: Group, bits: int, faults: list[Fault]) -> list[QuantisedLayer]:
    """The grid that the network was trained on, as it is: weights and biases are integers."""
    grids = {frozen_thresholds(_frozen_by(linear)) or () for linear in group.layers}
    whole = [x for linear in group.layers for x in (linear.weight, linear.bias)]
    first = group.layers[0].node
    if len(grids) > 1:
        faults.append(_off_grid(first, "adds branches that were trained on different grids"))
    elif group.is_result and len(set(*grids)) > 1:
        faults.append(_off_grid(first, "is the result and has a grid of its own per channel"))
    if any((x != np.rint(x)).any() for x in whole):
        faults.append(_off_grid(first, "its weights are off the grid it was trained on"))
    one = np.ones(len(group.layers[0].weight))
    found = [
        _rounded(linear, one[: len(linear.weight)], _frozen_shift(linear.weight, bits))
        for linear in group.layers
    ]
    if max(np.abs(layer.weight).max(initial=0) for layer in found) > largest_weight(bits):
        faults.append(_off_grid(first, f"was trained on a grid of more than {bits} bits"))
    return found


def _frozen_shift(weight: npt.NDArray[Any], bits: int) -> int | Integers:
    """How far weights of more bits than there are were shifted: all of them are even so often.

    One shift for all where that is possible, else as few as possible.
    """
    size, limit = np.abs(weight).astype(np.int64), largest_weight(bits)
    needed = np.ceil(np.log2(np.maximum(size / limit, 1))).astype(np.int64)
    shifts, left = np.zeros_like(needed), size > 0
    while left.any():
        top = needed[left].max()
        part = left & (size % (1 << top) == 0)
        if not part.any():
            return 0  # off the grid: they do not fit
        shifts[part], left = top, left & ~part
    used = np.unique(shifts[size > 0])
    return int(used.max(initial=0)) if len(used) < 2 else shifts


def _off_grid(node: ir.Node, what: str) -> Fault:
    origin = provenance(node)
    told = "compile what snncc.on_grid made, unchanged, with the same "
    todo = Words(told, Option("weight_bits"))
    return Fault(what, label(node), node.op_type, origin.module, origin.source, todo)


def _is_single_tap(linear: Linear) -> bool:
    """One positive weight per output, and no bias."""
    rows = linear.weight.reshape(linear.weight.shape[0], -1)
    single = bool((np.count_nonzero(rows, axis=1) == 1).all() and (rows.max(axis=1) > 0).all())
    return single and not linear.bias.any()


def _per_channel(group: Group, bits: int, faults: list[Fault]) -> list[QuantisedLayer]:
    masks = heavy(group.layers, group.levels)
    pairs = list(zip(group.layers, masks, strict=True))
    largest = np.array([row_maxima(linear, ~mask) for linear, mask in pairs])
    shifts = writer_shifts(largest, [error_of(x) for x in group.layers], group.most_shift)
    most = (largest / 2.0 ** np.array(shifts)[:, np.newaxis]).max(axis=0)
    if any(mask.any() for mask in masks):
        most = _least(most, *(row_maxima(linear, mask) for linear, mask in pairs))
    theta, lost = _thresholds(group, most, bits)
    if (group.is_between or (theta >= 1).all()) and not any(mask.any() for mask in masks):
        ways = zip(group.layers, shifts, strict=True)
        return [replace(_rounded(linear, theta, s), lost=lost) for linear, s in ways]
    wanted = np.where(theta < 1, _few_steps(most, bits), theta)
    reached = np.sum([reach(linear) for linear in group.layers], axis=0)
    fits = np.minimum(wanted, group.room / np.maximum(reached, 1))
    odd = np.floor((np.maximum(fits, 1) - 1) / 2) * 2 + 1
    matters = np.sum([reach(linear, ~mask) for linear, mask in pairs], axis=0) >= _SOME
    lost = float(np.log2(wanted / fits).max(initial=0.0, where=matters))
    lost = np.inf if fits.min() < 1 else lost
    return _squeezed(group, masks, odd, lost, shifts, bits, faults)


def _least(*sizes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The least of what is not zero, element by element; 0 where all are."""
    least = np.min([np.where(size > 0, size, np.inf) for size in sizes], axis=0)
    return np.asarray(np.where(np.isfinite(least), least, 0.0))


def _few_steps(most: npt.NDArray[np.float64], bits: int) -> npt.NDArray[np.float64]:
    """Potentials of a spike on which the largest weights fill their bits, if they are shifted."""
    with np.errstate(divide="ignore", invalid="ignore"):
        fill = largest_weight(bits) / most
        return np.asarray(fill * 2.0 ** np.ceil(np.log2(_FEW / fill)))


def _squeezed(
    group: Group,
    masks: list[npt.NDArray[np.bool_]],
    theta: npt.NDArray[np.float64],
    lost: float,
    shifts: list[int],
    bits: int,
    faults: list[Fault],
) -> list[QuantisedLayer]:
    """The layers on a grid of light weights that heavy ones do not set, but may squeeze.

    Args:
        group: The layers.
        masks: Their heavy weights.
        theta: Potential of one spike, of each channel or of all.
        lost: Bits of light weights that it does not hold.
        shifts: Of the layers' light weights, at least.
        bits: Of the weights.
        faults: Gets one if that leaves too little.
    """
    heaviest = max(group.layers, key=lambda linear: float(reach(linear).max()))
    if lost >= 1 and bits - lost < _LEAST_BITS:
        faults.append(_no_room(group, heaviest, bits - lost))
    found = []
    for linear, mask, light in zip(group.layers, masks, shifts, strict=True):
        needed = needed_shifts(linear, mask, theta, light, largest_weight(bits))
        layer = _rounded(linear, theta, needed, group.room)
        squeezed = 0.0 if linear is heaviest else lost
        found.append(replace(layer, squeezed=squeezed, squeezed_by=heaviest))
    return found


def _thresholds(
    group: Group, most: npt.NDArray[np.float64], bits: int
) -> tuple[npt.NDArray[Any], float]:
    """Those that weights fit, and of layers that read integers of potentials all that is added.

    And how many bits that takes of them. Where no neuron reads a potential nothing fires at 1: its
    thresholds are any numbers, as its size may be any.
    """
    if not group.reads_payloads and not group.is_between:
        return odd_thresholds(most, bits), 0.0
    reached = np.sum([reach(linear) for linear in group.layers], axis=0)
    if group.is_between:
        theta = largest_weight(bits) / np.where(most > 0, most, np.inf)
        theta = np.where(theta > 0, theta, 1.0)
        fits = np.minimum(theta, group.room / np.maximum(reached, 2.0**-60))
        return fits, float(np.log2(theta / fits).max())
    odd = odd_thresholds(most, bits, most_threshold(bits, group))
    whole = np.minimum(odd, group.room / np.maximum(reached, 1)).astype(np.int64)
    lost = np.log2(np.maximum(odd, 1) / np.maximum(whole, 1))
    return np.asarray(whole - (whole + 1) % 2), float(lost.max())


def odd_thresholds(most: npt.NDArray[Any], bits: int, limit: int | None = None) -> Integers:
    """Largest odd theta with theta * most <= w_max, per channel; below 1 where there is none."""
    with np.errstate(divide="ignore"):
        theta = np.minimum(largest_weight(bits) / most, limit or most_threshold(bits))
    whole = np.floor(theta).astype(np.int64)
    return np.asarray(whole - (whole + 1) % 2)


def _one_scale(group: Group, bits: int, faults: list[Fault]) -> list[QuantisedLayer]:
    masks = heavy(group.layers, group.levels)
    pairs = zip(group.layers, masks, strict=True)
    most = max(float(row_maxima(linear, ~mask).max(initial=0.0)) for linear, mask in pairs) or 1.0
    theta = largest_weight(bits) / most
    if any(mask.any() for mask in masks):
        reached = sum(float(reach(linear).max()) for linear in group.layers)
        fits = np.array([min(theta, group.room / reached)])
        lost = float(np.log2(theta / fits[0]))
        return _squeezed(group, masks, fits, lost, [0] * len(group.layers), bits, faults)
    if group.reads_payloads:
        return _one_scale_shifted(group, bits)
    return [_rounded(x, np.full(x.weight.shape[0], theta)) for x in group.layers]


def _one_scale_shifted(group: Group, bits: int) -> list[QuantisedLayer]:
    """With shifts: weights that meet integers of potentials are much smaller than others."""
    largest = np.array([[np.abs(x.weight).max(initial=0.0)] for x in group.layers])
    shifts = writer_shifts(largest, [error_of(x) for x in group.layers], group.most_shift)
    most = float((largest[:, 0] / 2.0 ** np.array(shifts)).max()) or 1.0
    reached = sum(float(reach(linear).max()) for linear in group.layers)
    fills = largest_weight(bits) / most
    theta = np.full(len(group.layers[0].weight), min(fills, group.room / max(reached, 1.0)))
    lost, pairs = float(np.log2(fills / theta[0])), zip(group.layers, shifts, strict=True)
    return [replace(_rounded(x, theta[:1], shift), lost=lost) for x, shift in pairs]


def _rounded(
    linear: Linear, theta: npt.NDArray[Any], shift: int | Integers = 0, far: float = _FAR
) -> QuantisedLayer:
    theta = np.broadcast_to(theta, linear.weight.shape[:1])
    w = np.rint(linear.weight * (_column(theta, linear.weight) / 2.0 ** np.asarray(shift)))
    b = np.rint(linear.bias * _column(theta, linear.bias))
    thresholds = tuple(Fraction(t) for t in theta.tolist())
    grid = Grid(thresholds, (Fraction(0),) * len(thresholds), 0)
    bias = np.clip(b, -far, far).astype(np.int64)
    return QuantisedLayer(linear, w.astype(np.int64), bias, grid, shift=shift)


def _column(values: npt.NDArray[Any], like: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def _no_room(group: Group, heaviest: Linear, left: float) -> Fault:
    """Next to nothing is left of light weights: others take potentials all the way."""
    node = next((x.node for x in group.layers if x is not heaviest), heaviest.node)
    origin, theirs = provenance(node), provenance(heaviest.node).module or label(heaviest.node)
    room = "no room for the bits" if left < 1 else f"room for {left:.0f} bits"
    far = f"{float(reach(heaviest).max()):.2g}"
    return Fault(
        f"its potential, which '{theirs}' takes up to {far} thresholds, has {room} of its own "
        "weights",
        label(node),
        node.op_type,
        origin.module,
        origin.source,
        f"leave '{theirs}' out, or train it on; batch norms of variance 0 make such weights"
        + (f": {_some_of(group.still)}" if group.still else ""),
    )


def _some_of(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
