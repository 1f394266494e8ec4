"""Networks that are not the same in every call: random numbers, counters, what changes itself."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils._pytree import tree_leaves

from snncc.errors import Fault, UnsupportedModelError
from snncc.frontends.leaves import Leaf, find_leaves, forget
from snncc.frontends.results import flat_results
from snncc.frontends.sequences import Frames
from snncc.frontends.sparse_leaves import holding
from snncc.frontends.tidy import users_line
from snncc.frontends.untouched import untouched

__all__ = ["require_one_network"]


def require_one_network(
    module: torch.nn.Module, frames: Frames, x: npt.NDArray[np.float32]
) -> None:
    """Refuse a network that computes something else when it is called again.

    Args:
        module: The network.
        frames: How it takes its input.
        x: float32 (N, ...).

    Raises:
        UnsupportedModelError: Of the same input it makes different values; the first module that
            does is named.
    """
    with untouched(module), holding(module, None), frames.given_to(module), flat_results(module):
        leaves, given = find_leaves(module), torch.from_numpy(np.ascontiguousarray(x))
        first, second = (_calls_of(module, leaves, given) for _ in range(2))
    if first == second:
        return
    pairs = zip(first, second, strict=False)
    paths = [one.path for one, two in pairs if one.read == two.read and one.made != two.made]
    path = paths[0] if paths else ""  # of the innermost, which ends first
    what = "the network is not the same in every call"
    raise UnsupportedModelError(what, [_varying(module, path)])


def _varying(module: torch.nn.Module, path: str) -> Fault:
    part = module.get_submodule(path)
    code = type(part).forward.__code__
    source = users_line(f'File "{code.co_filename}", line {code.co_firstlineno}')
    what = "makes other values of the same input when it is called again"
    todo = "no random numbers (numpy's, Python's) and no counting of calls in forward"
    return Fault(what, "", type(part).__name__, path, source, todo)


class _Seen(NamedTuple):
    """A call of a module: its path, and digests of what it read and made."""

    path: str
    read: bytes
    made: bytes


def _calls_of(module: torch.nn.Module, leaves: Sequence[Leaf], x: torch.Tensor) -> list[_Seen]:
    """Calls of modules in the order in which they end, with empty membranes at first."""
    seen: list[_Seen] = []

    def note(path: str, read: Any, made: Any) -> None:
        seen.append(_Seen(path, _digest(read), _digest(made)))

    hooks = [
        part.register_forward_hook(lambda _, read, made, path=path: note(path, read, made))
        for path, part in module.named_modules()
    ]
    try:
        forget([*leaves])
        module(x.clone())
    finally:
        for hook in hooks:
            hook.remove()
        forget([*leaves])
    return seen


def _digest(values: Any) -> bytes:
    """Of all tensors among the values."""
    found = sha256()
    for value in tree_leaves(values):
        if isinstance(value, torch.Tensor):
            found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.digest()
