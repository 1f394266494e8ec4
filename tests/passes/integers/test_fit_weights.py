"""Laws of rounding with data, and of bits chosen by data."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from snncc.errors import UsageError
from snncc.ir.oracle import evaluate, teacher_forced
from snncc.passes.integers.choose_bits import ChooseBits
from snncc.passes.integers.fit_weights import Fit, fit, wanted_fit
from snncc.passes.integers.precision import Precision
from snncc.passes.integers.quantise_weights import QuantiseWeights
from snncc.passes.integers.shared_grids import largest_weight, plan

FIRE = 'D: int = 4, norm: float = 1.0, rounding: string = "half-even"'
TEXT = f"""
<ir_version: 10, opset_import: ["": 21, "ai.snncc": 1]>
g (uint8[N,6] x) => (float[N,3] y)
{{
  q = Cast <to: int = 1> (x)
  u1 = Gemm <transA: int = 0, transB: int = 1, alpha: float = 1.0, beta: float = 1.0> (q, w1, b1)
  a1 = ai.snncc.IntegerFire <{FIRE}> (u1)
  u2 = Gemm <transA: int = 0, transB: int = 1, alpha: float = 1.0, beta: float = 1.0> (a1, w2, b2)
  a2 = ai.snncc.IntegerFire <{FIRE}> (u2)
  y = Gemm <transA: int = 0, transB: int = 1, alpha: float = 1.0, beta: float = 1.0> (a2, w3)
}}
"""


def model(seed=0):
    rng = np.random.default_rng(seed)
    arrays = {
        "w1": rng.normal(0, 0.01, (16, 6)),
        "b1": rng.normal(1, 0.5, 16),
        "w2": rng.normal(0, 0.3, (24, 16)),
        "b2": rng.normal(1, 0.5, 24),
        "w3": rng.normal(0, 0.3, (3, 24)),
    }
    proto = onnx.parser.parse_model(TEXT)
    for name, array in arrays.items():
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    graph.metadata_props["snncc.stage"] = "integer"
    for node in graph.graph:  # shapes that inference of a bare text cannot know
        width = {"q": 6, "u1": 16, "a1": 16, "u2": 24, "a2": 24, "y": 3}[node.outputs[0].name]
        node.outputs[0].shape = ir.Shape(["N", width])
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    return graph


def feeds(seed=1, n=400):
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 200, (n, 1))  # inputs that go together, as those of images do
    return {"x": (base + rng.integers(0, 56, (n, 6))).astype(np.uint8)}


def errors(graph, layer, data):
    """Of the potentials, in spikes, on the float network's own inputs."""
    name = str(layer.linear.x.name)
    x = evaluate(graph, data, [name])[name].astype(np.float64)
    theta = np.array([float(t) for t in layer.grid.thresholds])
    exact = x @ layer.linear.weight.T + layer.linear.bias
    return (x @ layer.weight.T + layer.bias) / theta - exact


def by_name(planned):
    return {str(value.name): layer for value, layer in planned.items()}


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_correction_takes_the_mean_error_off(bits):
    graph, data = model(), {k: v[:256] for k, v in feeds().items()}
    planned, _ = plan(graph, bits)
    fitted = by_name(fit(graph, planned, Fit(data)))
    for name in ("u1", "u2"):
        step = 1 / np.array([float(t) for t in fitted[name].grid.thresholds])
        mean = errors(graph, fitted[name], data).mean(axis=0)
        assert (np.abs(mean) <= 0.5 * step + 1e-9).all()


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_rounding_with_data_errs_less_on_other_data(bits):
    graph, unseen = model(), feeds(seed=7)
    planned, _ = plan(graph, bits)
    fitted = fit(graph, planned, Fit(feeds(), rounding="data"))
    for name in ("u1", "u2", "y"):
        before, after = (
            np.square(errors(graph, by_name(p)[name], unseen)).mean() for p in (planned, fitted)
        )
        assert after < before


def test_grids_stay_and_weights_fit_their_bits():
    graph = model()
    planned, _ = plan(graph, 5)
    for value, layer in fit(graph, planned, Fit(feeds(), rounding="data")).items():
        assert layer.grid == planned[value].grid
        assert np.abs(layer.weight).max() <= largest_weight(5)


def test_what_loses_nothing_stays():
    graph = model()
    for name, value in graph.graph.initializers.items():
        if name.startswith("w"):
            whole = np.sign(value.const_value.numpy()).astype(np.float32)
            value.const_value = ir.tensor(whole, name=name)
    planned, _ = plan(graph, 8)
    exact = {
        v: p for v, p in planned.items() if (p.weight % np.abs(p.weight).max(initial=1) == 0).all()
    }
    fitted = fit(graph, planned, Fit(feeds(), rounding="data"))
    assert all(fitted[v] is p for v, p in exact.items())
    assert exact


def changed(bits, layers=None):
    graph, data = model(), feeds()
    after = graph.clone()
    Precision(bits, layers or {}).write(after)
    QuantiseWeights(bits).run(after)
    real = evaluate(graph, data, ["a1", "a2"])
    forced = teacher_forced(after, data, real)
    return sum(int((real[k] != forced[k]).sum()) for k in real) / sum(v.size for v in real.values())


@pytest.mark.parametrize("goal", [1.0, 0.01, 0.004, 1e-3])
def test_chosen_bits_meet_the_goal_with_no_layer_more(goal):
    graph = model()
    ChooseBits(feeds(), goal=goal).run(graph)
    chosen = {k: v for k, v in Precision.read(graph, 8).layers.items() if k != "y"}
    assert changed(8, chosen) <= max(goal, changed(16))
    for name in chosen:
        assert changed(8, {k: v for k, v in chosen.items() if k != name}) > goal


def test_each_layer_has_the_slices_of_its_bits():
    graph = model()
    Precision(8, {"u2": 16}).write(graph)
    QuantiseWeights(8).run(graph)
    count = {}
    for node in graph.graph:
        if node.op_type == "SliceSum":
            base = str(node.name).split(":")[0].split("/")[0]
            count[base] = count.get(base, 0) + 1
    assert count == {"u1": 1, "u2": 2, "y": 1}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bits": "auto"}, "weight_bits='auto' needs calibration"),
        ({"rounding": "data"}, "rounding='data' needs calibration"),
        ({"bias_correction": True}, "bias_correction=True needs calibration"),
        ({"rounding": "up"}, "nearest or data"),
        ({"bits": "all"}, "4 to 24, or auto"),
    ],
)
def test_impossible_options_are_named(options, words):
    with pytest.raises(UsageError, match=words):
        wanted_fit(None, **{"bits": 8, "rounding": "nearest", "bias_correction": None, **options})


def test_correction_comes_with_data_rounding_unless_refused():
    data = feeds()
    assert wanted_fit(data, 8, "nearest", None) is None
    assert wanted_fit(data, 8, "data", None).bias_correction
    assert not wanted_fit(data, 8, "data", False).bias_correction
    assert wanted_fit(data, 8, "nearest", True).rounding == "nearest"
