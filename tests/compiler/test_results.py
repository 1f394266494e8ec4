"""Networks that return several results: each is a named readout, on every engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import snncc
from snncc.compiler import InputOptions, check
from snncc.errors import UnsupportedModelError, UsageError
from snncc.nn import LIF, IntegerFire
from snncc.runtime.contract import class_result

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 1, 6, 6), dtype=np.uint8)
OPTIONS = {"input_shape": (1, 6, 6), "input": InputOptions(mean=(0.5,), std=(0.25,))}
ENGINES = ("integer", "spike-form", "clocked", "event")

Put = Callable[..., Any]


class Returns(nn.Module):
    """What it returns is made of a potential, spikes of two layers, and scores."""

    def __init__(self, put: Put, neuron: Callable[[], nn.Module] = lambda: IntegerFire(4)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.fire = nn.Conv2d(1, 4, 3, padding=1), neuron()
        self.down, self.late = nn.Conv2d(4, 6, 3, stride=2, padding=1), neuron()
        self.head, self.other = nn.Linear(54, 5), nn.Linear(5, 3)
        self.put = put

    def forward(self, x):
        u = self._each(self.stem, x)
        early = self.fire(3 * u)
        late = self.late(3 * self._each(self.down, early))
        return self.put(self, u, early, late, self._each(self.head, late.flatten(-3)))

    def _each(self, layer, x):
        return layer(x)


class OverTime(Returns):
    """The same over four timesteps [T, N, ...]."""

    def __init__(self, put: Put) -> None:
        super().__init__(put, lambda: LIF(tau=2.0, threshold=0.5))

    def forward(self, x):
        return super().forward(x.expand(4, *x.shape))

    def _each(self, layer, x):
        return layer(x.flatten(0, 1)).unflatten(0, (4, -1))


def compiled(net, **options):
    return snncc.compile(net.eval(), PIXELS, weight_bits=24, **(OPTIONS | options))


def require_results(model, net, **expected):
    """All engines give these results, which are what PyTorch computes."""
    x = torch.from_numpy((PIXELS / np.float32(255) - np.float32(0.5)) / np.float32(0.25))
    with torch.no_grad():
        truth = net(x)
    for engine in ENGINES:
        session = snncc.Session(model, engine)
        assert [o.name for o in session.get_outputs()] == [*expected]
        found = dict(zip(expected, session.run(None, {"x": PIXELS}), strict=True))
        for name, take in expected.items():
            np.testing.assert_allclose(found[name], take(truth), atol=2e-5)
    assert model.report.verify.mismatched == 0
    assert model.report.import_law.changed == 0


def test_a_dict_beside_scores_holds_potentials_and_spikes_where_they_are():
    net = Returns(lambda net, u, early, late, y: (y, {"stem": u, "late": late.detach()}))
    model = compiled(net)
    require_results(
        model,
        net,
        **{
            "output0": lambda out: out[0],
            "output1.stem": lambda out: out[1]["stem"],
            "output1.late": lambda out: out[1]["late"],
        },
    )
    sources = {result.name: result.parts[0].source for result in model.results}
    assert sources["output1.late"] == model.program.neurons[1].name  # no copy of it
    assert sources["output1.stem"] in {a.name for a in model.program.accumulators}


def test_a_result_may_have_the_name_of_a_layer_or_a_neuron():
    net = Returns(lambda net, u, early, late, y: {"fire": early, "late": late, "head": y})
    model = compiled(net)
    assert [n.name for n in model.program.neurons] == ["fire", "late"]
    require_results(model, net, **{k: lambda out, k=k: out[k] for k in ("fire", "late", "head")})
    assert snncc.Session(model).run(["late"], {"x": PIXELS})[0].shape == (12, 6, 3, 3)


class EndsInOutput(nn.Module):
    """Its last neuron has the name that a result has which comes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.output = nn.Linear(36, 8), IntegerFire(4)

    def forward(self, x):
        return self.output(self.fc(x.flatten(1)))


def test_a_last_neuron_may_be_called_output():
    torch.manual_seed(0)
    net = EndsInOutput()
    require_results(compiled(net), net, output=lambda out: out)


def test_over_timesteps_results_are_means_or_of_each_timestep():
    def put(net, u, early, late, y):
        return {"scores": y.mean(0), "each": y, "rate": early.mean(0), "late": late}

    net = OverTime(put)
    model = compiled(net)
    require_results(
        model, net, **{k: lambda out, k=k: out[k] for k in put(0, *[torch.ones(2)] * 4)}
    )
    shapes = {o.name: o.shape for o in snncc.Session(model).get_outputs()}
    assert shapes["scores"] == ["N", 5]
    assert shapes["each"] == [4, "N", 5]


def test_one_value_may_be_two_results():
    net = Returns(lambda net, u, early, late, y: {"maps": [early, late], "last": late})
    take = {"maps.0": lambda out: out["maps"][0], "maps.1": lambda out: out["maps"][1]}
    require_results(compiled(net), net, **take, last=lambda out: out["last"])


def test_a_scaled_result_is_of_its_own_unit():
    net = Returns(lambda net, u, early, late, y: {"y": y, "half": y * 0.5})
    require_results(compiled(net), net, y=lambda out: out["y"], half=lambda out: out["half"])


def test_the_host_computes_the_end_of_each_result():
    def put(net, u, early, late, y):
        return {"scores": net.other(y) + 1, "early": early, "twice": net.other(y) * 2, "y": y}

    net = Returns(put)
    model = compiled(net, host="other")
    require_results(
        model, net, **{k: lambda out, k=k: out[k] for k in ("scores", "early", "twice", "y")}
    )
    kinds = {result.name: result.kind for result in model.results}
    assert kinds == {"scores": "host", "early": "counts", "twice": "host", "y": "potential"}


def test_the_host_adds_to_a_named_result():
    def put(net, u, early, late, y):
        return {"sum": net.other(y) + net.direct(early.flatten(1)), "y": y}

    net = Returns(put)
    net.direct = nn.Linear(144, 3)
    model = compiled(net, host="other")
    require_results(model, net, sum=lambda out: out["sum"], y=lambda out: out["y"])


def test_results_can_be_chosen_and_ordered():
    net = Returns(lambda net, u, early, late, y: {"a": y, "b": early, "c": y.softmax(1)})
    model = compiled(net, results=("b", "a"))
    require_results(model, net, b=lambda out: out["b"], a=lambda out: out["a"])
    with pytest.raises(UsageError, match="results='d': no such result; the network returns a, b,"):
        check(net, results="d", input_shape=(1, 6, 6))


def test_until_a_layer_of_a_network_of_several_results_there_is_one():
    net = Returns(lambda net, u, early, late, y: (y, early))
    model = compiled(net, until="down")
    assert [result.name for result in model.results] == ["output"]
    assert model.results[0].shape == (6, 3, 3)
    with pytest.raises(UsageError, match="results is the network's end, and until leaves it out"):
        compiled(net, until="down", results="output0")


class Beside(Returns):
    """Beside its scores it returns what no layer computes."""

    def forward(self, x):
        return {
            "scores": super().forward(x),
            "bias": self.head.bias * 1.0,
            "two": torch.tensor(2.0),
            "input": x,
            "flat": x.flatten(1),
        }


def test_results_without_layers_are_refused_by_name_and_can_be_left_out():
    net = Beside(lambda net, u, early, late, y: y).eval()
    found = check(net, input_shape=(1, 6, 6))
    assert found.results == ("scores",)
    constant, moved = "the same for every input", "the input, or computed from it without a layer"
    expected = {"bias": constant, "two": constant, "input": moved, "flat": moved}
    assert {f.node: f.what.removeprefix("the result is ") for f in found.faults} == expected
    assert {f.todo for f in found.faults} == {"leave it out, with results='scores'"}
    assert not check(net, input_shape=(1, 6, 6), results="scores").faults
    with pytest.raises(UnsupportedModelError, match="nothing stands in the way of results='scores"):
        snncc.compile(net, **OPTIONS)


def test_a_result_of_tokens_is_refused_by_name():
    net = Returns(
        lambda net, u, early, late, y: {"y": y, "tokens": late.flatten(2).transpose(1, 2)}
    )
    found = check(net, input_shape=(1, 6, 6))
    assert [fault.what for fault in found.faults] == ["the result 'tokens' is tokens, not a map"]
    assert found.results == ("y",)


def test_the_class_is_that_of_the_first_result_that_is_no_map():
    def put(net, u, early, late, y):
        return {"map": early, "scores": y, "features": late.flatten(1)}

    model = compiled(Returns(put))
    assert class_result(model.results).name == "scores"
    assert model.report.agreement == 1  # of a map alone it is None


def test_outputs_of_a_file_keep_their_names(tmp_path):
    net = Returns(lambda net, u, early, late, y: (y, late)).eval()
    path = tmp_path / "two.onnx"
    torch.onnx.export(
        net, (torch.zeros(2, 1, 6, 6),), path, dynamo=False, opset_version=17, verbose=False,
        input_names=["x"], output_names=["late", "y"], dynamic_axes={"x": {0: "N"}},
    )  # fmt: skip
    assert len(onnx.load(path).graph.output) == 2
    model = snncc.compile(path, PIXELS, weight_bits=24, input=OPTIONS["input"])
    require_results(model, net, late=lambda out: out[0], y=lambda out: out[1])


def test_a_network_on_the_grid_returns_the_same_results():
    net = Returns(lambda net, u, early, late, y: (y, early)).eval()
    grid = snncc.on_grid
    on_grid = grid(net, 8, (1, 6, 6), mean=(0.5,), std=(0.25,))
    found = on_grid(torch.from_numpy(PIXELS).float())
    assert [*found] == ["output0", "output1"]
    model = snncc.compile(on_grid.eval(), PIXELS, weight_bits=8)
    assert [result.name for result in model.results] == ["output0", "output1"]
    assert model.report.changed == 0


def test_a_file_of_several_results_is_the_network_that_was_compiled(tmp_path):
    net = Returns(lambda net, u, early, late, y: {"y": y, "late": late, "again": late})
    model = compiled(net)
    model.save(tmp_path / "net.snn")
    for engine in ENGINES:
        one, two = (snncc.Session(m, engine) for m in (model, tmp_path / "net.snn"))
        pairs = zip(one.run(None, PIXELS), two.run(None, PIXELS), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)


def test_sums_of_spikes_and_gates_are_results():
    def put(net, u, early, late, y):
        added = early + net.fire(2 * early)
        again = net.again(added)
        return {"y": again, "added": added, "half": added.flatten(1) / 2, "gate": early * early}

    net = Returns(put)
    net.again = nn.Conv2d(4, 2, 1)
    require_results(
        compiled(net), net, **{k: lambda out, k=k: out[k] for k in ("y", "added", "half", "gate")}
    )


def test_the_mean_of_a_sum_of_spikes_is_a_result():
    net = OverTime(lambda net, u, early, late, y: (y.mean(0), (late + net.late(late)).mean(0)))
    require_results(compiled(net), net, output0=lambda out: out[0], output1=lambda out: out[1])
