"""``python -m snncc`` and the ``snncc`` command."""

from __future__ import annotations

import sys
from io import TextIOWrapper

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code."""
    from snncc.cli import cli

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # an ASCII terminal is no reason to fail
    cli()


if __name__ == "__main__":
    main()
