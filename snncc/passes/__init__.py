"""Graph passes, one file each; ``pipeline`` says their order and why."""

from __future__ import annotations

from collections.abc import Sequence

from snncc.passes.base import Pass, PassManager, PassRecord
from snncc.passes.canonicalise import Canonicalise
from snncc.passes.commute_max_pool import CommuteMaxPool
from snncc.passes.distribute_linear import DistributeLinear
from snncc.passes.fold_batch_norm import FoldBatchNorm
from snncc.passes.fold_padding import FoldPadding
from snncc.passes.fold_scale import FoldScale
from snncc.passes.fold_time import FoldTime
from snncc.passes.lower_to_spikes import LowerToSpikes
from snncc.passes.merge_linear import MergeLinear
from snncc.passes.quantise_input import QuantiseInput
from snncc.passes.quantise_weights import QuantiseWeights
from snncc.passes.recognise_integer_fire import RecogniseIntegerFire
from snncc.passes.require_integer import RequireInteger
from snncc.passes.sparse_to_vanilla_conv import SparseToVanillaConv

__all__ = ["FRONT", "Pass", "PassManager", "PassRecord", "pipeline"]

#: From whatever was imported to a network whose every activation has levels (``check`` stops here).
FRONT: tuple[Pass, ...] = (
    SparseToVanillaConv(),  # what was trained on patches runs on whole images
    FoldTime(),  # T joins the batch: later passes treat timesteps as samples
    Canonicalise(),  # one spelling for each thing: later passes know only that one
    RecogniseIntegerFire(),  # before merge-linear, which would fold a quantiser's own + 0.5
    DistributeLinear(),  # branches of spikes meet in potentials, so that one rule serves all
    FoldPadding(),  # while batch norms stand: the border of BN(0) is zeros ahead of one
    FoldBatchNorm(),  # layers take their batch norm, so that a layer is all there is
    MergeLinear(),  # one layer between two neurons: a membrane potential is one weighted sum
)


def pipeline(source: QuantiseInput, weight_bits: int) -> Sequence[Pass]:
    """All passes from stage ``imported`` to ``spiking``; build-program reads ``quantised``."""
    return (
        *FRONT,
        RequireInteger(),  # fail closed: all that has no spiking form, in one report
        CommuteMaxPool(),  # before levels exist: a pool of spikes is an OR
        source,  # offset and scale of the input enter the first layer while it is float
        FoldScale(),  # norms and 1/N end in weights: only integers travel
        QuantiseWeights(weight_bits),  # the one lossy step on weights; levels from exact fractions
        LowerToSpikes(),  # counts become ticks; validated against the counts
    )
