"""The files of a network: what it is made of, and what it writes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Entry", "Graph", "Results", "require_file", "save"]

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Graph:
    """graph.json and tensors.npz.

    Attributes:
        description: What graph.json holds.
        tensors: By the names that its entries use.
    """

    description: Mapping[str, Any]
    tensors: Mapping[str, Any]

    @staticmethod
    def load(directory: Path) -> Graph:
        """From an emitted directory."""
        text = (directory / "graph.json").read_text(encoding="utf-8")
        with np.load(directory / "tensors.npz") as tensors:
            return Graph(json.loads(text), dict(tensors))

    @property
    def entries(self) -> list[Entry]:
        """One for each process; each comes after those that it reads."""
        return list(self.description["processes"])

    def ticks(self, samples: int) -> int:
        """That so many samples take; they follow each other without a gap."""
        frames = samples * int(self.description["timesteps"])
        return (frames - 1) * int(self.description["frame"]) + int(self.description["latency"])


@dataclass
class Results:
    """Files, mapped into memory, that the read-outs write to.

    Attributes:
        folder: Where they are.
        samples: N.
        timesteps: T.
        trains: Whether to keep spike trains.
        arrays: ``counts/NAME`` and ``readout/NAME`` (T, N, *shape), ``tick_spikes/NAME`` (T, D),
            ``trains/NAME`` (T, D, N, *shape); shapes are (C, H, W) or (F,).
    """

    folder: Path
    samples: int
    timesteps: int
    trains: bool = False
    arrays: dict[str, Any] = field(default_factory=dict)

    def paths(self, entry: Entry) -> dict[str, str]:
        """Makes the files of a read-out; their paths by the names of its arguments."""
        name, is_count = entry["of"], entry["writes"] == "counts"
        T, burst, sample = self.timesteps, entry["burst"], (self.samples, *entry["result_shape"])
        if not is_count:
            return {"sums": self._file(f"readout/{name}", np.int64, T, *sample)}
        made = {
            "sums": self._file(f"counts/{name}", np.uint8, T, *sample),
            "ticks": self._file(f"tick_spikes/{name}", np.int64, T, burst),
        }
        if self.trains:
            made["trains"] = self._file(f"trains/{name}", np.uint8, T, burst, *sample)
        return made

    def _file(self, key: str, dtype: Any, *shape: int) -> str:
        path = self.folder / f"{len(self.arrays)}.npy"
        self.arrays[key] = np.lib.format.open_memmap(path, "w+", dtype, shape)
        return str(path)


def require_file(path: Path) -> Path:
    """Where a file of this name is written: there, or where links lead.

    Raises:
        OSError: A folder, a device, a pipe or a socket is there, or a circle of links.
    """
    place = Path(os.path.realpath(path))
    if os.path.lexists(place) and not place.is_file():
        raise OSError(f"{path}: is no regular file, and is not replaced; name a file")
    return place


def save(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write a .npz file, whole or not at all.

    Raises:
        OSError: See ``require_file``; or it cannot be written.
    """
    place = require_file(path)
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        with open(part, "xb") as file:
            np.savez(file, **arrays)
        os.replace(part, place)
    finally:
        part.unlink(missing_ok=True)
