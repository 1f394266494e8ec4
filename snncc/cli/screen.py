"""How results look: labelled lines and tables, plain when piped, a little coloured on a terminal.

What is piped does not depend on the width of anything, so that it can be compared and searched.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from snncc.compiler.progress import Step

__all__ = [
    "Screen",
    "file_size",
    "human",
    "number",
    "percent",
    "plural",
    "printable",
    "progress_bar",
    "size",
    "spinner",
    "steps",
    "write_json",
]

_PIPE_WIDTH = 100_000
_LABEL = 11
_MIN_COLUMN = 20  # on a narrow terminal cells fold to this; what is narrower never folds
_GAP = " " * 4
_STYLES = {"warning": "bold yellow"}


class Screen:
    """Lines and tables on one stream.

    Args:
        to_stderr: Where; the stream is looked up when the screen is made.
    """

    def __init__(self, to_stderr: bool = False) -> None:
        self.stream: TextIO = sys.stderr if to_stderr else sys.stdout
        self.is_terminal = self.stream.isatty()
        self._console = _console(self.stream)

    def line(self, label: str, *pieces: str) -> None:
        """A label in the left column and what there is to say; empty pieces are left out."""
        rest = _GAP.join(printable(piece) for piece in pieces if piece)
        if not self.is_terminal:
            self._print((f"{label:<{_LABEL}}{rest}".rstrip(), ""))
            return
        from rich.table import Table

        grid = Table.grid()
        grid.add_column(style=_STYLES.get(label, "bold cyan"), min_width=_LABEL)
        grid.add_column()
        grid.add_row(_text(label), _text(rest))
        self._console.print(grid)

    def text(self, text: str, style: str = "") -> None:
        """Text as it is."""
        self._print((printable(text), style))

    def error(self, message: str) -> None:
        """``error: message``."""
        self._print(("error: ", "bold red"), (printable(message), ""))

    def table(
        self, head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()
    ) -> None:
        """Aligned columns under their headings; ``right`` are the columns of numbers."""
        from rich.table import Table

        cells = [[printable(cell) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
        table = Table(box=None, pad_edge=False, header_style="bold")
        for index, (heading, width) in enumerate(zip(head, widths, strict=True)):
            table.add_column(
                heading,
                justify="right" if index in right else "left",
                min_width=min(width, _MIN_COLUMN),
                overflow="fold",
            )
        for row in cells:
            table.add_row(*map(_text, row))
        needed = sum(min(width, _MIN_COLUMN) + 2 for width in widths)
        console = _console(self.stream, max(self._console.width, needed))
        if self.is_terminal:
            console.print(table)
            return
        with console.capture() as captured:
            console.print(table)
        lines = captured.get().splitlines()
        self.stream.write("".join(f"{line.rstrip()}\n" for line in lines))

    def _print(self, *parts: tuple[str, str]) -> None:
        from rich.text import Text

        self._console.print(Text.assemble(*parts), soft_wrap=True)


def _console(stream: TextIO, width: int | None = None) -> Console:
    from rich.console import Console

    is_terminal = stream.isatty()
    return Console(
        file=stream,
        width=width if is_terminal else _PIPE_WIDTH,
        force_terminal=is_terminal,
        highlight=False,
        markup=False,
        emoji=False,
    )


def _text(cell: str) -> Text:
    from rich.text import Text

    return Text(cell)


def printable(text: str) -> str:
    """The text without control characters: names in a file must not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def write_json(data: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(_plain(data), indent=1, allow_nan=False, ensure_ascii=False))


def _plain(value: Any) -> Any:
    """Numpy values as Python's; what is not finite becomes null, as JSON has no word for it."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# -- progress ------------------------------------------------------------------------------


@contextmanager
def spinner() -> Iterator[Callable[[str], None]]:
    """A function to name the step at work; seen only if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with _console(sys.stderr).status("…") as status:
        yield status.update


@contextmanager
def steps(quiet: bool = False) -> Iterator[Callable[[Step], None]]:
    """A function to tell which step is at work; seen only if stderr is a terminal, and then gone.

    Args:
        quiet: Show nothing there either.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=_console(sys.stderr), transient=True) as progress:
        task = progress.add_task("…", total=None)
        yield lambda step: progress.update(
            task, description=_step_text(step), total=step.of or None, completed=_completed(step)
        )


def _step_text(step: Step) -> str:
    """``7/24 fold-scale``, ``23/24 verify 5/12``."""
    number = f"{step.number}/{step.of} " if step.of else ""
    return f"{number}{step.name}" + (f" {step.done:,}/{step.parts:,}" if step.parts else "")


def _completed(step: Step) -> float:
    """Steps that are done, and the part of the one at work."""
    return step.number - 1 + (step.done / step.parts if step.parts else 0)


@contextmanager
def progress_bar(what: str, total: int, before: int = 0) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of samples just done; seen only on a terminal.

    Args:
        what: Is done.
        total: Samples in all.
        before: Of them an earlier run has done.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import Progress

    with Progress(console=_console(sys.stderr), transient=True) as progress:
        task = progress.add_task(what, total=total, completed=before)
        yield lambda done: progress.advance(task, done)


# -- words ---------------------------------------------------------------------------------


def percent(share: float | None) -> str:
    """A share in percent; only 0 and 1 are written ``0 %`` and ``100 %``."""
    if share is None:
        return "not measured"
    if share in (0, 1):
        return f"{share:.0%}".replace("%", " %")
    distance = 100 * min(share, 1 - share)
    decimals = max(1, -math.floor(math.log10(distance)))
    return f"{100 * share:.{decimals}f} %"


def number(value: float) -> str:
    """An integer with thousands separated, a real number with four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def human(value: float) -> str:
    """A large count in three digits: ``1.20 M``."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.3g}"


def plural(count: int, noun: str) -> str:
    """``1 sample``, ``2 samples``; the plural may be given as ``batch|batches``."""
    one, _, many = noun.partition("|")
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def size(shape: Sequence[int]) -> str:
    """A shape as ``1x28x28``."""
    return "x".join(str(n) for n in shape)


def file_size(count: int) -> str:
    """Bytes as ``412 kB``."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1e3:.0f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"
