"""Graph passes, one file each; ``pipeline`` says their order and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from snncc.passes.base import Pass, PassManager, PassRecord
from snncc.passes.fold.commute_max_pool import CommuteMaxPool
from snncc.passes.fold.fold_batch_norm import FoldBatchNorm
from snncc.passes.fold.fold_padding import FoldPadding
from snncc.passes.fold.fold_scale import FoldScale
from snncc.passes.fold.keep_mask import KeepMask
from snncc.passes.fold.merge_linear import MergeLinear
from snncc.passes.fold.sparse_to_vanilla_conv import SparseToVanillaConv
from snncc.passes.integers.choose_bits import LOW, ChooseBits
from snncc.passes.integers.fit_weights import Fit
from snncc.passes.integers.quantise_input import QuantiseInput
from snncc.passes.integers.quantise_weights import QuantiseWeights
from snncc.passes.judge.require_integer import RequireInteger
from snncc.passes.recognise.canonicalise import Canonicalise
from snncc.passes.recognise.distribute_linear import DistributeLinear
from snncc.passes.recognise.recognise_fixed_map import RecogniseFixedMap
from snncc.passes.recognise.recognise_gate import RecogniseGate
from snncc.passes.recognise.recognise_integer_fire import RecogniseIntegerFire
from snncc.passes.recognise.recognise_qdq import RecogniseQdq
from snncc.passes.recognise.recognise_sum import RecogniseSum
from snncc.passes.spikes.lower_to_spikes import LowerToSpikes
from snncc.passes.time.fold_time import FoldTime
from snncc.passes.tokens.recognise_attention import RecogniseAttention

__all__ = ["FRONT", "Pass", "PassManager", "PassRecord", "front", "pipeline", "to_integer"]

_MERGE = MergeLinear()
_TO_LEVELS: tuple[Pass, ...] = (
    RecogniseFixedMap(only_features=True),  # votes and population codes are layers, over time, too
    FoldTime(),  # T joins the batch: later passes treat timesteps as samples
    Canonicalise(),  # one spelling for each thing: later passes know only that one
    RecogniseQdq(),  # quantisers of other tools, before their scales look like layers' own
    RecogniseIntegerFire(),  # before merge-linear, which would fold a quantiser's own + 0.5
    RecogniseAttention(),  # while norms are neurons' own: after it there are maps alone, no tokens
    RecogniseFixedMap(),  # what is left of reshapes and sums that no other pass knows
    RecogniseGate(),  # when all that fires is known, and tokens are maps
    RecogniseSum(),  # layers read a residual stream once, whatever its depth
    DistributeLinear(),  # branches of spikes meet in potentials, so that one rule serves all
    FoldPadding(),  # while batch norms stand: the border of BN(0) is zeros before one
    FoldBatchNorm(),  # layers take their batch norm, so that a layer is all there is
    _MERGE,  # one layer between two neurons, where two cost more: a potential is a weighted sum
)
#: What runs on whole images; see ``front``.
FRONT: tuple[Pass, ...] = (SparseToVanillaConv(), *_TO_LEVELS)


def front(masked: bool = False, merge: MergeLinear = _MERGE) -> tuple[Pass, ...]:
    """From whatever was imported to a network whose every activation has levels.

    ``check`` stops here.

    Args:
        masked: What was trained on patches runs on patches: the patch mask is an input.
        merge: With what was chosen for layers with no neuron between.
    """
    # The mask comes first, as it is an input of its own.
    return (KeepMask() if masked else FRONT[0], *FRONT[1:-1], merge)


def to_integer(
    source: QuantiseInput, masked: bool = False, merge: MergeLinear = _MERGE
) -> tuple[Pass, ...]:
    """From stage ``imported`` to ``integer``, in which every layer reads integers.

    Args:
        source: How the input becomes integers.
        masked: See ``front``.
        merge: See ``front``.
    """
    return (
        *front(masked, merge),
        RequireInteger(),  # fail closed: all that has no spiking form, in one report
        CommuteMaxPool(),  # before levels exist: a pool of spikes is an OR
        source,  # offset and scale of the input enter the first layer while it is float
        FoldScale(),  # norms and 1/N end in weights: only integers travel
    )


def pipeline(
    source: QuantiseInput,
    weight_bits: int | str,
    feeds: Mapping[str, Any] | None = None,
    fit: Fit | None = None,
    masked: bool = False,
    merge: MergeLinear = _MERGE,
) -> Sequence[Pass]:
    """All passes from stage ``imported`` to ``spiking``; build-program reads ``quantised``.

    Args:
        source: How the input becomes integers.
        weight_bits: 4 to 24; or ``auto``, of each layer by what changes on ``feeds``.
        feeds: Calibration data; ``auto`` needs it.
        fit: Data to choose weights with, if any.
        masked: See ``front``.
        merge: See ``front``.
    """
    choose: tuple[Pass, ...] = ()
    if isinstance(weight_bits, str):
        weight_bits, choose = LOW, (ChooseBits(feeds or {}, fit),)
    return (
        *to_integer(source, masked, merge),
        *choose,  # while everything is float: each layer's change can be measured alone
        QuantiseWeights(weight_bits, fit),  # the one lossy step on weights; exact levels
        LowerToSpikes(),  # counts become ticks; validated against the counts
    )
