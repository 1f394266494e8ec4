"""Constructors: from ``pkg.mod:fn`` or ``path/models.py:fn`` to a network without weights.

This runs the user's code; what it raises is reported with the user's own file and line.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from snncc.errors import BadInputError, Option, UsageError, Words
from snncc.frontends.import_paths import lead, restored_paths
from snncc.frontends.node_backends import any_backend

__all__ = ["build", "construct", "is_name", "load_constructor"]

_SNNCC = str(Path(__file__).parents[1])
_NOT_THE_USERS = (_SNNCC, *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")))


def load_constructor(spec: str) -> Callable[..., nn.Module]:
    """The function that ``spec`` names.

    A file is run anew under a module name of its own, which stays in ``sys.modules`` so that
    source lines can be found. While it runs, its folder (for ``pkg.mod``: the working folder)
    leads ``sys.path``, which is restored afterwards. What it imports from there stays imported, as
    always in Python; so of two files in different folders with siblings of the same name, the
    second sees the first's.

    Args:
        spec: ``pkg.mod:fn`` or ``path/models.py:fn``.

    Raises:
        UsageError: ``spec`` has another form.
        BadInputError: No such module, file or function, or the user's code raises.
    """
    with restored_paths():
        return _loaded(spec)


def _loaded(spec: str) -> Callable[..., nn.Module]:
    """See ``load_constructor``; ``sys.path`` stays as the code leaves it."""
    place, name = _parse(spec)
    module = _run_file(Path(place)) if _is_file(place) else _import_module(place)
    return _pick(module, name, place)


def build(spec: str, arch_args: Mapping[str, Any]) -> nn.Module:
    """The network that the constructor returns, in eval mode; ``sys.path`` is restored.

    What the file puts on ``sys.path`` holds while the constructor runs. A network whose ``forward``
    imports something needs it longer: see ``construct``.

    Args:
        spec: As in ``load_constructor``.
        arch_args: Keyword arguments of the constructor.

    Raises:
        UsageError: The arguments do not fit the constructor, or ``spec`` is malformed.
        BadInputError: The constructor cannot be loaded, raises, or returns no module.
    """
    with restored_paths():
        return construct(spec, arch_args)


def construct(spec: str, arch_args: Mapping[str, Any]) -> nn.Module:
    """As ``build``, and ``sys.path`` stays as the network's code left it, its folder in it.

    The caller restores it when ``forward`` runs no more: ``with restored_paths():`` around both.

    Args:
        spec: As in ``load_constructor``.
        arch_args: Keyword arguments of the constructor.

    Raises:
        UsageError: As ``build``.
        BadInputError: Likewise.
    """
    constructor = _loaded(spec)
    _check_arguments(spec, constructor, arch_args)
    with _running(Option("arch", spec)), any_backend():
        module = constructor(**arch_args)
    if not isinstance(module, nn.Module):
        kind = type(module).__name__
        told = f": returned a {kind}; it must return a torch.nn.Module"
        raise BadInputError(Words(Option("arch", spec), told))
    return module.eval()


def is_name(spec: str) -> bool:
    """Whether ``spec`` names a network of the zoo, and no constructor of the user's."""
    return ":" not in spec and not _is_file(spec)


def _parse(spec: str) -> tuple[str, str]:
    place, _, name = spec.rpartition(":")
    if not place or not name.isidentifier():
        told = ": expected pkg.mod:fn or path/models.py:fn"
        raise UsageError(Words(Option("arch", spec), told))
    return place, name


def _is_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place or "\\" in place


def _folder(place: str) -> Path:
    return Path(place).resolve().parent if _is_file(place) else Path.cwd()


def _check_arguments(
    spec: str, constructor: Callable[..., nn.Module], arch_args: Mapping[str, Any]
) -> None:
    try:
        signature = inspect.signature(constructor)
    except (TypeError, ValueError):  # builtins may have none; then the call itself decides
        return
    try:
        signature.bind(**arch_args)
    except TypeError as error:
        name = spec.rpartition(":")[2]
        told = f": {error}; its signature is {name}{signature}; give the arguments with "
        given = Option("arch_args", like="JSON")
        raise UsageError(Words(Option("arch", spec), told, given)) from error


def _run_file(path: Path) -> ModuleType:
    if not os.path.isfile(path):
        told = ": no such file; expected path/models.py:fn"
        raise BadInputError(Words(Option("arch", path), told))
    path = path.resolve()
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    name = f"snncc_arch_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        told = ": not a Python file; expected path/models.py:fn"
        raise BadInputError(Words(Option("arch", path), told))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    lead(_folder(str(path)))
    try:
        with _running(Option("arch", path)):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(name: str) -> ModuleType:
    lead(_folder(name))
    with _running(Option("arch", name)):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # the module is there, and imports something that is not
            told = f": no module named '{error.name}'; install it, or name the file: models.py:fn"
            raise BadInputError(Words(Option("arch", name), told)) from error


@contextmanager
def _running(what: Option) -> Iterator[None]:
    """What the user's code raises becomes a BadInputError with file and line."""
    try:
        yield
    except BadInputError:
        raise
    except (Exception, SystemExit) as error:
        place = _place(error)
        told = f": {type(error).__name__} at {place}: {error}; {_remedy(error)}"
        raise BadInputError(Words(what, told)) from error


#: Extensions that old networks import, by what they are needed for, which is nothing here.
_EXTENSIONS = {
    "_C_neuron": "an extension of old SpikingJelly for GPUs; take the nodes of the same names from "
    "spikingjelly.clock_driven.neuron, which PyTorch computes",
    "cupy": "for GPUs alone; leave the import out: PyTorch computes nodes with backend='cupy'",
}


def _remedy(error: BaseException) -> str:
    name = str(error.name).partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if name in _EXTENSIONS:
        return f"{name} is {_EXTENSIONS[name]}"
    return "it must run in plain Python first"


def _place(error: BaseException) -> str:
    """``file:line`` of the last frame in the user's code, else of the last of all."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if not frame.filename.startswith(("<", __file__))]
    own = [frame for frame in outside if not frame.filename.startswith(_NOT_THE_USERS)] or outside
    return f"{_short(own[-1].filename)}:{own[-1].lineno}" if own else "unknown place"


def _short(filename: str) -> str:
    """Relative to the working folder, if it lies below."""
    path = Path(filename)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _pick(module: ModuleType, name: str, place: str) -> Callable[..., nn.Module]:
    found = getattr(module, name, None)
    if found is None:
        told = f": no '{name}' in it; {_offer(module, name)}"
        raise BadInputError(Words(Option("arch", f"{place}:{name}"), told))
    if not callable(found):
        kind = type(found).__name__
        told = f": '{name}' is a {kind}, not a function; {_offer(module, name)}"
        raise BadInputError(Words(Option("arch", f"{place}:{name}"), told))
    constructor: Callable[..., nn.Module] = found
    return constructor


def _offer(module: ModuleType, name: str) -> str:
    names = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
    own = [key for key in names if getattr(module, key).__module__ == module.__name__]
    offered = own or names
    if not offered:
        return "it has no functions or classes"
    near = difflib.get_close_matches(name, offered, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}it has {', '.join(sorted(offered))}"
