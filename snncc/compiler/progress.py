"""Which step of a compilation is running, and how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

__all__ = ["Step", "Steps", "Tell"]


@dataclass(frozen=True)
class Step:
    """What is running; its text is its name.

    Attributes:
        name: Of the step, or of the pass.
        number: Of the step, from 1.
        of: How many steps there are; 0: not known yet.
        done: Parts of the step that are done.
        parts: How many there are; 0: they are not counted.
    """

    name: str
    number: int = 1
    of: int = 0
    done: int = 0
    parts: int = 0

    def __str__(self) -> str:
        return self.name


Tell = Callable[[Step], None]


class Steps:
    """Tells every step as it begins, and again with each part that is done.

    Args:
        tell: Is told.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._now = Step("", 0)

    def plan(self, more: int) -> None:
        """So many steps are to come."""
        self._now = replace(self._now, of=self._now.number + more)

    def begin(self, name: str, parts: int = 0) -> None:
        """The next step."""
        self._now = Step(name, self._now.number + 1, self._now.of, parts=parts)
        self._tell(self._now)

    def advance(self, count: int) -> None:
        """So many more parts of the step are done."""
        self._now = replace(self._now, done=self._now.done + count)
        self._tell(self._now)
