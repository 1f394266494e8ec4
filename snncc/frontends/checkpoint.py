"""Checkpoints: from ``net.pth`` to a module with weights.

Reading weights runs no code, unless the user trusts the file (``trust_pickle``).
"""

from __future__ import annotations

import argparse
import difflib
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from snncc.errors import BadInputError, Fault, Option, UsageError, Words
from snncc.frontends.checkpoint_file import load_content, require_bounded
from snncc.frontends.checkpoint_keys import choose_prefix, renames, versions_of

__all__ = ["LoadReport", "Weights", "load_weights", "read_weights"]

_RAW = ("state_dict", "model", "model_state_dict", "net", "module")
_EMA = ("state_dict_ema", "model_ema", "ema", "ema_state_dict")
_MAX_NESTING = 3
_MOST_VALUES = 64  # of a list among the arguments of a training; and letters of a word
_MAX_HINTS = 50  # comparing all keys of a large network with all others takes seconds
_COUNTER = "num_batches_tracked"  # only training reads it
#: Classes whose buffers are states, all of them, whatever they are called; weights are parameters.
_STATEFUL = ("sinabs.layers.stateful_layer.StatefulLayer",)
#: What libraries of spiking neurons call the state of theirs: sinabs, snnTorch, BindsNET, lava-dl.
_STATE_NAMES = frozenset(
    {"v_mem", "i_syn", "mem", "syn", "syn_exc", "syn_inh", "spk", "v", "s", "refrac_count"}
    | {"voltage_state", "current_state"}
)


@dataclass(frozen=True, eq=False)
class Weights:
    """The tensors of a checkpoint.

    Attributes:
        tensors: By key as stored; floating point as float32, integers as they are; on the CPU.
        which: ``raw`` or ``ema``.
        container: Where in the file they were, e.g. ``['model']``; ``top level`` if bare.
        available: The variants the file has, of ``raw`` and ``ema``.
        source: The file, as the user named it.
        versions: Per submodule, what PyTorch stores so that modules can read older checkpoints.
        told: What stands beside the weights about the training: ``arch``, the network's name, and
            ``args``, the arguments of the training script, plain values only.
    """

    tensors: dict[str, torch.Tensor]
    which: str
    container: str
    available: tuple[str, ...]
    source: str = "checkpoint"
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LoadReport:
    """What became of the keys.

    Attributes:
        missing: Keys of the network that the checkpoint lacks (batch counters not counted).
        unexpected: Keys of the checkpoint, as stored, that the network lacks.
        loaded: Keys loaded.
        parameters: Parameters of the network, in single numbers.
        stripped: The prefix taken off the keys, e.g. ``module.``, or nothing.
        states: Keys of the checkpoint, as stored, that hold what neurons were left with by the
            last samples they saw: left out.
        renamed: Key of the checkpoint, as stored -> key of the network, where containers put
            ``module`` between or leave it out, as SpikingJelly's do by its version.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    loaded: int
    parameters: int
    stripped: str
    states: tuple[str, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)


# --- reading --------------------------------------------------------------------------------------


def read_weights(
    path: str | os.PathLike[str], which: str = "raw", trust_pickle: bool = False
) -> Weights:
    """The weights in a checkpoint file, finite and in float32.

    A state dict is looked for at the top level and under the usual keys (``state_dict``,
    ``model``, ...; for the moving average ``state_dict_ema``, ``model_ema``, ``ema``, ...).

    Args:
        path: A file written by ``torch.save``.
        which: ``raw`` for the trained weights, ``ema`` for their moving average.
        trust_pickle: Let the file run code, as whole pickled modules need.

    Raises:
        BadInputError: No readable checkpoint, no such weights in it, it wants to run code, or a
            tensor is NaN, infinite or not a plain array.
        UsageError: ``which`` is neither ``raw`` nor ``ema``.
    """
    if which not in ("raw", "ema"):
        raise UsageError(Words(Option("weights", which), ": choose raw or ema"))
    source = Path(path)
    content = load_content(source, trust_pickle)
    found = {"raw": _find(content, _RAW), "ema": _find(content, _EMA)}
    available = tuple(name for name, place in found.items() if place is not None)
    place = found[which]
    if place is None:
        raise BadInputError(Words(f"{source}: ", _what_is_there(content, which, available)))
    container, state = place
    tensors = _clean(source, state)
    place_name = container or "top level"
    told = _told(content)
    return Weights(tensors, which, place_name, available, str(source), _versions(state), told)


def _told(content: Any) -> dict[str, Any]:
    """What a checkpoint says about its training, as far as it is plain."""
    if not isinstance(content, Mapping):
        return {}
    arch, arguments = content.get("arch"), content.get("args")
    if isinstance(arguments, argparse.Namespace):
        arguments = vars(arguments)
    plain = {}
    if isinstance(arguments, Mapping):
        plain = {key: value for key, value in arguments.items() if _is_plain(value)}
    return {"arch": arch if _is_plain(arch) and isinstance(arch, str) else "", "args": plain}


def _is_plain(value: Any) -> bool:
    """Whether it is a number or word of ordinary size, or a short list of such."""
    if isinstance(value, (list, tuple)):
        return len(value) <= _MOST_VALUES and all(map(_is_single, value))
    return _is_single(value)


def _is_single(value: Any) -> bool:
    if type(value) is str:
        return len(value) <= _MOST_VALUES and value.isprintable()
    return type(value) in (bool, float) or (type(value) is int and abs(value) < 2**63)


_Place = tuple[str, Mapping[str, Any]]  # path of the keys, e.g. "['ema']['module']"; state dict


def _find(value: Any, keys: tuple[str, ...], depth: int = 0) -> _Place | None:
    """A state dict in ``value`` itself or under one of ``keys``, raw ones below that."""
    if isinstance(value, nn.Module):
        value = value.state_dict()
    if _is_state(value):
        return ("", value) if keys is _RAW else None
    if not isinstance(value, Mapping) or depth > _MAX_NESTING:
        return None
    for key in keys:
        if key in value and (place := _find(value[key], _RAW, depth + 1)) is not None:
            return f"['{key}']{place[0]}", place[1]
    return None


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(key, str) for key in value)
        and all(isinstance(item, torch.Tensor) for item in value.values())
    )


def _what_is_there(content: Any, which: str, available: tuple[str, ...]) -> str:
    if available:
        other = Option("weights", available[0])
        return Words(f"no {which} weights; pass ", other, ", which the file has")
    if not isinstance(content, Mapping):
        return f"holds a {type(content).__name__}, no state dict; save net.state_dict()"
    held = ", ".join(f"{key} ({type(item).__name__})" for key, item in [*content.items()][:8])
    return f"no state dict in it; holds {held or 'nothing'}; expected one under {', '.join(_RAW)}"


def _clean(path: Path, state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    plain = {key: value for key, value in state.items() if not _is_odd(value)}
    require_bounded(path, {key: _plain_bytes(value) for key, value in plain.items()}, "its tensors")
    faults = [Fault(why, node=key) for key, value in state.items() if (why := _unfit(value))]
    if faults:
        message = f"{path}: {len(faults)} of {len(state)} tensors cannot be used"
        raise BadInputError(f"{message}; train again or take another checkpoint", faults)
    return {key: _as_plain(value) for key, value in state.items()}


def _unfit(value: torch.Tensor) -> str:
    """Why a tensor cannot be a weight, or nothing."""
    if _is_odd(value):
        return f"{value.dtype}, {value.layout}, on {value.device}: not a plain array of numbers"
    plain = _as_plain(value)
    if plain.is_floating_point() and (bad := int((~torch.isfinite(plain)).sum())):
        return f"{bad} of {value.numel()} values are NaN or infinite (as float32)"
    return ""


def _is_odd(value: torch.Tensor) -> bool:
    """Whether it is no array of plain numbers."""
    is_odd = value.is_meta or value.is_quantized or value.is_complex() or value.is_nested
    return is_odd or value.layout != torch.strided


def _plain_bytes(value: torch.Tensor) -> int:
    """What ``_as_plain`` takes, each element for itself."""
    return value.numel() * (4 if value.is_floating_point() else value.element_size())


def _as_plain(value: torch.Tensor) -> torch.Tensor:
    value = value.detach()
    return value.to(torch.float32) if value.is_floating_point() else value


def _versions(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    stored = getattr(state, "_metadata", None)
    if not isinstance(stored, Mapping):
        return {}
    return {str(key): dict(value) for key, value in stored.items() if isinstance(value, Mapping)}


# --- loading --------------------------------------------------------------------------------------


def load_weights(
    module: nn.Module,
    weights: Weights,
    allow_missing: bool = False,
    allow_unexpected: bool = False,
) -> LoadReport:
    """The module holds the weights; every key is accounted for.

    A prefix (``module.``, ``model.``, ``_orig_mod.``, ``backbone.``, or several) is taken off the
    keys only when more of them then match; keys that differ from the network's by a ``module``
    between their parts, as containers of SpikingJelly make them, are renamed. Missing batch
    counters are no fault, and the state of neurons, which has the batch of some earlier run in it,
    is left out. After an error the module is not to be used.

    Args:
        module: As constructed; changed in place.
        weights: From ``read_weights``.
        allow_missing: Leave missing keys as constructed and only report them.
        allow_unexpected: Leave out unexpected keys and only report them.

    Raises:
        BadInputError: With all the faults: missing, unexpected, of another shape or dtype.
    """
    expected = module.state_dict()
    stripped = choose_prefix(weights.tensors, expected)
    bare = {key: key.removeprefix(stripped) for key in weights.tensors}
    new_names = renames([*bare.values()], expected)
    stored = {new_names.get(key, key): name for name, key in bare.items()}
    states = [key for key in stored if _holds_state(module, key)]
    tensors = {key: weights.tensors[name] for key, name in stored.items() if key not in states}
    misfits = _misfits(tensors, expected)
    fitting = {key: tensor for key, tensor in tensors.items() if key not in misfits}
    versions = versions_of(weights.versions, stripped, new_names)
    absent, unexpected = _load_state(module, fitting, versions)
    known = {*misfits, *states}
    missing = [key for key in absent if key not in known and not key.endswith(_COUNTER)]
    faults = [*misfits.values()]
    if not allow_missing:
        faults += _describe("missing", missing, expected, unexpected, tensors)
    if not allow_unexpected:
        faults += _describe("unexpected", unexpected, tensors, missing, expected)
    _require_none(faults, weights)
    return LoadReport(
        missing=tuple(missing),
        unexpected=tuple(stored.get(key, key) for key in unexpected),
        loaded=len(fitting) - len(unexpected),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        stripped=stripped,
        states=tuple(stored[key] for key in states),
        renamed={stored[key]: key for key in new_names.values()},
    )


def _holds_state(module: nn.Module, key: str) -> bool:
    """Whether a key is the state of a neuron, which running makes anew, and no weight.

    Never a parameter: only what the freshly built network has as a buffer. Of these, what it does
    not save, so that it makes that itself; all of a class that has states only, which may have been
    run as it was made; and what holds nothing yet, under a name that libraries give to states. A
    weight has its place from the start.
    """
    path, _, name = key.rpartition(".")
    try:
        owner = module.get_submodule(path)
    except AttributeError:
        return False
    if name not in owner._buffers or name in owner._non_persistent_buffers_set:
        return name in owner._buffers
    fresh = owner._buffers[name]
    is_empty = fresh is None or (not is_lazy(fresh) and fresh.numel() == 0)
    return _is_stateful(owner) or (is_empty and name in _STATE_NAMES)


def _is_stateful(module: nn.Module) -> bool:
    bases = type(module).__mro__
    return any(f"{base.__module__}.{base.__qualname__}" in _STATEFUL for base in bases)


def _require_none(faults: list[Fault], weights: Weights) -> None:
    if faults:
        message = f"{weights.source}: {weights.which} weights at {weights.container} do not fit"
        told = f"{message}, faults: {len(faults)}; "
        raise BadInputError(Words(told, _advice(faults)), faults)


def _advice(faults: list[Fault]) -> str:
    if any(fault.what != "unexpected" for fault in faults):
        return Words("check ", Option("arch"), ", ", Option("arch_args"))
    allow = Option("allow_unexpected", True)
    return Words("check ", Option("arch"), ", or leave them out with ", allow)


def _misfits(tensors: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, Fault]:
    reasons = {key: _misfit(tensors[key], expected[key]) for key in tensors if key in expected}
    return {key: Fault(why, node=key) for key, why in reasons.items() if why}


def _misfit(tensor: torch.Tensor, expected: Any) -> str:
    """Why a tensor cannot be loaded into another, or nothing."""
    if not isinstance(expected, torch.Tensor) or is_lazy(expected):
        return ""  # takes its shape from the checkpoint
    if expected.is_meta:
        return "the network's own tensor is on the meta device; construct it on the CPU"
    if tensor.shape != expected.shape:
        return f"shape {list(tensor.shape)}, the network has {list(expected.shape)}"
    both_float = tensor.is_floating_point() and expected.is_floating_point()
    if not both_float and not torch.equal(tensor.to(expected.dtype).to(tensor.dtype), tensor):
        return f"{tensor.dtype} values that {expected.dtype} of the network cannot hold"
    return ""


def _load_state(
    module: nn.Module,
    tensors: dict[str, torch.Tensor],
    versions: Mapping[str, dict[str, Any]],
) -> tuple[list[str], list[str]]:
    """Load through the module's own hooks, so that it may translate older keys."""
    state = OrderedDict(tensors)
    state._metadata = versions  # type: ignore[attr-defined]
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except Exception as error:  # hooks are the user's code
        told = f"the network refuses its weights ({error}); check "
        raise BadInputError(Words(told, Option("arch"))) from error
    return list(missing), list(unexpected)


def _nearest(key: str, names: list[str], of: Mapping[str, Any], shape: Any) -> list[str]:
    """The name most like ``key`` among those whose tensor has the shape, if any is like it."""
    same = [name for name in names if getattr(of.get(name), "shape", None) == shape]
    return difflib.get_close_matches(key, same, n=1)


def _describe(
    what: str,
    keys: list[str],
    own: Mapping[str, Any],
    others: list[str],
    theirs: Mapping[str, Any],
) -> list[Fault]:
    """A fault per key, naming the one of the ``others`` that is its nearest of the same shape.

    Only if it is that one's nearest, too: renaming by a wrong hint would swap weights.
    """
    faults = []
    for place, key in enumerate(keys):
        shape = getattr(own.get(key), "shape", None)
        near = _nearest(key, others, theirs, shape) if place < _MAX_HINTS else []
        if near and _nearest(near[0], keys, own, shape) != [key]:
            near = []
        holder = "checkpoint" if what == "missing" else "network"
        todo = f"the {holder} has '{near[0]}' of the same shape" if near else ""
        faults.append(Fault(what, node=key, todo=todo))
    return faults
