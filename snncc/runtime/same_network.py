"""The graphs in a file are the network of its Program, or no engine runs them.

Two engines run the stored graphs and all others the Program, so a file whose parts are different
networks would compute one thing here and another there. The quantised graph is translated anew and
has to give the Program; the spiking graph has to be what the quantised one is lowered to. Shapes,
types and attributes are followed from the input on: what a graph says of its own values is checked,
not believed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from snncc.errors import BadInputError, SnnccError
from snncc.ir.graphs import attribute, constant, static_shape
from snncc.ir.lineage import forget
from snncc.ir.metadata import TIMESTEPS
from snncc.ir.ops import DOMAIN, OPS, OPSET, VERSION, functions_of, having, summed, traits
from snncc.ir.stages import verify_stage
from snncc.ir.traits import Numbers
from snncc.passes.spikes.build_program import build_program
from snncc.passes.spikes.lower_to_spikes import LowerToSpikes
from snncc.program import Array, Node, Program, Projection, Readout, Shape
from snncc.program.bounds import DIGIT, emitted_payload, weight_reach
from snncc.program.nodes.base import PEOPLE

__all__ = ["require_same_network"]

#: Products of counts and weights are summed in float32: integers below this are exact there.
_EXACT = 2**24
#: More than any potential reaches.
_ANY = 2**62
_HOLDS = {ir.DataType.UINT8: 2**8, ir.DataType.INT32: 2**31, ir.DataType.INT64: 2**63}
_DTYPES = {"tensor(uint8)": ir.DataType.UINT8, "tensor(int32)": ir.DataType.INT32,
           "tensor(int64)": ir.DataType.INT64}  # fmt: skip
#: What a result says that the Program says otherwise: its name, and what the host makes of it.
_OF_RESULTS = {"name", "scale", "host", "weight", "bias", "result"}


class _OtherNetworkError(Exception):
    """A graph is not that of the Program; the message says where."""


def require_same_network(
    stage: str,
    graph: Callable[[str], tuple[onnx.ModelProto, ir.Model]],
    program: Program,
    where: str,
) -> None:
    """The graph of a stage computes what the Program computes.

    Args:
        stage: ``quantised`` or ``spiking``.
        graph: Of a stage, as it is stored, and the same with weights; used up.
        program: The network.
        where: The file, for messages.

    Raises:
        BadInputError: It does not, or this version of snncc would compile it otherwise.
    """
    at = "quantised"
    try:
        proto, quantised = graph(at)
        _check_frame(proto)
        verify_stage(quantised, "quantised")
        _check_values(quantised, program)
        _check_program(quantised, program)
        if stage == "spiking":
            at = "spiking"
            proto, spiking = graph(at)
            _check_frame(proto)
            _check_lowered(quantised, spiking)
    except BadInputError:
        raise
    except Exception as e:  # whatever a foreign graph may raise: it is not the network's
        faults = e.faults if isinstance(e, SnnccError) else ()
        raise BadInputError(
            f"{where}: graph '{at}' is not the network of program.json: {e}; compile again",
            faults,
        ) from e


def _require(condition: object, what: str) -> None:
    if not condition:
        raise _OtherNetworkError(what)


# -- what stands around the nodes -----------------------------------------------------------


def _check_frame(graph: onnx.ModelProto) -> None:
    """Operators mean what they mean here: bodies and versions are ours."""
    used = {node.op_type for node in graph.graph.node if node.domain == DOMAIN}
    ours = {f.name: _deterministic(f) for f in functions_of(used)}
    theirs = {f.name: _deterministic(f) for f in graph.functions}
    _require(ours == theirs, "operators have other bodies than this version's")
    versions = {(o.domain, o.version) for o in graph.opset_import}
    known = {("", OPSET), (DOMAIN, VERSION)}
    _require(("", OPSET) in versions and versions <= known, "operators are of other versions")
    _require(not graph.graph.sparse_initializer, "weights are stored sparsely")


def _deterministic(message: Any) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


# -- the quantised graph --------------------------------------------------------------------


def _check_values(model: ir.Model, program: Program) -> None:
    """Shapes follow from those of the input; what is cast, summed and multiplied stays exact."""
    known = _Known(program)
    for node in model.graph:
        rule = _RULES.get(node.op_type, _keeps_shape if traits(node).keeps_shape else None)
        if rule is not None:
            rule(node)
        for name in ("T", "timesteps"):
            given = attribute(node, name, program.timesteps)
            _require(
                given == program.timesteps, f"'{node.outputs[0].name}' is of {given} timesteps"
            )
        known.add(node)


class _Known:
    """Type and largest absolute number of every value so far, and the weights of layers."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.types: dict[ir.Value | None, ir.DataType] = {}
        self.reach: dict[ir.Value | None, int] = {}
        self.parts: dict[ir.Value | None, dict[tuple[int, int, int], Array]] = {}

    def add(self, node: ir.Node) -> None:
        """What is known of the value that a node gives."""
        out = node.outputs[0]
        held, reach = self._type(node), self._reach(node)
        _require(held in _HOLDS and out.dtype == held, f"'{out.name}' is not of type {held}")
        fits = held == ir.DataType.INT64 or reach < _HOLDS[held]
        _require(fits, f"'{out.name}' may reach {reach}, beyond {held}")
        self.types[out], self.reach[out] = held, reach
        if node.op_type == "SliceSum":
            self._add_slice(node)

    def _type(self, node: ir.Node) -> ir.DataType:
        given = self.types.get(node.inputs[0], ir.DataType.UINT8)
        if node.op_type == "Cast":
            return ir.DataType(attribute(node, "to"))
        if node.domain == DOMAIN:
            (named,) = OPS[node.op_type].outputs.values()
            return _DTYPES[named[0]] if len(named) == 1 else given
        return given

    def _reach(self, node: ir.Node) -> int:
        x, out = node.inputs[0], node.outputs[0]
        read = self.reach.get(x, self.program.source.payload)
        asked = traits(node)
        if asked.weighs:
            reach = read * weight_reach(_weights(node))
            _require(reach < _EXACT, f"'{out.name}' may reach {reach}, beyond 2^24")
            return reach
        if node.op_type == "Add":
            return sum(self.reach.get(value, _ANY) for value in node.inputs)
        if asked.keeps_counts:
            return read * summed(node)
        emitter = self.program.by_name.get(str(out.name))
        if asked.emits is Numbers.DIGITS:
            return DIGIT + 1
        if asked.emits is Numbers.POTENTIALS or asked.masks:
            return _ANY if emitter is None else emitted_payload(emitter)
        if asked.emits in (Numbers.COUNTS, Numbers.MASK):
            return 1 if emitter is None else emitted_payload(emitter)
        return read

    def _add_slice(self, node: ir.Node) -> None:
        """Parts of one slice, each over some of the inputs, have no weight in common."""
        base, acc = node.inputs
        producer = acc.producer() if acc is not None else None
        if producer is None:
            raise _OtherNetworkError(f"'{node.outputs[0].name}' sums no product")
        digit = producer.inputs[0].producer() if producer.inputs[0] is not None else None
        of = attribute(digit, "place", 0) if digit is not None else 0
        place = attribute(node, "shift"), attribute(node, "slice"), of
        weights = _weights(producer)
        parts = dict(self.parts.get(base, {}))
        if place in parts:
            whole = parts[place].astype(np.int16) + weights
            _require(np.abs(whole).max() <= 128, f"'{node.outputs[0].name}' sums a slice twice")
            weights = whole
        self.parts[node.outputs[0]] = {**parts, place: weights}


def _weights(node: ir.Node) -> Array:
    weights = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if weights is None:
        raise _OtherNetworkError(f"'{node.outputs[0].name}' has no weights")
    return weights


def _shape(value: ir.Value | None) -> Shape:
    shape = static_shape(value) if value is not None else None
    if shape is None:
        raise _OtherNetworkError(f"'{getattr(value, 'name', '')}' has no static shape")
    return shape


def _keeps_shape(node: ir.Node, *, inputs: slice = slice(0, 1)) -> None:
    out = node.outputs[0]
    for x in node.inputs[inputs]:
        _require(_shape(x) == _shape(out), f"'{out.name}' is not of shape {_shape(x)}")


def _of_time(node: ir.Node) -> None:
    """Samples [N, T, ...] become [T*N, ...]."""
    x, out = node.inputs[0], node.outputs[0]
    _require(_shape(x)[1:] == _shape(out), f"'{out.name}' is not of shape {_shape(x)[1:]}")


def _of_reshape(node: ir.Node) -> None:
    x, out, wanted = _shape(node.inputs[0]), node.outputs[0], constant(node.inputs[1])
    first, *rest = wanted.tolist() if wanted is not None else [0]
    _require(
        attribute(node, "allowzero", 0) == 0 and first in (-1, 0), f"'{out.name}' moves samples"
    )
    given = [x[i] if n == 0 and i < len(x) else n for i, n in enumerate(rest)]
    if -1 in given and first == 0:
        given[given.index(-1)] = prod(x) // -prod(given)
    fits = tuple(given) == _shape(out) and prod(given) == prod(x)
    _require(fits, f"'{out.name}' is not of shape {tuple(given)}")


def _of_flatten(node: ir.Node) -> None:
    x, out = node.inputs[0], node.outputs[0]
    flat = attribute(node, "axis", 1) == 1 and _shape(out) == (prod(_shape(x)),)
    _require(flat, f"'{out.name}' is not flat")


def _of_max_pool(node: ir.Node) -> None:
    plain = {"ceil_mode": 0, "storage_order": 0, "auto_pad": "NOTSET", "dilations": (1, 1)}
    for name, default in plain.items():
        given = attribute(node, name, default)
        given = tuple(given) if isinstance(default, tuple) else given
        _require(given == default, f"'{node.outputs[0].name}' has {name} {given}")


def _of_linear(node: ir.Node) -> None:
    _require(len(_shape(node.inputs[0])) == 1, f"'{node.outputs[0].name}' reads no rows")


def _of_slice(node: ir.Node) -> None:
    """The bias, a constant, is one number for each channel or for each element."""
    base, acc = node.inputs
    shape, start = _shape(node.outputs[0]), constant(base)
    _require(_shape(acc) == shape, f"'{node.outputs[0].name}' is not of shape {_shape(acc)}")
    if start is None:
        _require(_shape(base) == shape, f"'{node.outputs[0].name}' adds another shape")
        return
    assert base is not None
    whole = (1,) * (len(shape) + 1 - start.ndim) + start.shape
    by_channel = (1, shape[0], *(1,) * (len(shape) - 1))
    _require(whole in ((1, *shape), by_channel), f"'{base.name}' is no bias")


def _of_mask(node: ir.Node) -> None:
    out, patches = node.outputs[0], tuple(attribute(node, "patches"))
    _require(_shape(out) == (1, *patches), f"'{out.name}' is not of shape {(1, *patches)}")
    read = node.inputs[0].producer() if node.inputs[0] is not None else None
    first = read is None or traits(read).emits is Numbers.SOURCE
    _require(first, f"'{out.name}' does not read the input")


#: What does not simply keep its shape.
_RULES: Mapping[str, Callable[[ir.Node], None]] = {
    "TimeFirst": _of_time,
    "Add": lambda node: _keeps_shape(node, inputs=slice(None)),
    "Reshape": _of_reshape,
    "Flatten": _of_flatten,
    **dict.fromkeys(having("quantised", lambda t: t.takes_maximum), _of_max_pool),
    "QGemm": _of_linear,
    "SliceSum": _of_slice,
    "SourceMask": _of_mask,
}


# -- the Program ----------------------------------------------------------------------------


def _check_program(model: ir.Model, program: Program) -> None:
    said = model.metadata_props.get(TIMESTEPS)
    remembers = any(n.remembers for n in program.neurons)
    _require(said is not None or not remembers, "memory without timesteps")
    if said is not None:
        _require(said == str(program.timesteps), f"{said} timesteps")
    ends = {node.name: node for node in program.nodes if isinstance(node, Readout)}

    def hosted(made: Program) -> Program:
        """With what the host adds, of which the graph knows nothing."""
        nodes = [_with_end(node, ends.get(node.name)) for node in made.nodes]
        return Program(made.name, tuple(nodes), made.timesteps, made.ticks)

    built = build_program(model, program.name, program.timesteps, hosted)
    _require(built.ticks == program.ticks, f"{built.ticks} ticks")
    _require(len(built.nodes) == len(program.nodes), f"{len(built.nodes)} nodes")
    for one, other in zip(built.nodes, program.nodes, strict=True):
        differing = ", ".join(_differing(one, other))
        _require(not differing, f"'{other.name}' has another {differing}")


def _with_end(node: Node, known: Readout | None) -> Node:
    if not isinstance(node, Readout) or known is None:
        return node
    return replace(node, host=known.host, weight=known.weight, bias=known.bias)


def _differing(one: Node | Projection, other: Node | Projection) -> Iterator[str]:
    """The fields, but for those that only people read, in which two nodes differ."""
    if type(one) is not type(other):
        yield "kind"
        return
    skipped = _OF_RESULTS if isinstance(one, Readout) else set()
    for f in fields(one):
        is_read = one.readers[f.name] != PEOPLE and f.name not in skipped
        if is_read and not _is_same(getattr(one, f.name), getattr(other, f.name)):
            yield f.name


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, Projection):
        return type(other) is Projection and not any(_differing(one, other))
    if isinstance(one, tuple) and isinstance(other, tuple):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(_is_same(a, b) for a, b in pairs)
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    return bool(one == other)


# -- the spiking graph ----------------------------------------------------------------------


def _check_lowered(quantised: ir.Model, spiking: ir.Model) -> None:
    """The spiking graph is what lower-to-spikes makes of the quantised one."""
    forget(quantised)  # of names alone, and often long
    LowerToSpikes().run(quantised)
    ours, theirs = quantised.graph, spiking.graph
    for kind in ("inputs", "outputs"):
        names = [[v.name for v in getattr(g, kind)] for g in (ours, theirs)]
        _require(names[0] == names[1], f"other {kind}")
    times = [g.metadata_props.get(TIMESTEPS) for g in (quantised, spiking)]
    _require(times[0] == times[1], f"{times[1]} timesteps")
    _require(len(ours) == len(theirs), f"{len(theirs)} nodes instead of {len(ours)}")
    for one, other in zip(ours, theirs, strict=True):
        _require(_meaning(one) == _meaning(other), f"'{other.name}' is another node")
    _check_constants(ours, theirs)


def _check_constants(ours: ir.Graph, theirs: ir.Graph) -> None:
    _require(set(ours.initializers) == set(theirs.initializers), "other constants")
    for name, value in ours.initializers.items():
        one, other = constant(value), constant(theirs.initializers[name])
        same = one is not None and other is not None and one.dtype == other.dtype
        _require(same and np.array_equal(one, other), f"'{name}' is another constant")  # type: ignore[arg-type]


def _meaning(node: ir.Node) -> tuple[object, ...]:
    """All of a node but what only people read."""
    attributes = {name: a.value for name, a in node.attributes.items()}
    inputs = [v.name if v is not None else "" for v in node.inputs]
    return node.domain, node.op_type, inputs, [v.name for v in node.outputs], attributes
