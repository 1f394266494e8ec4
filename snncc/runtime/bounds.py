"""Ranges of membrane potentials: proved from weights, observed on data, and what is left."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snncc.backends.base import Progress
from snncc.backends.engines import make_engine
from snncc.errors import Fault, VerificationError
from snncc.program import Accumulator, Program
from snncc.program.bounds import DIGIT
from snncc.runtime.contract import by_timestep
from snncc.runtime.report import Bound, Observed

if TYPE_CHECKING:
    from snncc.runtime.artifact import CompiledModel

__all__ = ["bits_of", "bounds", "observe"]

#: Samples observed at once, and bytes of their potentials: so many at most.
_BATCH, _BYTES = 64, 2**28


def bounds(program: Program) -> tuple[Bound, ...]:
    """Proved range of every accumulator, and the bits it needs."""
    return tuple(
        Bound(
            a.module or a.name,
            a.name,
            a.low,
            a.high,
            bits_of(a.low, a.high),
            _slice_bits(a, program),
        )
        for a in program.accumulators
    )


def bits_of(low: int, high: int) -> int:
    """Bits of the numbers from ``low`` to ``high``, sign included."""
    return max(abs(low), abs(high)).bit_length() + 1


def _slice_bits(accumulator: Accumulator, program: Program) -> int:
    """Of the sums of a slice; with a digit at a time of a graded payload."""
    nodes = program.by_name
    reaches = (
        (DIGIT + 1 if nodes[p.source].is_potential else p.payload) * _one_signed(w)
        for p in accumulator.projections
        for w in p.weights
    )
    return max(reaches, default=0).bit_length() + 1


def _one_signed(weights: npt.NDArray[np.int8]) -> int:
    """Largest sum of the positive, or of the negative, weights of an output."""
    rows = weights.astype(np.int64).reshape(len(weights), -1)
    return int(np.maximum(rows, 0).sum(1).max(initial=-np.minimum(rows, 0).sum(1).min()))


def observe(
    model: CompiledModel, x: npt.NDArray[Any], progress: Progress | None = None
) -> Observed:
    """Smallest and largest potential of each accumulator on samples, by the integer engine.

    Args:
        model: Compiled or loaded.
        x: Integers of the source, uint8 (N, *shape), sequences (N, T, *shape).
        progress: Called with the number of samples done.

    Raises:
        VerificationError: A potential is outside what was proved: a fault of the compiler.
    """
    engine, shape = make_engine("integer", model), model.input.shape
    ranges: dict[str, tuple[Any, Any]] = {}
    names = [a.name for a in model.program.accumulators]
    batch = _batch(model.program)
    for start in range(0, len(x), batch):
        part = x[start : start + batch]
        seen = engine.run(by_timestep(part, shape), probes=names, batch=len(part)).potentials
        for name in names:
            low, high = ranges.get(name, (seen[name].min(), seen[name].max()))
            ranges[name] = (min(low, seen[name].min()), max(high, seen[name].max()))
        if progress is not None:
            progress(len(part))
    found = {name: (int(low), int(high)) for name, (low, high) in ranges.items()}
    _require_proved(model.program, found)
    return Observed(len(x), found)


def _batch(program: Program) -> int:
    """Samples whose potentials fit comfortably in memory."""
    each = 8 * sum(prod(a.shape) for a in program.accumulators) * program.timesteps
    return max(1, min(_BATCH, _BYTES // max(each, 1)))


def _require_proved(program: Program, ranges: Mapping[str, tuple[int, int]]) -> None:
    faults = [
        Fault(
            f"reached {list(ranges[a.name])}, proved was [{a.low}, {a.high}]", a.name, "Accumulator"
        )
        for a in program.accumulators
        if not a.low <= ranges[a.name][0] <= ranges[a.name][1] <= a.high
    ]
    if faults:
        raise VerificationError("potentials leave their bounds; please report this network", faults)
