"""Where snncc keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """``$SNNCC_CACHE``, else ``$XDG_CACHE_HOME/snncc``, else ``~/.cache/snncc``; may not exist."""
    if own := os.environ.get("SNNCC_CACHE"):
        return Path(own).absolute()
    common = os.environ.get("XDG_CACHE_HOME")
    return (Path(common) if common else Path("~/.cache").expanduser()) / "snncc"
