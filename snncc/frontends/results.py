"""What a network returns, where that is more than a tensor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import _pytree

__all__ = ["one_result", "tensors_of"]


def tensors_of(out: Any) -> list[torch.Tensor]:
    """The tensors in tuples, lists and dicts, in their order."""
    return [leaf for leaf in _pytree.tree_leaves(out) if isinstance(leaf, torch.Tensor)]


@contextmanager
def one_result(module: torch.nn.Module) -> Iterator[None]:
    """Within this context ``module`` returns its tensor, if it returns one in whatever it returns.

    Authors return results in a list, or beside records that were not asked for, as ``(x, None)``.
    """

    def taken(_: Any, __: Any, out: Any) -> torch.Tensor | None:
        tensors = tensors_of(out)
        return tensors[0] if len(tensors) == 1 else None

    hook = module.register_forward_hook(taken)
    try:
        yield
    finally:
        hook.remove()
