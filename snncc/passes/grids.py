"""Grids: what the integers of a membrane potential mean, and which layers must share one.

Layers whose results are added share a grid, channel by channel. theta_c, the potential of one
spike, is the largest odd integer <= w_max * 2^shift / max|W_c| over all of them: weights fit, and
because it is odd no rounding ties exist. A layer's weights count 2^shift times (``writers``,
``heavy_weights``), so that each has all its bits. A result has one scale for all its channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, lcm, prod
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.errors import Fault
from snncc.ir.carried import carry_of
from snncc.ir.graphs import (
    SOURCE_GRID,
    attribute,
    constant,
    is_op,
    label,
    nodes,
    only_reader,
    provenance,
    static_shape,
)
from snncc.ir.membrane import fixed_decay
from snncc.ir.ops import NEURONS
from snncc.passes.fold_batch_norm import still_norms
from snncc.passes.heavy_weights import heavy, needed_shifts, reach, row_maxima
from snncc.passes.kept_grids import common_step, kept_grid
from snncc.passes.levels import rational
from snncc.passes.linear import Linear, linear_behind, read_affine
from snncc.passes.precision import Precision
from snncc.passes.writers import error_of, writer_shifts

__all__ = [
    "Grid",
    "QuantisedLayer",
    "frozen_thresholds",
    "largest_weight",
    "odd_thresholds",
    "plan",
    "shared_grids",
    "slices",
]

Integers = npt.NDArray[np.int64]

#: What keeps potentials on the grid of their layers.
_TOGETHER = ("OnGrid", "Add", "Mul", "SumPool", "Reshape", "TimeSum", "PatchMask")
#: Beyond all that inputs can do to a potential: a larger bias decides alone.
_FAR = 2**58
#: Potentials stay below 2^62; half of the rest is for what rounding adds.
_ROOM = 2.0**60
#: Steps of a spike, or up to twice as many, where weights of many thresholds take many at once.
_FEW = 16
#: Bits of a membrane beyond its potential that room is kept for.
_MEMBRANE_BITS = 16
#: Fewer bits than --weight-bits may ask for are a fault.
_LEAST_BITS = 4
#: Spikes; what takes a potential less far has hardly a say.
_SOME = 0.25
_NAMED = 3


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
class Grid:
    """What an integer v means: v / threshold + shift, per channel (axis 1).

    Attributes:
        thresholds: Potential of one spike, positive, exact.
        shifts: Added, exact.
        payload: Largest abs(v).
    """

    thresholds: tuple[Fraction, ...]
    shifts: tuple[Fraction, ...]
    payload: int

    @staticmethod
    def counts(payload: int) -> Grid:
        """Spike counts: the integer is the value."""
        return Grid((Fraction(1),), (Fraction(0),), payload)

    def behind(self, node: ir.Node) -> Grid:
        """The grid of the same integers behind a scale, shift, pool or reshape."""
        x, out = node.inputs[0], node.outputs[0]
        if (theta := frozen_thresholds(node)) is not None:
            old = _widened(self.thresholds, len(theta))
            shifts = (Fraction(0),) * len(theta)
            return Grid(tuple(o * t for o, t in zip(old, theta, strict=True)), shifts, self.payload)
        if (found := read_affine(node)) is not None:
            return self._mapped(found[1].scale, found[1].shift)
        if node.op_type in ("SumPool", "TimeSum"):
            sizes = attribute(node, "kernel_shape") if node.op_type == "SumPool" else None
            n = attribute(node, "T") if sizes is None else prod(sizes)
            return Grid(self.thresholds, tuple(s * n for s in self.shifts), self.payload * n)
        before, after = static_shape(x) if x is not None else None, static_shape(out)
        if node.op_type != "Reshape" or before is None or after is None:
            return self
        if len(self.thresholds) == 1 or before[0] == after[0]:
            return self
        spread = prod(before[1:])
        return Grid(_repeat(self.thresholds, spread), _repeat(self.shifts, spread), self.payload)

    def _mapped(self, scale: npt.NDArray[Any], shift: npt.NDArray[Any]) -> Grid:
        size = max(len(self.thresholds), len(scale), len(shift))
        factors, offsets = (
            [rational(v) for v in np.broadcast_to(array, size)] for array in (scale, shift)
        )
        old = (_widened(self.thresholds, size), _widened(self.shifts, size))
        thresholds = tuple(t / f for t, f in zip(old[0], factors, strict=True))
        shifts = tuple(s * f + o for s, f, o in zip(old[1], factors, offsets, strict=True))
        return Grid(thresholds, shifts, self.payload)


def _widened(values: tuple[Fraction, ...], size: int) -> tuple[Fraction, ...]:
    return values * size if len(values) == 1 else values


def _repeat(values: tuple[Fraction, ...], times: int) -> tuple[Fraction, ...]:
    return tuple(v for v in values for _ in range(times))


def frozen_thresholds(node: ir.Node | None) -> tuple[Fraction, ...] | None:
    """Potential of one spike per channel as an OnGrid node says it."""
    theta = constant(node.inputs[1]) if is_op(node, "OnGrid") and node is not None else None
    if theta is None:
        return None
    return tuple(Fraction(t) for t in theta.reshape(-1).astype(np.float64).tolist())


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
    """

    linear: Linear
    weight: Integers
    bias: Integers
    grid: Grid
    bits: int = 8
    shift: int | Integers = 0
    squeezed: float = 0.0
    squeezed_by: Linear | None = None

    def exact_weight(self) -> npt.NDArray[np.float64]:
        """The real weights in units of the integer ones."""
        theta = np.array([float(t) for t in self.grid.thresholds])
        column = _column(theta, self.linear.weight)
        return np.asarray(self.linear.weight * (column / 2.0 ** np.asarray(self.shift)))

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
        model: In stage ``integer``, behind fold-scale.
        precision: Bits of the weights, of each layer or of all.
    """
    chosen = Precision(precision) if isinstance(precision, int) else precision
    layers = {linear.out: linear for linear in _layers(model)}
    planned: dict[ir.Value, QuantisedLayer] = {}
    faults: list[Fault] = []
    has_grids = SOURCE_GRID in model.metadata_props
    for group in _groups(model, layers):
        bits = chosen.of(*(str(linear.out.name) for linear in group.layers))
        kept = _kept(group, bits) if has_grids else None
        for layer in kept or _quantise(group, bits, faults):
            planned[layer.linear.out] = replace(layer, bits=bits)
    return planned, faults


def shared_grids(model: ir.Model) -> list[list[ir.Value]]:
    """The results of layers, those that share a grid together."""
    layers = {linear.out: linear for linear in _layers(model)}
    return [[linear.out for linear in group.layers] for group in _groups(model, layers)]


@dataclass(frozen=True)
class _Group:
    """Layers that share a grid.

    Attributes:
        layers: In topological order.
        is_result: They feed the result.
        is_carried: They feed a neuron with memory.
        levels: The most levels that a neuron behind them has; 0: there is none.
        room: How far their potential may reach, so that it fits, and what it is added up to.
        still: Batch norms of the network that may be why weights are heavy.
    """

    layers: list[Linear]
    is_result: bool
    is_carried: bool
    levels: int
    room: float
    still: tuple[str, ...] = ()


def _layers(model: ir.Model) -> Iterator[Linear]:
    for node in nodes(model, "Conv", "Gemm"):
        if (linear := linear_behind(node)) is not None:
            yield linear


def _groups(model: ir.Model, layers: dict[ir.Value, Linear]) -> list[_Group]:
    """Connected components of potentials under addition, scaling, pooling and reshaping."""
    graph = nx.Graph()
    graph.add_nodes_from(layers)
    for node in model.graph:
        out = node.outputs[0]
        if node.op_type not in _TOGETHER or out in layers:
            continue
        for x in node.inputs:
            if x is not None and x in graph:
                graph.add_edge(x, out)
    order = {value: i for i, value in enumerate(layers)}
    growth, still = _growth(model, layers), tuple(still_norms(model))
    found = []
    for component in nx.connected_components(graph):
        members = sorted((v for v in component if v in layers), key=order.__getitem__)
        is_result = any(v.is_graph_output() for v in component)
        readers = [user for v in component for user, _ in v.uses() if user.op_type in NEURONS]
        is_carried = any(r.op_type == "StatefulFire" for r in readers)  # integer thresholds
        levels = max((int(attribute(r, "D")) for r in readers), default=0)
        added = max(growth[v][1] for v in component if v in growth)
        kept = max((_membrane_bits(r) for r in readers), default=0)
        room = _ROOM / added / 2.0**kept
        writers = [layers[v] for v in members]
        found.append(_Group(writers, is_result, is_carried, levels, room, still))
    return sorted(found, key=lambda g: order[g.layers[0].out])


def _growth(
    model: ir.Model, layers: Mapping[ir.Value, Linear]
) -> dict[ir.Value, tuple[frozenset[ir.Value], int]]:
    """Of every potential the layers in it, and how often one of them is in it at most."""
    found = {value: (frozenset([value]), 1) for value in layers}
    for node in model.graph:
        out = node.outputs[0]
        ahead = [found[x] for x in node.inputs if x in found]
        if node.op_type not in _TOGETHER or out in layers or not ahead:
            continue
        members = frozenset().union(*(m for m, _ in ahead))
        disjoint = sum(len(m) for m, _ in ahead) == len(members)
        times = (max if disjoint else sum)(n for _, n in ahead)
        if node.op_type == "SumPool":
            times *= prod(attribute(node, "kernel_shape"))
        found[out] = members, times * (attribute(node, "T") if node.op_type == "TimeSum" else 1)
    return found


def _membrane_bits(reader: ir.Node) -> int:
    """Bits that a membrane over timesteps takes beyond those of its potential.

    Those in which a simple decay is exact, if they are few; where it is rounded anyway, a finer
    potential is worth as much.
    """
    if reader.op_type != "StatefulFire":
        return 0
    carry = carry_of(reader)
    shift = fixed_decay(carry.decay)[1]
    exact = shift * (carry.T - 1)
    return shift + (exact if exact <= _MEMBRANE_BITS else 0) + carry.T.bit_length() + 1


def _quantise(group: _Group, bits: int, faults: list[Fault]) -> Iterable[QuantisedLayer]:
    if any(_frozen_by(linear) is not None for linear in group.layers):
        return _frozen(group, bits, faults)
    channels = {linear.weight.shape[0] for linear in group.layers}
    if group.is_result or len(channels) > 1:
        return _one_scale(group, bits, faults)
    if not group.is_carried and all(_is_single_tap(linear) for linear in group.layers):
        if len(group.layers) == 1:
            return [_counting(group.layers[0])]
        if (exact := _common_denominator(group, bits)) is not None:
            return exact
    return _per_channel(group, bits, faults)


def _kept(group: _Group, bits: int) -> list[QuantisedLayer] | None:
    """The integers that a quantised file has for the layer, if bits suffice."""
    linear = group.layers[0]
    if len(group.layers) > 1:
        return _near_integers(group, bits)
    if _is_single_tap(linear) and not group.is_result:
        return None
    found = kept_grid(linear, largest_weight(bits), group.is_result)
    is_pooled = any(user.op_type == "SumPool" for user, _ in linear.out.uses())
    if found is None or (is_pooled and any(found.shifts)):
        return None
    grid = Grid(found.thresholds, found.shifts, 0)
    return [QuantisedLayer(linear, found.weight, found.bias, grid)]


def _near_integers(group: _Group, bits: int) -> list[QuantisedLayer] | None:
    """Sums of spikes on different scales, each with one weight per output."""
    if group.is_result or any(x.bias.any() or not _is_single_tap(x) for x in group.layers):
        return None
    rows = [x.weight.reshape(len(x.weight), -1).max(axis=1) for x in group.layers]
    if len({len(row) for row in rows}) > 1:
        return None
    steps = [common_step(taps, largest_weight(bits)) for taps in np.stack(rows, axis=1)]
    grid = Grid(tuple(steps), (Fraction(0),) * len(steps), 0)
    theta = np.array([float(s) for s in steps])
    return [replace(_rounded(x, theta), grid=grid) for x in group.layers]


def _frozen_by(linear: Linear) -> ir.Node | None:
    """The OnGrid node that alone reads the layer's result."""
    reader = only_reader(linear.out)
    return reader if frozen_thresholds(reader) is not None else None


def _frozen(group: _Group, bits: int, faults: list[Fault]) -> list[QuantisedLayer]:
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
    todo = "compile what snncc.on_grid made, unchanged, with the same --weight-bits"
    return Fault(what, label(node), node.op_type, origin.module, origin.source, todo)


def _is_single_tap(linear: Linear) -> bool:
    """One positive weight per output and nothing at borders."""
    rows = linear.weight.reshape(linear.weight.shape[0], -1)
    single = bool((np.count_nonzero(rows, axis=1) == 1).all() and (rows.max(axis=1) > 0).all())
    readers = {user.op_type for user, _ in linear.out.uses()}
    if linear.bias.any() and readers & {"SumPool", "PatchMask"}:
        return False  # where a shift is there, and how often, depends on the place
    return single and linear.bias.ndim == 1


def _counting(linear: Linear) -> QuantisedLayer:
    """One weight per output is the threshold itself: nothing rounds."""
    taps = linear.weight.reshape(linear.weight.shape[0], -1).max(axis=1)
    thresholds = tuple(1 / rational(t) for t in taps)
    grid = Grid(thresholds, tuple(rational(b) for b in linear.bias), 0)
    ones = (linear.weight != 0).astype(np.int64)
    return QuantisedLayer(linear, ones, np.zeros(len(taps), dtype=np.int64), grid)


def _common_denominator(group: _Group, bits: int) -> list[QuantisedLayer] | None:
    """Branches of one weight per output, all simple fractions: an integer grid holds them all."""
    taps = [
        linear.weight.reshape(linear.weight.shape[0], -1).max(axis=1) for linear in group.layers
    ]
    if any(linear.bias.any() for linear in group.layers):
        return None
    fractions = [[rational(t, 256) for t in row] for row in taps]
    theta = np.array(
        [lcm(*(f.denominator for f in column)) for column in zip(*fractions, strict=True)]
    )
    if max(float(row.max()) for row in taps) * float(theta.max()) > largest_weight(bits):
        return None
    return [_rounded(linear, theta) for linear in group.layers]


def _per_channel(group: _Group, bits: int, faults: list[Fault]) -> list[QuantisedLayer]:
    masks = heavy(group.layers, group.levels)
    pairs = list(zip(group.layers, masks, strict=True))
    largest = np.array([row_maxima(linear, ~mask) for linear, mask in pairs])
    shifts = writer_shifts(largest, [error_of(linear) for linear in group.layers])
    most = (largest / 2.0 ** np.array(shifts)[:, np.newaxis]).max(axis=0)
    if any(mask.any() for mask in masks):
        most = _least(most, *(row_maxima(linear, mask) for linear, mask in pairs))
    theta = odd_thresholds(most, bits)
    if (theta >= 1).all() and not any(mask.any() for mask in masks):
        return [_rounded(linear, theta, s) for linear, s in zip(group.layers, shifts, strict=True)]
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
    group: _Group,
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


def odd_thresholds(most: npt.NDArray[Any], bits: int) -> Integers:
    """Largest odd theta with theta * most <= w_max, per channel; below 1 where there is none."""
    with np.errstate(divide="ignore"):
        theta = np.minimum(largest_weight(bits) / most, 2 ** (12 + bits) - 1)
    whole = np.floor(theta).astype(np.int64)
    return np.asarray(whole - (whole + 1) % 2)


def _one_scale(group: _Group, bits: int, faults: list[Fault]) -> list[QuantisedLayer]:
    masks = heavy(group.layers, group.levels)
    pairs = zip(group.layers, masks, strict=True)
    most = max(float(row_maxima(linear, ~mask).max(initial=0.0)) for linear, mask in pairs) or 1.0
    theta = largest_weight(bits) / most
    if any(mask.any() for mask in masks):
        reached = sum(float(reach(linear).max()) for linear in group.layers)
        fits = np.array([min(theta, group.room / reached)])
        lost = float(np.log2(theta / fits[0]))
        return _squeezed(group, masks, fits, lost, [0] * len(group.layers), bits, faults)
    return [_rounded(x, np.full(x.weight.shape[0], theta)) for x in group.layers]


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


def _no_room(group: _Group, heaviest: Linear, left: float) -> Fault:
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
