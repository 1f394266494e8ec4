"""Names of spiking ResNets, with the options of their published training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from snncc.frontends.zoo import danet, mlf_ds_resnet, ms_resnet, sew_resnet
from snncc.frontends.zoo.entry import Entry, made
from snncc.frontends.zoo.options import CIFAR, IMAGENET, ToTell

__all__ = ["RESNETS"]

#: Blocks of the four stages by depth, and layers of a block.
_DEPTHS = {
    18: (2, (2, 2, 2, 2)),
    34: (2, (3, 4, 6, 3)),
    50: (3, (3, 4, 6, 3)),
    101: (3, (3, 4, 23, 3)),
    152: (3, (3, 8, 36, 3)),
}
_MEASURES = "layers of a block and blocks of each stage"

_CONNECT = ToTell("what joins the branches of its blocks", ("add", "and", "iand"))
_SEW: Mapping[str, Any] = {"T": 4, "connect": _CONNECT, **IMAGENET}
_MS: Mapping[str, Any] = {"T": 6, "decay": 0.25, "threshold": 0.5, **IMAGENET}
_MLF: Mapping[str, Any] = {"T": 4, "decay": 0.25, "thresholds": [0.6, 1.6, 2.6]}
_MLF_PICTURES = {**_MLF, **CIFAR, "std": [0.2023, 0.1994, 0.201]}
_DOMAIN = ToTell("what its blocks add", ("spikes", "potentials"))
_SPEC: Mapping[str, Any] = {
    "T": 4, "domain": _DOMAIN, "order": None, "projections": "stages", "fires": None,
    "neuron": "lif", "tau": 2.0,
}  # fmt: skip


def _of_danet(shape: danet.Shape) -> Mapping[str, Any]:
    """With a 7x7 stem as for ImageNet, else as for small pictures."""
    is_large = shape.kernel == 7
    stem = {"stem_stride": 2 if is_large else 1, "pool": is_large}
    return {**_SPEC, **stem, **(IMAGENET if is_large else CIFAR)}


def _sew(*widths: int) -> Entry:
    make = made(sew_resnet.SEWResNet)
    return Entry(make, sew_resnet.read, lambda shape: _SEW, widths or None, _MEASURES, frames=False)


def _ms(*widths: int) -> Entry:
    make, measures = made(ms_resnet.MSResNet), "convolutions of the stem and blocks of each stage"
    return Entry(make, ms_resnet.read, lambda shape: _MS, widths or None, measures, frames=False)


def _mlf(*widths: int, frames: bool = False, defaults: Mapping[str, Any] = _MLF_PICTURES) -> Entry:
    return Entry(
        made(mlf_ds_resnet.MLFDSResNet), mlf_ds_resnet.read, lambda shape: defaults,
        widths or None, "batch norms up to the first neuron and blocks of each stage", frames,
    )  # fmt: skip


def _danet(*widths: int) -> Entry:
    return Entry(
        made(danet.DANet), danet.read, _of_danet, widths or None, _MEASURES, frames=False,
        origin="reconstructed",
    )  # fmt: skip


def _by_depth(family: str, entry: Callable[..., Entry]) -> dict[str, Entry]:
    return {
        f"{family}-{depth}": entry(layers, *blocks) for depth, (layers, blocks) in _DEPTHS.items()
    }


#: The last of those that read tensors alike takes any sizes: errors name the first that fits.
RESNETS: dict[str, Entry] = {
    **_by_depth("sew-resnet", _sew),
    "sew-resnet": _sew(),
    "ms-resnet-18": _ms(1, 2, 2, 2, 2),
    "ms-resnet-34": _ms(1, 3, 4, 6, 3),
    "ms-resnet-104": _ms(3, 3, 8, 32, 8),
    "ms-resnet": _ms(),
    **{f"mlf-ds-resnet-{6 * n + 2}": _mlf(1, n, n, n) for n in (2, 3, 5, 7, 9, 11)},
    "mlf-ds-resnet": _mlf(),
    "mlf-ds-resnet-cifar10-dvs": _mlf(
        1, 0, 0, 0, frames=True, defaults={**_MLF, "T": 10, "size": 42}
    ),
    "mlf-ds-resnet-gesture": _mlf(2, 0, 0, 0, frames=True, defaults={**_MLF, "T": 40, "size": 32}),
    **_by_depth("danet", _danet),
    "danet": _danet(),
}
