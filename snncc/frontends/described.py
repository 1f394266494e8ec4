"""What descriptions of neurons fire, in floating point, and where that is certain."""

from __future__ import annotations

from collections.abc import Callable

import torch

from snncc.frontends.descriptions import Decay, StatefulFireSpec

__all__ = ["MARGIN", "fired", "shared_out"]

#: How near to a border, relative to what a neuron holds, other spellings may round otherwise.
MARGIN = 1e-5


def fired(neuron: StatefulFireSpec, drives: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Spike counts of a description, and where whatever fits it must fire these.

    Args:
        neuron: The description.
        drives: float32 [T, Q]; [T, N, ...] where neurons have decays of their own.

    Returns:
        Counts, float64, and bool, both of this shape.
    """
    counts, sure = zip(*(_fired(part, drives) for part in neuron.parts), strict=True)
    return torch.stack(counts).sum(0), torch.stack(sure).all(0)


def shared_out(
    neuron: StatefulFireSpec, drives: torch.Tensor, total: torch.Tensor
) -> list[torch.Tensor]:
    """What each memory of a neuron fires, so that all make up what the neuron fired.

    Where rounding may decide, a module may go the other way than its description: the memories that
    are nearest to their borders then make up the difference.

    Args:
        neuron: The description.
        drives: float32 [T, ...].
        total: Spike counts that the neuron fired for them, [T, ...].

    Returns:
        Counts of each memory, alike. They add up to another total where no spikes of theirs do.
    """
    runs = [
        _run(p, drives, _each(p.decay), p.gain, p.threshold, _each(p.current)) for p in neuron.parts
    ]
    counts = torch.stack([run[0] for run in runs]).to(total)
    borders = [_border(p, run[1], p.threshold) for p, run in zip(neuron.parts, runs, strict=True)]
    nearness = torch.stack([(run[1] - b).abs() for run, b in zip(runs, borders, strict=True)])
    for index in nearness.argsort(0):
        missing = (total - counts.sum(0)).unsqueeze(0)
        held = counts.gather(0, index.unsqueeze(0))
        counts.scatter_(0, index.unsqueeze(0), (held + missing).clamp(0, neuron.D))
    return list(counts)


def _fired(neuron: StatefulFireSpec, drives: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``fired``, of one memory.

    Parameters that float32 does not hold (1 / 3) are exact in no spelling: so float64 computes with
    them, and with what float32 makes of them.
    """
    decay, current = _each(neuron.decay), _each(neuron.current)
    theta, gain = _in_float32(neuron.threshold), _in_float32(neuron.gain)
    wide = decay, neuron.gain, theta, current
    narrow = decay.float(), gain, theta, current.float()
    counts, h, scale = _run(neuron, drives.double(), *wide)
    others = [_run(neuron, drives.double(), *narrow)]
    others += [_run(neuron, drives, *narrow, spelling) for spelling in _SPELLINGS]
    is_alike = torch.stack([other[0] == counts for other in others]).all(0)
    is_exact = torch.stack([other[1] == h for other in others]).all(0)
    is_far = (h - _border(neuron, h, theta)).abs() > MARGIN * scale.cummax(0).values
    if neuron.units is not None:  # a drive times these is rounded
        is_exact = torch.zeros_like(is_far)
    return counts, (is_alike & (is_exact | is_far)).cummin(0).values


def _border(neuron: StatefulFireSpec, h: torch.Tensor, threshold: float) -> torch.Tensor:
    """The nearest border of a membrane."""
    if neuron.rule.startswith("half"):
        return h.floor() + 0.5
    return (h / threshold).round().clamp(1, neuron.D) * threshold


def _in_float32(number: float) -> float:
    return float(torch.tensor(number, dtype=torch.float32))


def _each(decay: Decay) -> torch.Tensor:
    """What a decay is of each neuron, float64, which broadcasts against a timestep."""
    return torch.tensor(decay, dtype=torch.float64)


def _charged(v: torch.Tensor, x: torch.Tensor, decay: torch.Tensor, gain: float) -> torch.Tensor:
    return decay * v + gain * x


def _leaked(v: torch.Tensor, x: torch.Tensor, decay: torch.Tensor, gain: float) -> torch.Tensor:
    return v - v * (1 - decay) + gain * x


def _drawn(v: torch.Tensor, x: torch.Tensor, decay: torch.Tensor, gain: float) -> torch.Tensor:
    leak = 1 - decay
    return torch.where(leak == 0, v + x * gain, v + (x * (gain / leak) - v) * leak)


#: How authors write a timestep.
_SPELLINGS = (_charged, _leaked, _drawn)


def _run(
    neuron: StatefulFireSpec,
    drives: torch.Tensor,
    decay: torch.Tensor,
    gain: float,
    threshold: float,
    current: torch.Tensor,
    charge: Callable[..., torch.Tensor] = _charged,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Spike counts, what is compared with borders, and the size of what makes that up."""
    found = []
    v = owed = flow = torch.zeros_like(drives[0])
    divisor = threshold if neuron.rule.startswith("half") else 1.0
    for x in drives:
        flow = current * flow + x
        h = charge(v, flow, decay, gain) - owed
        u = h / divisor if charge is _charged else h * (1 / divisor)
        count = _count(neuron, u, threshold)
        size = v.abs() + (gain * flow).abs() + owed.abs() + threshold
        found.append((count, u, size / divisor))
        v, owed = _after(neuron, h, owed, count, threshold)
    counts, potentials, scales = map(torch.stack, zip(*found, strict=True))
    return counts, potentials, scales


def _after(
    neuron: StatefulFireSpec, h: torch.Tensor, owed: torch.Tensor, count: torch.Tensor,
    threshold: float,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """What stays of a membrane after its spikes, and what the next one is lowered by."""
    taken = count * threshold
    match neuron.reset:
        case "none":
            return h, torch.zeros_like(h)
        case "delayed":
            return h, taken
        case "hard":
            return h * (count == 0), torch.zeros_like(h)
        case "raised":
            left = h + owed - taken
            return left, _count(neuron, left, threshold) * threshold
    return h - taken, torch.zeros_like(h)


def _count(neuron: StatefulFireSpec, u: torch.Tensor, threshold: float) -> torch.Tensor:
    if neuron.rule == ">=":
        return (u / threshold).floor().clamp(0, neuron.D)
    if neuron.rule == ">":
        return (u > threshold).to(u)
    u = u.clamp(0, neuron.D)
    return u.round() if neuron.rule == "half-even" else (u + 0.5).floor()
