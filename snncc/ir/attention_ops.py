"""Operators of spike-driven attention: y = (q k^T) v, head by head, without a softmax.

Values are channels first, [N, heads * d, ...]: the channels of a head lie side by side, and all
axes after them are positions. Order ``kv`` forms k v^T first, ``qk`` q^T k; both give the same
numbers.
"""

from __future__ import annotations

from textwrap import indent

from snncc.ir.op import F32, I64, U8, Op
from snncc.ir.traits import Numbers, Traits

__all__ = ["ATTENTION_OPS"]

_FLOAT, _DOUBLE, _INT64 = 1, 11, 7

_CONSTANTS = """
    any = Constant <value_ints: ints = [-1]> ()
    kept = Constant <value_ints: ints = [LEAD_ZEROS]> ()
    first = Constant <value_ints: ints = [0]> ()
    at = Constant <value_ints: ints = [LEAD]> ()
    behind = Constant <value_ints: ints = [LEAD_1]> ()
    end = Constant <value_ints: ints = [9223372036854775807]> ()
    count = Constant <value_int: int = @heads> ()
    heads = Reshape (count, any)
    order = Constant <value_string: string = @order> ()
    kv_name = Constant <value_string: string = "kv"> ()
    is_kv = Equal (order, kv_name)
"""

#: ``q`` [..., heads, d, positions] of Q [..., heads * d, ...], in floats that hold its products.
_BY_HEAD = """
    q_size = Shape (Q)
    q_channels = Slice (q_size, at, behind)
    q_each = Div (q_channels, heads)
    q_apart = Concat <axis: int = 0> (kept, heads, q_each, any)
    q_wide = Cast <to: int = TYPE> (Q)
    q = Reshape (q_wide, q_apart)
"""

_WHOLE = """
    positions = Slice (q_size, behind, end)
    whole = Concat <axis: int = 0> (first, v_channels, positions)
    rows = Reshape (y, whole)
    Y = Cast <to: int = RESULT> (rows)
"""

_BY_ORDER = """
    y = If (is_kv) <
      then_branch: graph = kv () => (REAL[] y_kv) { KV },
      else_branch: graph = qk () => (REAL[] y_qk) { QK }
    >
"""

_TURNED = "Transpose <perm: ints = [0, 1, 3, 2]>"

_OF_COUNTS = {
    "KV": f"""
      turned = {_TURNED} (v)
      matrix = MatMul (k, turned)
      across = {_TURNED} (matrix)
      y_kv = MatMul (across, q)
    """,
    "QK": f"""
      turned = {_TURNED} (k)
      matrix = MatMul (turned, q)
      y_qk = MatMul (v, matrix)
    """,
}

#: Trains ONE [D, N, heads, rows, shared] and TWO [D', N, heads, columns, shared] grow the matrix
#: (rows, columns); each spike meets what came before it and with it.
_GROWN = f"""
      ticks_one = Shape <start: int = 0, end: int = 1> (ONE)
      ticks_two = Shape <start: int = 0, end: int = 1> (TWO)
      both = Max (ticks_one, ticks_two)
      ticks = Squeeze (both)
      start_one = Slice (ONE, end, end, first)
      start_two = Slice (TWO, end, end, first)
      none_one = ReduceSum <keepdims: int = 0, noop_with_empty_axes: int = 0> (start_one, first)
      none_two = ReduceSum <keepdims: int = 0, noop_with_empty_axes: int = 0> (start_two, first)
      none_turned = {_TURNED} (none_two)
      empty = MatMul (none_one, none_turned)
      go = Constant <value: tensor = bool {{1}}> ()
      all_one, all_two, matrix = Loop <body: graph = meet (int64 t, bool on,
          double[] before_one, double[] before_two, double[] grown) =>
          (bool still_on, double[] after_one, double[] after_two, double[] next) {{
        still_on = Identity (on)
        from = Reshape (t, any)
        unit = Constant <value_ints: ints = [1]> ()
        to = Add (from, unit)
        now_one = Slice (ONE, from, to, first)
        now_two = Slice (TWO, from, to, first)
        one = ReduceSum <keepdims: int = 0, noop_with_empty_axes: int = 0> (now_one, first)
        two = ReduceSum <keepdims: int = 0, noop_with_empty_axes: int = 0> (now_two, first)
        after_one = Add (before_one, one)
        after_two = Add (before_two, two)
        after_turned = {_TURNED} (after_two)
        two_turned = {_TURNED} (two)
        spikes = MatMul (one, after_turned)
        cross = MatMul (before_one, two_turned)
        met = Add (grown, spikes)
        next = Add (met, cross)
      }}> (ticks, go, none_one, none_two, empty)
      across = {_TURNED} (matrix)
"""

#: The third train LAST [D, N, heads, ...], tick by tick; PRODUCT is what a tick ``spikes`` adds.
_REPLAYED = """
      last_ticks = Shape <start: int = 0, end: int = 1> (LAST)
      turns = Squeeze (last_ticks)
      zero = Constant <value_int: int = 0> ()
      last_0 = Gather <axis: int = 0> (LAST, zero)
      silent = Sub (last_0, last_0)
      nothing = MatMul (SILENT)
      RESULT = Loop <body: graph = replay (int64 t, bool on, double[] sum) =>
          (bool still_on, double[] more) {
        still_on = Identity (on)
        spikes = Gather <axis: int = 0> (LAST, t)
        brought = MatMul (PRODUCT)
        more = Add (sum, brought)
      }> (turns, go, nothing)
"""


def _filled(text: str, words: dict[str, str]) -> str:
    for old, new in words.items():
        text = text.replace(old, new)
    return text


def _replayed(last: str, order: str, result: str) -> str:
    """``kv``: matrix^T (e, d) times q (d, N); ``qk``: v (e, M) times matrix^T (M, N)."""
    pair = "across, {}" if order == "kv" else "{}, across"
    words = {"LAST": last, "SILENT": pair.format("silent"), "PRODUCT": pair.format("spikes")}
    return _filled(_REPLAYED, words).replace("RESULT", result)


_TURNED_TICKS = "Transpose <perm: ints = [0, 1, 2, 4, 3]>"
_OF_TICKS = {
    "KV": _filled(_GROWN, {"ONE": "k", "TWO": "v"}) + _replayed("q", "kv", "y_kv"),
    "QK": f"""
      q_turned = {_TURNED_TICKS} (q)
      k_turned = {_TURNED_TICKS} (k)
    """ + _filled(_GROWN, {"ONE": "q_turned", "TWO": "k_turned"})
    + _replayed("v", "qk", "y_qk"),
}  # fmt: skip


def _body(lead: int, real: str, result: int, branches: dict[str, str]) -> str:
    """The whole function.

    Args:
        lead: Axes before the channels.
        real: ``float`` or ``double``, in which products are summed.
        result: Type of Y.
        branches: The two orders.
    """
    kind = {"float": _FLOAT, "double": _DOUBLE}[real]
    zeros = ", ".join("0" * lead)
    head = _filled(_CONSTANTS, {"LEAD_ZEROS": zeros, "LEAD_1": str(lead + 1), "LEAD": str(lead)})
    by_head = _filled(_BY_HEAD, {"TYPE": str(kind)})
    for name in "kv":
        head += _filled(
            _BY_HEAD, {"TYPE": str(kind), "q_": f"{name}_", "Q": name.upper(), "q =": f"{name} ="}
        )
    chosen = _filled(_BY_ORDER, {"REAL": real})
    for key, branch in branches.items():
        chosen = chosen.replace(f"{{ {key} }}", f"{{{indent(branch, '    ').rstrip()}\n      }}")
    return head + by_head + chosen + _filled(_WHOLE, {"RESULT": str(result)})


_ATTRIBUTES = {"heads": "int", "order": "string"}

_ATTENTION = Op(
    "Attention",
    "imported",
    "Spike-driven attention (q k^T) v, without a softmax, over [N, heads * d, ...]; the channels "
    "of a head lie side by side. Order 'kv' forms k v^T first, 'qk' q^T k.",
    {"Q": F32, "K": F32, "V": F32},
    {"Y": F32},
    _ATTRIBUTES,
    _body(1, "float", _FLOAT, _OF_COUNTS),
    Traits(Numbers.COUNTS, Numbers.POTENTIALS, becomes="QAttention", multiplies=True),
)

_Q_ATTENTION = Op(
    "QAttention",
    "quantised",
    "Spike-driven attention of spike counts, exact while the products stay below 2^53, which the "
    "compiler proves.",
    {"Q": U8, "K": U8, "V": U8},
    {"Y": I64},
    _ATTRIBUTES,
    _body(1, "double", _INT64, _OF_COUNTS),
    Traits(Numbers.COUNTS, Numbers.POTENTIALS, becomes="SpikeAttention", multiplies=True),
)

_SPIKE_ATTENTION = Op(
    "SpikeAttention",
    "spiking",
    "Spike-driven attention of spike trains [D, N, heads * d, ...]. In each tick the spikes of two "
    "trains meet each other's and all before them; the third is replayed when that is complete.",
    {"Q": U8, "K": U8, "V": U8},
    {"Y": I64},
    _ATTRIBUTES,
    _body(2, "double", _INT64, _OF_TICKS),
    Traits(Numbers.TICKS, Numbers.POTENTIALS, multiplies=True),
)

ATTENTION_OPS = (_ATTENTION, _Q_ATTENTION, _SPIKE_ATTENTION)
