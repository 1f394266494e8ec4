"""What a process of an emitted network says of itself, so that the network can be made of it."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from inspect import signature
from typing import Any, ClassVar

from lava.magma.core.process.ports.ports import InPort
from lava.magma.core.process.process import AbstractProcess

__all__ = ["EmittedProcess", "as_tuples", "own_processes"]


class EmittedProcess(AbstractProcess):
    """A process that an entry of graph.json describes; ``process`` is the name of its class.

    It sends from one port. Its constructor takes, all of them by name, fields of its entry, and
    what the whole network has.

    Attributes:
        tensors: Those of its parameters that are arrays: their fields name them.
        arrivals: Names of the ports at which the inputs of its entry arrive, each at its own; none
            where all that arrives is summed up at its only port.
    """

    tensors: ClassVar[tuple[str, ...]] = ()
    arrivals: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def made(cls, given: Mapping[str, Any], tensors: Mapping[str, Any]) -> EmittedProcess:
        """The process of an entry.

        Args:
            given: The entry, and what the whole network has.
            tensors: Arrays by name.

        Raises:
            TypeError: Something that it takes is not given.
        """

        def value(key: str) -> Any:
            return tensors[given[key]] if key in cls.tensors else as_tuples(given[key])

        taken = [key for key in signature(cls.__init__).parameters if key in given]
        return cls(**{key: value(key) for key in taken})

    def ports(self, count: int) -> list[InPort]:
        """Where so many inputs arrive, in the order of the entry."""
        if self.arrivals:
            return [getattr(self, name) for name in self.arrivals]
        return list(self.in_ports) * count


def as_tuples(given: Any) -> Any:
    """Lists of a JSON file as tuples, in any depth."""
    return tuple(map(as_tuples, given)) if isinstance(given, list) else given


def own_processes() -> dict[str, type[EmittedProcess]]:
    """The processes of this package by name: whatever there is in its modules."""
    package = import_module(__name__.rpartition(".")[0])
    modules = [
        import_module(found.name)
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    ]
    return {
        name: kind
        for module in modules
        for name, kind in vars(module).items()
        if isinstance(kind, type)
        and issubclass(kind, EmittedProcess)
        and kind.__module__ == module.__name__
    }
