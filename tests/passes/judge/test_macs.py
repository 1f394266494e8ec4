"""Multiply-accumulates by hand: of attention in both orders, and of what is no attention."""

from __future__ import annotations

import numpy as np
import pytest
from attention_nets import attend
from float_networks import Net, imported

from snncc.passes import FRONT, PassManager
from snncc.passes.judge.diagnose import Diagnosis, diagnose

STEM = 8 * 16 * 2 * 9  # outputs times fan-in
N = 16  # positions


def stem() -> Net:
    return Net((2, 8, 8), rms=1.0).conv(8, stride=2, pads=1).fire(4)


def diagnosis(net: Net) -> Diagnosis:
    return diagnose(PassManager(FRONT).run(imported(net)))


@pytest.mark.parametrize(
    ("stride", "wide", "heads", "products"),
    [
        (2, 1, 2, 2 * (N + N) * 4 * 4),
        (2, 2, 2, 2 * (N + N) * 4 * 8),
        (4, 2, 1, 4 * 4 * (8 + 16)),  # of 4 positions: the other order is cheaper
    ],
)
def test_attention_counts_in_its_cheaper_order(stride, wide, heads, products):
    net = Net((2, 8, 8), rms=1.0).conv(8, stride=stride, pads=1).fire(4)
    n = (8 // stride) ** 2
    layers = n * (8 * 2 * 9 + (2 + wide) * 8 * 8)
    found = diagnosis(attend(net, heads, wide=wide))
    assert found.faults == ()
    assert found.macs == found.macs_lowerable == layers + products


@pytest.mark.parametrize("op", ["MatMul", "Einsum"])
def test_products_that_are_no_attention_count_and_are_not_lowerable(op):
    net = attend(stem(), 2, op=op, between=lambda n: n.then("Softmax", axis=-1, module="soft"))
    found = diagnosis(net)
    layers = STEM + 3 * N * 8 * 8
    assert found.macs == layers + 2 * (N * N * 4 + N * N * 4)
    assert found.macs_lowerable <= layers


def test_a_layer_over_tokens_that_has_no_map_counts():
    net = stem()
    net.then("Reshape", net.const([0, 2, -1], int), module="tokens")
    net.then("MatMul", net.const(np.ones((64, 3))), module="head")
    net.shape = (2, 3)
    found = diagnosis(net)
    assert (found.macs, found.macs_lowerable) == (STEM + 2 * 64 * 3, STEM)


def test_a_layer_that_is_there_on_tokens_and_on_its_map_counts_once():
    net = stem()
    shape = net.const([0, 8, 4, 4], int)
    net.then("Reshape", net.const([0, 8, N], int), module="tokens")
    net.then("Transpose", perm=[0, 2, 1])
    net.then("MatMul", net.const(np.ones((8, 8))), module="fc")
    mapped = net.node("Reshape", net.node("Transpose", net.x, perm=[0, 2, 1]), shape)
    lost = net.node("Transpose", net.node("Softmax", net.x, axis=-1), perm=[0, 2, 1])
    net.x, net.shape = net.node("Add", mapped, net.node("Reshape", lost, shape)), (8, 4, 4)
    found = diagnosis(net.fire(4))
    assert found.macs == STEM + N * 8 * 8
