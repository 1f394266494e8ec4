"""Operators of networks that see some patches of an image, the others masked.

A patch mask [N, 1, h, w] holds 1 for active patches and 0 for masked ones; h divides the height,
w the width of what it masks.
"""

from __future__ import annotations

from snncc.ir.op import F32, I64, U8, Op
from snncc.ir.traits import Numbers, Traits

__all__ = ["SPARSE_OPS"]

#: ``full`` [N, 1, H, W]: each patch of the mask repeated over what it covers of ``y``.
_COVERED = """
    any = Constant <value_ints: ints = [-1]> ()
    one = Constant <value_ints: ints = [1]> ()
    two = Constant <value_ints: ints = [2]> ()
    three = Constant <value_ints: ints = [3]> ()
    four = Constant <value_ints: ints = [4]> ()
    size = Shape (y)
    patches = Shape (mask)
    height = Slice (size, two, three)
    width = Slice (size, three, four)
    h = Slice (patches, two, three)
    w = Slice (patches, three, four)
    rows = Div (height, h)
    columns = Div (width, w)
    apart = Concat <axis: int = 0> (any, one, h, one, w, one)
    patch = Concat <axis: int = 0> (one, one, one, rows, one, columns)
    whole = Concat <axis: int = 0> (any, one, height, width)
    single = Reshape (mask, apart)
    repeated = Expand (single, patch)
    full = Reshape (repeated, whole)
"""

_SPIKE_SPARSE_CONV = Op(
    "SpikeSparseConv",
    "imported",
    "Convolution of X whose output, bias included, is zero in masked patches.",
    {"X": F32, "W": F32, "B": F32, "mask": F32},
    {"Y": F32},
    {"strides": "ints", "pads": "ints", "dilations": "ints", "group": "int"},
    f"""
    y = Conv <strides: ints = @strides, pads: ints = @pads, dilations: ints = @dilations,
              group: int = @group> (X, W, B)
    {_COVERED}
    Y = Mul (y, full)
    """,
    Traits(Numbers.COUNTS, Numbers.POTENTIALS, until="imported", weighs=True, masks=True),
)

_PATCH_MASK = Op(
    "PatchMask",
    "imported",
    "X, zero in masked patches.",
    {"X": F32, "mask": F32},
    {"Y": F32},
    {},
    f"""
    y = Identity (X)
    {_COVERED}
    Y = Mul (y, full)
    """,
    Traits(keeps=(Numbers.POTENTIALS,), becomes="MaskPotential", masks=True, keeps_shape=True),
)

_SOURCE_MASK = Op(
    "SourceMask",
    "integer",
    "Patch mask of a masked input: 1 where the last channel is 0 at the patch's first position.",
    {"Q": U8},
    {"mask": U8},
    {"patches": "ints"},
    """
    start = Constant <value_ints: ints = [-1, 0, 0]> ()
    end = Constant <value_ints: ints = [9223372036854775807, 9223372036854775807,
                                        9223372036854775807]> ()
    axes = Constant <value_ints: ints = [1, 2, 3]> ()
    one = Constant <value_ints: ints = [1]> ()
    two = Constant <value_ints: ints = [2]> ()
    four = Constant <value_ints: ints = [4]> ()
    size = Shape (Q)
    plane = Slice (size, two, four)
    patches = Constant <value_ints: ints = @patches> ()
    patch = Div (plane, patches)
    steps = Concat <axis: int = 0> (one, patch)
    first = Slice (Q, start, end, axes, steps)
    zero = Constant <value: tensor = uint8 {0}> ()
    active = Equal (first, zero)
    mask = Cast <to: int = 2> (active)
    """,
    Traits(Numbers.SOURCE, Numbers.MASK),
)

_MASK_POTENTIAL = Op(
    "MaskPotential",
    "quantised",
    "Membrane potential V, zero in masked patches.",
    {"V": I64, "mask": U8},
    {"Y": I64},
    {},
    f"""
    y = Identity (V)
    {_COVERED}
    wide = Cast <to: int = 7> (full)
    Y = Mul (y, wide)
    """,
    Traits(keeps=(Numbers.POTENTIALS,), masks=True, keeps_shape=True),
)

SPARSE_OPS = (_SPIKE_SPARSE_CONV, _PATCH_MASK, _SOURCE_MASK, _MASK_POTENTIAL)
