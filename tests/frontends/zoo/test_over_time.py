"""Spiking transformers over timesteps by name: keys, scores, and what weights do not tell.

Expected numbers are those of the authors' own code with the same weights.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from zoo_weights import filled, values

import snncc
from snncc.errors import BadInputError, UsageError
from snncc.frontends import zoo
from snncc.frontends.checkpoint import Weights, load_weights, read_weights
from snncc.frontends.zoo import sdt_v1, sdt_v2, spikformer, spikingformer
from snncc.frontends.zoo.e_spikeformer import ESpikeFormer
from snncc.frontends.zoo.e_spikeformer import Shape as BaseShape
from snncc.frontends.zoo.families import OVER_TIME
from snncc.frontends.zoo.parts import Layers
from snncc.nn import LIF

Shape = spikformer.Shape | spikingformer.Shape | sdt_v1.Shape | sdt_v2.Shape
State = dict[str, torch.Tensor]

_SMALL: dict[str, Any] = {"depth": 2, "stem": (8, 16, 32, 64), "hidden": 128, "classes": 10}
_FIVE: dict[str, Any] = {**_SMALL, "stem": (8, 16, 32, 64, 64)}
_DVS: dict[str, Any] = {
    "depth": 1, "stem": (4, 8, 16, 32), "hidden": 64, "channels": 2, "classes": 10
}  # fmt: skip
_DVS_FIVE = {**_DVS, "stem": (4, 8, 16, 32, 32)}
_OF_CIFAR = {"attention": "linear", "mlp": "linear", "bias": True}

LINEAR = spikformer.Shape(**_SMALL, **_OF_CIFAR)
CONVOLVED = spikformer.Shape(**_SMALL)
CML_LINEAR = replace(LINEAR, names="block1")
EVENTS = spikformer.Shape(**_DVS, mlp="conv1d", tokens=64)
BLOCKS = spikingformer.Shape(**_FIVE, names="block0")
PROJECTED = spikingformer.Shape(**_FIVE)
EVENTS_2 = spikingformer.Shape(**_DVS_FIVE)
GATED = sdt_v1.Shape(**_SMALL)
GATED_EVENTS = replace(GATED, stem=(4, 8, 16, 32), hidden=64, channels=2)
META = sdt_v2.Shape((16, 32, 64, 80), hidden=(256, 320), classes=10)


def made(name: str, shape: Shape, **options: Any) -> nn.Module:
    """A network of the zoo, by its shape."""
    entry = OVER_TIME[name]
    return entry.make(shape, {**entry.defaults(shape), "pooling": entry.pooling, **options})


def state_of(name: str, shape: Shape) -> State:
    return filled(made(name, shape).state_dict())


def with_weights(name: str, options: dict[str, Any], state: State) -> nn.Module:
    built = zoo.build(name, options, state)
    built.module.load_state_dict(state)
    return built.module


# -- keys ----------------------------------------------------------------------------------


def _wide(shape: Any, depth: int, width: int, classes: int, ratio: int = 4) -> Any:
    """A shape at its published size."""
    stem = (width // 8, width // 4, width // 2, width, width)[: len(shape.stem)]
    more = {"depth": depth, "stem": stem, "hidden": ratio * width, "classes": classes}
    return replace(shape, **more)


def _meta(*widths: int, **more: Any) -> sdt_v2.Shape:
    three, four = widths[2:]
    return sdt_v2.Shape(widths, hidden=(4 * three, 4 * four), **more)


_SIZES = [
    ("spikformer-8-384", _wide(CONVOLVED, 8, 384, 1000), 16_828_312, "9b27745ae6bfcda9"),
    ("spikformer-8-512", _wide(CONVOLVED, 8, 512, 1000), 29_705_768, "45a02b52b389f61e"),
    ("spikformer-8-768", _wide(CONVOLVED, 8, 768, 1000), 66_363_208, "5e1cefd221b3053a"),
    ("spikformer-4-256", _wide(LINEAR, 4, 256, 10), 4_159_274, "52622a6a7e522e15"),
    ("spikformer-2-384", _wide(LINEAR, 2, 384, 10), 5_768_122, "993f52ac8c533a59"),
    ("spikformer-4-384", _wide(LINEAR, 4, 384, 10), 9_330_874, "538ba9bc981184e3"),
    ("spikformer-dvs", _wide(EVENTS, 2, 256, 10), 2_585_610, "69a28d4ee574494a"),
    ("spikingformer-8-384", _wide(PROJECTED, 8, 384, 1000), 16_828_312, "33274190bcba2411"),
    ("spikingformer-8-512", _wide(PROJECTED, 8, 512, 1000), 29_705_768, "77fb0fe17aa59571"),
    ("spikingformer-8-768", _wide(PROJECTED, 8, 768, 1000), 66_363_208, "21adc72f557595e9"),
    ("spikingformer-4-256", _wide(BLOCKS, 4, 256, 10), 4_156_202, "9cb32d49d750342d"),
    ("spikingformer-2-384", _wide(BLOCKS, 2, 384, 10), 5_765_818, "c6be98e9dc385356"),
    ("spikingformer-4-384", _wide(BLOCKS, 4, 384, 10), 9_326_266, "03fe8cfb59fcf83f"),
    ("spikingformer-dvs", _wide(EVENTS_2, 2, 256, 10), 2_568_714, "e19c658980aa999f"),
    ("cml-spikingformer-8-512", _wide(PROJECTED, 8, 512, 1000), 29_705_768, "77fb0fe17aa59571"),
    ("cml-spikingformer-4-384", _wide(PROJECTED, 4, 384, 10), 9_326_266, "ddfabceb7b1b4dec"),
    ("cml-spikformer-4-384", _wide(CML_LINEAR, 4, 384, 10), 9_330_874, "8a655d84f3f339fa"),
    ("cml-spikingformer-dvs", _wide(EVENTS_2, 2, 256, 11), 2_568_971, "24fa12d6510029b8"),
    ("sdt-v1-8-384", _wide(GATED, 8, 384, 1000), 16_816_536, "65939cd50588abfd"),
    ("sdt-v1-8-512", _wide(GATED, 8, 512, 1000), 29_689_896, "bf6d83245c80b5c4"),
    ("sdt-v1-8-768", _wide(GATED, 8, 768, 1000), 66_339_144, "189c21e0645ce31f"),
    ("sdt-v1-2-512", _wide(GATED, 2, 512, 10), 10_233_546, "9edd851b6db214ef"),
    ("sdt-v1-2-256", _wide(GATED, 2, 256, 10), 2_567_082, "2ae91c9d2f8e6168"),
    ("sdt-v1-gesture", _wide(GATED_EVENTS, 2, 256, 11), 2_567_051, "ce591f6f0384e8d9"),
    ("sdt-v2-8-384", _meta(96, 192, 384, 480), 31_333_864, "5160fc3128e041e3"),
    ("sdt-v2-8-512", _meta(128, 256, 512, 640), 55_350_248, "0cb6fc745445542d"),
    ("sdt-v2-8-768", _meta(192, 384, 768, 960), 123_741_160, "7707d530b7815e32"),
    ("sdt-v2", _meta(128, 256, 512, 640, distilled=True), 55_991_248, "6c915763ce0b5b01"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shape", "count", "digest"), _SIZES)
def test_published_sizes_have_the_published_keys_shapes_and_parameters(name, shape, count, digest):
    with torch.device("meta"):
        net = made(name, shape)
    state = net.state_dict()
    lines = sorted(
        f"{key} {list(value.shape)}"
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    )
    assert sum(parameter.numel() for parameter in net.parameters()) == count
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == digest
    assert OVER_TIME[name].read(state) == shape
    assert OVER_TIME[name].fits(shape)


# -- scores --------------------------------------------------------------------------------

#: Name, shape, shape of a sample, options, and the scores of the first sample.
_SCORES: list[tuple[str, Shape, tuple[int, ...], dict[str, Any], list[float]]] = [
    (
        "spikformer", LINEAR, (3, 32, 32), {"heads": 8},
        [-0.11302, -0.27436, -0.81745, 4.28981, 2.10299, -0.91153, 0.29203, -2.21347, -1.24155,
         -1.87802],
    ),
    (
        "spikformer", CONVOLVED, (3, 32, 32), {},
        [-0.5774, -0.12548, -0.3128, 4.90143, 1.2901, -0.7651, 1.26595, -1.94268, -0.73175,
         -0.84386],
    ),
    (
        "spikformer-dvs", EVENTS, (3, 2, 128, 128), {"T": 3},
        [-0.07978, -0.19603, 1.11558, 0.38614, -0.50161, -1.00223, 1.59003, -0.22141, 1.65757,
         0.29721],
    ),
    (
        "cml-spikformer", CML_LINEAR, (3, 32, 32), {"heads": 8},
        [-0.00105, 1.14627, -0.07356, 3.68902, 2.51766, 0.15499, 0.30471, -3.50375, -2.74308,
         -2.47856],
    ),
    (
        "spikingformer", BLOCKS, (3, 32, 32), {"heads": 8},
        [-0.532, -1.30814, -4.74809, 5.09679, 5.50362, -0.83833, -0.61123, -8.69279, -3.37142,
         1.14556],
    ),
    (
        "spikingformer", PROJECTED, (3, 64, 64), {"pooling": "spikes"},
        [-1.68063, -1.97617, -3.50192, 4.39759, 2.41897, 1.68954, -1.40672, -5.26307, -2.692,
         1.21578],
    ),
    (
        "spikingformer-dvs", EVENTS_2, (3, 2, 128, 128), {"T": 3, "pooling": "spikes"},
        [2.67611, -3.128, -0.2101, -3.62688, 0.44668, -3.47966, 5.19347, 4.98737, 3.89501, 3.0474],
    ),
    (
        "cml-spikingformer", PROJECTED, (3, 32, 32), {"heads": 8, "pools": "0011"},
        [-0.46839, -2.42857, -3.76439, 3.83845, 2.14505, 2.7814, -2.57622, -5.26542, -4.45275,
         0.56831],
    ),
    (
        "cml-spikingformer", PROJECTED, (3, 64, 64), {},
        [-1.42818, -1.9288, -3.53275, 4.19536, 2.71825, 1.23179, -1.5753, -5.71949, -2.966,
         1.13463],
    ),
    (
        "cml-spikingformer-dvs", replace(EVENTS_2, classes=11), (3, 2, 128, 128), {"T": 3},
        [2.64174, -3.81261, 0.05573, -3.96645, 0.48664, -3.21818, 5.15493, 4.15765, 4.40951,
         2.09361, -0.56113],
    ),
    (
        "sdt-v1", GATED, (3, 32, 32), {"pools": "0011"},
        [-0.48637, 0.24353, 0.10361, 1.884, 0.92807, 0.10177, -0.31064, -1.22219, -0.34501,
         -0.29703],
    ),
    (
        "sdt-v1", GATED, (3, 64, 64), {},
        [-0.13818, 0.38294, -0.04738, 2.10018, 1.04101, 0.03739, -0.0846, -1.32801, -0.37868,
         -0.09216],
    ),
    (
        "sdt-v1", replace(GATED, hidden=64), (3, 32, 32), {"pools": "0011"},
        [-0.31866, 0.07861, -0.57315, 1.56287, 0.05419, 0.29486, -0.69294, -1.41578, -0.1385,
         -0.31471],
    ),
    (
        "sdt-v1", replace(GATED, learnt_tau=True), (3, 32, 32), {"pools": "0011"},
        [-0.66608, 0.12064, 0.16358, 1.85358, 0.97132, -0.21478, -0.3293, -1.0688, -0.51851,
         -0.31731],
    ),
    (
        "sdt-v1-cifar10-dvs", replace(GATED_EVENTS, talking_heads=4), (3, 2, 64, 64),
        {"T": 3, "heads": 4},
        [0.51308, -0.47329, 1.11073, -0.28192, 0.32685, -1.02792, 2.21705, 1.15767, 1.68224,
         0.13116],
    ),
    (
        "sdt-v1-gesture", GATED_EVENTS, (3, 2, 64, 64), {"T": 3},
        [0.37432, -0.36933, 0.83507, 0.03395, 0.2391, -0.72426, 2.06971, 1.03741, 1.54949,
         0.18836],
    ),
    (
        "sdt-v2", META, (3, 64, 64), {},
        [-0.74713, -0.11695, 0.94277, -0.07929, -0.75831, 0.41863, -0.44112, -0.44837, 0.67442,
         0.68716],
    ),
    (
        "sdt-v2", replace(META, distilled=True), (3, 64, 64), {"T": 4},
        [-0.80636, 0.05673, 0.5774, 0.35571, -0.20356, -0.23268, -0.11603, 0.29218, 0.43794,
         -0.06615],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shape", "size", "options", "scores"), _SCORES)
def test_scores_are_those_of_the_published_code(name, shape, size, options, scores):
    net = with_weights(name, options, state_of(name, shape))
    rates = []
    for module in net.modules():
        if isinstance(module, LIF):
            module.register_forward_hook(lambda _m, _args, out: rates.append(float(out.mean())))
    raw = torch.from_numpy(values(2, *size)).float()
    x = torch.floor(raw / 64) if len(size) == 4 else raw / 128 - 1
    with torch.no_grad():
        found = net(x)[0].tolist()
    assert found == pytest.approx(scores, abs=2e-4)
    assert 0 < min(rates) < max(rates) < 1


@pytest.mark.slow
def test_spikes_that_are_spread_around_a_gate_compile():
    name, shape = "sdt-v1-cifar10-dvs", replace(GATED_EVENTS, talking_heads=4)
    options = {"T": 3, "heads": 4, "size": 32}
    net = with_weights(name, options, state_of(name, shape))
    x = values(4, 3, 2, 32, 32) // 64
    model = snncc.compile(net.eval(), x, weight_bits=8)
    assert (model.report.import_law.neurons, model.report.import_law.changed) == (27, 0)
    assert (model.report.verify.mismatched, model.report.verify.coverage.silent) == (0, ())


# -- what tensors do not tell --------------------------------------------------------------


def test_options_say_where_they_come_from():
    state = state_of("spikformer", LINEAR)
    told = {"arch": "vitsnn", "args": {"time_step": 2, "num_heads": 4, "img_size": 0, "mean": []}}
    built = zoo.build("spikformer", {"tau": 1.5}, state, told)
    assert built.options["T"] == (2, "the file's args")
    assert built.options["heads"] == (4, "the file's args")
    assert built.options["tau"] == (1.5, "given")
    assert built.options["scale"] == (0.125, "the family's")
    assert built.options["pooling"] == ("spikes", "the keys")
    assert built.options["size"] == (32, "the family's")  # 0 is no size
    assert built.module.T == 2
    assert built.module.default_cfg["input_size"] == (3, 32, 32)
    assert built.module.block[0].attn.attn_lif.tau == 1.5
    assert built.left_out == {"norm1": 256, "norm2": 256}


@pytest.mark.parametrize(
    ("name", "shape", "heads"),
    [
        ("spikformer", _wide(LINEAR, 1, 96, 10), 12),
        ("spikformer", LINEAR, 8),
        ("spikingformer", _wide(BLOCKS, 1, 96, 10), 12),
        ("spikingformer-dvs", EVENTS_2, 16),
    ],
)
def test_heads_are_those_of_the_published_training(name, shape, heads):
    given = {} if shape is not EVENTS_2 else {"pooling": "spikes"}
    assert zoo.build(name, given, state_of(name, shape)).options["heads"] == (heads, "the family's")


@pytest.mark.parametrize(
    ("name", "state", "told", "message"),
    [
        (
            "spikingformer", ("cml-spikingformer", PROJECTED), {"arch": "vitsnn"},
            r"CML networks have these tensors, too, .* arch, vitsnn, does not tell; take "
            r"arch='cml-spikingformer', or, where they stand after neurons, arch_args",
        ),
        (
            "spikingformer", ("cml-spikingformer", PROJECTED), {},
            r"the file does not tell; take arch='cml-spikingformer'",
        ),
        (
            "spikingformer", ("cml-spikingformer", PROJECTED), {"arch": "CML_Spikingformer"},
            r"by the file's arch, CML_Spikingformer, pools stand before neurons; take arch='cml-",
        ),
        (
            "spikformer", ("cml-spikformer", CML_LINEAR), {},
            r"by the keys, pools stand before neurons; take arch='cml-spikformer'",
        ),
        (
            "spikformer", ("spikformer", LINEAR), {"arch": "CML_Spikformer"},
            r"by the file's arch, CML_Spikformer, pools stand before neurons",
        ),
        (
            "cml-spikingformer", ("spikingformer", BLOCKS), {},
            r"by the keys, pools stand after neurons; take arch='spikingformer'",
        ),
        (
            "cml-spikformer", ("spikformer", LINEAR), {},
            r"by the keys, pools stand after neurons; take arch='spikformer'",
        ),
        (
            "spikingformer-dvs", ("spikingformer-dvs", EVENTS_2), {},
            r"take arch='cml-spikingformer-dvs', or",
        ),
        ("sdt-v1", ("sdt-v2", META), {}, r"has no .*; these are the tensors of arch='sdt-v2'"),
        ("sdt-v2", ("sdt-v1", GATED), {}, r"these are the tensors of arch='sdt-v1'"),
        ("sdt-v1", ("spikformer", CONVOLVED), {}, r"these are the tensors of arch='spikformer'"),
        ("spikformer", ("sdt-v1", GATED), {}, r"these are the tensors of arch='sdt-v1'"),
        ("spikformer", ("spikingformer", PROJECTED), {}, r"the tensors of arch='spikingformer'"),
        ("spikingformer", ("spikformer", LINEAR), {}, r"the tensors of arch='spikformer'$"),
        (
            "spikingformer", ("spikformer", CONVOLVED), {},
            r"the tensors of arch='spikformer' or of arch='spikingformer-first-keys'",
        ),
        ("e-spikeformer", ("sdt-v2", META), {}, r"no E-SpikeFormer; these .* arch='sdt-v2'"),
        ("sdt-v1", ("sdt-v1-gesture", GATED_EVENTS), {}, r"event frames; take arch='sdt-v1-cifar1"),
        ("sdt-v1-gesture", ("sdt-v1", GATED), {}, r"network for pictures; take arch='sdt-v1'"),
        ("sdt-v1-8-512", ("sdt-v1", GATED), {}, r"blocks and width 2, 64; take arch='sdt-v1'"),
        ("sdt-v2-8-512", ("sdt-v2", META), {}, r"widths 16, 32, 64, 80; take arch='sdt-v2'"),
    ],
)  # fmt: skip
def test_a_file_under_another_name_is_refused_by_name(name, state, told, message):
    with pytest.raises(BadInputError, match=message):
        zoo.build(name, {}, state_of(*state), told)


def test_an_e_spikeformer_is_no_spike_driven_transformer_v2():
    state = ESpikeFormer(BaseShape((8, 8, 16, 16), (1, 1)), Layers()).state_dict()
    with pytest.raises(BadInputError, match=r"these are the tensors of arch='e-spikeformer'"):
        zoo.build("sdt-v2", {}, state)


def test_the_first_files_of_spikingformer_have_other_keys_and_the_same_scores():
    """Keys of Spikformer, which only the name tells from one."""
    old = {}
    for key, value in (new := state_of("spikingformer", PROJECTED)).items():
        for i in (1, 2, 3):
            key = key.replace(f"embed.proj{i}_conv", f"embed.proj_conv{i}")
            key = key.replace(f"embed.proj{i}_bn", f"embed.proj_bn{i}")
        old[key.replace("embed.proj4", "embed.rpe").replace(".mlp.mlp", ".mlp.fc")] = value
    assert old.keys() == state_of("spikformer", CONVOLVED).keys()
    x = torch.from_numpy(values(1, 3, 32, 32)) / 128 - 1
    first = with_weights("spikingformer-first-keys", {}, old)(x)
    assert torch.equal(first, with_weights("spikingformer", {"pooling": "spikes"}, new)(x))
    assert not torch.equal(first, with_weights("spikformer", {}, old)(x))


@pytest.mark.parametrize("pooling", ["spikes", "potentials"])
def test_an_option_says_where_pools_stand(pooling):
    state = state_of("spikingformer", PROJECTED)
    built = zoo.build("spikingformer", {"pooling": pooling}, state)
    assert built.options["pooling"] == (pooling, "given")
    assert built.module.patch_embed.pooling == pooling


def test_a_cml_name_and_a_cml_arch_say_it_as_well():
    state = state_of("spikingformer", PROJECTED)
    by_name = zoo.build("cml-spikingformer", {}, state)
    assert by_name.options["pooling"] == ("potentials", "the name")
    convolved = state_of("spikformer", CONVOLVED)
    ours = zoo.build("cml-spikformer", {}, convolved)
    assert ours.options["pooling"] == ("potentials", "the name")
    plain = zoo.build("spikformer", {}, convolved)
    assert plain.options["pooling"] == ("spikes", "the published code")
    by_file = zoo.build("cml-spikingformer", {}, state, {"arch": "cml_spikingformer"})
    assert by_file.options["pooling"] == ("potentials", "the file's arch")


@pytest.mark.parametrize(
    ("name", "shape", "given", "told", "timesteps", "message"),
    [
        ("sdt-v1", GATED, {"T": 2}, 4, None, r"T is given twice .*: 2 by arch_args, 4 by the file"),
        ("sdt-v2", META, {"T": 4}, 1, None, r"leave it out, or save the state dict alone"),
        ("sdt-v1-gesture", GATED_EVENTS, {"T": 2}, None, 4, r"2 by arch_args, 4 by timesteps; giv"),
        ("sdt-v1-gesture", GATED_EVENTS, {}, 16, 4, r"4 by timesteps, 16 by the file's args; leav"),
        ("sdt-v1", GATED, {}, None, 4, r"reads pictures, no sequences; give its T by arch_args"),
        ("sdt-v1", GATED, {"pools": "11"}, None, None, r"pools is '11', give four of 0 and 1"),
        ("sdt-v1", GATED, {"pooling": "spikes"}, None, None, r"no pooling; it takes T, heads"),
        ("sdt-v1", GATED, {"tau": 0.5, "T": 0}, None, None, r"tau is 0.5, .* T is 0, give an int"),
        ("spikformer", LINEAR, {"heads": 12}, None, None, r"heads is 12, give a divisor of 64"),
    ],
)  # fmt: skip
def test_a_wrong_or_contradictory_option_is_a_usage_error(
    name, shape, given, told, timesteps, message
):
    file = {"args": {"time_steps": told}} if told else {}
    with pytest.raises(UsageError, match=message):
        zoo.build(name, given, state_of(name, shape), file, timesteps)


@pytest.mark.parametrize(("given", "told", "timesteps"), [({"T": 3}, 3, 3), ({}, 3, None)])
def test_a_T_that_is_given_twice_and_alike_is_fine(given, told, timesteps):
    state, file = state_of("sdt-v1-gesture", GATED_EVENTS), {"args": {"time_steps": told}}
    built = zoo.build("sdt-v1-gesture", given, state, file, timesteps)
    assert built.options["T"][0] == 3
    assert built.module.default_cfg["timesteps"] == 3


@pytest.mark.parametrize(
    ("name", "shape"), [("spikformer", LINEAR), ("spikingformer", BLOCKS), ("sdt-v1", GATED)]
)
@pytest.mark.parametrize("key", ["head.weight", "block.0.attn.q_bn.weight"])
def test_a_key_that_is_missing_is_named(name, shape, key):
    state = state_of(name, shape)
    del state[key]
    with pytest.raises(BadInputError) as caught:
        _built_and_loaded(name, state)
    assert key in str([caught.value.message, *caught.value.faults])


def _built_and_loaded(name: str, state: State) -> None:
    built = zoo.build(name, {}, state)
    load_weights(built.module, Weights(state, "raw", "top level", ("raw",)))


# -- containers ----------------------------------------------------------------------------


def test_a_timm_container_tells_what_its_arguments_are(tmp_path):
    state = state_of("sdt-v1", GATED)
    arguments = argparse.Namespace(
        time_steps=2, num_heads=4, pooling_stat="0011", img_size=32, dvs_mode=False
    )
    content = {"epoch": 299, "arch": "sdt", "state_dict": state, "version": 2, "args": arguments}
    torch.save(content, tmp_path / "best.pth.tar")
    weights = read_weights(tmp_path / "best.pth.tar")
    built = zoo.build("sdt-v1", {}, weights.tensors, weights.told)
    report = load_weights(built.module, weights)
    assert (report.missing, report.unexpected, report.renamed) == ((), (), {})
    told = {key for key, (_, origin) in built.options.items() if origin == "the file's args"}
    assert told == {"T", "heads", "pools", "size", "spreads"}
    assert built.module.patch_embed.pools == "0011"


def test_keys_in_containers_are_read_and_renamed(tmp_path):
    """As a network wraps its layers whose containers call what they hold ``module``."""
    state = state_of("sdt-v2", META)
    wrapped = {
        f"module.{key.replace('.body.', '.module.body.')}": value for key, value in state.items()
    }
    torch.save({"model": wrapped}, tmp_path / "net.pth")
    weights = read_weights(tmp_path / "net.pth")
    built = zoo.build("sdt-v2", {}, weights.tensors, weights.told)
    report = load_weights(built.module, weights)
    assert (report.missing, report.unexpected) == ((), ())
    renamed = sum(".body." in key for key in state)
    assert len(report.renamed) == renamed
    assert torch.equal(built.module.block3[0].attn.q_conv[0].body[0].weight,
                       state["block3.0.attn.q_conv.0.body.0.weight"])  # fmt: skip
