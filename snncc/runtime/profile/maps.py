"""Spike counts of a few samples, kept whole, to be looked at."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import numpy as np
import numpy.typing as npt

from snncc.backends.base import Activity
from snncc.program import Program

__all__ = ["Maps"]

Array = npt.NDArray[Any]


class Maps:
    """The first samples of a run.

    Args:
        program: What runs.
        wanted: How many samples to keep.
    """

    def __init__(self, program: Program, wanted: int) -> None:
        self.program, self.wanted = program, wanted
        self._samples: list[dict[str, Any]] = []

    def add(self, activity: Activity, x: Array) -> None:
        """Take in the next samples, as ``Counted.add`` does."""
        is_sequence = x.ndim > len(self.program.source.shape) + 1
        frames = x if is_sequence else x[np.newaxis]
        for n in range(min(activity.samples, self.wanted - len(self._samples))):
            counts = {name: _map(c[:, n]) for name, c in activity.counts.items()}
            index = len(self._samples)
            self._samples.append({"index": index, "input": _map(frames[:, n]), "counts": counts})

    def to_json(self) -> dict[str, Any] | None:
        """Plain data; None of no samples."""
        return {"samples": self._samples} if self._samples else None


def _map(values: Array) -> dict[str, Any]:
    """Bytes (T, *shape) as text."""
    data = np.ascontiguousarray(values, dtype=np.uint8).tobytes()
    return {"shape": list(values.shape), "data": b64encode(data).decode("ascii")}
