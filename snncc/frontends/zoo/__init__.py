"""Published networks, written anew: ``--arch e-spikeformer-s`` and the like.

Widths and depths are read off the checkpoint's tensors. What weights do not carry (largest spike
count, norm, rounding, timesteps, time constant, heads, scale of attention, where pools stand) are
options: given, else of the training that the file tells of, else the family's, and every one is
reported with its origin.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from snncc.errors import BadInputError, Option, UsageError, Words
from snncc.frontends.zoo.danet import ORDERS
from snncc.frontends.zoo.e_spikeformer import Backbone, DvsESpikeFormer, ESpikeFormer
from snncc.frontends.zoo.e_spikeformer_large import LargeESpikeFormer
from snncc.frontends.zoo.entry import (
    Entry,
    Origins,
    T_of,
    pooling_of,
    require_fit,
    require_told,
    shape_of,
)
from snncc.frontends.zoo.families import OVER_TIME
from snncc.frontends.zoo.masked_autoencoder import MaskedAutoencoder, MaskedShape
from snncc.frontends.zoo.options import BACKBONE, BASE, DVS, LARGE, MASKED, chosen, told_by
from snncc.frontends.zoo.parts import Layers, NormedFire
from snncc.frontends.zoo.resnets import RESNETS
from snncc.frontends.zoo.stored import base_shape, large_shape, masked_shape, norm_shapes
from snncc.nn import IntegerFire

__all__ = ["Built", "build", "names"]

#: A family, then blocks and width, or a depth.
_SIZED = re.compile(r"(.+?)(-\d+(?:-\d+)?)")
_Make = Callable[[Any, Mapping[str, Any]], nn.Module]


@dataclass(frozen=True)
class Built:
    """A network of the zoo, without weights.

    Attributes:
        module: In eval mode; its ``default_cfg`` is that of the published training.
        options: What weights do not carry -> (value, origin).
        read: What the tensors told, field by field.
        left_out: Parameters and modules that are loaded and not compiled -> how many numbers.
    """

    module: nn.Module
    options: dict[str, tuple[Any, str]]
    read: dict[str, Any]
    left_out: dict[str, int]


def names() -> list[str]:
    """All names of the zoo."""
    return [*_NETWORKS]


def build(
    name: str,
    given: Mapping[str, Any],
    tensors: Mapping[str, Any],
    told: Mapping[str, Any] | None = None,
    timesteps: int | None = None,
) -> Built:
    """The network that a checkpoint's tensors belong to.

    Args:
        name: One of ``names()``.
        given: Options, of those that weights do not carry.
        tensors: By key; only keys and shapes are read.
        told: What the file says about the training: ``arch``, and its arguments as ``args``.
        timesteps: Of the sequences that the user says the network reads.

    Raises:
        UsageError: There is no such name or option, a value is outside its range, or T is given
            twice and differently.
        BadInputError: The tensors are those of another network, or may be.
    """
    if name not in _NETWORKS:
        raise UsageError(Words(Option("arch", name), f": no such network; {_offer(name)}"))
    entry = _NETWORKS[name]
    shape = shape_of(name, _NETWORKS, tensors)
    require_fit(name, _NETWORKS, shape)
    options = _options(name, shape, given, told or {}, timesteps)
    if "heads" in options:
        _check_heads(name, options["heads"][0], shape.attended)
    values = {key: value for key, (value, _) in options.items()}
    module = entry.make(shape, values)
    learnt = _add_norms(module, norm_shapes(tensors)) if "norm" in options else 0
    read = vars(shape) | ({"learnt_norms": learnt} if learnt else {})
    return Built(module.eval(), _as_used(options, shape), read, _left_out(module))


def _options(
    name: str,
    shape: Any,
    given: Mapping[str, Any],
    told: Mapping[str, Any],
    timesteps: int | None,
) -> Origins:
    """All options of a network, each with its origin."""
    entry = _NETWORKS[name]
    defaults = {**entry.defaults(shape)}
    if entry.pooling is not None:
        defaults["pooling"] = entry.pooling
    in_file = told_by(told.get("args", {}))
    arch = str(told.get("arch", ""))
    found = chosen(name, defaults, given, in_file, entry.origin)
    options = require_told(name, found, arch)
    if entry.pooling is not None:
        options["pooling"] = pooling_of(name, _NETWORKS, shape, given.get("pooling"), arch)
    if "T" in defaults:
        options["T"] = T_of(name, entry, options["T"], given, in_file, timesteps)
    return options


def _add_norms(module: nn.Module, shapes: Mapping[str, Sequence[int]]) -> int:
    """Neurons of which the checkpoint has norms get them; how many. The others' keys are left."""
    neurons = {path: m for path, m in module.named_modules() if isinstance(m, IntegerFire)}
    found = [path for path in shapes if path in neurons]
    for path in found:
        parent, _, name = path.rpartition(".")
        normed = NormedFire(neurons[path], shapes[path])
        setattr(module.get_submodule(parent), name, normed)
    return len(found)


def _as_used(options: Origins, shape: Any) -> Origins:
    """The options with what a missing value stands for."""
    meant = {"norm": options.get("D", (None,))[0], "scale": "2/sqrt(d)"}
    if "domain" in options:
        domain = options["domain"][0]
        meant |= {"order": ORDERS[domain][0], "fires": domain == "spikes"}
    used: Origins = {
        key: (meant.get(key) if value is None else value, origin)
        for key, (value, origin) in options.items()
    }
    if used.get("neuron", ("",))[0] == "if":
        del used["tau"]
    if used.get("patches") == (None, "the family's"):
        told = "a square of all tokens" if shape.tokens else "the family's"
        used["patches"] = shape.square, told
    return used


def _left_out(module: nn.Module) -> dict[str, int]:
    names: tuple[str, ...] = getattr(module, "left_out", ())
    found: dict[str, int] = {}
    for key, parameter in module.named_parameters():
        for name in set(names) & {*key.split(".")}:
            found[name] = found.get(name, 0) + parameter.numel()
    return {name: found.get(name, 0) for name in names if name in found or hasattr(module, name)}


def _offer(name: str) -> str:
    near = difflib.get_close_matches(name, _NETWORKS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{hint}the zoo has {', '.join(_by_family())}; or name a constructor, models.py:fn"


def _by_family() -> list[str]:
    """Names, those with blocks and width after their family's: ``sdt-v1 (-2-256, -8-512)``."""
    sizes: dict[str, list[str]] = {}
    for name in _NETWORKS:
        sized = _SIZED.fullmatch(name)
        family, size = (sized[1], sized[2]) if sized and sized[1] in _NETWORKS else (name, "")
        sizes.setdefault(family, []).append(size)
    found = {family: [size for size in own if size] for family, own in sizes.items()}
    return [f"{family} ({', '.join(own)})" if own else family for family, own in found.items()]


def _check_heads(name: str, heads: int, widths: Sequence[int]) -> None:
    if any(width % heads for width in widths):
        told = f": heads is {heads}, give a divisor of {' and '.join(map(str, widths))}"
        raise UsageError(Words(Option("arch", name), " ", Option("arch_args"), told))


# -- families ------------------------------------------------------------------------------


def _layers(options: Mapping[str, Any]) -> Layers:
    return Layers(options["D"], options["norm"], options["rounding"])


def _classifier(cls: Callable[..., nn.Module], headless: str) -> _Make:
    def make(shape: Any, options: Mapping[str, Any]) -> nn.Module:
        if not shape.classes:
            told = "the checkpoint has no head.weight; take "
            raise BadInputError(Words(told, Option("arch", headless)))
        return cls(shape, _layers(options), options["heads"], options["scale"])

    return make


def _backbone(shape: Any, options: Mapping[str, Any]) -> nn.Module:
    more = options["heads"], options["scale"], options["tap"]
    return Backbone(shape, _layers(options), *more)


def _encoder(shape: Any, options: Mapping[str, Any]) -> nn.Module:
    patches = _patches(shape, options["patches"])
    more = options["heads"], options["scale"], patches
    return MaskedAutoencoder(shape, _layers(options), *more)


def _patches(shape: MaskedShape, given: Sequence[int] | None) -> tuple[int, int] | None:
    if given is None and shape.square is not None:
        return None
    if given is None:
        told = f"pos_embed has {shape.tokens} tokens, no square; give "
        raise BadInputError(Words(told, Option("arch_args"), " '{\"patches\": [H, W]}'"))
    down, across = given
    if shape.tokens not in (0, down * across):
        told = f"{down} x {across} are {down * across}, and pos_embed has {shape.tokens} tokens"
        raise UsageError(Words(Option("arch_args"), f": patches {told}"))
    return down, across


_BASE = _classifier(ESpikeFormer, "e-spikeformer-backbone")
_LARGE = _classifier(LargeESpikeFormer, "e-spikeformer-mae")


def _entry(
    make: _Make, read: Callable[..., Any], defaults: Mapping[str, Any], *widths: int
) -> Entry:
    return Entry(make, read, lambda shape: defaults, widths or None)


def _base(*widths: int) -> Entry:
    return _entry(_BASE, base_shape, BASE, *widths)


def _large(*widths: int) -> Entry:
    return _entry(_LARGE, large_shape, LARGE, *widths)


#: The last of those that read tensors alike takes any widths: errors name the first that fits.
_NETWORKS: dict[str, Entry] = {
    "e-spikeformer-t": _base(24, 48, 96, 128),
    "e-spikeformer-s": _base(32, 64, 128, 192),
    "e-spikeformer-m": _base(48, 96, 192, 240),
    "e-spikeformer-l": _base(64, 128, 256, 360),
    "e-spikeformer": _base(),
    "e-spikeformer-dvs": _entry(
        _classifier(DvsESpikeFormer, "e-spikeformer-backbone"), base_shape, DVS
    ),
    "e-spikeformer-backbone": _entry(_backbone, base_shape, BACKBONE),
    "e-spikeformer-12-512": _large(128, 256, 512),
    "e-spikeformer-12-768": _large(0, 384, 768),
    "e-spikeformer-large": _large(),
    "e-spikeformer-mae": _entry(_encoder, masked_shape, MASKED),
    **OVER_TIME,
    **RESNETS,
}
