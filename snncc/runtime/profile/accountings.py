"""How published papers count operations, so that their figures can be met, and met by ours.

A layer's operations are k k C_in C_out / groups H_out W_out a timestep, padding counted as if it
were there. None of them counts neurons, batch norms, pools, residual sums or memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from snncc.runtime.profile.models import EnergyModel
from snncc.runtime.profile.work import Work

__all__ = ["AccountedAttention", "AccountedLayer", "Operations", "account", "accounted"]


@dataclass(frozen=True)
class AccountedLayer:
    """A convolution or linear layer, as papers see it.

    Attributes:
        name: For people.
        operations: Of all timesteps.
        timesteps: T.
        mean: Of its input per element and timestep: spikes of all its ticks; None: real values.
        is_binary: Whether the input is a train of zeros and ones.
        is_first: Whether it reads the network's input.
    """

    name: str
    operations: int
    timesteps: int = 1
    mean: float | None = None
    is_binary: bool = True
    is_first: bool = False


@dataclass(frozen=True)
class AccountedAttention:
    """Spike-driven attention, (q k^T) v or q (k^T v): two products.

    Attributes:
        name: For people.
        first, second: Multiply-adds of the product that is formed first, and of the other; of all
            timesteps.
        factors: Means of the operands of the first, per element and timestep.
        last: That of the operand that comes in the second.
    """

    name: str
    first: int
    second: int
    factors: tuple[float, float]
    last: float


@dataclass(frozen=True)
class Operations:
    """Of a network: multiply-adds of real values, and additions of spikes."""

    macs: float
    acs: float

    def energy(self, model: EnergyModel) -> float:
        """In pJ."""
        return self.macs * model.mac_pj + self.acs * model.ac_pj


def _spikingformer(layer: AccountedLayer) -> Operations:
    """What is not a train of zeros and ones is multiplied, sums of spikes as well."""
    if layer.mean is None or not layer.is_binary:
        return Operations(layer.operations, 0.0)
    return Operations(0.0, layer.operations * layer.mean)


def _spike_driven(layer: AccountedLayer) -> Operations:
    """The first layer is computed once, whatever T; spikes and sums of them are added."""
    if layer.mean is None:
        return Operations(layer.operations / (layer.timesteps if layer.is_first else 1), 0.0)
    return Operations(0.0, layer.operations * layer.mean)


def _spikeyolo(layer: AccountedLayer) -> Operations:
    """Every layer adds; real values count as one spike each."""
    return Operations(0.0, layer.operations * (1.0 if layer.mean is None else layer.mean))


def _least_of_two(a: AccountedAttention) -> float:
    """Of the first product as many as the sparser factor has, of the second as its operand has."""
    return a.first * min(a.factors) + a.second * a.last


def _all_three(a: AccountedAttention) -> float:
    """T N d^2 times the rates of q, k and v together."""
    return a.first * sum(a.factors) + a.second * a.last


_Layers = Callable[[AccountedLayer], Operations]
_Attentions = Callable[[AccountedAttention], float]
_ACCOUNTINGS: Mapping[str, tuple[_Layers, _Attentions]] = {
    "spikingformer": (_spikingformer, _least_of_two),
    "spike-driven-transformer": (_spike_driven, _all_three),
    "spikeyolo": (_spikeyolo, _least_of_two),
}


def account(
    accounting: str,
    layers: Iterable[AccountedLayer],
    attentions: Iterable[AccountedAttention] = (),
) -> Operations:
    """What a network comes to, by a published accounting."""
    of_layer, of_attention = _ACCOUNTINGS[accounting]
    parts = [of_layer(layer) for layer in layers]
    acs = sum(part.acs for part in parts) + sum(of_attention(a) for a in attentions)
    return Operations(sum(part.macs for part in parts), acs)


def accounted(
    works: Sequence[Work], timesteps: int
) -> tuple[list[AccountedLayer], list[AccountedAttention]]:
    """A compiled network as papers see it."""
    layers = [
        AccountedLayer(
            w.module or w.target, w.padded, timesteps, w.mean_count, w.is_binary,
            is_first=w.reads == "pixels",
        )
        for w in works
        if w.kind in ("conv", "linear", "host")
    ]  # fmt: skip
    operands = [w for w in works if w.kind == "attention"]
    return layers, [_attention(operands[i : i + 3]) for i in range(0, len(operands), 3)]


def _attention(operands: Sequence[Work]) -> AccountedAttention:
    """Of the works of q, k and v; that of the second factor has no products of its own."""
    q, k, v = operands
    one, two, last = (k, v, q) if not v.padded else (q, k, v)
    factors = (one.mean_count or 0.0, two.mean_count or 0.0)
    name = q.module or q.target
    return AccountedAttention(name, one.padded, last.padded, factors, last.mean_count or 0.0)
