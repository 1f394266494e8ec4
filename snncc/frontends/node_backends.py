"""Nodes of old SpikingJelly are told which library computes them; here it is PyTorch.

Authors wrote ``backend='cupy'`` into their networks, which refuses to be built without CuPy, and
needs a GPU to run. PyTorch computes the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["any_backend", "on_torch"]

#: Modules of SpikingJelly whose nodes check, when they are built, what is installed.
_MODULES = ("spikingjelly.clock_driven.neuron", "spikingjelly.activation_based.neuron")
_LIBRARY = "spikingjelly."


@contextmanager
def any_backend() -> Iterator[None]:
    """Within this context nodes are built for any backend, whatever is installed."""
    checked = {name: getattr(sys.modules.get(name), "check_backend", None) for name in _MODULES}
    known = {name: check for name, check in checked.items() if check is not None}
    for name in known:
        sys.modules[name].check_backend = lambda backend: None  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for name, check in known.items():
            sys.modules[name].check_backend = check  # type: ignore[attr-defined]


def on_torch(module: torch.nn.Module) -> None:
    """Let PyTorch compute all nodes of SpikingJelly; other modules stay as they are."""
    for part in module.modules():
        is_node = any(kind.__module__.startswith(_LIBRARY) for kind in type(part).__mro__)
        if is_node and getattr(part, "backend", "torch") != "torch":
            part.backend = "torch"  # type: ignore[assignment]
