"""Masks in the passes: where they go, what they let through, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from float_networks import imported
from masked_networks import MaskedCase, MaskedNet, masked_lowered

from snncc.errors import UnsupportedModelError
from snncc.ir.graphs import nodes
from snncc.ir.oracle import evaluate
from snncc.passes import KeepMask, PassManager, QuantiseInput, RequireInteger, front
from snncc.passes.fold.merge_linear import MergeLinear
from snncc.passes.fold.no_neuron_between import MERGE
from snncc.passes.spikes.build_program import build_program
from snncc.program import Accumulator, Program

SOURCE = QuantiseInput((1 / 64,), (-1.3,))


def net() -> MaskedNet:
    """An image of 6x8 pixels, two channels, in 3x4 patches."""
    return MaskedNet((2, 6, 8), (3, 4), rms=2.0)


def case_of(made: MaskedNet, samples: int = 3) -> MaskedCase:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (samples, *made.input)).astype(np.uint8)
    mask = rng.integers(0, 2, (samples, 1, *made.patches)).astype(np.uint8)
    return MaskedCase(made, SOURCE, pixels, mask)


def to_levels(made: MaskedNet) -> ir.Model:
    """In stage ``integer``, every pass checked under random masks."""
    passes = (*front(masked=True), RequireInteger())
    return PassManager(passes, case_of(made).feeds).run(imported(made))


def lowered(made: MaskedNet, bits: int = 12) -> Program:
    return build_program(masked_lowered(case_of(made), bits).stages["quantised"], "net")


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph if node.op_type not in ("Shape", "Reshape")]


def masks(program: Program) -> dict[str, tuple[int, int] | None]:
    return {a.name: a.masked for a in program.accumulators}


# -- where masks go -------------------------------------------------------------------------


def test_a_convolution_and_its_batch_norm_fold_under_one_mask() -> None:
    made = net().sparse_conv(3)
    made.batch_norm()
    made.mask().fire()
    model = to_levels(made)
    assert kinds(model) == ["PatchMask", "Conv", "PatchMask", "IntegerFire"]


def test_masks_that_repeat_through_several_norms_are_one() -> None:
    made = net().sparse_conv(3)
    made.batch_norm().affine("Mul", 0.5)
    made.mask().affine("Add", 0.25)
    made.mask().fire()
    assert kinds(to_levels(made)).count("PatchMask") == 2  # one of the image


def test_a_value_between_two_masks_is_renamed_because_it_changes() -> None:
    made = net().sparse_conv(3)
    made.batch_norm()
    made.mask().fire()
    model = imported(made)
    before = {str(v.name) for n in model.graph for v in n.outputs}
    assert KeepMask().run(model) == 2
    after = {str(v.name) for n in model.graph for v in n.outputs}
    assert before - after == {"sparse2", "bn3"}
    assert after - before == {"sparse2/whole", "bn3/whole"}


def test_a_mask_that_something_else_reads_stays() -> None:
    made = net().sparse_conv(3)
    masked = made.x
    made.batch_norm()
    made.mask().add(masked)
    made.fire()
    model = imported(made)
    assert KeepMask().run(model) == 1
    assert kinds(model).count("PatchMask") == 3


@pytest.mark.parametrize("negative", [False, True])
def test_behind_a_plain_batch_norm_masked_patches_keep_its_shift(negative: bool) -> None:
    """Its scale, of any sign, joins the layer; its shift, there in all patches, the levels."""
    made = net().sparse_conv(3)
    made.batch_norm(negative)
    made.fire(6)
    model = to_levels(made)
    assert kinds(model) == ["PatchMask", "Conv", "PatchMask", "Add", "IntegerFire"]
    case = case_of(made)
    stages = masked_lowered(case, 24).stages
    trained = evaluate(imported(made), case.feeds)[str(imported(made).graph.outputs[0].name)]
    found = next(iter(evaluate(stages["quantised"], case.feeds).values()))
    assert np.mean(trained != found) < 1e-3
    hidden = np.broadcast_to(case.mask.repeat(2, 2).repeat(2, 3) == 0, found.shape)
    assert found[hidden].any()  # BN(0) fires


def test_ahead_of_a_pool_the_mask_stays_ahead() -> None:
    made = net().sparse_conv(3)
    made.pool("AveragePool", (2, 2)).fire()
    program = lowered(made)
    assert [a.masked for a in program.accumulators] == [(3, 4), None]


# -- the Program ----------------------------------------------------------------------------


def test_masked_branches_stay_apart_and_unmasked_ones_dissolve() -> None:
    made = net().sparse_conv(3)
    stream = made.x
    made.fire().conv(3, 3, pads=1)
    made.add(stream)
    made.fire()
    program = lowered(made)
    assert list(masks(program).values()) == [(3, 4), None]
    last = program.accumulators[1]
    assert [p.kind for p in last.projections] == ["conv", "identity"]


def test_a_potential_that_is_read_masked_and_whole_has_two_accumulators() -> None:
    made = net()
    made.conv(3, 3, pads=1)
    whole = made.x
    made.mask()
    made.fire()
    made.sparse_conv(3)
    made.add(whole)
    made.fire()
    found = lowered(made).accumulators
    assert [a.masked for a in found] == [None, (3, 4), (3, 4), None]
    copy = found[1]
    assert [(p.source, p.kind) for p in copy.projections] == [(found[0].name, "identity")]
    assert isinstance(copy, Accumulator)
    assert not copy.bias.any()


def test_the_source_has_pixels_and_planes() -> None:
    made = net()
    made.sparse_conv(3).fire()
    program = lowered(made)
    assert program.source.shape == (4, 6, 8)
    (projection,) = program.accumulators[0].projections
    pixels, planes = np.split(projection.total(), 2, axis=1)
    steps = np.rint(pixels * 1.3 * 64 / 255)  # offset over 255 scale
    assert np.abs(planes - steps).max() <= 1


# -- what is refused ------------------------------------------------------------------------


def spikes(made: MaskedNet) -> None:
    made.sparse_conv(3).fire()
    made.mask()
    made.flatten().linear(2)


def chained(made: MaskedNet) -> None:
    made.sparse_conv(3)
    made.sparse_conv(3).fire()


def shifted_sum(made: MaskedNet) -> None:
    made.sparse_conv(3)
    first = made.x
    made.fire().sparse_conv(3)
    made.add(first)
    made.batch_norm()
    made.mask().fire()


@pytest.mark.parametrize(
    ("author", "what"),
    [
        (spikes, "masks what is no membrane potential; SparseBatchNorm2d after SpikeSparseConv2d"),
        (chained, "follows a linear layer without a neuron between"),
        (shifted_sum, "is shifted before a patch mask; a layer right before it"),
    ],
)
def test_a_mask_that_spikes_cannot_keep_is_refused(
    author: Callable[[MaskedNet], None], what: str
) -> None:
    made = net()
    author(made)
    with pytest.raises(UnsupportedModelError, match=what):
        PassManager((*front(True, MergeLinear(MERGE)), RequireInteger())).run(imported(made))


@pytest.mark.parametrize("between", ["AveragePool", "Flatten"])
def test_only_convolutions_read_the_masked_image(between: str) -> None:
    made = net()
    if between == "Flatten":
        made.flatten().linear(3).fire()
    else:
        made.pool(between)
        made.conv(3).fire()
    with pytest.raises(UnsupportedModelError, match="a convolution right after the input"):
        masked_lowered(case_of(made), 8)


def test_a_single_tap_under_a_mask_keeps_its_bias_out_of_the_levels() -> None:
    """One weight per output is the threshold itself, and its bias a shift, which masks forbid."""
    made = net()
    made.sparse_conv(3).fire()
    made.conv(3, 1, group=3)
    made.mask()
    made.fire()
    last = lowered(made).accumulators[-1]
    assert last.masked == (3, 4)
    assert last.bias.any()


def test_without_masks_the_pass_does_nothing() -> None:
    model = imported(net())
    assert KeepMask().run(model) == 0
    assert len(list(nodes(model, "PatchMask"))) == 1
