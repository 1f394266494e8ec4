"""Gates: products of two spike trains, number by number, which are spike trains again.

Of kind ``and`` A meets B; of ``and-not`` the spikes that B did not fire, of ``most`` that it
could. One of the two may hold one number a channel, [N, C, 1, ...].
"""

from __future__ import annotations

from snncc.ir.op import F32, U8, Op
from snncc.ir.traits import Numbers, Traits

__all__ = ["AND", "AND_NOT", "GATE_OPS"]

#: The two kinds.
AND, AND_NOT = "and", "and-not"

_KIND = f"""
    kind = Constant <value_string: string = @kind> ()
    named = Constant <value_string: string = "{AND_NOT}"> ()
    is_not = Equal (kind, named)
"""

_OF_COUNTS = """
    a = Cast <to: int = TYPE> (A)
    b = Cast <to: int = TYPE> (B)
    number = Constant <value_int: int = @most> ()
    top = Cast <to: int = TYPE> (number)
    silent = Sub (top, b)
    other = Where (is_not, silent, b)
    product = Mul (a, other)
    Y = Cast <to: int = RESULT> (product)
"""

#: The shorter train is silent after its end, and its silence is over, too. What is emitted in a
#: tick is what the product of the sums has grown by.
_OF_TICKS = """
    a = Cast <to: int = 7> (A)
    b = Cast <to: int = 7> (B)
    one = Constant <value_int: int = 1> ()
    silent = Sub (one, b)
    other = Where (is_not, silent, b)
    first = Constant <value_ints: ints = [0]> ()
    begin = Constant <value_ints: ints = [1]> ()
    last = Constant <value_ints: ints = [-1]> ()
    zero = Constant <value_int: int = 0> ()
    ticks_a = Shape <start: int = 0, end: int = 1> (a)
    ticks_b = Shape <start: int = 0, end: int = 1> (b)
    ticks = Max (ticks_a, ticks_b)
    more_a = Sub (ticks, ticks_a)
    more_b = Sub (ticks, ticks_b)
    after_a = Concat <axis: int = 0> (first, more_a)
    after_b = Concat <axis: int = 0> (first, more_b)
    long_a = Pad <mode: string = "constant"> (a, after_a, zero, first)
    long_b = Pad <mode: string = "constant"> (other, after_b, zero, first)
    sum_a = CumSum (long_a, zero)
    sum_b = CumSum (long_b, zero)
    product = Mul (sum_a, sum_b)
    all_but_last = Slice (product, first, last, first)
    one_before = Concat <axis: int = 0> (begin, first)
    before = Pad <mode: string = "constant"> (all_but_last, one_before, zero, first)
    grown = Sub (product, before)
    Y = Cast <to: int = 2> (grown)
"""

_ATTRIBUTES = {"kind": "string", "most": "int"}


def _counted(dtype: int, result: int) -> str:
    return _KIND + _OF_COUNTS.replace("TYPE", str(dtype)).replace("RESULT", str(result))


_GATE = Op(
    "Gate",
    "imported",
    "The product of two spike trains, kind 'and'; of A and the spikes that B did not fire, of "
    "'most' that it could, kind 'and-not'.",
    {"A": F32, "B": F32},
    {"Y": F32},
    _ATTRIBUTES,
    _counted(1, 1),
    Traits(Numbers.COUNTS, Numbers.COUNTS, becomes="CountGate", multiplies=True),
)

_COUNT_GATE = Op(
    "CountGate",
    "quantised",
    "A gate of spike counts; what it comes to fits a byte, which the compiler proves.",
    {"A": U8, "B": U8},
    {"Y": U8},
    _ATTRIBUTES,
    _counted(7, 2),
    Traits(Numbers.COUNTS, Numbers.COUNTS, becomes="SpikeGate", multiplies=True),
)

_SPIKE_GATE = Op(
    "SpikeGate",
    "spiking",
    "A gate of spike trains [D, N, ...]: in each tick what their product has grown by. Where its "
    "silence counts, B fires one spike a tick at most, so that no body needs 'most'.",
    {"A": U8, "B": U8},
    {"Y": U8},
    _ATTRIBUTES,
    _KIND + _OF_TICKS,
    Traits(Numbers.TICKS, Numbers.TICKS, multiplies=True),
)

GATE_OPS = (_GATE, _COUNT_GATE, _SPIKE_GATE)
