"""A module that is as it was before, whatever import did with it."""

from __future__ import annotations

import random
import sys
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from snncc.frontends.node_backends import on_torch

__all__ = ["untouched"]

#: So many objects, and bytes of arrays, are kept at most; those that modules hold themselves first.
_MOST_OBJECTS, _MOST_BYTES = 1_000_000, 1 << 32
#: Objects of these packages hold what is not the network's own; of Python's likewise.
_LIBRARIES = {"torch", "numpy", "onnx", "onnx_ir", "onnxruntime", "onnxscript"}
_NAMESPACES = (Namespace, SimpleNamespace)
_ATOMS = (type(None), bool, int, float, complex, str, bytes, type)

_Undo = Callable[[], None]


@contextmanager
def untouched(module: torch.nn.Module) -> Iterator[None]:
    """Within this context the module is in eval mode; after it, also after an error, as before.

    Its nodes of SpikingJelly run on PyTorch, whatever backend they were built for.

    What comes back: training flags, buffers and other tensors that modules hold (membranes), their
    attributes, hooks and replaced methods, and all that is in these: containers in containers,
    tensors, NumPy arrays, generators of random numbers, objects of the author's classes. Parameters
    are not copied: import reads them only. Gradients are off, and the random numbers drawn within,
    PyTorch's, NumPy's and Python's, are drawn again after it. What ``compile()`` of a module made
    is not used within.
    """
    kin = [_kin(part) for part in module.modules()]
    kept = _kept([*module.modules(), *(other for others in kin for other in others)])
    drawn, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002 (authors draw there)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            module.eval()
            on_torch(module)
            for part in module.modules():  # also where the author's train() keeps some in training
                part.training = False
                if part._compiled_call_impl is not None:
                    part._compiled_call_impl = None
            yield
    finally:
        for undo in kept:
            undo()
        random.setstate(drawn)
        np.random.set_state(numpys)  # noqa: NPY002


def _kin(module: torch.nn.Module) -> list[Any]:
    """What a reset of the module's class reaches as well: snnTorch lists all its neurons."""
    return [*getattr(type(module), "instances", ())]


def _kept(roots: Iterable[Any]) -> list[_Undo]:
    """What puts everything back that is reached from some objects, nearest first."""
    found: list[_Undo] = []
    seen: dict[int, Any] = {}  # holds them, so that no other object gets their id
    waiting, room = deque(roots), _MOST_BYTES
    while waiting and len(seen) < _MOST_OBJECTS:
        value = waiting.popleft()
        if isinstance(value, _ATOMS) or id(value) in seen:
            continue
        seen[id(value)] = value
        size = _size(value)
        if size > room:
            continue
        undo, inside = _held(value)
        if undo is not None:
            found.append(undo)
            room -= size
        waiting.extend(inside)
    return found


def _size(value: Any) -> int:
    """Bytes of an array."""
    if isinstance(value, torch.Tensor):
        return 0 if isinstance(value, torch.nn.Parameter) else value.numel() * value.element_size()
    return value.nbytes if isinstance(value, np.ndarray) else 0


def _held(value: Any) -> tuple[_Undo | None, Iterable[Any]]:
    """What puts one object back, if anything can, and what it holds."""
    if isinstance(value, torch.Tensor):
        return _tensor(value), ()
    if isinstance(value, np.ndarray):
        return _array(value), value.ravel().tolist() if value.dtype.hasobject else ()
    if isinstance(value, dict):
        held = dict(value)
        return partial(_refill, value, held), held.values()
    if isinstance(value, (list, deque, set)):
        copied = list(value)
        return partial(_refill, value, copied), copied
    if isinstance(value, tuple):
        return None, value
    if (undo := _generator(value)) is not None:
        return undo, ()
    if _is_the_authors(value):
        attributes = dict(value.__dict__)
        return partial(_refill, value.__dict__, attributes), attributes.values()
    return None, ()


def _is_the_authors(value: Any) -> bool:
    """Whether an object is a module, or of a class that no library defines."""
    if not isinstance(getattr(value, "__dict__", None), dict):
        return False
    origin = type(value).__module__.partition(".")[0]
    own = origin not in sys.stdlib_module_names and origin not in _LIBRARIES
    return own or isinstance(value, (torch.nn.Module, *_NAMESPACES))


def _tensor(tensor: torch.Tensor) -> _Undo | None:
    strided = tensor.layout == torch.strided and not tensor.is_meta
    if isinstance(tensor, torch.nn.Parameter) or not strided:
        return None
    return partial(_put_tensor, tensor, tensor.detach().clone())


def _put_tensor(tensor: torch.Tensor, value: torch.Tensor) -> None:
    if tensor.shape != value.shape:
        tensor.data = value
    elif not torch.equal(tensor, value):
        tensor.data.copy_(value)


def _array(array: np.ndarray[Any, Any]) -> _Undo | None:
    return partial(np.copyto, array, array.copy()) if array.flags.writeable else None


def _generator(value: Any) -> _Undo | None:
    """What puts a generator of random numbers back."""
    if isinstance(value, random.Random):
        return partial(value.setstate, value.getstate())
    if isinstance(value, np.random.Generator):
        return partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return partial(value.set_state, value.get_state())
    if isinstance(value, torch.Generator):
        state = value.get_state()
        return partial(_put_state, value, state)
    return None


def _put_state(generator: torch.Generator, state: torch.Tensor) -> None:
    generator.set_state(state)


def _refill(container: Any, held: Any) -> None:
    """Put into a container what it held, in its order, unless that is what it holds."""
    if _items(container) == _items(held):
        return
    container.clear()
    if isinstance(container, (dict, set)):
        container.update(held)
    else:
        container.extend(held)


def _items(container: Any) -> list[Any]:
    """What a container holds, by identity."""
    if isinstance(container, dict):
        return [(id(key), id(value)) for key, value in container.items()]
    return [id(value) for value in container]
