"""What we know of ONNX's own operators: their traits, and the stages that allow them.

Stage ``imported`` allows every standard operator; those of which passes ask nothing have no record.
"""

from __future__ import annotations

from dataclasses import dataclass

from snncc.ir.traits import Numbers, Traits

__all__ = ["DOMAINS", "ROUNDINGS", "STANDARD", "StandardOp"]

#: Those of ONNX itself, and one whose quantisers mean what ONNX's mean.
DOMAINS = ("", "ai.onnx", "com.microsoft")

_COUNTS, _POTENTIALS = Numbers.COUNTS, Numbers.POTENTIALS
_BOTH = (_COUNTS, _POTENTIALS)


@dataclass(frozen=True)
class StandardOp:
    """A standard operator.

    Attributes:
        name: In ONNX's own domain.
        traits: What it does; ``until`` is written out.
    """

    name: str
    traits: Traits

    def __post_init__(self) -> None:
        """Refuse a record that leaves a query without an answer.

        Raises:
            ValueError: Naming the operator and the trait that is missing.
        """
        if not self.traits.until:
            raise ValueError(f"operator '{self.name}': trait 'until' is missing, its last stage")
        if self.traits.emits is None and not self.traits.keeps:
            raise ValueError(f"operator '{self.name}': trait 'emits' is missing, or 'keeps'")


def _layer(becomes: str) -> Traits:
    return Traits(_COUNTS, _POTENTIALS, becomes=becomes, until="integer", weighs=True)


def _imported(*keeps: Numbers, **traits: bool) -> Traits:
    """Of what no stage after ``imported`` allows."""
    emits = None if keeps else Numbers.REAL
    return Traits(emits=emits, keeps=keeps, until="imported", **traits)  # type: ignore[arg-type]


def _rounding(border: float) -> Traits:
    return Traits(
        Numbers.REAL, Numbers.REAL, until="imported", rounds=True, border=border, keeps_shape=True
    )


_RECORDS = (
    StandardOp("Conv", _layer("QConv")),
    StandardOp("Gemm", _layer("QGemm")),
    # of two live values a sum of branches, of one and a constant a shift
    StandardOp("Add", Traits(
        keeps=(_POTENTIALS,), until="spiking", is_affine=True, joins=True, keeps_shape=True
    )),
    StandardOp("Mul", Traits(
        keeps=(_POTENTIALS,), until="integer", is_affine=True, keeps_shape=True
    )),
    StandardOp("MaxPool", Traits(keeps=(_COUNTS,), until="spiking", takes_maximum=True)),
    StandardOp("AveragePool", Traits(
        keeps=_BOTH, until="integer", sums="kernel_shape", averages=True
    )),
    StandardOp("Reshape", Traits(keeps=_BOTH, until="spiking", regroups=True)),
    StandardOp("Flatten", Traits(keeps=_BOTH, until="spiking", regroups=True)),
    # of the input's integers, or of counts that are added up in a wider type
    StandardOp("Cast", Traits(keeps=(_COUNTS,), until="spiking", keeps_shape=True)),
    StandardOp("Squeeze", _imported(_POTENTIALS, regroups=True)),
    StandardOp("Unsqueeze", _imported(_POTENTIALS, regroups=True)),
    StandardOp("Transpose", _imported(_POTENTIALS)),
    StandardOp("Concat", _imported(joins=True)),
    # what layers do not take up of these becomes Mul and Add
    StandardOp("BatchNormalization", _imported(is_affine=True, keeps_shape=True)),
    StandardOp("Sub", _imported(is_affine=True, keeps_shape=True)),
    StandardOp("Div", _imported(is_affine=True, keeps_shape=True)),
    StandardOp("Round", _rounding(0.5)),
    StandardOp("Floor", _rounding(0.0)),
    StandardOp("Ceil", _rounding(0.0)),
    # in steps of its scale, which is another input
    StandardOp("QuantizeLinear", Traits(
        Numbers.REAL, Numbers.REAL, until="imported", rounds=True, keeps_shape=True
    )),
)  # fmt: skip

#: By name.
STANDARD: dict[str, StandardOp] = {op.name: op for op in _RECORDS}
#: What makes whole numbers of real ones, in units of its input.
ROUNDINGS = tuple(op.name for op in _RECORDS if op.traits.border is not None)
