"""The operators of domain ``ai.snncc``: one entry each, a schema and a body in standard ONNX.

The body *is* the definition: ONNX Runtime executes it, so every stage of the compiler is a graph
that runs. To add an operator, add an entry to ``OPS``; attributes are written out, but for
those that may be left out (``Op.optional``). What passes ask of an operator is in its traits, as
for those of ONNX itself (``standard_ops``): ``traits(node)`` finds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib import import_module
from math import prod
from typing import Any

import onnx
import onnx.defs
import onnx.parser
import onnx.shape_inference

from snncc.ir.attention_ops import ATTENTION_OPS
from snncc.ir.gate_ops import GATE_OPS
from snncc.ir.op import COUNTS, F32, GAPS, I8, I32, I64, SUMMED, U8, Op
from snncc.ir.payload_ops import PAYLOAD_OPS
from snncc.ir.sparse_ops import SPARSE_OPS
from snncc.ir.standard_ops import DOMAINS, STANDARD
from snncc.ir.state_ops import STATE_OPS
from snncc.ir.sum_ops import SUM_OPS
from snncc.ir.traits import ORDER, REAL, Numbers, Traits

__all__ = [
    "DOMAIN",
    "NEURONS",
    "OPS",
    "OPSET",
    "VERSION",
    "Op",
    "allowed",
    "function_of",
    "functions_of",
    "having",
    "register_schemas",
    "registry",
    "summed",
    "traits",
]

DOMAIN = "ai.snncc"
VERSION = 1
#: The standard opset that all graphs and bodies use.
OPSET = 21

_INTEGER_FIRE = Op(
    "IntegerFire",
    "imported",
    "SFA neuron: (clip(round(X), low, low + D) - low) / norm, rounding 'half-even', 'half-up' or "
    "'down'. A unit p/q says exactly what one spike is worth, where that is not 1 / norm.",
    {"X": F32},
    {"Y": F32},
    {"D": "int", "norm": "float", "rounding": "string", "unit": "string", "low": "int"},
    """
    first = Constant <value_int: int = @low> ()
    levels = Constant <value_int: int = @D> ()
    last = Add (first, levels)
    bottom = Cast <to: int = 1> (first)
    top = Cast <to: int = 1> (last)
    u = Clip (X, bottom, top)
    even = Round (u)
    half = Constant <value_float: float = 0.5> ()
    shifted = Add (u, half)
    up = Floor (shifted)
    down = Floor (u)
    rule = Constant <value_string: string = @rounding> ()
    half_up = Constant <value_string: string = "half-up"> ()
    is_up = Equal (rule, half_up)
    nearest = Where (is_up, up, even)
    below = Constant <value_string: string = "down"> ()
    is_down = Equal (rule, below)
    whole = Where (is_down, down, nearest)
    a = Sub (whole, bottom)
    n = Constant <value_float: float = @norm> ()
    Y = Div (a, n)
    """,
    Traits(
        Numbers.POTENTIALS,
        Numbers.COUNTS,
        becomes="FireCount",
        is_monotone=True,
        rounds=True,
        border=0.5,
        keeps_shape=True,
    ),
    optional={"unit": "", "low": 0},
)

_ON_GRID = Op(
    "OnGrid",
    "imported",
    "A potential in steps of a frozen grid: V holds integers, theta of them are one spike. No pass "
    "derives theta again, and none folds it away.",
    {"V": F32, "theta": F32},
    {"U": F32},
    {},
    """
    U = Div (V, theta)
    """,
    Traits(keeps=(Numbers.POTENTIALS,), until="integer", keeps_shape=True),
)

_QUANTIZE_INPUT = Op(
    "QuantizeInput",
    "integer",
    "Real input on a grid of steps: clip(round((X - offset) / scale) + zero_point, 0, top).",
    {"X": F32, "scale": F32, "offset": F32},
    {"Q": U8},
    {"zero_point": "int", "top": "int"},
    """
    shifted = Sub (X, offset)
    steps = Div (shifted, scale)
    rounded = Round (steps)
    centre = Constant <value_int: int = @zero_point> ()
    zero = Cast <to: int = 1> (centre)
    q = Add (rounded, zero)
    low = Constant <value_float: float = 0.0> ()
    last = Constant <value_int: int = @top> ()
    high = Cast <to: int = 1> (last)
    clipped = Clip (q, low, high)
    Q = Cast <to: int = 2> (clipped)
    """,
    Traits(Numbers.REAL, Numbers.SOURCE, until="spiking", rounds=True, keeps_shape=True),
)

#: D of levels [C|1, D], and 1 for each axis of V after the channels.
_TAIL = """size = Shape (levels)
    D = Slice (size, one, two)
    v_shape = Shape (V)
    rank = Shape (v_shape)
    tail_rank = Sub (rank, two)
    tail = ConstantOfShape <value: tensor = int64[1] {1}> (tail_rank)"""

_FIRE_COUNT = Op(
    "FireCount",
    "quantised",
    "Spikes of a burst: how many of the levels [C|1, D] the potential V [N, C, ...] reaches.",
    {"V": I64, "levels": I64},
    {"A": U8},
    {},
    """
    one = Constant <value_ints: ints = [1]> ()
    two = Constant <value_ints: ints = [2]> ()
    any = Constant <value_ints: ints = [-1]> ()
    """
    + _TAIL
    + """
    level_shape = Concat <axis: int = 0> (any, tail, D)
    L = Reshape (levels, level_shape)
    v = Unsqueeze (V, any)
    reached = GreaterOrEqual (v, L)
    ones = Cast <to: int = 6> (reached)
    count = ReduceSum <keepdims: int = 0, noop_with_empty_axes: int = 0> (ones, any)
    A = Cast <to: int = 2> (count)
    """,
    Traits(
        Numbers.POTENTIALS,
        Numbers.COUNTS,
        becomes="IFSoftReset",
        is_monotone=True,
        keeps_shape=True,
    ),
)

_IF_SOFT_RESET = Op(
    "IFSoftReset",
    "spiking",
    "IF neuron with soft reset: D ticks [D, N, C, ...] of V [N, C, ...]. The membrane starts at "
    "V - level 1, fires when it is not negative, and is then lowered by the gap to the next level.",
    {"V": I64, "levels": I64},
    {"S": U8},
    {},
    """
    zero = Constant <value_ints: ints = [0]> ()
    one = Constant <value_ints: ints = [1]> ()
    two = Constant <value_ints: ints = [2]> ()
    any = Constant <value_ints: ints = [-1]> ()
    end = Constant <value_ints: ints = [9223372036854775807]> ()
    """
    + _TAIL
    + """
    """
    + GAPS
    + """
    first = Constant <value_int: int = 0> ()
    level_1 = Gather <axis: int = 0> (L, first)
    start = Sub (V, level_1)
    ticks = Squeeze (D)
    go = Constant <value: tensor = bool {1}> ()
    rest, S = Loop <body: graph = tick (int64 d, bool on, int64[] m) =>
                    (bool still_on, int64[] lowered, uint8[] spikes) {
      still_on = Identity (on)
      threshold = Constant <value_int: int = 0> ()
      fires = GreaterOrEqual (m, threshold)
      spikes = Cast <to: int = 2> (fires)
      fired = Cast <to: int = 7> (fires)
      gap = Gather <axis: int = 0> (gaps, d)
      reset = Mul (fired, gap)
      lowered = Sub (m, reset)
    }> (ticks, go, start)
    """,
    Traits(Numbers.POTENTIALS, Numbers.TICKS, is_monotone=True),
)

_SPIKE_SUM = Op(
    "SpikeSum",
    "spiking",
    "Sum over the ticks of a firing window: [D, N, ...] -> [N, ...].",
    {"X": I32},
    {"Y": I32},
    {},
    """
    axis = Constant <value_ints: ints = [0]> ()
    Y = ReduceSum <keepdims: int = 0, noop_with_empty_axes: int = 0> (X, axis)
    """,
    Traits(Numbers.CURRENTS, Numbers.CURRENTS),
)

_Q_CONV = Op(
    "QConv",
    "quantised",
    "Integer convolution, no bias: counts A [N, C, H, W], one weight slice W. Exact while "
    "payload * sum(abs(W)) < 2^24 per output channel, which the compiler proves.",
    {"A": COUNTS, "W": I8},
    {"Y": I32},
    {"strides": "ints", "pads": "ints", "dilations": "ints", "group": "int"},
    """
    a = Cast <to: int = 1> (A)
    w = Cast <to: int = 1> (W)
    y = Conv <strides: ints = @strides, pads: ints = @pads, dilations: ints = @dilations,
              group: int = @group> (a, w)
    Y = Cast <to: int = 6> (y)
    """,
    Traits(Numbers.COUNTS, Numbers.CURRENTS, weighs=True),
)

_Q_GEMM = Op(
    "QGemm",
    "quantised",
    "Integer linear map, no bias: counts A [N, F_in], one weight slice W [F_out, F_in]. Exact "
    "while payload * sum(abs(W)) < 2^24 per output, which the compiler proves.",
    {"A": COUNTS, "W": I8},
    {"Y": I32},
    {},
    """
    a = Cast <to: int = 1> (A)
    w = Cast <to: int = 1> (W)
    wt = Transpose <perm: ints = [1, 0]> (w)
    y = MatMul (a, wt)
    Y = Cast <to: int = 6> (y)
    """,
    Traits(Numbers.COUNTS, Numbers.CURRENTS, weighs=True),
)

_SLICE_SUM = Op(
    "SliceSum",
    "quantised",
    "One more weight slice of a membrane potential: base + acc * 256^slice * 2^shift. The first "
    "base is the bias, so it enters once per timestep. The shift lets layers that are added share "
    "a grid, each with all bits of its weights.",
    {"base": I64, "acc": I32},
    {"V": I64},
    {"slice": "int", "shift": "int"},
    """
    radix = Constant <value_int: int = 256> ()
    p = Constant <value_int: int = @slice> ()
    place = Pow (radix, p)
    two = Constant <value_int: int = 2> ()
    s = Constant <value_int: int = @shift> ()
    gain = Pow (two, s)
    factor = Mul (place, gain)
    wide = Cast <to: int = 7> (acc)
    scaled = Mul (wide, factor)
    V = Add (base, scaled)
    """,
    Traits(Numbers.CURRENTS, Numbers.POTENTIALS),
)

_SUM_POOL = Op(
    "SumPool",
    "integer",
    "Sums over windows of [N, C, H, W], zero padding: two products with 0/1 matrices, so that "
    "integers stay exact. kernel, strides: [h, w]; pads: [top, left, bottom, right].",
    {"X": SUMMED},
    {"Y": SUMMED},
    {"kernel_shape": "ints", "strides": "ints", "pads": "ints"},
    """
    i0 = Constant <value_int: int = 0> ()
    i1 = Constant <value_int: int = 1> ()
    at_2 = Constant <value_int: int = 2> ()
    at_3 = Constant <value_int: int = 3> ()
    k = Constant <value_ints: ints = @kernel_shape> ()
    s = Constant <value_ints: ints = @strides> ()
    p = Constant <value_ints: ints = @pads> ()
    last = Constant <value_ints: ints = [-1]> ()
    size = Shape (X)
    H = Gather (size, at_2)
    kh = Gather (k, i0)
    sh = Gather (s, i0)
    top = Gather (p, i0)
    bottom = Gather (p, at_2)
    h_top = Add (H, top)
    h_pad = Add (h_top, bottom)
    h_free = Sub (h_pad, kh)
    h_steps = Div (h_free, sh)
    h_out = Add (h_steps, i1)
    h_index = Range (i0, h_out, i1)
    h_stride = Mul (h_index, sh)
    h_first = Sub (h_stride, top)
    h_from = Unsqueeze (h_first, last)
    h_to = Add (h_from, kh)
    rows = Range (i0, H, i1)
    h_after = GreaterOrEqual (rows, h_from)
    h_before = Less (rows, h_to)
    h_in = And (h_after, h_before)
    P = CastLike (h_in, X)
    W = Gather (size, at_3)
    kw = Gather (k, i1)
    sw = Gather (s, i1)
    left = Gather (p, i1)
    right = Gather (p, at_3)
    w_left = Add (W, left)
    w_pad = Add (w_left, right)
    w_free = Sub (w_pad, kw)
    w_steps = Div (w_free, sw)
    w_out = Add (w_steps, i1)
    w_index = Range (i0, w_out, i1)
    w_stride = Mul (w_index, sw)
    w_first = Sub (w_stride, left)
    w_from = Unsqueeze (w_first, last)
    w_to = Add (w_from, kw)
    columns = Range (i0, W, i1)
    w_after = GreaterOrEqual (columns, w_from)
    w_before = Less (columns, w_to)
    w_in = And (w_after, w_before)
    q = CastLike (w_in, X)
    Q = Transpose <perm: ints = [1, 0]> (q)
    summed = MatMul (X, Q)
    Y = MatMul (P, summed)
    """,
    Traits(keeps=(Numbers.COUNTS, Numbers.POTENTIALS), sums="kernel_shape"),
)


_MAX_POTENTIAL = Op(
    "MaxPotential",
    "integer",
    "Maxima over windows of potentials [N, C, H, W], padded with the least there is; exact while "
    "they stay below 2^53, which the compiler proves.",
    {"X": SUMMED},
    {"Y": SUMMED},
    {"kernel_shape": "ints", "strides": "ints", "pads": "ints"},
    """
    wide = Cast <to: int = 11> (X)
    highest = MaxPool <kernel_shape: ints = @kernel_shape, strides: ints = @strides,
                       pads: ints = @pads> (wide)
    Y = CastLike (highest, X)
    """,
    Traits(keeps=(Numbers.POTENTIALS,), takes_maximum=True),
)


def registry(ops: Iterable[Op]) -> dict[str, Op]:
    """The operators by name.

    Raises:
        ValueError: An operator becomes what there is not, or does not begin where that ends.
    """
    found = {op.name: op for op in ops}
    known = {op.name: op.traits for op in STANDARD.values()} | {n: found[n].traits for n in found}
    for name, becomes in [(name, one.becomes) for name, one in known.items()]:
        later = found.get(becomes)
        if becomes and later is None:
            raise ValueError(f"operator '{name}': trait 'becomes' names no operator, '{becomes}'")
        if later is not None and name in found and not _is_later(found[name], later):
            raise ValueError(f"operator '{name}': trait 'becomes', but '{becomes}' is not later")
    return found


def _is_later(one: Op, other: Op) -> bool:
    return ORDER.index(one.stage) < ORDER.index(other.stage)


OPS: dict[str, Op] = registry(
    (
        _INTEGER_FIRE,
        _ON_GRID,
        _QUANTIZE_INPUT,
        _SUM_POOL,
        _MAX_POTENTIAL,
        _Q_CONV,
        _Q_GEMM,
        _SLICE_SUM,
        _FIRE_COUNT,
        _IF_SOFT_RESET,
        _SPIKE_SUM,
        *SPARSE_OPS,
        *STATE_OPS,
        *ATTENTION_OPS,
        *GATE_OPS,
        *SUM_OPS,
        *PAYLOAD_OPS,
    )
)


# -- traits ----------------------------------------------------------------------------------


def traits(node: Any) -> Traits:
    """What the operator of a node says of itself; of no node, or one not known, nothing.

    Args:
        node: Of onnx-ir or of ONNX, or None.
    """
    if node is None:
        return REAL
    known = OPS if node.domain == DOMAIN else STANDARD if node.domain in DOMAINS else {}
    found = known.get(node.op_type)
    return REAL if found is None else found.traits


def having(stage: str, asked: Callable[[Traits], object]) -> tuple[str, ...]:
    """Names of the operators of a stage of which something holds, standard ones first."""
    known = allowed(stage)
    standard = [(n, op.traits) for n, op in STANDARD.items() if ("", n) in known]
    own = [(n, op.traits) for n, op in OPS.items() if (DOMAIN, n) in known]
    return tuple(name for name, one in (*standard, *own) if asked(one))


def summed(node: Any) -> int:
    """How many numbers each number of the result is the sum of; 1 of what adds nothing up.

    Args:
        node: Of onnx-ir. An average is no sum: 1.
    """
    found = traits(node)
    if not found.sums or found.averages:
        return 1
    value = node.attributes[found.sums].value
    return int(prod(value) if isinstance(value, (tuple, list)) else value)


def allowed(stage: str) -> frozenset[tuple[str, str]]:
    """The (domain, operator) pairs that graphs of a stage may hold, as far as there are records.

    Stage ``imported`` allows all other standard operators, too.
    """
    at = ORDER.index(stage)
    own = {
        (DOMAIN, op.name)
        for op in OPS.values()
        if ORDER.index(op.stage) <= at <= ORDER.index(_last_stage(op))
    }
    standard = {("", op.name) for op in STANDARD.values() if at <= ORDER.index(op.traits.until)}
    return frozenset(own | standard)


def _last_stage(op: Op) -> str:
    """The last stage whose graphs may hold an operator."""
    if op.traits.until or not op.traits.becomes:
        return op.traits.until or ORDER[-1]
    return ORDER[ORDER.index(OPS[op.traits.becomes].stage) - 1]


#: Neurons of float stages; their output holds spike counts over ``norm``.
NEURONS = having("imported", lambda t: t.fires)

_ATTRIBUTE_TYPES = {
    "int": onnx.defs.OpSchema.AttrType.INT,
    "ints": onnx.defs.OpSchema.AttrType.INTS,
    "float": onnx.defs.OpSchema.AttrType.FLOAT,
    "floats": onnx.defs.OpSchema.AttrType.FLOATS,
    "string": onnx.defs.OpSchema.AttrType.STRING,
}


@cache
def function_of(name: str) -> onnx.FunctionProto:
    """The operator's body as a model-local function."""
    op = OPS[name]
    named = [_declared(op, name) for name in op.attributes]
    attributes = f"<{', '.join(named)}>" if named else ""
    head = f'<opset_import: ["": {OPSET}], domain: "{DOMAIN}">'
    signature = f"{name} {attributes} ({', '.join(op.inputs)}) => ({', '.join(op.outputs)})"
    function = onnx.parser.parse_function(f"{head}\n{signature} {{ {op.body} }}")
    function.doc_string = op.doc
    return function


def _declared(op: Op, name: str) -> str:
    """An attribute in the head of a function, with its default if it has one."""
    given = op.optional.get(name)
    if isinstance(given, int):
        return f"{name}: int = {given}"
    return name if given is None else f'{name}: string = "{given}"'


def functions_of(names: Iterable[str]) -> list[onnx.FunctionProto]:
    """Bodies for the operators named, in registry order."""
    wanted = set(names)
    return [function_of(name) for name in OPS if name in wanted]


@cache
def register_schemas() -> None:
    """Register all operators, so that the ONNX checker knows them (once per process)."""
    # Which lists all schemas as it is imported, by name alone: two are named Attention then.
    import_module("onnx.reference")
    for op in OPS.values():
        schema = _schema(op)
        if op.traits.keeps_shape and op.stage == ORDER[0] and {*_types(op)} == {F32}:
            # shape inference reads schemas, not bodies
            schema.set_type_and_shape_inference_function(_like_first_input)
        onnx.defs.register_schema(schema)


def _types(op: Op) -> Iterator[tuple[str, ...]]:
    """Of its inputs and outputs."""
    yield from (*op.inputs.values(), *op.outputs.values())


def _like_first_input(context: onnx.shape_inference.InferenceContext) -> None:
    """Neurons, masks and grids of imported networks work element by element."""
    found = context.get_input_type(0)
    if found is not None:
        context.set_output_type(0, found)


def _schema(op: Op) -> onnx.defs.OpSchema:
    inputs, in_types = _parameters(op.inputs)
    outputs, out_types = _parameters(op.outputs)
    return onnx.defs.OpSchema(
        op.name,
        DOMAIN,
        VERSION,
        op.doc,
        inputs=inputs,
        outputs=outputs,
        type_constraints=in_types + out_types,
        attributes=[
            onnx.defs.OpSchema.Attribute(
                name, _ATTRIBUTE_TYPES[kind], "", required=name not in op.optional
            )
            for name, kind in op.attributes.items()
        ],
    )


def _parameters(
    named: dict[str, tuple[str, ...]],
) -> tuple[list[onnx.defs.OpSchema.FormalParameter], list[tuple[str, list[str], str]]]:
    formal = [onnx.defs.OpSchema.FormalParameter(name, f"T_{name}") for name in named]
    return formal, [(f"T_{name}", list(types), "") for name, types in named.items()]
