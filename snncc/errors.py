"""What can go wrong, as a small tree of exceptions; each knows its exit code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "BadInputError",
    "Fault",
    "MissingDependencyError",
    "Option",
    "SnnccError",
    "TargetError",
    "UnsupportedModelError",
    "UsageError",
    "VerificationError",
    "Words",
]


@dataclass(frozen=True)
class Option:
    """An option that a message names; as text it is spelled as in a Python call.

    The command line spells it as its flag: ``weight_bits=3`` is ``--weight-bits 3`` there.

    Attributes:
        name: Of the parameter, ``weight_bits``, or of a field of one, ``input.mode``.
        value: What is given, or what would help; None: the option as such is meant.
        like: What a value looks like, ``C,H,W``, where none is meant.
    """

    name: str
    value: Any = None
    like: str = ""

    def __str__(self) -> str:
        if self.like:
            like = self.like.replace(",", ", ")
            return f"{self.name}={f'({like})' if ',' in like else like}"
        if self.value is None:
            return self.name
        value = str(self.value) if isinstance(self.value, Path) else self.value
        return f"{self.name}={value!r}"


class Words(str):
    """Text that names options: as it stands in Python's spelling, and ``spelled`` in any other.

    Args:
        *pieces: The text and its options, in order.
    """

    pieces: tuple[str | Option, ...]

    def __new__(cls, *pieces: str | Option) -> Words:
        """The text of the pieces."""
        made = super().__new__(cls, "".join(map(str, pieces)))
        inner = (p.pieces if isinstance(p, Words) else (p,) for p in pieces)
        made.pieces = tuple(piece for some in inner for piece in some)
        return made

    def spelled(self, spell: Callable[[Option], str]) -> str:
        """The text with every option as ``spell`` writes it."""
        return "".join(spell(p) if isinstance(p, Option) else p for p in self.pieces)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: what, where, and what to do about it.

    Attributes:
        what: The fact, e.g. ``real-valued activation, no levels``.
        node: Name of the graph node, if there is one.
        kind: Operator or module type, e.g. ``Gelu``; faults are counted by it.
        module: Torch module path, e.g. ``blocks.0.mlp.act``.
        source: ``file:line`` in the user's code.
        todo: What the user can do; ``what`` and ``todo`` are ``Words`` where they name options.
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
        message: One line: what is wrong; ``Words`` where it names options.
        faults: All the places, collected before raising.
    """

    exit_code = 1

    def __init__(self, message: str, faults: tuple[Fault, ...] | list[Fault] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.faults = tuple(faults)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  {fault}" for fault in self.faults)])

    def within(self, before: str = "", after: str = "") -> SnnccError:
        """An error of the same kind, whose message says more, ``before`` and ``after`` its own."""
        return type(self)(Words(before, self.message, after), self.faults)


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
