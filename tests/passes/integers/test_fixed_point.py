"""Laws of fixed point: weights and biases k / 2^m compile without a changed activation.

Their drives meet ties all the time, so a threshold that is off by one unit shows.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import onnx
import pytest
import torch
from exact_evaluation import evaluated
from fixed_point_networks import FixedPoint, fixed_point_networks
from float_networks import examples, imported
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import snncc
from snncc.compiler import InputOptions
from snncc.ir.oracle import evaluate
from snncc.nn import LIF
from snncc.passes import PassManager, QuantiseInput, pipeline

RULES = ["half-even", "half-up"]


def different(net: FixedPoint, bits: int, mean: Fraction, std: Fraction) -> dict[str, int]:
    """Counts that differ from those computed with fractions, by neuron."""
    q = net.rng.integers(0, 256, (3, *net.input)).astype(np.uint8)
    x = np.vectorize(lambda v: (Fraction(int(v), 255) - mean) / std, otypes=[object])(q)
    source = QuantiseInput((1 / (255 * float(std)),), (-float(mean) / float(std),))
    manager = PassManager(pipeline(source, bits))
    manager.run(imported(net))
    quantised, exact = manager.stages["quantised"], evaluated(net.proto(), x)
    known = {str(v.name) for node in quantised.graph for v in node.outputs}
    wrong = {}
    for node in (n for n in net.nodes if n.op_type == "IntegerFire"):
        label, norm = node.name.split("/")[1], next(a.f for a in node.attribute if a.name == "norm")
        name = label if label in known else f"{label}:count"
        (found,) = evaluate(quantised, {"x:u8": q}, [name]).values()
        wrong[label] = int(((exact[node.output[0]] * Fraction(norm)).astype(int) != found).sum())
    return wrong


#: Integers in, of any size; with 1 / 255, streams of pixels and spikes need more than 8 bits.
EVENTS, PIXELS = (Fraction(0), Fraction(1, 255)), (Fraction(0), Fraction(1))
CENTRED = (Fraction(1, 2), Fraction(1, 2))
CASES = [
    (8, 127, (1.0, 2.0, 4.0), EVENTS),
    (16, 127, (1.0, 2.0, 3.0, 5.0), EVENTS),
    (16, 127, (1.0, 3.0, 4.0), PIXELS),
    (24, 2000, (1.0, 3.0, 4.0), CENTRED),
]


def networks(top: int, norms: tuple[float, ...], std: Fraction) -> st.SearchStrategy[FixedPoint]:
    return fixed_point_networks(top, 128 / 255 / float(std), norms)


@pytest.mark.parametrize(("bits", "top", "norms", "source"), CASES)
def test_fixed_point_fires_what_fractions_say(bits, top, norms, source):
    @settings(max_examples=12)
    @given(networks(top, norms, source[1]))
    def holds(net):
        assert set(different(net, bits, *source).values()) == {0}

    holds()


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "top", "norms", "source"), CASES)
def test_much_fixed_point_fires_what_fractions_say(
    compared: Counter[str], bits, top, norms, source
):
    @settings(max_examples=examples(400))
    @given(networks(top, norms, source[1]))
    def holds(net):
        assert set(different(net, bits, *source).values()) == {0}
        compared["of fixed point"] += 1

    holds()


# -- through the whole compiler ------------------------------------------------------------


def cnn(rounding: str, digits: int, seed: int = 0) -> FixedPoint:
    """Two convolutions, a stream, pools: weights and biases k / 2^digits."""
    net = FixedPoint((1, 8, 8), seed, 0, 128.0)

    def weight(shape, D):
        size = D / 2 / (net.rms * np.sqrt(np.prod(shape[1:])))
        return np.rint(net.rng.normal(0, size, shape) * 2.0**digits) / 2.0**digits

    net.weight = weight
    net.bias = lambda size, D: np.rint(net.rng.normal(1, 1, size) * 2.0**digits) / 2.0**digits
    net.rms = 4.0
    net.conv(4, 3, pads=1, D=6).fire(6, rounding=rounding)
    net.conv(6, 3, pads=1, D=6)
    potential = net.x
    net.fire(4, rounding=rounding).conv(6, 3, pads=1, D=6).add(potential)
    net.fire(4, 2.0, rounding=rounding).pool("AveragePool").fire(3, rounding=rounding)
    net.flatten().linear(5)
    return net


@pytest.mark.parametrize("bits", [8, 16, 24])
@pytest.mark.parametrize("digits", [1, 4])
@pytest.mark.parametrize("rounding", RULES)
def test_no_activation_changes(tmp_path, rounding, digits, bits):
    onnx.save(cnn(rounding, digits).proto(), tmp_path / "net.onnx")
    pixels = np.random.default_rng(1).integers(0, 9, (48, 1, 8, 8), dtype=np.uint8)
    events = InputOptions(mode="u8", mean=(0.0,), std=(1 / 255,))
    options = {"weight_bits": bits, "input": events, "verify_samples": 1}
    report = snncc.compile(tmp_path / "net.onnx", pixels, **options).report
    assert report.changed == 0
    assert sum(layer.ties for layer in report.layers) > 50


class Remembering(nn.Module):
    """Two layers of neurons with memory; weights and biases k / 8, thresholds powers of two."""

    def __init__(self, reset: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3)
        self.a, self.b = LIF(reset=reset), LIF(threshold=0.5, reset=reset)
        self.head = nn.Linear(6 * 16, 3)
        for layer in (self.first, self.second, self.head):
            layer.weight.data = (layer.weight.data * 24).round() / 8
            layer.bias.data = (layer.bias.data * 8).round() / 8

    def forward(self, x):
        x = x.unsqueeze(0).repeat(4, 1, 1, 1, 1)
        for layer, neuron in ((self.first, self.a), (self.second, self.b)):
            x = neuron(layer(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
        return self.head(x.flatten(2)).mean(0)


@pytest.mark.parametrize("bits", [8, 16, 24])
@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_no_spike_of_a_neuron_with_memory_changes(reset, bits):
    events = np.random.default_rng(0).integers(0, 3, (64, 1, 6, 6), dtype=np.uint8)
    options = {"input_shape": (1, 6, 6), "weight_bits": bits, "verify_samples": 1}
    raw = InputOptions(mode="u8", mean=(0.0,), std=(1 / 255,))
    model = snncc.compile(Remembering(reset).eval(), events, input=raw, **options)
    assert model.report.changed == 0
    assert sum(layer.ties for layer in model.report.layers) > 50
