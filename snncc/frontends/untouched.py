"""A module that is as it was before, whatever import did with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["untouched"]

_CONTAINERS = (dict, list, set)


@contextmanager
def untouched(module: torch.nn.Module) -> Iterator[None]:
    """Within this context the module is in eval mode; after it, also after an error, as before.

    What comes back: training flags, buffers and other tensors that modules hold (membranes), their
    attributes, hooks and replaced methods, and what containers among them hold. Parameters are not
    copied: import reads them only. Gradients are off, and the random numbers drawn within are
    drawn again after it.
    """
    parts = dict.fromkeys(m for part in module.modules() for m in (part, *_kin(part)))
    kept = [_Kept(part) for part in parts]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            module.eval()
            for part in module.modules():  # also where the author's train() keeps some in training
                part.training = False
            yield
    finally:
        for state in kept:
            state.restore()


def _kin(module: torch.nn.Module) -> list[Any]:
    """What a reset of the module's class reaches as well: snnTorch lists all its neurons."""
    return [*getattr(type(module), "instances", ())]


class _Kept:
    """What one module holds."""

    def __init__(self, module: Any) -> None:
        self.module, self.attributes = module, dict(module.__dict__)
        self.held = {
            name: value.copy()
            for name, value in self.attributes.items()
            if isinstance(value, _CONTAINERS)
        }
        values = [*self.attributes.values(), *module._buffers.values()]
        values += [v for d in self.held.values() if isinstance(d, dict) for v in d.values()]
        tensors = [v for v in values if isinstance(v, torch.Tensor)]
        self.tensors = [(t, t.detach().clone()) for t in tensors if not _is_parameter(t)]

    def restore(self) -> None:
        """Put everything back, into the same containers and tensors."""
        self.module.__dict__.clear()
        self.module.__dict__.update(self.attributes)
        for name, container in self.held.items():
            _refill(self.attributes[name], container)
        for tensor, value in self.tensors:
            if tensor.shape != value.shape:
                tensor.data = value
            elif not torch.equal(tensor, value):
                tensor.data.copy_(value)


def _is_parameter(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, torch.nn.Parameter)


def _refill(container: Any, value: Any) -> None:
    container.clear()
    if isinstance(container, list):
        container.extend(value)
    else:
        container.update(value)
