"""Products of spikes as people write them: which are gates, and what is said of others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, max_pool2d

import snncc
from snncc.compiler import InputOptions, check
from snncc.errors import UnsupportedModelError
from snncc.nn import IntegerFire
from snncc.program import Gate, Sum
from snncc.runtime.result import rates

PIXELS = InputOptions(mode="u8", mean=(0.0,), std=(1.0,))
X = np.random.default_rng(0).integers(0, 256, (16, 1, 6, 6)).astype(np.uint8)
NO_GATE = "a product of two live values that is no gate"
Meet = Callable[["Meeting", torch.Tensor, torch.Tensor], torch.Tensor]


class Meeting(nn.Module):
    """Two populations, what ``meet`` makes of them, and a classifier."""

    def __init__(self, meet: Meet, D: int = 2, norm: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.convs = nn.ModuleList(nn.Conv2d(1, 4, 3, padding=1) for _ in range(2))
        self.fires = nn.ModuleList(IntegerFire(D, norm) for _ in range(4))
        self.again, self.fc, self.meet = nn.Conv2d(4, 4, 1), nn.LazyLinear(3), meet
        self.eval()(torch.zeros(1, 1, 6, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = (f(6 * c(x)) for c, f in zip(self.convs, self.fires, strict=False))
        return self.fc(self.meet(self, a, b).flatten(1))

    def late(self, x: torch.Tensor) -> torch.Tensor:
        """A layer and a neuron."""
        return self.fires[3](2 * self.again(x))


def tokens(net: Meeting, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    flat, other = a.flatten(2), b.flatten(2)
    return (flat * (2 - other)).unflatten(2, (6, 6))


def head_of_tokens(net: Meeting, a: torch.Tensor, b: torch.Tensor, d: int = 2) -> torch.Tensor:
    """Token attention, QKFormer's: what sums over channels of a head fires opens those of b."""
    q, k = (each.flatten(2).unflatten(1, (4 // d, d)) for each in (a, b))  # [N, heads, d, P]
    opened = net.fires[2](q.sum(2, keepdim=True))
    return (k * opened).flatten(1, 2).unflatten(2, (6, 6))


GATES: dict[str, tuple[Meet, int]] = {
    "and": (lambda net, a, b: a * b, 1),
    "square": (lambda net, a, b: a * a, 1),
    "silence": (lambda net, a, b: a * (2 - b), 1),
    "silence first": (lambda net, a, b: (2 - b) * a, 1),
    "of a gate": (lambda net, a, b: (a * b) * a, 2),
    "of a later train": (lambda net, a, b: (a * b) * net.fires[2](net.again(a)), 2),
    "of a channel": (lambda net, a, b: a * net.fires[2](b.mean((2, 3), keepdim=True)), 1),
    "pooled": (
        lambda net, a, b: max_pool2d(a, 2) * max_pool2d(b, 2),
        1,
    ),
    "a factor, which is a norm": (lambda net, a, b: a * (0.5 * b), 1),
    "tokens": (tokens, 1),
    "a sum over channels of a head": (head_of_tokens, 1),
    "heads of one channel": (lambda net, a, b: head_of_tokens(net, a, b, 1), 1),
    "one head": (lambda net, a, b: head_of_tokens(net, a, b, 4), 1),
}


@pytest.mark.parametrize("name", GATES)
def test_a_product_of_spikes_is_a_gate(name: str) -> None:
    meet, count = GATES[name]
    model = snncc.compile(Meeting(meet), X, input_shape=(1, 6, 6), weight_bits=24, input=PIXELS)
    assert (model.report.changed, model.report.verify.mismatched) == (0, 0)
    assert sum(isinstance(node, Gate) for node in model.program.nodes) == count
    session = snncc.Session(model, engine="event")
    assert rates(session.trace(X), model.program).sops > 0


REFUSED: dict[str, tuple[Meet, str]] = {
    "silence of nothing": (lambda net, a, b: a * (0 - b), NO_GATE),
    "silence of both": (lambda net, a, b: (2 - a) * (2 - b), NO_GATE),
    "a potential": (
        lambda net, a, b: a * net.again(b), f"{NO_GATE}: 'again' is a membrane potential"
    ),
    "an average": (
        lambda net, a, b: avg_pool2d(a, 3, 1, 1) * b,
        f"{NO_GATE}: 'avg_pool2d' is an average or sum of spikes",
    ),
    "a train of each column": (lambda net, a, b: a * max_pool2d(b, (6, 1)), NO_GATE),
    "maximum": (
        lambda net, a, b: max_pool2d(a * b, 2), "max-pool of products of bursts"
    ),
    "maximum over a table of tokens and channels": (
        lambda net, a, b: max_pool2d((a * b).flatten(2).unflatten(1, (2, 2)), 3, 1, 1),
        "takes maxima over a table of tokens and channels",
    ),
    "repeated": (lambda net, a, b: net.again(a.mean((2, 3), keepdim=True) + b), "different shapes"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_none_is_named(name: str) -> None:
    meet, what = REFUSED[name]
    faults = check(Meeting(meet), input_shape=(1, 6, 6), input=PIXELS).faults
    assert any(what in fault.what for fault in faults), faults


def test_a_product_that_no_byte_holds_is_refused_by_check() -> None:
    net = Meeting(lambda net, a, b: a * b, D=20)
    (fault,) = check(net, input_shape=(1, 6, 6), input=PIXELS).faults
    assert fault.what == "multiplies bursts to up to 400 spikes"


@pytest.mark.parametrize("top", [0, 1, 4])
def test_silence_of_spikes_that_count_less_than_one_is_refused(top: int) -> None:
    net = Meeting(lambda net, a, b: a * (top - b), D=4, norm=4.0)
    with pytest.raises(UnsupportedModelError):
        snncc.compile(net, X, input_shape=(1, 6, 6), input=PIXELS)


SUMS: dict[str, tuple[Meet, int]] = {
    "of averages": (
        lambda net, a, b: net.late(
            avg_pool2d(a, 2) + avg_pool2d(b, 2)
        ), 1,
    ),
    "averaged before a neuron": (
        lambda net, a, b: net.fires[2](avg_pool2d(a + b, 2)), 1
    ),
    "with a gate": (lambda net, a, b: net.late(a * b + a * b), 1),
    "that a neuron reads as it is": (lambda net, a, b: net.fires[2](a + b), 0),
    "of an average and of spikes, which count otherwise": (
        lambda net, a, b: net.late(avg_pool2d(a, 3, 1, 1) + b), 0
    ),
    "of averages over other windows": (
        lambda net, a, b: net.late(avg_pool2d(a, 3, 1, 1) + avg_pool2d(b, (1, 3), 1, (0, 1))), 0
    ),
    "twice": (lambda net, a, b: net.late(a + a), 1),
    "that neurons alone read": (lambda net, a, b: net.fires[2](0.3 * (a + b)), 1),
    "of different averages": (
        lambda net, a, b: net.late(avg_pool2d(a, 2) + b[..., ::2, ::2]), 0
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [n for n in SUMS if "different" not in n])
def test_a_layer_reads_a_sum_of_spikes_once(name: str) -> None:
    meet, count = SUMS[name]
    model = snncc.compile(Meeting(meet), X, input_shape=(1, 6, 6), weight_bits=24, input=PIXELS)
    assert (model.report.changed, model.report.verify.mismatched) == (0, 0)
    assert sum(isinstance(node, Sum) for node in model.program.nodes) == count
    assert rates(snncc.Session(model, engine="event").trace(X), model.program).sops > 0


def test_a_sum_of_spikes_may_be_the_result() -> None:
    net = Meeting(lambda net, a, b: a + b)
    net.fc = nn.Identity()
    model = snncc.compile(net, X, input_shape=(1, 6, 6), weight_bits=24, input=PIXELS)
    assert (model.report.changed, model.report.verify.mismatched) == (0, 0)
    with torch.no_grad():
        expected = net(torch.tensor(X).float() / 255).numpy()
    np.testing.assert_array_equal(snncc.Session(model).run(None, X)[0], expected)


@pytest.mark.slow
def test_long_chains_of_sums_are_no_recursion() -> None:
    def chain(net: Meeting, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        for _ in range(450):
            a = a + b
        return net.late(a)

    assert check(Meeting(chain, D=1), input_shape=(1, 6, 6), input=PIXELS).faults == ()
