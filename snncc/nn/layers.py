"""Layers for authors: the integer-firing neuron, and convolutions that skip masked patches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from snncc.errors import UsageError
from snncc.nn.grid import GridConv2d, GridLinear, SpikeAttention
from snncc.nn.state import ILIF, LIF

__all__ = [
    "ILIF",
    "LIF",
    "GridConv2d",
    "GridLinear",
    "IntegerFire",
    "SparseBatchNorm2d",
    "SpikeAttention",
    "SpikeSparseConv2d",
    "apply_patch_mask",
    "masked",
    "random_patch_mask",
]

_ROUNDINGS = ("half-even", "half-up")
_MAX_D = 255  # spike counts travel as uint8


class IntegerFire(nn.Module):
    """Fires ``a = round(clip(x, 0, D))`` spikes and hands on ``a / norm``.

    This is the SFA neuron as it is trained: one integer instead of D ticks. The compiler turns it
    into an integrate-and-fire neuron with soft reset that emits exactly ``a`` spikes.

    The gradient is the rectangular surrogate: it passes, divided by ``norm``, where
    ``0 <= x <= D`` and is zero elsewhere (rounding counts as the identity).

    Shapes: any; the output has the input's shape and floating-point dtype, in units of
    ``1 / norm`` per spike.

    Args:
        D: Largest spike count, the number of ticks in a firing window; 1 to 255.
        norm: Divisor of the output; 1 hands on the spike count itself.
        rounding: What happens at ties: ``half-even`` (``torch.round``) or ``half-up``
            (``floor(x + 0.5)``).

    Raises:
        UsageError: An argument is outside its range.

    Source: Yao et al., "Scaling Spike-driven Transformer with Efficient Spike Firing
    Approximation Training", arXiv:2411.16061.

    >>> IntegerFire(D=2)(torch.tensor([-1.0, 0.5, 0.75, 1.5, 9.0]))
    tensor([0., 0., 1., 2., 2.])
    """

    def __init__(self, D: int = 4, norm: float = 1.0, rounding: str = "half-even") -> None:
        super().__init__()
        self.D = _checked_D(D)
        self.norm = _checked_norm(norm)
        self.rounding = _checked_rounding(rounding)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the spike count over ``norm``, elementwise."""
        if _needs_surrogate(x):
            arguments = (x, self.D, self.norm, self.rounding)
            fired: Tensor = _RectangularFire.apply(*arguments)  # type: ignore[no-untyped-call]
            return fired
        return _fire(x, self.D, self.norm, self.rounding)

    def extra_repr(self) -> str:
        """Returns the arguments as they are written in the constructor."""
        return f"D={self.D}, norm={self.norm}, rounding={self.rounding!r}"


class _PatchMasked(nn.Module):
    """A layer that ``masked`` finds."""

    #: The patch mask of the next forward pass, set by ``masked``; no buffer, never saved.
    mask: Tensor | None = None


class SpikeSparseConv2d(nn.Conv2d, _PatchMasked):
    """``nn.Conv2d`` whose output, bias included, is zero in masked patches.

    Arguments and state dict are those of ``nn.Conv2d``; without a mask the layer is one, so that
    trained weights move to the vanilla convolution unchanged.

    Shapes: input ``[N, C_in, H_in, W_in]``, output ``[N, C_out, H, W]``. A mask ``[N, 1, h, w]``
    of zeros and ones covers the output with patches of ``H / h`` by ``W / w`` positions; it is the
    argument of the forward pass or, without one, the mask set by ``masked``.

    Raises:
        UsageError: The mask does not cover the output in whole patches.

    Source: the code of Yao et al., arXiv:2411.16061 (not its section 6.2, which reads the spike at
    the centre of a window), after SparK, Tian et al., arXiv:2301.03580.
    """

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the convolution of ``x``, zero in masked patches."""
        mask = self.mask if mask is None else mask
        y = super().forward(x)
        return y if mask is None else apply_patch_mask(y, mask)


class SparseBatchNorm2d(nn.BatchNorm2d, _PatchMasked):
    """``nn.BatchNorm2d`` over the active positions alone; masked patches of the output are zero.

    In training, mean, variance and running statistics are those of the active positions. Arguments
    and state dict are those of ``nn.BatchNorm2d``; without a mask the layer is one.

    Shapes: ``[N, C, H, W]``, output alike; the mask is that of ``SpikeSparseConv2d``.

    Raises:
        UsageError: The mask does not cover the input in whole patches, or leaves fewer than two
            positions to take statistics of.

    Source: SparK, Tian et al., arXiv:2301.03580.
    """

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns ``x`` normalised, zero in masked patches."""
        mask = self.mask if mask is None else mask
        if mask is None:
            return super().forward(x)
        if not self.training and self.running_mean is not None:
            return apply_patch_mask(super().forward(x), mask)
        active = _upsampled(mask, x)[:, 0].bool()
        # One image per position: PyTorch 2.13 gives wrong gradients for [1, C, 1, positions].
        rows = super().forward(_active_rows(x, active)[:, :, None, None])[:, :, 0, 0]
        spread = rows.new_zeros(*active.shape, rows.shape[1])
        spread[active] = rows
        return spread.permute(0, 3, 1, 2)


@contextmanager
def masked(module: nn.Module, mask: Tensor) -> Iterator[None]:
    """Inside the ``with`` block every sparse layer of ``module`` uses ``mask``.

    The input is the caller's to mask: ``apply_patch_mask(x, mask)``.

    Args:
        module: Holds ``SpikeSparseConv2d`` or ``SparseBatchNorm2d`` layers, at any depth.
        mask: Zeros and ones ``[N, 1, h, w]``, 1 for an active patch.

    Raises:
        UsageError: ``module`` has no such layer, or ``mask`` is no patch mask.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _PatchMasked)]
    if not layers:
        raise UsageError(
            f"masked: {type(module).__name__} has no layer that takes a mask; build it with "
            "SpikeSparseConv2d and SparseBatchNorm2d"
        )
    _check_mask(mask)
    before = [layer.mask for layer in layers]
    try:
        for layer in layers:
            layer.mask = mask
        yield
    finally:
        for layer, previous in zip(layers, before, strict=True):
            layer.mask = previous


def apply_patch_mask(x: Tensor, mask: Tensor) -> Tensor:
    """Returns ``x``, zero in masked patches.

    Args:
        x: Any numeric dtype, ``[N, C, H, W]``.
        mask: Zeros and ones ``[N, 1, h, w]``; h divides H and w divides W.

    Raises:
        UsageError: The mask does not cover ``x`` in whole patches.

    >>> apply_patch_mask(torch.ones(1, 1, 2, 4), torch.tensor([[[[1, 0]]]]))
    tensor([[[[1., 1., 0., 0.],
              [1., 1., 0., 0.]]]])
    """
    return x * _upsampled(mask, x)


def random_patch_mask(
    n: int, size: int | tuple[int, int], ratio: float, generator: torch.Generator | None = None
) -> Tensor:
    """Returns masks float32 ``[n, 1, h, w]``: in each a random ``ratio`` of the patches is zero.

    Every mask keeps exactly ``floor(h * w * (1 - ratio))`` patches, as published.

    Args:
        n: Number of masks.
        size: Patches as ``(h, w)``, or one number for both.
        ratio: Share of the patches that is masked, at least 0 and below 1.
        generator: Source of the random numbers; the mask is made on its device.

    Raises:
        UsageError: ``ratio`` is outside its range or leaves no patch.
    """
    h, w = (size, size) if isinstance(size, int) else size
    share = 1 - ratio if 0 <= ratio < 1 else 0.0
    kept = int(h * w * share + 1e-9)  # 10 * (1 - 0.9) is a hair below 1
    if kept == 0:
        raise UsageError(
            f"random_patch_mask: ratio {ratio!r} of {h}x{w} patches is outside 0 to 1 or leaves "
            "no patch; give a smaller one"
        )
    device = None if generator is None else generator.device
    order = torch.rand(n, h * w, generator=generator, device=device).argsort(dim=1)
    mask = torch.zeros(n, h * w, device=device).scatter_(1, order[:, :kept], 1.0)
    return mask.reshape(n, 1, h, w)


class _RectangularFire(torch.autograd.Function):
    """``_fire`` with the rectangular surrogate gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, D: int, norm: float, rounding: str) -> Tensor:
        return _fire(x, D, norm, rounding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.D, ctx.norm, _ = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        inside = x == torch.clamp(x, 0, ctx.D)
        return grads[0] * inside / ctx.norm, None, None, None  # torch.where is 4 times slower


def _fire(x: Tensor, D: int, norm: float, rounding: str) -> Tensor:
    """Returns ``round(clip(x, 0, D)) / norm`` in plain operations, which any exporter traces."""
    u = torch.clamp(x, 0, D)
    count = torch.round(u) if rounding == "half-even" else torch.floor(u + 0.5)
    return count if norm == 1.0 else count / norm


def _needs_surrogate(x: Tensor) -> bool:
    """True in training; false while exporting, where parameters still require gradients."""
    return torch.is_grad_enabled() and x.requires_grad and not _tracing()


def _tracing() -> bool:
    jit = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return torch.compiler.is_exporting() or bool(jit)


def _checked_D(D: int) -> int:
    if isinstance(D, bool) or not isinstance(D, int) or not 1 <= D <= _MAX_D:
        raise UsageError(f"IntegerFire: D is {D!r}; give an integer from 1 to {_MAX_D}")
    return D


def _checked_norm(norm: float) -> float:
    number = isinstance(norm, (int, float)) and not isinstance(norm, bool)
    if not (number and math.isfinite(norm) and norm > 0):
        raise UsageError(f"IntegerFire: norm is {norm!r}; give a finite number above 0")
    return float(norm)


def _checked_rounding(rounding: str) -> str:
    if rounding not in _ROUNDINGS:
        options = " or ".join(repr(known) for known in _ROUNDINGS)
        raise UsageError(f"IntegerFire: rounding is {rounding!r}; give {options}")
    return rounding


def _upsampled(mask: Tensor, x: Tensor) -> Tensor:
    """Returns ``mask`` as ``[N, 1, H, W]``, in the dtype and on the device of ``x``."""
    _check_covers(mask, x)
    rows, columns = x.shape[2] // mask.shape[2], x.shape[3] // mask.shape[3]
    return mask.to(x).repeat_interleave(rows, 2).repeat_interleave(columns, 3)


def _check_covers(mask: Tensor, x: Tensor) -> None:
    patches = mask.dim() == 4 and mask.shape[:2] == (x.shape[0], 1) and mask.numel() > 0
    if not patches or x.shape[2] % mask.shape[2] or x.shape[3] % mask.shape[3]:
        raise UsageError(
            f"patch mask {list(mask.shape)} does not cover {list(x.shape)}: give "
            f"[{x.shape[0]}, 1, h, w] where h divides {x.shape[2]} and w divides {x.shape[3]}"
        )


def _check_mask(mask: Tensor) -> None:
    if mask.dim() != 4 or mask.shape[1] != 1:
        raise UsageError(f"masked: the mask is {list(mask.shape)}; give [N, 1, h, w]")
    if not _tracing() and not bool(((mask == 0) | (mask == 1)).all()):
        raise UsageError("masked: the mask holds other values than 0 and 1")


def _active_rows(x: Tensor, active: Tensor) -> Tensor:
    """Returns the channels of the active positions, ``[positions, C]``."""
    rows = x.permute(0, 2, 3, 1)[active]
    if len(rows) < 2:
        raise UsageError(
            f"SparseBatchNorm2d: {len(rows)} active positions in the batch have no variance; "
            "mask fewer patches or take more samples"
        )
    return rows
