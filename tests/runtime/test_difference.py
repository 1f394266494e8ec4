"""What is different between two networks."""

from dataclasses import replace

import numpy as np
import pytest
import small_model
from data_files import npz

from snncc.errors import BadInputError
from snncc.runtime.data_sets import open_data
from snncc.runtime.difference import Pair, difference, on_data
from snncc.runtime.result import rates
from snncc.runtime.session import Session

N = 19
X = np.random.default_rng(3).integers(0, 256, (N, 1, 6, 6), dtype=np.uint8)


@pytest.fixture(scope="module")
def other():
    return small_model.compiled(seed=5)


@pytest.fixture
def data(tmp_path):
    return open_data(npz(tmp_path / "x.npz", x=X, y=np.arange(N) % 5))


def test_a_network_beside_itself_has_no_difference(model, data):
    found = difference(model, model)
    assert found.options == {}
    assert [n.module for n in found.layers] == ["net.conv1", "net.conv2", "fc"]
    assert all(n.changed == 0 and not n.bits.differs for n in found.layers)
    ran = on_data(model, model, data)
    assert (ran.samples, ran.other_class) == (N, 0)
    assert all(p.changed == 0 < p.compared for p in ran.populations)


def test_changes_are_counted_element_by_element(model, other, data, monkeypatch):
    monkeypatch.setattr("snncc.runtime.difference.batch_of", lambda _: 4)
    ran = on_data(model, other, data)
    told = [Session(m, "event").trace(X) for m in (model, other)]
    for p, n in zip(ran.populations, model.program.neurons, strict=True):
        counts = [activity.counts[n.name] for activity in told]
        assert p.module == n.module
        assert (p.changed, p.compared) == ((counts[0] != counts[1]).sum(), counts[0].size)
        assert p.spikes == [c.sum() for c in counts]
    for i, m in enumerate((model, other)):
        each = rates(told[i], m.program).populations
        assert [p.sops[i] for p in ran.populations] == [p.sops for p in each]
        own = Session(m, "event").profile(X, ("45nm-int8",)).energy["45nm-int8"].snn
        assert ran.energy_pj["45nm-int8"][i] == pytest.approx(own, rel=1e-12)
    (output,) = model.outputs
    classes = [activity.readouts[output.name][0].argmax(axis=1) for activity in told]
    assert ran.other_class == (classes[0] != classes[1]).sum() > 0
    assert ran.right == [(c == np.arange(N) % 5).sum() for c in classes]


def test_weights_are_compared_as_integers(model, other):
    layers = difference(model, other).layers
    both = (small_model.weights(0), small_model.weights(5))
    for layer, name in zip(layers, ("conv1_w", "conv2_w", "fc_w"), strict=True):
        assert layer.changed == (both[0][name] != both[1][name]).sum() > 0
        assert layer.bits == Pair(8, 8)


def _without(model, name):
    """The network whose population of that module is called otherwise."""
    nodes = tuple(
        replace(n, module="elsewhere") if n.module == name else n for n in model.program.nodes
    )
    return replace(model, program=replace(model.program, nodes=nodes))


def test_what_only_one_network_has_is_told(model, data):
    other = _without(model, "net.act2")
    found = on_data(model, other, data).populations
    assert [p.module for p in found] == ["net.act1", "net.act2", "elsewhere"]
    size = found[1].neurons.a
    assert [found[1].neurons, found[2].neurons] == [Pair(size, None), Pair(None, size)]
    assert (found[1].compared, found[1].spikes[1], found[2].spikes[0]) == (0, 0, 0)
    assert found[1].spikes[0] == found[2].spikes[1] > 0


def test_choices_that_differ_are_named(model):
    longer = small_model.compiled(timesteps=2)
    found = difference(model, longer).options
    assert found["timesteps"] == Pair(1, 2)
    assert "rounding" not in found


def test_samples_that_a_network_does_not_take_are_refused(model, data):
    real = small_model.compiled(real_input=True)
    with pytest.raises(BadInputError, match=r"uint8, the network takes float32.* \(network small"):
        on_data(model, real, data)
