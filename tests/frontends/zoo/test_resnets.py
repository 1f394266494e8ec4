"""Spiking ResNets by name: keys, scores, what weights do not tell, and how DANets are declared.

Expected numbers are those of the authors' own code with the same weights; of DANet there is none.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from zoo_weights import filled, values

import snncc
from snncc.errors import BadInputError, UsageError
from snncc.frontends import zoo
from snncc.frontends.checkpoint import Weights, load_weights, read_weights
from snncc.frontends.zoo import danet, mlf_ds_resnet, ms_resnet, sew_resnet
from snncc.frontends.zoo.resnets import RESNETS
from snncc.nn import LIF

Shape = sew_resnet.Shape | ms_resnet.Shape | mlf_ds_resnet.Shape | danet.Shape
State = dict[str, torch.Tensor]

SEW = sew_resnet.Shape((1, 2, 1, 1), classes=10)
NARROW = replace(SEW, stem=8, inner=(8, 8, 16, 16), outer=(8, 8, 16, 16))
WIDE = (256, 512, 1024, 2048)
BOTTLENECK = sew_resnet.Shape((1, 1, 1, 2), outer=WIDE, layers=3, projected=True, classes=10)
MS = ms_resnet.Shape((1, 2, 1, 1), classes=10)
MS_DEEP = ms_resnet.Shape((1, 1, 2, 1), stem=(64, 64, 64), pooled=True, classes=10)
MLF = mlf_ds_resnet.Shape((1, 2, 1))
MLF_DVS = replace(MLF, outputs=(32, 64, 128), stem=32, channels=2)
GESTURE = mlf_ds_resnet.Shape((1, 1, 2), (16, 32, 64), 16, channels=2, normed_input=True)


def dense(rule: str, **more: Any) -> danet.Shape:
    """The shape of a DANet of three small stages whose shortcuts are by a rule."""
    shape = danet.Shape((1, 2, 1), (8, 16, 24), (8, 16, 24), stem=8, kernel=3, classes=10, **more)
    return replace(shape, shortcuts=shape.shortcuts_by(rule))


#: What no tensor of a DANet tells.
SPIKES = {"domain": "spikes"}


def made(name: str, shape: Shape, **options: Any) -> nn.Module:
    """A network of the zoo, by its shape."""
    entry = RESNETS[name]
    told = SPIKES if name.startswith("danet") else {}
    return entry.make(shape, {**entry.defaults(shape), **told, **options}).eval()


def state_of(name: str, shape: Shape, **options: Any) -> State:
    return filled(made(name, shape, **options).state_dict())


def loaded(name: str, given: dict[str, Any], state: State, told: Any = None) -> nn.Module:
    built = zoo.build(name, given, state, told)
    report = load_weights(built.module, Weights(state, "raw", "top level", ("raw",)))
    assert (report.missing, report.unexpected) == ((), ())
    return built.module


# -- keys ----------------------------------------------------------------------------------


def _sew(*blocks: int) -> sew_resnet.Shape:
    return sew_resnet.Shape(blocks)


def _bottlenecks(*blocks: int) -> sew_resnet.Shape:
    return replace(BOTTLENECK, blocks=blocks, classes=1000)


def _mlf(count: int) -> mlf_ds_resnet.Shape:
    return mlf_ds_resnet.Shape((count, count, count))


_SIZES: list[tuple[str, Shape, int, str]] = [
    ("sew-resnet-18", _sew(2, 2, 2, 2), 11_689_512, "32bf13be3834dca6"),
    ("sew-resnet-34", _sew(3, 4, 6, 3), 21_797_672, "22115bfb1b144826"),
    ("sew-resnet-50", _bottlenecks(3, 4, 6, 3), 25_557_032, "3aef1ecbbf84d62a"),
    ("sew-resnet-101", _bottlenecks(3, 4, 23, 3), 44_549_160, "ac31e324527a7290"),
    ("sew-resnet-152", _bottlenecks(3, 8, 36, 3), 60_192_808, "8fd019ffab82e1dd"),
    ("ms-resnet-18", ms_resnet.Shape((2, 2, 2, 2)), 11_693_736, "74a9add3ef19c15f"),
    ("ms-resnet-34", ms_resnet.Shape((3, 4, 6, 3)), 21_801_896, "738ab288e0926a2c"),
    (
        "ms-resnet-104", ms_resnet.Shape((3, 8, 32, 8), (64, 64, 64), pooled=True), 77_350_504,
        "b77b8f8507c2a2be",
    ),
    ("mlf-ds-resnet-14", _mlf(2), 2_777_674, "1978cb493e566039"),
    ("mlf-ds-resnet-20", _mlf(3), 4_327_754, "c60c9e7a27c12c8d"),
    ("mlf-ds-resnet-32", _mlf(5), 7_427_914, "34db5dd494037833"),
    ("mlf-ds-resnet-44", _mlf(7), 10_528_074, "b64f69339855d80b"),
    ("mlf-ds-resnet-68", _mlf(11), 16_728_394, "2719eedfa2f517ed"),
    ("mlf-ds-resnet-cifar10-dvs", replace(MLF_DVS, blocks=(2, 2, 2)), 696_330, "524a26b03a1719dc"),
    (
        "mlf-ds-resnet-gesture", replace(GESTURE, blocks=(3, 3, 3), classes=11), 272_395,
        "159289c2a8536fb4",
    ),
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
    assert RESNETS[name].read(state) == shape
    assert RESNETS[name].fits(shape)


@pytest.mark.parametrize(
    ("depth", "blocks", "layers", "count"),
    [
        # those of the SEW-ResNet, and 6 layers more into stages
        (18, (2, 2, 2, 2), 2, 11_689_512 + 176_384),
        (50, (3, 4, 6, 3), 3, 25_557_032 + 2_081_792),
    ],
)
def test_a_dense_preset_is_the_skeleton_of_its_depth(depth, blocks, layers, count):
    wide = WIDE if layers == 3 else (64, 128, 256, 512)
    shape = danet.Shape(blocks, wide, (64, 128, 256, 512), layers=layers)
    shape = replace(shape, shortcuts=shape.shortcuts_by("stages"))
    with torch.device("meta"):
        net = made(f"danet-{depth}", shape)
    assert sum(parameter.numel() for parameter in net.parameters()) == count
    assert RESNETS["danet"].read(net.state_dict()) == shape
    assert RESNETS[f"danet-{depth}"].fits(shape)
    assert not RESNETS["danet-34"].fits(shape)


# -- scores --------------------------------------------------------------------------------

#: Name, shape, shape of a sample, options, and the scores of the first sample.
_SCORES: list[tuple[str, Shape, tuple[int, ...], dict[str, Any], list[float]]] = [
    (
        "sew-resnet", SEW, (3, 32, 32), {"connect": "add"},
        [-0.85302, 1.23968, -1.80265, -0.67167, 0.75817, -2.286, -1.00189, -1.21224, 1.42859,
         0.60952],
    ),
    (
        "sew-resnet", SEW, (3, 32, 32), {"connect": "and"},
        [0.06182, 0.29654, -0.36582, -0.0224, 0.31519, -0.38693, -0.29657, -0.41069, 0.48821,
         0.65401],
    ),
    (
        "sew-resnet", BOTTLENECK, (3, 32, 32), {"connect": "iand"},
        [0.21601, -0.25582, -0.00053, -0.0601, -0.23937, -0.01158, 0.07087, 0.40351, -0.45523,
         0.02477],
    ),
    (
        "ms-resnet", MS, (3, 64, 64), {},
        [-0.14407, 1.69352, -1.56708, 0.16943, -0.29083, -1.08894, -0.77135, -0.32733, 0.7262,
         0.29375],
    ),
    (
        "ms-resnet", MS_DEEP, (3, 64, 64), {},
        [-0.28954, 1.9489, -1.24814, 0.06111, -0.03411, -0.17795, -1.81468, -0.55616, 0.67045,
         1.34207],
    ),
    (
        "mlf-ds-resnet", MLF, (3, 32, 32), {},
        [4.5565, -1.72502, 4.18591, -2.95466, -0.45105, 4.51065, -0.12392, -1.11676, -0.25371,
         3.2246],
    ),
    (
        "mlf-ds-resnet-cifar10-dvs", MLF_DVS, (10, 2, 32, 32), {},
        [1.12924, 2.54679, -0.33209, -1.8768, -1.1245, 3.92062, 1.30605, -5.21, -1.87518,
         -3.39828],
    ),
    (
        "mlf-ds-resnet-gesture", GESTURE, (40, 2, 16, 16), {},
        [0.50054, 3.32481, 3.2979, 0.35882, -3.29635, 1.17792, 3.11801, 0.21859, -0.54847,
         0.05305],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shape", "size", "options", "scores"), _SCORES)
def test_scores_are_those_of_the_published_code(name, shape, size, options, scores):
    state = state_of(name, shape)
    net = loaded(name, options, state)
    rates = []
    for module in net.modules():
        if isinstance(module, LIF):
            module.register_forward_hook(lambda _m, _args, out: rates.append(float(out.mean())))
    raw = torch.from_numpy(values(2, *size)).float()
    # Pictures in the range of their normalisation; larger ones are the same, four times.
    x = torch.floor(raw / 64) if len(size) == 4 else _tiled(size)
    with torch.no_grad():
        found = net(x)[0].tolist()
    assert found == pytest.approx(scores, abs=2e-4)
    assert 0 < min(rates) < max(rates) < 1


def _tiled(size: tuple[int, ...]) -> torch.Tensor:
    small = torch.from_numpy(values(2, 3, 32, 32)).float() / 128 - 1
    times = size[1] // 32
    return small.repeat(1, 1, times, times)


# -- what tensors do not tell --------------------------------------------------------------


def test_what_joins_the_branches_of_a_sew_resnet_must_be_told():
    state = state_of("sew-resnet", NARROW, connect="add")
    message = (
        r"arch='sew-resnet': the weights do not tell what joins the branches of its blocks, and "
        r"the file does not either; give arch_args '\{\"connect\": \"add\"\}', "
        r"'\{\"connect\": \"and\"\}' or '\{\"connect\": \"iand\"\}'"
    )
    with pytest.raises(BadInputError, match=message):
        zoo.build("sew-resnet", {}, state)
    with pytest.raises(BadInputError, match=r"the file's arch, sew_resnet18, does not either"):
        zoo.build("sew-resnet", {}, state, {"arch": "sew_resnet18"})
    with pytest.raises(UsageError, match=r"connect is 'or', give add, and or iand"):
        zoo.build("sew-resnet", {"connect": "or"}, state)


@pytest.mark.parametrize(
    ("given", "told", "connect"),
    [
        ({"connect": "and"}, {"args": {"connect_f": "ADD"}}, ("and", "given")),
        ({}, {"args": {"connect_f": "IAND", "T": 4}}, ("iand", "the file's args")),
        ({}, {"arch": "sew_resnet18-IAND"}, ("iand", "the file's arch")),
    ],
)
def test_who_told_what_joins_the_branches_is_said(given, told, connect):
    built = zoo.build("sew-resnet", given, state_of("sew-resnet", NARROW, connect="add"), told)
    assert built.options["connect"] == connect
    assert {block.connect for block in built.module.layer2} == {connect[0]}


def test_the_domain_of_a_dense_network_is_never_guessed():
    """Either domain has the same tensors, and computes another network of them."""
    state = state_of("danet", dense("stages"))
    message = r"do not tell what its blocks add, .*\{\"domain\": \"spikes\"\}' or .*\"potentials"
    with pytest.raises(BadInputError, match=message):
        zoo.build("danet", {}, state)


def test_the_authors_container_and_its_keys_are_read(tmp_path):
    """As ``train.py`` of SEW writes it, with the containers of its SpikingJelly."""
    state = state_of("sew-resnet", NARROW, connect="add")
    theirs = {
        key.replace(".0.weight", ".module.0.weight") if key.endswith(".0.weight") else
        key.replace(".1.", ".module.1.", 1) if ".conv" in key and ".1." in key else key: value
        for key, value in state.items()
    }  # fmt: skip
    arguments = argparse.Namespace(model="sew_resnet18", connect_f="ADD", T=3)
    torch.save({"model": theirs, "optimizer": {}, "args": arguments}, tmp_path / "c.pth")
    weights = read_weights(tmp_path / "c.pth")
    built = zoo.build("sew-resnet", {}, weights.tensors, weights.told)
    report = load_weights(built.module, weights)
    assert (report.missing, report.unexpected) == ((), ())
    assert report.renamed["layer1.0.conv1.module.0.weight"] == "layer1.0.conv1.0.weight"
    assert built.options["T"] == (3, "the file's args")
    assert built.options["connect"] == ("add", "the file's args")


def test_constants_of_the_authors_modules_are_options():
    deep = zoo.build("ms-resnet", {"decay": 0.5}, state_of("ms-resnet", MS_DEEP))
    assert deep.options["decay"] == (0.5, "given")
    assert deep.options["threshold"] == (0.5, "the family's")
    assert deep.options["T"] == (6, "the family's")
    assert deep.module.mem_update.dynamics() == (0.5, 1.0)
    two = zoo.build("mlf-ds-resnet", {"thresholds": [0.5, 1.5]}, state_of("mlf-ds-resnet", MLF))
    assert len(two.module.fire.levels) == 2
    assert two.module.bn1.threshold == 0.5
    gesture = zoo.build("mlf-ds-resnet-gesture", {}, state_of("mlf-ds-resnet-gesture", GESTURE))
    assert gesture.module.default_cfg["timesteps"] == gesture.options["T"][0] == 40


@pytest.mark.parametrize(
    ("name", "state", "message"),
    [
        ("sew-resnet", ("mlf-ds-resnet", MLF), r"these are the tensors of arch='mlf-ds-resnet'"),
        ("mlf-ds-resnet", ("sew-resnet", NARROW), r"these are the tensors of arch='sew-resnet'"),
        ("ms-resnet", ("danet", dense("stages")), r"no MS-ResNet; .* of arch='danet'"),
        ("danet", ("ms-resnet", MS), r"no DANet; these are the tensors of arch='ms-resnet'"),
        (
            "sew-resnet-34", ("sew-resnet", NARROW),
            r"layers of a block and blocks of each stage 2, 1, 2, 1, 1; take arch='sew-resnet'",
        ),
        (
            "sew-resnet-50", ("sew-resnet-34", replace(NARROW, blocks=(3, 4, 6, 3))),
            r"each stage 2, 3, 4, 6, 3; take arch='sew-resnet-34'",
        ),
        ("ms-resnet-104", ("ms-resnet", MS_DEEP), r"stem and .* 3, 1, 1, 2, 1; take arch='ms-res"),
        ("mlf-ds-resnet", ("mlf-ds-resnet", MLF_DVS), r"frames; take arch='mlf-ds-resnet-cifar10-"),
        ("mlf-ds-resnet-gesture", ("mlf-ds-resnet", MLF_DVS), r"1, 1, 2, 1; take .*-cifar10-dvs'"),
        ("mlf-ds-resnet-gesture", ("mlf-ds-resnet", MLF), r"for pictures; take arch='mlf-ds-resn"),
    ],
)  # fmt: skip
def test_a_file_under_another_name_is_refused_by_name(name, state, message):
    with pytest.raises(BadInputError, match=message):
        zoo.build(name, {}, state_of(*state))


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("ms-resnet", {"decay": 1.0}, r"decay is 1.0, give a number from 0 to below 1"),
        ("ms-resnet", {"tau": 2.0}, r"no tau; it takes T, decay, threshold"),
        ("mlf-ds-resnet", {"thresholds": [1.6, 0.6]}, r"give a list of rising numbers above 0"),
        ("danet", {"domain": "both"}, r"domain is 'both', give spikes or potentials"),
        ("danet", SPIKES | {"order": "fire-conv-bn"}, r"spikes have the order conv-bn-fire"),
        ("danet", SPIKES | {"fires": False}, r"and neurons in shortcuts; fires is false"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_a_usage_error(name, given, message):
    shapes = {"ms-resnet": MS, "mlf-ds-resnet": MLF, "danet": dense("stages")}
    with pytest.raises(UsageError, match=message):
        zoo.build(name, given, state_of(name, shapes[name]))


@pytest.mark.parametrize(
    ("name", "shape", "key"),
    [
        ("sew-resnet", NARROW, "layer3.0.conv1.0.weight"),
        ("sew-resnet", NARROW, "layer2.0.downsample.0.1.running_mean"),
        ("ms-resnet", MS, "conv4_x.0.shortcut.0.weight"),
        ("mlf-ds-resnet", MLF, "voting.weight"),
        ("danet", dense("stages"), "stages.1.blocks.1.units.0.norm.bias"),
    ],
)
def test_a_key_that_is_missing_is_named(name, shape, key):
    options = {"sew-resnet": {"connect": "add"}, "danet": SPIKES}.get(name, {})
    state = state_of(name, shape, **options)
    del state[key]
    with pytest.raises(BadInputError) as caught:
        loaded(name, options, state)
    assert key in str([caught.value.message, *caught.value.faults])


# -- dense addition ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "shortcuts"), [("sum", (0, 1, 1)), ("stages", (0, 2, 3)), ("blocks", (0, 2, 4))]
)
def test_the_rule_says_how_many_older_tensors_have_a_layer_into_a_stage(rule, shortcuts):
    shape = dense(rule)
    assert shape.shortcuts == shortcuts
    state = state_of("danet", shape, projections=rule)
    assert RESNETS["danet"].read(state) == shape
    built = zoo.build("danet", SPIKES | {"projections": rule}, state)
    assert built.options["domain"] == ("spikes", "given")
    assert built.options["order"] == ("conv-bn-fire", "reconstructed")
    assert built.options["projections"] == (rule, "given")
    if rule != "stages":
        told = r"the weights have .* not the rule stages; take arch_args '\{\"projections\": \""
        with pytest.raises(BadInputError, match=told + rule):
            zoo.build("danet", SPIKES, state)


@pytest.mark.parametrize("rule", danet.RULES)
@pytest.mark.parametrize(
    ("domain", "order"), [(d, o) for d, os in danet.ORDERS.items() for o in os]
)
@torch.no_grad()
def test_a_stage_adds_all_that_is_older(rule, domain, order):
    """The declared network against its sums written out, tensor by tensor."""
    options = {"projections": rule, "domain": domain, "order": order, "neuron": "if"}
    net = loaded("danet", options, state_of("danet", dense(rule), **options))
    x = torch.from_numpy(values(2, 3, 16, 16)).float() / 128 - 1
    stem = net.stem(net.timed(x))
    ends, tensors = [stem], [stem]
    for i, stage in enumerate(net.stages):
        here = [] if i else [stem]
        for block in stage.blocks:
            here.append(block(sum(here) if here else ends[-1]))
            tensors.append(here[-1])
            if i and len(here) == 1:
                read = {"sum": ends[-1:], "stages": ends, "blocks": tensors[:-1]}[rule]
                here += [unit(old) for unit, old in zip(stage.shortcuts, read, strict=True)]
        ends.append(sum(here))
    end = ends[-1] if domain == "spikes" else net.fire(ends[-1])
    scores = net.head(end.mean((3, 4)).mean(0))
    torch.testing.assert_close(net(x), scores)
    assert end.max() > 1 if domain == "spikes" else end.max() == 1


def test_neurons_of_a_dense_network_learn_their_time_constants_by_keys():
    shape = dense("stages", learnt_tau=True)
    state = state_of("danet", shape)
    built = zoo.build("danet", SPIKES, state)
    assert built.read["learnt_tau"] is True
    assert built.module.stages[0].blocks[0].units[0].fire.w is not None
    with pytest.raises(BadInputError, match="the weights are those of neurons with time constants"):
        zoo.build("danet", SPIKES | {"neuron": "if"}, state)
    plain = zoo.build("danet", SPIKES | {"neuron": "if"}, state_of("danet", dense("stages")))
    assert plain.options["neuron"] == ("if", "given")
    assert "tau" not in plain.options
    assert plain.module.stem.fire.dynamics() == (1.0, 1.0)


# -- compiled ------------------------------------------------------------------------------

_SMALL_SEW = sew_resnet.Shape((1, 1, 1, 1), 8, (8, 8, 16, 16), (8, 8, 16, 16), classes=5)
_SMALL_MS = ms_resnet.Shape((1, 1, 1, 1), (8,), (8, 8, 16, 16), classes=5)
_SMALL_MLF = mlf_ds_resnet.Shape((1, 1, 1), (8, 16, 16), 8, classes=5)
_POTENTIALS = {"domain": "potentials", "size": 16}
_COMPILED: dict[str, tuple[str, Shape, dict[str, Any]]] = {
    "dense sums of potentials": ("danet", dense("stages"), {**_POTENTIALS, "fires": True}),
    "norms before neurons": (
        "danet", dense("stages"), {**_POTENTIALS, "fires": False, "order": "bn-fire-conv"}
    ),
    "dense layers over potentials": (
        "danet", dense("blocks"), {**_POTENTIALS, "projections": "blocks"}
    ),
    "dense sums of spikes": ("danet", dense("blocks"), {"projections": "blocks", "size": 16}),
    "sums of IF spikes": ("sew-resnet", _SMALL_SEW, {"connect": "add", "size": 32}),
    "products of spikes": ("sew-resnet", _SMALL_SEW, {"connect": "and", "size": 32}),
    "spikes where there are none": ("sew-resnet", _SMALL_SEW, {"connect": "iand", "size": 32}),
    "shortcuts over potentials": (
        "ms-resnet", _SMALL_MS, {"T": 4, "size": 32},
    ),
    "a stem of three convolutions": (
        "ms-resnet", replace(_SMALL_MS, stem=(8, 8, 8), pooled=True), {"T": 4, "size": 32},
    ),
    "three thresholds": ("mlf-ds-resnet", _SMALL_MLF, {"size": 16}),
    "frames with a norm of their own": (
        "mlf-ds-resnet-gesture", replace(_SMALL_MLF, channels=2, normed_input=True),
        {"T": 4, "size": 16},
    ),
}  # fmt: skip


_DEFAULT = "dense sums of potentials"


@pytest.mark.parametrize(
    "what",
    [pytest.param(w, marks=[pytest.mark.slow] * (w != _DEFAULT)) for w in _COMPILED],
)
def test_a_small_network_compiles_and_engines_agree(what):
    name, shape, options = _COMPILED[what]
    torch.manual_seed(0)
    net = made(name, shape, **options)
    size, frames = net.default_cfg["input_size"], "timesteps" in net.default_cfg
    drawn = np.random.default_rng(0).integers(
        0, 4 if frames else 256, (6, net.T, *size), dtype=np.uint8
    )
    x = drawn if frames else drawn[:, 0]
    seen = torch.from_numpy(x).float()
    _calibrate(net, seen if frames else seen / 128 - 1)
    model = snncc.compile(net, x, weight_bits=24, verify_samples=2)
    report = model.report
    assert report.import_law.neurons == len(model.program.neurons)
    assert report.import_law.changed == report.verify.mismatched == 0
    assert {*report.verify.engines} == {"spike-form", "clocked", "event"}
    assert report.verify.coverage.silent == ()
    assert report.changed < (2e-2 if report.squeezed else 1e-4)  # at 24 bits chains have no room


def _calibrate(net: nn.Module, x: torch.Tensor) -> None:
    """Gives batch norms the statistics of these inputs, and weights that let neurons fire."""

    def measure(norm: nn.Module, args: tuple[torch.Tensor]) -> None:
        bn = norm.bn if hasattr(norm, "bn") else norm
        bn.running_mean.copy_(args[0].mean((0, 2, 3)))
        bn.running_var.copy_(args[0].var((0, 2, 3)).clamp_min(1e-4))

    # Norms scaled to a threshold compute with the statistics of theirs, and never call it.
    kinds = (nn.BatchNorm2d, mlf_ds_resnet.ThresholdNorm)
    norms = [m for m in net.modules() if isinstance(m, kinds)]
    for bn in norms:
        if isinstance(bn, nn.BatchNorm2d) and bn.affine:
            nn.init.uniform_(bn.weight, 0.8, 1.6)
            nn.init.uniform_(bn.bias, -0.1, 0.4)
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
