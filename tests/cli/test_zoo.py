"""Published networks on the command line: a container of the authors' scripts, and a name."""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from snncc.frontends.zoo.e_spikeformer import ESpikeFormer, Shape
from snncc.frontends.zoo.e_spikeformer_large import LargeESpikeFormer, LargeShape
from snncc.frontends.zoo.masked_autoencoder import MaskedAutoencoder, MaskedShape
from snncc.frontends.zoo.parts import Layers
from snncc.runtime.artifact import load

SHAPE = Shape(widths=(8, 8, 16, 16), blocks=(1, 0), classes=5)
LARGE = LargeShape((8, 16, 16), 1, hidden=24, rep_conv=20, classes=5, distilled=True)
PARTS = {"optimizer": {}, "epoch": 199, "scaler": {}, "args": argparse.Namespace(lr=6e-4)}


def seen_noise(net, channels=3):
    """The network in eval mode; its batch norms and layer scales let neurons fire."""
    for name, value in net.named_parameters():
        if "layer_scale" in name:
            nn.init.uniform_(value, 0.5, 1.5)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.randn(16, channels, 32, 32))
    return net.eval()


@pytest.fixture
def container(tmp_path):
    """A small network as the published scripts save it, in half precision; it has seen noise."""
    torch.manual_seed(0)
    net = seen_noise(ESpikeFormer(SHAPE, Layers()))
    path = tmp_path / "small.pth"
    torch.save({"model": net.half().state_dict(), **PARTS}, path)
    return path


@pytest.fixture
def distilled(tmp_path):
    """A large network with its second head, small; pictures, and the class it gives them."""
    torch.manual_seed(0)
    net = seen_noise(LargeESpikeFormer(LARGE, Layers(rounding="half-up"), scale=8.0))
    path, data = tmp_path / "large.pth", tmp_path / "pictures.npz"
    torch.save({"model": net.state_dict(), **PARTS}, path)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
    mean, std = (torch.tensor(net.default_cfg[key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad():
        scores = net((torch.from_numpy(pixels).float() / 255 - mean) / std).numpy()
    np.savez(data, x=pixels, y=scores.argmax(1))
    return path, data, scores


def test_a_container_and_a_name_are_enough(snncc, container, tmp_path, golden):
    out = tmp_path / "tap.snn"
    screen = snncc(
        "compile", container, "--arch=e-spikeformer-backbone", "--arch-args", '{"tap": 2}',
        "--input-shape", "3,32,32", "-o", out,
    )  # fmt: skip
    assert screen.code == 0
    assert screen.stdout == golden
    assert snncc("verify", out).code == 0


def _lost(state):
    return {key: value for key, value in state.items() if ".q_conv.1." not in key}


def _swapped(state):
    one, two = "downsample1_2.encode_conv.weight", "downsample3.encode_conv.weight"
    return state | {one: state[two], two: state[one]}


@pytest.mark.parametrize(
    ("arch", "change", "message"),
    [
        ("e-spikeformer-s", dict, "widths 8, 8, 16, 16; take --arch e-spikeformer\n"),
        ("e-spikeformer", _lost, "faults: 4; check --arch"),
        ("e-spikeformer", _swapped, "faults: "),
        ("e-spikeformer-large", dict, "no block3.0.attn.q_conv.0.conv1.0.weight"),
        (
            "e-spikeformer",
            lambda state: state | {"neck.weight": torch.zeros(2)},
            "faults: 1; check --arch, or leave them out with --allow-unexpected",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_bad_input(snncc, container, arch, change, message):
    state = change(torch.load(container, weights_only=False)["model"])
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}, **PARTS}, container)
    screen = snncc("check", container, f"--arch={arch}", "--input-shape", "3,32,32")
    assert screen.code == 6
    assert message in screen.stderr


def test_check_says_what_weights_do_not_carry(snncc, container):
    screen = snncc(
        "check", container, "--arch=e-spikeformer-backbone", "--arch-args", '{"tap": 1, "D": 8}',
        "--input-shape", "3,32,32",
    )  # fmt: skip
    assert "D=8 tap=1 (given)" in screen.stdout
    assert "norm=8 rounding=half-even heads=8 scale=2/sqrt(d) (the family's)" in screen.stdout
    document = snncc(
        "check", container, "--arch=e-spikeformer-backbone", "--input-shape", "3,32,32", "--json"
    ).json
    zoo = document["checkpoint"]["zoo"]
    assert zoo["options"]["tap"] == [4, "the family's"]
    assert zoo["read"]["widths"] == [8, 8, 16, 16]


def test_both_heads_of_a_distilled_network_score(snncc, distilled, tmp_path):
    path, data, scores = distilled
    out, results = tmp_path / "large.snn", tmp_path / "results.npz"
    screen = snncc(
        "compile", path, "--arch=e-spikeformer-large", "--arch-args", '{"scale": 8}',
        "--host", "head", "--host", "head_kd", "--input-shape", "3,32,32",
        "--calibration", data, "--weight-bits", 24, "-o", out,
    )  # fmt: skip
    assert screen.code == 0
    assert "HOST head, head_kd, " in screen.stdout
    assert "same class for 100" in screen.stdout
    assert "vacuous" not in screen.stdout
    assert snncc("verify", out).code == 0
    for engine in ("clocked", "event"):
        document = snncc(
            "run", out, "--input", data, "--engine", engine, "-o", results, "-f", "--json"
        ).json
        assert document["accuracy"] == 1.0
        assert document["predictions"] == scores.argmax(1).tolist()
        with np.load(results) as arrays:
            np.testing.assert_allclose(arrays["output.output"], scores, atol=1e-4)
    shown = snncc("inspect", out).stdout
    assert "then head on the host: 5" in shown
    assert "output = output0 + output1" in shown


def test_what_the_host_must_be_given_is_said(snncc, distilled):
    given = (distilled[0], "--arch=e-spikeformer-large", "--input-shape", "3,32,32")
    assert snncc("check", *given).code == 0  # heads may read potentials
    screen = snncc("check", *given, "--no-neuron-between", "merge")
    assert screen.code == 3
    assert "--host head" in " ".join((screen.stdout + screen.stderr).split())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_masked_autoencoder_compiles_to_the_program_of_its_vanilla_network(
    snncc, tmp_path, dtype
):
    """Pretrained weights, and the same under the keys of fine-tuning, up to the same node."""
    torch.manual_seed(0)
    plain = replace(LARGE, distilled=False, layer_scale=False)
    masked = MaskedShape(**vars(plain), tokens=4, decoder=(24, 2, 40))
    pretrained = seen_noise(MaskedAutoencoder(masked, Layers(rounding="half-up"))).to(dtype)
    tuned = LargeESpikeFormer(plain, Layers(rounding="half-up")).to(dtype).state_dict()
    tuned |= {key: value for key, value in pretrained.state_dict().items() if key in tuned}
    programs = []
    for name, state, more in (
        ("mae", pretrained.state_dict(), []),
        ("large", tuned, ["--until", "block3.0", "--input-shape", "3,32,32"]),
    ):
        torch.save({"model": state, **PARTS}, tmp_path / f"{name}.pth")
        screen = snncc(
            "compile", tmp_path / f"{name}.pth", f"--arch=e-spikeformer-{name}", *more,
            "--name", "encoder", "-o", tmp_path / f"{name}.snn",
        )  # fmt: skip
        assert screen.code == 0
        assert "0 missing, 0 unexpected" in screen.stdout
        left = "left out: pos_embed, mask_token, decoder_pos_embed, norm, decoder_embed, decoder_"
        assert (left in screen.stdout) == (name == "mae")
        programs.append(load(tmp_path / f"{name}.snn").program.to_json())
    (one, arrays), (other, others) = programs
    assert one == other
    assert arrays.keys() == others.keys()
    assert all(np.array_equal(arrays[key], others[key]) for key in arrays)
    assert len(one["nodes"]) > 40
