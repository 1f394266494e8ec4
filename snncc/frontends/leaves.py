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

from snncc.errors import Fault, UnsupportedModelError
from snncc.frontends.step_leaves import stepping
from snncc.ir.ops import DOMAIN, VERSION

__all__ = [
    "IntegerFireSpec",
    "Leaf",
    "StatefulFireSpec",
    "StepSpec",
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
    ``soft``, ``hard``, or ``delayed``: V = H, and the next H is lowered by s * threshold.
    """

    D: int = 1
    decay: float = 0.5
    gain: float = 0.5
    threshold: float = 1.0
    norm: float = 1.0
    rule: str = ">="
    reset: str = "hard"


@dataclass(frozen=True)
class StepSpec:
    """A neuron with memory that is called once per timestep, ``spikes, membrane = m(x, membrane)``.

    Attributes:
        neuron: What it does in a timestep.
        alone: Calls return spikes alone; the membrane stays in the module.
        state: Name of the attribute in which the module keeps it.
    """

    neuron: StatefulFireSpec
    alone: bool = False
    state: str = "mem"


Spec = IntegerFireSpec | StatefulFireSpec | StepSpec


@dataclass(frozen=True)
class Leaf:
    """A leaf found in a network: module path, module and what it becomes."""

    path: str
    module: torch.nn.Module
    spec: Spec

    @property
    def keeps_its_membrane(self) -> bool:
        """Whether calls of single timesteps hand no membrane on."""
        return isinstance(self.spec, StepSpec) and self.spec.alone


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
    """All leaf modules of a network with their paths.

    Raises:
        UnsupportedModelError: Some are neurons that cannot become spikes; all are listed.
    """
    found, faults = [], []
    for path, m in module.named_modules():
        try:
            spec = _describe(m)
        except UnsupportedModelError as e:
            faults.append(Fault(e.message, kind=type(m).__name__, module=path))
            continue
        if spec is not None:
            found.append(Leaf(path, m, spec))
    if faults:
        raise UnsupportedModelError("some neurons cannot become spikes", faults)
    return found


def _symbolic(leaf: Leaf) -> Callable[..., Any]:
    spec = leaf.spec
    if isinstance(spec, StepSpec):
        return stepping(leaf.module, asdict(spec.neuron), spec.state, spec.alone)
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
        elif isinstance(leaf.spec, StepSpec) and hasattr(leaf.module, leaf.spec.state):
            setattr(leaf.module, leaf.spec.state, torch.zeros(0))


@contextmanager
def swapped(leaves: list[Leaf]) -> Iterator[None]:
    """Within this context every leaf's ``forward`` emits its operator."""
    held = _membranes(leaves)
    try:
        for leaf in leaves:
            leaf.module.forward = _symbolic(leaf)
        yield
    finally:
        for leaf in leaves:
            leaf.module.__dict__.pop("forward", None)
        for module, name, value in held:  # what export left there is no membrane
            setattr(module, name, value)


def _membranes(leaves: list[Leaf]) -> list[tuple[torch.nn.Module, str, Any]]:
    """What neurons called once per timestep hold, and all that a reset of theirs reaches."""
    found = []
    for leaf in leaves:
        if isinstance(leaf.spec, StepSpec):
            kin = (leaf.module, *getattr(type(leaf.module), "instances", ()))
            found += [(m, leaf.spec.state) for m in kin if hasattr(m, leaf.spec.state)]
    return [(m, name, getattr(m, name)) for m, name in found]


@contextmanager
def record(leaves: list[Leaf]) -> Iterator[dict[str, list[tuple[torch.Tensor, torch.Tensor]]]]:
    """Within this context each leaf's calls are kept: path -> [(input, spikes), ...]."""
    calls: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {leaf.path: [] for leaf in leaves}

    def hook(path: str) -> Callable[..., None]:
        return lambda _m, args, out: calls[path].append((args[0].detach(), _spikes(out)))

    forget(leaves)
    handles = [leaf.module.register_forward_hook(hook(leaf.path)) for leaf in leaves]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
        forget(leaves)


def _spikes(out: Any) -> torch.Tensor:
    """What a call returned, without the membrane."""
    spikes: torch.Tensor = out[0] if isinstance(out, tuple) else out
    return spikes.detach()


register_leaf("snncc.nn.IntegerFire", lambda m: IntegerFireSpec(m.D, m.norm, m.rounding))


def _own_stateful(m: Any) -> StatefulFireSpec:
    decay, gain = (float(torch.as_tensor(value).detach()) for value in m.dynamics())
    return StatefulFireSpec(m.D, decay, gain, m.threshold, m.norm, m.rule, m.reset)


register_leaf("snncc.nn_state.Stateful", _own_stateful)
