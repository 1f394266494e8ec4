"""Lineage: what a value is, in terms of values of the graph that a pass was given.

A pass that keeps a name keeps its meaning. A pass that computes the same numbers on other axes, in
parts or in other units gives them a new name, and notes here how they come from the old ones. So
two stages can be compared although they share few names, and so can the last stage and the trained
network itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from snncc.ir.metadata import LINEAGE

__all__ = ["Lineage", "Move", "forget"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Move:
    """How a value comes from others.

    Attributes:
        kind: ``same``: under another name; ``folded``: timesteps and samples, wherever they are,
            as [T*N, ...]; ``steps``: timesteps that were computed one by one, one after the other;
            ``map``: tokens as the map that they are a view of; ``channels``: some channels, axis 1;
            ``times``: the value times a fraction; ``counts``: what a quantiser counts, from 0;
            ``greatest``: the greatest of each channel and those next to it, group by group.
        sources: Names of the values it comes from.
        settings: Of the kind; see the functions at the end of this module.
    """

    kind: str
    sources: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, arrays: Sequence[Array]) -> Array:
        """The value, from those of its sources."""
        return _KINDS[self.kind](*arrays, **self.settings)


@dataclass
class Lineage:
    """The moves of a graph and of all graphs before it, by the name of what they make."""

    moves: dict[str, Move] = field(default_factory=dict)

    @staticmethod
    def of(model: ir.Model) -> Lineage:
        """What the model says of its values."""
        stored = json.loads(model.metadata_props.get(LINEAGE, "{}"))
        return Lineage({k: Move(v[0], tuple(v[1]), v[2]) for k, v in stored.items()})

    def write(self, model: ir.Model) -> None:
        """Let the model say it."""
        moves = {k: (m.kind, m.sources, m.settings) for k, m in self.moves.items()}
        model.metadata_props[LINEAGE] = json.dumps(moves)

    def note(self, name: str, kind: str, *sources: str, **settings: Any) -> None:
        """Value ``name`` comes from ``sources`` by a move."""
        self.moves[name] = Move(kind, sources, settings)

    def origins(self, name: str, known: Container[str]) -> list[str] | None:
        """The known values that ``name`` comes from; None: from others as well."""
        if name in known:
            return [name]
        if (move := self.moves.get(name)) is None:
            return None
        found = [self.origins(source, known) for source in move.sources]
        parts = [part for part in found if part is not None]
        return [n for part in parts for n in part] if len(parts) == len(found) else None

    def trace(self, name: str, known: Mapping[str, Array]) -> Array:
        """The value that ``name`` must have, from known ones.

        Raises:
            KeyError: It does not come from these.
        """
        if name in known:
            return known[name]
        move = self.moves[name]
        return move([self.trace(source, known) for source in move.sources])


def forget(model: ir.Model) -> None:
    """Take the lineage off a graph that is compared with nothing any more."""
    model.metadata_props.pop(LINEAGE, None)


# -- kinds of moves --------------------------------------------------------------------------


def _same(x: Array) -> Array:
    return x


Groups = Sequence[Sequence[tuple[str, int, int]]]


def _folded(x: Array, groups: Groups, sizes: Sequence[int], T: int) -> Array:
    """Axes of timesteps, samples and others, however they are laid out, as [T*N, *sizes].

    Without timesteps it is the same in each of them.
    """
    names = ["T", "N", *(str(axis) for axis in range(1, len(sizes) + 1))]
    moved = _in_order(x, groups, names)
    is_still = T > 1 and not any(axis == "T" for group in groups for axis, _, _ in group)
    return np.concatenate([moved] * T if is_still else [moved]).reshape(-1, *sizes)


def _steps(*steps: Array) -> Array:
    return np.concatenate(steps)


def _map(x: Array, groups: Groups, sizes: Sequence[int]) -> Array:
    """Tokens as the map [N, *sizes] that they are a view of.

    Numbers of the map that differ in a digit that no axis has are copies.
    """
    digits = [digit for group in groups for digit in group]
    if prod(size or 1 for _, size, _ in digits) != prod(sizes):
        return _copied(x, digits, sizes)
    return _in_order(x, groups, ["N", "C", "P"]).reshape(-1, *sizes)


def _in_order(x: Array, groups: Groups, names: Sequence[str]) -> Array:
    """The digits of ``x`` as axes, in the order of what they index.

    Args:
        x: Any array.
        groups: The digits of each axis: (what it indexes, size, stride); size 0: not known.
        names: Of what there is to index, in order.
    """
    digits = [digit for group in groups for digit in group]
    places = [(names.index(axis), -stride) for axis, _, stride in digits]
    apart = x.reshape([size or -1 for _, size, _ in digits])
    order = sorted(range(len(digits)), key=places.__getitem__)
    return np.asarray(apart.transpose(order))


def _copied(x: Array, digits: Sequence[tuple[str, int, int]], sizes: Sequence[int]) -> Array:
    """As ``_map``, where a digit of the map is missing; see there."""
    samples = [axis for axis, _, _ in digits].index("N")
    apart = np.moveaxis(x.reshape([size or -1 for _, size, _ in digits]), samples, 0)
    index = {"C": np.arange(sizes[0])[:, None], "P": np.arange(prod(sizes[1:]))[None, :]}
    kept = [digit for digit in digits if digit[0] != "N"]
    places = [index[axis] // stride % size for axis, size, stride in kept]
    at = tuple(np.broadcast_arrays(index["C"], index["P"], *places)[2:])
    found = [sample[at] for sample in apart]
    return np.stack(found).reshape(-1, *sizes)


def _channels(x: Array, kept: Sequence[int]) -> Array:
    return np.take(x, kept, axis=1)


def _times(x: Array, factor: str) -> Array:
    number, real = Fraction(factor), x if x.dtype.kind == "f" else x.astype(np.float64)  # of marks
    return np.asarray(real * number.numerator / number.denominator)


def _counts(x: Array, steps: Sequence[str], low: int) -> Array:
    """Whole steps of ``x``, of all channels or of each, from ``low``."""
    sizes = np.array([float(Fraction(step)) for step in steps])
    column = sizes.reshape(-1, *(1,) * (x.ndim - 2)) if len(sizes) > 1 else sizes
    return np.asarray(np.rint(x / column) - low, x.dtype)


def _greatest(x: Array, group: int, reach: int) -> Array:
    """Maxima over up to ``reach`` channels to either side, within groups of ``group`` channels."""
    apart = x.reshape(len(x), -1, group, *x.shape[2:])
    ranges = [slice(max(i - reach, 0), i + reach + 1) for i in range(group)]
    return np.stack([apart[:, :, near].max(2) for near in ranges], 2).reshape(x.shape)


_KINDS: dict[str, Callable[..., Array]] = {
    "same": _same,
    "folded": _folded,
    "steps": _steps,
    "map": _map,
    "channels": _channels,
    "times": _times,
    "counts": _counts,
    "greatest": _greatest,
}
