"""Published networks: as many parameters, the same keys, what weights tell and what they do not."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from snncc.errors import BadInputError, UsageError
from snncc.frontends import zoo
from snncc.frontends.checkpoint import load_weights, read_weights
from snncc.frontends.zoo.e_spikeformer import Attention, DvsESpikeFormer, ESpikeFormer, Shape
from snncc.frontends.zoo.e_spikeformer_large import LargeESpikeFormer, LargeShape
from snncc.frontends.zoo.masked_autoencoder import MaskedAutoencoder, MaskedShape
from snncc.frontends.zoo.parts import Layers

HALF_UP = Layers(rounding="half-up")
TINY = Shape(widths=(16, 16, 16, 32), blocks=(1, 1), classes=5)
TINY_LARGE = LargeShape(widths=(8, 16, 16), blocks=1, hidden=24, classes=5, layer_scale=False)
TINY_MASKED = MaskedShape(**vars(TINY_LARGE), tokens=4)


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# -- sizes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("widths", "classes", "count"),
    [
        ((24, 48, 96, 128), 1000, 2_702_048),
        ((32, 64, 128, 192), 1000, 5_105_608),
        ((48, 96, 192, 240), 1000, 10_023_112),
        ((64, 128, 256, 360), 1000, 18_987_504),
    ],
)
def test_base_networks_have_the_published_number_of_parameters(widths, classes, count):
    with torch.device("meta"):
        assert parameters(ESpikeFormer(Shape(widths, classes=classes), Layers())) == count


def test_the_network_for_event_cameras_has_the_published_number_of_parameters():
    shape = Shape((64, 128, 256, 360), channels=2, classes=300, layer_scale=True)
    with torch.device("meta"):
        assert parameters(DvsESpikeFormer(shape, Layers(norm=1.0))) == 18_740_004


@pytest.mark.parametrize(
    ("widths", "rep_conv", "distilled", "count"),
    [
        ((128, 256, 512), 512, False, 82_502_952),
        ((128, 256, 512), 512, True, 83_015_952),
        ((128, 256, 512), 768, False, 85_654_824),  # the released file
        ((196, 384, 768), 0, False, 170_971_714),
        ((192, 384, 768), 0, False, 170_810_824),  # the masked one's widths
    ],
)
def test_large_networks_have_the_published_number_of_parameters(widths, rep_conv, distilled, count):
    shape = LargeShape(widths, rep_conv=rep_conv, distilled=distilled)
    with torch.device("meta"):
        assert parameters(LargeESpikeFormer(shape, HALF_UP)) == count


# -- keys ----------------------------------------------------------------------------------

_BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def _bn(path: str) -> set[str]:
    return {f"{path}.{name}" for name in _BN}


def _conv_bn(path: str) -> set[str]:
    return {f"{path}.0.weight"} | _bn(f"{path}.1")


def _down(path: str) -> set[str]:
    return {f"{path}.encode_conv.weight", f"{path}.encode_conv.bias"} | _bn(f"{path}.encode_bn")


def _separable(path: str) -> set[str]:
    return set().union(*(_conv_bn(f"{path}.{n}") for n in ("pwconv1", "dwconv", "pwconv2")))


def _mlp(path: str) -> set[str]:
    linear = {f"{path}.fc{i}_conv.{n}" for i in (1, 2) for n in ("weight", "bias")}
    return linear | _bn(f"{path}.fc1_bn") | _bn(f"{path}.fc2_bn")


def _conv_block(path: str) -> set[str]:
    pair = {f"{path}.conv1.weight", f"{path}.conv2.weight"}
    return _separable(f"{path}.Conv") | pair | _bn(f"{path}.bn1") | _bn(f"{path}.bn2")


def _transformer_block(path: str) -> set[str]:
    attention = (_conv_bn(f"{path}.attn.{n}_conv") for n in ("q", "k", "v", "proj"))
    return _separable(f"{path}.conv").union(*attention) | _mlp(f"{path}.mlp")


def test_a_base_network_has_the_official_keys_and_no_others():
    blocks = ("ConvBlock1_1", "ConvBlock1_2", "ConvBlock2_1", "ConvBlock2_2")
    downs = ("downsample1_1", "downsample1_2", "downsample2", "downsample3", "downsample4")
    expected = {"head.weight", "head.bias"}.union(
        *(_conv_block(f"{name}.0") for name in blocks),
        *(_down(name) for name in downs),
        *(_transformer_block(f"block3.{i}") for i in range(6)),
        *(_transformer_block(f"block4.{i}") for i in range(2)),
    )
    with torch.device("meta"):
        state = ESpikeFormer(Shape((32, 64, 128, 192)), Layers()).state_dict()
    assert set(state) == expected
    assert [*state["ConvBlock1_1.0.Conv.dwconv.0.weight"].shape] == [32, 1, 7, 7]
    assert [*state["block3.0.conv.dwconv.0.weight"].shape] == [256, 1, 3, 3]
    assert [*state["block4.1.attn.v_conv.0.weight"].shape] == [768, 192, 1, 1]
    assert [*state["block3.5.mlp.fc1_conv.weight"].shape] == [512, 128, 1]


def test_layer_scale_adds_its_keys_and_nothing_else():
    with torch.device("meta"):
        plain = ESpikeFormer(TINY, Layers()).state_dict()
        scaled = ESpikeFormer(Shape(**{**vars(TINY), "layer_scale": True}), Layers()).state_dict()
    blocks = ("block3.0", "block4.0")
    added = {f"{block}.layer_scale{i}" for block in blocks for i in (1, 2, 3)}
    assert set(scaled) - set(plain) == added


def _large_block(path: str, rep_conv: bool) -> set[str]:
    keys = {f"{path}.layer_scale1", f"{path}.layer_scale2"} | _mlp(f"{path}.mlp")
    for name in ("q", "k", "v", "proj"):
        at = f"{path}.attn.{name}_conv"
        keys |= _conv_bn(f"{at}.0.conv1") | _conv_bn(f"{at}.0.conv2") | _bn(f"{at}.1")
    if rep_conv:
        keys |= _conv_bn(f"{path}.rep_conv.conv1") | _conv_bn(f"{path}.rep_conv.conv2")
    return keys


def _pair(path: str) -> set[str]:
    both = (f"{path}.conv1.0", f"{path}.conv2.0")
    return set().union(*(_conv_bn(at) | {f"{at}.0.bias"} for at in both))


@pytest.mark.parametrize("rep_conv", [0, 768])
def test_a_large_network_has_the_official_keys_and_no_others(rep_conv):
    blocks = ("ConvBlock1_1", "ConvBlock1_2", "ConvBlock2_1", "ConvBlock2_2")
    downs = ("downsample1_1", "downsample1_2", "downsample2", "downsample3")
    heads = {f"{head}.{name}" for head in ("head", "head_kd") for name in ("weight", "bias")}
    expected = heads.union(
        *(_pair(f"{name}.0") for name in blocks),
        *(_down(name) for name in downs),
        *(_large_block(f"block3.{i}", rep_conv > 0) for i in range(12)),
    )
    shape = LargeShape((128, 256, 512), rep_conv=rep_conv, distilled=True)
    with torch.device("meta"):
        state = LargeESpikeFormer(shape, HALF_UP).state_dict()
    assert set(state) == expected
    assert [*state["block3.0.attn.q_conv.0.conv1.0.weight"].shape] == [768, 512, 1]


def test_a_masked_encoder_has_the_keys_of_the_network_it_is_trained_for():
    vanilla = LargeESpikeFormer(TINY_LARGE, HALF_UP).state_dict()
    masked = MaskedAutoencoder(TINY_MASKED, HALF_UP).state_dict()
    shared = {key: value.shape for key, value in vanilla.items() if not key.startswith("head")}
    assert {key: masked[key].shape for key in shared} == shared
    others = {key.split(".")[0] for key in masked.keys() - shared.keys()}
    decoder = {"embed", "pos_embed", "blocks", "norm", "pred"}
    assert others == {"norm", "pos_embed", "mask_token"} | {f"decoder_{n}" for n in decoder}


# -- functions -----------------------------------------------------------------------------


def test_attention_is_the_product_of_counts_head_by_head():
    torch.manual_seed(0)
    layers = Layers(D=4)
    attention = Attention(layers, width=8, heads=2, expand_v=3).eval()
    x = torch.randn(2, 8, 3, 3) * 3
    seen = {}
    for name in ("q_spike", "k_spike", "v_spike", "attn_spike"):
        module = getattr(attention, name)
        module.register_forward_hook(
            lambda _m, args, out, name=name: seen.update({name: (args[0], out)})
        )
    attention(x)
    q, k, v = (seen[f"{name}_spike"][1].flatten(2) for name in "qkv")
    wanted = torch.zeros(2, 24, 9)
    for channel in range(24):
        head = channel // 12
        mine = slice(4 * head, 4 * head + 4)
        weights = torch.einsum("ncq,nck->nqk", q[:, mine], k[:, mine])
        wanted[:, channel] = torch.einsum("nqk,nk->nq", weights, v[:, channel])
    wanted *= 2 / math.sqrt(4)
    torch.testing.assert_close(seen["attn_spike"][0].flatten(2), wanted)


def test_a_mask_of_ones_changes_nothing_and_masked_patches_stay_silent():
    torch.manual_seed(0)
    net = MaskedAutoencoder(TINY_MASKED, HALF_UP).eval()
    x = torch.randn(2, 3, 32, 32)
    plain = net.reconstruct(x, torch.ones(2, 1, 2, 2))
    tokens = net.norm(net(x).flatten(2)).transpose(1, 2)
    y = net.decoder_embed(tokens) + net.decoder_pos_embed
    for block in net.decoder_blocks:
        y = block(y)
    torch.testing.assert_close(plain, net.decoder_pred(net.decoder_norm(y)))
    seen = []
    net.downsample3.register_forward_hook(lambda _m, _args, out: seen.append(out))
    net.reconstruct(x, torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]]).repeat(2, 1, 1, 1))
    assert not seen[0][:, :, 0, 1].any()
    assert seen[0][:, :, 1, 1].any()


def test_the_loss_hides_masked_patches_and_standardises_them():
    torch.manual_seed(0)
    net = MaskedAutoencoder(TINY_MASKED, HALF_UP).eval()
    x = torch.randn(1, 3, 32, 32)
    mask = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]])
    before = net.loss(x, mask)
    x[:, :, :16, 16:] = x[:, :, :16, 16:] * 3 + 1
    torch.testing.assert_close(net.loss(x, mask), before)
    x[:, :, 16:, 16:] *= 3
    assert net.loss(x, mask) != before


# -- what weights tell, and what they do not -----------------------------------------------


def test_widths_and_parts_are_read_off_the_tensors():
    shape = Shape((16, 16, 24, 32), blocks=(3, 0), channels=2, classes=11, layer_scale=True)
    state = ESpikeFormer(shape, Layers()).state_dict()
    wrapped = {f"module.{key}": value for key, value in state.items()}
    built = zoo.build("e-spikeformer-dvs", {}, wrapped)
    assert built.read == vars(shape)
    assert built.module.state_dict().keys() == state.keys()
    large = LargeShape((8, 16, 16), 2, hidden=20, rep_conv=28, classes=5, distilled=True)
    state = LargeESpikeFormer(large, HALF_UP).state_dict()
    built = zoo.build("e-spikeformer-large", {}, state)
    assert built.read == vars(large)
    built.module.load_state_dict(state)


@pytest.mark.parametrize(
    ("widths", "rep_conv", "encoder", "alone"),
    [
        ((128, 256, 512), 512, 82_502_952 - 513_000 - 24 * 512, 3_636_992),  # no head, no scales
        ((192, 384, 768), 0, 170_810_824 - 769_000 - 24 * 768, 3_753_216),
    ],
)
def test_masked_autoencoders_of_the_published_widths_are_read_whole(
    widths, rep_conv, encoder, alone
):
    shape = MaskedShape(widths, hidden=widths[-1] * 3 // 2, rep_conv=rep_conv, classes=0,
                        layer_scale=False)  # fmt: skip
    with torch.device("meta"):
        state = MaskedAutoencoder(shape, HALF_UP).half().state_dict()
        built = zoo.build("e-spikeformer-mae", {}, state)
    assert built.read == vars(shape)
    assert (shape.tokens, shape.decoder) == (196, (256, 4, 1024))
    found = built.module.state_dict()
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in state.items()}
    assert [*built.left_out] == [
        "pos_embed", "mask_token", "decoder_pos_embed", "norm", "decoder_embed", "decoder_blocks",
        "decoder_norm", "decoder_pred",
    ]  # fmt: skip
    assert sum(built.left_out.values()) == alone
    assert parameters(built.module) == encoder + alone


def test_the_size_of_a_masked_autoencoders_images_comes_from_its_positions():
    small = MaskedShape(**vars(TINY_LARGE) | {"classes": 0}, tokens=9, decoder=(24, 2, 40))
    state = MaskedAutoencoder(small, HALF_UP).state_dict()
    assert [*state["decoder_pos_embed"].shape] == [1, 9, 24]
    assert [*state["decoder_blocks.1.mlp.fc2.weight"].shape] == [24, 40]
    built = zoo.build("e-spikeformer-mae", {}, state)
    assert built.read == vars(small)
    assert built.options["patches"] == ((3, 3), "a square of all tokens")
    assert built.module.default_cfg["input_size"] == (3, 48, 48)
    built.module.load_state_dict(state)


def test_positions_may_be_the_last_axis_of_a_masked_autoencoder():
    """``MAE_SDT.py`` keeps them as [1, width, tokens], other files as [1, tokens, width]."""
    small = MaskedShape(**vars(TINY_LARGE) | {"classes": 0}, tokens=9, decoder=(24, 2, 40))
    state = MaskedAutoencoder(small, HALF_UP).state_dict()
    state["pos_embed"] = state["pos_embed"].transpose(1, 2).contiguous()
    assert [*state["pos_embed"].shape] == [1, 16, 9]
    built = zoo.build("e-spikeformer-mae", {}, state)
    assert built.read == vars(replace(small, tokens_last=True))
    assert built.module.default_cfg["input_size"] == (3, 48, 48)
    built.module.load_state_dict(state)
    assert built.left_out["pos_embed"] == 9 * 16
    state["pos_embed"] = state["pos_embed"][:, :15]
    with pytest.raises(BadInputError, match=r"shape \[1, 15, 9\], and the blocks have 16 channels"):
        zoo.build("e-spikeformer-mae", {}, state)


def test_patches_that_are_no_square_are_given():
    shape = MaskedShape(**vars(TINY_LARGE), tokens=6)
    state = MaskedAutoencoder(shape, HALF_UP, patches=(2, 3)).state_dict()
    built = zoo.build("e-spikeformer-mae", {"patches": [2, 3]}, state)
    assert built.options["patches"] == ([2, 3], "given")
    assert built.module.default_cfg["input_size"] == (3, 32, 48)
    assert built.module.reconstruct(torch.zeros(1, 3, 32, 48), torch.ones(1, 1, 2, 3)).shape == (
        1, 6, 768,
    )  # fmt: skip
    with pytest.raises(BadInputError, match=r"6 tokens, no square; give .*\"patches\": \[H, W\]"):
        zoo.build("e-spikeformer-mae", {}, state)
    with pytest.raises(UsageError, match="patches 2 x 4 are 8, and pos_embed has 6 tokens"):
        zoo.build("e-spikeformer-mae", {"patches": [2, 4]}, state)
    with pytest.raises(UsageError, match=r"patches is 6, give \[H, W\]"):
        zoo.build("e-spikeformer-mae", {"patches": 6}, state)


def test_an_encoder_may_stand_alone_but_no_half_of_a_decoder():
    state = MaskedAutoencoder(TINY_MASKED, HALF_UP).state_dict()
    vanilla = LargeESpikeFormer(TINY_LARGE, HALF_UP).state_dict()
    encoder = {key: value for key, value in state.items() if key in vanilla}
    built = zoo.build("e-spikeformer-mae", {}, encoder)
    assert built.module.state_dict().keys() == encoder.keys()
    assert (built.read["tokens"], built.read["decoder"], built.left_out) == (0, (), {})
    assert built.options["patches"] == ((14, 14), "the family's")
    wide = zoo.build("e-spikeformer-mae", {"patches": [2, 4]}, encoder)
    assert wide.module.default_cfg["input_size"] == (3, 32, 64)
    del state["pos_embed"]
    with pytest.raises(BadInputError, match="no pos_embed"):
        zoo.build("e-spikeformer-mae", {}, state)


def test_norms_that_were_learnt_are_read_off_their_keys():
    """A segmentation backbone with a learnt number for each channel, after some of its neurons."""
    net = ESpikeFormer(replace(TINY, classes=0, layer_scale=True), Layers())
    shapes = {
        "downsample2.encode_spike": (1, 16, 1, 1),
        "ConvBlock1_1.0.Conv.spike2": (1, 16, 1, 1),
        "block3.0.attn.head_spike": (1, 16, 1, 1),
        "block3.0.mlp.fc2_spike": (1, 64, 1),
    }
    learnt = {f"{path}.Norm": torch.rand(shape) + 1 for path, shape in shapes.items()}
    state = net.state_dict() | learnt
    built = zoo.build("e-spikeformer-backbone", {}, {f"backbone.{k}": v for k, v in state.items()})
    assert built.read["learnt_norms"] == 4
    built.module.load_state_dict(state)
    neuron = built.module.block3[0].mlp.fc2_spike
    x = torch.randn(2, 64, 4) * 3
    wanted = x.clamp(0, 4).round() / learnt["block3.0.mlp.fc2_spike.Norm"]
    assert torch.equal(neuron(x), wanted)
    lost = state | {"block3.0.attn.Norm": torch.ones(1)}
    built = zoo.build("e-spikeformer-backbone", {}, lost)
    assert [*lost.keys() - built.module.state_dict().keys()] == ["block3.0.attn.Norm"]


@pytest.mark.parametrize(
    ("tap", "left"),
    [
        (1, ["downsample1_2", "ConvBlock1_2", "downsample2"]),
        (3, ["downsample3"]),
        ("block3", ["downsample4", "block4", "head"]),
        (4, ["head"]),
        ("block4", ["head"]),
    ],
)
def test_what_lies_behind_a_tap_is_left_out(tap, left):
    state = ESpikeFormer(TINY, Layers()).state_dict()
    found = zoo.build("e-spikeformer-backbone", {"tap": tap}, state).left_out
    assert [*found][: len(left)] == left
    assert [*found][-1] == "head"
    assert found["head"] == 32 * 5 + 5


def test_detectors_read_the_third_stage_and_segmenters_do_not():
    """Four places each, of the potentials that one network computes."""
    torch.manual_seed(0)
    net = ESpikeFormer(replace(TINY, widths=(16, 24, 32, 40)), Layers()).eval()
    x, state = torch.randn(1, 3, 32, 32), net.state_dict()
    seen = {}
    for name in ("ConvBlock1_1", "ConvBlock1_2", "ConvBlock2_2", "block3", "block4"):
        module = getattr(net, name)[-1]
        module.register_forward_hook(lambda _m, _args, out, name=name: seen.update({name: out}))
    net(x)
    detected = ("ConvBlock1_2", "ConvBlock2_2", "block3", "block4")
    assert [seen[name].shape[1] for name in detected] == [16, 24, 32, 40]
    for tap in (*detected, 1, 2, 3, 4):
        backbone = zoo.build("e-spikeformer-backbone", {"tap": tap}, state).module
        backbone.load_state_dict(state)
        potential = seen[_SEGMENTED.get(tap, tap)]
        assert torch.equal(backbone(x), potential.clamp(0, 4).round() / 4)


_SEGMENTED = {1: "ConvBlock1_1", 2: "ConvBlock1_2", 3: "ConvBlock2_2", 4: "block4"}


def test_options_change_what_weights_do_not_carry_and_say_so():
    state = ESpikeFormer(TINY, Layers()).state_dict()
    built = zoo.build("e-spikeformer", {"D": 8, "norm": 2, "heads": 4}, state)
    neuron = built.module.block3[0].attn.q_spike
    assert (neuron.D, neuron.norm, neuron.rounding) == (8, 2.0, "half-even")
    assert (built.module.spike.D, built.module.spike.norm) == (8, 1.0)
    assert built.module.block3[0].attn.heads == 4
    assert built.options["D"] == (8, "given")
    assert built.options["rounding"] == ("half-even", "the family's")
    assert zoo.build("e-spikeformer", {}, state).module.block3[0].attn.q_spike.norm == 4.0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("e-spikeformer-x", {}, r"no such network; .*the zoo has e-spikeformer-t, e-spikeformer-s"),
        ("e-spikeformer", {"d": 4}, r"no d; it takes D, norm, rounding, heads, scale"),
        ("e-spikeformer", {"D": 0, "heads": "8"}, r"D is 0, give .* 255; heads is '8', give"),
        ("e-spikeformer", {"heads": 3}, r"heads is 3, give a divisor of 16 and 32"),
        ("e-spikeformer-backbone", {"tap": 5}, r"tap is 5, give 1 to 4, .*block3"),
        ("e-spikeformer-backbone", {"tap": "head"}, r"tap is 'head', give 1 to 4"),
        ("e-spikeformer", {"scale": math.inf}, r"scale is inf, give a number above 0"),
        ("e-spikeformer-dvs", {"norm": None}, r"norm is None, give a number above 0"),
    ],
)
def test_a_wrong_name_or_option_is_a_usage_error(name, options, message):
    state = ESpikeFormer(TINY, Layers()).state_dict()
    with pytest.raises(UsageError, match=message):
        zoo.build(name, options, state)


def test_weights_of_another_network_are_named():
    with torch.device("meta"):
        state = ESpikeFormer(Shape((48, 96, 192, 240), blocks=(1, 1)), Layers()).state_dict()
    with pytest.raises(BadInputError, match=r"48, 96, 192, 240; take arch='e-spikeformer-m'"):
        zoo.build("e-spikeformer-s", {}, state)
    with pytest.raises(BadInputError, match=r"has no block3.0.attn.q_conv.0.conv1.0.weight"):
        zoo.build("e-spikeformer-12-512", {}, state)
    with pytest.raises(BadInputError, match=r"has no downsample1_1.encode_conv.weight"):
        zoo.build("e-spikeformer-s", {}, {"weight": torch.zeros(2)})
    del state["head.weight"]
    with pytest.raises(BadInputError, match=r"no head.weight; take arch='e-spikeformer-backbone'"):
        zoo.build("e-spikeformer-m", {}, state)
    with pytest.raises(BadInputError, match=r"head.weight has shape \[\], so it is none"):
        zoo.build("e-spikeformer-m", {}, state | {"head.weight": torch.zeros(())})
    encoder = MaskedAutoencoder(TINY_MASKED, HALF_UP).state_dict()
    with pytest.raises(BadInputError, match=r"no head.weight; take arch='e-spikeformer-mae'"):
        zoo.build("e-spikeformer-large", {}, encoder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_official_container_loads_strictly(tmp_path, dtype):
    torch.manual_seed(0)
    trained = ESpikeFormer(TINY, Layers())
    path = tmp_path / "5M.pth"
    state = {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in trained.state_dict().items()
    }
    optimiser = torch.optim.AdamW(trained.parameters()).state_dict()
    arguments = argparse.Namespace(model="Efficient_Spiking_Transformer_s", lr=6e-4, epochs=200)
    scaler = {"scale": 65536.0, "growth_tracker": 3}
    content = {"model": state, "optimizer": optimiser, "epoch": 199, "scaler": scaler}
    torch.save({**content, "args": arguments}, path)
    weights = read_weights(path)
    built = zoo.build("e-spikeformer", {}, weights.tensors)
    report = load_weights(built.module, weights)
    assert (report.missing, report.unexpected, weights.container) == ((), (), "['model']")
    x = torch.randn(2, 3, 32, 32)
    if dtype == torch.float32:
        assert torch.equal(built.module(x), trained.eval()(x))
    assert torch.equal(built.module.head.weight, state["head.weight"].float())
