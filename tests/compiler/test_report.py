"""What the report says of the input: raw pixels lose nothing, whatever float32 does at borders."""

import numpy as np
import pytest
import torch
from torch import nn

import snncc
from snncc.cli.report_lines import all_lines
from snncc.compiler import InputOptions
from snncc.nn import IntegerFire
from snncc.runtime.report import Float32Report

MEAN, STD = 0.0, 1 / 255
PIXELS = np.arange(256, dtype=np.uint8).reshape(-1, 1)


def network(border: float) -> nn.Module:
    """One neuron, whose potential is pixel / 20 + border; as float32 a 20th is a little more."""
    net = nn.Sequential(nn.Linear(1, 1), IntegerFire(8), nn.Linear(1, 2))
    with torch.no_grad():
        net[0].weight[:] = 1 / 20
        net[0].bias[:] = border
    return net


def compiled(border: float, **more: object) -> snncc.CompiledModel:
    given = {"input": InputOptions(mean=(MEAN,), std=(STD,)), "weight_bits": 24, **more}
    data = given.pop("calibration", PIXELS)
    return snncc.compile(network(border), calibration=data, input_shape=(1,), **given)


def line(model: snncc.CompiledModel, label: str = "input") -> str:
    return next(pieces[1] for pieces in map(list, all_lines(model)) if pieces[0] == label)


def test_what_float32_rounds_otherwise_is_no_change_of_ours():
    on_border = compiled(0.0)  # pixels 10, 30, 50, ... are ties
    report = on_border.report
    assert report.ties > 0
    assert report.float32.activations > 0
    assert report.float32.of == "PyTorch"
    assert (report.changed_by_input, report.changed) == (0, 0)
    assert line(on_border).endswith(": exact")
    assert "float32 and float64 of the trained network differ in " in line(on_border, "trained")


def test_without_borders_it_rounds_nothing_otherwise():
    report = compiled(0.013).report
    assert report.float32 == Float32Report("PyTorch", 0, 0)
    assert report.changed_by_input == report.changed == 0


def test_real_inputs_are_quantised_and_that_is_measured():
    x = np.random.default_rng(0).uniform(0, 255, (256, 1)).astype(np.float32)
    real = compiled(0.0, input=InputOptions(mode="f32"), calibration=x)
    assert real.report.changed_by_input > 0
    assert "of activations" in line(real)


@pytest.mark.parametrize("mode", ["u8", "f32"])
def test_without_data_nothing_is_claimed(mode):
    limits = {"mean": (MEAN,), "std": (STD,)} if mode == "u8" else {"range": (-1.0, 1.0)}
    model = compiled(0.0, input=InputOptions(mode=mode, **limits), calibration=None)
    assert model.report.changed_by_input is model.report.float32 is None
    assert line(model).endswith(": exact" if mode == "u8" else ": changes not measured")


@pytest.mark.parametrize("pools", [0, 1, 2])
def test_layers_that_read_the_input_through_pools_are_analog(pools: int):
    """In the report and in the manifest: what they multiply are pixels, not spikes."""
    torch.manual_seed(0)
    layers = [*(nn.AvgPool2d(2) for _ in range(pools)), nn.Conv2d(1, 2, 1), IntegerFire(4)]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(2 * (8 >> pools) ** 2, 3)).eval()
    x = np.random.default_rng(0).integers(0, 256, (8, 1, 8, 8)).astype(np.uint8)
    given = InputOptions(mean=(MEAN,), std=(STD,))
    model = snncc.compile(net, calibration=x, input_shape=(1, 8, 8), input=given)
    assert model.report.analog == (str(pools),)
    assert model.manifest["parts"]["analog"] == [str(pools)]


def test_an_input_of_another_type_says_what_to_write():
    with pytest.raises(snncc.errors.UsageError, match=r"input is a dict; input=snncc.InputOptions"):
        snncc.compile(network(0.0), input_shape=(1,), input={"mean": (0.0,)})
