"""What an operator of domain ``ai.snncc`` is: a schema, and a body in standard ONNX."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["COUNTS", "F32", "GAPS", "I8", "I32", "I64", "SUMMED", "U8", "Op"]

F32 = ("tensor(float)",)
U8 = ("tensor(uint8)",)
I8 = ("tensor(int8)",)
I32 = ("tensor(int32)",)
I64 = ("tensor(int64)",)
COUNTS = ("tensor(uint8)", "tensor(int64)")
SUMMED = ("tensor(float)", "tensor(int64)")

#: In the body of a neuron that fires tick by tick: levels [C|1, D] as L [D, C|1, ...], and the gap
#: that each spike's reset takes, which is none behind the last.
GAPS = """level_shape = Concat <axis: int = 0> (D, any, tail)
    by_tick = Transpose <perm: ints = [1, 0]> (levels)
    L = Reshape (by_tick, level_shape)
    later = Slice (L, one, end, zero)
    last = Slice (L, any, end, zero)
    next = Concat <axis: int = 0> (later, last)
    gaps = Sub (next, L)"""


@dataclass(frozen=True)
class Op:
    """One operator: its schema and its meaning.

    Attributes:
        name: In domain ``ai.snncc``.
        stage: Where it appears first.
        doc: What it computes, one or two sentences.
        inputs, outputs: Name -> allowed types.
        attributes: Name -> ``int``, ``ints``, ``float`` or ``string``; written out, but for:
        body: ONNX text of the function body.
        optional: Strings among them that may be left out, name -> default; no body reads them.
    """

    name: str
    stage: str
    doc: str
    inputs: dict[str, tuple[str, ...]]
    outputs: dict[str, tuple[str, ...]]
    attributes: dict[str, str]
    body: str
    optional: dict[str, str] = field(default_factory=dict)
