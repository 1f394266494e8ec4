"""``sys.path`` while a network's own code runs: its folder first, and whatever that code adds.

Files edit ``sys.path`` at their top so that constructors, and ``forward``, may import later on.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["lead", "restored_paths"]


@contextmanager
def restored_paths() -> Iterator[None]:
    """Whatever happens to ``sys.path`` in this context ends with it."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before


def lead(folder: Path) -> None:
    """``folder`` comes first in ``sys.path``; within ``restored_paths``."""
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()  # a module written a moment ago must be found
