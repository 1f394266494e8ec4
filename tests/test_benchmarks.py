"""Laws of the benchmark: what is compared gives the same integers, and what is counted is right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from networks import chain, changed, half_even_levels
from onnx import numpy_helper

import event_vs_dense
from snncc.backends.clocked.engine import ClockedEngine
from snncc.cli.screen import Screen
from snncc.errors import SnnccError, UnsupportedModelError, VerificationError
from snncc.program import (
    Accumulator,
    Neuron,
    Node,
    Pool,
    Program,
    Projection,
    Readout,
    Source,
    pooled_size,
)
from snncc.program.bounds import bounded, emitted_payload
from versus import trial
from versus.cases import Case
from versus.dense_form import exact_in_float32, thresholds
from versus.measure import Times, by_turns
from versus.networks import stage_a, stage_b, w1
from versus.onnx_int8 import Int8Form, int8_model
from versus.peers import EQUAL, INEXACT, INT8, PEERS, Peer, peer
from versus.report import document, show
from versus.trial import OURS, Result, Settings, run_case
from versus.work import work_of

#: SpikingJelly is no requirement of the tests.
INSTALLED = [n for n in PEERS if "jelly" not in n or find_spec("spikingjelly") is not None]
SAME = [name for name in INSTALLED if name != "spikingjelly_at_once"]
DENSE = [name for name in INSTALLED if "jelly" not in name]

narrow_w1 = partial(w1, width=1 / 8)


def readouts(program: Program, x: np.ndarray) -> list[np.ndarray]:
    found = ClockedEngine(program).run(x).readouts
    return [found[r.name][0] for r in program.readouts]


def forms(name: str, program: Program, x: np.ndarray) -> dict[str, Sequence[np.ndarray]]:
    """What every form of a peer gives, or the reason why there is none."""
    found: dict[str, Any] = {}
    for form, build in PEERS[name](program, 1):
        try:
            found[form] = build()(x)
        except SnnccError as e:
            found[form] = str(e)
    return found


def wrong_forms(name: str, program: Program, x: np.ndarray) -> list[str]:
    expected = readouts(program, x)
    return [
        form
        for form, got in forms(name, program, x).items()
        if isinstance(got, str)
        or not all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))
    ]


# -- the same integers ---------------------------------------------------------------------


@pytest.mark.parametrize("density", [0.15, 0.46])
@pytest.mark.parametrize("name", SAME)
def test_every_form_of_every_peer_agrees_on_w1(name: str, density: float) -> None:
    network = narrow_w1(density)
    assert exact_in_float32(network.program)
    assert wrong_forms(name, network.program, network.inputs[:2]) == []


@pytest.mark.parametrize("D", [1, 8])
@pytest.mark.parametrize("name", SAME)
def test_every_form_of_every_peer_agrees_on_other_bursts(name: str, D: int) -> None:
    network = narrow_w1(0.34, D=D)
    assert wrong_forms(name, network.program, network.inputs[:2]) == []


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("stage", [stage_a, stage_b])
def test_every_form_of_every_peer_agrees_on_w2(stage: Any, name: str) -> None:
    network = stage(0.27, channels=8, size=10)
    assert wrong_forms(name, network.program, network.inputs[:2]) == []


@pytest.mark.parametrize("name", DENSE)
def test_every_form_of_every_peer_agrees_where_ties_are_met(name: str) -> None:
    program, x = chain()
    v = ClockedEngine(program).run(x, probes=["v2"]).potentials["v2"]
    theta = thresholds(program)["n2"].reshape(-1, 1, 1)
    assert (2 * v % (2 * theta) == theta).any()
    assert wrong_forms(name, program, x) == []


@pytest.mark.parametrize("name", DENSE)
def test_every_form_of_every_peer_agrees_on_a_residual_network(name: str) -> None:
    program, x = residual()
    assert wrong_forms(name, program, x) == []


def test_spikes_fired_at_once_are_another_function() -> None:
    if "spikingjelly_at_once" not in INSTALLED:
        assert "not installed" in str(forms("spikingjelly_at_once", *case_of_w1()))
        return
    program, x = case_of_w1()
    (got,) = forms("spikingjelly_at_once", program, x).values()
    assert np.array_equal(got[0], fired_at_once(program, x))
    assert not np.array_equal(got[0], readouts(program, x)[0])


def case_of_w1() -> tuple[Program, np.ndarray]:
    network = narrow_w1(0.34)
    return network.program, network.inputs[:2]


def fired_at_once(program: Program, x: np.ndarray) -> np.ndarray:
    """The chain tick by tick, without barriers: every neuron fires on what has arrived so far."""
    spikes, potential = [x / program.ticks] * program.ticks, None
    for node in program.nodes[1:]:
        if isinstance(node, Accumulator):
            potential = [currents(program, node, s) for s in spikes]
        elif isinstance(node, Neuron):
            spikes = integrate_and_fire(potential, 2.0 * node.levels[0, 0] - 1)
        elif isinstance(node, Pool):
            n, c, h, w = spikes[0].shape
            spikes = [s.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5)) for s in spikes]
    return np.asarray(sum(potential))


def currents(program: Program, node: Accumulator, arrived: np.ndarray) -> np.ndarray:
    """float64 currents of a tick; the bias comes in equal parts."""
    (p,) = node.projections
    bias = node.bias_map() / program.ticks
    weights = p.total().astype(np.float64)
    if p.kind == "linear":
        return arrived.reshape(len(arrived), -1) @ weights.T + bias
    padded = np.pad(arrived, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, weights, optimize=True) + bias


def integrate_and_fire(arriving: Any, theta: float) -> list[np.ndarray]:
    v, fired = theta / 2, []
    for current in arriving:
        v = v + current
        fired.append((v >= theta).astype(np.float64))
        v = v - theta * fired[-1]
    return fired


# -- what is found out if something is wrong -----------------------------------------------


@pytest.mark.parametrize("name", DENSE)
def test_a_peer_with_other_integers_is_not_timed(name: str) -> None:
    program, x = case_of_w1()
    wrong = [r + 1 for r in readouts(program, x)]
    with pytest.raises(UnsupportedModelError, match="other integers"):
        peer(name, program, x, wrong, 1)


def test_an_engine_that_is_wrong_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, view: Any, **options: Any) -> ClockedEngine:
        levels = view.program.by_name["fire3"].levels + 40
        return ClockedEngine(changed(view.program, "fire3", levels=levels))

    monkeypatch.setattr(trial, "make_engine", broken)
    with pytest.raises(VerificationError, match="fire3"):
        run_case(Case("w1", "0.34", partial(narrow_w1, 0.34), ()), Settings("clocked"))


@pytest.mark.parametrize("name", INT8)
def test_int8_has_no_form_of_wide_weights(name: str) -> None:
    network = narrow_w1(0.34, bits=16)
    with pytest.raises(UnsupportedModelError, match="16-bit weights"):
        peer(name, network.program, network.inputs[:1], [], 1)


# -- zero points ---------------------------------------------------------------------------


@pytest.mark.parametrize("channels_last", [True, False])
def test_weights_with_another_zero_point_are_the_same_integers(channels_last: bool) -> None:
    program, _ = case_of_w1()
    symmetric, offset = (
        weights_of(int8_model(program, Int8Form(channels_last, False, point))) for point in (0, -1)
    )
    assert {int(zero) for _, zero in symmetric} == {0}
    assert {int(zero) for _, zero in offset} == {-1}
    for (one, _), (other, zero) in zip(symmetric, offset, strict=True):
        assert one.dtype == other.dtype == np.int8
        assert (other.astype(int) - zero == one).all()


def weights_of(model: onnx.ModelProto) -> list[tuple[np.ndarray, int]]:
    """Weights and zero point of every layer of 8 bits."""
    arrays = {c.name: numpy_helper.to_array(c) for c in model.graph.initializer}
    places = {"QLinearConv": (3, 5), "ConvInteger": (1, 3), "MatMulInteger": (1, 3)}
    found = []
    for node in model.graph.node:
        if node.op_type in places:
            weights, zero = (arrays[node.input[i]] for i in places[node.op_type])
            (point,) = np.unique(zero)
            found.append((weights, int(point)))
    assert len(found) == 7
    return found


def test_a_weight_that_leaves_8_bits_with_its_zero_point_is_refused() -> None:
    program = ones({"weights": (6, 2 * 9 * 7), "kind": "linear"})
    layer = program.by_name["v"]
    weights = layer.projections[0].weights[0].copy()
    weights[0, 0] = -128
    lowest = changed(program, "v", projections=(replace(layer.projections[0], weights=(weights,)),))
    assert int8_model(lowest, Int8Form(True, False)) is not None
    with pytest.raises(UnsupportedModelError, match="a weight of -128 with zero point -1"):
        int8_model(lowest, Int8Form(True, False, -1))


@pytest.mark.parametrize(
    ("medians", "outputs", "best"),
    [
        ((3.0, 2.0), (EQUAL, EQUAL), "ort_int8_offset"),
        ((2.0, 3.0), (EQUAL, EQUAL), "ort_int8"),
        ((3.0, 2.0), (EQUAL, INEXACT), "ort_int8"),
        ((3.0, 2.0), (INEXACT, INEXACT), None),
    ],
)
def test_the_best_of_int8_is_the_fastest_with_equal_integers(
    medians: tuple[float, float], outputs: tuple[str, str], best: str | None
) -> None:
    times = {OURS: Times(1.0, 1.0, 3), "ort_fp32": Times(0.5, 0.5, 3)}
    times |= {name: Times(t, t, 3) for name, t in zip(INT8, medians, strict=True)}
    peers = {
        name: Peer(name, f"form of {name}", said, lambda _: [])
        for name, said in zip(INT8, outputs, strict=True)
    }
    program, x = case_of_w1()
    work = work_of(program, x, ClockedEngine(program).run(x))
    case = Case("w1", "0.34", partial(narrow_w1, 0.34), INT8)
    result = Result(case, "W1", work, times, peers, {}, "scalar", None)
    found = document({}, Settings(), [result], {})
    said = found["cases"][0]["best_int8"]
    if best is None:
        assert said is None
        assert "best_int8" not in found["w1"]["0.34"]
    else:
        ratio = min(t for t, o in zip(medians, outputs, strict=True) if o == EQUAL)
        assert said == {"peer": best, "form": f"form of {best}", "ratio": ratio}
        assert found["w1"]["0.34"]["best_int8"] == ratio


def test_an_unknown_engine_is_a_usage_error() -> None:
    found = CliRunner().invoke(event_vs_dense.main, ["--engine", "nope", "--only", "w2"])
    assert found.exit_code == 2
    assert "unknown engine 'nope'" in found.stderr


# -- what is counted -----------------------------------------------------------------------


@pytest.mark.parametrize("density", [0.15, 0.34, 0.46])
def test_activations_have_the_density_that_is_asked_for(density: float) -> None:
    network = narrow_w1(density)
    program, x = network.program, network.inputs
    assert work_of(program, x, ClockedEngine(program).run(x)).density == pytest.approx(
        density, abs=0.04
    )


@pytest.mark.parametrize(
    "values",
    [
        {"weights": (6, 2, 3, 3), "pads": (1, 1, 1, 1)},
        {"weights": (6, 2, 3, 2), "strides": (2, 3), "pads": (0, 1, 2, 0), "dilations": (2, 1)},
        {"weights": (6, 1, 5, 5), "groups": 2, "pads": (2, 2, 2, 2)},
        {"weights": (6, 2 * 9 * 7), "kind": "linear"},
    ],
    ids=["padded", "uneven", "depthwise", "linear"],
)
def test_event_macs_are_what_weights_of_one_sum_up(values: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    x = (rng.random((3, 2, 9, 7)) < 0.3).astype(np.uint8)
    program = ones(values)
    ran = ClockedEngine(program).run(x)
    work = work_of(program, x, ran)
    assert work.event_macs == ran.readouts["y"].sum() / len(x)
    assert work.macs == np.prod(program.readouts[0].shape) * np.prod(values["weights"][1:])


def ones(values: dict[str, Any]) -> Program:
    """One layer whose weights are all 1."""
    weights = (np.ones(values["weights"], np.int8),)
    p = Projection(**{"source": "x", "kind": "conv", **values, "weights": weights})
    shape = (6,) if p.kind == "linear" else (6, *sizes(p, (9, 7)))
    x = Source("x", (2, 9, 7), 1)
    layer = bounded(Accumulator("v", shape, (p,), np.zeros(6, np.int64), 0, 0), {"x": x})
    program = Program("ones", (x, layer, Readout("y", shape, "v", 1.0)))
    program.validate()
    return program


def sizes(p: Projection, size: tuple[int, int]) -> tuple[int, ...]:
    return tuple(
        pooled_size(
            n, p.weights[0].shape[2 + i], p.strides[i], p.pads[i] + p.pads[i + 2], p.dilations[i]
        )
        for i, n in enumerate(size)
    )


def test_turns_give_every_engine_all_batches() -> None:
    seen: dict[str, list[int]] = {"a": [], "b": []}
    batches = [np.full((2, 1), i, np.uint8) for i in range(3)]
    calls = {name: lambda x, name=name: seen[name].append(int(x[0, 0])) for name in seen}
    times = by_turns(calls, batches, seconds=0.0)
    assert all(set(found) == {0, 1, 2} for found in seen.values())
    assert all(0 < t.least <= t.median and t.calls >= 3 for t in times.values())


# -- the report ----------------------------------------------------------------------------


def test_a_case_becomes_a_document_and_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    case = Case("w1", "0.34", partial(narrow_w1, 0.34), ("ort_fp32", *INT8))
    settings = Settings("clocked", seconds=0.01)
    result = run_case(case, settings)
    about = {"cpu": "a CPU", "cores": 1, "features": [], "python": "3", "versions": {}}
    found = json.loads(json.dumps(document(about, settings, [result], {"w2 A": "a reason"})))
    assert set(found["w1"]["0.34"]) == {"ort_fp32", *INT8, "best_int8"}
    assert set(found["cases"][0]["ms"]) == {OURS, "ort_fp32", *INT8}
    assert found["w1"]["0.34"]["best_int8"] == min(found["w1"]["0.34"][name] for name in INT8)
    assert set(found["cases"][0]["outputs"].values()) == {EQUAL}
    show(Screen(), found)
    shown = capsys.readouterr().out
    assert "a CPU" in shown
    assert "a reason" in shown
    assert f"best int8  {found['cases'][0]['best_int8']['peer']}" in shown
    assert f"[{found['w1']['0.34']['ort_fp32']:.2f}x]" in shown


# -- a residual network, as the trained example is -----------------------------------------


def residual() -> tuple[Program, np.ndarray]:
    """Potentials that are added up and read twice, a border as bias, a sum over the map."""
    rng = np.random.default_rng(3)
    nodes: list[Node] = [Source("x", (2, 6, 6), 255)]

    def layer(name: str, inputs: list[Projection], shape: tuple[int, ...], border: bool) -> None:
        bias = rng.integers(-40, 40, shape if border else shape[:1]).astype(np.int64)
        made = Accumulator(name, shape, tuple(inputs), bias, 0, 0)
        nodes.append(bounded(made, {n.name: n for n in nodes}))

    def conv(source: str, channels: int) -> Projection:
        w = (rng.integers(-9, 10, (4, channels, 3, 3)).astype(np.int8),)
        reach = emitted_payload(next(n for n in nodes if n.name == source))
        return Projection(source, "conv", w, reach, pads=(1, 1, 1, 1))

    def identity(source: str) -> Projection:
        reach = emitted_payload(next(n for n in nodes if n.name == source))
        return Projection(source, "identity", (), reach)

    def fire(name: str, source: str, theta: int, depth: int, shape: tuple[int, ...]) -> None:
        levels = half_even_levels(np.array([theta]), 4)
        nodes.append(Neuron(name, shape, source, levels, depth))

    map_ = (4, 6, 6)
    layer("v1", [conv("x", 2)], map_, border=True)
    fire("n1", "v1", 4001, 0, map_)
    layer("v2", [conv("n1", 4), identity("v1")], map_, border=False)
    fire("n2", "v2", 4001, 1, map_)
    layer("v3", [identity("v2"), conv("n2", 4)], map_, border=False)
    pads = (0, 0, 0, 0)
    reach = 36 * emitted_payload(nodes[-1])
    nodes.append(Pool("p", (4, 1, 1), "v3", "sum", (6, 6), (6, 6), pads, reach))
    layer("v4", [identity("p")], (4, 1, 1), border=False)
    fire("n4", "v4", 36 * 501, 2, (4,))
    head = (rng.integers(-9, 10, (3, 4)).astype(np.int8),)
    layer("v5", [Projection("n4", "linear", head, 4)], (3,), border=False)
    program = Program("residual", (*nodes, Readout("y", (3,), "v5", 1.0)), ticks=4)
    program.validate()
    return program, rng.integers(0, 256, (3, 2, 6, 6)).astype(np.uint8)
