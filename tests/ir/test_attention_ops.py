"""The operators of attention: one product of three counts, whatever the order and the form."""

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
ORDERS = pytest.mark.parametrize("order", ["kv", "qk"])


def run(name: str, *arrays: Array, **attributes: Any) -> Array:
    """The operator's body, executed."""
    node = helper.make_node(name, list("QKV"), ["Y"], domain=DOMAIN, **attributes)
    given = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in zip("QKV", arrays, strict=True)
    ]
    kind = helper.np_dtype_to_tensor_dtype(
        np.dtype(np.float32 if name == "Attention" else np.int64)
    )
    made = [helper.make_tensor_value_info("Y", kind, None)]
    graph = helper.make_graph([node], "one", given, made)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)]
    functions = [function_of(name)]
    model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10)
    (found,) = session(model, threads=1).run(["Y"], dict(zip("QKV", arrays, strict=True)))
    return np.asarray(found)


@st.composite
def counts(draw: st.DrawFn) -> dict[str, Any]:
    """q, k and v of any sizes, with their heads, order and levels D."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    samples, heads, d, e, n, m = (draw(st.integers(1, top)) for top in (2, 3, 3, 4, 6, 5))
    levels = [draw(st.integers(1, 5)) for _ in range(3)]
    shapes = [(samples, heads * each, p) for each, p in ((d, n), (d, m), (e, m))]
    arrays = [
        rng.integers(0, D + 1, shape).astype(np.uint8)
        for D, shape in zip(levels, shapes, strict=True)
    ]
    order = draw(st.sampled_from(["kv", "qk"]))
    return {"arrays": arrays, "levels": levels, "heads": heads, "order": order}


def product(q: Array, k: Array, v: Array, heads: int) -> Array:
    """(q k^T) v as its definition says it."""
    by_head = [x.reshape(len(x), heads, -1, x.shape[2]).astype(np.int64) for x in (q, k, v)]
    y = np.einsum("bhin,bhim,bhjm->bhjn", *by_head)
    return y.reshape(len(q), v.shape[1], q.shape[2])


def train(a: Array, D: int) -> Array:
    """Spikes first: [D, ...]."""
    return (a[None] > np.arange(D).reshape(-1, *(1,) * a.ndim)).astype(np.uint8)


@settings(max_examples=30)
@given(counts())
def test_all_forms_are_the_same_product(case: dict[str, Any]) -> None:
    arrays, attributes = case["arrays"], {k: case[k] for k in ("heads", "order")}
    expected = product(*arrays, case["heads"])
    floats = [a.astype(np.float32) for a in arrays]
    trains = [train(a, D) for a, D in zip(arrays, case["levels"], strict=True)]
    np.testing.assert_array_equal(run("Attention", *floats, **attributes), expected)
    np.testing.assert_array_equal(run("QAttention", *arrays, **attributes), expected)
    np.testing.assert_array_equal(run("SpikeAttention", *trains, **attributes), expected)


@ORDERS
def test_any_train_is_summed_whenever_its_spikes_come(order: str) -> None:
    rng = np.random.default_rng(0)
    trains = [rng.integers(0, 2, (D, 2, 4, 3)).astype(np.uint8) for D in (3, 5, 4)]
    expected = product(*(t.sum(0) for t in trains), heads=2)
    found = run("SpikeAttention", *trains, heads=2, order=order)
    np.testing.assert_array_equal(found, expected)


@ORDERS
def test_positions_may_be_a_plane(order: str) -> None:
    rng = np.random.default_rng(1)
    q, k, v = (rng.integers(0, 5, s).astype(np.uint8) for s in ((1, 4, 3, 2), *[(1, 4, 2, 2)] * 2))
    found = run("QAttention", q, k, v, heads=2, order=order)
    flat = [x.reshape(1, 4, -1) for x in (q, k, v)]
    np.testing.assert_array_equal(found.reshape(1, 4, -1), product(*flat, heads=2))
    assert found.shape == q.shape


@ORDERS
def test_large_counts_stay_exact(order: str) -> None:
    q, k, v = (np.full((1, 64, p), 255, np.uint8) for p in (2, 200, 200))
    found = run("QAttention", q, k, v, heads=1, order=order)
    assert (found == 64 * 200 * 255**3).all()  # beyond what float32 can count


def test_the_spiking_body_has_no_product_of_counts() -> None:
    """Sums over the ticks before the products would make the comparison with counts vacuous."""
    body = OPS["SpikeAttention"].body
    summed = [line for line in body.splitlines() if "ReduceSum" in line]
    assert summed
    assert all("start_" in line or "now_" in line for line in summed)  # of one tick, or of none
