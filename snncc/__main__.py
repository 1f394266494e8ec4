"""``python -m snncc`` and the ``snncc`` command."""

from __future__ import annotations

import sys

from snncc.system.process import Ended, end_in_order, end_now, final_code, replace_streams

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code."""
    out = replace_streams()
    try:
        code = final_code(_command(), out)
    except Ended as e:  # before there was a command, or when it was done
        code = 128 + e.number
    end_now()
    sys.exit(code)


def _command() -> int:
    """The exit code of the command."""
    end_in_order()
    from snncc.cli import cli

    try:
        cli()
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else 0
    return 0


if __name__ == "__main__":
    main()
