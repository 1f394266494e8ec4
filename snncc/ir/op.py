"""What an operator of domain ``ai.snncc`` is: a schema, and a body in standard ONNX."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from snncc.ir.traits import ORDER, Traits

__all__ = ["COUNTS", "F32", "GAPS", "I8", "I32", "I64", "SUMMED", "U8", "Op"]

F32 = ("tensor(float)",)
U8 = ("tensor(uint8)",)
I8 = ("tensor(int8)",)
I32 = ("tensor(int32)",)
I64 = ("tensor(int64)",)
COUNTS = ("tensor(uint8)", "tensor(int64)")
SUMMED = ("tensor(float)", "tensor(int64)")

#: In the body of a neuron that fires tick by tick: levels [C|1, D] as L [D, C|1, ...], and the gap
#: that each spike's reset takes, which is none after the last.
GAPS = """level_shape = Concat <axis: int = 0> (D, any, tail)
    by_tick = Transpose <perm: ints = [1, 0]> (levels)
    L = Reshape (by_tick, level_shape)
    later = Slice (L, one, end, zero)
    last = Slice (L, any, end, zero)
    next = Concat <axis: int = 0> (later, last)
    gaps = Sub (next, L)"""


@dataclass(frozen=True)
class Op:
    """One operator: its schema, its meaning, and what it says of itself.

    Attributes:
        name: In domain ``ai.snncc``.
        stage: Where it appears first.
        doc: What it computes, one or two sentences.
        inputs, outputs: Name -> allowed types.
        attributes: Name -> ``int``, ``ints``, ``float``, ``floats`` or ``string``; written out, but
            for:
        body: ONNX text of the function body.
        traits: What passes may ask of it.
        optional: Strings and ints among them that may be left out, name -> default.
    """

    name: str
    stage: str
    doc: str
    inputs: dict[str, tuple[str, ...]]
    outputs: dict[str, tuple[str, ...]]
    attributes: dict[str, str]
    body: str
    traits: Traits
    optional: dict[str, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse an operator that leaves a query without an answer.

        Raises:
            ValueError: Naming the operator and all traits that are missing.
        """
        if missing := [f"'{name}', {why}" for name, why in self._missing()]:
            raise ValueError(f"operator '{self.name}': trait {'; '.join(missing)}")

    def _missing(self) -> Iterator[tuple[str, str]]:
        """Traits that passes would ask for in vain, and why they ask."""
        t, is_float = self.traits, all(types == F32 for types in self.inputs.values())
        if t.emits is None and not t.keeps:
            yield "emits", "or 'keeps': what its numbers are"
        if t.emits is not None and t.reads is None:
            yield "reads", "what it makes its result of"
        if t.until and t.until not in ORDER:
            yield "until", f"but there is no stage '{t.until}'"
        if is_float and not t.fires and not t.becomes and not t.until:
            yield "becomes", "its form on integers; or 'until', where it has none"
        if t.fires and self.stage != ORDER[-1] and not t.becomes:
            yield "becomes", "what it is in the next stage, tick by tick in the last"
        if t.multiplies and self.stage != ORDER[-1] and not t.becomes:
            yield "becomes", "what it is of counts, and of these tick by tick"
        if t.fires and is_float and not {"D", "norm"} <= self.attributes.keys():
            yield "fires", "but attributes 'D' and 'norm' are not there"
        if t.fires and is_float and not t.rounds:
            yield "rounds", "as a neuron does"
        if t.fires and is_float and not t.remembers and t.border is None:
            yield "border", "where between two counts it fires one more"
        if t.remembers and "T" not in self.attributes:
            yield "remembers", "but attribute 'T' is not there"
        if t.sums and t.sums not in self.attributes:
            yield "sums", f"but attribute '{t.sums}' is not there"
        if (t.begins_time or t.ends_time) and "T" not in self.attributes:
            yield "begins_time", "or 'ends_time', but attribute 'T' is not there"
        if t.masks and len(self.inputs) < 2:
            yield "masks", "but there is no second input"
