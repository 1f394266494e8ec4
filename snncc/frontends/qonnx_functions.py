"""QONNX's quantisers as ONNX functions, so that ONNX Runtime runs a file that has them.

Each follows the definition of its operator (QONNX, ``docs/qonnx-custom-ops``) as it is written:
divide, shift, clamp, round, and back. Import reads the same nodes in another way; that the two
agree is what the law of import shows.
"""

from __future__ import annotations

from typing import Any

import onnx
import onnx.helper
import onnx.parser

from snncc.frontends.quantised_file import QONNX

__all__ = ["with_quantisers"]

#: The clamps, by whether it is signed and whether it is narrow.
_ENDS = {
    (0, 0): "power = Pow (two, bits)  low = Sub (one, one)  high = Sub (power, one)",
    (0, 1): "power = Pow (two, bits)  low = Sub (one, one)  high = Sub (power, two)",
    (1, 0): "less = Sub (bits, one)  power = Pow (two, less)  low = Neg (power)"
    "  high = Sub (power, one)",
    (1, 1): "less = Sub (bits, one)  power = Pow (two, less)  high = Sub (power, one)"
    "  low = Neg (high)",
}
#: What makes integers of ``k``.
_ROUNDINGS = {
    "ROUND": "whole = Round (k)",
    "HALF_EVEN": "whole = Round (k)",
    "CEIL": "whole = Ceil (k)",
    "FLOOR": "whole = Floor (k)",
    "UP": "size = Abs (k)  sign = Sign (k)  up = Ceil (size)  whole = Mul (sign, up)",
    "DOWN": "size = Abs (k)  sign = Sign (k)  down = Floor (size)  whole = Mul (sign, down)",
    "HALF_UP": "size = Abs (k)  sign = Sign (k)  far = Add (size, half)  up = Floor (far)"
    "  whole = Mul (sign, up)",
    "HALF_DOWN": "size = Abs (k)  sign = Sign (k)  far = Sub (size, half)  down = Ceil (far)"
    "  whole = Mul (sign, down)",
}
_NUMBERS = """
    half = Constant <value = float {0.5}> ()
    one = Constant <value = float {1.0}> ()
    two = Constant <value = float {2.0}> ()
    nothing = Sub (one, one)
    minus = Neg (one)
"""
#: -1 or 1, as BipolarQuant has it and a signed quantiser of one bit.
_SIGNS = "is_above = GreaterOrEqual (steps, nothing)  signs = Where (is_above, one, minus)"
_BIPOLAR = f"{_NUMBERS} steps = Div (x, scale)  {_SIGNS}  y = Mul (signs, scale)"


def with_quantisers(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The file with a function for each kind of quantiser in it; it is changed."""
    imports = [f'"{o.domain}" : {o.version}' for o in proto.opset_import if not o.domain]
    bodies: dict[tuple[str, str], str] = {}
    for node in proto.graph.node:
        if node.domain in QONNX and (found := _body_of(node)) is not None:
            name, arguments, body = found
            node.op_type = name
            bodies[node.domain, name] = f"{name} ({arguments}) => (y) {{{body}}}"
            del node.attribute[:]
    for (domain, _), text in bodies.items():
        head = f'<domain: "{domain}", opset_import: [{", ".join(imports)}]>'
        proto.functions.append(onnx.parser.parse_function(head + text))
    return proto


#: Bits that a Trunc drops, by its inputs: version 2 has the scale after it in place of bits.
_LOST = {
    5: "lost = Sub (given, left)",
    6: "ratio = Div (after, scale)  log = Log (ratio)  base = Log (two)  exponent = Div (log, base)"
    "  lost = Round (exponent)",
}


def _trunc(node: onnx.NodeProto, given: dict[str, Any]) -> tuple[str, str, str] | None:
    """Integers first, then fewer bits of them; version 2 clamps these."""
    signed, narrow, count = (
        int(given.get("signed", 1)),
        int(given.get("narrow", 0)),
        len(node.input),
    )
    mode = bytes(given.get("rounding_mode", b"FLOOR")).decode().upper()
    if mode not in _ROUNDINGS or count not in _LOST:
        return None
    ends = _ENDS[signed, narrow].replace("less", "width").replace("bits", "left")
    clamp = f"{ends}  below = Min (fewer, high)  k = Max (below, low)"
    moved, after = ("Div (zero, share)", "after") if count == 6 else ("Identity (zero)", "scale")
    return (
        f"Trunc_{signed}{narrow}_{mode}_{count}",
        f"x, scale, zero, given, {'after, ' if count == 6 else ''}left",
        f"""
        {_NUMBERS}
        unmoved = Div (x, scale)
        steps = Add (unmoved, zero)
        first = Round (steps)
        {_LOST[count]}
        share = Pow (two, lost)
        fewer = Div (first, share)
        {clamp if count == 6 else "k = Identity (fewer)"}
        {_ROUNDINGS[mode]}
        moved = {moved}
        back = Sub (whole, moved)
        y = Mul (back, {after})
    """,
    )


def _body_of(node: onnx.NodeProto) -> tuple[str, str, str] | None:
    """Name, parameters and text of what the node computes; None where it is no quantiser."""
    if node.op_type == "BipolarQuant":
        return "BipolarQuant", "x, scale", _BIPOLAR
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    signed, narrow = int(given.get("signed", 1)), int(given.get("narrow", 0))
    mode = bytes(given.get("rounding_mode", b"ROUND")).decode().upper()
    if node.op_type == "Trunc":
        return _trunc(node, given)
    if node.op_type not in ("Quant", "IntQuant") or mode not in _ROUNDINGS:
        return None
    return (
        f"{node.op_type}_{signed}{narrow}_{mode}",
        "x, scale, zero, bits",
        f"""
        {_NUMBERS}
        unmoved = Div (x, scale)
        steps = Add (unmoved, zero)
        {_ENDS[signed, narrow]}
        below = Min (steps, high)
        k = Max (below, low)
        {_ROUNDINGS[mode]}
        {_SIGNS}
        has_one_bit = Equal (bits, one)
        q = {"Where (has_one_bit, signs, whole)" if signed else "Identity (whole)"}
        back = Sub (q, zero)
        y = Mul (back, scale)
    """,
    )
