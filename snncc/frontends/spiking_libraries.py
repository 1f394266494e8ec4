"""Neurons of SpikingJelly and snnTorch as leaves, by qualified name: neither is imported here."""

from __future__ import annotations

from typing import Any

import torch

from snncc.errors import UnsupportedModelError
from snncc.frontends.leaves import StatefulFireSpec, StepSpec, register_leaf

__all__ = ["spiking_jelly"]

_NODES = "spikingjelly.activation_based.neuron"
_OLD_NODES = "spikingjelly.clock_driven.neuron"


def spiking_jelly(m: Any) -> StatefulFireSpec | StepSpec:
    """What an IF, LIF, parametric LIF or I-LIF node of SpikingJelly does.

    In single-step mode it is called once per timestep, and keeps its membrane from call to call.

    Raises:
        UnsupportedModelError: It resets to something but 0, or fires real values.
    """
    neuron = _node_of_spiking_jelly(m)
    is_step = getattr(m, "step_mode", _old_mode(m)) == "s"
    return StepSpec(neuron, alone=True, state="v") if is_step else neuron


def _old_mode(m: Any) -> str:
    """What a class says that is older than the attribute: multi-step ones are called so."""
    is_multi = any(cls.__name__.startswith("MultiStep") for cls in type(m).__mro__)
    return "m" if is_multi else "s"


def _node_of_spiking_jelly(m: Any) -> StatefulFireSpec:
    kind = type(m).__name__
    if m.v_reset not in (None, 0, 0.0):
        raise UnsupportedModelError(
            f"{kind} resets to {m.v_reset}; use v_reset=0.0 (hard) or v_reset=None (soft)"
        )
    fire = getattr(m, "surrogate_function", None)
    if getattr(fire, "spiking", True) is False:
        raise UnsupportedModelError(
            f"{kind} has a surrogate function with spiking=False, which fires real values; "
            "spiking=True"
        )
    leak = _leak(m)
    gain = leak if leak is not None and getattr(m, "decay_input", True) else 1.0
    D = getattr(fire, "max_spike_count", None)
    return StatefulFireSpec(
        D=int(D) if D is not None else 1,
        decay=1.0 - (leak or 0.0),
        gain=gain,
        threshold=float(m.v_threshold),
        rule=">=" if D is None else "half-even",
        reset="soft" if m.v_reset is None else "hard",
        state="v",
    )


def _leak(m: Any) -> float | None:
    """1 / tau, or None of a neuron that does not leak."""
    if (w := getattr(m, "w", None)) is not None:
        return float(torch.sigmoid(w.detach()))
    return 1.0 / float(m.tau) if hasattr(m, "tau") else None


def _unknown(m: Any) -> StatefulFireSpec:
    raise UnsupportedModelError(
        f"{type(m).__name__} is a neuron that snncc does not know; IFNode, LIFNode, "
        "ParametricLIFNode and ILIFNode become spikes"
    )


def snn_torch(m: Any) -> StepSpec:
    """What a Leaky neuron of snnTorch does, called once per timestep.

    Its reset comes a timestep late: U' = beta * U + x - threshold * (U > threshold), after the
    decay. With ``zero`` the decayed membrane is 0 either way, so late is as good as at once.

    Raises:
        UnsupportedModelError: It does something else; all that stands in the way is named.
    """
    if missing := [name for name in _LEAKY if not hasattr(m, name)]:
        raise UnsupportedModelError(f"Leaky lacks {', '.join(missing)}; snnTorch 1.0 is known")
    reset = _RESETS.get(m.state_function.__name__, "none")
    ones = {"beta": m.beta, "threshold": m.threshold}
    faults = [f"one {name} for all neurons" for name, v in ones.items() if v.numel() != 1]
    faults += [
        what
        for what, is_wrong in (
            ("reset_mechanism='subtract' or 'zero'", reset == "none"),
            ("reset_delay=True with 'subtract'", reset == "delayed" and not m.reset_delay),
            ("inhibition=False", m.inhibition),
            ("no state_quant", m.state_quant),
            ("a threshold above 0", bool((m.threshold <= 0).any())),
            ("graded_spikes_factor=1", bool((m.graded_spikes_factor != 1).any())),
        )
        if is_wrong
    ]
    if faults:
        raise UnsupportedModelError(f"snnTorch's Leaky becomes spikes with {', '.join(faults)}")
    beta, threshold = float(m.beta.detach().clamp(0, 1)), float(m.threshold.detach())
    neuron = StatefulFireSpec(decay=beta, gain=1.0, threshold=threshold, rule=">", reset=reset)
    return StepSpec(neuron, alone=m.init_hidden and not m.output)


#: What is read of a Leaky.
_LEAKY = (
    "beta", "threshold", "state_function", "reset_delay", "inhibition", "state_quant",
    "graded_spikes_factor", "init_hidden", "output",
)  # fmt: skip
#: How its membrane goes on, by the method that does it.
_RESETS = {"_base_sub": "delayed", "_base_zero": "hard"}


def _unknown_snn_torch(m: Any) -> StepSpec:
    raise UnsupportedModelError(
        f"snnTorch's {type(m).__name__} is a neuron that snncc does not know; Leaky becomes spikes"
    )


for _path in (
    f"{_NODES}.integrate_and_fire.IFNode",
    f"{_NODES}.lif.LIFNode",
    f"{_NODES}.plif.ParametricLIFNode",
    f"{_NODES}.ilif.ILIFNode",
    # before version 1.0: one module of all neurons, multi-step ones apart
    *(f"{_NODES}.{name}" for name in ("IFNode", "LIFNode", "ParametricLIFNode")),
    *(
        f"{_OLD_NODES}.{steps}{name}"
        for steps in ("", "MultiStep")
        for name in ("IFNode", "LIFNode", "ParametricLIFNode")
    ),
):
    register_leaf(_path, spiking_jelly)
for _path in (f"{_NODES}.base_node.BaseNode", f"{_NODES}.BaseNode", f"{_OLD_NODES}.BaseNode"):
    register_leaf(_path, _unknown)
register_leaf("snntorch._neurons.leaky.Leaky", snn_torch)
register_leaf("snntorch._neurons.neurons.SpikingNeuron", _unknown_snn_torch)
