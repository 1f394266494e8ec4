"""Two layers with no neuron between: merged weights, or one after the other on graded payloads.

Merged, they are one layer: its weights are the product of both. Graded, the first layer's potential
is handed to the second as a signed integer, in the tick in which it is complete, and that layer
multiplies it with weights of its own. Both are exact, and neither takes a firing window more.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from math import ceil, log2, prod
from typing import Any

import numpy as np
import onnx_ir as ir

from snncc.errors import Option, UsageError, Words
from snncc.ir.graphs import attribute, label, nodes, static_shape
from snncc.ir.metadata import NO_NEURON
from snncc.passes.reading import Linear, holds_counts, is_branch_sum, linear_behind, read_linear

__all__ = [
    "AUTO",
    "GRADED",
    "MERGE",
    "POTENTIAL_BITS",
    "Between",
    "Cost",
    "allows_payloads",
    "choose",
    "cost_of_weights",
    "left",
    "pairs_of",
    "reading_potentials",
    "require_form",
    "write_pairs",
]

MERGE, GRADED, AUTO = "merge", "graded", "auto"
#: What ``--no-neuron-between`` may say.
FORMS = (MERGE, GRADED, AUTO)
#: Bits of a potential, with sign.
POTENTIAL_BITS = 62
#: A multiplication of a graded payload takes so many times as long as one of a count: payloads are
#: wider than counts, and engines multiply parts of them.
_PAYLOAD_TIME = 2
_BYTES_OF_A_MAP, _PIXEL_BITS = 8, 8


@dataclass(frozen=True)
class Cost:
    """What a form takes.

    Attributes:
        weights: Bytes of weights, in slices of 8 bits, and of bias maps.
        operations: Multiplications per sample and timestep, if every input comes.
        payloads: Those of them whose input is a graded payload.
    """

    weights: int
    operations: int
    payloads: int = 0

    @property
    def time(self) -> int:
        """In multiplications of counts."""
        return self.operations + (_PAYLOAD_TIME - 1) * self.payloads

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.weights + other.weights,
            self.operations + other.operations,
            self.payloads + other.payloads,
        )

    def is_below(self, other: Cost) -> bool:
        """Whether bytes times time are less: neither has a unit in common with the other."""
        return self.weights * self.time < other.weights * other.time


@dataclass(frozen=True)
class Between:
    """What became of two layers with no neuron between.

    Attributes:
        first, module: Module paths of both; of the first, where it is a sum of layers, of one.
        form: ``merged`` or ``graded``.
        why: ``cheaper``, ``asked``, ``only`` (no other form is exact) or ``room`` (the other's
            potentials have too many bits).
        merged, graded: Costs of both; None: it is not possible.
    """

    first: str
    module: str
    form: str
    why: str
    merged: Cost | None
    graded: Cost | None


def require_form(name: str) -> None:
    """Raises UsageError unless there is such a form."""
    if name not in FORMS:
        raise UsageError(Words(Option("no_neuron_between", name), f": {', '.join(FORMS)}"))


def allows_payloads(model: ir.Model) -> bool:
    """Whether layers of a graph after merge-linear may read potentials."""
    said = model.metadata_props.get(NO_NEURON)
    return said is not None and bool(json.loads(said)["form"] != MERGE)


def pairs_of(model: ir.Model) -> list[Between]:
    """What became of the layers of a graph after merge-linear, in order."""
    rows: list[dict[str, Any]] = json.loads(model.metadata_props.get(NO_NEURON, "{}")).get("is", [])
    return [Between(**{**row, **_costs(row)}) for row in rows]


def _costs(row: dict[str, Any]) -> dict[str, Cost | None]:
    return {form: row[form] and Cost(**row[form]) for form in ("merged", "graded")}


def choose(
    first: Linear, second: Linear, whole: Cost, form: str, bits: int, room: int
) -> Between | None:
    """What becomes of two layers that can be merged; None: one only scales channels, and merges.

    Args:
        first: Read by the second alone.
        second: Its reader.
        whole: Cost of both in one.
        form: What the user asked for.
        bits: Of weights.
        room: Bits that potentials may have, with sign.
    """
    if _only_scales(first) or _only_scales(second):
        return None
    apart = cost_of(first, bits) + cost_of(second, bits, graded=True)
    fits = potential_bits(second, bits) + 1 <= room
    is_graded = form == GRADED or (form == AUTO and fits and apart.is_below(whole))
    why = "asked" if form != AUTO else "cheaper" if fits else "room"
    names = label(first.node), label(second.node)
    return Between(*names, "graded" if is_graded else "merged", why, whole, apart)


def left(first: Linear | None, second: Linear, bits: int) -> Between:
    """What becomes of a layer that reads a potential which cannot be merged with it.

    Args:
        first: What it reads, where that is one layer's, and no sum of several.
        second: The layer.
        bits: Of weights.
    """
    name = label(second.node if first is None else first.node)
    cost = cost_of(second, bits, graded=True)
    apart = cost if first is None else cost + cost_of(first, bits)
    return Between(name, label(second.node), "graded", "only", None, apart)


def _only_scales(linear: Linear) -> bool:
    shape = linear.weights.values.shape
    return (
        linear.kind == "conv" and linear.pointwise and linear.group == shape[0] == _inputs(linear)
    )


def _inputs(linear: Linear) -> int:
    return int(linear.weights.values.shape[1] * linear.group)


def write_pairs(model: ir.Model, form: str, pairs: list[Between]) -> None:
    """Keep with the graph what was asked for, and what became of layers, if there are such.

    Args:
        model: At the end of merge-linear.
        form: What the user asked for.
        pairs: Layers with no neuron between.
    """
    rows = [asdict(pair) for pair in pairs]
    if not rows:
        return
    model.metadata_props[NO_NEURON] = json.dumps({"form": form, "is": rows})


def reading_potentials(model: ir.Model) -> list[Linear]:
    """Layers that read what other layers make."""
    found = (linear_behind(node) for node in nodes(model, "Conv", "Gemm"))
    return [linear for linear in found if linear is not None and not holds_counts(linear.x)]


def cost_of(linear: Linear, bits: int, graded: bool = False) -> Cost:
    """Of one layer.

    Args:
        linear: As it is.
        bits: Of weights.
        graded: It reads payloads.
    """
    size = static_shape(linear.out) or (1,)
    found = cost_of_weights(linear.weights.values.shape, size, bits, linear.border is not None)
    return replace(found, payloads=found.operations) if graded else found


def cost_of_weights(
    shape: tuple[int, ...], size: tuple[int, ...], bits: int, is_mapped: bool
) -> Cost:
    """Of weights of a shape, which make a value of a size; ``is_mapped``: and have a bias map."""
    border = _BYTES_OF_A_MAP * prod(size) if is_mapped else 0
    return Cost(prod(shape) * ceil(bits / 8) + border, prod(shape[1:]) * prod(size))


def potential_bits(linear: Linear, bits: int) -> float:
    """About how many bits the potential of a layer has, if it and those before it are not merged.

    Args:
        linear: Of stage ``imported``.
        bits: Of weights.
    """
    rows = np.abs(linear.weight).reshape(len(linear.weight), -1)
    most = rows.max(axis=1, initial=0.0)
    widest = float((rows.sum(axis=1) / np.where(most > 0, most, 1.0)).max(initial=1.0))
    return bits - 1 + log2(max(widest, 1.0)) + _bits_of(linear.x, bits)


def _bits_of(value: ir.Value, bits: int) -> float:
    """Of bursts or pixels, or of what layers make and are added: the widest of these."""
    found, pending, seen = 0.0, [value], set()
    while pending:
        one = pending.pop()
        node = one.producer()
        if one in seen:
            continue
        seen.add(one)
        if node is None or holds_counts(one):
            D = attribute(node, "D", 0) if node is not None else 0
            found = max(found, log2(D) if D else _PIXEL_BITS)
        elif (linear := read_linear(one)) is not None:
            found = max(found, potential_bits(linear, bits))
        else:
            read = node.inputs if is_branch_sum(node) else node.inputs[:1]
            pending += [x for x in read if x is not None]
    return found
