"""Layers that take a patch mask: imported without it, or each as one operator with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from snncc.errors import UnsupportedModelError
from snncc.ir.ops import DOMAIN, VERSION

__all__ = ["holding", "sparse_layers", "taking_mask"]

_CONV, _NORM = "snncc.nn.SpikeSparseConv2d", "snncc.nn.SparseBatchNorm2d"


def _kind(module: torch.nn.Module) -> str:
    names = (f"{cls.__module__}.{cls.__qualname__}" for cls in type(module).__mro__)
    return next((name for name in names if name in (_CONV, _NORM)), "")


def sparse_layers(module: torch.nn.Module) -> list[torch.nn.Module]:
    """All SpikeSparseConv2d and SparseBatchNorm2d layers of a network."""
    return [m for m in module.modules() if _kind(m)]


@contextmanager
def holding(module: torch.nn.Module, mask: torch.Tensor | None) -> Iterator[None]:
    """Within this context all layers have this mask; with None convolutions are vanilla ones."""
    layers: list[Any] = sparse_layers(module)
    masks = [layer.mask for layer in layers]
    try:
        for layer in layers:
            layer.mask = mask
        yield
    finally:
        for layer, own in zip(layers, masks, strict=True):
            layer.mask = own


@contextmanager
def taking_mask(module: torch.nn.Module) -> Iterator[None]:
    """Within this context ``module`` is called with a patch mask f32 [N, 1, h, w] after its input.

    Its input is masked, as published networks are trained; its sparse layers become
    SpikeSparseConv, or BatchNormalization followed by a PatchMask.

    Raises:
        UnsupportedModelError: A layer pads with something else than zeros.
    """
    layers: list[Any] = sparse_layers(module)
    biases = [_bias(layer) for layer in layers]  # made here: what export sees made is no constant
    whole = module.forward

    def forward(x: torch.Tensor, mask: torch.Tensor) -> Any:
        for layer, bias in zip(layers, biases, strict=True):
            layer.forward = _masked(layer, bias, mask)
        try:
            return whole(_patch_mask(x, mask))
        finally:
            for layer in layers:
                layer.__dict__.pop("forward", None)

    module.forward = forward
    try:
        yield
    finally:
        module.__dict__.pop("forward", None)


def _bias(layer: Any) -> torch.Tensor:
    if _kind(layer) == _CONV and layer.padding_mode != "zeros":
        raise UnsupportedModelError(
            f"SpikeSparseConv2d with padding_mode={layer.padding_mode!r}: only zeros have a "
            "spiking form"
        )
    missing = _kind(layer) == _CONV and layer.bias is None
    bias: torch.Tensor = torch.zeros(layer.out_channels) if missing else layer.bias
    return bias


def _masked(layer: Any, bias: torch.Tensor, mask: torch.Tensor) -> Callable[[torch.Tensor], Any]:
    if _kind(layer) == _NORM:
        return lambda x: _patch_mask(type(layer).forward(layer, x), mask)
    return lambda x: _spike_sparse_conv(layer, x, bias, mask)


def _patch_mask(y: torch.Tensor, mask: torch.Tensor) -> Any:
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::PatchMask", (y, mask), dtype=y.dtype, shape=y.shape, version=VERSION
    )


def _spike_sparse_conv(layer: Any, x: torch.Tensor, bias: torch.Tensor, mask: torch.Tensor) -> Any:
    shape = type(layer).forward(layer, x).shape  # its own convolution is dead code in the graph
    left, right, top, bottom = layer._reversed_padding_repeated_twice  # "same" is resolved there
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::SpikeSparseConv",
        (x, layer.weight, bias, mask),
        attrs={
            "strides": list(layer.stride),
            "pads": [top, left, bottom, right],
            "dilations": list(layer.dilation),
            "group": layer.groups,
        },
        dtype=x.dtype,
        shape=shape,
        version=VERSION,
    )
