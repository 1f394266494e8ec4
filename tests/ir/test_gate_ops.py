"""The operators of gates and sums: one product and one sum, in floats, in counts and in ticks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from snncc.ir.ops import DOMAIN, OPS, OPSET, VERSION, function_of
from snncc.ir.oracle import session

Array = np.ndarray


def run(name: str, *arrays: Array, **attributes: Any) -> Array:
    """The operator's body, executed."""
    kinds = [helper.np_dtype_to_tensor_dtype(a.dtype) for a in arrays]
    given = [
        helper.make_tensor_value_info(n, k, a.shape)
        for n, k, a in zip("AB", kinds, arrays, strict=True)
    ]
    (types,) = OPS[name].outputs.values()
    dtype = {"tensor(float)": np.float32, "tensor(int64)": np.int64}.get(types[0], np.uint8)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    made = [helper.make_tensor_value_info("Y", kind, None)]
    node = helper.make_node(name, ["A", "B"], ["Y"], domain=DOMAIN, **attributes)
    graph = helper.make_graph([node], "one", given, made)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)]
    functions = [function_of(name)]
    model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10)
    (found,) = session(model, threads=1).run(["Y"], dict(zip("AB", arrays, strict=True)))
    return np.asarray(found)


def train(a: Array, D: int) -> Array:
    """Spikes first: [D, ...]."""
    return (a[None] > np.arange(D).reshape(-1, *(1,) * a.ndim)).astype(np.uint8)


@st.composite
def counts(draw: st.DrawFn) -> tuple[Array, Array, int, int]:
    """Counts of two trains of D and E ticks; one of them may have one number a channel."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    D, E = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    shape = (draw(st.integers(1, 2)), *(draw(st.integers(1, 3)) for _ in range(3)))
    shapes = [shape, (*shape[:2], 1, 1) if draw(st.booleans()) else shape]
    one, two = shapes if draw(st.booleans()) else shapes[::-1]
    a, b = (rng.integers(0, n + 1, s).astype(np.uint8) for n, s in ((D, one), (E, two)))
    return a, b, D, E


@settings(max_examples=60)
@given(counts(), st.sampled_from(["and", "and-not"]))
def test_all_forms_are_the_same_product(case: tuple[Array, Array, int, int], kind: str) -> None:
    a, b, D, E = case
    wide = a.astype(np.int64) * (b if kind == "and" else E - b.astype(np.int64))
    settings: dict[str, Any] = {"kind": kind, "most": E}
    floats = [x.astype(np.float32) for x in (a, b)]
    np.testing.assert_array_equal(run("Gate", *floats, **settings), wide)
    np.testing.assert_array_equal(run("CountGate", a, b, **settings), wide)
    ticks = run("SpikeGate", train(a, D), train(b, E), **settings)
    assert ticks.shape == (max(D, E), *wide.shape)
    np.testing.assert_array_equal(ticks.sum(0), wide)


@pytest.mark.parametrize("kind", ["and", "and-not"])
def test_of_one_tick_a_gate_is_an_and(kind: str) -> None:
    a, b = (np.array([bits], np.uint8)[None] for bits in ([0, 0, 1, 1], [0, 1, 0, 1]))
    expected = a & (b if kind == "and" else 1 - b)
    np.testing.assert_array_equal(run("SpikeGate", a, b, kind=kind, most=1), expected)


def test_spikes_meet_what_came_before_them() -> None:
    """Spikes of A in ticks 0, 1 and of B in tick 1: 2 * 1, all of it emitted in tick 1."""
    a, b = (np.array(bits, np.uint8).reshape(3, 1, 1) for bits in ([1, 1, 0], [0, 1, 0]))
    ticks = run("SpikeGate", a, b, kind="and", most=0)
    assert ticks.ravel().tolist() == [0, 2, 0]


def test_sums_hold_more_than_a_byte() -> None:
    a = np.full((1, 2), 255, np.uint8)
    one = run("CountSum", a, a)
    assert one.dtype == np.int64
    assert one.tolist() == [[510, 510]]
    np.testing.assert_array_equal(run("CountSum", one, a), [[765, 765]])
