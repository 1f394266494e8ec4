"""How many bits the weights of each layer have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from snncc.errors import Option, UsageError, Words
from snncc.ir.metadata import LAYER_BITS

__all__ = ["Precision"]


@dataclass(frozen=True)
class Precision:
    """Weight bits, for all layers and for single ones.

    Attributes:
        bits: Of all layers that are not named.
        layers: By the name of a layer's result value.

    Raises:
        UsageError: Bits outside 4 to 24.
    """

    bits: int = 16
    layers: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for bits in (self.bits, *self.layers.values()):
            if not 4 <= bits <= 24:
                raise UsageError(Words(Option("weight_bits", bits), ": 4 to 24 are possible"))

    def of(self, *names: str) -> int:
        """Bits of layers that share a grid: the most that any of them has."""
        return max(self.layers.get(name, self.bits) for name in names)

    def write(self, model: ir.Model) -> None:
        """Let the model say the bits of its layers."""
        model.metadata_props[LAYER_BITS] = json.dumps(dict(self.layers))

    @staticmethod
    def read(model: ir.Model, bits: int) -> Precision:
        """``bits``, and what the model says of single layers."""
        return Precision(bits, json.loads(model.metadata_props.get(LAYER_BITS, "{}")))
