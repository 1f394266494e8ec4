"""How objects show themselves: a title and a short table, as text and in notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Summary"]

#: Rows of a table that are shown, so that a text has 20 lines at most.
_MOST = 16


@dataclass(frozen=True)
class Summary:
    """What is shown of an object.

    Attributes:
        title: One line.
        head: Of the columns.
        rows: Of the table; the first ones are shown.
    """

    title: str
    head: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = ()

    def text(self) -> str:
        """At most 20 lines."""
        lines = [self.title]
        if self.rows:
            table = [self.head, *self.rows[:_MOST]]
            widths = [max(map(len, column)) for column in zip(*table, strict=True)]
            lines += [_line(row, widths) for row in table]
        return "\n".join([*lines, *self._more()])

    def html(self) -> str:
        """A table; names are escaped, whatever they hold."""
        head = "".join(f"<th>{escape(cell)}</th>" for cell in self.head)
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows[:_MOST]
        )
        table = f"<table><tr>{head}</tr>{rows}</table>" if self.rows else ""
        more = "".join(f"<p>{escape(line)}</p>" for line in self._more())
        return f"<div><p><b>{escape(self.title)}</b></p>{table}{more}</div>"

    def _more(self) -> list[str]:
        left = len(self.rows) - _MOST
        return [f"and {left:,} more"] if left > 0 else []


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    """The first column is of words, the others are of numbers."""
    first = f"{row[0]:<{widths[0]}}"
    cells = (f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
    return "  ".join([first, *cells]).rstrip()
