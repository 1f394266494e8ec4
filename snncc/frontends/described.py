"""What descriptions of neurons fire, in floating point, and where that is certain."""

from __future__ import annotations

from collections.abc import Callable

import torch

from snncc.frontends.descriptions import StatefulFireSpec

__all__ = ["MARGIN", "fired", "shared_out"]

#: How near to a border, relative to what a neuron holds, other spellings may round otherwise.
MARGIN = 1e-5


def fired(neuron: StatefulFireSpec, drives: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Spike counts of a description, and where whatever fits it must fire these.

    Args:
        neuron: The description.
        drives: float32 [T, Q].

    Returns:
        Counts, float64 [T, Q], and bool [T, Q].
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
    runs = [_run(part, drives, part.decay, part.gain, part.threshold) for part in neuron.parts]
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
    theta = _in_float32(neuron.threshold)
    narrow = _in_float32(neuron.decay), _in_float32(neuron.gain), theta
    wide = neuron.decay, neuron.gain, theta
    counts, h, scale = _run(neuron, drives.double(), *wide)
    others = [_run(neuron, drives.double(), *narrow)]
    others += [_run(neuron, drives, *narrow, spelling) for spelling in _SPELLINGS]
    is_alike = torch.stack([other[0] == counts for other in others]).all(0)
    is_exact = torch.stack([other[1] == h for other in others]).all(0)
    is_far = (h - _border(neuron, h, theta)).abs() > MARGIN * scale.cummax(0).values
    return counts, (is_alike & (is_exact | is_far)).cummin(0).values


def _border(neuron: StatefulFireSpec, h: torch.Tensor, threshold: float) -> torch.Tensor | float:
    """The nearest border of a membrane."""
    return h.floor() + 0.5 if neuron.rule.startswith("half") else threshold


def _in_float32(number: float) -> float:
    return float(torch.tensor(number, dtype=torch.float32))


def _charged(v: torch.Tensor, x: torch.Tensor, decay: float, gain: float) -> torch.Tensor:
    return decay * v + gain * x


def _leaked(v: torch.Tensor, x: torch.Tensor, decay: float, gain: float) -> torch.Tensor:
    return v - v * (1 - decay) + gain * x


def _drawn(v: torch.Tensor, x: torch.Tensor, decay: float, gain: float) -> torch.Tensor:
    leak = 1 - decay
    return v + (x * (gain / leak) - v) * leak if leak else v + x * gain


#: How authors write a timestep.
_SPELLINGS = (_charged, _leaked, _drawn)


def _run(
    neuron: StatefulFireSpec,
    drives: torch.Tensor,
    decay: float,
    gain: float,
    threshold: float,
    charge: Callable[..., torch.Tensor] = _charged,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Spike counts, what is compared with borders, and the size of what makes that up, [T, Q]."""
    found = []
    v = owed = torch.zeros_like(drives[0])
    divisor = threshold if neuron.rule.startswith("half") else 1.0
    for x in drives:
        h = charge(v, x, decay, gain) - owed
        u = h / divisor if charge is _charged else h * (1 / divisor)
        count = _count(neuron, u, threshold)
        found.append((count, u, (v.abs() + (gain * x).abs() + owed.abs() + threshold) / divisor))
        taken = count * threshold
        if neuron.reset == "delayed":
            v, owed = h, taken
        else:
            v = h * (count == 0) if neuron.reset == "hard" else h - taken
    counts, potentials, scales = map(torch.stack, zip(*found, strict=True))
    return counts, potentials, scales


def _count(neuron: StatefulFireSpec, u: torch.Tensor, threshold: float) -> torch.Tensor:
    if neuron.rule in (">=", ">"):
        return ((u >= threshold) if neuron.rule == ">=" else (u > threshold)).to(u)
    u = u.clamp(0, neuron.D)
    return u.round() if neuron.rule == "half-even" else (u + 0.5).floor()
