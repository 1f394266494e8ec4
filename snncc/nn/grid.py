"""Layers on a frozen integer grid: what is trained with them compiles without any change.

They are made by ``snncc.on_grid`` and trained like any others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from snncc.ir.ops import DOMAIN, VERSION
from snncc.nn.state import Stateful, rounded, stepped

__all__ = [
    "GridConv2d",
    "GridLinear",
    "GridStateful",
    "GridTimeSum",
    "SpikeAttention",
    "SumPool2d",
]


class SpikeAttention(nn.Module):
    """Spike-driven attention over maps: (q k^T) v, head by head, without a softmax.

    The channels of a head lie side by side. What it returns is no spikes yet: scale it, and let a
    neuron follow.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Returns ``[N, heads * e, ...]`` with the positions of q.

        q and k have heads * d channels, v has heads * e, ``[N, C, ...]`` each, float32; k and v
        have the same number of positions.
        """
        of_q, of_k, of_v = (self._by_head(x) for x in (q, k, v))
        y = (of_v @ of_k.transpose(2, 3)) @ of_q
        return y.reshape(q.shape[0], v.shape[1], *q.shape[2:])

    def _by_head(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], self.heads, x.shape[1] // self.heads, -1)


class _Grid(nn.Module):
    """Weights and bias in integers, one spike being ``theta`` of them.

    Forward rounds them to integers (gradients pass straight through), sums in integers, which
    float32 holds exactly below 2^24, and divides by ``theta`` once. With odd theta no potential
    v / theta is nearer to a rounding border than 1 / (2 theta), so float32 decides every spike as
    the compiled network does while D * theta < 2^23.

    Attributes:
        weight: float32 ``[C_out, ...]`` in steps: the real weight times theta / step. Rounded and
            clamped to the bits in the forward pass; the learning rate is in steps, too.
        bias: float32 ``[C_out]`` in spikes; rounded to steps in the forward pass.
        border: float32 ``[C_out, H, W]`` in spikes, what is missing of the bias where the input is
            padded; or empty. Not trained.
        theta: float32 ``[C_out]``, frozen.
        step: float32, 2^shift, frozen: what a weight of 1 adds to a potential. Layers that are
            added have one theta, and a step of their own; weights far beyond the others, too.
    """

    theta: Tensor
    step: Tensor
    border: Tensor

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        theta: Tensor,
        border: Tensor | None = None,
        limit: int = 127,
        shift: int | Tensor = 0,
    ) -> None:
        super().__init__()
        self.limit = limit
        self.weight = nn.Parameter(weight.float())
        self.bias = nn.Parameter(bias.float())
        self.register_buffer("theta", theta.float())
        self.register_buffer("step", torch.as_tensor(2.0**shift, dtype=torch.float32))
        self.register_buffer("border", torch.empty(0) if border is None else border.float())

    def integers(self) -> tuple[Tensor, Tensor]:
        """Returns what a spike adds to potentials, and the bias, as compiled; float32.

        The bias is ``[C_out]``, or ``[C_out, H, W]`` where there is a border.
        """
        weight = _rounded(self.weight.clamp(-self.limit, self.limit)) * self.step
        if not self.border.numel():
            return weight, _rounded(self.bias * self.theta)
        full = self.bias[:, None, None] + self.border
        return weight, _rounded(full * self.theta[:, None, None])

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Takes weights from before there were steps, too."""
        state_dict.setdefault(f"{prefix}step", torch.ones(()))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _spikes(self, v: Tensor) -> Tensor:
        """Returns potentials ``[N, C_out, ...]`` in spikes."""
        theta = self.theta.reshape(1, -1, *(1,) * (v.dim() - 2))
        if not torch.compiler.is_exporting():
            return v / theta
        # One operator of its own: the compiler must know that this division is a frozen grid.
        on_grid: Tensor = torch.onnx.ops.symbolic(
            f"{DOMAIN}::OnGrid", (v, theta), dtype=v.dtype, shape=v.shape, version=VERSION
        )
        return on_grid


class GridConv2d(_Grid):
    """A 2-d convolution on a frozen grid; reads integers, hands on potentials in spikes.

    Shapes: ``[N, C_in, H_in, W_in]`` to ``[N, C_out, H, W]``, float32.

    Args:
        weight: In steps of the grid, ``[C_out, C_in / groups, kH, kW]``.
        bias: In spikes, ``[C_out]``.
        theta: Steps in one spike, ``[C_out]``.
        border: In spikes, ``[C_out, H, W]``, or None.
        limit: Largest absolute weight in steps.
        shift: Of the step; or int64, of the shape of ``weight``, of each weight's.
        stride, padding, dilation: (vertical, horizontal).
        groups: As in ``nn.Conv2d``.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        theta: Tensor,
        border: Tensor | None = None,
        limit: int = 127,
        shift: int | Tensor = 0,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0),
        dilation: Sequence[int] = (1, 1),
        groups: int = 1,
    ) -> None:
        super().__init__(weight, bias, theta, border, limit, shift)
        self.stride, self.padding = tuple(stride), tuple(padding)
        self.dilation, self.groups = tuple(dilation), groups

    def forward(self, x: Tensor) -> Tensor:
        """Returns potentials in spikes."""
        weight, bias = self.integers()
        own = bias if bias.dim() == 1 else None
        v = functional.conv2d(x, weight, own, self.stride, self.padding, self.dilation, self.groups)
        return self._spikes(v if own is not None else v + bias[None])


class GridLinear(_Grid):
    """A linear layer on a frozen grid; reads integers, hands on potentials in spikes.

    Shapes: ``[N, F_in]`` to ``[N, F_out]``, float32; arguments as for ``GridConv2d``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Returns potentials in spikes."""
        weight, bias = self.integers()
        return self._spikes(functional.linear(x, weight, bias))


class SumPool2d(nn.Module):
    """Sums over windows, zero padding: integers stay integers.

    Args:
        kernel, stride, padding: (vertical, horizontal).
    """

    def __init__(self, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]):
        super().__init__()
        self.kernel, self.stride, self.padding = tuple(kernel), tuple(stride), tuple(padding)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the sums, ``[N, C, H, W]``."""
        window = (x, self.kernel, self.stride, self.padding)
        if torch.compiler.is_exporting():  # ONNX pools have no other divisor
            return functional.avg_pool2d(*window) * (self.kernel[0] * self.kernel[1])
        return functional.avg_pool2d(*window, divisor_override=1)


class GridStateful(Stateful):
    """A neuron with memory whose membrane is in integers, as in the compiled network.

    The drive is in spikes, as layers on a grid hand it on, and is whole in units of
    ``1 / thresholds``; the membrane has ``fraction`` further bits, products with the decay round
    down, and integer levels decide every spike. Gradients are those of ``LIF`` and ``ILIF``: the
    arctan surrogate for one spike, the rectangular one for more.

    Shapes: drive ``[T, N, C, ...]``, spike counts alike, float32.

    Args:
        D: Largest spike count of a timestep.
        rule: ``>=``, ``>`` (D = 1), ``half-even`` or ``half-up``.
        reset: ``hard``, ``soft``, ``delayed``: each spike lowers the next timestep's membrane;
            ``raised``: what would fire by itself raises the next timestep's levels; or ``none``.
        decay: What is left of the membrane after a timestep, 0 to 1: float64, a scalar or of each
            channel, ``[C, 1, ...]``.
        fixed: The same as ``(numerators, shift)``: int64 numerators / 2^shift.
        fraction: Bits of the membrane beyond those of the drive.
        thresholds: float64 ``[C]`` or ``[1]``: the drive's integer that is one spike.
        levels: int64 ``[C or 1, D]``: membranes at which the spikes are due.
        taken: int64 ``[C or 1]``: what a spike takes of the membrane.
        current: Likewise of the current before the membrane; 0: there is none.
        fixed_current: The same as ``(numerators, shift)``.
    """

    thresholds: Tensor
    levels: Tensor
    taken: Tensor

    def __init__(
        self,
        D: int,
        rule: str,
        reset: str,
        decay: Tensor,
        fixed: tuple[Tensor, int],
        fraction: int,
        thresholds: Tensor,
        levels: Tensor,
        taken: Tensor,
        current: Tensor,
        fixed_current: tuple[Tensor, int],
    ) -> None:
        super().__init__()
        self.D, self.rule, self.reset, self.fraction = D, rule, reset, fraction
        self.decay, self.fixed = decay, fixed
        self.current, self.fixed_current = current, fixed_current
        self.register_buffer("thresholds", thresholds.float())
        self.register_buffer("levels", levels)
        self.register_buffer("taken", taken)

    def dynamics(self) -> tuple[Any, Any]:
        """Returns ``decay`` and ``gain``."""
        return self.decay, 1.0

    def count(self, h: Tensor) -> Tensor:
        """Returns the spikes of membranes in spikes, with a surrogate gradient."""
        if self.rule in (">=", ">") and self.D == 1:
            return stepped(h - 1, self.rule)
        if self.rule == ">=":
            return rounded(h - 0.5, self.D, "half-up")
        return rounded(h, self.D, self.rule)

    def forward(self, x: Tensor) -> Tensor:
        """Returns spike counts."""
        column = (-1, *(1,) * (x.dim() - 3))
        (numerators, shift), (slow, slow_shift) = self.fixed, self.fixed_current
        numerators, slow = numerators.to(x.device), slow.to(x.device)
        decay, current = self.decay.to(x), self.current.to(x)
        unit, taken = self.thresholds.double().reshape(column), self.taken.reshape(column)
        levels = self.levels.reshape(*column, self.D)
        drives = torch.round(x.detach().double() * unit).long() << self.fraction
        v = owed = flow = torch.zeros_like(drives[0])
        real = due = flowing = torch.zeros_like(x[0])
        spikes = []
        for drive, wanted in zip(drives, x.unbind(0), strict=True):
            flow = ((slow * flow) >> slow_shift) + drive
            h = ((numerators * v) >> shift) + flow - owed
            s = (h.unsqueeze(-1) >= levels).sum(-1)
            # The same in real numbers, for the gradient; their values are those of the integers.
            inside = h.double() / (unit * 2.0**self.fraction)
            flowing = current * flowing + wanted
            real = _valued(decay * real + flowing - due, inside)
            spikes.append(_valued(self.count(real), s))
            is_raised = self.reset == "raised"  # what lowered H was only for the comparison
            v = self._left(h + owed if is_raised else h, s * taken, s)
            real = self._left(real + due if is_raised else real, s.to(x.dtype), s)
            owes = {"delayed": s, "raised": (v >= levels[..., 0]).long()}.get(self.reset, 0 * s)
            owed, due = owes * taken, owes.to(x.dtype)
        return torch.stack(spikes)

    def _left(self, h: Tensor, taken: Tensor, s: Tensor) -> Tensor:
        """Returns what stays of a membrane that fired s."""
        if self.reset == "hard":
            return h * (s == 0)
        return h if self.reset in ("delayed", "none") else h - taken


class GridTimeSum(nn.Module):
    """The sum over timesteps of potentials on a grid: of integers, divided once.

    Shapes: ``[T*N, ...]`` to ``[N, ...]``, float32.

    Args:
        T: Timesteps.
        threshold: The integer that is one spike.
    """

    def __init__(self, T: int, threshold: float) -> None:
        super().__init__()
        self.T, self.threshold = T, threshold

    def forward(self, x: Tensor) -> Tensor:
        """Returns the sums."""
        y: Tensor = x.unflatten(0, (self.T, -1))  # type: ignore[no-untyped-call]
        if torch.compiler.is_exporting():
            return y.sum(0)
        whole = torch.round(y.detach().double() * self.threshold).sum(0) / self.threshold
        return _valued(y.sum(0), whole)


def _valued(x: Tensor, value: Tensor) -> Tensor:
    """Returns ``value`` in the type of x, with the gradient of x."""
    exact = value.to(x.dtype)
    return x + (exact - x).detach() if x.requires_grad else exact


def _rounded(x: Tensor) -> Tensor:
    """Returns integers; gradients pass as if there were no rounding."""
    whole = torch.round(x)
    return x + (whole - x).detach() if torch.is_grad_enabled() else whole
