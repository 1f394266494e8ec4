"""Options that several commands have, in the same words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = ["PATH", "data_option", "file_argument", "json_option", "limit_option"]

#: A path as it is given; whether it can be read or written is said by who does it.
PATH = click.Path(path_type=Path, readable=False)

_Command = TypeVar("_Command", bound=Callable[..., Any])


def file_argument(command: _Command) -> _Command:
    """A command that reads a compiled network, ``file``."""
    return click.argument("file", metavar="FILE.snn", type=PATH)(command)


def data_option(text: str, required: bool = False) -> Callable[[_Command], _Command]:
    """``--input DATA``, as ``data``; ``text`` says what it is for."""
    return click.option(
        "--input",
        "data",
        type=PATH,
        metavar="DATA",
        required=required,
        help=text,
    )


def limit_option(command: _Command) -> _Command:
    """A command that may read fewer samples, ``limit``."""
    text = "Only the first N samples."
    return click.option("--limit", type=click.IntRange(min=1), metavar="N", help=text)(command)


def json_option(command: _Command) -> _Command:
    """A command that can also answer in JSON, ``as_json``."""
    text = "One JSON document on stdout."
    return click.option("--json", "as_json", is_flag=True, help=text)(command)
