"""What can go wrong, as a small tree of exceptions; each knows its exit code."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "BadInputError",
    "Fault",
    "MissingDependencyError",
    "SnnccError",
    "TargetError",
    "UnsupportedModelError",
    "UsageError",
    "VerificationError",
]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: what, where, and what to do about it.

    Attributes:
        what: The fact, e.g. ``real-valued activation, no levels``.
        node: Name of the graph node, if there is one.
        kind: Operator or module type, e.g. ``Gelu``; faults are counted by it.
        module: Torch module path, e.g. ``blocks.0.mlp.act``.
        source: ``file:line`` in the user's code.
        todo: What the user can do.
    """

    what: str
    node: str = ""
    kind: str = ""
    module: str = ""
    source: str = ""
    todo: str = ""

    @property
    def where(self) -> str:
        """Module path (or node name) and source line, as far as they are known."""
        name = self.module or self.node
        return "  ".join(part for part in (name, self.source) if part)

    def __str__(self) -> str:
        head = f"{self.where} ({self.kind})" if self.kind else self.where
        text = f"{head.strip()}: {self.what}" if head.strip() else self.what
        return f"{text}; {self.todo}" if self.todo else text


class SnnccError(Exception):
    """Base of all errors a user can meet; ``exit_code`` is the CLI's.

    Args:
        message: One line: what is wrong.
        faults: All the places, collected before raising.
    """

    exit_code = 1

    def __init__(self, message: str, faults: tuple[Fault, ...] | list[Fault] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.faults = tuple(faults)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  {fault}" for fault in self.faults)])


class UsageError(SnnccError):
    """The command line or the call does not make sense."""

    exit_code = 2


class UnsupportedModelError(SnnccError):
    """The network has parts that cannot become spikes."""

    exit_code = 3


class TargetError(SnnccError):
    """The compiled network does not fit the target."""

    exit_code = 4


class VerificationError(SnnccError):
    """Two engines disagree, or a pass changed the meaning of the graph."""

    exit_code = 5


class BadInputError(SnnccError):
    """A file, checkpoint or array is not what it should be."""

    exit_code = 6


class MissingDependencyError(SnnccError):
    """An optional package is needed and absent; the message says how to install it."""

    exit_code = 7
