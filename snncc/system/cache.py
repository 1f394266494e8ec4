"""Where snncc keeps what it can make again, and whether that place is this user's alone.

What lies there is run and computed with, so nobody else may have put it there.
"""

from __future__ import annotations

import os
import re
import stat
from errno import EPERM
from pathlib import Path

__all__ = ["cache_folder", "own_cache", "why_not_own"]

_MOST_LINKS = 40
_OURS = re.compile(r"[0-9a-f]{64}|lava-.*|\..*\.(lock|part|old)")


def cache_folder() -> Path:
    """``$SNNCC_CACHE``, else ``$XDG_CACHE_HOME/snncc``, else ``~/.cache/snncc``; may not exist."""
    if own := os.environ.get("SNNCC_CACHE"):
        return Path(own).absolute()
    common = os.environ.get("XDG_CACHE_HOME")
    return ((Path(common) if common else Path("~/.cache").expanduser()) / "snncc").absolute()


def own_cache() -> Path:
    """The cache folder, which is there and this user's alone.

    One that we make has mode 0700. Of one that is there, others lose their rights if nothing is in
    it but what is ours: whatever else a user keeps there is no concern of the cache.

    Raises:
        OSError: It cannot be made; or see ``why_not_own``.
    """
    folder = cache_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    why = _why_foreign(folder)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if not why and mode & 0o077 and _is_ours(folder, is_safe=not mode & 0o022):
        folder.chmod(0o700)
        why = "" if _is_ours(folder, is_safe=not mode & 0o022) else "somebody has put things there"
    if why := why or why_not_own(folder):
        raise PermissionError(EPERM, why, str(folder))
    return folder


def why_not_own(folder: Path) -> str:
    """Why a cache folder is not used; nothing if it is this user's alone, or not there.

    It may be another user's, or others may write there, or another user's link leads there.
    """
    try:
        if why := _why_foreign(folder):
            return why
        is_open = os.path.lexists(folder) and stat.S_IMODE(folder.stat().st_mode) & 0o022
    except OSError as e:
        return f"it cannot be looked at ({e.strerror})"
    return "others may write there" if is_open else ""


def _why_foreign(folder: Path) -> str:
    """What is another user's there, in words; nothing if all of it is this user's, or not there."""
    owners = {0, os.geteuid()}  # whoever is root need not trick anybody
    place, rest, links = Path("/"), list(folder.parts[1:]), 0
    while rest:
        place /= rest.pop(0)
        if not place.is_symlink():
            continue
        links += 1
        if os.lstat(place).st_uid not in owners or links > _MOST_LINKS:
            return f"{place} is a link of another user"
        target = place.parent / os.readlink(place)
        place, rest = Path("/"), [*target.parts[1:], *rest]
    if not place.exists():
        return ""
    if not place.is_dir():
        return "it is no folder"
    return "" if place.stat().st_uid == os.geteuid() else "it belongs to another user"


def _is_ours(folder: Path, is_safe: bool) -> bool:
    """Whether nothing is there but what snncc has made; nothing at all, if others may write."""
    return all(is_safe and _OURS.fullmatch(entry.name) for entry in folder.iterdir())
