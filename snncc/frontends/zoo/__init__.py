"""Published networks, written anew: ``--arch e-spikeformer-s`` and the like.

Widths and depths are read off the checkpoint's tensors. What weights do not carry (largest spike
count, norm, rounding, heads, scale of attention) are options with the family's defaults, and every
one is reported with its origin.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from snncc.errors import BadInputError, Option, UsageError, Words
from snncc.frontends.zoo.e_spikeformer import Backbone, DvsESpikeFormer, ESpikeFormer
from snncc.frontends.zoo.e_spikeformer_large import LargeESpikeFormer
from snncc.frontends.zoo.masked_autoencoder import MaskedAutoencoder, MaskedShape
from snncc.frontends.zoo.options import BACKBONE, BASE, DVS, LARGE, MASKED, chosen
from snncc.frontends.zoo.parts import Layers, NormedFire
from snncc.frontends.zoo.stored import base_shape, large_shape, masked_shape, norm_shapes
from snncc.nn import IntegerFire

__all__ = ["Built", "build", "names"]

_Tensors = Mapping[str, Any]
_Make = Callable[[Any, Layers, Mapping[str, Any]], nn.Module]


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


@dataclass(frozen=True)
class _Entry:
    """What stands behind a name.

    Attributes:
        make: Shape, layers and options -> network.
        read: Tensors -> shape.
        defaults: Options that weights do not carry, with the family's values.
        widths: What the tensors must tell, 0: anything; none: anything at all.
    """

    make: _Make
    read: Callable[[_Tensors], Any]
    defaults: Mapping[str, Any]
    widths: tuple[int, ...] | None = None


def names() -> list[str]:
    """All names of the zoo."""
    return [*_NETWORKS]


def build(name: str, given: Mapping[str, Any], tensors: _Tensors) -> Built:
    """The network that a checkpoint's tensors belong to.

    Args:
        name: One of ``names()``.
        given: Options, of those that weights do not carry.
        tensors: By key; only keys and shapes are read.

    Raises:
        UsageError: There is no such name or option, or a value is outside its range.
        BadInputError: The tensors are those of another network.
    """
    entry = _NETWORKS.get(name)
    if entry is None:
        raise UsageError(Words(Option("arch", name), f": no such network; {_offer(name)}"))
    options = chosen(name, entry.defaults, given)
    shape = _read(name, entry, tensors)
    _check_widths(name, entry, shape.widths)
    _check_heads(name, options["heads"][0], shape.attended)
    values = {key: value for key, (value, _) in options.items()}
    layers = Layers(values["D"], values["norm"], values["rounding"])
    module = entry.make(shape, layers, values)
    learnt = _add_norms(module, norm_shapes(tensors))
    read = vars(shape) | ({"learnt_norms": learnt} if learnt else {})
    return Built(module.eval(), _as_used(options, shape), read, _left_out(module))


def _add_norms(module: nn.Module, shapes: Mapping[str, Sequence[int]]) -> int:
    """Neurons of which the checkpoint has norms get them; how many. The others' keys are left."""
    neurons = {path: m for path, m in module.named_modules() if isinstance(m, IntegerFire)}
    found = [path for path in shapes if path in neurons]
    for path in found:
        parent, _, name = path.rpartition(".")
        normed = NormedFire(neurons[path], shapes[path])
        setattr(module.get_submodule(parent), name, normed)
    return len(found)


def _as_used(options: dict[str, tuple[Any, str]], shape: Any) -> dict[str, tuple[Any, str]]:
    """The options with what a missing value stands for."""
    meant = {"norm": options["D"][0], "scale": "2/sqrt(d)"}
    used = {
        key: (meant.get(key) if value is None else value, origin)
        for key, (value, origin) in options.items()
    }
    if used.get("patches") == (None, "the family's"):
        told = "a square of all tokens" if shape.tokens else "the family's"
        used["patches"] = shape.square, told
    return used


def _left_out(module: nn.Module) -> dict[str, int]:
    found = dict.fromkeys(getattr(module, "left_out", ()), 0)
    for key, parameter in module.named_parameters():
        if (name := key.split(".")[0]) in found:
            found[name] += parameter.numel()
    return found


def _read(name: str, entry: _Entry, tensors: _Tensors) -> Any:
    try:
        return entry.read(tensors)
    except BadInputError as e:
        told = Words(Option("arch", name), ": ")
        raise e.within(told, "; name another, or models.py:fn") from e


def _offer(name: str) -> str:
    near = difflib.get_close_matches(name, _NETWORKS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{hint}the zoo has {', '.join(_NETWORKS)}; or name a constructor, models.py:fn"


def _check_widths(name: str, entry: _Entry, widths: tuple[int, ...]) -> None:
    if _fits(entry, widths):
        return
    same = [other for other, e in _NETWORKS.items() if e.read is entry.read and _fits(e, widths)]
    told = f": the weights have widths {', '.join(map(str, widths))}; take "
    raise BadInputError(Words(Option("arch", name), told, Option("arch", same[0])))


def _check_heads(name: str, heads: int, widths: Sequence[int]) -> None:
    if any(width % heads for width in widths):
        told = f": heads is {heads}, give a divisor of {' and '.join(map(str, widths))}"
        raise UsageError(Words(Option("arch", name), " ", Option("arch_args"), told))


def _fits(entry: _Entry, widths: tuple[int, ...]) -> bool:
    return entry.widths is None or all(
        want in (0, found) for want, found in zip(entry.widths, widths, strict=True)
    )


# -- families ------------------------------------------------------------------------------


def _classifier(cls: Callable[..., nn.Module], headless: str) -> _Make:
    def make(shape: Any, layers: Layers, options: Mapping[str, Any]) -> nn.Module:
        if not shape.classes:
            told = "the checkpoint has no head.weight; take "
            raise BadInputError(Words(told, Option("arch", headless)))
        return cls(shape, layers, options["heads"], options["scale"])

    return make


def _backbone(shape: Any, layers: Layers, options: Mapping[str, Any]) -> nn.Module:
    return Backbone(shape, layers, options["heads"], options["scale"], options["tap"])


def _encoder(shape: Any, layers: Layers, options: Mapping[str, Any]) -> nn.Module:
    patches = _patches(shape, options["patches"])
    return MaskedAutoencoder(shape, layers, options["heads"], options["scale"], patches)


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


def _base(*widths: int) -> _Entry:
    return _Entry(_BASE, base_shape, BASE, widths)


def _large(*widths: int) -> _Entry:
    return _Entry(_LARGE, large_shape, LARGE, widths)


#: The last of those that read tensors alike takes any widths: errors name the first that fits.
_NETWORKS = {
    "e-spikeformer-t": _base(24, 48, 96, 128),
    "e-spikeformer-s": _base(32, 64, 128, 192),
    "e-spikeformer-m": _base(48, 96, 192, 240),
    "e-spikeformer-l": _base(64, 128, 256, 360),
    "e-spikeformer": _Entry(_BASE, base_shape, BASE),
    "e-spikeformer-dvs": _Entry(
        _classifier(DvsESpikeFormer, "e-spikeformer-backbone"), base_shape, DVS
    ),
    "e-spikeformer-backbone": _Entry(_backbone, base_shape, BACKBONE),
    "e-spikeformer-12-512": _large(128, 256, 512),
    "e-spikeformer-12-768": _large(0, 384, 768),
    "e-spikeformer-large": _Entry(_LARGE, large_shape, LARGE),
    "e-spikeformer-mae": _Entry(_encoder, masked_shape, MASKED),
}
