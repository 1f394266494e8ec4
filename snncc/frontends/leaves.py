"""Leaf modules: neurons that are imported whole, as one operator, whatever their source says.

During export the ``forward`` of every leaf is swapped for one symbolic node, so the user's code
stays as it is. Register a class of your own by its qualified name:

    register_leaf("my.models.MultiSpike", lambda m: IntegerFireSpec(D=m.max, norm=m.norm))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any

import torch

from snncc.errors import Fault, UnsupportedModelError
from snncc.frontends.step_leaves import stepping
from snncc.frontends.steps import CALLS, CLASS
from snncc.ir.ops import DOMAIN, VERSION

__all__ = [
    "Call",
    "IntegerFireSpec",
    "Leaf",
    "Record",
    "StatefulFireSpec",
    "StepSpec",
    "find_leaves",
    "forget",
    "recorded",
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
    ``soft``, ``hard``, or ``delayed``: V = H, and the next H is lowered by s * threshold. ``state``
    names the attribute in which the module keeps V between calls, if it does.
    """

    D: int = 1
    decay: float = 0.5
    gain: float = 0.5
    threshold: float = 1.0
    norm: float = 1.0
    rule: str = ">="
    reset: str = "hard"
    state: str = ""


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


def _symbolic(leaf: Leaf, numbers: Iterator[int]) -> Callable[..., Any]:
    spec = leaf.spec
    if isinstance(spec, StepSpec):
        return stepping(leaf.module, asdict(spec.neuron), spec.state, spec.alone, numbers)
    if isinstance(spec, StatefulFireSpec):
        return _over_time(leaf, spec, numbers)
    attributes = asdict(spec)
    return lambda x: _node("IntegerFire", x, attributes, next(numbers), leaf)


def _over_time(
    leaf: Leaf, spec: StatefulFireSpec, numbers: Iterator[int]
) -> Callable[[torch.Tensor], Any]:
    attributes = asdict(spec)
    state = attributes.pop("state")

    def forward(x: torch.Tensor) -> Any:
        if state:
            _require_empty(leaf, state)
        T = int(x.shape[0])
        fired = _node("StatefulFire", x.flatten(0, 1), {"T": T, **attributes}, next(numbers), leaf)
        return fired.unflatten(0, (T, x.shape[1]))

    return forward


class _Used:
    """What a neuron holds in place of its membrane once it has been called."""


def _require_empty(leaf: Leaf, state: str) -> None:
    """A neuron starts with an empty membrane, and keeps one that nobody goes on with.

    Raises:
        UnsupportedModelError: It has been called before, without a reset since; or it starts with
            something else.
    """
    held = getattr(leaf.module, state, None)
    kind = type(leaf.module).__name__
    if isinstance(held, _Used):
        what = "is called again, and its membrane goes on from the first call into the second"
        todo = "a neuron of its own for each place, or a reset between the calls"
    elif isinstance(held, (int, float)) and held:
        what, todo = f"starts with a membrane of {held!r}", "start with an empty one"
    else:  # what a tensor holds, the law of import sees
        setattr(leaf.module, state, _Used())
        return
    fault = Fault(what, kind=kind, module=leaf.path, todo=todo)
    raise UnsupportedModelError("a neuron does not start with an empty membrane", [fault])


def _node(kind: str, x: torch.Tensor, attributes: dict[str, Any], call: int, leaf: Leaf) -> Any:
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{kind}",
        (x,),
        attrs=attributes,
        dtype=x.dtype,
        shape=x.shape,
        version=VERSION,
        metadata_props={CALLS: str(call), CLASS: _qualified(type(leaf.module))},
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
    """Within this context every leaf's ``forward`` emits its operator.

    Calls are numbered in the order of the author's code, which is the same in every run of it.
    """
    numbers = count()
    with _instead([(leaf, _symbolic(leaf, numbers)) for leaf in leaves]):
        yield


@contextmanager
def _instead(forwards: list[tuple[Leaf, Callable[..., Any]]]) -> Iterator[None]:
    """Within this context leaves do something else; their membranes are as before behind it."""
    held = _membranes([leaf for leaf, _ in forwards])
    own = [leaf.module.__dict__.get("forward") for leaf, _ in forwards]
    try:
        for leaf, forward in forwards:
            leaf.module.forward = forward
        yield
    finally:
        for (leaf, _), before in zip(forwards, own, strict=True):
            leaf.module.__dict__.pop("forward", None)
            if before is not None:
                leaf.module.forward = before
        for module, name, value in held:  # what was left there is no membrane
            setattr(module, name, value)


def _membranes(leaves: list[Leaf]) -> list[tuple[torch.nn.Module, str, Any]]:
    """What neurons with a memory hold, and all that a reset of theirs reaches."""
    found = []
    for leaf in leaves:
        state = getattr(leaf.spec, "state", "")
        kin = (leaf.module, *getattr(type(leaf.module), "instances", ()))
        found += [(m, state) for m in kin if state and hasattr(m, state)]
    return [(m, name, getattr(m, name)) for m, name in found]


@dataclass(frozen=True)
class Call:
    """One call of a leaf: its drive and its spikes, as PyTorch computed them."""

    leaf: Leaf
    drive: torch.Tensor
    spikes: torch.Tensor


@dataclass
class Record:
    """Calls of leaves as they are made, by their numbers.

    Attributes:
        calls: Those that are done. What a leaf calls inside itself is no call of its own.
        inside: Whether one is being made.
    """

    calls: list[Call] = field(default_factory=list)
    inside: bool = False

    def of(self, leaf: Leaf) -> Callable[..., Any]:
        """The leaf's own ``forward``, recorded."""
        own = leaf.module.forward

        def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if self.inside:
                return own(x, *args, **kwargs)
            drive, self.inside = x.detach().clone(), True
            try:
                out = own(x, *args, **kwargs)
            finally:
                self.inside = False
            self.calls.append(Call(leaf, drive, _spikes(out).clone()))
            return out

        return forward


@contextmanager
def recorded(leaves: list[Leaf]) -> Iterator[Record]:
    """Within this context each call of a leaf is kept, numbered as ``swapped`` numbers them.

    Tensors are copies: what the network does to them in place later is not in them.
    """
    record = Record()
    forget(leaves)
    try:
        with _instead([(leaf, record.of(leaf)) for leaf in leaves]):
            yield record
    finally:
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
