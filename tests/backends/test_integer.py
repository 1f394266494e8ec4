import numpy as np
import onnx
import onnx_ir as ir
import pytest
import small_model

from snncc.backends.clocked.engine import ClockedEngine
from snncc.backends.engines import ENGINES, make_engine
from snncc.backends.integer import IntegerEngine, SpikeFormEngine
from snncc.errors import BadInputError, MissingDependencyError, UsageError
from snncc.ir.fed import fed
from snncc.runtime.result import mismatch

PROBES = ["fire1", "fire2", "conv1:v", "conv2:v", "fc:v"]


@pytest.fixture(scope="module")
def program():
    return small_model.program()


@pytest.fixture(scope="module")
def quantised():
    return small_model.graph(small_model.BODY)


@pytest.fixture(scope="module")
def spiking():
    return small_model.graph(small_model.SPIKING)


@pytest.fixture(scope="module")
def clocked(program):
    return ClockedEngine(program).run(small_model.samples(), PROBES)


def differences(expected, got):
    return [m for m in mismatch(expected, got) if m.mismatched]


def test_counts_potentials_and_readouts_are_those_of_the_program(program, quantised, clocked):
    got = IntegerEngine(quantised, program).run(small_model.samples(), PROBES)
    assert not differences(clocked, got)
    assert got.potentials.keys() == clocked.potentials.keys()
    assert (got.counts["fire1"].dtype, got.readouts["logits"].dtype) == (np.uint8, np.int64)
    assert not got.tick_spikes
    assert not got.spikes


def test_the_spiking_graph_fires_the_same_trains(program, spiking, clocked):
    got = SpikeFormEngine(spiking, program).run(small_model.samples(), PROBES)
    assert not differences(clocked, got)
    assert got.spikes.keys() == clocked.spikes.keys()
    for name, spikes in clocked.tick_spikes.items():
        assert (got.tick_spikes[name] == spikes).all()


@pytest.mark.parametrize("engine", [IntegerEngine, SpikeFormEngine])
def test_timesteps_run_one_after_the_other(engine, quantised, spiking):
    program = small_model.program(timesteps=2)
    x = np.stack([small_model.samples(seed=1), small_model.samples(seed=2)])
    graph = quantised if engine is IntegerEngine else spiking
    got = engine(graph, program).run(x, PROBES, batch=2)
    assert not differences(ClockedEngine(program).run(x, PROBES), got)
    assert got.counts["fire1"].shape == (2, 5, 3, 6, 6)


@pytest.mark.parametrize("real_input", [False, True])
@pytest.mark.parametrize("apart", [False, True])
def test_both_forms_of_a_graph_take_the_same_integers(program, clocked, apart, real_input):
    model = small_model.graph(small_model.BODY, real_input=real_input)
    graph = fed(ir.from_proto(model)) if apart else model
    assert not apart or graph.weights
    got = IntegerEngine(graph, program).run(small_model.samples(), batch=3)
    assert not differences(clocked, got)


def test_outputs_are_found_by_place_where_names_differ(program, clocked):
    body = small_model.BODY.replace('"fc:v" =', '"fc.out" =')
    graph = small_model.graph(body + '"fc:v" = Identity ("fc.out")\n')
    assert not differences(
        clocked, IntegerEngine(graph, program).run(small_model.samples(), ["fc:v"])
    )
    graph.graph.output[0].name = "fc.out"
    del graph.graph.node[-1]
    assert not differences(clocked, IntegerEngine(graph, program).run(small_model.samples()))


def test_a_graph_of_another_network_is_refused(program, quantised, spiking):
    with pytest.raises(BadInputError, match="no populations fire1, fire2"):
        IntegerEngine(spiking, program)
    with pytest.raises(BadInputError, match="no populations fire1, fire2"):
        SpikeFormEngine(quantised, program)
    broken = onnx.ModelProto()
    broken.CopyFrom(quantised)
    del broken.graph.initializer[:]
    with pytest.raises(BadInputError, match="ONNX Runtime refuses the graph"):
        IntegerEngine(broken, program).run(small_model.samples())


def test_wrong_calls_are_refused(program, quantised):
    engine = IntegerEngine(quantised, program)
    with pytest.raises(UsageError, match="cannot probe 'pool1'"):
        engine.run(small_model.samples(), ["pool1"])
    with pytest.raises(UsageError, match="batch 0"):
        engine.run(small_model.samples(), batch=0)
    with pytest.raises(
        BadInputError, match=r"integer: wrong input\n.*shape \(5, 6, 6\), not \(N, 1, 6, 6\)"
    ):
        engine.run(small_model.samples()[:, 0])


def test_progress_counts_samples(program, quantised):
    done = []
    IntegerEngine(quantised, program).run(small_model.samples(), batch=2, progress=done.append)
    assert done == [2, 2, 1]


# --- targets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENGINES)
def test_every_target_makes_the_engine_of_its_name(name):
    assert make_engine(name, small_model.compiled()).name == name
    assert not ENGINES[name].unavailable


def test_a_target_that_lacks_its_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("snncc.backends.engines.find_spec", lambda _: None)
    assert ENGINES["integer"].unavailable == "needs onnxruntime: pip install onnxruntime"
    assert not ENGINES["clocked"].unavailable
    with pytest.raises(MissingDependencyError, match="'integer' needs onnxruntime"):
        make_engine("integer", None)
