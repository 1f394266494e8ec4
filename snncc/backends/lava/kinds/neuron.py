"""Populations: they integrate what feeds their accumulator, and fire."""

from __future__ import annotations

import numpy as np

from snncc.backends.lava.kinds.base import (
    FEWER_WEIGHT_BITS,
    Bits,
    Found,
    Kind,
    too_wide,
    widest,
)
from snncc.backends.lava.plan import Emission, Plan
from snncc.program import CARRIES, Accumulator, Array, Neuron, Program
from snncc.program.bounds import membrane_range

__all__ = ["NEURON", "narrower", "population"]

#: What the process models of populations do with their membranes, by ``Neuron.carry``.
_RESETS = ("none", "soft", "hard", "delayed", "raised")
#: Shifts that no bits of weights make up for.
_HEAVY_SHIFT = 13


def _add(plan: Plan, node: Neuron) -> None:
    """Nothing is left to add where its accumulator is no process of its own."""
    if node.name in plan.emissions:
        return
    source = plan.emissions[node.source]
    bias = plan.tensor(f"{node.name}.bias", np.zeros(1, dtype=np.int64))
    population(plan, node, [source], source.last, bias)


def population(plan: Plan, node: Neuron, inputs: list[Emission], first: int, bias: str) -> None:
    """The process of a population that sums its inputs up, complete in tick ``first``."""
    levels = _reachable_levels(plan.program, node).T
    fields = {"module": node.module, "first": first, "bias": bias}
    fields["levels"] = plan.tensor(f"{node.name}.levels", levels)
    note = f"D = {node.D}, first level {levels[0].min()} to {levels[0].max()}"
    process = "IFSoftReset" if node.threshold is None else "IFMemory"
    if node.threshold is not None:
        fields["threshold"] = plan.tensor(f"{node.name}.threshold", node.threshold)
        fields |= {"reset": node.carry, "decay": list(node.decay), "fraction": node.fraction}
        fields |= {"timesteps": plan.program.timesteps, "current": list(node.current)}
        note += f", {node.carry} reset, decay {_decay_text(node)}"
    emission = Emission(node.name, node.shape[::-1], first, node.D, 0)
    plan.emissions[node.name] = plan.add(process, emission, *inputs, note=note, **fields)


def _decay_text(node: Neuron) -> str:
    numerator, shift = node.decay
    if isinstance(numerator, int):
        return f"{numerator}/{2**shift}"
    return f"{min(numerator)}/{2**shift} to {max(numerator)}/{2**shift}"


def _reachable_levels(program: Program, node: Neuron) -> Array:
    """Levels (C|1, D); those out of reach are moved to its border, so that all fit 24 bits."""
    low, high = membrane_range(program, node)
    return np.clip(node.levels, low, high + 1)


def _faults(program: Program, node: Neuron, bits: Bits) -> Found:
    low, high = membrane_range(program, node)
    levels = _reachable_levels(program, node)
    ranges = [(low, high), (low - int(levels.max()), high - int(levels.min()))]
    if node.threshold is not None:
        rule, loss = CARRIES[node.carry], node.D * int(node.threshold.max())
        ranges.append((low - loss * (rule.takes and not rule.is_late), loss))
    if node.carry not in _RESETS:
        yield f"no Lava process carries '{node.carry}'", "use another engine"
    source = program.by_name[node.source]
    todo = narrower(source) if isinstance(source, Accumulator) else FEWER_WEIGHT_BITS
    yield from too_wide("the membrane", widest(*ranges), bits, todo)


def narrower(node: Accumulator) -> str:
    """What to do about a potential of too many bits."""
    heaviest = max(node.projections, key=lambda p: p.shift)
    if heaviest.shift < _HEAVY_SHIFT:
        return FEWER_WEIGHT_BITS
    times = f"2^{heaviest.shift} times"
    return f"leave out what '{heaviest.source}' adds, or train on: its weights count {times}"


NEURON = Kind(_add, _faults)
