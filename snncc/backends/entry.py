"""What the clocked engine settles before its clock starts: samples, masks, probes, completion."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from snncc.errors import BadInputError, Fault, UsageError
from snncc.ir.program import Accumulator, Array, Neuron, Program, Shape, Source, sources_of

__all__ = ["active_positions", "check_probes", "completion_windows", "timesteps"]


def check_probes(program: Program, probes: Collection[str]) -> None:
    """Populations and accumulators alone can be recorded.

    Raises:
        UsageError: Another name, with all that there are.
    """
    probed: tuple[Accumulator | Neuron, ...] = (*program.accumulators, *program.neurons)
    known = {node.name: node.module for node in probed}
    unknown = [repr(name) for name in probes if name not in known]
    if unknown:
        names = ", ".join(
            f"{name} ({module})" if module else name for name, module in known.items()
        )
        raise UsageError(f"clocked: cannot probe {', '.join(unknown)}; there are: {names}")


def timesteps(program: Program, x: npt.NDArray[Any]) -> Array:
    """The input as (T, N, *shape).

    Raises:
        BadInputError: Wrong shape, dtype or range of ``x``.
    """
    source, T = program.source, program.timesteps
    lead = x.ndim - len(source.shape)
    if lead not in (1, 2) or x.shape[lead:] != source.shape or 0 in x.shape:
        sample = ", ".join(map(str, source.shape))
        raise _wrong_input(source, f"shape {x.shape}, not (N, {sample}) or ({T}, N, {sample})")
    if lead == 2 and len(x) != T:
        raise _wrong_input(source, f"{len(x)} timesteps; the network has {T}")
    if x.dtype.kind not in "ui":
        raise _wrong_input(source, f"{x.dtype}, not integers")
    if x.min() < 0 or x.max() > source.payload:
        raise _wrong_input(source, f"values {x.min()}..{x.max()}, not in 0..{source.payload}")
    return x if lead == 2 else np.broadcast_to(x, (T, *x.shape))


def _wrong_input(source: Source, what: str) -> BadInputError:
    return BadInputError("clocked: wrong input", [Fault(what, node=source.name, kind="Source")])


def active_positions(step: Array, shape: Shape, patches: tuple[int, int]) -> Array:
    """Where a masked accumulator keeps its potential: bool (N, 1, H, W).

    Args:
        step: Samples of one timestep (N, C', H', W'); not 0 in the last channel: masked.
        shape: Of the accumulator, (C, H, W).
        patches: Of the mask, (h, w).
    """
    rows, columns = (step.shape[i + 2] // n for i, n in enumerate(patches))
    active = step[:, -1:, ::rows, ::columns] == 0
    for axis in (0, 1):
        active = np.repeat(active, shape[axis + 1] // patches[axis], axis=axis + 2)
    return np.asarray(active)


def completion_windows(program: Program) -> dict[str, int]:
    """For each node the first window at whose start all that it reads has been emitted."""
    windows: dict[str, int] = {}
    for node in program.nodes:
        sources = [program.by_name[name] for name in sources_of(node)]
        ends = [s.depth + 1 if isinstance(s, Neuron) else windows[s.name] for s in sources]
        windows[node.name] = max(ends, default=0)
    return windows
