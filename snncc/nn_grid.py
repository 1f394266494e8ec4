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

__all__ = ["GridConv2d", "GridLinear", "SpikeAttention", "SumPool2d"]


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


def _rounded(x: Tensor) -> Tensor:
    """Returns integers; gradients pass as if there were no rounding."""
    whole = torch.round(x)
    return x + (whole - x).detach() if torch.is_grad_enabled() else whole
