"""Neurons in all the spellings that people have for clip(round(x), 0, D)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snncc.ir.ops import DOMAIN

if TYPE_CHECKING:
    from float_networks import Net

__all__ = ["SPELLINGS"]


def _leaf(net: Net, D: int, rounding: str, name: str) -> None:
    net.then("IntegerFire", domain=DOMAIN, module=name, D=D, norm=1.0, rounding=rounding)


def _rounded(net: Net, rounding: str, name: str) -> None:
    if rounding == "half-up":
        net.then("Add", net.const(0.5), module=name).then("Floor", module=name)
    else:
        net.then("Round", module=name)


def _clip(net: Net, low: Any, high: Any, name: str) -> None:
    net.then("Clip", *(net.const(v) for v in (low, high)), module=name)


def _clip_round(net: Net, D: int, rounding: str, name: str) -> None:
    _clip(net, 0, D, name)
    _rounded(net, rounding, name)


def _round_clip(net: Net, D: int, rounding: str, name: str) -> None:
    _rounded(net, rounding, name)
    _clip(net, 0, D, name)


def _floor_clip_half(net: Net, D: int, rounding: str, name: str) -> None:
    """floor(clip(x + 0.5, 0, D)) and, for the other rule, the same order of its steps."""
    if rounding == "half-even":
        return _round_clip(net, D, rounding, name)
    net.then("Add", net.const(0.5), module=name)
    _clip(net, 0, D, name)
    net.then("Floor", module=name)
    return None


def _min_max(net: Net, D: int, rounding: str, name: str) -> None:
    net.then("Min", net.const(D), module=name).then("Max", net.const(0), module=name)
    _rounded(net, rounding, name)


def _max_min(net: Net, D: int, rounding: str, name: str) -> None:
    net.x = net.node("Max", net.const(0), net.x, module=name)
    net.x = net.node("Min", net.const(D), net.x, module=name)
    _rounded(net, rounding, name)


def _relu_min(net: Net, D: int, rounding: str, name: str) -> None:
    net.then("Relu", module=name).then("Clip", "", net.const(D), module=name)
    _rounded(net, rounding, name)


def _round_relu_min(net: Net, D: int, rounding: str, name: str) -> None:
    net.then("Relu", module=name)
    _rounded(net, rounding, name)
    net.then("Min", net.const(D), module=name)


def _detour(net: Net, D: int, rounding: str, name: str) -> None:
    """x + (q - x).detach() with x clamped."""
    _clip(net, 0, D, name)
    x = net.x
    _rounded(net, rounding, name)
    net.x = net.node("Add", x, net.node("Sub", net.x, x, module=name), module=name)


def _detour_back(net: Net, D: int, rounding: str, name: str) -> None:
    """(q - x).detach() + x with x raw."""
    x = net.x
    _round_clip(net, D, rounding, name)
    net.x = net.node("Add", net.node("Sub", net.x, x, module=name), x, module=name)


def _detour_minus(net: Net, D: int, rounding: str, name: str) -> None:
    """x - (x - q).detach()."""
    x = net.x
    _round_clip(net, D, rounding, name)
    net.x = net.node("Sub", x, net.node("Sub", x, net.x, module=name), module=name)


#: How people write clip(round(x), 0, D).
SPELLINGS = {
    "leaf": _leaf,
    "round-of-clip": _clip_round,
    "clip-of-round": _round_clip,
    "floor-of-clip-of-half": _floor_clip_half,
    "max-of-min": _min_max,
    "min-of-max": _max_min,
    "relu-clamp": _relu_min,
    "relu-round-min": _round_relu_min,
    "straight-through": _detour,
    "straight-through-swapped": _detour_back,
    "straight-through-minus": _detour_minus,
}
