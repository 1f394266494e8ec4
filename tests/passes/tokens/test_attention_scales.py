"""Factors of q, k and v: after attention where products allow it, else named."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch
from torch import nn

import snncc
from snncc.errors import UnsupportedModelError
from snncc.nn import IntegerFire

WIDTH, HEADS = 8, 2
BY_CHANNEL = torch.linspace(1.53, 5.1, WIDTH)  # off the lattice of counts: no ties
BY_HEAD = torch.tensor([2.11, 3.37]).repeat_interleave(WIDTH // HEADS)


class Divided(nn.Module):
    """Attention of spike counts, divided by numbers of their channels; multiplied, if one is 0."""

    default_cfg = {"input_size": (3, 4, 4), "mean": (0.5,), "std": (0.25,)}  # noqa: RUF012

    def __init__(self, **norms: torch.Tensor) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.fire = IntegerFire(4)
        self.qkv = nn.ModuleDict({n: nn.Conv2d(WIDTH, WIDTH, 1) for n in "qkv"})
        self.qkv_fire = nn.ModuleDict({n: IntegerFire(4) for n in "qkv"})
        self.norms = {n: norm.reshape(1, -1, 1, 1) for n, norm in norms.items()}
        has_zero = any((norm == 0).any() for norm in norms.values())
        self.scaled = operator.mul if has_zero else operator.truediv
        self.attn_fire = IntegerFire(4)
        self.head = nn.Conv2d(WIDTH, 5, 1)

    def forward(self, x):
        s = self.fire(4 * self.stem(x))
        q, k, v = (self._tokens(name, s) for name in "qkv")
        y = (q @ k.transpose(-2, -1)) @ v / 8
        return self.head(self.attn_fire(y.transpose(-2, -1).reshape(s.shape)))

    def _tokens(self, name, s):
        counts = self.qkv_fire[name](4 * self.qkv[name](s))
        if name in self.norms:
            counts = self.scaled(counts, self.norms[name])
        n, channels, height, width = counts.shape
        return counts.reshape(n, HEADS, channels // HEADS, height * width).transpose(-2, -1)


def network(**norms):
    torch.manual_seed(0)
    return Divided(**norms).eval()


@pytest.mark.parametrize(
    "norms",
    [{"v": BY_CHANNEL}, {"q": BY_HEAD, "k": BY_HEAD.flip(0), "v": BY_CHANNEL}],
    ids=["v", "all"],
)
def test_factors_end_in_levels(norms):
    x = np.random.default_rng(0).integers(0, 256, (8, 3, 4, 4), dtype=np.uint8)
    net = network(**norms)
    model = snncc.compile(net, x, weight_bits=24)
    assert model.report.verify.mismatched == 0
    assert not model.report.verify.coverage.silent
    assert model.report.import_law.changed == 0
    assert model.report.changed_teacher_forced == 0
    (attention,) = (n for n in model.program.neurons if n.module == "attn_fire")
    assert len(attention.levels) == WIDTH  # each channel has its own


@pytest.mark.parametrize("name", ["q", "k"])
def test_factors_that_differ_within_a_head_are_refused(name):
    with pytest.raises(UnsupportedModelError) as refused:
        snncc.compile(network(**{name: BY_CHANNEL, "v": BY_CHANNEL}))
    (fault,) = refused.value.faults
    assert fault.what == f"{name} of attention: factors differ within a head"
    assert "those of v may differ" in fault.todo


@pytest.mark.parametrize(
    ("norm", "what"),
    [(0.0, "channel 2: multiplied by zero"), (-2.0, "channel 2: negative scale")],
)
def test_a_factor_that_leaves_no_positive_one_is_refused(norm, what):
    norms = torch.ones(WIDTH)
    norms[2] = norm
    with pytest.raises(UnsupportedModelError) as refused:
        snncc.compile(network(v=norms))
    assert what in refused.value.faults[0].what
