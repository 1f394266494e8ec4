"""Neurons with memory in float stages: their attributes, and which spikes rounding may decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.graphs import attribute

__all__ = ["Carry", "carry_of", "near_border"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Carry:
    """The attributes of a StatefulFire; see its entry in ``snncc.ir.state_ops``."""

    T: int
    D: int
    decay: float
    gain: float
    threshold: float
    norm: float
    rule: str
    reset: str


def carry_of(node: ir.Node) -> Carry:
    """The attributes of a StatefulFire node."""
    return Carry(**{name: attribute(node, name) for name in Carry.__dataclass_fields__})


def near_border(
    u: Array, fired: Array, carry: Carry, margin: float, later: bool = True
) -> npt.NDArray[np.bool_]:
    """Where the membrane is so near a border that rounding may decide a spike.

    Args:
        u: Drive (T*N, ...).
        fired: What was handed on for it, of the same shape; it decides how the membrane goes on.
        carry: Of the neuron.
        margin: Relative to 1 + |H / threshold|.
        later: Include all timesteps after that: the membrane may go on differently.
    """
    drive = u.reshape(carry.T, -1, *u.shape[1:]).astype(np.float64)
    counts = np.rint(fired.reshape(drive.shape).astype(np.float64) * carry.norm)
    v, near, found = np.zeros_like(drive[0]), np.zeros(drive.shape[1:], bool), []
    owed = v
    for x, s in zip(drive, counts, strict=True):
        h = carry.decay * v + carry.gain * x - owed
        relative = h / carry.threshold
        nearest = 1.0 if carry.rule in (">=", ">") else np.floor(relative) + 0.5
        here = np.abs(relative - nearest) <= margin * (1 + np.abs(relative))
        near = here | near if later else here
        found.append(near)
        v, owed = _after(h, s, carry)
    return np.stack(found).reshape(u.shape)


def _after(h: Array, s: Array, carry: Carry) -> tuple[Array, Array]:
    """What stays of a membrane that fired ``s``, and what the next one is lowered by."""
    taken = s * carry.threshold
    if carry.reset == "delayed":
        return h, taken
    return h - taken if carry.reset == "soft" else np.where(s > 0, 0.0, h), 0.0 * taken
