"""Spiking transformers on the command line: containers as their scripts write them, and a name."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from zoo_weights import filled, values

from snncc.frontends.zoo import sdt_v1, sdt_v2, spikformer, spikingformer
from snncc.frontends.zoo.families import OVER_TIME
from snncc.runtime.artifact import load

_SMALL: dict[str, Any] = {"depth": 1, "stem": (4, 8, 16, 32), "hidden": 64, "classes": 10}
_FIVE: dict[str, Any] = {**_SMALL, "stem": (4, 8, 16, 32, 32)}
_OF_CIFAR = {"attention": "linear", "mlp": "linear", "bias": True}
_ARGUMENTS = {"img_size": 16, "time_step": 2, "num_heads": 4, "lr": 1e-3}

LINEAR = spikformer.Shape(**_SMALL, **_OF_CIFAR)
CML_LINEAR = spikformer.Shape(**_SMALL, **_OF_CIFAR, names="block1")
EVENTS = spikformer.Shape(**_SMALL, channels=2, mlp="conv1d", tokens=1)
BLOCKS = spikingformer.Shape(**_FIVE, names="block0")
PROJECTED = spikingformer.Shape(**_FIVE)
GATED = sdt_v1.Shape(**_SMALL)
GATED_EVENTS = sdt_v1.Shape(**_SMALL, channels=2)
META = sdt_v2.Shape((8, 8, 16, 16), (1, 1), hidden=(32, 32), classes=10)

Shape = spikformer.Shape | spikingformer.Shape | sdt_v1.Shape | sdt_v2.Shape


def weights_of(name: str, shape: Shape) -> dict[str, torch.Tensor]:
    entry = OVER_TIME[name]
    options = {**entry.defaults(shape), "pooling": entry.pooling}
    return filled(entry.make(shape, options).state_dict())


@pytest.fixture
def saved(tmp_path):
    """Saves a small network as timm does: path of the file."""

    def save(name: str, shape: Shape, arch: str = "vitsnn", **arguments: Any) -> Any:
        content = {
            "epoch": 299, "arch": arch, "state_dict": weights_of(name, shape), "optimizer": {},
            "version": 2, "args": argparse.Namespace(**{**_ARGUMENTS, **arguments}), "metric": 9.5,
        }  # fmt: skip
        torch.save(content, tmp_path / "best.pth.tar")
        return tmp_path / "best.pth.tar"

    return save


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape", "more"),
    [
        ("sdt-v1", GATED, []),
        ("spikformer", LINEAR, []),
        ("cml-spikformer", CML_LINEAR, []),
        ("spikformer-dvs", EVENTS, []),
        ("spikingformer", BLOCKS, ["--host", "head"]),
        ("cml-spikingformer", PROJECTED, ["--host", "head"]),
        ("sdt-v1-gesture", GATED_EVENTS, []),
        ("sdt-v2", META, []),
    ],
)
def test_a_container_and_a_name_are_enough(snncc, saved, tmp_path, name, shape, more):
    """Size, T and heads are the training's; what compiles fires alike on all engines."""
    size = 32 if name == "sdt-v2" else 16
    file = saved(name, shape, pooling_stat="0011", img_size=size)
    out, data = tmp_path / "net.snn", tmp_path / "x.npz"
    x = values(4, shape.channels, size, size)
    np.savez(data, x=np.stack([x, x // 2], 1) // 64 if shape.frames else x)
    screen = snncc(
        "compile", file, f"--arch={name}", *more, "--calibration", data, "--weight-bits", 16,
        "-o", out,
    )  # fmt: skip
    assert screen.code == 0, screen.stderr
    shown = " ".join(screen.stdout.split())
    assert "0 missing, 0 unexpected" in shown
    assert "T=2 heads=4 " in shown
    assert "(the file's args)" in shown
    report = load(out).report
    assert report.import_law.changed == report.verify.mismatched == 0
    assert "vacuous" not in shown
    assert snncc("verify", out, "--input", data).code == 0


@pytest.mark.parametrize(
    ("own", "arch", "shape", "options", "code", "message"),
    [
        (
            "spikingformer", "vitsnn", PROJECTED, [], 6,
            "the file's arch, vitsnn, does not tell; take --arch cml-spikingformer, or, where they "
            "stand after neurons, --arch-args '{\"pooling\": \"spikes\"}'",
        ),
        (
            "spikingformer", "CML_Spikingformer", PROJECTED, [], 6,
            "pools stand before neurons; take --arch cml-spikingformer",
        ),
        ("spikformer", "", CML_LINEAR, [], 6, "take --arch cml-spikformer"),
        ("sdt-v1", "", META, [], 6, "these are the tensors of --arch sdt-v2"),
        (
            "sdt-v1", "", GATED, ["--arch-args", '{"T": 4}'], 2,
            "T is given twice and differently: 4 by --arch-args, 2 by the file's args",
        ),
        ("sdt-v1", "", GATED, ["--timesteps", "2"], 2, "it reads pictures, no sequences"),
        (
            "sdt-v1", "", GATED, ["--arch-args", '{"size": 32}', "--input-shape", "3,16,16"], 2,
            "size is given twice and differently: 32 by --arch-args, --input-shape 3,16,16; give",
        ),
        (
            "sdt-v1-gesture", "", GATED_EVENTS, ["--timesteps", "4"], 2,
            "4 by --timesteps, 2 by the file's args",
        ),
    ],
)  # fmt: skip
def test_what_is_refused_by_name(snncc, saved, own, arch, shape, options, code, message):
    stored = {CML_LINEAR: "cml-spikformer", META: "sdt-v2"}.get(shape, own)
    screen = snncc("check", saved(stored, shape, arch), f"--arch={own}", *options)
    assert screen.code == code
    assert message in " ".join(screen.stderr.split())
    assert screen.stderr.count("error:") == 1


def test_a_shape_on_the_command_line_is_the_size(snncc, saved):
    file = saved("sdt-v1", GATED, pooling_stat="0011")
    screen = snncc("check", file, "--arch=sdt-v1", "--input-shape", "3,32,32")
    assert screen.code == 0, screen.stderr
    shown = " ".join(screen.stdout.split())
    assert "size=32 (given)" in shown
    assert "size=16" not in shown


MODELS = '''
from torch import nn
from snncc.nn import IntegerFire

class Container(nn.Module):
    """Calls what it holds ``module``, as SpikingJelly's once did."""

    def __init__(self, *layers):
        super().__init__()
        self.module = nn.Sequential(*layers)

    def forward(self, x):
        return self.module(x)

def net(held):
    conv = nn.Conv2d(1, 4, 3, padding=1)
    first = Container(conv) if held else nn.Sequential(conv)
    return nn.Sequential(first, IntegerFire(), nn.Flatten(), nn.Linear(64, 3))
'''


@pytest.mark.parametrize("held", [True, False])
def test_keys_of_containers_are_renamed_in_one_line(snncc, tmp_path, held):
    """Keys ``0.module.0.weight`` against ``0.0.weight`` of the user's own network, either way."""
    (tmp_path / "models.py").write_text(MODELS)
    plain = nn.Sequential(nn.Sequential(nn.Conv2d(1, 4, 3)), nn.ReLU(), nn.Flatten())
    state = plain.state_dict() | nn.Sequential(*plain, nn.Linear(64, 3)).state_dict()
    if not held:
        state = {key.replace("0.0.", "0.module.0."): value for key, value in state.items()}
    torch.save(state, tmp_path / "net.pth")
    screen = snncc(
        "check", tmp_path / "net.pth", "--arch", f"{tmp_path}/models.py:net",
        "--arch-args", f'{{"held": {str(held).lower()}}}', "--input-shape", "1,4,4",
    )  # fmt: skip
    assert screen.code == 0, screen.stderr
    told = "0.0.weight -> 0.module.0.weight" if held else "0.module.0.weight -> 0.0.weight"
    (line,) = [line for line in screen.stdout.splitlines() if line.startswith("renamed")]
    assert f"2 keys, {told} and so on" in line
