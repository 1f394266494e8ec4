"""build-program: the quantised graph as a Program, the form that every backend reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import onnx_ir as ir

from snncc.errors import SnnccError
from snncc.ir.gate_ops import AND_NOT
from snncc.ir.graphs import (
    attribute,
    constant,
    is_sequence,
    provenance,
    static_shape,
)
from snncc.ir.metadata import NORM, ROUNDING, TIMESTEPS
from snncc.ir.names import POTENTIAL, RESULT
from snncc.ir.ops import having, summed, traits
from snncc.ir.results import ALONE, results_of
from snncc.passes.fold.fold_scale import output_scales
from snncc.passes.integers.neurons import program_fields
from snncc.passes.integers.payloads import PLACES, digits_of
from snncc.program import (
    Accumulator,
    Array,
    Attention,
    Gate,
    Neuron,
    Node,
    Pool,
    Program,
    Projection,
    Readout,
    Relay,
    Source,
    Sum,
)
from snncc.program.attention import ORDERS, reach_of
from snncc.program.bounds import bounded, emitted_payload
from snncc.program.nodes.projection import coarse
from snncc.program.timing import firing_window, required_depth

__all__ = ["build_program"]


def build_program(
    model: ir.Model,
    name: str,
    timesteps: int | None = None,
    end: Callable[[Program], Program] = lambda program: program,
) -> Program:
    """Nodes and arrays of a graph in stage ``quantised``.

    Populations and accumulators keep the names of the graph's values, so that engines can be
    compared name by name.

    Args:
        model: In stage ``quantised``.
        name: Of the network.
        timesteps: T; default: the graph's.
        end: What the host adds to the readouts, without which some may say nothing.

    Raises:
        SnnccError: The graph holds an operator that has no Program form (a compiler fault).
    """
    work = _Build(lead=int(is_sequence(model)))
    for value in model.graph.inputs:
        if value.dtype == ir.DataType.UINT8:
            work.add(value, Source(str(value.name), _shape(value)[work.lead :], 255))
    for node in model.graph:
        work.visit(node)
    nodes = (*work.nodes.values(), *_readouts(model, work))
    ticks = max((n.D for n in nodes if isinstance(n, Neuron)), default=1)
    T = timesteps or int(model.metadata_props.get(TIMESTEPS, "1"))
    program = end(Program(name, nodes, T, ticks))
    program.validate()
    return program


def _readouts(model: ir.Model, work: _Build) -> Iterator[Readout]:
    """The graph's results, each by its name; what one is the sum of is numbered."""
    outs, scales, results = model.graph.outputs, output_scales(model), results_of(model)
    for result, places in results.items():
        for i, place in enumerate(places):
            out, source = outs[place], work.names[outs[place]]
            module = getattr(work.nodes[source], "module", "")
            over_time = "sum" if traits(out.producer()).ends_time else "each"
            own = result if len(places) == 1 else f"{result}{i}"
            is_taken = own in work.nodes or (own != result and own in results)
            name = f"{own}{RESULT}" if is_taken else own
            is_plain = own == name and [*results] == [ALONE]
            named = None if is_plain else result
            yield Readout(name, _shape(out), source, scales[place], module, over_time, result=named)


def _known_as(node: ir.Node) -> str:
    """Module path for people; of a node without one, its name in the file."""
    return provenance(node).module or str(node.outputs[0].name).removesuffix(POTENTIAL)


#: Slices of a layer, by shift and place; and products of these with digits of what is read.
_Parts = dict[tuple[int, int], Projection]
_Products = dict[tuple[int, int, int], Projection]


def _shape(value: ir.Value) -> tuple[int, ...]:
    shape = static_shape(value)
    if shape is None:
        raise SnnccError(f"build-program: '{value.name}' has no static shape")
    return shape


@dataclass
class _Build:
    """Program nodes so far, and which of them each graph value is emitted by.

    ``lead`` is the number of axes before a timestep's in the input's shape per sample; ``digits``
    are the places of digits of potentials, ``places`` those of what products make of them.
    """

    lead: int = 0
    nodes: dict[str, Node] = field(default_factory=dict)
    names: dict[ir.Value, str] = field(default_factory=dict)
    products: dict[ir.Value, Projection] = field(default_factory=dict)
    digits: dict[ir.Value, int] = field(default_factory=dict)
    places: dict[ir.Value, int] = field(default_factory=dict)
    sums: dict[ir.Value, tuple[Array, _Products]] = field(default_factory=dict)

    def add(self, value: ir.Value, node: Node) -> None:
        """A node that emits ``value``."""
        self.nodes[node.name] = node
        self.names[value] = node.name

    def visit(self, node: ir.Node) -> None:
        """Translate one graph node."""
        rule = _VISITORS.get(node.op_type)
        if rule is None:
            raise SnnccError(f"build-program: no form for '{node.name}' ({node.op_type})")
        rule(self, node)


def _source(build: _Build, node: ir.Node) -> None:
    out = node.outputs[0]
    build.add(out, Source(str(out.name), _shape(out)[build.lead :], attribute(node, "top", 255)))


def _view(build: _Build, node: ir.Node) -> None:
    """Casts and reshapes change no integer: the value is emitted by the same node."""
    x = node.inputs[0]
    if x is not None:
        build.names[node.outputs[0]] = build.names[x]


def _digit(build: _Build, node: ir.Node) -> None:
    """A digit of a potential is emitted by its accumulator, which hands all of it on at once."""
    _view(build, node)
    build.digits[node.outputs[0]] = attribute(node, "place")


def _product(build: _Build, node: ir.Node) -> None:
    x, weight = node.inputs[0], constant(node.inputs[1])
    if x is None or weight is None:
        raise SnnccError(f"build-program: '{node.name}' lacks an input")
    source = build.names[x]
    payload = emitted_payload(build.nodes[source])
    if node.op_type == "QGemm":
        made = Projection(source, "linear", (weight,), payload)
    else:
        made = Projection(
            source,
            "conv",
            (weight,),
            payload,
            strides=tuple(attribute(node, "strides")),
            pads=tuple(attribute(node, "pads")),
            dilations=tuple(attribute(node, "dilations")),
            groups=attribute(node, "group"),
        )
    build.products[node.outputs[0]] = made
    is_digit = x in build.digits
    if build.nodes[source].is_potential != is_digit:
        raise SnnccError(f"build-program: '{node.name}' reads no digit, or one of counts")
    build.places[node.outputs[0]] = build.digits.get(x, 0)


def _slice_sum(build: _Build, node: ir.Node) -> None:
    """Collect a chain of slices; the last one is the accumulator."""
    base, acc = node.inputs
    out, shift = node.outputs[0], attribute(node, "shift")
    if base is None or acc is None:
        raise SnnccError(f"build-program: '{node.name}' lacks an input")
    digit = build.places[acc]
    place = shift, attribute(node, "slice") - digit, digit
    start = constant(base)
    bias, parts = (start, {}) if start is not None else build.sums[base]
    parts = dict(parts)
    product = replace(build.products[acc], shift=shift)
    if place in parts:  # a chunk: split over inputs for float32, one slice here
        product = replace(product, weights=(parts[place].weights[0] + product.weights[0],))
    parts[place] = product
    build.sums[out] = (bias, parts)
    readers = [user.op_type for user, _ in out.uses()]
    if "SliceSum" not in readers:
        _require_digits(build, node, parts)
        lowest = {(s, p): part for (s, p, digit), part in parts.items() if digit == 0}
        _accumulator(build, node, bias, lowest)


def _require_digits(build: _Build, node: ir.Node, parts: _Products) -> None:
    """All digits of a potential meet all slices: else it is not the potential that is read.

    There may be more than it needs.
    """
    for (shift, p, _), part in parts.items():
        needed = digits_of(part.payload) if build.nodes[part.source].is_potential else 1
        found = sorted(d for s, q, d in parts if (s, q) == (shift, p))
        whole = len(found) >= min(needed, PLACES - p) and found == [*range(len(found))]
        if not whole or not np.array_equal(part.weights[0], parts[shift, p, 0].weights[0]):
            raise SnnccError(f"build-program: '{node.name}' does not read all of a potential")


def _accumulator(build: _Build, node: ir.Node, bias: Array, parts: _Parts) -> None:
    """One projection for each shift that weights of the layer have."""
    out = node.outputs[0]
    shape = _shape(out)
    projections = tuple(
        replace(parts[shift, 0], weights=tuple(parts[p].weights[0] for p in places))
        for shift, places in _by_shift(parts).items()
    )
    whole = bias.reshape(shape) if bias.size == prod(shape) else bias.reshape(-1)
    whole = whole.astype(np.int64)
    made = Accumulator(str(out.name), shape, projections, whole, 0, 0, _known_as(node))
    build.add(out, bounded(made, build.nodes))


def _by_shift(parts: _Parts) -> dict[int, list[tuple[int, int]]]:
    found: dict[int, list[tuple[int, int]]] = {}
    for place in sorted(parts):
        found.setdefault(place[0], []).append(place)
    return found


def _add(build: _Build, node: ir.Node) -> None:
    """Branches meet in a new accumulator; one that nobody else reads dissolves into it."""
    out, shape = node.outputs[0], _shape(node.outputs[0])
    projections: list[Projection] = []
    bias = np.zeros(shape[:1], dtype=np.int64)
    for value in node.inputs:
        if value is None:
            continue
        branch = build.nodes[build.names[value]]
        if isinstance(branch, Accumulator) and _only_here(value, branch, shape):
            del build.nodes[branch.name]
            projections += branch.projections
            bias = _joined(bias, branch.bias, shape)
        else:
            payload = emitted_payload(branch)
            projections.append(Projection(branch.name, "identity", payload=payload))
    module = _known_as(node)
    made = Accumulator(str(out.name), shape, tuple(projections), bias, 0, 0, module)
    build.add(out, bounded(made, build.nodes))


def _only_here(value: ir.Value, branch: Accumulator, shape: tuple[int, ...]) -> bool:
    """Whether an unmasked accumulator can dissolve into the one reader of its potential."""
    made_here = value.name == branch.name and branch.shape == shape and branch.masked is None
    return made_here and len(value.uses()) == 1 and not value.is_graph_output()


def _coarse(build: _Build, node: ir.Node) -> None:
    """A rounded potential is that of an accumulator of its own."""
    x, out, drop = node.inputs[0], node.outputs[0], attribute(node, "drop")
    if x is None:
        raise SnnccError(f"build-program: '{node.name}' lacks an input")
    source, shape = build.nodes[build.names[x]], _shape(out)
    payload = coarse(emitted_payload(source), drop)
    through = Projection(source.name, "identity", payload=payload, drop=drop)
    none = np.zeros(shape[:1], dtype=np.int64)
    made = Accumulator(str(out.name), shape, (through,), none, 0, 0, _known_as(node))
    build.add(out, bounded(made, build.nodes))


def _masked(build: _Build, node: ir.Node) -> None:
    """The accumulator is masked; one that others read unmasked gets a masked copy."""
    x, mask = node.inputs
    if x is None or mask is None:
        raise SnnccError(f"build-program: '{node.name}' lacks an input")
    out, shape, (_, h, w) = node.outputs[0], _shape(node.outputs[0]), _shape(mask)
    whole = build.nodes[build.names[x]]
    if isinstance(whole, Accumulator) and _only_here(x, whole, shape):
        del build.nodes[whole.name]
    else:
        through = Projection(whole.name, "identity", payload=emitted_payload(whole))
        none = np.zeros(shape[:1], dtype=np.int64)
        whole = Accumulator("", shape, (through,), none, 0, 0, _known_as(node))
    made = replace(whole, name=str(out.name), masked=(h, w))
    build.add(out, bounded(made, build.nodes))


def _no_node(build: _Build, node: ir.Node) -> None:
    """The patch mask is part of the source: masked accumulators know how to read it there."""


def _joined(one: Array, two: Array, shape: tuple[int, ...]) -> Array:
    """The sum of two biases, per channel or full."""
    if one.shape == two.shape:
        return one + two
    tail = (1,) * (len(shape) - 1)
    wide = [b if b.shape == shape else b.reshape(-1, *tail) for b in (one, two)]
    return wide[0] + wide[1]


def _fire(build: _Build, node: ir.Node) -> None:
    v, table = node.inputs[0], constant(node.inputs[1])
    if v is None or table is None:
        raise SnnccError(f"build-program: '{node.name}' lacks an input")
    out = node.outputs[0]
    source = build.names[v]
    made = Neuron(
        str(out.name),
        _shape(out),
        source,
        table,
        depth=0,
        norm=float(node.metadata_props.get(NORM, "1")),
        rounding=node.metadata_props.get(ROUNDING, "half-even"),
        module=_known_as(node),
    )
    made = replace(made, **program_fields(node))
    build.add(out, replace(made, depth=required_depth(made, build.nodes)))


def _pool(build: _Build, node: ir.Node) -> None:
    """A pool; where it sums potentials, an accumulator after it holds the sums."""
    x, out = node.inputs[0], node.outputs[0]
    if x is None:
        raise SnnccError(f"build-program: '{node.name}' lacks an input")
    source = build.nodes[build.names[x]]
    of_potential = isinstance(source, Accumulator)
    kind = "max" if traits(node).takes_maximum else "sum"
    kernel = attribute(node, "kernel_shape")
    payload = emitted_payload(source) * summed(node)
    made = Pool(
        f"{out.name}/pool" if of_potential else str(out.name),
        _shape(out),
        source.name,
        kind,
        tuple(kernel),
        tuple(attribute(node, "strides")),
        tuple(attribute(node, "pads")),
        payload,
        _known_as(node),
    )
    build.add(out, made)
    if of_potential:
        _holder(build, out, made)


def _attention(build: _Build, node: ir.Node) -> None:
    """Attention, with the train that is read last relayed after the other two."""
    out, module, order = node.outputs[0], _known_as(node), attribute(node, "order")
    names = [build.names[x] for x in node.inputs if x is not None]
    trains = dict(zip("qkv", (build.nodes[name] for name in names), strict=True))
    *first, last = ORDERS[order]
    complete = 1 + max(firing_window(trains[letter], build.nodes) or 0 for letter in first)
    if (firing_window(trains[last], build.nodes) or 0) < complete:
        late = trains[last]
        relay = Relay(f"{out.name}/{last}", late.shape, late.name, 0, emitted_payload(late), module)
        depth = max(complete, required_depth(relay, build.nodes))
        trains[last] = build.nodes[relay.name] = replace(relay, depth=depth)
    q, k, v = (trains[letter] for letter in "qkv")
    payloads = emitted_payload(q), emitted_payload(k), emitted_payload(v)
    heads, shape = attribute(node, "heads"), _shape(out)
    _, reach = reach_of(order, q.shape, k.shape, heads, payloads)
    made = Attention(
        f"{out.name}/attention", shape, q.name, k.name, v.name, heads, order, reach, module
    )
    build.add(out, made)
    _holder(build, out, made)


def _gate(build: _Build, node: ir.Node) -> None:
    """A gate, with the earlier train relayed into the window of the later."""
    out, module = node.outputs[0], _known_as(node)
    trains = [build.nodes[build.names[x]] for x in node.inputs if x is not None]
    windows = [firing_window(train, build.nodes) or 0 for train in trains]
    for i, (train, window) in enumerate(zip(trains, windows, strict=True)):
        if window < max(windows):
            name, payload = f"{out.name}/{'ab'[i]}", emitted_payload(train)
            relay = Relay(name, train.shape, train.name, max(windows), payload, module)
            trains[i] = build.nodes[name] = relay
    a, b = trains
    if attribute(node, "kind") == AND_NOT and attribute(node, "most") != emitted_payload(b):
        raise SnnccError(f"build-program: '{node.name}' counts silence of another train")
    payload = emitted_payload(a) * emitted_payload(b)
    kind, name = attribute(node, "kind"), str(out.name)
    build.add(out, Gate(name, _shape(out), a.name, b.name, kind, payload, module))


def _sum(build: _Build, node: ir.Node) -> None:
    out, module = node.outputs[0], _known_as(node)
    a, b = (build.nodes[build.names[x]] for x in node.inputs if x is not None)
    payload = emitted_payload(a) + emitted_payload(b)
    build.add(out, Sum(str(out.name), a.shape, a.name, b.name, payload, module))


def _holder(build: _Build, out: ir.Value, pool: Pool | Attention) -> None:
    bias = np.zeros(pool.shape[0], dtype=np.int64)
    identity = Projection(pool.name, "identity", payload=pool.payload)
    made = Accumulator(str(out.name), pool.shape, (identity,), bias, 0, 0, pool.module)
    build.add(out, bounded(made, build.nodes))


_VISITORS: dict[str, Callable[[_Build, ir.Node], None]] = {
    **dict.fromkeys(having("quantised", lambda t: t.is_view), _view),
    **dict.fromkeys(having("quantised", lambda t: t.pools), _pool),
    **dict.fromkeys(having("quantised", lambda t: t.weighs), _product),
    **dict.fromkeys(having("quantised", lambda t: t.fires), _fire),
    "QuantizeInput": _source,
    "SliceSum": _slice_sum,
    "PayloadDigit": _digit,
    "CoarsePotential": _coarse,
    "QAttention": _attention,
    "CountGate": _gate,
    "CountSum": _sum,
    "Add": _add,
    "SourceMask": _no_node,
    "MaskPotential": _masked,
}
