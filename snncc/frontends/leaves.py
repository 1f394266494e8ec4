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

__all__ = [
    "IntegerFireSpec",
    "Leaf",
    "StatefulFireSpec",
    "find_leaves",
    "forget",
    "record",
    "register_leaf",
    "swapped",
]


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
class StatefulFireSpec:
    """What ``ai.snncc.StatefulFire`` needs to know; the module reads [T, N, ...].

    H = decay * V + gain * x; rule ``>=`` or ``>`` (D = 1), ``half-even`` or ``half-up``; reset
    ``soft`` or ``hard``.
    """

    D: int = 1
    decay: float = 0.5
    gain: float = 0.5
    threshold: float = 1.0
    norm: float = 1.0
    rule: str = ">="
    reset: str = "hard"


Spec = IntegerFireSpec | StatefulFireSpec


@dataclass(frozen=True)
class Leaf:
    """A leaf found in a network: module path, module and what it becomes."""

    path: str
    module: torch.nn.Module
    spec: Spec


_LEAVES: dict[str, Callable[[Any], Spec]] = {}


def register_leaf(cls: type | str, describe: Callable[[Any], Spec]) -> None:
    """Import modules of class ``cls`` (or its qualified name) as one neuron node.

    Args:
        cls: The class, or ``package.module.Class`` so that it need not be imported here.
        describe: Reads the spec off an instance.
    """
    _LEAVES[cls if isinstance(cls, str) else _qualified(cls)] = describe


def _qualified(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _describe(module: torch.nn.Module) -> Spec | None:
    for cls in type(module).__mro__:
        if (describe := _LEAVES.get(_qualified(cls))) is not None:
            return describe(module)
    return None


def find_leaves(module: torch.nn.Module) -> list[Leaf]:
    """All leaf modules of a network with their paths."""
    found = ((path, m, _describe(m)) for path, m in module.named_modules())
    return [Leaf(path, m, spec) for path, m, spec in found if spec is not None]


def _symbolic(spec: Spec) -> Callable[[torch.Tensor], Any]:
    return _over_time(spec) if isinstance(spec, StatefulFireSpec) else _at_once(spec)


def _at_once(spec: IntegerFireSpec) -> Callable[[torch.Tensor], Any]:
    return lambda x: _node("IntegerFire", x, asdict(spec))


def _over_time(spec: StatefulFireSpec) -> Callable[[torch.Tensor], Any]:
    def forward(x: torch.Tensor) -> Any:
        T = int(x.shape[0])
        fired = _node("StatefulFire", x.flatten(0, 1), {"T": T, **asdict(spec)})
        return fired.unflatten(0, (T, x.shape[1]))

    return forward


def _node(kind: str, x: torch.Tensor, attributes: dict[str, Any]) -> Any:
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{kind}",
        (x,),
        attrs=attributes,
        dtype=x.dtype,
        shape=x.shape,
        version=VERSION,
    )


def forget(leaves: list[Leaf]) -> None:
    """Empty the membranes of neurons that keep them between calls."""
    for leaf in leaves:
        reset = getattr(leaf.module, "reset", None)
        if isinstance(leaf.spec, StatefulFireSpec) and callable(reset):
            reset()


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

    forget(leaves)
    handles = [leaf.module.register_forward_hook(hook(leaf.path)) for leaf in leaves]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
        forget(leaves)


register_leaf("snncc.nn.IntegerFire", lambda m: IntegerFireSpec(m.D, m.norm, m.rounding))


def _own_stateful(m: Any) -> StatefulFireSpec:
    decay, gain = (float(torch.as_tensor(value).detach()) for value in m.dynamics())
    return StatefulFireSpec(m.D, decay, gain, m.threshold, m.norm, m.rule, m.reset)


register_leaf("snncc.nn_state.Stateful", _own_stateful)
