"""on_grid: a trained network as one to be fine-tuned on the compiler's own integer grid."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from snncc.compiler.given import frames_of
from snncc.errors import Fault, UnsupportedModelError, UsageError
from snncc.ir.carried import carry_of
from snncc.ir.gate_ops import AND_NOT
from snncc.ir.graphs import attribute, constant, label, only_reader, provenance, static_shape
from snncc.ir.metadata import TIMESTEPS
from snncc.ir.ops import traits
from snncc.ir.results import ALONE, results_of
from snncc.nn import IntegerFire
from snncc.nn.grid import (
    GridConv2d,
    GridLinear,
    GridStateful,
    GridTimeSum,
    SpikeAttention,
    SumPool2d,
)
from snncc.passes.integers.grid import Grid
from snncc.passes.integers.membranes import membrane
from snncc.passes.integers.products import reach_of_product, trains_of
from snncc.passes.integers.round_for_pixels import round_for_pixels
from snncc.passes.integers.shared_grids import QuantisedLayer, largest_weight, odd_thresholds, plan
from snncc.passes.reading import linear_behind

if TYPE_CHECKING:
    import onnx_ir as ir

    from snncc.frontends.sequences import Frames

__all__ = ["on_grid"]

Array = npt.NDArray[Any]

#: Largest pixel.
_PIXEL = 255


def on_grid(
    module: nn.Module,
    weight_bits: int = 8,
    input_shape: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    timesteps: int | None = None,
    batch_first: bool | None = None,
) -> fx.GraphModule:
    """The network as the compiler sees it, trainable, with weights on the compiler's grid.

    Normalisation of the input, batch norms, norms and chains of linear layers are folded into
    ``GridConv2d`` and ``GridLinear`` layers, named by the module path of the layers they come from;
    branches that are added share a grid. Their grids are frozen: train the result (learning rates
    of ``weight`` are in steps of the grid, a few hundredths), then compile it with the same
    ``weight_bits``: no activation changes.

    The result takes raw pixels 0..255 as float32, *not normalised*; its ``default_cfg`` says so to
    the compiler. Before any training it is the trained network at ``weight_bits``. A network over
    timesteps takes its input as before, repeats a static one itself, and has the surrogate
    gradients of ``LIF`` and ``ILIF``; time constants are not trained further. Its spikes and
    results are the compiled network's, bit for bit; a report, which compares in float64, may count
    a few where a membrane meets a threshold exactly. What returns several results returns them in a
    dict, by the names that compiling gives them.

    Args:
        module: A trained network that compiles, with raw pixels as its input; stays untouched.
        weight_bits: 4 to 24.
        input_shape: (C, H, W) or (F,); default: the module's ``default_cfg``, like the others.
        mean: Of pixel / 255, per channel.
        std: Likewise.
        timesteps: T, if the network reads sequences; default: as its ``default_cfg`` says.
        batch_first: It reads them as [N, T, ...], not [T, N, ...]; default likewise.

    Raises:
        UnsupportedModelError: It does not compile, or has parts that cannot be trained on a grid.
        UsageError: Shape or bits are not known or not possible, or it is on a grid already.
    """
    if not 4 <= weight_bits <= 24:
        raise UsageError(f"on_grid: weight_bits={weight_bits}; 4 to 24 are possible")
    trained = _read(module, input_shape, mean, std, timesteps, batch_first)
    model, apart = _integer_graph(trained)
    planned, faults = plan(model, weight_bits)
    if faults:
        raise UnsupportedModelError("the weights do not fit their bits", faults)
    layers = round_for_pixels(planned)
    builder = _Builder(model, layers, weight_bits, trained.frames.batch_first)
    net = builder.build(type(trained.module).__name__, apart)
    net.default_cfg = _config_of(trained)  # type: ignore[assignment]
    return net


@dataclass(frozen=True)
class _Trained:
    """A trained network, and what its input is.

    Attributes:
        module: The network, which stays untouched.
        shape: One sample, (C, H, W) or (F,); of a sequence one timestep.
        mean: Of pixel / 255, for each channel.
        std: Likewise.
        frames: Whether the input is a sequence.
    """

    module: nn.Module
    shape: tuple[int, ...]
    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    frames: Frames


def _read(
    module: nn.Module,
    input_shape: Sequence[int] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    timesteps: int | None,
    batch_first: bool | None,
) -> _Trained:
    """What is given, else what the module's ``default_cfg`` says.

    Raises:
        UsageError: The shape is not known, or the network is on a grid already.
    """
    from snncc.frontends.pytorch import unwrapped

    module = unwrapped(module)
    config = getattr(module, "default_cfg", {})
    shape = input_shape or config.get("input_size")
    if shape is None:
        raise UsageError("on_grid: the input's shape is not known; give input_shape")
    if any(isinstance(part, (GridConv2d, GridLinear)) for part in module.modules()):
        raise UsageError("on_grid: the network is on a grid already; train and compile it")
    means, stds = (
        np.broadcast_to(np.asarray(config.get(k, d) if v is None else v, np.float64), shape[0])
        for v, k, d in ((mean, "mean", 0), (std, "std", 1))
    )
    frames = frames_of(timesteps, batch_first, config)
    return _Trained(module, tuple(shape), means, stds, frames)


def _integer_graph(trained: _Trained) -> tuple[ir.Model, list[bool]]:
    """The graph in which every layer reads integers; which results the module has with T apart."""
    from snncc.frontends.pytorch import import_module
    from snncc.passes import PassManager, to_integer
    from snncc.passes.fold.merge_linear import MergeLinear
    from snncc.passes.fold.no_neuron_between import MERGE
    from snncc.passes.integers.quantise_input import QuantiseInput

    source = QuantiseInput(tuple(1 / (255 * trained.std)), tuple(-trained.mean / trained.std))
    imported = import_module(trained.module, trained.shape, frames=trained.frames)
    ranks = [len(out.shape or ()) for out in imported.graph.outputs]
    model = PassManager(to_integer(source, merge=MergeLinear(MERGE))).run(imported)
    pairs = zip(ranks, model.graph.outputs, strict=True)
    return model, [rank > len(out.shape or ()) for rank, out in pairs]


def _config_of(trained: _Trained) -> dict[str, Any]:
    """What the network on the grid says of its input: pixels as they are."""
    channels, frames = trained.shape[0], trained.frames
    config: dict[str, Any] = {
        "input_size": trained.shape,
        "mean": (0.0,) * channels,
        "std": (1 / 255,) * channels,
    }
    if frames.timesteps:
        config |= {"timesteps": frames.timesteps, "batch_first": frames.batch_first}
    return config


class _Builder:
    """A graph of torch.fx from one in stage ``integer``, node by node."""

    def __init__(
        self,
        model: ir.Model,
        planned: dict[ir.Value, QuantisedLayer],
        bits: int,
        batch_first: bool,
    ) -> None:
        self.model, self.planned, self.bits = model, planned, bits
        self.batch_first = batch_first
        self.root, self.graph = nn.Module(), fx.Graph()
        self.made: dict[ir.Value, fx.Node] = {}
        self.grids: dict[ir.Value, Grid] = {}
        self.faults: list[Fault] = []
        self.paths: set[str] = set()
        parts = (_identifiers(label(node)).split(".") for node in model.graph)
        self.containers = {".".join(p[:i]) for p in parts for i in range(1, len(p))}

    def build(self, name: str, apart: Sequence[bool]) -> fx.GraphModule:
        """The network; the root holds its layers under the module paths of their origin.

        Args:
            name: Of the class of the network.
            apart: Of each result, whether it is [T, N, ...] where the graph has [T*N, ...].
        """
        self.made[self.model.graph.inputs[0]] = self.graph.placeholder("x")
        self.grids[self.model.graph.inputs[0]] = Grid.counts(_PIXEL)
        for node in self.model.graph:
            if node.outputs[0] not in self.made:
                self._visit(node)
            self._follow(node)
        if self.faults:
            raise UnsupportedModelError("the network cannot be put on a grid", self.faults)
        named = results_of(self.model)
        found = {key: self._result(place, apart[place]) for key, (place,) in named.items()}
        self.graph.output(found[ALONE] if [*found] == [ALONE] else found)
        return fx.GraphModule(self.root, self.graph, f"{name}OnGrid")

    def _result(self, place: int, is_apart: bool) -> fx.Node:
        from snncc.passes.fold.fold_scale import output_scales

        out, scale = self.made[self.model.graph.outputs[place]], output_scales(self.model)[place]
        if scale != 1.0:
            out = self.graph.call_function(operator.mul, (out, scale))
        if is_apart:
            T = int(self.model.metadata_props[TIMESTEPS])
            out = self.graph.call_method("unflatten", (out, 0, (T, -1)))
        return out

    def _visit(self, node: ir.Node) -> None:
        x, out = node.inputs[0], node.outputs[0]
        if x is None:
            return
        asked = traits(node)
        if asked.weighs:
            self._layer(node)
        elif (rule := _SPIKES.get(node.op_type)) is not None:
            rule(self, node, x)
        elif asked.begins_time or asked.ends_time:
            self._time(node, x)
        elif asked.pools:
            self._pool(node, x)
        elif asked.regroups:
            size = static_shape(out) or (1,)
            flat = nn.Flatten(1) if len(size) == 1 else nn.Unflatten(1, size)
            self._call(node, flat, x)
        elif asked.is_view:
            self.made[out] = self.made[x]
        elif asked.joins:
            left, right = (self.made[v] for v in node.inputs if v is not None)
            self.made[out] = self.graph.call_function(operator.add, (left, right))
        elif asked.is_affine:
            self._affine(node)
        else:
            self._fault(node, f"{node.op_type} has no trainable form", "compile it as it is")

    def _follow(self, node: ir.Node) -> None:
        """Note the grid of what was just made; results of layers have theirs already."""
        x, out = node.inputs[0], node.outputs[0]
        if x is None or out in self.grids:
            return
        if traits(node).fires:
            self.grids[out] = Grid.counts(attribute(node, "D"))
        elif traits(node).multiplies:
            payloads = [self.grids[train].payload for train in trains_of(node)]
            self.grids[out] = Grid.counts(reach_of_product(node, payloads)[1])
        else:
            after = self.grids[x].after(node)
            branches = (self.grids[v].payload for v in node.inputs if v in self.grids)
            self.grids[out] = replace(after, payload=max(after.payload, sum(branches)))

    def _time(self, node: ir.Node, x: ir.Value) -> None:
        """Where timesteps begin, and where they end."""
        T, out, before = attribute(node, "T"), node.outputs[0], self.made[x]
        if traits(node).ends_time:
            threshold = float(self.grids[x].thresholds[0])
            self._call(node, GridTimeSum(T, threshold), x)
            return
        if node.op_type == "Repeat":
            sizes = [-1] * (1 + len(static_shape(x) or ()))
            one = self.graph.call_method("unsqueeze", (before, 0))
            before = self.graph.call_method("expand", (one, T, *sizes))
        elif self.batch_first:
            before = self.graph.call_method("transpose", (before, 0, 1))
        self.made[out] = self.graph.call_method("flatten", (before, 0, 1))

    def _integer(self, node: ir.Node, x: ir.Value) -> None:
        rounding = attribute(node, "rounding")
        if attribute(node, "low", 0) or rounding == "down":
            told = "a neuron that counts from elsewhere than 0, or rounds down"
            self._fault(node, f"{told}, has no trainable form", "compile it as it is")
            return
        self._call(node, IntegerFire(attribute(node, "D"), 1.0, rounding), x)

    def _attention(self, node: ir.Node, x: ir.Value) -> None:
        self._call(node, SpikeAttention(attribute(node, "heads")), *trains_of(node))

    def _gate(self, node: ir.Node, x: ir.Value) -> None:
        """A product of counts, or of one and what the other did not fire."""
        one, two = (self.made[train] for train in trains_of(node))
        if attribute(node, "kind") == AND_NOT:
            two = self.graph.call_function(operator.sub, (float(attribute(node, "most")), two))
        self.made[node.outputs[0]] = self.graph.call_function(operator.mul, (one, two))

    def _stateful(self, node: ir.Node, x: ir.Value) -> None:
        """A neuron with memory, on the membrane that the compiler gives it."""
        carry, grid, out = carry_of(node), self.grids[x], node.outputs[0]
        if any(grid.shifts) or any(t <= 0 for t in grid.thresholds):
            what = "a shift or negative scale before a neuron with memory"
            self._fault(node, what, "a layer right before it")
            return
        made = membrane(grid, carry)
        if made is None:
            self._fault(node, "its membrane does not fit 64 bits", "fewer weight bits")
            return
        theta = np.array([float(t) for t in grid.thresholds])
        unit, table, taken = map(torch.from_numpy, (theta, made.levels, made.threshold))
        rank = len(out.shape or ())
        decay, current = (_of_channels(each, rank) for each in (carry.decay, carry.current))
        fixed, slow = ((_of_channels(n, rank), shift) for n, shift in (made.decay, made.current))
        neuron = GridStateful(
            carry.D, carry.rule, carry.reset, decay, fixed, made.fraction, unit, table, taken,
            current, slow,
        )  # fmt: skip
        self._call(node, neuron, x, apart=carry.T)
        self.grids[out] = Grid.counts(carry.D)

    def _call(
        self,
        node: ir.Node,
        layer: nn.Module,
        *inputs: ir.Value,
        at: ir.Value | None = None,
        apart: int = 0,
    ) -> None:
        """Call the layer on values of the graph, or on [T, N, ...] of them if T is ``apart``."""
        path = self._path(node)
        owner = self.root
        *parents, last = path.split(".")
        for name in parents:
            if not hasattr(owner, name):
                owner.add_module(name, nn.Module())
            owner = getattr(owner, name)
        owner.add_module(last, layer)
        before = tuple(self.made[x] for x in inputs)
        if apart:
            before = tuple(self.graph.call_method("unflatten", (x, 0, (apart, -1))) for x in before)
        made = self.graph.call_module(path, before)
        if apart:
            made = self.graph.call_method("flatten", (made, 0, 1))
        self.made[at or node.outputs[0]] = made

    def _path(self, node: ir.Node) -> str:
        """The origin's module path, made unique; no other node's path may lead through it."""
        base = _identifiers(label(node))
        if base in self.containers:
            base += f".{node.op_type.lower()}"
        path = base
        count = 1
        while path in self.paths:
            count += 1
            path = f"{base}_{count}"
        self.paths.add(path)
        return path

    def _layer(self, node: ir.Node) -> None:
        found = linear_behind(node)
        if found is None:
            return
        layer = self.planned[found.out]
        linear, theta = layer.linear, self._theta(layer)
        bias, border = linear.bias, None
        if bias.ndim == 3:
            centre = bias[:, bias.shape[1] // 2, bias.shape[2] // 2]
            bias, border = centre, torch.from_numpy(bias - centre[:, None, None])
        weight, own, grid = (
            torch.from_numpy(np.array(a)) for a in (_steps(layer, theta), bias, theta)
        )
        limit, shift = largest_weight(self.bits), layer.shift
        step = shift if isinstance(shift, int) else torch.from_numpy(shift)
        made: GridConv2d | GridLinear
        if linear.kind == "gemm":
            made = GridLinear(weight, own, grid, border, limit, step)
        else:
            if linear.pads[:2] != linear.pads[2:]:
                self._fault(node, f"pads {linear.pads}", "pad alike on both sides")
            geometry = (linear.strides, linear.pads[:2], linear.dilations, linear.group)
            made = GridConv2d(weight, own, grid, border, limit, step, *geometry)
        if _single(linear.weight):  # a scale: its grid has no room for training
            made.weight.requires_grad_(False)
        self._call(node, made, linear.x, at=linear.out)
        self.grids[linear.out] = self._grid(layer, theta)

    def _grid(self, layer: QuantisedLayer, theta: npt.NDArray[np.float64]) -> Grid:
        """What the integers of a layer's potential mean, and how far they reach."""
        whole = tuple(Fraction(t) for t in theta.tolist())
        moved = (np.abs(layer.weight) << layer.shift).reshape(len(layer.weight), -1).sum(1)
        reach = self.grids[layer.linear.x].payload * int(moved.max(initial=0))
        bound = reach + int(np.abs(layer.bias).max(initial=0))
        return Grid(whole, (Fraction(0),) * len(whole), bound)

    def _theta(self, layer: QuantisedLayer) -> npt.NDArray[np.float64]:
        if any(layer.grid.shifts):  # on this grid the shift is no integer
            rows = np.abs(layer.linear.weight).reshape(len(layer.linear.weight), -1)
            return odd_thresholds(rows.max(axis=1), self.bits).astype(np.float64)
        theta = np.array([float(t) for t in layer.grid.thresholds])
        return theta.astype(np.float32).astype(np.float64)

    def _pool(self, node: ir.Node, x: ir.Value) -> None:
        kernel, strides, pads = (attribute(node, k) for k in ("kernel_shape", "strides", "pads"))
        if pads[:2] != pads[2:] or 2 * pads[0] > kernel[0] or 2 * pads[1] > kernel[1]:
            self._fault(node, f"pads {pads} of a window {kernel}", "pad alike, up to half a window")
            return
        window = (kernel, strides, pads[:2])
        reader = only_reader(node.outputs[0])
        share = (
            constant(reader.inputs[1]) if reader is not None and reader.op_type == "Mul" else None
        )
        if traits(node).takes_maximum:
            self._call(node, nn.MaxPool2d(*window), x)
        elif reader is not None and share is not None and _is_share(share, prod(kernel)):
            self._call(node, nn.AvgPool2d(*window), x, at=reader.outputs[0])
        else:
            self._call(node, SumPool2d(*window), x)

    def _affine(self, node: ir.Node) -> None:
        value = next(v for v in node.inputs if constant(v) is not None)
        x = next(v for v in node.inputs if v is not value)
        name = self._path(node).replace(".", "_")
        array = np.array(constant(value), ndmin=1)  # single numbers, too: checkpoints have them so
        self.root.register_buffer(name, torch.from_numpy(array))
        do = operator.add if node.op_type == "Add" else operator.mul
        args = (self.made[x], self.graph.get_attr(name))  # type: ignore[index]
        self.made[node.outputs[0]] = self.graph.call_function(do, args)

    def _fault(self, node: ir.Node, what: str, todo: str) -> None:
        """Note what cannot be made; its input stands in for it, so that the rest is visited."""
        x = node.inputs[0]
        if x is not None:
            self.made.setdefault(node.outputs[0], self.made[x])
        origin = provenance(node)
        self.faults.append(
            Fault(what, label(node), node.op_type, origin.module, origin.source, todo)
        )


def _of_channels(numbers: Any, rank: int) -> torch.Tensor:
    """One number, or one of each channel, for a value of that rank."""
    each = torch.from_numpy(np.asarray(numbers)).flatten()
    return each[0] if len(each) == 1 else each.reshape(-1, *(1,) * (rank - 2))


#: What fires, and products of trains.
_SPIKES: Mapping[str, Callable[[_Builder, ir.Node, ir.Value], None]] = {
    "IntegerFire": _Builder._integer,
    "StatefulFire": _Builder._stateful,
    "Attention": _Builder._attention,
    "Gate": _Builder._gate,
}


def _identifiers(path: str) -> str:
    """The module path with every part fit for a Python name."""
    return ".".join(re.sub(r"\W", "_", part) or "_" for part in path.split("."))


def _is_share(value: Array, count: int) -> bool:
    return value.size == 1 and np.float32(value.reshape(-1)[0]) == np.float32(1 / count)


def _steps(layer: QuantisedLayer, theta: Array) -> Array:
    """The real weights in steps; the layer's integers where those were not the nearest."""
    column = theta.reshape(-1, *(1,) * (layer.weight.ndim - 1))
    steps = np.asarray(layer.linear.weight * column / 2.0 ** np.asarray(layer.shift))
    if any(layer.grid.shifts):
        return steps
    return np.where(np.rint(steps) == layer.weight, steps, layer.weight)


def _single(weight: Array) -> bool:
    """One weight per output: a scale."""
    return bool((np.count_nonzero(weight.reshape(len(weight), -1), axis=1) <= 1).all())
