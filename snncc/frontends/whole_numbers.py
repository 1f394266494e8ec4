"""``int(x.shape[0] / T)`` in authors' code, where the size of the batch is free.

Python's ``int`` makes a number of a size that torch.export keeps free, and so fixes it. What
torch.export offers instead, ``torch.sym_int``, leaves it free; authors do not know of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["free_sizes"]

_FREE = (torch.SymInt, torch.SymFloat)


class _IsInt(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, int)


class _Int(int, metaclass=_IsInt):
    """``int``, but for free sizes."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], _FREE):
            return torch.sym_int(args[0])  # type: ignore[no-untyped-call]
        return int(*args, **kwargs)


@contextmanager
def free_sizes(module: torch.nn.Module) -> Iterator[None]:
    """Within this context ``int`` leaves sizes free where the module's classes stand."""
    names = {type(part).__module__ for part in module.modules()}
    others = [sys.modules.get(n) for n in names if n.partition(".")[0] not in ("torch", "snncc")]
    changed = [file for file in others if file is not None and "int" not in vars(file)]
    try:
        for file in changed:
            vars(file)["int"] = _Int
        yield
    finally:
        for file in changed:
            del vars(file)["int"]
