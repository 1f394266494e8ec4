"""What an engine settles before it runs: samples, masks, probes, times of completion."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from snncc.errors import BadInputError, Fault, UsageError
from snncc.program import Accumulator, Array, Neuron, Node, Program, Relay, Shape, sources_of

__all__ = [
    "active_positions",
    "check_input",
    "check_memory",
    "check_probes",
    "completion_windows",
    "timesteps",
]


def check_memory(engine: str, state_bytes: int, threads: int = 1) -> None:
    """A file of a few kilobytes may describe maps of gigabytes.

    Args:
        engine: Name of the engine, for people.
        state_bytes: What the values of one sample take.
        threads: How many samples are computed at once.

    Raises:
        BadInputError: This machine has less memory than that.
    """
    here = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    needed = state_bytes * threads
    if needed > here:
        raise BadInputError(
            f"{engine}: the values of a sample take {state_bytes / 2**30:,.1f} GiB a thread, "
            f"{threads} threads {needed / 2**30:,.1f} GiB; this machine has {here / 2**30:,.1f} GiB"
        )


def check_probes(program: Program, probes: Collection[str], engine: str) -> None:
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
        raise UsageError(f"{engine}: cannot probe {', '.join(unknown)}; there are: {names}")


def check_input(program: Program, x: npt.NDArray[Any], engine: str, *, values: bool = True) -> int:
    """How many axes come before a sample's: 1 for (N, *shape), 2 for (T, N, *shape).

    Args:
        program: What it is the input of.
        x: Samples.
        engine: Name of the engine, for people.
        values: Look at the range, too.

    Raises:
        BadInputError: Wrong shape, dtype or range of ``x``.
    """
    source, T = program.source, program.timesteps
    lead = x.ndim - len(source.shape)

    def wrong(what: str) -> BadInputError:
        fault = Fault(what, node=source.name, kind="Source")
        return BadInputError(f"{engine}: wrong input", [fault])

    if lead not in (1, 2) or x.shape[lead:] != source.shape or 0 in x.shape:
        sample = ", ".join(map(str, source.shape))
        raise wrong(f"shape {x.shape}, not (N, {sample}) or ({T}, N, {sample})")
    if lead == 2 and len(x) != T:
        raise wrong(f"{len(x)} timesteps; the network has {T}")
    if x.dtype.kind not in "ui":
        raise wrong(f"{x.dtype}, not integers")
    if values and (x.min() < 0 or x.max() > source.payload):
        raise wrong(f"values {x.min()}..{x.max()}, not in 0..{source.payload}")
    return lead


def timesteps(program: Program, x: npt.NDArray[Any], engine: str) -> Array:
    """The input as (T, N, *shape); raises like ``check_input``."""
    if check_input(program, x, engine) == 2:
        return x
    return np.broadcast_to(x, (program.timesteps, *x.shape))


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
        windows[node.name] = max((_end(s, windows) for s in sources), default=0)
    return windows


def _end(source: Node, windows: Mapping[str, int]) -> int:
    """The window at whose start all that a node emits has been emitted."""
    return source.depth + 1 if isinstance(source, (Neuron, Relay)) else windows[source.name]
