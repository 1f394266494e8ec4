"""Neurons of SpikingJelly, snnTorch, Norse and sinabs as leaves, by qualified name.

None of these libraries is imported here.
"""

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
    return StepSpec(neuron, alone=True, state=neuron.state) if is_step else neuron


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
    is_cuba = hasattr(m, "c_decay")
    D = getattr(fire, "max_spike_count", None)
    return StatefulFireSpec(
        D=int(D) if D is not None else 1,
        decay=m.v_decay if is_cuba else 1.0 - (leak or 0.0),
        gain=gain,
        threshold=float(m.v_threshold),
        rule=">=" if D is None else "half-even",
        reset="soft" if m.v_reset is None else "hard",
        state="c,v" if is_cuba else "v",
        current=m.c_decay if is_cuba else 0.0,
    )


def _leak(m: Any) -> float | None:
    """1 / tau, or None of a neuron that does not leak."""
    if (w := getattr(m, "w", None)) is not None:
        return float(torch.sigmoid(w.detach()))
    return 1.0 / float(m.tau) if hasattr(m, "tau") else None


#: Why others are none, by class.
_OTHERS = {
    "LIAFNode": "it hands on real values; LIFNode fires",
    "KLIFNode": "it hands on a membrane times k; LIFNode has none",
    "QIFNode": "its membrane grows with its square; LIFNode's decays",
    "EIFNode": "its membrane grows exponentially; LIFNode's decays",
    "IzhikevichNode": "its membrane grows with its square; LIFNode's decays",
    "OTTTLIFNode": "it hands on a trace while it trains; LIFNode with its tau fires the same",
    "GatedLIFNode": "its numbers are trained for each timestep; LIFNode has one of each",
    "PSN": "a timestep of it reads later ones; LIFNode does not",
    "MaskedPSN": "its weights are trained for each timestep; LIFNode has one decay",
    "SlidingPSN": "it sums a window of timesteps; LIFNode has one decay",
}


def _unknown(m: Any) -> StatefulFireSpec:
    kind = type(m).__name__
    if why := _OTHERS.get(kind, ""):
        raise UnsupportedModelError(f"{kind} does not become spikes: {why}")
    raise UnsupportedModelError(
        f"{kind} is a neuron that snncc does not know; IFNode, LIFNode, ParametricLIFNode, "
        "CUBALIFNode and ILIFNode become spikes"
    )


# -- snnTorch --------------------------------------------------------------------------------


def snn_torch(m: Any) -> StepSpec:
    """What a Leaky, Lapicque or Synaptic neuron of snnTorch does, called once per timestep.

    Its reset comes a timestep late: U' = beta * U + x - threshold * (U > threshold), after the
    decay. Without the delay U itself is lowered, but where it stays above the threshold the next
    comparison is lowered as well: a threshold more must be reached. With ``zero`` the decayed
    membrane of a Leaky is 0 either way, so late is as good as at once.

    Raises:
        UnsupportedModelError: It does something else; all that stands in the way is named.
    """
    kind = next(c.__name__ for c in type(m).__mro__ if c.__name__ in _SNN_TORCH)
    if missing := [name for name in _SNN_TORCH[kind] if not hasattr(m, name)]:
        raise UnsupportedModelError(f"{kind} lacks {', '.join(missing)}; snnTorch 1.0 is known")
    late = bool(getattr(m, "reset_delay", True))
    rule = m.state_function.__name__
    # of these the membrane is 0 in the timestep after a spike, whatever arrives
    faults = ["reset_mechanism='subtract'"] * (rule == "_base_zero" and kind != "Leaky" and late)
    if faults := [*faults, *_more_of_snn_torch(m)]:
        raise UnsupportedModelError(f"snnTorch's {kind} becomes spikes with {', '.join(faults)}")
    reset = {"_base_zero": "hard", "_base_int": "none"}.get(rule, "delayed" if late else "raised")
    neuron = StatefulFireSpec(
        threshold=m.threshold, rule=">", reset=reset, **_SNN_TORCH_DECAY[kind](m)
    )
    alone = m.init_hidden and not m.output
    if kind == "Synaptic":
        return StepSpec(neuron, alone, state="syn,mem", states=2)
    return StepSpec(neuron, alone)


def _wide(number: Any) -> torch.Tensor:
    """A number, or those of several neurons, in float64."""
    return torch.as_tensor(number).detach().double()


def _more_of_snn_torch(m: Any) -> list[str]:
    """What else a neuron must be like, that it is not."""
    wanted = {
        "inhibition=False": not m.inhibition,
        "no state_quant": not m.state_quant,
        "a threshold above 0": bool((m.threshold > 0).all()),
        "graded_spikes_factor=1": bool((m.graded_spikes_factor == 1).all()),
    }
    return [what for what, is_so in wanted.items() if not is_so]


def _leaky(m: Any) -> dict[str, Any]:
    return {"decay": m.beta.detach().clamp(0, 1), "gain": 1.0}


def _lapicque(m: Any) -> dict[str, Any]:
    """Forward Euler on a resistor and a capacitor."""
    leak, gain = m.time_step / (m.R * m.C), m.R * (1 / (m.R * m.C)) * m.time_step
    return {"decay": 1 - _wide(leak), "gain": _wide(gain)}


def _synaptic(m: Any) -> dict[str, Any]:
    return {**_leaky(m), "current": m.alpha.detach().clamp(0, 1)}


_SNN_TORCH_DECAY = {"Leaky": _leaky, "Lapicque": _lapicque, "Synaptic": _synaptic}
_READ = (
    "beta", "threshold", "state_function", "inhibition", "state_quant", "graded_spikes_factor",
    "init_hidden", "output",
)  # fmt: skip
#: What is read of each class.
_SNN_TORCH = {
    "Leaky": (*_READ, "reset_delay"),
    "Lapicque": (*_READ, "R", "C", "time_step"),
    "Synaptic": (*_READ, "reset_delay", "alpha"),
}
#: Why others are none, by class.
_OTHERS_OF_SNN_TORCH = {
    "Alpha": "its membrane is the difference of two currents; Synaptic has one",
    "RLeaky": "its spikes come back into it a timestep later; Leaky has no such connection",
    "RSynaptic": "its spikes come back into it a timestep later; Synaptic has no such connection",
    "SLSTM": "its states are products of real values; Leaky has none",
    "SConv2dLSTM": "its states are products of real values; Leaky has none",
}


def _unknown_snn_torch(m: Any) -> StepSpec:
    kind = type(m).__name__
    if why := _OTHERS_OF_SNN_TORCH.get(kind, ""):
        raise UnsupportedModelError(f"snnTorch's {kind} does not become spikes: {why}")
    raise UnsupportedModelError(
        f"snnTorch's {kind} is a neuron that snncc does not know; Leaky, Lapicque and Synaptic "
        "become spikes"
    )


# -- Norse -----------------------------------------------------------------------------------


def norse(m: Any) -> StatefulFireSpec | StepSpec:
    """What Norse's LIF, LIFBox or IAF does, a cell called once per timestep or a whole one.

    With a current I' = (1 - dt / tau_syn) * I + x that the membrane is drawn towards; LIFBox has
    none, and IAF has no leak. Spikes are fired above the threshold.

    Raises:
        UnsupportedModelError: It rests at, or resets to, something but 0.
    """
    kind, p = type(m).__name__, m.p
    wrong = [
        n for n in ("v_leak", "v_reset") if bool((torch.as_tensor(getattr(p, n, 0)) != 0).any())
    ]
    if wrong:
        raise UnsupportedModelError(f"Norse's {kind} becomes spikes with {'=0, '.join(wrong)}=0")
    leak = _wide(m.dt * p.tau_mem_inv) if hasattr(p, "tau_mem_inv") else None
    current: Any = 1 - _wide(m.dt * p.tau_syn_inv) if hasattr(p, "tau_syn_inv") else 0.0
    kept: dict[str, Any] = {"decay": 1.0, "gain": 1.0}
    kept = kept if leak is None else {"decay": 1 - leak, "gain": leak}
    lowered = getattr(getattr(p, "reset_method", None), "__name__", "") == "reset_subtract"
    neuron = StatefulFireSpec(
        **kept,
        threshold=p.v_th,
        rule=">",
        reset="soft" if lowered else "hard",
        current=current,
        hands_on=True,
    )
    return StepSpec(neuron, state="") if kind.endswith("Cell") else neuron


def _unknown_norse(m: Any) -> StepSpec:
    kind = type(m).__name__
    why = "a neuron that snncc does not know"
    if kind.startswith("LI") and not kind.startswith("LIF"):
        why = "a membrane without spikes, of which nothing can be summed tick by tick; a linear "
        why += "layer over the spikes, and its mean over T,"
        raise UnsupportedModelError(f"Norse's {kind} is {why} becomes a readout")
    if "Recurrent" in kind or kind.startswith("LSNN"):
        why = "a neuron whose spikes come back into it a timestep later"
    known = "LIF, LIFCell, LIFBoxCell, IAF and IAFCell become spikes"
    raise UnsupportedModelError(f"Norse's {kind} is {why}; {known}")


# -- sinabs ----------------------------------------------------------------------------------


def sinabs(m: Any) -> StatefulFireSpec:
    """What an IAF or LIF layer of sinabs does, on [N, T, ...] or, squeezed, on [N * T, ...].

    Raises:
        UnsupportedModelError: It does something else; all that stands in the way is named.
    """
    kind, squeezed = type(m).__name__, hasattr(m, "num_timesteps")
    most = _spikes_of_sinabs(m.spike_fn)
    least, resting = getattr(m, "min_v_mem", None), getattr(m.reset_fn, "reset_value", None)
    taken = getattr(m.reset_fn, "subtract_value", None)
    faults = [
        what
        for what, is_wrong in (
            ("spike_fn=SingleSpike or MaxSpike(n)", most is None),
            ("min_v_mem=None", least is not None),
            ("reset_value=0", resting not in (None, 0)),
            (
                "no subtract_value of its own",
                taken is not None and taken != float(m.spike_threshold),
            ),
            ("num_timesteps=T", squeezed and m.num_timesteps < 1),
        )
        if is_wrong
    ]
    if faults:
        raise UnsupportedModelError(f"sinabs' {kind} becomes spikes with {', '.join(faults)}")
    decay: Any = _wide(m.alpha_mem_calculated)
    gain: Any = 1 - decay if m.norm_input else 1.0
    current = m.alpha_syn_calculated
    alpha: Any = 0.0 if current is None else _wide(current)
    return StatefulFireSpec(
        D=most or 1,
        decay=decay,
        gain=gain * (1.0 if current is None else alpha),  # I' = alpha * (I + x)
        threshold=m.spike_threshold,
        reset="soft" if resting is None else "hard",
        state="v_mem" if current is None else "i_syn,v_mem",
        axes="N*T" if squeezed else "N,T",
        T=m.num_timesteps if squeezed else 0,
        current=alpha,
    )


def _spikes_of_sinabs(spike_fn: Any) -> int | None:
    """How many spikes it fires at most in a timestep; None: any number, or none."""
    if getattr(spike_fn, "__name__", "") == "SingleSpike":
        return 1
    most = getattr(spike_fn, "max_num_spikes_per_bin", None)
    return None if most is None else int(most)


def _unknown_sinabs(m: Any) -> StatefulFireSpec:
    raise UnsupportedModelError(
        f"sinabs' {type(m).__name__} is a neuron that snncc does not know; IAF, LIF, "
        "IAFSqueeze and LIFSqueeze become spikes"
    )


# -- by name ---------------------------------------------------------------------------------

for _path in (
    f"{_NODES}.integrate_and_fire.IFNode",
    f"{_NODES}.lif.LIFNode",
    f"{_NODES}.plif.ParametricLIFNode",
    f"{_NODES}.ilif.ILIFNode",
    f"{_NODES}.lif_variants.CUBALIFNode",
    f"{_NODES}.integrate_and_fire.SimpleIFNode",
    f"{_NODES}.lif.SimpleLIFNode",
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
for _path in ("lif_variants.LIAFNode", "lif_variants.GatedLIFNode", "online_learning.OTTTLIFNode"):
    register_leaf(f"{_NODES}.{_path}", _unknown)
for _path in ("PSN", "MaskedPSN", "SlidingPSN"):
    register_leaf(f"{_NODES}.psn.{_path}", _unknown)
for _path in ("leaky.Leaky", "lapicque.Lapicque", "synaptic.Synaptic"):
    register_leaf(f"snntorch._neurons.{_path}", snn_torch)
for _path in ("rleaky.RLeaky", "rsynaptic.RSynaptic"):  # some are subclasses of the others
    register_leaf(f"snntorch._neurons.{_path}", _unknown_snn_torch)
register_leaf("snntorch._neurons.neurons.SpikingNeuron", _unknown_snn_torch)
for _path in ("lif.LIF", "lif.LIFCell", "lif_box.LIFBoxCell", "iaf.IAF", "iaf.IAFCell"):
    register_leaf(f"norse.torch.module.{_path}", norse)
for _path in ("SNN", "SNNCell", "SNNRecurrent", "SNNRecurrentCell"):
    register_leaf(f"norse.torch.module.snn.{_path}", _unknown_norse)
for _path in ("iaf.IAF", "iaf.IAFSqueeze", "lif.LIF", "lif.LIFSqueeze"):
    register_leaf(f"sinabs.layers.{_path}", sinabs)
for _path in (
    *("stateful_layer.StatefulLayer", "iaf.IAFRecurrent", "lif.LIFRecurrent"),
    *("alif.ALIF", "alif.ALIFRecurrent", "exp_leak.ExpLeak", "exp_leak.ExpLeakSqueeze"),
):
    register_leaf(f"sinabs.layers.{_path}", _unknown_sinabs)
