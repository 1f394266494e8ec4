from __future__ import annotations

import subprocess
import sys
from itertools import product
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.helper
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from snncc.ir.ops import DOMAIN, OPS, OPSET, VERSION, function_of, register_schemas
from snncc.ir.oracle import session

Array = np.ndarray
RNG = st.integers(0, 2**16).map(np.random.default_rng)

#: One example of every operator: attributes and input arrays.
EXAMPLES: dict[str, tuple[dict[str, Any], list[Array]]] = {
    "IntegerFire": ({"D": 4, "norm": 1.0, "rounding": "half-even"}, [np.zeros((1, 2), np.float32)]),
    "QuantizeInput": (
        {"zero_point": 0, "top": 255},
        [np.zeros((1, 2), np.float32), *np.ones((2, 1, 1), np.float32)],
    ),
    "OnGrid": ({}, [np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32)]),
    "FireCount": ({}, [np.zeros((1, 2), np.int64), np.zeros((1, 3), np.int64)]),
    "IFSoftReset": ({}, [np.zeros((1, 2), np.int64), np.zeros((2, 3), np.int64)]),
    "SpikeSum": ({}, [np.zeros((3, 1, 2), np.int32)]),
    "QConv": (
        {"strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1], "group": 1},
        [np.zeros((1, 1, 2, 2), np.uint8), np.zeros((1, 1, 1, 1), np.int8)],
    ),
    "SpikeSparseConv": (
        {"strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1], "group": 1},
        [np.zeros(shape, np.float32) for shape in ((1, 1, 2, 2), (1, 1, 1, 1), (1,), (1, 1, 2, 1))],
    ),
    "PatchMask": ({}, [np.zeros((1, 1, 2, 2), np.float32), np.ones((1, 1, 1, 2), np.float32)]),
    "SourceMask": ({"patches": [1, 2]}, [np.zeros((1, 2, 2, 2), np.uint8)]),
    "MaskPotential": ({}, [np.zeros((1, 1, 2, 2), np.int64), np.ones((1, 1, 1, 2), np.uint8)]),
    "QGemm": ({}, [np.zeros((1, 2), np.uint8), np.zeros((3, 2), np.int8)]),
    "SliceSum": (
        {"slice": 1, "shift": 2},
        [np.zeros((1, 2), np.int64), np.zeros((1, 2), np.int32)],
    ),
    "SumPool": (
        {"kernel_shape": [1, 1], "strides": [1, 1], "pads": [0] * 4},
        [np.zeros((1, 1, 2, 2), np.float32)],
    ),
    "StatefulFire": (
        {"T": 2, "D": 1, "decay": [0.5], "gain": 1.0, "threshold": 1.0, "norm": 1.0,
         "rule": ">=", "reset": "soft", "current": [0.5]},
        [np.zeros((2, 3), np.float32)],
    ),
    "Attention": (
        {"heads": 2, "order": "kv"}, [np.zeros((1, 4, c), np.float32) for c in (3, 2, 2)]
    ),
    "QAttention": (
        {"heads": 2, "order": "qk"}, [np.zeros((1, 4, c), np.uint8) for c in (3, 2, 2)]
    ),
    "SpikeAttention": (
        {"heads": 2, "order": "kv"}, [np.zeros((2, 1, 4, c), np.uint8) for c in (3, 2, 2)]
    ),
    "MaxPotential": (
        {"kernel_shape": [1, 1], "strides": [1, 1], "pads": [0] * 4},
        [np.zeros((1, 1, 2, 2), np.int64)],
    ),
    "PayloadDigit": ({"place": 1}, [np.zeros((1, 3), np.int64)]),
    "CoarsePotential": ({"drop": 3}, [np.array([[-5, 4, 2**40]], np.int64)]),
    "Gate": ({"kind": "and", "most": 0}, [np.zeros((1, 3), np.float32)] * 2),
    "CountGate": ({"kind": "and-not", "most": 2}, [np.zeros((1, 3), np.uint8)] * 2),
    "SpikeGate": ({"kind": "and", "most": 0}, [np.zeros((2, 1, 3), np.uint8)] * 2),
    "TrainSum": ({}, [np.zeros((1, 3), np.float32)] * 2),
    "CountSum": ({}, [np.zeros((1, 3), np.uint8)] * 2),
    "Repeat": ({"T": 2}, [np.zeros((1, 3), np.float32)]),
    "TimeFirst": ({"T": 2}, [np.zeros((1, 2, 3), np.float32)]),
    "TimeSum": ({"T": 2}, [np.zeros((2, 3), np.float32)]),
    "StatefulFireCount": (
        {"T": 2, "numerator": [1], "shift": 1, "fraction": 1, "reset": "hard", "current": [0],
         "current_shift": 0},
        [np.zeros((2, 3), np.int64), np.zeros((1, 2), np.int64), np.ones((1, 1), np.int64)],
    ),
    "StatefulIF": (
        {"T": 2, "numerator": [1], "shift": 1, "fraction": 1, "reset": "soft", "current": [1],
         "current_shift": 2},
        [np.zeros((2, 3), np.int64), np.zeros((3, 2), np.int64), np.ones((3, 1), np.int64)],
    ),
}  # fmt: skip


def model_of(name: str, attributes: dict[str, Any], *arrays: Array) -> onnx.ModelProto:
    """A graph of one node; the dtype of its output is whatever the operator makes."""
    names = list(OPS[name].inputs)
    node = onnx.helper.make_node(name, names, ["out"], domain=DOMAIN, **attributes)
    kinds = [onnx.helper.np_dtype_to_tensor_dtype(a.dtype) for a in arrays]
    (allowed,) = OPS[name].outputs.values()
    kind = next((k for k in kinds if _TYPES[k] in allowed), None) if len(allowed) > 1 else None
    kind = kind or next(k for k, text in _TYPES.items() if text == allowed[0])
    rank = arrays[0].ndim + _RANK.get(name, 0)
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [onnx.helper.make_tensor_value_info(n, k, a.shape)
         for n, k, a in zip(names, kinds, arrays, strict=True)],
        [onnx.helper.make_tensor_value_info("out", kind, [None] * rank)],
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(DOMAIN, VERSION)]
    return onnx.helper.make_model(
        graph, opset_imports=opsets, functions=[function_of(name)], ir_version=10
    )


_RANK = {"TimeFirst": -1, "IFSoftReset": 1, "StatefulIF": 1, "SpikeSum": -1, "SpikeAttention": -1}
_TYPES = {
    TensorProto.FLOAT: "tensor(float)",
    TensorProto.UINT8: "tensor(uint8)",
    TensorProto.INT32: "tensor(int32)",
    TensorProto.INT64: "tensor(int64)",
    TensorProto.INT8: "tensor(int8)",
}


def run(name: str, *arrays: Array, **attributes: Any) -> Array:
    model = model_of(name, attributes, *arrays)
    feeds = dict(zip(OPS[name].inputs, arrays, strict=True))
    (out,) = session(model, threads=1).run(["out"], feeds)
    return np.asarray(out)


# -- schemas -------------------------------------------------------------------------------


def check(model: onnx.ModelProto) -> None:
    register_schemas()
    onnx.checker.check_model(model, full_check=True)


def test_what_is_imported_first_does_not_matter() -> None:
    """Ours is not the only Attention: a process may run a network, and compile one after that."""
    code = "import snncc.ir.ops as o; o.register_schemas(); import onnxscript.optimizer"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_operator_has_an_example() -> None:
    assert set(EXAMPLES) == set(OPS)


@pytest.mark.parametrize("name", OPS)
def test_the_checker_accepts_the_operator_and_it_runs(name: str) -> None:
    attributes, arrays = EXAMPLES[name]
    check(model_of(name, attributes, *arrays))
    run(name, *arrays, **attributes)


@pytest.mark.parametrize(
    ("name", "attribute"),
    [(op.name, a) for op in OPS.values() for a in op.attributes if a not in op.optional],
)
def test_the_checker_wants_every_attribute(name: str, attribute: str) -> None:
    attributes, arrays = EXAMPLES[name]
    given = {k: v for k, v in attributes.items() if k != attribute}
    with pytest.raises(onnx.checker.ValidationError, match=attribute):
        check(model_of(name, given, *arrays))


def test_the_unit_of_a_neuron_may_be_left_out() -> None:
    attributes, arrays = EXAMPLES["IntegerFire"]
    for chosen in (attributes, {**attributes, "unit": "1/3"}):
        check(model_of("IntegerFire", chosen, *arrays))
        run("IntegerFire", *arrays, **chosen)


@pytest.mark.parametrize("name", OPS)
def test_the_checker_knows_no_other_attribute(name: str) -> None:
    attributes, arrays = EXAMPLES[name]
    with pytest.raises(onnx.checker.ValidationError, match="surprise"):
        check(model_of(name, {**attributes, "surprise": 1}, *arrays))


@pytest.mark.parametrize("name", OPS)
def test_the_operator_says_what_it_does(name: str) -> None:
    assert OPS[name].doc
    assert function_of(name).doc_string == OPS[name].doc


# -- bodies against numpy ------------------------------------------------------------------


@settings(max_examples=20)
@given(RNG, st.integers(1, 15), st.sampled_from([1.0, 4.0, 0.3]))
def test_integer_fire_clips_rounds_and_divides(
    rng: np.random.Generator, D: int, norm: float
) -> None:
    x = (rng.integers(-8, 4 * D + 8, (3, 7)) / 4).astype(np.float32)
    even = run("IntegerFire", x, D=D, norm=norm, rounding="half-even")
    up = run("IntegerFire", x, D=D, norm=norm, rounding="half-up")
    np.testing.assert_array_equal(even, np.clip(np.rint(x), 0, D) / np.float32(norm))
    np.testing.assert_array_equal(up, np.clip(np.floor(x + 0.5), 0, D) / np.float32(norm))


@settings(max_examples=20)
@given(RNG)
def test_quantize_input_is_the_nearest_step(rng: np.random.Generator) -> None:
    x = rng.normal(0, 2, (2, 3, 4, 4)).astype(np.float32)
    scale, offset = (rng.uniform(0.01, 0.1, (1, 3, 1, 1)).astype(np.float32) for _ in range(2))
    zero = int(rng.integers(0, 100))
    q = run("QuantizeInput", x, scale, offset, zero_point=zero, top=200)
    assert q.dtype == np.uint8
    np.testing.assert_array_equal(q, np.clip(np.rint((x - offset) / scale) + zero, 0, 200))


@st.composite
def potentials_and_levels(draw: st.DrawFn) -> tuple[Array, Array]:
    rng, D = draw(RNG), draw(st.integers(1, 15))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 4)), *draw(st.sampled_from([(), (3, 2)])))
    spread = int(draw(st.sampled_from([10, 1000, 2**40])))
    rows = draw(st.sampled_from([1, shape[1]]))
    levels = np.sort(rng.integers(-spread, spread, (rows, D)), axis=1)
    v = rng.integers(-spread, spread, shape)
    pick = rng.random(shape) < 0.3  # meet levels exactly, and miss them by one
    met = levels.ravel()[rng.integers(0, levels.size, shape)] - rng.integers(0, 2, shape)
    return np.where(pick, met, v).astype(np.int64), levels.astype(np.int64)


def count(v: Array, levels: Array) -> Array:
    table = levels.reshape(levels.shape[0], *(1,) * (v.ndim - 2), -1)
    return np.asarray((v[..., None] >= table).sum(-1))


@settings(max_examples=40)
@given(potentials_and_levels())
def test_fire_count_is_the_number_of_levels_reached(drawn: tuple[Array, Array]) -> None:
    v, levels = drawn
    a = run("FireCount", v, levels)
    assert a.dtype == np.uint8
    np.testing.assert_array_equal(a, count(v, levels))


@settings(max_examples=40)
@given(potentials_and_levels())
def test_soft_reset_fires_as_often_as_levels_are_reached(drawn: tuple[Array, Array]) -> None:
    v, levels = drawn
    spikes = run("IFSoftReset", v, levels)
    assert spikes.dtype == np.uint8
    assert spikes.shape == (levels.shape[1], *v.shape)
    np.testing.assert_array_equal(spikes.sum(0), count(v, levels))


@settings(max_examples=20)
@given(potentials_and_levels())
def test_a_burst_starts_at_tick_0_and_has_no_gaps(drawn: tuple[Array, Array]) -> None:
    spikes = run("IFSoftReset", *drawn).astype(np.int64)
    assert (np.diff(spikes, axis=0) <= 0).all()
    assert set(np.unique(spikes)) <= {0, 1}


def test_spike_sum_adds_the_ticks() -> None:
    x = np.random.default_rng(0).integers(-9, 9, (5, 2, 3, 4)).astype(np.int32)
    np.testing.assert_array_equal(run("SpikeSum", x), x.sum(0))


@given(RNG, st.integers(0, 2), st.integers(0, 12))
@settings(max_examples=10)
def test_slice_sum_adds_in_radix_256(rng: np.random.Generator, place: int, shift: int) -> None:
    base = rng.integers(-(2**40), 2**40, (2, 3))
    acc = rng.integers(-(2**31), 2**31, (2, 3)).astype(np.int32)
    v = run("SliceSum", base, acc, slice=place, shift=shift)
    np.testing.assert_array_equal(v, base + acc.astype(np.int64) * 256**place * 2**shift)


@given(RNG)
@settings(max_examples=10)
def test_q_gemm_is_the_product_of_integers(rng: np.random.Generator) -> None:
    a = rng.integers(0, 256, (3, 200)).astype(np.uint8)
    w = rng.integers(-127, 128, (4, 200)).astype(np.int8)
    np.testing.assert_array_equal(run("QGemm", a, w), a.astype(int) @ w.astype(int).T)


@st.composite
def geometries(draw: st.DrawFn) -> dict[str, Any]:
    pair = st.tuples(st.integers(1, 2), st.integers(1, 2)).map(list)
    pads = draw(st.tuples(*[st.integers(0, 2)] * 4).map(list))
    return {"strides": draw(pair), "pads": pads}


@settings(max_examples=30)
@given(RNG, geometries(), st.sampled_from([(1, 1), (2, 1), (2, 2)]), st.sampled_from([1, 2]))
def test_q_conv_is_the_convolution_of_integers(
    rng: np.random.Generator, geometry: dict[str, Any], dilations: tuple[int, int], group: int
) -> None:
    a = rng.integers(0, 256, (2, 2 * group, 5, 6)).astype(np.uint8)
    w = rng.integers(-127, 128, (3 * group, 2, 2, 3)).astype(np.int8)
    more = {"dilations": list(dilations), "group": group}
    y = run("QConv", a, w, **geometry, **more)
    np.testing.assert_array_equal(y, naive_conv(a, w, **geometry, **more))


def test_q_conv_takes_sums_of_counts() -> None:
    a = np.full((1, 1, 2, 2), 1000, dtype=np.int64)
    w = np.full((1, 1, 2, 2), -7, dtype=np.int8)
    y = run("QConv", a, w, strides=[1, 1], pads=[0] * 4, dilations=[1, 1], group=1)
    assert y.tolist() == [[[[-28000]]]]


def naive_conv(
    a: Array, w: Array, strides: list[int], pads: list[int], dilations: Any, group: int
) -> Array:
    top, left, bottom, right = pads
    x = np.pad(a.astype(np.int64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    outs, ins, kh, kw = w.shape
    (sh, sw), (dh, dw) = strides, dilations
    h = (x.shape[2] - dh * (kh - 1) - 1) // sh + 1
    wide = (x.shape[3] - dw * (kw - 1) - 1) // sw + 1
    y = np.zeros((len(a), outs, h, wide), np.int64)
    for o, c, i, j in product(range(outs), range(ins), range(kh), range(kw)):
        source = x[:, o // (outs // group) * ins + c]
        taps = source[:, i * dh : i * dh + sh * h : sh, j * dw : j * dw + sw * wide : sw]
        y[:, o] += int(w[o, c, i, j]) * taps[:, :h, :wide]
    return y


@settings(max_examples=30)
@given(RNG, geometries(), st.sampled_from([np.int64, np.float32]))
def test_sum_pool_adds_windows_with_zeros_around(
    rng: np.random.Generator, geometry: dict[str, Any], dtype: Any
) -> None:
    x = rng.integers(-(2**12), 2**12, (2, 3, 5, 6)).astype(dtype)
    y = run("SumPool", x, kernel_shape=[3, 3], **geometry)
    assert y.dtype == dtype
    ones = np.repeat(np.ones((1, 1, 3, 3), np.int64), 3, axis=0)
    np.testing.assert_array_equal(y, naive_conv(x, ones, dilations=(1, 1), group=3, **geometry))


def test_sum_pool_of_integers_is_exact_beyond_float() -> None:
    x = np.array([[[[2**53, 1], [-(2**60), 2**40 + 1]]]], dtype=np.int64)
    y = run("SumPool", x, kernel_shape=[2, 2], strides=[1, 1], pads=[0] * 4)
    assert y.item() == 2**53 + 1 - 2**60 + 2**40 + 1


@settings(max_examples=20)
@given(st.integers(0, 99), st.booleans())
def test_a_maximum_of_potentials_is_padded_with_the_least(seed: int, floats: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(-(2**40), -1, (2, 3, 5, 4)).astype(np.float32 if floats else np.int64)
    geometry = {"strides": [2, 1], "pads": [1, 0, 1, 2], "kernel_shape": [2, 3]}
    y = run("MaxPotential", x, **geometry)
    assert y.dtype == x.dtype
    wide = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (0, 2)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(wide, (2, 3), (2, 3))[:, :, ::2]
    np.testing.assert_array_equal(y, windows.max(axis=(4, 5)))


# -- neurons with a memory -----------------------------------------------------------------


def test_repeat_shows_the_same_input_in_all_timesteps() -> None:
    x = np.arange(12, dtype=np.uint8).reshape(2, 3, 2)
    np.testing.assert_array_equal(run("Repeat", x, T=3), np.concatenate([x, x, x]))


def test_time_first_lays_sequences_out_timestep_by_timestep() -> None:
    x = np.random.default_rng(0).integers(0, 9, (3, 4, 2, 5)).astype(np.uint8)
    y = run("TimeFirst", x, T=4)
    np.testing.assert_array_equal(y, x.swapaxes(0, 1).reshape(12, 2, 5))


def test_time_sum_adds_the_timesteps() -> None:
    x = np.random.default_rng(0).integers(-9, 9, (6, 2, 3))
    np.testing.assert_array_equal(run("TimeSum", x, T=3), x.reshape(3, 2, 2, 3).sum(0))


def fired(h: Array, D: int, rule: str) -> Array:
    """Spikes at relative potentials h."""
    if rule == ">":
        return np.asarray(h > 1, np.float32)
    if rule == ">=":
        return np.asarray(np.floor(np.clip(h, 0, D)))
    u = np.clip(h, 0, D)
    return np.asarray(np.rint(u) if rule == "half-even" else np.floor(u + np.float32(0.5)))


RESETS = ("soft", "hard", "delayed", "raised")


def kept(h: Array, s: Array, taken: Array, reset: str) -> Array:
    """What stays of a membrane."""
    if reset == "hard":
        return np.where(s == 0, h, 0)
    return h if reset in ("delayed", "none") else h - taken


@settings(max_examples=50)
@given(
    RNG, st.sampled_from([">=", ">", "half-even", "half-up"]), st.sampled_from([*RESETS, "none"]),
    st.sampled_from([[0.0], [0.5], [0.5, 0.0, 0.25, 0.5, 1.0]]),
    st.sampled_from([[0.5], [0.5, 0.25, 0.0, 1.0, 0.5]]),
)  # fmt: skip
def test_stateful_fire_charges_fires_and_resets(
    rng: np.random.Generator, rule: str, reset: str, current: list[float], decay: list[float]
) -> None:
    reset = "soft" if reset == "raised" and rule.startswith("half") else reset
    is_one = rule == ">" or reset == "raised"
    T, D = int(rng.integers(1, 5)), 1 if is_one else int(rng.integers(1, 8))
    x = (rng.integers(-8, 4 * D + 8, (T, 2, 5)) / 4).astype(np.float32)
    more = {"decay": decay, "gain": 0.25, "threshold": 2.0, "norm": 4.0}
    more |= {"rule": rule, "reset": reset, "current": current}
    y = run("StatefulFire", x.reshape(-1, 5), T=T, D=D, **more)
    v = owed = flow = np.zeros((2, 5), np.float32)
    for i in range(T):
        flow = np.float32(current) * flow + x[i]
        h = np.float32(decay) * v + np.float32(0.25) * flow
        raised = fired(v / 2, D, rule) * np.float32(2 * (reset == "raised"))
        h = h - owed
        s = fired((h - raised) / 2, D, rule)
        v, owed = kept(h, s, 2 * s, reset), 2 * s * (reset == "delayed")
        np.testing.assert_array_equal(y.reshape(x.shape)[i], s / 4)


@st.composite
def memories(draw: st.DrawFn) -> tuple[Array, Array, Array, dict[str, Any]]:
    """Potentials of T timesteps that meet levels, signed and with dyadic decay."""
    rng, T, D = draw(RNG), draw(st.integers(1, 4)), draw(st.integers(1, 6))
    shift, fraction = draw(st.integers(0, 3)), draw(st.integers(0, 6))
    shape = (
        T,
        draw(st.integers(1, 2)),
        draw(st.integers(1, 3)),
        *draw(st.sampled_from([(), (2,)])),
    )
    rows = draw(st.sampled_from([1, shape[2]]))
    levels = np.sort(rng.integers(-20, 60, (rows, D)), axis=1) << fraction
    threshold = rng.integers(1, 30, (rows, 1)) << fraction
    slow = draw(st.integers(0, 3))
    own, own_flow = (draw(st.sampled_from([1, shape[2]])) for _ in range(2))
    numbers = {"T": T, "numerator": rng.integers(0, 2**shift + 1, own).tolist(), "shift": shift,
               "fraction": fraction, "reset": draw(st.sampled_from(RESETS)),
               "current": rng.integers(0, 2**slow + 1, own_flow).tolist(),
               "current_shift": slow}  # fmt: skip
    return rng.integers(-40, 80, shape), levels, threshold, numbers


def remembered(v: Array, levels: Array, threshold: Array, numbers: dict[str, Any]) -> Array:
    """Spikes per timestep in plain integers."""
    tail = (1,) * (v.ndim - 3)
    theta = threshold.reshape(-1, *tail)
    decay, slow = (np.reshape(numbers[name], (-1, *tail)) for name in ("numerator", "current"))
    carried = owed = flow = np.zeros(v.shape[1:], np.int64)
    found = []
    for drive in v:
        decayed = (decay * carried) // 2 ** numbers["shift"]
        flow = (slow * flow) // 2 ** numbers["current_shift"]
        flow = flow + drive * 2 ** numbers["fraction"]
        h = decayed + flow - owed
        raised = theta * (count(carried, levels[:, :1]) * (numbers["reset"] == "raised"))
        s = count(h - raised, levels)
        carried = kept(h, s, s * theta, numbers["reset"])
        owed = s * theta * (numbers["reset"] == "delayed")
        found.append(s)
    return np.array(found)


@settings(max_examples=40)
@given(memories())
def test_stateful_fire_count_is_the_neuron_in_integers(drawn: Any) -> None:
    v, levels, threshold, numbers = drawn
    a = run("StatefulFireCount", v.reshape(-1, *v.shape[2:]), levels, threshold, **numbers)
    assert a.dtype == np.uint8
    np.testing.assert_array_equal(a.reshape(v.shape), remembered(*drawn))


@settings(max_examples=40)
@given(memories())
def test_stateful_if_fires_the_same_counts_without_gaps(drawn: Any) -> None:
    v, levels, threshold, numbers = drawn
    spikes = run("StatefulIF", v.reshape(-1, *v.shape[2:]), levels, threshold, **numbers)
    assert spikes.shape == (levels.shape[1], len(v) * v.shape[1], *v.shape[2:])
    np.testing.assert_array_equal(spikes.sum(0).reshape(v.shape), remembered(*drawn))
    assert (np.diff(spikes.astype(int), axis=0) <= 0).all()
