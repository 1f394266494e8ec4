"""Published networks on the command line: a container of the authors' scripts, and a name."""

from __future__ import annotations

import argparse

import pytest
import torch
from torch import nn

from snncc.frontends.zoo.e_spikeformer import ESpikeFormer, Shape
from snncc.frontends.zoo.parts import Layers

SHAPE = Shape(widths=(8, 8, 16, 16), blocks=(1, 0), classes=5)


@pytest.fixture
def container(tmp_path):
    """A small network as the published scripts save it, in half precision; it has seen noise."""
    torch.manual_seed(0)
    net = ESpikeFormer(SHAPE, Layers())
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.randn(16, 3, 32, 32))
    path = tmp_path / "small.pth"
    parts = {"optimizer": {}, "epoch": 199, "scaler": {}, "args": argparse.Namespace(lr=6e-4)}
    torch.save({"model": net.half().state_dict(), **parts}, path)
    return path


def test_a_container_and_a_name_are_enough(snncc, container, tmp_path, golden):
    out = tmp_path / "tap.snn"
    screen = snncc(
        "compile", container, "--arch=e-spikeformer-backbone", "--arch-args", '{"tap": 2}',
        "--input-shape", "3,32,32", "-o", out,
    )  # fmt: skip
    assert screen.code == 0
    assert screen.stdout == golden
    assert snncc("verify", out).code == 0


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
