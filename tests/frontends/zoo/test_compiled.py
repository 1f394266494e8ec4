"""Published networks, small: compiled, and the same on all engines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import snncc
from snncc.frontends import zoo
from snncc.frontends.zoo.e_spikeformer import Backbone, DvsESpikeFormer, ESpikeFormer, Shape
from snncc.frontends.zoo.e_spikeformer_large import LargeESpikeFormer, LargeShape
from snncc.frontends.zoo.masked_autoencoder import MaskedAutoencoder, MaskedShape
from snncc.frontends.zoo.parts import Layers
from snncc.nn import IntegerFire
from snncc.runtime.artifact import CompiledModel

BASE = Shape(widths=(8, 8, 16, 16), blocks=(1, 1), classes=5)
SCALED = Shape(widths=(8, 8, 16, 16), blocks=(1, 0), channels=2, classes=5, layer_scale=True)
LARGE = LargeShape((8, 16, 16), 1, hidden=24, rep_conv=20, classes=5, layer_scale=False)
MASKED = MaskedShape(**vars(LARGE), tokens=4)
HALF_UP = Layers(rounding="half-up")


def seen_noise(net: nn.Module, *shape: int) -> nn.Module:
    """The network in eval mode, batch norms and layer scales such that its neurons fire."""
    for name, value in net.named_parameters():
        if "layer_scale" in name:
            nn.init.uniform_(value, 0.5, 1.5)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 1.0, 2.0)
    with torch.no_grad():
        net.train()(torch.randn(*shape))
    return net.eval()


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


Compiled = tuple[nn.Module, CompiledModel]


def compiled(net: nn.Module, host: str | None = None) -> Compiled:
    x = pixels(4, 3, 32, 32)
    return net, snncc.compile(net, x, input_shape=(3, 32, 32), name="n", host=host)


@pytest.fixture(scope="module")
def sparse() -> nn.Module:
    """A base network as it is trained after masks."""
    torch.manual_seed(0)
    return seen_noise(ESpikeFormer(BASE, Layers(sparse=True), scale=8.0), 16, 3, 32, 32)


@pytest.fixture(scope="module")
def base(sparse: nn.Module) -> Compiled:
    """Plain convolutions with its weights."""
    net = ESpikeFormer(BASE, Layers(), scale=8.0)
    net.load_state_dict(sparse.state_dict())
    return compiled(net.eval())


@pytest.fixture(scope="module")
def encoder() -> Compiled:
    torch.manual_seed(0)
    return compiled(seen_noise(MaskedAutoencoder(MASKED, HALF_UP, scale=8.0), 16, 3, 32, 32))


@pytest.fixture(scope="module")
def large(encoder: Compiled) -> Compiled:
    """The network that the encoder is trained for, with its weights."""
    net = LargeESpikeFormer(LARGE, HALF_UP, scale=8.0).eval()
    kept = {k: v for k, v in encoder[0].state_dict().items() if k in net.state_dict()}
    net.load_state_dict(kept, strict=False)
    return compiled(net, host="head")


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name", ["base", pytest.param("encoder", marks=SLOW), pytest.param("large", marks=SLOW)]
)
def test_a_network_is_compiled_and_engines_agree(name, request):
    _, model = request.getfixturevalue(name)
    assert model.report.verify.mismatched == 0
    coverage = model.report.verify.coverage
    assert coverage.fired == coverage.populations == len(model.program.neurons)


@SLOW
def test_weights_trained_behind_masks_compile_to_the_network_of_plain_convolutions(sparse, base):
    (one, arrays), (other, others) = (m.program.to_json() for _, m in (compiled(sparse), base))
    assert one == other
    assert arrays.keys() == others.keys()
    assert all(np.array_equal(arrays[key], others[key]) for key in arrays)


def test_a_masked_encoder_fires_as_the_network_it_is_trained_for(encoder, large):
    x = pixels(2, 3, 32, 32)
    counts = []
    for _, model in (encoder, large):
        activity = snncc.Session(model, engine="clocked").trace({model.input.name: x})
        modules = {n.name: n.module for n in model.program.neurons}
        counts.append({modules[name]: found for name, found in activity.counts.items()})
    assert counts[0].keys() == counts[1].keys()
    assert all(np.array_equal(counts[0][name], counts[1][name]) for name in counts[0])


@pytest.mark.parametrize("distilled", [False, pytest.param(True, marks=SLOW)])
def test_branches_that_never_fired_in_training_leave_the_stream_its_bits(distilled):
    """Attention so small that it is silent: the three norms after it have variance 0."""
    torch.manual_seed(0)
    shape = LargeShape((32, 64, 128), 1, hidden=192, classes=5, distilled=distilled)
    net = seen_noise(LargeESpikeFormer(shape, HALF_UP, scale=1e-6), 8, 3, 32, 32)
    projection = net.block3[0].attn.proj_conv
    norms = [m for m in projection.modules() if isinstance(m, nn.BatchNorm1d)]
    assert [float(m.running_var.max()) for m in norms] == [0, 0, 0]
    x = pixels(4, 3, 32, 32)
    options = {"input_shape": (3, 32, 32), "host": "head", "weight_bits": 24}
    model = snncc.compile(net, x, **options)
    assert model.report.verify.mismatched == 0
    assert model.report.changed < 1e-4
    assert len(model.report.still_norms) == 3
    shifts = [p.shift for a in model.program.accumulators for p in a.projections]
    assert max(shifts) > 16
    scores = snncc.Session(model).run(None, {"x": x})[0]
    mean, std = (torch.tensor(net.default_cfg[k])[:, None, None] for k in ("mean", "std"))
    with torch.no_grad():
        wanted = net((torch.from_numpy(x).float() / 255 - mean) / std).numpy()
    np.testing.assert_allclose(scores, wanted, atol=1e-4 * np.abs(wanted).max())


# norms of HARDVS and of Gesture: neither is D
@pytest.mark.parametrize(
    ("norm", "batch_first"), [pytest.param(1.0, None, marks=SLOW), (8.0, True)]
)
def test_frames_of_an_event_camera_are_a_sequence(norm, batch_first):
    torch.manual_seed(0)
    net = seen_noise(DvsESpikeFormer(SCALED, Layers(norm=norm)), 8, 3, 2, 32, 32)
    counts = pixels(4, 3, 2, 32, 32) // 32
    chosen = {"input_shape": (2, 32, 32), "timesteps": 3, "batch_first": batch_first}
    model = snncc.compile(net, counts, weight_bits=24, **chosen)
    assert model.report.verify.mismatched == 0
    assert (model.program.timesteps, model.program.ticks) == (3, 4)
    assert model.report.import_law.changed == 0
    scores = snncc.Session(model, engine="clocked").run(None, {model.input.name: counts})[0]
    with torch.no_grad():
        wanted = net(torch.from_numpy(counts).float()).numpy()
    np.testing.assert_allclose(scores, wanted, atol=1e-4 * np.abs(wanted).max())


@SLOW
def test_a_segmentation_backbone_divides_by_norms_that_it_has_learnt():
    """Layer scales, and a norm for each channel, of q and k for each head, after its neurons."""
    torch.manual_seed(0)
    shape = replace(SCALED, channels=3, classes=0)
    plain = Backbone(shape, Layers(), 8, 8.0, 4)
    sizes: dict[str, torch.Size] = {}
    for name, module in plain.named_modules():
        if isinstance(module, IntegerFire) and name != "tap_spike":
            module.register_forward_hook(lambda _m, _a, y, name=name: sizes.update({name: y.shape}))
    plain.eval()(torch.zeros(1, 3, 32, 32))
    norms = {}
    for name, (_, channels, *rest) in sizes.items():
        of_products = name.endswith((".q_spike", ".k_spike"))
        numbers = torch.empty(8 if of_products else channels).uniform_(2, 6)
        spread = numbers.repeat_interleave(channels // len(numbers))
        norms[f"{name}.Norm"] = spread.reshape(1, channels, *(1 for _ in rest))
    built = zoo.build("e-spikeformer-backbone", {"scale": 8.0}, plain.state_dict() | norms)
    assert built.read["learnt_norms"] == len(norms) == 34
    built.module.load_state_dict(plain.state_dict() | norms)
    net = seen_noise(built.module, 16, 3, 32, 32)
    model = snncc.compile(net, pixels(4, 3, 32, 32), input_shape=(3, 32, 32), weight_bits=24)
    assert model.report.verify.mismatched == 0
    assert [*model.report.verify.engines] == ["spike-form", "clocked", "event"]
    assert not model.report.verify.coverage.silent
    assert model.report.import_law.changed == 0
    assert model.report.changed == 0
