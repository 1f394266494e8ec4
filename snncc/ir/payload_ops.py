"""Graded payloads: a potential that no neuron reads first goes to the next layer, digit by digit.

A layer multiplies counts with slices of weights, exactly as long as its sums are small. A potential
is sliced likewise: V = sum of digits times 256^place, each digit from -128 to 127. Where potentials
after several such layers would be too wide, one is rounded on its way.
"""

from __future__ import annotations

from snncc.ir.op import I64, Op
from snncc.ir.traits import Numbers, Traits

__all__ = ["PAYLOAD_OPS"]

_PAYLOAD_DIGIT = Op(
    "PayloadDigit",
    "quantised",
    "The digit of V at 256^place, -128 to 127. V + 128 (1 + 256 + ...) makes those below it "
    "positive, so that each is found by itself.",
    {"V": I64},
    {"Y": I64},
    {"place": "int"},
    """
    radix = Constant <value_int: int = 256> ()
    half = Constant <value_int: int = 128> ()
    one = Constant <value_int: int = 1> ()
    below = Constant <value_int: int = 255> ()
    p = Constant <value_int: int = @place> ()
    size = Pow (radix, p)
    rest_of_size = Sub (size, one)
    ones = Div (rest_of_size, below)
    carried = Mul (half, ones)
    raised = Add (V, carried)
    rest = Mod <fmod: int = 0> (raised, size)
    whole = Sub (raised, rest)
    shifted = Div (whole, size)
    lifted = Add (shifted, half)
    digit = Mod <fmod: int = 0> (lifted, radix)
    Y = Sub (digit, half)
    """,
    Traits(Numbers.POTENTIALS, Numbers.DIGITS, keeps_shape=True),
)

_COARSE_POTENTIAL = Op(
    "CoarsePotential",
    "quantised",
    "A potential without its lowest bits: floor((V + 2^(drop - 1)) / 2^drop), halves up.",
    {"V": I64},
    {"Y": I64},
    {"drop": "int"},
    """
    two = Constant <value_int: int = 2> ()
    one = Constant <value_int: int = 1> ()
    bits = Constant <value_int: int = @drop> ()
    fewer = Sub (bits, one)
    half = Pow (two, fewer)
    size = Pow (two, bits)
    raised = Add (V, half)
    rest = Mod <fmod: int = 0> (raised, size)
    whole = Sub (raised, rest)
    Y = Div (whole, size)
    """,
    Traits(Numbers.POTENTIALS, Numbers.POTENTIALS, keeps_shape=True),
)

PAYLOAD_OPS = (_PAYLOAD_DIGIT, _COARSE_POTENTIAL)
