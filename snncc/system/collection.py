"""Searches for garbage while graphs are built.

Python looks for objects that only refer to each other after every 700 new ones, and again and again
through all that live on. An export makes millions of small objects that live on; looking through
them took a third of its time.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["seldom_collected"]

#: New objects after which the youngest are looked through; how many such searches make a larger.
_SELDOM = (1_000_000, 10, 10)
_lock = threading.Lock()
_before: list[tuple[int, int, int]] = []


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Within this context garbage is looked for a thousand times less often.

    As often as before once the last of such contexts has ended, of all threads; never where the
    caller has turned it off.
    """
    with _lock:
        _before.append(gc.get_threshold())
        if _before[0][0]:
            gc.set_threshold(*_SELDOM)
    try:
        yield
    finally:
        with _lock:
            first = _before[0]
            _before.pop()
            if not _before:
                gc.set_threshold(*first)
