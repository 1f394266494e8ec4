"""Neurons with a memory over timesteps, for authors: LIF, IF, PLIF and I-LIF.

All read the drive of every timestep at once, ``[T, N, ...]``, start with an empty membrane and keep
nothing between calls.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from snncc.errors import UsageError

__all__ = ["ILIF", "LIF", "Stateful", "rounded", "stepped"]

_RESETS = ("hard", "soft")
_COMPARES = (">=", ">")
_ROUNDINGS = ("half-even", "half-up")
_MAX_D = 255


class Stateful(nn.Module):
    """H = decay * V + gain * x; fires s of at most D spikes; V = H - s * threshold, or 0 if s > 0.

    What the compiler reads of a neuron: ``D``, ``threshold``, ``norm``, ``rule``, ``reset``,
    ``current`` (the decay of one before the membrane, 0 without) and the factors of ``dynamics``.
    """

    D: int = 1
    threshold: float = 1.0
    norm: float = 1.0
    rule: str = ">="
    reset: str = "hard"
    current: Any = 0.0

    def dynamics(self) -> tuple[Any, Any]:
        """Returns ``decay`` and ``gain``, as numbers or scalar tensors."""
        raise NotImplementedError

    def count(self, h: Tensor) -> Tensor:
        """Returns the spikes of one timestep, with a surrogate gradient."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Returns spike counts over ``norm``, of the shape of ``x``: ``[T, N, ...]``."""
        decay, gain = self.dynamics()
        v = torch.zeros_like(x[0])
        spikes = []
        for drive in x.unbind(0):
            h = decay * v + gain * drive
            s = self.count(h)
            # The reset has no gradient of its own: it would only pass on the surrogate's error.
            v = h * (s == 0) if self.reset == "hard" else h - s.detach() * self.threshold
            spikes.append(s)
        out = torch.stack(spikes)
        return out if self.norm == 1.0 else out / self.norm


class LIF(Stateful):
    """Leaky integrate-and-fire: H = V + (x - V) / tau, a spike where H reaches the threshold.

    Without ``decay_input`` H = V - V / tau + x; with ``tau=inf`` H = V + x, the IF neuron. With
    ``learn_tau`` 1 / tau = sigmoid(w), the PLIF neuron, and ``w`` is trained. The gradient of a
    spike is the arctan surrogate.

    Shapes: drive ``[T, N, ...]``, spikes alike, 0 or 1.

    Args:
        tau: Time constant in timesteps, at least 1; above 1 with ``learn_tau``.
        threshold: Membrane potential at which it fires, above 0.
        reset: ``hard``: to 0; ``soft``: lowered by the threshold.
        decay_input: Whether the drive is divided by tau, too.
        compare: ``>=`` or ``>``.
        learn_tau: Train the time constant.

    Raises:
        UsageError: An argument is outside its range.

    >>> LIF(tau=2.0)(torch.tensor([[1.0], [1.5], [2.0]])).flatten()
    tensor([0., 1., 1.])
    """

    def __init__(
        self,
        tau: float = 2.0,
        threshold: float = 1.0,
        reset: str = "hard",
        decay_input: bool = True,
        compare: str = ">=",
        learn_tau: bool = False,
    ) -> None:
        super().__init__()
        least = "a finite number above 1 to learn from" if learn_tau else "a number of at least 1"
        _require(1 < tau < math.inf if learn_tau else tau >= 1, "LIF: tau", tau, least)
        _require(0 < threshold < math.inf, "LIF: threshold", threshold, "a number above 0")
        _require(reset in _RESETS, "LIF: reset", reset, "'hard' or 'soft'")
        _require(compare in _COMPARES, "LIF: compare", compare, "'>=' or '>'")
        self.tau, self.threshold = float(tau), float(threshold)
        self.reset, self.rule, self.decay_input = reset, compare, decay_input
        self.w = nn.Parameter(torch.tensor(-math.log(tau - 1))) if learn_tau else None

    def dynamics(self) -> tuple[Any, Any]:
        """Returns ``decay`` and ``gain``."""
        leak: Any = 1 / self.tau if self.w is None else self.w.sigmoid()
        return 1 - leak, leak if self.decay_input and self.tau < math.inf else 1.0

    def count(self, h: Tensor) -> Tensor:
        """Returns 0 or 1."""
        return stepped(h - self.threshold, self.rule)

    def extra_repr(self) -> str:
        """Returns the arguments as they are written in the constructor."""
        return (
            f"tau={self.tau}, threshold={self.threshold}, reset={self.reset!r}, "
            f"decay_input={self.decay_input}, compare={self.rule!r}, learn_tau={self.w is not None}"
        )


class ILIF(Stateful):
    """Integer LIF: H = decay * V + x fires round(clip(H, 0, D)) spikes; the rest stays.

    V = H - s with ``reset='soft'``, where H may be negative or beyond D; 0 after a spike with
    ``hard``. The gradient is the rectangular surrogate.

    Shapes: drive ``[T, N, ...]``; output alike, in units of ``1 / norm`` per spike.

    Args:
        D: Largest spike count of a timestep, 1 to 255.
        decay: What is left of the membrane after a timestep, 0 to 1.
        norm: Divisor of the output.
        rounding: ``half-even`` or ``half-up``.
        reset: ``soft`` or ``hard``.

    Raises:
        UsageError: An argument is outside its range.

    Source: Luo et al., "Integer-Valued Training and Spike-Driven Inference Spiking Neural Network
    for High-performance and Energy-efficient Object Detection", arXiv:2407.20708.
    """

    def __init__(
        self,
        D: int = 4,
        decay: float = 0.25,
        norm: float = 1.0,
        rounding: str = "half-even",
        reset: str = "soft",
    ) -> None:
        super().__init__()
        whole = type(D) is int and 1 <= D <= _MAX_D
        _require(whole, "ILIF: D", D, f"an integer from 1 to {_MAX_D}")
        _require(0 <= decay <= 1, "ILIF: decay", decay, "a number from 0 to 1")
        _require(0 < norm < math.inf, "ILIF: norm", norm, "a finite number above 0")
        _require(rounding in _ROUNDINGS, "ILIF: rounding", rounding, "'half-even' or 'half-up'")
        _require(reset in _RESETS, "ILIF: reset", reset, "'hard' or 'soft'")
        self.D, self.decay, self.norm = D, float(decay), float(norm)
        self.rule, self.reset = rounding, reset

    def dynamics(self) -> tuple[Any, Any]:
        """Returns ``decay`` and ``gain``."""
        return self.decay, 1.0

    def count(self, h: Tensor) -> Tensor:
        """Returns 0..D."""
        return rounded(h, self.D, self.rule)

    def extra_repr(self) -> str:
        """Returns the arguments as they are written in the constructor."""
        return (
            f"D={self.D}, decay={self.decay}, norm={self.norm}, rounding={self.rule!r}, "
            f"reset={self.reset!r}"
        )


def stepped(x: Tensor, rule: str) -> Tensor:
    """Returns 1 where x is at least 0, or above it by the rule ``>``; with a surrogate gradient."""
    fired: Tensor = _Spike.apply(x, rule == ">")  # type: ignore[no-untyped-call]
    return fired


def rounded(h: Tensor, D: int, rule: str) -> Tensor:
    """Returns h rounded to 0..D; with a surrogate gradient."""
    u = h.clamp(0, D)
    fired = torch.round(u) if rule == "half-even" else torch.floor(u + 0.5)
    return u + (fired - u).detach() if h.requires_grad else fired


class _Spike(torch.autograd.Function):
    """A step at 0 whose gradient is that of arctan(pi * x) / pi + 1/2."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strict: bool) -> Tensor:
        ctx.save_for_backward(x)
        return ((x > 0) if strict else (x >= 0)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grads[0] / (1 + (math.pi * x) ** 2), None


def _require(condition: bool, what: str, value: object, wanted: str) -> None:
    if not condition:
        raise UsageError(f"{what} is {value!r}; give {wanted}")
