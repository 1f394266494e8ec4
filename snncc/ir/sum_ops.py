"""Sums of spikes: what two trains come to, number by number, as one stream that layers read.

Spikes of both count the same; their bursts have the same number of ticks.
"""

from __future__ import annotations

from snncc.ir.op import COUNTS, F32, I64, Op
from snncc.ir.traits import Numbers, Traits

__all__ = ["SUM_OPS"]

_TRAIN_SUM = Op(
    "TrainSum",
    "imported",
    "The sum of two spike trains, or of sums of such: counts that layers read once.",
    {"A": F32, "B": F32},
    {"Y": F32},
    {},
    """
    Y = Add (A, B)
    """,
    Traits(keeps=(Numbers.COUNTS,), becomes="CountSum", joins=True, keeps_shape=True),
)

_COUNT_SUM = Op(
    "CountSum",
    "quantised",
    "The sum of spike counts; tick by tick in the spiking stage, where ticks are samples.",
    {"A": COUNTS, "B": COUNTS},
    {"Y": I64},
    {},
    """
    a = Cast <to: int = 7> (A)
    b = Cast <to: int = 7> (B)
    Y = Add (a, b)
    """,
    Traits(keeps=(Numbers.COUNTS,), joins=True, keeps_shape=True),
)

SUM_OPS = (_TRAIN_SUM, _COUNT_SUM)
