"""Published accountings give the figures that their authors published."""

import sys
from pathlib import Path

import numpy as np
import pytest

from snncc.program import Accumulator, Neuron, Program, Projection, Readout, Source
from snncc.runtime.profile.accountings import AccountedAttention, AccountedLayer, account
from snncc.runtime.profile.counting import Counted
from snncc.runtime.profile.models import models_named
from snncc.runtime.profile.profile import profile_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LOG = Path(__file__).with_name("spikingformer_8_512.toml")


def spikingformer():
    """Layers and attentions of Spikingformer-8-512, with the rates in the authors' log."""
    log = tomllib.loads(LOG.read_text())
    layers = [
        AccountedLayer(name, operations, 4, None if rate == 1 else 4 * rate / 4)
        for name, operations, rate in log["layers"]
    ]
    heads, tokens, width = 8, 14 * 14, 512 // 8
    product = 4 * heads * tokens * width * width
    attentions = [
        AccountedAttention(f"block{i}", product, product, (k, v), q)
        for i, (q, k, v) in enumerate(log["attention"])
    ]
    return layers, attentions


def test_spikingformer_8_512_meets_the_authors_figures():
    (model,) = models_named(["spikingformer"])
    found = account(model.accounting, *spikingformer())
    assert found.macs == 347_329_512
    assert found.acs == pytest.approx(6.51754094e9, rel=1e-8)
    assert found.energy(model) / 1e9 == pytest.approx(7.4635, abs=5e-5)


def test_other_accountings_count_the_same_network_otherwise():
    layers, attentions = spikingformer()
    first = [
        AccountedLayer(x.name, x.operations, x.timesteps, x.mean, is_first=i == 0)
        for i, x in enumerate(layers)
    ]
    once = account("spike-driven-transformer", first, attentions)
    assert once.macs == 346_816_512 / 4 + 513_000  # the image is convolved once, not four times
    assert once.acs > account("spikingformer", layers, attentions).acs
    assert account("spikeyolo", layers, attentions).macs == 0


def stem():
    """E-SpikeFormer s: a 7x7 convolution with stride 2 over the image, and a neuron behind it."""
    weights = np.ones((16, 3, 7, 7), np.int8)
    p = Projection("x", "conv", (weights,), 255, strides=(2, 2), pads=(3, 3, 3, 3))
    bias, levels = np.zeros(16, np.int64), np.array([[1, 2, 3, 4]]) * 10_000
    nodes = (
        Source("x", (3, 224, 224), 255),
        Accumulator("v", (16, 112, 112), (p,), bias, 0, 147 * 255, "downsample1_1"),
        Neuron("n", (16, 112, 112), "v", levels, 0),
        Readout("y", (16, 112, 112), "n", 1.0),
    )
    return Program("stem", nodes, ticks=4)


@pytest.fixture(scope="module")
def stem_profile():
    from snncc.backends.clocked.engine import ClockedEngine

    program = stem()
    x = np.full((1, *program.source.shape), 200, np.uint8)
    counted = Counted(program, is_static=True)
    counted.add(ClockedEngine(program).run(x), x)
    models = models_named(["spike-driven-transformer", "spikingformer", "spikeyolo", "45nm-fp32"])
    return profile_of(program, counted, models, hash="", engine="clocked", data="")


def test_the_stem_of_e_spikeformer_s(stem_profile):
    energy = stem_profile.energy["spike-driven-transformer"]
    assert stem_profile.projections[0].padded == 29_503_488
    assert energy.snn == pytest.approx(29_503_488 * 4.6)
    assert energy.snn / 1e9 == pytest.approx(0.136, abs=5e-4)
    assert stem_profile.energy["spikeyolo"].snn == pytest.approx(29_503_488 * 0.9)


def test_padding_is_counted_by_papers_alone(stem_profile):
    (work,) = stem_profile.projections
    per_axis = 7 * 112 - (3 + 1) - 2  # taps beyond the border: 3 and 1 before, 2 after
    assert work.dense == 16 * 3 * per_axis**2 < work.padded
    assert stem_profile.energy["45nm-fp32"].snn == pytest.approx(work.dense * 4.6)


def test_a_paper_says_nothing_of_other_networks(stem_profile):
    told = stem_profile.energy["spikingformer"].to_json()
    assert {k for k, v in told.items() if v is not None} == {"snn"}
