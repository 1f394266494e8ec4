"""A last layer on the host: the engines' integers, then the network's own scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import snncc
from snncc.compiler import InputOptions
from snncc.errors import BadInputError, UsageError
from snncc.nn import LIF, IntegerFire
from snncc.passes.cut.host_head import HostPart, HostTerm
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
    with pytest.raises(snncc.errors.UnsupportedModelError) as refused:
        snncc.compile(network, no_neuron_between="merge")
    (fault,) = refused.value.faults
    assert "without a neuron between" in fault.what
    graded = "or compile with no_neuron_between='graded'"
    assert fault.todo == f"put a neuron between them, {graded}, or give it to the host, host='head'"


class OverTime(nn.Module):
    """The same over timesteps, of whose mean the scores are made."""

    def __init__(self):
        super().__init__()
        self.stem, self.fire = nn.Conv2d(1, 6, 3, padding=1), LIF(2.0)
        self.branch, self.head = nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 5)

    def forward(self, x):
        x = 3 * self.stem(x).unsqueeze(0).repeat(3, 1, 1, 1, 1)
        x = x + self.branch(self.fire(x).flatten(0, 1)).unflatten(0, (3, -1))
        return self.head(x.mean((3, 4)).mean(0))


def test_the_host_is_offered_where_the_mean_over_time_follows(pixels):
    torch.manual_seed(0)
    net, given = OverTime().eval(), InputOptions(mode="u8", mean=(0.5,), std=(0.25,))
    with pytest.raises(snncc.errors.UnsupportedModelError) as refused:
        snncc.compile(net, input_shape=(1, 8, 8), input=given, no_neuron_between="merge")
    (fault,) = refused.value.faults
    assert str(fault.todo).endswith("host='head', the mean over timesteps taken before it")
    model = snncc.compile(net, pixels, input_shape=(1, 8, 8), input=given, host="head")
    assert (model.report.import_law.changed, model.report.verify.mismatched) == (0, 0)


def test_scores_are_the_networks_on_every_engine(model, network, pixels):
    assert model.report.verify.mismatched == 0
    with torch.no_grad():
        x = (torch.from_numpy(pixels).float() / 255 - 0.5) / 0.25
        wanted = network(x).numpy()
    for engine in ("integer", "clocked", "event"):
        session = snncc.Session(model, engine=engine)
        assert session.get_outputs()[0].shape == ["N", 5]
        found = session.run(None, {model.input.name: pixels})[0]
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert model.report.agreement == 1.0


def test_the_layer_is_in_the_file_and_named(model, pixels, tmp_path):
    assert model.manifest["parts"]["host"] == ["head"]
    path = model.save(tmp_path / "net.snn")
    again = load(path)
    kinds = [(model, "clocked"), (again, "clocked"), (again, "integer"), (again, "spike-form")]
    runs = [snncc.Session(m, engine=engine).run(None, pixels)[0] for m, engine in kinds]
    assert all(np.array_equal(run, runs[0]) for run in runs)
    assert again.outputs[0].host == "head"


@pytest.mark.parametrize(
    ("part", "message"),
    [("weight", "half of a host layer"), ("host", "'weight' belongs to host, not to own")],
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
        snncc.compile(net, input_shape=(1, 8, 8), host="2", input=InputOptions(range=(0, 1)))


# -- several heads -------------------------------------------------------------------------


class TwoHeads(MeanPotential):
    """Scores are a mean over a head that reads potentials and one that reads spike counts."""

    def __init__(self):
        super().__init__()
        self.last_fire = IntegerFire(4, 1.0)
        self.head_kd = nn.Linear(6, 5)

    def forward(self, x):
        x = 3 * self.stem(x)
        x = (x + self.branch(self.fire(x))).mean((2, 3))
        return (self.head(x) + self.head_kd(self.last_fire(2 * x))) / 2


class Intricate(TwoHeads):
    """Two heads on the same potentials, one of them in two layers; factors and a shift after."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Linear(6, 9)
        self.narrow = nn.Linear(9, 5)
        self.gain = nn.Parameter(torch.linspace(-2, 2, 5))

    def forward(self, x):
        x = 3 * self.stem(x)
        x = (x + self.branch(self.fire(x))).mean((2, 3))
        y = self.head(x) - 2 * self.narrow(self.wide(x))
        return self.gain * (y - self.head_kd(self.last_fire(2 * x)) + 3)


def _built(cls: type[MeanPotential]) -> nn.Module:
    torch.manual_seed(1)
    return cls().eval()


@pytest.mark.parametrize(
    ("cls", "hosts", "named", "macs"),
    [
        (TwoHeads, "head", ["head"], 30),  # head_kd spikes: the host adds its potentials
        (TwoHeads, ("head", "head_kd"), ["head", "head_kd"], 60),
        (
            Intricate,
            ("head", "wide", "narrow", "head_kd"),
            ["head and wide and narrow", "head_kd"],
            60,
        ),
        (
            Intricate,
            ("head", "wide", "narrow"),  # the factor after head_kd is negative and its own
            ["head and wide and narrow", "factors after head_kd"],
            55,
        ),
    ],
)
def test_the_host_adds_what_several_heads_say(cls, hosts, named, macs, pixels, tmp_path):
    network = _built(cls)
    with torch.no_grad():
        wanted = network((torch.from_numpy(pixels).float() / 255 - 0.5) / 0.25).numpy()
    model = snncc.compile(network, pixels, host=hosts, weight_bits=24)
    assert model.manifest["parts"]["host"] == named
    assert sum(o.weight.size for o in model.outputs if o.weight is not None) == macs
    again = load(model.save(tmp_path / "net.snn"))
    for engine in ("integer", "spike-form", "clocked", "event"):
        session = snncc.Session(again, engine=engine)
        assert [(o.name, o.shape) for o in session.get_outputs()] == [("output", ["N", 5])]
        (found,) = session.run(None, {again.input.name: pixels})
        np.testing.assert_allclose(found, wanted, atol=2e-4)
    assert model.report.verify.mismatched == 0
    assert model.report.agreement == 1.0


def test_bits_are_chosen_for_potentials_and_counts(pixels):
    network = _built(TwoHeads)
    model = snncc.compile(network, pixels, host=("head", "head_kd"), weight_bits="auto")
    assert model.report.verify.mismatched == 0
    assert set(model.report.layer_bits.values()) <= {8, 16}


@pytest.mark.parametrize(
    ("hosts", "message"),
    [
        ("lost", "host='lost': the network ends in head and head_kd; only"),
        (("head", "lost"), "host='lost': the network ends in head and head_kd"),
        ("last_fire", "host='last_fire': the network ends in head and head_kd"),
        ("branch", "host='branch': the network ends in head and head_kd"),
    ],
)
def test_the_end_is_named_with_all_its_heads(hosts, message):
    with pytest.raises(UsageError, match=message):
        snncc.compile(_built(TwoHeads), host=hosts)


def test_a_layer_behind_a_hosted_one_needs_consent_too():
    with pytest.raises(UsageError, match="ends in head and narrow and head_kd"):
        snncc.compile(_built(Intricate), host=("head", "wide"))


def test_what_is_added_is_of_one_shape(pixels):
    from dataclasses import replace

    program = snncc.compile(_built(TwoHeads), pixels, host="head").program
    readout = program.nodes[-1]
    narrow = replace(readout, host="more", weight=np.ones((4, 5), np.float32),
                     bias=np.zeros(4, np.float32))  # fmt: skip
    with pytest.raises(BadInputError, match="not valid") as refused:
        type(program)(program.name, (*program.nodes[:-1], narrow), 1, program.ticks).validate()
    assert "readouts that the host adds" in str(refused.value.faults[0])


def test_the_layer_is_measured_with_its_bias():
    weight, bias = np.float32([[1, 2], [3, 4], [5, 6]]), np.float32([0.5, -1, 2])
    part = HostPart((HostTerm(("head",), weight),), bias)
    scores = part([np.float32([[1, -1], [0, 2]])])
    assert scores.tolist() == [[-0.5, -2, 1], [4.5, 7, 14]]
