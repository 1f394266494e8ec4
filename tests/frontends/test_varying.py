"""Networks that are another one in each call, that something wraps, or that are not float32."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch_networks import Spelled, small

import snncc
from snncc.compiler import InputOptions
from snncc.errors import BadInputError, UnsupportedModelError
from snncc.frontends.pytorch import unwrapped
from snncc.nn import IntegerFire

SLOW = pytest.mark.slow
X = np.random.default_rng(0).integers(0, 256, (16, 2, 8, 8), dtype=np.uint8)
OPTIONS = {"input_shape": (2, 8, 8), "input": InputOptions(mean=(0.5,), std=(0.25,))}


class Counting(nn.Module):
    """Scales by the number of its calls."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.calls


class Noisy(nn.Module):
    """Adds a number of its generator."""

    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def forward(self, x):
        return x + float(self.draw())


class InTheMiddle(nn.Module):
    """The noise is the network's own, between two of its modules."""

    def __init__(self):
        super().__init__()
        self.net = small(IntegerFire(4))

    def forward(self, x):
        return self.net(x + random.random())


VARYING = {
    "numpy": (lambda: nn.Sequential(Noisy(np.random.randn), small(IntegerFire(4))), "0"),
    "python": (lambda: nn.Sequential(Noisy(random.random), small(IntegerFire(4))), "0"),
    "counter": (lambda: nn.Sequential(Counting(), small(IntegerFire(4))), "0"),
    "between modules": (InTheMiddle, ""),
}


@pytest.mark.parametrize(
    "name", ["counter", *(pytest.param(n, marks=SLOW) for n in VARYING if n != "counter")]
)
def test_a_network_that_varies_is_refused_where_it_does(name):
    make, path = VARYING[name]
    with pytest.raises(UnsupportedModelError, match="not the same in every call") as raised:
        snncc.compile(make().eval(), X, **OPTIONS)
    (fault,) = raised.value.faults
    assert fault.module == path
    assert "test_varying.py" in fault.source


class InPlace:
    """What ``compile()`` of a module leaves: the module itself."""

    def __new__(cls, net):
        net.compile()
        return net


@pytest.mark.parametrize(
    "wrap",
    [
        torch.compile,
        pytest.param(nn.DataParallel, marks=SLOW),
        pytest.param(lambda net: nn.DataParallel(nn.DataParallel(net)), marks=SLOW),
        pytest.param(lambda net: torch.compile(nn.DataParallel(net)), marks=SLOW),
        pytest.param(InPlace, marks=SLOW),
    ],
)
def test_what_is_wrapped_is_compiled(wrap):
    net = small(Spelled(4, 4.0)).eval()
    assert unwrapped(wrap(net)) is net
    wrapped = wrap(net)
    model = snncc.compile(wrapped, X, **OPTIONS, name="net")
    plain = snncc.compile(net, X, **OPTIONS, name="net")
    assert [n.module for n in model.program.neurons] == [n.module for n in plain.program.neurons]
    for one, two in zip(
        snncc.Session(model).run(None, X), snncc.Session(plain).run(None, X), strict=True
    ):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    "kind",
    [torch.float64, *(pytest.param(t, marks=SLOW) for t in (torch.float16, torch.bfloat16))],
)
def test_another_type_is_named_and_not_the_shape(kind):
    with pytest.raises(BadInputError, match=r"net\.float\(\)") as raised:
        snncc.compile(small(IntegerFire(4)).to(kind).eval(), X, **OPTIONS)
    assert str(kind).removeprefix("torch.") in str(raised.value)
    assert "input_shape" not in str(raised.value)


def test_one_layer_of_another_type_is_named():
    net = small(IntegerFire(4)).eval()
    net[-1].double()
    with pytest.raises(BadInputError, match=rf"float64 \('{len(net) - 1}\.weight'\)"):
        snncc.compile(net, X, **OPTIONS)
