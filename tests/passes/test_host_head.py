"""A last layer on the host: the engines' integers, then the network's own scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import snncc
from snncc.errors import BadInputError, UsageError
from snncc.nn import IntegerFire
from snncc.passes.host_head import HostLayer
from snncc.runtime.artifact import load


class MeanPotential(nn.Module):
    """Its head reads the mean of a residual stream of potentials; no neuron stands between."""

    default_cfg = {"input_size": (1, 8, 8), "mean": (0.5,), "std": (0.25,)}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.fire = IntegerFire(4)
        self.branch = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = 3 * self.stem(x)
        x = x + self.branch(self.fire(x))
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return MeanPotential().eval()


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (16, 1, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(network, pixels):
    return snncc.compile(network, pixels, host="head", weight_bits=24)


def test_without_consent_it_is_refused(network):
    with pytest.raises(snncc.errors.UnsupportedModelError, match="without a neuron between"):
        snncc.compile(network)


def test_scores_are_the_networks_on_every_engine(model, network, pixels):
    assert model.report["verify"]["mismatched"] == 0
    with torch.no_grad():
        x = (torch.from_numpy(pixels).float() / 255 - 0.5) / 0.25
        wanted = network(x).numpy()
    for engine in ("integer", "clocked", "event"):
        session = snncc.Session(model, engine=engine)
        assert session.get_outputs()[0].shape == ["N", 5]
        found = session.run(None, {model.input.name: pixels})[0]
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert model.report["agreement"] == 1.0


def test_the_layer_is_in_the_file_and_named(model, pixels, tmp_path):
    assert model.manifest["parts"]["host"] == ["head"]
    path = model.save(tmp_path / "net.snn")
    again = load(path)
    runs = [snncc.Session(m, engine="clocked").run(None, pixels)[0] for m in (model, again)]
    np.testing.assert_array_equal(*runs)
    assert again.outputs[0].host == "head"


@pytest.mark.parametrize(
    ("part", "message"),
    [("weight", "half of a host layer"), ("host", "half of a host layer")],
)
def test_half_a_layer_is_no_program(model, part, message):
    from dataclasses import replace

    readout = model.program.readouts[0]
    broken = replace(readout, **{part: "" if part == "host" else None})
    nodes = (*model.program.nodes[:-1], broken)
    with pytest.raises(BadInputError, match=message):
        type(model.program)(model.name, nodes, 1, model.program.ticks).validate()


@pytest.mark.parametrize(
    ("host", "more", "message"),
    [
        ("branch", {}, "the network ends in head; only its end can be hosted"),
        ("head", {"until": "fire"}, "give one"),
    ],
)
def test_only_the_end_can_be_hosted(network, host, more, message):
    with pytest.raises(UsageError, match=message):
        snncc.compile(network, host=host, **more)


def test_a_convolution_at_the_end_stays_on_the_engines():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), IntegerFire(4), nn.Conv2d(2, 2, 3))
    with pytest.raises(UsageError, match="Conv is no linear layer"):
        snncc.compile(net, input_shape=(1, 8, 8), host="2")


def test_the_layer_is_measured_with_its_bias():
    weight, bias = np.float32([[1, 2], [3, 4], [5, 6]]), np.float32([0.5, -1, 2])
    scores = HostLayer("head", weight, bias)(np.float32([[1, -1], [0, 2]]))
    assert scores.tolist() == [[-0.5, -2, 1], [4.5, 7, 14]]
