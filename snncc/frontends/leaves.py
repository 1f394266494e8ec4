"""Leaf modules: neurons that are imported whole, as one operator, whatever their source says.

During export the ``forward`` of every leaf is swapped for one symbolic node, so the user's code
stays as it is. Register a class of your own by its qualified name:

    register_leaf("my.models.MultiSpike", lambda m: IntegerFireSpec(D=m.max, norm=m.norm))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from snncc.ir.ops import DOMAIN, VERSION

__all__ = ["IntegerFireSpec", "Leaf", "find_leaves", "record", "register_leaf", "swapped"]


@dataclass(frozen=True)
class IntegerFireSpec:
    """What ``ai.snncc.IntegerFire`` needs to know: levels, value of a spike, rounding rule."""

    D: int
    norm: float = 1.0
    rounding: str = "half-even"

    def __post_init__(self) -> None:
        object.__setattr__(self, "D", int(self.D))  # a spec is read off attributes of any kind
        object.__setattr__(self, "norm", float(self.norm))


@dataclass(frozen=True)
class Leaf:
    """A leaf found in a network: module path, module and what it becomes."""

    path: str
    module: torch.nn.Module
    spec: IntegerFireSpec


_LEAVES: dict[str, Callable[[Any], IntegerFireSpec]] = {}


def register_leaf(cls: type | str, describe: Callable[[Any], IntegerFireSpec]) -> None:
    """Import modules of class ``cls`` (or its qualified name) as one IntegerFire node.

    Args:
        cls: The class, or ``package.module.Class`` so that it need not be imported here.
        describe: Reads the spec off an instance.
    """
    _LEAVES[cls if isinstance(cls, str) else _qualified(cls)] = describe


def _qualified(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _describe(module: torch.nn.Module) -> IntegerFireSpec | None:
    for cls in type(module).__mro__:
        if (describe := _LEAVES.get(_qualified(cls))) is not None:
            return describe(module)
    return None


def find_leaves(module: torch.nn.Module) -> list[Leaf]:
    """All leaf modules of a network with their paths."""
    found = ((path, m, _describe(m)) for path, m in module.named_modules())
    return [Leaf(path, m, spec) for path, m, spec in found if spec is not None]


def _symbolic(spec: IntegerFireSpec) -> Callable[[torch.Tensor], Any]:
    def forward(x: torch.Tensor) -> Any:
        return torch.onnx.ops.symbolic(
            f"{DOMAIN}::IntegerFire",
            (x,),
            attrs=asdict(spec),
            dtype=x.dtype,
            shape=x.shape,
            version=VERSION,
        )

    return forward


@contextmanager
def swapped(leaves: list[Leaf]) -> Iterator[None]:
    """Within this context every leaf's ``forward`` emits its operator."""
    try:
        for leaf in leaves:
            leaf.module.forward = _symbolic(leaf.spec)
        yield
    finally:
        for leaf in leaves:
            leaf.module.__dict__.pop("forward", None)


@contextmanager
def record(leaves: list[Leaf]) -> Iterator[dict[str, list[tuple[torch.Tensor, torch.Tensor]]]]:
    """Within this context each leaf's calls are kept: path -> [(input, output), ...]."""
    calls: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {leaf.path: [] for leaf in leaves}

    def hook(path: str) -> Callable[..., None]:
        return lambda _m, args, out: calls[path].append((args[0].detach(), out.detach()))

    handles = [leaf.module.register_forward_hook(hook(leaf.path)) for leaf in leaves]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


register_leaf("snncc.nn.IntegerFire", lambda m: IntegerFireSpec(m.D, m.norm, m.rounding))
