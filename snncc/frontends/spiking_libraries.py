"""Neurons of SpikingJelly and snnTorch as leaves, by qualified name: neither is imported here."""

from __future__ import annotations

from typing import Any

import torch

from snncc.errors import UnsupportedModelError
from snncc.frontends.leaves import StatefulFireSpec, register_leaf

__all__ = ["spiking_jelly"]

_NODES = "spikingjelly.activation_based.neuron"
_OLD_NODES = "spikingjelly.clock_driven.neuron"


def spiking_jelly(m: Any) -> StatefulFireSpec:
    """What a multi-step IF, LIF, parametric LIF or I-LIF node of SpikingJelly does.

    Raises:
        UnsupportedModelError: It steps one timestep at a time, or resets to something but 0.
    """
    kind = type(m).__name__
    if getattr(m, "step_mode", "m") != "m":
        raise UnsupportedModelError(
            f"{kind} has step_mode='s', which keeps its membrane between calls; "
            "functional.set_step_mode(net, 'm') and [T, N, ...] through the network"
        )
    if m.v_reset not in (None, 0, 0.0):
        raise UnsupportedModelError(
            f"{kind} resets to {m.v_reset}; use v_reset=0.0 (hard) or v_reset=None (soft)"
        )
    leak = _leak(m)
    gain = leak if leak is not None and getattr(m, "decay_input", True) else 1.0
    fire = getattr(m, "surrogate_function", None)
    D = getattr(fire, "max_spike_count", None)
    return StatefulFireSpec(
        D=int(D) if D is not None else 1,
        decay=1.0 - (leak or 0.0),
        gain=gain,
        threshold=float(m.v_threshold),
        rule=">=" if D is None else "half-even",
        reset="soft" if m.v_reset is None else "hard",
    )


def _leak(m: Any) -> float | None:
    """1 / tau, or None of a neuron that does not leak."""
    if (w := getattr(m, "w", None)) is not None:
        return float(torch.sigmoid(w.detach()))
    return 1.0 / float(m.tau) if hasattr(m, "tau") else None


def _unknown(m: Any) -> StatefulFireSpec:
    raise UnsupportedModelError(
        f"{type(m).__name__} is a neuron that snncc does not know; IFNode, LIFNode, "
        "ParametricLIFNode and ILIFNode become spikes, in multi-step mode"
    )


def _single_step(m: Any) -> StatefulFireSpec:
    raise UnsupportedModelError(
        f"snnTorch's {type(m).__name__} is called once per timestep, so that its membrane runs "
        "through the network's own code; use snncc.nn.LIF, which reads [T, N, ...] at once"
    )


for _path in (
    f"{_NODES}.integrate_and_fire.IFNode",
    f"{_NODES}.lif.LIFNode",
    f"{_NODES}.plif.ParametricLIFNode",
    f"{_NODES}.ilif.ILIFNode",
    # before version 1.0: one module of all neurons, multi-step ones apart
    *(f"{_NODES}.{name}" for name in ("IFNode", "LIFNode", "ParametricLIFNode")),
    *(f"{_OLD_NODES}.MultiStep{name}" for name in ("IFNode", "LIFNode", "ParametricLIFNode")),
):
    register_leaf(_path, spiking_jelly)
for _path in (f"{_NODES}.base_node.BaseNode", f"{_NODES}.BaseNode", f"{_OLD_NODES}.BaseNode"):
    register_leaf(_path, _unknown)
for _name in ("leaky.Leaky", "lapicque.Lapicque", "synaptic.Synaptic", "alpha.Alpha"):
    register_leaf(f"snntorch._neurons.{_name}", _single_step)
