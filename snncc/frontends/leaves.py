"""Leaf modules: neurons that are imported whole, as one operator, whatever their source says.

During export the ``forward`` of every leaf is swapped for one symbolic node, so the user's code
stays as it is. Register a class of your own by its qualified name:

    register_leaf("my.models.MultiSpike", lambda m: IntegerFireSpec(D=m.max, norm=m.norm))
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from functools import cached_property, reduce
from itertools import count
from operator import add
from typing import Any

import torch

from snncc.errors import Fault, Option, SnnccError, UnsupportedModelError, UsageError, Words
from snncc.frontends.described import shared_out
from snncc.frontends.descriptions import IntegerFireSpec, Spec, StatefulFireSpec, StepSpec
from snncc.frontends.loop_leaves import stepping
from snncc.ir.metadata import CALLS, CLASS, PART
from snncc.ir.ops import DOMAIN, VERSION

__all__ = [
    "Call",
    "IntegerFireSpec",
    "Leaf",
    "Record",
    "StatefulFireSpec",
    "StepSpec",
    "declared",
    "find_leaves",
    "forget",
    "qualified",
    "recorded",
    "register_leaf",
    "swapped",
]


@dataclass(frozen=True)
class Leaf:
    """A leaf found in a network.

    Attributes:
        path: Of the module.
        module: The module.
        spec: What it becomes.
        described: Qualified name of the class whose description this is: its own, or a base.
        start: What the attributes of its membrane hold before the first call, by name.
        is_found: Its description was found by experiment.
    """

    path: str
    module: torch.nn.Module
    spec: Spec
    described: str
    start: Mapping[str, Any] = field(compare=False)
    is_found: bool = False

    @property
    def keeps_its_membrane(self) -> bool:
        """Whether calls of single timesteps hand no membrane on."""
        return isinstance(self.spec, StepSpec) and self.spec.alone


_LEAVES: dict[str, Callable[[Any], Spec]] = {}


def register_leaf(cls: type | str, describe: Callable[[Any], Spec]) -> None:
    """Import modules of class ``cls`` (or its qualified name) as one neuron node.

    Args:
        cls: The class, or ``package.module.Class`` so that it need not be imported here;
            ``Class`` alone is one of that name in any module.
        describe: Reads the spec off an instance.
    """
    _LEAVES[cls if isinstance(cls, str) else qualified(cls)] = describe


def qualified(cls: type) -> str:
    """The name by which a class is registered."""
    return f"{cls.__module__}.{cls.__qualname__}"


def _description(module: torch.nn.Module) -> tuple[str, Callable[[Any], Spec]] | None:
    """The class that was registered for a module, its own or a base, and what describes it."""
    for cls in type(module).__mro__:
        for name in (qualified(cls), cls.__qualname__):
            if (describe := _LEAVES.get(name)) is not None:
                return qualified(cls), describe
    return None


def _spec_of(fields: Mapping[str, Any]) -> Spec:
    """A description from its fields: of a neuron with memory where any of them speaks of one.

    Raises:
        UsageError: A field is not known, or not what it may be.
    """
    cls = IntegerFireSpec if fields.keys() <= {"D", "norm", "rounding"} else StatefulFireSpec
    known = [f.name for f in dataclasses.fields(cls) if f.init]
    if wrong := sorted(fields.keys() - set(known)):
        raise UsageError(f"a neuron has no {', '.join(wrong)}; give some of {', '.join(known)}")
    if "thresholds" in fields and ("threshold" in fields or not fields["thresholds"]):
        raise UsageError("thresholds are one or more, and there is no threshold beside them")
    return cls(**fields)


@contextmanager
def declared(module: torch.nn.Module, leaves: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """Within this context classes are known as ``leaves`` say, by name, qualified or not.

    Raises:
        UsageError: A description is none, or the network has no such class; it is named.
    """
    found: dict[str, Callable[[Any], Spec]] = {}
    _require_classes(module, leaves)
    for name, fields in leaves.items():
        try:
            spec = _spec_of(fields)
        except UsageError as e:
            raise UsageError(Words(Option("leaves", like=name), f": {e.message}")) from e
        found[name] = _same(spec)
    with _registered(found):
        yield


def _require_classes(module: torch.nn.Module, names: Collection[str]) -> None:
    kinds = {cls for part in module.modules() for cls in type(part).__mro__}
    known = {name for cls in kinds for name in (qualified(cls), cls.__qualname__)}
    if wrong := sorted(set(names) - known):
        near = get_close_matches(wrong[0], sorted(cls.__qualname__ for cls in kinds))
        there = f"; it has {', '.join(near)}" if near else ""
        told = f": the network has no module of this class{there}"
        raise UsageError(Words(Option("leaves", like=wrong[0]), told))


def _same(spec: Spec) -> Callable[[Any], Spec]:
    """A description that does not look at the module."""
    return lambda _: spec


@contextmanager
def _registered(found: Mapping[str, Callable[[Any], Spec]]) -> Iterator[None]:
    before = dict(_LEAVES)
    _LEAVES.update(found)
    try:
        yield
    finally:
        _LEAVES.clear()
        _LEAVES.update(before)


def _described(module: torch.nn.Module, describe: Callable[[Any], Spec]) -> Spec:
    """What a description says.

    Raises:
        UnsupportedModelError: It is none.
    """
    try:
        spec = describe(module)
    except SnnccError:
        raise
    except Exception as e:
        said = f"{type(e).__name__}: {e}"
        raise UnsupportedModelError(f"its description (register_leaf) raises {said}") from e
    if not isinstance(spec, Spec):
        raise UnsupportedModelError(
            f"its description (register_leaf) returns {spec!r}; return an IntegerFireSpec, a "
            "StatefulFireSpec or a StepSpec"
        )
    return spec


def find_leaves(module: torch.nn.Module) -> list[Leaf]:
    """All leaf modules of a network with their paths.

    Raises:
        UnsupportedModelError: Some are neurons that cannot become spikes; all are listed.
    """
    found, faults = [], []
    for path, m in module.named_modules():
        if (known := _description(m)) is None:
            continue
        name, describe = known
        try:
            spec = _described(m, describe)
        except SnnccError as e:
            faults.append(Fault(e.message, kind=type(m).__name__, module=path))
            continue
        start = {name: _start(m, name) for name in _kept_in(spec)}
        found.append(Leaf(path, m, spec, name, start))
    if faults:
        raise UnsupportedModelError("some neurons cannot become spikes", faults)
    return found


def _symbolic(leaf: Leaf, numbers: Iterator[int]) -> Callable[..., Any]:
    spec, own = leaf.spec, leaf.module.forward
    if isinstance(spec, StepSpec):
        states = 0 if spec.alone else spec.states
        last = spec.state.rpartition(",")[2]
        node = stepping(leaf.module, spec.neuron, last, states, numbers)
    elif isinstance(spec, StatefulFireSpec):
        node = _over_time(leaf, spec, numbers)
    else:
        attributes = asdict(spec)
        node = lambda x: _node("IntegerFire", x, attributes, next(numbers), leaf)  # noqa: E731

    def forward(*args: Any, **kwargs: Any) -> Any:
        x, others = _arguments(own, args, kwargs)
        return node(x, *others.values())

    return forward


def _arguments(
    forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[torch.Tensor, dict[str, Any]]:
    """The drive of a call, and what else it is given that is no default, by name."""
    signature = inspect.signature(forward)
    given: dict[str, Any] = {}
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            given |= {f"{name}[{i}]": v for i, v in enumerate(value)}
        elif kind is inspect.Parameter.VAR_KEYWORD:
            given |= value
        else:
            given[name] = value
    drive, *rest = given
    defaults = {name: p.default for name, p in signature.parameters.items()}
    others = {k: given[k] for k in rest if given[k] is not defaults.get(k, inspect.Parameter.empty)}
    return given[drive], others


def _over_time(
    leaf: Leaf, spec: StatefulFireSpec, numbers: Iterator[int]
) -> Callable[[torch.Tensor], Any]:
    name = spec.state.rpartition(",")[2]
    used: list[Any] = []

    def forward(x: torch.Tensor) -> Any:
        if name:
            _require_empty(leaf, name, used)
        x = spec.over_time(spec.in_thresholds(x))
        T, call, drive = int(x.shape[0]), next(numbers), x.flatten(0, 1)
        parts = [
            _node("StatefulFire", drive, {"T": T, **one.numbers(x.shape[2:])}, call, leaf, part)
            for part, one in enumerate(spec.parts)
        ]
        spikes = spec.for_module(reduce(add, parts).unflatten(0, (T, x.shape[1])))
        return (spikes, None) if spec.hands_on else spikes

    return forward


class _Used:
    """What a neuron holds in place of its membrane once it has been called."""


def _require_empty(leaf: Leaf, state: str, used: list[Any]) -> None:
    """A neuron starts with an empty membrane, and keeps one that nobody goes on with.

    Of one whose membrane is a buffer, in which nothing else may be put, ``used`` holds what was
    there when it was called: a reset makes another tensor.

    Raises:
        UnsupportedModelError: It has been called before, without a reset since; or it starts with
            something else.
    """
    held = getattr(leaf.module, state, None)
    kind = type(leaf.module).__name__
    if isinstance(held, _Used) or any(held is one for one in used):
        what = "is called again, and its membrane goes on from the first call into the second"
        todo = "a neuron of its own for each place, or a reset between the calls"
    elif isinstance(held, (int, float)) and held:
        what, todo = f"starts with a membrane of {held!r}", "start with an empty one"
    elif state in leaf.module._buffers:
        used.append(held)
        return
    else:  # what a tensor holds, the law of import sees
        setattr(leaf.module, state, _Used())
        return
    fault = Fault(what, kind=kind, module=leaf.path, todo=todo)
    raise UnsupportedModelError("a neuron does not start with an empty membrane", [fault])


def _node(
    kind: str, x: torch.Tensor, attributes: dict[str, Any], call: int, leaf: Leaf, part: int = 0
) -> Any:
    origin = {CALLS: str(call), CLASS: qualified(type(leaf.module))}
    if part:
        origin[PART] = str(part)
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{kind}",
        (x,),
        attrs=attributes,
        dtype=x.dtype,
        shape=x.shape,
        version=VERSION,
        metadata_props=origin,
    )


def forget(leaves: list[Leaf]) -> None:
    """Empty the membranes of neurons that keep them between calls.

    By their ``reset()``, as their authors do between samples; where there is none, they hold again
    what they began with.
    """
    for leaf in leaves:
        if isinstance(leaf.spec, IntegerFireSpec):
            continue
        if callable(reset := getattr(leaf.module, "reset", None)):
            reset()
            continue
        for state, start in leaf.start.items():
            if start is not _ABSENT:
                value = start.clone() if isinstance(start, torch.Tensor) else start
                setattr(leaf.module, state, value)
            elif hasattr(leaf.module, state):
                delattr(leaf.module, state)


def _kept_in(spec: Spec) -> list[str]:
    """Attributes in which a neuron keeps its membrane, and what else it remembers."""
    return [name for name in getattr(spec, "state", "").split(",") if name]


_ABSENT = object()


def _start(module: torch.nn.Module, state: str) -> Any:
    """What a membrane begins with: what is there, unless a run has left it there.

    That is a tensor of many numbers. A buffer is empty then, as that of snnTorch's neurons; 0 goes
    with any drive.
    """
    held = getattr(module, state, _ABSENT)
    if not isinstance(held, torch.Tensor) or held.numel() <= 1:
        return held
    return held.new_zeros(0) if state in module._buffers else held.new_zeros(())


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
    """Within this context leaves do something else; after it membranes are as they were."""
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
        kin = (leaf.module, *getattr(type(leaf.module), "instances", ()))
        found += [(m, name) for m in kin for name in _kept_in(leaf.spec) if hasattr(m, name)]
    return [(m, name, getattr(m, name)) for m, name in found]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a leaf, as PyTorch computed it.

    Attributes:
        leaf: The leaf.
        drive: Its drive.
        spikes: What it returned, without the membrane.
        others: What else it was given, by name; of tensors only the shape is kept.
    """

    leaf: Leaf
    drive: torch.Tensor
    spikes: torch.Tensor
    others: Mapping[str, Any] = field(default_factory=dict)

    def over_time(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Drive and spikes with timesteps before samples, as the leaf's operator has them."""
        spec = self.leaf.spec
        if isinstance(spec, StepSpec):
            return spec.neuron.in_thresholds(self.drive), self.spikes
        if not isinstance(spec, StatefulFireSpec):
            return self.drive, self.spikes
        return spec.over_time(spec.in_thresholds(self.drive)), spec.over_time(self.spikes)

    @cached_property
    def parts(self) -> list[torch.Tensor]:
        """Its spikes, of each memory that adds to them, likewise."""
        (drive, spikes), spec = self.over_time(), self.leaf.spec
        if not isinstance(spec, StatefulFireSpec) or len(spec.parts) == 1:
            return [spikes]
        return [c / spec.norm for c in shared_out(spec, drive, spikes * spec.norm)]


@dataclass
class Record:
    """Calls of leaves as they are made, by their numbers.

    Attributes:
        calls: Those that are done. What a leaf calls inside itself is no call of its own.
        faults: Where a call is not what its description says.
        inside: Whether one is being made.
    """

    calls: list[Call] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    inside: bool = False

    def of(self, leaf: Leaf) -> Callable[..., Any]:
        """The leaf's own ``forward``, recorded."""
        own = leaf.module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            if self.inside:
                return own(*args, **kwargs)
            x, others = _arguments(own, args, kwargs)
            drive, self.inside = x.detach().clone(), True
            held = {name: _shape_of(value) for name, value in others.items()}
            try:
                out = own(*args, **kwargs)
            finally:
                self.inside = False
            self.faults += _otherwise_called(leaf, held, out) + _within_channels(leaf, drive)
            self.calls.append(Call(leaf, drive, _spikes(out).clone(), held))
            return out

        return forward

    def require_described(self) -> None:
        """Each call is given, and returns, what its description says.

        Raises:
            UnsupportedModelError: Some are not; all are listed.
        """
        if faults := list(dict.fromkeys(self.faults)):
            raise UnsupportedModelError("neurons are not called as they were described", faults)


def _shape_of(value: Any) -> Any:
    """A tensor of that shape which takes no memory; other values as they are."""
    is_tensor = isinstance(value, torch.Tensor)
    return value.new_zeros(()).expand(value.shape) if is_tensor else value


def _otherwise_called(leaf: Leaf, others: Mapping[str, Any], out: Any) -> list[Fault]:
    """What a call is given, or returns, that its description does not know."""
    is_step = isinstance(leaf.spec, StepSpec)
    takes = 0 if leaf.keeps_its_membrane else getattr(leaf.spec, "states", 0)
    hands_on = takes or int(getattr(leaf.spec, "hands_on", False))
    returned = "one tensor" if isinstance(out, torch.Tensor) else _kinds(out)
    found = []
    if len(others) > takes:
        names = ", ".join(f"{k}={_short(v)}" for k, v in list(others.items())[takes:])
        known = "drive and membrane" if takes else "the drive"
        found.append((f"is called with {names} besides {known}", _TAKES[takes > 0]))
    if hands_on and not (isinstance(out, (tuple, list)) and len(out) == 1 + hands_on):
        alone = "StepSpec(..., alone=True, state='...'), where state names its membrane"
        todo = alone if isinstance(out, torch.Tensor) else _TAKES[1]
        found.append((f"returns {returned}, not spikes and membrane", todo))
    if not hands_on and not isinstance(out, torch.Tensor):
        step = "StepSpec(...) without alone" if is_step else "StepSpec(StatefulFireSpec(...))"
        found.append((f"returns {returned}, not spikes alone", f"{step} if that is its membrane"))
    lost = [name for name in _kept_in(leaf.spec) if not hasattr(leaf.module, name)]
    if not found and leaf.keeps_its_membrane and (lost or not _kept_in(leaf.spec)):
        state = lost[0] if lost else ""
        what = f"has no attribute {state!r}, in which it was said to keep its membrane"
        found.append((what, "StepSpec(..., state='...') with the name of its own"))
    kind = type(leaf.module).__name__
    return [Fault(what, kind=kind, module=leaf.path, todo=todo) for what, todo in found]


def _within_channels(leaf: Leaf, drive: torch.Tensor) -> list[Fault]:
    """Why numbers of a leaf are not those of channels of its drive."""
    neuron = leaf.spec.neuron if isinstance(leaf.spec, StepSpec) else leaf.spec
    if not isinstance(neuron, StatefulFireSpec) or not neuron.varies:
        return []
    sizes = neuron.over_time(drive).shape[2:] if neuron is leaf.spec else drive.shape[1:]
    try:
        neuron.require_channels(sizes)
    except UsageError as e:
        return [Fault(e.message, kind=type(leaf.module).__name__, module=leaf.path)]
    return []


#: What a class is to take, that hands its membrane on or does not.
_TAKES = (
    "describe a class whose forward takes nothing else",
    "describe a class whose forward is spikes, membrane = forward(x, membrane)",
)


def _kinds(out: Any) -> str:
    if not isinstance(out, (tuple, list)):
        return type(out).__name__
    return f"a {type(out).__name__} of {len(out)}"


def _short(value: Any) -> str:
    return f"a tensor {list(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)


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
    spikes = out[0] if isinstance(out, (tuple, list)) and len(out) else out
    return spikes.detach() if isinstance(spikes, torch.Tensor) else torch.zeros(0)


register_leaf("snncc.nn.IntegerFire", lambda m: IntegerFireSpec(m.D, m.norm, m.rounding))


def _own_stateful(m: Any) -> StatefulFireSpec:
    decay, gain = m.dynamics()
    names = ("D", "threshold", "norm", "rule", "reset", "current")
    return StatefulFireSpec(decay=decay, gain=gain, **{name: getattr(m, name) for name in names})


register_leaf("snncc.nn.Stateful", _own_stateful)
