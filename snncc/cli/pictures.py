"""Pictures that a command writes: what may be asked for, and how they get into a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from snncc.cli.files import check_output_file
from snncc.errors import UsageError

if TYPE_CHECKING:
    from snncc.runtime.plots import Picture
    from snncc.system.outputs import FileClaim

__all__ = ["check_picture", "write_picture"]

_KINDS = ("png", "svg", "pdf")


def check_picture(path: Path, option: str, force: bool) -> None:
    """Fail before the work if the picture could not be drawn or written.

    Raises:
        UsageError: The name does not say which kind of picture.
        BadInputError: See ``check_output_file``.
        MissingDependencyError: Without matplotlib.
    """
    if _kind(path) not in _KINDS:
        kinds = ", ".join(f".{kind}" for kind in _KINDS)
        raise UsageError(f"{option} {path}: pictures are {kinds}, by the end of the name")
    check_output_file(path, force)
    import snncc.runtime.plots  # noqa: F401  # which says what is missing


def write_picture(picture: Picture, path: Path, claim: FileClaim) -> None:
    """Write it, as the name says."""
    from snncc.runtime.plots import save_picture

    claim.write(lambda file: save_picture(picture, file, _kind(path)))


def _kind(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")
