"""What work costs under a model, and what networks that do not spike would take for it.

Four networks are compared, of one shape and under one model:

* the spiking one, which adds a weight to a potential for each spike that crosses a synapse;
* the dense one, which multiplies numbers of the full width, and skips nothing;
* the quantised ANN, whose activations are the spike counts, whole numbers of few bits;
* the same, of which nothing is computed for activations that are 0.

What multiplies pixels or potentials, and sums without weights, cost the same in all four.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from snncc.runtime.profile.accountings import account, accounted
from snncc.runtime.profile.models import EnergyModel
from snncc.runtime.profile.work import Work

__all__ = ["NETWORKS", "Energy", "Neurons", "energy_of", "formula", "published_energy"]

#: Fields of ``Energy``: the networks that are compared.
NETWORKS = ("snn", "dense", "quantised", "quantised_skipping")


@dataclass(frozen=True)
class Energy:
    """Of a layer or a network, in pJ per sample.

    Attributes:
        snn: The spiking network.
        dense: The dense network; None where a paper does not say.
        quantised, quantised_skipping: The quantised ANN, and that which skips zeros.
        rate: Spikes per synapse and tick; None: none arrive.
        break_even: The rate at which the spiking network takes as much as the quantised ANN; below
            it takes less. 0: it never does.
        break_even_skipping: Likewise for that which skips zeros, with as many zeros as here.
    """

    snn: float
    dense: float | None = None
    quantised: float | None = None
    quantised_skipping: float | None = None
    rate: float | None = None
    break_even: float | None = None
    break_even_skipping: float | None = None

    @property
    def least(self) -> str | None:
        """Which network takes least; None where nothing differs, as no spikes arrive."""
        if self.rate is None or self.dense is None:
            return None
        return min(NETWORKS, key=lambda name: float(getattr(self, name)))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "least": self.least}


@dataclass(frozen=True)
class Neurons:
    """Of a layer, per sample.

    Attributes:
        updates: How often one is compared with a level, in the spiking network.
        outputs: Activations of an ANN, in all its passes.
        bits: Of each.
    """

    updates: int = 0
    outputs: int = 0
    bits: int = 0


def energy_of(model: EnergyModel, works: Iterable[Work], neurons: Iterable[Neurons] = ()) -> Energy:
    """What layers take under a model of operations."""
    found, populations = list(works), list(neurons)
    shared = _shared(model, found, passes_of="ann")
    fixed = _shared(model, found, passes_of="snn") + sum(_updates(model, n) for n in populations)
    spikes = sum(w.sops * _crossing(model, w) for w in found)
    most = sum(w.possible * _crossing(model, w) for w in found)
    outputs = sum(_output(model, n, n.bits) for n in populations)
    wide = sum(_output(model, n, model.weight_bits) for n in populations)
    whole = shared + outputs + sum(w.ann_dense * _product(model, w) for w in found)
    skipping = shared + outputs + sum(w.ann_nonzero * _scattered(model, w) for w in found)
    dense = shared + wide + sum(w.ann_dense * _mac(model) for w in found)
    possible = sum(w.possible for w in found)
    return Energy(
        snn=fixed + spikes,
        dense=dense,
        quantised=whole,
        quantised_skipping=skipping,
        rate=sum(w.sops for w in found) / possible if possible else None,
        break_even=max(0.0, whole - fixed) / most if most else None,
        break_even_skipping=max(0.0, skipping - fixed) / most if most else None,
    )


def published_energy(model: EnergyModel, works: Sequence[Work], timesteps: int) -> Energy:
    """What a network takes as a paper counts it."""
    return Energy(account(model.accounting, *accounted(works, timesteps)).energy(model))


# -- what one operation costs --------------------------------------------------------------------


def _mac(model: EnergyModel) -> float:
    """A full multiply-add; with memory both factors are read, and the sum stays at hand."""
    return model.multiply(0) + model.add_pj + 2 * model.moved(model.weight_bits)


def _product(model: EnergyModel, w: Work) -> float:
    """A multiply-add of an activation of few bits, likewise."""
    read = w.activation_bits + (w.partner_bits or model.weight_bits)
    multiplied = model.multiply(w.activation_bits, w.partner_bits)
    return multiplied + model.add_pj + model.moved(read)


def _scattered(model: EnergyModel, w: Work) -> float:
    """The same where activations come as events: the sum is read and written each time."""
    read = w.partner_bits or model.weight_bits
    multiplied = model.multiply(w.activation_bits, w.partner_bits)
    return multiplied + model.add_pj + model.moved(read + 2 * model.state_bits)


def _crossing(model: EnergyModel, w: Work) -> float:
    """A spike that crosses a synapse: a weight is read, a potential is read and written."""
    read = 0 if w.kind == "identity" else w.partner_bits or model.weight_bits
    return model.add_pj + model.moved(read + 2 * model.state_bits)


def _shared(model: EnergyModel, works: Iterable[Work], passes_of: str) -> float:
    """What all networks do alike, in as many passes as each makes."""
    is_ann = passes_of == "ann"
    add = model.add_pj + 2 * model.moved(model.state_bits)
    macs = sum(w.ann_macs if is_ann else w.macs for w in works)
    adds = sum(w.ann_adds if is_ann else w.adds for w in works)
    return macs * _mac(model) + adds * add


def _updates(model: EnergyModel, n: Neurons) -> float:
    """Neurons are compared with a level in each tick; without memory they are left out."""
    each = model.add_pj + 2 * model.moved(model.state_bits)
    return n.updates * each if model.has_memory else 0.0


def _output(model: EnergyModel, n: Neurons, bits: int) -> float:
    """A sum becomes an activation, which is written; without memory they are left out."""
    each = model.multiply(0) + model.add_pj + model.moved(bits)
    return n.outputs * each if model.has_memory else 0.0


# -- in words --------------------------------------------------------------------------------------


def formula(model: EnergyModel) -> dict[str, str]:
    """How energies come about, with the model's constants: a field of ``Energy`` -> what it is."""
    if model.is_published:
        return {"snn": f"MACs x {model.mac_pj:g} + ACs x {model.ac_pj:g}"}
    mac = f"MACs of pixels and potentials x {_mac(model):.4g}"
    of_memory = _with_memory if model.has_memory else _without_memory
    found = of_memory(model)
    return {name: f"{text} + {mac}" if name != "dense" else text for name, text in found.items()}


def _without_memory(model: EnergyModel) -> dict[str, str]:
    add = f"{model.add_pj:g}"
    each = f"({model.multiply_pj:g} x bits / {model.weight_bits} + {add})"
    return {
        "snn": f"SOPs x {add}",
        "dense": f"MACs x {_mac(model):.4g}",
        "quantised": f"MACs x {each}",
        "quantised_skipping": f"MACs of what is not 0 x {each}",
    }


def _with_memory(model: EnergyModel) -> dict[str, str]:
    w, mul, add = model.weight_bits, model.multiply_pj, model.add_pj
    bit, s = model.memory_pj_per_bit, model.state_bits
    kept = f"{add:g} + {bit:g} x ({w} + 2 x {s})"
    few, outputs = f"{mul:g} x bits / {w}", f"outputs x ({mul + add:g} + {bit:g} x "
    return {
        "snn": f"SOPs x ({kept}) + updates x ({add:g} + {bit:g} x 2 x {s})",
        "dense": f"MACs x {_mac(model):.4g} + {outputs}{w})",
        "quantised": f"MACs x ({few} + {add:g} + {bit:g} x ({w} + bits)) + {outputs}bits)",
        "quantised_skipping": f"MACs of what is not 0 x ({few} + {kept}) + {outputs}bits)",
    }
