"""What a network returns: the tensors in tuples, lists, dicts and records, each under its name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch

__all__ = ["Returned", "flat_results", "named_results"]

#: A result that is returned alone, and what stands before the position of others.
_ALONE = "output"
_Path = tuple["str | int", ...]


def named_results(out: Any) -> dict[str, torch.Tensor]:
    """The tensors in what a network returned, by name, in their order; what is none is left out.

    A name is a key of a dict, an attribute of a record or a position, with dots between where they
    are nested: ``logits``, ``output0``, ``features.1``. A tensor that comes alone is ``output``.
    """
    found = [*_tensors(out, ())]
    if len(found) == 1 and not any(isinstance(part, str) for part in found[0][0]):
        return {_ALONE: found[0][1]}
    named: dict[str, torch.Tensor] = {}
    for path, tensor in found:
        name = _name(path)
        while name in named:  # keys 1 and "1" are two
            name += "_"
        named[name] = tensor
    return named


def _tensors(out: Any, path: _Path) -> Iterator[tuple[_Path, torch.Tensor]]:
    if isinstance(out, torch.Tensor):
        yield path, out
    for key, part in _parts(out):
        yield from _tensors(part, (*path, key))


def _parts(out: Any) -> Iterator[tuple[str | int, Any]]:
    """What a container holds: keys and attributes as text, positions as numbers."""
    if isinstance(out, Mapping):
        yield from ((str(key), part) for key, part in out.items())
    elif isinstance(out, tuple) and hasattr(out, "_fields"):
        yield from zip(out._fields, out, strict=True)
    elif isinstance(out, (tuple, list)):
        yield from enumerate(out)
    elif is_dataclass(out) and not isinstance(out, type):
        yield from ((f.name, getattr(out, f.name)) for f in fields(out))


def _name(path: _Path) -> str:
    """The path with dots; names of values have marks of their own, which keys must not bring."""
    first, *others = path
    parts = [f"{_ALONE}{first}" if isinstance(first, int) else first, *map(str, others)]
    return ".".join(re.sub(r"[^\w.-]", "_", part) or "_" for part in parts)


@dataclass
class Returned:
    """The names of what a network returned last."""

    names: tuple[str, ...] = ()


@contextmanager
def flat_results(module: torch.nn.Module) -> Iterator[Returned]:
    """Within this context ``module`` returns its tensors: one alone, or several in a tuple."""
    returned = Returned()

    def taken(_: Any, __: Any, out: Any) -> Any:
        found = named_results(out)
        returned.names = tuple(found)
        tensors = tuple(found.values())
        return tensors[0] if len(tensors) == 1 else tensors

    hook = module.register_forward_hook(taken)
    try:
        yield returned
    finally:
        hook.remove()
