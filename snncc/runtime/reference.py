"""Reference vectors: samples and what every population must do with them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from snncc.backends.base import Activity
from snncc.errors import BadInputError
from snncc.program import Program
from snncc.runtime.container import array_to_npy, npy_to_array, read_members, write_members
from snncc.runtime.result import Mismatch, mismatch

__all__ = ["LIMIT", "Digest", "Reference"]

Array = npt.NDArray[Any]

#: Above so many bytes of spike counts, digests of them are kept instead.
LIMIT = 16 * 2**20
_DIGESTS = "digests.json"


@dataclass(frozen=True)
class Digest:
    """What is kept of a population's counts when they are too large.

    Attributes:
        sha256: Of the counts, uint8 (T, N, *shape) in C order.
        spikes: Their sum.
        size: How many there are.
    """

    sha256: str
    spikes: int
    size: int

    @staticmethod
    def of(counts: Array) -> Digest:
        """The digest of uint8 counts."""
        data = np.ascontiguousarray(counts, dtype=np.uint8)
        return Digest(
            hashlib.sha256(data.data).hexdigest(), int(data.sum(dtype=np.int64)), data.size
        )


@dataclass(frozen=True, eq=False)
class Reference:
    """Samples, and what the network does with them.

    Attributes:
        x: Integers of the source, uint8 [N, *shape]; sequences [N, T, *shape].
        counts: Population -> spike counts, uint8 [T, N, *shape].
        readouts: Readout -> integers, int64 [T, N, *shape].
        digests: Population -> digest, in place of all counts when those are too large.
    """

    x: Array
    counts: dict[str, Array] = field(default_factory=dict)
    readouts: dict[str, Array] = field(default_factory=dict)
    digests: dict[str, Digest] = field(default_factory=dict)

    @staticmethod
    def of(x: Array, activity: Activity, limit: int = LIMIT) -> Reference:
        """The reference of an activity; digests if its counts exceed ``limit`` bytes."""
        counts: dict[str, Array] = dict(activity.counts)
        readouts: dict[str, Array] = dict(activity.readouts)
        if sum(c.nbytes for c in counts.values()) <= limit:
            return Reference(x, counts, readouts)
        return Reference(x, {}, readouts, {k: Digest.of(c) for k, c in counts.items()})

    def compare(self, got: Activity) -> list[Mismatch]:
        """Differences between this reference and what an engine did with ``x``.

        Where only a digest is stored, ``mismatched`` is a lower bound.
        """
        found = mismatch(Activity(counts=self.counts, readouts=self.readouts), got)
        return [_compare_digest(k, d, got) for k, d in self.digests.items()] + found

    def to_npz(self) -> bytes:
        """The content of an npz file; the same reference gives the same bytes."""
        arrays = {"x": self.x, **_keyed("counts", self.counts)}
        arrays.update(_keyed("readouts", self.readouts))
        members = {f"{key}.npy": array_to_npy(array) for key, array in arrays.items()}
        digests = {name: asdict(digest) for name, digest in self.digests.items()}
        members[_DIGESTS] = json.dumps(digests, sort_keys=True).encode()
        stream = io.BytesIO()
        write_members(stream, members)
        return stream.getvalue()

    @staticmethod
    def from_npz(data: bytes, program: Program, where: str) -> Reference:
        """The reference of ``to_npz``, checked against the network.

        Raises:
            BadInputError: Damaged, or not of this network.
        """
        members = read_members(io.BytesIO(data), where)
        reader = _Reader(members, where)
        x = reader.array("x")
        populations = {n.name: n.shape for n in program.neurons}
        readouts = {r.name: r.shape for r in program.readouts}
        digests = reader.digests()
        if digests and digests.keys() != populations.keys():
            raise BadInputError(f"{where}: digests are not those of the network's populations")
        lead = (program.timesteps, _samples(x, program, where))
        return Reference(
            x,
            {} if digests else reader.arrays("counts", populations, lead, np.uint8),
            reader.arrays("readouts", readouts, lead, np.int64),
            digests,
        )


def _keyed(kind: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {_key(kind, name): array for name, array in arrays.items()}


def _key(kind: str, name: str) -> str:
    return f"{kind}.{quote(name, safe=':')}"


def _samples(x: Array, program: Program, where: str) -> int:
    shape, T = program.source.shape, program.timesteps
    if x.dtype == np.uint8 and x.shape[1:] in (shape, (T, *shape)):
        return len(x)
    raise BadInputError(f"{where}: x is {x.dtype} {list(x.shape)}, not for this network")


def _compare_digest(name: str, digest: Digest, got: Activity) -> Mismatch:
    counts = got.counts.get(name)
    if counts is None:
        return Mismatch(name, "counts", digest.size, digest.size, note="missing")
    found = Digest.of(counts)
    if found == digest:
        return Mismatch(name, "counts", 0, digest.size)
    least = max(1, abs(found.spikes - digest.spikes))
    note = f"only a hash is stored: {found.spikes} spikes, expected {digest.spikes}"
    return Mismatch(name, "counts", min(least, digest.size), digest.size, note=note)


class _Reader:
    def __init__(self, members: Mapping[str, bytes], where: str) -> None:
        self.members, self.where = members, where

    def array(self, key: str) -> Array:
        data = self.members.get(f"{key}.npy")
        if data is None:
            raise BadInputError(f"{self.where}: '{key}' is missing")
        return npy_to_array(data, f"{self.where}: {key}")

    def arrays(
        self,
        kind: str,
        shapes: Mapping[str, tuple[int, ...]],
        lead: tuple[int, int],
        dtype: type[np.integer[Any]],
    ) -> dict[str, Array]:
        """The array of every node, (T, N, *shape)."""
        found = {}
        for name, shape in shapes.items():
            array = found[name] = self.array(_key(kind, name))
            if array.dtype != dtype or array.shape != (*lead, *shape):
                wrong = f"{array.dtype} {list(array.shape)}, not for this network"
                raise BadInputError(f"{self.where}: {kind} of '{name}' are {wrong}")
        return found

    def digests(self) -> dict[str, Digest]:
        try:
            entries = json.loads(self.members.get(_DIGESTS, b"{}"))
            found = {name: Digest(**entry) for name, entry in entries.items()}
        except (ValueError, TypeError, AttributeError) as e:
            raise BadInputError(f"{self.where}: malformed digests ({e})") from e
        for d in found.values():
            if not (type(d.sha256) is str and type(d.spikes) is int and type(d.size) is int):
                raise BadInputError(f"{self.where}: malformed digests")
        return found
