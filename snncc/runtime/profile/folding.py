"""Layers of a profile folded by module path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from snncc.runtime.profile.energy import Energy, energy_of
from snncc.runtime.profile.profile import Layer, Profile
from snncc.runtime.profile.work import Work

__all__ = ["Folded", "folded"]


@dataclass(frozen=True)
class Folded:
    """One layer, or all that have the same first parts of their module path; per sample.

    Attributes:
        name: The module path, or the name of a node without one.
        kind: That of the layer, or how many layers.
        neurons, updates, state_bytes: Sums.
        rate: Spikes per synapse and tick; None: none arrive.
        work: Sums over projections, by the names of ``Work``.
        energy: By the name of the model.
    """

    name: str
    kind: str
    neurons: int
    updates: int
    state_bytes: int
    rate: float | None
    work: Mapping[str, float]
    energy: Mapping[str, Energy]


def folded(profile: Profile, depth: int | None) -> list[Folded]:
    """The layers, each a row; with ``depth`` those that share so many parts of their path are one.

    Rows are where the first of their layers is in the network.
    """
    groups: dict[str, list[Layer]] = {}
    for layer in profile.layers:
        groups.setdefault(_key(layer, depth, profile.name), []).append(layer)
    works: dict[str, list[Work]] = {}
    for work in profile.projections:
        works.setdefault(work.target, []).append(work)
    return [_row(name, found, works, profile) for name, found in groups.items()]


def _key(layer: Layer, depth: int | None, network: str) -> str:
    if depth is None:
        return layer.name
    return ".".join((layer.module or layer.name).split(".")[:depth]) or network


def _row(
    key: str, layers: Sequence[Layer], works: Mapping[str, list[Work]], profile: Profile
) -> Folded:
    found = [work for layer in layers for work in works[layer.name]]
    possible, sops = (sum(getattr(w, n) for w in found) for n in ("possible", "sops"))
    is_one = len(layers) == 1
    return Folded(
        name=layers[0].module or layers[0].name if is_one and key == layers[0].name else key,
        kind=layers[0].kind if is_one else f"{len(layers)} layers",
        neurons=sum(layer.neurons for layer in layers),
        updates=sum(layer.updates for layer in layers),
        state_bytes=sum(layer.state_bytes for layer in layers),
        rate=sops / possible if possible else None,
        work={name: sum(layer.work[name] for layer in layers) for name in layers[0].work},
        energy={
            m.name: energy_of(m, found, [n for layer in layers for n in layer.outputs])
            for m in profile.models
            if not m.is_published
        },
    )
