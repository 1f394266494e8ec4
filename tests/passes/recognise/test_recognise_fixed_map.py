"""Laws of fixed maps: what only moves, adds and scales features is one layer, exactly."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantised_networks import normal, parsed, run

import snncc
from snncc.compiler import check
from snncc.frontends.onnx_file import import_onnx
from snncc.ir.exact import Exact
from snncc.ir.graphs import nodes
from snncc.ir.oracle import evaluate
from snncc.passes import PassManager, RecogniseFixedMap
from snncc.passes.recognise.recognise_fixed_map import _exact

F = np.float32
RNG = np.random.default_rng(5)
NEURON = """
    xq = QuantizeLinear (x, si, zi)  xd = DequantizeLinear (xq, si, zi)
    c = Conv <pads: ints = [1, 1, 1, 1]> (xd, w)
    q = QuantizeLinear (c, t, zt)  a = DequantizeLinear (q, t, zt)
"""
CONSTANTS = {
    "si": F(0.02), "zi": np.uint8(127), "t": F(0.25), "zt": np.uint8(0), "one": np.array([1]),
    "w": RNG.integers(-7, 8, (3, 2, 3, 3)).astype(F) / 16, "two": np.array([2]),
    "apart": np.array([0, 12, 4]), "flat": np.array([-1, 48]), "begin": np.array([3]),
    "end": np.array([40]), "order": np.array([5, 5, 0, 47]),
    "h": RNG.normal(size=(5, 48)).astype(F),
    "h12": RNG.normal(size=(5, 12)).astype(F),
}  # fmt: skip
#: What votes and codes are written with, and how many results they have.
MAPS = {
    "votes": ("f = Flatten (a)  u = Unsqueeze (f, one)"
              "  p = AveragePool <kernel_shape: ints = [4], strides: ints = [4]> (u)"
              "  y = Squeeze (p, one)", 12),
    "a population code": ("f = Flatten (a)  r = Reshape (f, apart)"
                          "  y = ReduceSum <keepdims: int = 0> (r, two)", 12),
    "a mean of groups": ("f = Flatten (a)  r = Reshape (f, apart)"
                         "  y = ReduceMean <keepdims: int = 0> (r, one)", 4),
    "slices": ("f = Flatten (a)  y = Slice (f, begin, end, one)", 37),
    "some, some twice": ("f = Flatten (a)  y = Gather <axis: int = 1> (f, order)", 4),
    "channels last": ("o = Transpose <perm: ints = [0, 2, 3, 1]> (a)  f = Reshape (o, flat)"
                      "  y = Gemm <transB: int = 1> (f, h)", 5),
    "an average of uneven windows":
        ("p = AveragePool <kernel_shape: ints = [3, 3], strides: ints = [2, 2],"
         " pads: ints = [1, 1, 1, 1]> (a)  f = Flatten (p)"
         "  y = Gemm <transB: int = 1> (f, h12)", 5),
}  # fmt: skip


def file_of(folder, body: str, results: int):
    model = parsed(NEURON + body, f"float[N,{results}] y", **CONSTANTS)
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


@pytest.mark.parametrize("case", MAPS)
def test_a_map_of_features_is_a_layer(tmp_path, case):
    path, x = file_of(tmp_path, *MAPS[case]), normal(8, 3, (2, 4, 4))
    model = snncc.compile(path, x, weight_bits=24)
    y, expected = snncc.Session(model).run(None, {"x": x})[0], run(path, x)
    assert np.abs(y - expected).max() <= 1e-5 * np.abs(expected).max()
    assert len(model.program.neurons) == 1
    assert not model.report.verify.coverage.silent


def test_a_map_that_mixes_samples_stays_refused(tmp_path):
    body = "f = Flatten (a)  m = ReduceMean <keepdims: int = 1> (f, zero)  y = Add (f, m)"
    CONSTANTS["zero"] = np.array([0])
    assert check(file_of(tmp_path, body, 48)).faults


def test_shares_are_the_fractions_that_they_mean():
    matrix = np.array([[0, 1 / 3, 2 / 3], [0.1, 0.1, 0], [0, 0, 0], [1 / 49, 3 / 49, 1]], F)
    found = _exact(matrix).moved(lambda v: v)
    rows = [Exact(found.values[i : i + 1], found.units[i : i + 1]) for i in range(4)]
    assert [row.fractions() for row in rows] == [
        (0, Fraction(1, 3), Fraction(2, 3)), (Fraction(1, 10), Fraction(1, 10), 0), (0, 0, 0),
        (Fraction(1, 49), Fraction(3, 49), 1),
    ]  # fmt: skip


STEPS = st.lists(
    st.sampled_from(["turn", "reverse", "cut", "halve", "twice", "scale", "add", "pairs"]),
    min_size=1, max_size=5,
)  # fmt: skip


def written(steps: list[str]) -> tuple[str, dict[str, np.ndarray], int]:
    """The steps as ONNX text over features f, their constants, and how many features are left."""
    lines, constants, x, n = ["f0 = Flatten (a)"], {"e1": np.array([1])}, "f0", 48
    for i, step in enumerate(steps):
        out, c = f"f{i + 1}", f"k{i}"
        if step == "turn":
            constants |= {c: np.array([0, 2, n // 2]), f"{c}b": np.array([-1, n // 2 * 2])}
            lines.append(f"{out}a = Reshape ({x}, {c})")
            lines.append(f"{out}b = Transpose <perm: ints = [0, 2, 1]> ({out}a)")
            lines.append(f"{out} = Reshape ({out}b, {c}b)")
        elif step == "reverse":
            constants[c] = np.arange(n)[::-1].copy()
            lines.append(f"{out} = Gather <axis: int = 1> ({x}, {c})")
        elif step == "cut":
            constants |= {c: np.array([0]), f"{c}b": np.array([n - 2])}
            lines.append(f"{out} = Slice ({x}, {c}, {c}b, e1)")
            n -= 2
        elif step == "halve":
            constants |= {c: np.array([0, n // 2, 2]), f"{c}b": np.array([2])}
            lines.append(f"{out}a = Reshape ({x}, {c})")
            lines.append(f"{out} = ReduceMean <keepdims: int = 0> ({out}a, {c}b)")
            n //= 2
        elif step == "twice":
            lines.append(f"{out} = Concat <axis: int = 1> ({x}, {x})")
            n *= 2
        elif step == "scale":
            constants[c] = np.asarray(0.25, F)
            lines.append(f"{out} = Mul ({x}, {c})")
        elif step == "add":
            lines.append(f"{out} = Add ({x}, {x})")
        else:
            constants |= {c: np.array([0]), f"{c}b": np.array([n // 2]), f"{c}c": np.array([n])}
            lines.append(f"{out}a = Slice ({x}, {c}, {c}b, e1)")
            lines.append(f"{out}b = Slice ({x}, {c}b, {c}c, e1)")
            lines.append(f"{out} = Sub ({out}a, {out}b)")
            n //= 2
        x = out
        if n % 2:  # pairs are wanted
            constants |= {f"{c}z": np.array([0]), f"{c}y": np.array([n - 1])}
            lines.append(f"{x}e = Slice ({x}, {c}z, {c}y, e1)")
            x, n = f"{x}e", n - 1
        if n < 4:
            break
    lines.append(f"y = Identity ({x})")
    return "\n".join(lines), constants, n


@settings(max_examples=30)
@given(steps=STEPS)
def test_any_chain_of_moves_and_sums_is_what_it_was(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("maps")
    body, more, count = written(steps)
    model = parsed(NEURON + body, f"float[N,{count}] y", **{**CONSTANTS, **more})
    onnx.save(model, folder / "net.onnx")
    x, before = normal(6, 2, (2, 4, 4)), import_onnx(folder / "net.onnx")
    after = PassManager((RecogniseFixedMap(),), feeds={"x": x}).run(before)
    (one,), (two,) = (evaluate(m, {"x": x}).values() for m in (before, after))
    assert np.abs(one - two).max() <= 1e-5 * max(np.abs(one).max(), 1)
    assert _left(after) <= {"Reshape", "Flatten"} or not set(steps) - {"scale", "add", "twice"}


def _left(model: ir.Model) -> set[str]:
    """What is left between the neuron and the result, but for the layer."""
    parts = ("Slice", "Gather", "Transpose", "ReduceMean", "Sub", "Reshape", "Flatten")
    return {node.op_type for node in nodes(model, *parts)}
