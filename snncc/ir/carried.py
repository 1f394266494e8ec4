"""Neurons with memory in float stages: their attributes, and which spikes rounding may decide."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.graphs import attribute

__all__ = ["Carry", "carry_of", "near_border"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Carry:
    """The attributes of a StatefulFire; see its entry in ``snncc.ir.state_ops``.

    Attributes:
        decay, current: One number, or one of each channel.
    """

    T: int
    D: int
    decay: tuple[float, ...]
    gain: float
    threshold: float
    norm: float
    rule: str
    reset: str
    current: tuple[float, ...]

    @property
    def has_own_decays(self) -> bool:
        """Whether channels have decays of their own."""
        return max(len(self.decay), len(self.current)) > 1

    def numbers(self) -> dict[str, Any]:
        """As a node has them."""
        return {**asdict(self), "decay": [*self.decay], "current": [*self.current]}


def carry_of(node: ir.Node) -> Carry:
    """The attributes of a StatefulFire node."""
    found = {name: attribute(node, name) for name in Carry.__dataclass_fields__}
    by_channel = {name: tuple(found[name]) for name in ("decay", "current")}
    return Carry(**found | by_channel)


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
    owed = flow = v
    column = (-1, *(1,) * (drive.ndim - 3))
    decay, current = (np.reshape(each, column) for each in (carry.decay, carry.current))
    for x, s in zip(drive, counts, strict=True):
        flow = current * flow + x
        h = decay * v + carry.gain * flow - owed
        relative = h / carry.threshold
        is_compared = carry.rule in (">=", ">")
        whole = np.clip(np.rint(relative), 1.0, carry.D)
        nearest = whole if is_compared else np.floor(relative) + 0.5
        here = np.abs(relative - nearest) <= margin * (1 + np.abs(relative))
        if carry.reset == "raised":  # so near that rounding may decide what this one must reach
            kept = v / carry.threshold
            here |= np.abs(kept - 1.0) <= margin * (1 + np.abs(kept))
        near = here | near if later else here
        found.append(near)
        v, owed = _after(h, owed, s, carry)
    return np.stack(found).reshape(u.shape)


def _after(h: Array, owed: Array, s: Array, carry: Carry) -> tuple[Array, Array]:
    """What stays of a membrane that fired ``s``, and what the next one is lowered by.

    With ``raised`` reset what this one was lowered by was only for the comparison.
    """
    taken = s * carry.threshold
    match carry.reset:
        case "none":
            return h, 0.0 * taken
        case "delayed":
            return h, taken
        case "hard":
            return np.where(s > 0, 0.0, h), 0.0 * taken
        case "raised":
            left = h + owed - taken
            stays = left > carry.threshold if carry.rule == ">" else left >= carry.threshold
            return left, stays * carry.threshold
    return h - taken, 0.0 * taken
