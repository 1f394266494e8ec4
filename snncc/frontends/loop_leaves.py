"""Calls of a neuron that handles one timestep, as nodes that carry its membrane in and out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from snncc.errors import UnsupportedModelError
from snncc.frontends.descriptions import StatefulFireSpec
from snncc.frontends.loops import STEP
from snncc.ir.metadata import CALLS, CLASS
from snncc.ir.ops import DOMAIN, VERSION

__all__ = ["stepping"]


def stepping(
    module: Any, neuron: StatefulFireSpec, state: str, states: int, numbers: Iterator[int]
) -> Callable[..., Any]:
    """What a module does during export: each call is one StatefulStep.

    Args:
        module: Called as ``module(x)`` or ``module(x, membrane)``.
        neuron: What it does in a timestep.
        state: Name of the module's attribute for the membrane it keeps itself; none: it keeps none.
        states: How many tensors calls return beside spikes, of which the last is the membrane.
        numbers: Of the calls.
    """
    held: torch.Tensor | None = None
    own = _marked(module, state)
    name = f"{type(module).__module__}.{type(module).__qualname__}"

    def forward(x: torch.Tensor, *membranes: torch.Tensor | None) -> Any:
        nonlocal held, own
        if getattr(module, state, None) is not own:  # it has been reset
            held, own = None, _marked(module, state)
        membrane = membranes[-1] if membranes else None
        given = held if membrane is None and state else membrane
        inputs = (neuron.in_thresholds(x), None if _is_empty(given) else given)
        fired, held = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{STEP}",
            inputs,
            attrs=neuron.numbers(x.shape[1:]),
            dtypes=(x.dtype, x.dtype),
            shapes=(x.shape, x.shape),
            version=VERSION,
            metadata_props={CALLS: str(next(numbers)), CLASS: name},
        )
        return (fired, *[held] * states) if states else fired

    return forward


_MISSING = object()


class _Zero(float):
    """A membrane of 0 that is no other 0: a reset to the same number is seen."""


def _marked(module: Any, state: str) -> Any:
    """What the module holds in place of its membrane until it is reset.

    A tensor stays as it is: whoever resets it makes another, or one that torch.export would not
    let us put there.
    """
    found = getattr(module, state, _MISSING)
    if (found is None or isinstance(found, (int, float))) and state not in module._buffers:
        _is_empty(found)
        setattr(module, state, _Zero())
    return getattr(module, state, None)


def _is_empty(membrane: Any) -> bool:
    """Whether a membrane has yet to begin: none, 0, or what a reset leaves, a tensor of no size."""
    if isinstance(membrane, torch.Tensor):
        return any(isinstance(size, int) and size == 0 for size in membrane.shape)
    if membrane:
        raise UnsupportedModelError(f"a neuron begins with the membrane {membrane}; begin with 0")
    return True
