"""Sizes that a network's code computes from the shapes of its values: so many times the samples."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.graphs import constant
from snncc.ir.oracle import evaluate
from snncc.passes.time.layout import Work

__all__ = ["Size", "sizes_in"]

Array = npt.NDArray[Any]

#: Numbers of samples that tell a size; no multiple of each other.
_SAMPLES = (5, 7, 11)


@dataclass(frozen=True)
class Size:
    """``batches`` * N + ``rest``."""

    batches: int
    rest: int

    @property
    def fixed(self) -> int | None:
        """The number that it is, of any batch."""
        return None if self.batches else self.rest


def sizes_in(work: Work, value: ir.Value | None) -> list[Size] | None:
    """The sizes that a value of integers holds; None where they are nothing of this kind."""
    if value is None:
        return None
    if (known := constant(value)) is not None:
        return [Size(0, int(n)) for n in known.reshape(-1)]
    if (shapes := _shapes_before(work, value)) is None:
        return None
    first, second, third = (_at(work, value, shapes, samples) for samples in _SAMPLES)
    n, m, k = _SAMPLES
    if (second - first).any() and ((second - first) % (m - n)).any():
        return None
    batches = (second - first) // (m - n)
    rest = first - batches * n
    if (third != batches * k + rest).any():
        return None
    return [Size(int(b), int(r)) for b, r in zip(batches, rest, strict=True)]


def _shapes_before(work: Work, value: ir.Value) -> list[ir.Value] | None:
    """The shapes of known values that it is computed from, and from nothing else."""
    found, pending, done = [], [value], set()
    while pending:
        node = pending.pop().producer()
        if node is None:
            return None
        if node in done:
            continue
        done.add(node)
        if node.op_type == "Shape":
            if node.inputs[0] not in work.seen:
                return None
            found.append(node.outputs[0])
        else:
            pending += [v for v in node.inputs if v is not None and constant(v) is None]
    return found or None


def _at(work: Work, value: ir.Value, shapes: list[ir.Value], samples: int) -> Array:
    graph = ir.convenience.extract(work.model.graph, shapes, [value])
    part = ir.Model(graph, ir_version=work.model.ir_version)
    feeds = {str(v.name): _shape(work, v, samples) for v in shapes}
    return evaluate(part, feeds)[str(value.name)].astype(np.int64).reshape(-1)


def _shape(work: Work, shape: ir.Value, samples: int) -> Array:
    node = shape.producer()
    assert node is not None
    x = node.inputs[0]
    assert x is not None
    groups = work.seen[x].view.groups
    sizes = [prod(d.size or samples for d in group) for group in groups]
    first, last = (node.attributes.get_int(name, None) for name in ("start", "end"))
    return np.array(sizes[first:last], np.int64)
