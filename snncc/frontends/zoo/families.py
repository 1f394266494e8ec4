"""Names of spiking transformers over timesteps, with the options of their published training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from snncc.frontends.zoo import sdt_v1, sdt_v2, spikformer, spikingformer
from snncc.frontends.zoo.entry import Entry, made
from snncc.frontends.zoo.options import CIFAR, IMAGENET

__all__ = ["OVER_TIME"]

_LARGE: Mapping[str, Any] = {"T": 4, "heads": 8, "tau": 2.0, "pools": "1111", **IMAGENET}
_SMALL: Mapping[str, Any] = {**_LARGE, "pools": "0011", **CIFAR}
_FRAMES: Mapping[str, Any] = {"T": 16, "heads": 16, "tau": 2.0, "pools": "1111", "size": 128}
_MEASURES = "blocks and width"

_Defaults = Callable[[Any], Mapping[str, Any]]
_SIZES = ((8, 384), (8, 512), (8, 768))
_CIFAR_SIZES = ((4, 256), (2, 384), (4, 384))


def _heads(shape: Any) -> int:
    """Of networks for CIFAR: 12 where that divides the width, as published."""
    return 8 if shape.attended[-1] % 12 else 12


def _of_spikformer(shape: spikformer.Shape) -> Mapping[str, Any]:
    if shape.frames:
        return {**_FRAMES, "scale": 0.25}
    if shape.attention == "linear":
        return {**_SMALL, "heads": _heads(shape), "scale": 0.125}
    return {**_LARGE, "scale": 0.125}


def _of_spikingformer(tau: float, cifar: bool = False) -> _Defaults:
    def defaults(shape: spikingformer.Shape) -> Mapping[str, Any]:
        if shape.frames:
            return {**_FRAMES, "tau": tau, "scale": 0.125}
        if cifar or shape.names == "block0":
            return {**_SMALL, "heads": _heads(shape), "scale": 0.125}
        return {**_LARGE, "scale": 0.125}

    return defaults


def _sdt(defaults: Mapping[str, Any], frames: bool = False, **more: Any) -> Callable[..., Entry]:
    """Entries of the first Spike-driven Transformer, by blocks and width."""

    def entry(*widths: int) -> Entry:
        return Entry(
            made(sdt_v1.SpikeDrivenTransformer), sdt_v1.read,
            lambda shape: {**defaults, "spreads": False, **more},
            widths or None, _MEASURES, frames,
        )  # fmt: skip

    return entry


def _spikformer(pooling: str, frames: bool = False) -> Callable[..., Entry]:
    def entry(*widths: int) -> Entry:
        return Entry(
            made(spikformer.Spikformer), spikformer.read, _of_spikformer,
            widths or None, _MEASURES, frames, pooling,
        )  # fmt: skip

    return entry


def _spikingformer(pooling: str, frames: bool = False, cifar: bool = False) -> Callable[..., Entry]:
    tau = 1.75 if pooling == "potentials" else 1.5

    def entry(*widths: int) -> Entry:
        return Entry(
            made(spikingformer.Spikingformer), spikingformer.read, _of_spikingformer(tau, cifar),
            widths or None, _MEASURES, frames, pooling,
        )  # fmt: skip

    return entry


def _v2(*widths: int) -> Entry:
    defaults = {"T": 1, "heads": 8, "scale": 0.125, "tau": 2.0, **IMAGENET}
    make = made(sdt_v2.SpikeDrivenTransformerV2)
    return Entry(make, sdt_v2.read, lambda shape: defaults, widths or None, frames=False)


def _sized(
    family: str, entry: Callable[..., Entry], sizes: tuple[tuple[int, int], ...]
) -> dict[str, Entry]:
    return {f"{family}-{depth}-{width}": entry(depth, width) for depth, width in sizes}


_SDT_FRAMES = {**_FRAMES, "heads": 8}

#: The last of those that read tensors alike takes any sizes: errors name the first that fits.
OVER_TIME: dict[str, Entry] = {
    **_sized("spikformer", _spikformer("spikes"), ((6, 512), (10, 512), *_SIZES, *_CIFAR_SIZES)),
    "spikformer": _spikformer("spikes")(),
    "spikformer-dvs": _spikformer("spikes", frames=True)(),
    **_sized("cml-spikformer", _spikformer("potentials"), (*_SIZES, *_CIFAR_SIZES)),
    "cml-spikformer": _spikformer("potentials")(),
    **_sized("spikingformer", _spikingformer("spikes"), _SIZES),
    **_sized("spikingformer", _spikingformer("spikes", cifar=True), _CIFAR_SIZES),
    "spikingformer": _spikingformer("spikes")(),
    "spikingformer-first-keys": replace(_spikingformer("spikes")(), read=spikingformer.read_first),
    "spikingformer-dvs": _spikingformer("spikes", frames=True)(),
    **_sized("cml-spikingformer", _spikingformer("potentials"), _SIZES),
    **_sized("cml-spikingformer", _spikingformer("potentials", cifar=True), _CIFAR_SIZES),
    "cml-spikingformer": _spikingformer("potentials")(),
    "cml-spikingformer-dvs": _spikingformer("potentials", frames=True)(),
    **_sized("sdt-v1", _sdt(_LARGE), ((6, 512), (10, 384), (10, 512), *_SIZES)),
    **_sized("sdt-v1", _sdt(_SMALL), ((2, 256), (2, 512))),
    "sdt-v1": _sdt(_LARGE)(),
    "sdt-v1-cifar10-dvs": _sdt(_SDT_FRAMES, True, T=10, size=64, pools="0011", spreads=True)(),
    "sdt-v1-gesture": _sdt(_SDT_FRAMES, True, pools="0111")(),
    "sdt-v2-8-384": _v2(96, 192, 384, 480),
    "sdt-v2-8-512": _v2(128, 256, 512, 640),
    "sdt-v2-8-768": _v2(192, 384, 768, 960),
    "sdt-v2": _v2(),
}
