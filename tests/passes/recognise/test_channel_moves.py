"""Laws of moved channels: layers read the values that channels come from, exactly."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantised_networks import normal, parsed, run

import snncc
from snncc.passes.recognise.channel_moves import moved_channels

F = np.float32
RNG = np.random.default_rng(6)
NEURON = """
    xq = QuantizeLinear (x, si, zi)  xd = DequantizeLinear (xq, si, zi)
    c = Conv <pads: ints = [1, 1, 1, 1]> (xd, w)
    q = QuantizeLinear (c, t, zt)  a = DequantizeLinear (q, t, zt)
"""
LAST = """
    u = Conv <pads: ints = [1, 1, 1, 1], group: int = GROUP> (m, v)
    q2 = QuantizeLinear (u, t2, zt)  a2 = DequantizeLinear (q2, t2, zt)
    f = Flatten (a2)  y = Gemm <transB: int = 1> (f, h)
"""
CONSTANTS = {
    "si": F(0.02), "zi": np.uint8(127), "t": F(0.2537), "t2": F(0.611), "zt": np.uint8(0),
    "w": RNG.integers(-7, 8, (4, 2, 3, 3)).astype(F) / 16, "one": np.array([1]),
    "zero": np.array([0]), "two": np.array([2]), "minus": np.array([-1]), "low": np.array([-9]),
    "apart": np.array([0, 2, 2, 4, 4]), "map": np.array([0, 4, 4, 4]), "h": None,
    "order": np.array([3, 0, 2, 1]),
}  # fmt: skip
SHUFFLE = """r = Reshape (a, apart)  o = Transpose <perm: ints = [0, 2, 1, 3, 4]> (r)
             m = Reshape (o, map)"""
MOVES = {
    "a shuffle": (SHUFFLE, 4),
    "some, and all again": ("s = Slice (a, zero, two, one)  m = Concat <axis: int = 1> (a, s)", 6),
    "two halves, exchanged": ("l, n = Split <axis: int = 1, num_outputs: int = 2> (a)"
                              "  m = Concat <axis: int = 1> (n, l)", 4),
    "another order": ("m = Gather <axis: int = 1> (a, order)", 4),
    "from the last to the first": ("m = Slice (a, minus, low, one, minus)", 4),
}  # fmt: skip


def file_of(folder, moves: str, channels: int, group: int = 1):
    weights = RNG.integers(-7, 8, (channels * 2, channels // group, 3, 3)).astype(F) / 16
    given = {**CONSTANTS, "v": weights, "h": RNG.normal(size=(5, channels * 32)).astype(F)}
    body = NEURON + moves + LAST.replace("GROUP", str(group))
    onnx.save(parsed(body, "float[N,5] y", **given), folder / "net.onnx")
    return folder / "net.onnx"


@pytest.mark.parametrize("is_grouped", [False, True])
@pytest.mark.parametrize("case", MOVES)
def test_a_layer_over_moved_channels_reads_where_they_come_from(tmp_path, case, is_grouped):
    moves, channels = MOVES[case]
    path = file_of(tmp_path, moves, channels, 2 if is_grouped else 1)
    x = normal(6, 3, (2, 4, 4))
    model = snncc.compile(path, x, weight_bits=24)
    y, expected = snncc.Session(model).run(None, {"x": x})[0], run(path, x)
    assert np.abs(y - expected).max() <= 1e-5 * np.abs(expected).max()
    assert not model.report.verify.mismatched
    assert not model.report.verify.coverage.silent


@settings(max_examples=25)
@given(st.lists(st.sampled_from([2, 3, 4, 6]), min_size=1, max_size=4))
def test_places_are_what_the_moves_say(sizes):
    """Groups of any size, exchanged, in any number of steps."""
    channels, lines, x = 12, [], "x"
    order = np.arange(channels)
    for i, size in enumerate(sizes):
        shape, back = [0, size, channels // size, 2, 2], [0, channels, 2, 2]
        lines.append(f"s{i} = Constant <value_ints: ints = {shape}> ()")
        lines.append(f"b{i} = Constant <value_ints: ints = {back}> ()")
        lines.append(f"r{i} = Reshape ({x}, s{i})")
        lines.append(f"t{i} = Transpose <perm: ints = [0, 2, 1, 3, 4]> (r{i})")
        lines.append(f"m{i} = Reshape (t{i}, b{i})")
        order, x = order.reshape(size, -1).T.reshape(-1), f"m{i}"
    text = "\n".join([*lines, f"y = Identity ({x})"])
    head = '<ir_version: 10, opset_import: ["": 21]> g (float[N,12,2,2] x) => (float[N,12,2,2] y)'
    proto = onnx.parser.parse_model(f"{head} {{ {text} }}")
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    moved = moved_channels(next(n for n in model.graph if n.op_type == "Identity").inputs[0])
    assert moved is not None
    assert [place for _, place in moved] == order.tolist()
    assert {value.name for value, _ in moved} == {"x"}
