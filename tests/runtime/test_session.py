import numpy as np
import pytest
import small_model
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from snncc.errors import BadInputError, UsageError
from snncc.ir.ops import OPSET, VERSION, function_of
from snncc.ir.oracle import session as onnx_session
from snncc.runtime.contract import InputContract
from snncc.runtime.session import NodeArg, Session


@pytest.fixture(scope="module")
def model():
    return small_model.compiled()


@pytest.fixture
def run(model):
    return Session(model)


def test_it_is_shaped_like_onnxruntime(run):
    assert run.get_inputs() == [NodeArg("x", ["N", 1, 6, 6], "tensor(uint8)")]
    assert run.get_outputs() == [NodeArg("logits", ["N", 5], "tensor(float)")]
    x = small_model.samples(7)
    (logits,) = run.run(None, {"x": x})
    assert (logits.dtype, logits.shape) == (np.float32, (7, 5))
    assert (logits == run.run(["logits"], {"x": x})[0]).all()


def test_results_are_integers_times_their_scale(run):
    x = small_model.samples()
    integers = run.run_integers({"x": x})["logits"]
    assert integers.dtype == np.int64
    assert (run.run(None, {"x": x})[0] == integers[0].astype(np.float32) * np.float32(0.125)).all()


@pytest.mark.parametrize("batch", [1, 2, 5, 99])
def test_the_batch_changes_nothing_but_progress(model, batch):
    x, done = small_model.samples(), []
    out = Session(model, batch=batch).run(None, {"x": x}, progress=done.append)[0]
    assert (out == Session(model).run(None, {"x": x})[0]).all()
    assert sum(done) == len(x)
    assert max(done) == min(batch, len(x))


def test_probes_are_names_or_module_paths(run):
    activity = run.trace(small_model.samples(), ["net.act1", "conv2:v", "fc", "fire1"])
    assert set(activity.spikes) == {"fire1"}
    assert set(activity.potentials) == {"conv2:v", "fc:v"}
    assert activity.spikes["fire1"].shape == (1, 4, 5, 3, 6, 6)
    assert (activity.spikes["fire1"].sum(1) == activity.counts["fire1"]).all()


@pytest.mark.parametrize("engine", ["integer", "spike-form", "clocked"])
@pytest.mark.parametrize("from_file", [False, True])
def test_engines_give_the_same_results(model, tmp_path, monkeypatch, engine, from_file):
    monkeypatch.setenv("SNNCC_CACHE", str(tmp_path / "cache"))
    source = model.save(tmp_path / "a.snn") if from_file else model
    run = Session(source, engine)
    x = small_model.samples()
    expected = Session(model).run(None, {"x": x})[0]
    assert run.engine == engine
    assert (run.run(None, {"x": x})[0] == expected).all()


def test_timesteps_lead_the_outputs_where_there_are_several():
    run = Session(small_model.compiled(timesteps=2))
    assert run.get_outputs()[0].shape == [2, "N", 5]
    x = small_model.samples()
    (repeated,) = run.run(None, {"x": x})
    assert repeated.shape == (2, 5, 5)
    with pytest.raises(BadInputError, match="these are sequences, it takes one static sample"):
        run.run(None, {"x": np.stack([x, x], axis=1)})


@pytest.mark.parametrize("engine", ["integer", "spike-form", "clocked"])
def test_sequences_have_samples_first(engine):
    run = Session(small_model.compiled(timesteps=2, sequence=True), engine)
    assert run.get_inputs()[0].shape == ["N", 2, 1, 6, 6]
    x = small_model.samples()
    (found,) = run.run(None, {"x": np.stack([x, x[::-1]], axis=1)})
    (alone,) = Session(small_model.compiled()).run(None, {"x": x})
    assert (found == np.stack([alone, alone[::-1]])).all()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 1, 6, 6), np.float32), "dtype float32"),
        (np.zeros((1, 6, 6), np.uint8), "batch axis"),
        (np.zeros((2, 1, 6, 7), np.uint8), "shape"),
        (np.zeros((0, 1, 6, 6), np.uint8), "no samples"),
        ([[1]], "not a numpy array"),
    ],
)
def test_samples_that_break_the_contract_are_refused(run, x, message):
    with pytest.raises(BadInputError, match=message):
        run.run(None, {"x": x})


def test_unknown_names_are_told_what_there_is(run, model):
    x = small_model.samples()
    with pytest.raises(UsageError, match="feed has 'y'; the network takes 'x'"):
        run.run(None, {"y": x})
    with pytest.raises(UsageError, match="no output 'logit'; there are 'logits'"):
        run.run(["logit"], {"x": x})
    with pytest.raises(UsageError, match=r"cannot probe 'net.act9'; there are 'net.act2'"):
        run.trace(x, ["net.act9"])
    with pytest.raises(UsageError, match="unknown engine 'lave'; there are integer"):
        Session(model, "lave")
    with pytest.raises(UsageError, match="batch 0"):
        Session(model, batch=0)


# --- the float contract ---------------------------------------------------------------------------


def quantise_input(x, scale, offset, zero_point, top):
    """The QuantizeInput body, run by ONNX Runtime."""
    import onnx.parser

    head = f'<ir_version: 10, opset_import: ["": {OPSET}, "ai.snncc": {VERSION}]>'
    text = "g (float[N,M] x, float[] s, float[] o) => (uint8[N,M] q) "
    grid = f"<zero_point: int = {zero_point}, top: int = {top}>"
    body = f"{{ q = ai.snncc.QuantizeInput {grid} (x, s, o) }}"
    model = onnx.parser.parse_model(f"{head} {text} {body}")
    model.functions.append(function_of("QuantizeInput"))
    feeds = {"x": x, "s": np.float32(scale), "o": np.float32(offset)}
    return onnx_session(model, 1).run(None, {k: np.asarray(v) for k, v in feeds.items()})[0]


finite = st.floats(-(2.0**127), 2.0**127, width=32)


@given(
    x=hnp.arrays(
        np.float32, (2, 5), elements=st.one_of(finite, st.integers(-600, 600).map(lambda k: k / 4))
    ),
    scale=st.one_of(st.sampled_from([0.5, 1.0, 0.25]), st.floats(2**-20, 1e6, width=32)),
    offset=st.one_of(st.just(0.0), st.floats(-300, 300, width=32)),
    steps=st.sampled_from([(0, 255), (127, 255), (7, 15)]),
)
def test_floats_are_encoded_bit_for_bit_as_the_graph_does(x, scale, offset, steps):
    contract = InputContract("x", (5,), "float32", (), (), scale, offset, *steps)
    assert (contract.encode(x) == quantise_input(x, scale, offset, *steps)).all()


def test_a_float_network_gives_what_its_graph_gives():
    model = small_model.compiled(real_input=True)
    x = small_model.samples().astype(np.float32) * np.float32(0.37) - np.float32(7.1)
    expected = onnx_session(model.onnx("quantised"), 1).run(None, {"x": x})[0]
    for engine in ("clocked", "integer", "spike-form"):
        assert (Session(model, engine).run_integers({"x": x})["logits"][0] == expected).all()


def test_channels_may_have_grids_of_their_own():
    contract = InputContract("x", (2, 1), "float32", scale=(1.0, 2.0), offset=(0.0, -4.0))
    x = np.array([[[10], [10]]], dtype=np.float32)
    assert contract.encode(x).ravel().tolist() == [10, 7]
    assert InputContract.from_json(contract.to_json()) == contract
