"""What Lava's side knows of each kind of node, one module each; ``base`` says what that is."""

from __future__ import annotations

from collections.abc import Mapping

from snncc.backends.lava.kinds.accumulator import ACCUMULATOR
from snncc.backends.lava.kinds.attention import ATTENTION
from snncc.backends.lava.kinds.base import Kind
from snncc.backends.lava.kinds.gate import GATE
from snncc.backends.lava.kinds.neuron import NEURON
from snncc.backends.lava.kinds.pool import POOL
from snncc.backends.lava.kinds.readout import READOUT
from snncc.backends.lava.kinds.relay import RELAY
from snncc.backends.lava.kinds.source import SOURCE
from snncc.backends.lava.kinds.sum import SUM
from snncc.program import (
    Accumulator,
    Attention,
    Gate,
    Neuron,
    Node,
    Pool,
    Readout,
    Relay,
    Source,
    Sum,
)

__all__ = ["KINDS"]

#: A kind that is not here is an error that names it.
KINDS: Mapping[type[Node], Kind] = {
    Source: SOURCE,
    Accumulator: ACCUMULATOR,
    Neuron: NEURON,
    Pool: POOL,
    Relay: RELAY,
    Attention: ATTENTION,
    Gate: GATE,
    Sum: SUM,
    Readout: READOUT,
}
