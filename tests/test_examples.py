"""The training scripts of the small E-SpikeFormer run one after the other, on few images."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from command_line import CALIBRATION, EXAMPLE, ROOT, run_cli
from fashion_files import write_folder
from PIL import Image

from snncc.frontends.constructor import build
from snncc.runtime.artifact import load

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
FASHION = EXAMPLES / "fashion_mnist"


Run = Callable[..., str]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Runs a script of a folder as Python does, but in this process; returns what it prints."""
    modules = set(sys.modules)

    def run(folder: Path, script: str, *arguments: object, code: int = 0) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "path", [str(folder), *sys.path])
            patch.chdir(folder)
            main = runpy.run_path(script)["main"]
            done = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done.output

    yield run
    for name in set(sys.modules) - modules:
        if (FASHION / f"{name}.py").exists():
            del sys.modules[name]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("idx"), test=12, train=48)


@pytest.fixture(scope="module")
def pretrained(data, run):
    few = ("--data", data, "--epochs", "1", "--batch", "16")
    run(FASHION, "pretrain.py", *few, "--out", data / "mae.pt")
    return data / "mae.pt"


def test_fine_tuning_starts_from_what_masked_pretraining_left(data, pretrained, run):
    few = ("--data", data, "--epochs", "1", "--batch", "16", "--lr", "1e-9")
    tuned = data / "tuned.pt"
    run(FASHION, "spikeformer.py", "--from", pretrained, *few, "--out", tuned)
    before, after = (torch.load(path) for path in (pretrained, tuned))
    assert {key for key in before.keys() - after.keys() if not key.startswith("decoder_")} == set()
    assert {key.split(".")[0] for key in after.keys() - before.keys()} == {"head"}
    name = "block1.conv1.weight"
    assert torch.allclose(before[name], after[name], atol=1e-6)


def test_a_checkpoint_of_something_else_is_not_started_from(data):
    command = [sys.executable, "spikeformer.py", "--from", "cnn_d4.pt", "--data", str(data)]
    command += ["--out", str(data / "none.pt")]
    done = subprocess.run(command, cwd=FASHION, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "not those that pretrain.py writes" in done.stderr
    assert not (data / "none.pt").exists()


def test_a_network_with_attention_is_tuned_on_the_grid(data, run):
    arguments = ("--arch", "spikeformer:spikeformer", "--from", "spikeformer_d4.pt")
    few = ("--data", data, "--epochs", "1", "--batch", "16", "--lr", "0.5")
    run(FASHION, "finetune_grid.py", *arguments, *few, "--out", data / "grid8.pt")
    shipped = torch.load(FASHION / "spikeformer_d4_grid8.pt")
    made = torch.load(data / "grid8.pt")
    assert {k: v.shape for k, v in made.items()} == {k: v.shape for k, v in shipped.items()}


def test_the_same_network_trains_on_colour_pictures(tmp_path, run):
    rows = np.random.default_rng(0).integers(0, 256, (16, 1024, 3)).astype(np.uint8)
    for name in ("test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        Image.fromarray(rows).save(tmp_path / f"{name}.png")
    (tmp_path / "train_lables.json").write_text(str([i % 10 for i in range(80)]))
    (tmp_path / "test_lables.json").write_text(str([i % 10 for i in range(16)]))
    few = ("--epochs", "1", "--batch", "16")
    out = tmp_path / "cifar.pt"
    said = run(EXAMPLES / "cifar10", "spikeformer_cifar.py", "--data", tmp_path, *few, "--out", out)
    assert "382,826 parameters, D=4" in said
    assert np.load(out.with_suffix(".npz"))["x"].shape == (16, 3, 32, 32)


#: Of each network over time: its script, and what else its report counts.
OVER_TIME = {
    "spikformer": ("spikformers", "37,632 sums of spikes per sample"),
    "cml_spikingformer": (
        "spikformers",
        "169,344 comparisons of potentials, 2,560 products of graded payloads per",
    ),
    "sdt_v1": ("spikformers", "112,896 comparisons of potentials, 25,088 gates per sample"),
    "sew": ("resnets", "45,824 sums of spikes per sample"),
    "mlf": ("resnets", "97,664 sums of spikes per sample"),
    "danet": ("resnets", "EXACT 12"),
}


#: Gates, maxima of potentials and membrane shortcuts are met without the others.
SHORT = "sdt_v1"


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != SHORT)) for n in OVER_TIME]
)
def test_a_shipped_network_over_time_compiles_and_verifies(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    script, counted = OVER_TIME[name]
    arch, out = f"--arch={EXAMPLE}/{script}.py:{name}", tmp_path / "net.snn"
    few = ("--weight-bits=24", f"--calibration={CALIBRATION}", "--calibration-limit=4")
    done = run_cli(tmp_path, "compile", f"{EXAMPLE}/{name}_t4.pt", arch, *few, "-o", out)
    assert done.code == 0, done.stderr
    assert counted in done.stdout
    assert "same class for 100 % of 4 samples" in done.stdout
    found = run_cli(tmp_path, "verify", out, f"--input={CALIBRATION}", "--limit=2", "--json").json
    assert found["mismatched"] == 0
    assert {"clocked", "event", "spike-form"} <= found["engines"].keys()
    assert found["coverage"]["silent"] == []


@pytest.mark.slow
def test_the_shipped_dense_network_is_the_zoos_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    options = {"domain": "potentials", "fires": True, "stem_stride": 2, "size": 28}
    given = json.dumps({**options, "mean": [0.286], "std": [0.353]})
    few = (f"--calibration={CALIBRATION}", "--calibration-limit=4", "--name=n")
    programs = []
    for arch in (("danet", f"--arch-args={given}"), (f"{EXAMPLE}/resnets.py:danet",)):
        out = tmp_path / f"{len(programs)}.snn"
        arguments = (f"{EXAMPLE}/danet_t4.pt", f"--arch={arch[0]}", *arch[1:], *few, "-o", out)
        done = run_cli(tmp_path, "compile", *arguments)
        assert done.code == 0, done.stderr
        programs.append(load(out).program.to_json())
    (one, arrays), (other, others) = programs
    assert "reconstructed" in run_cli(tmp_path, "inspect", tmp_path / "0.snn").stdout
    assert one["nodes"] == other["nodes"]
    assert all(np.array_equal(arrays[key], others[key]) for key in arrays)


#: Classes that are right, of the images that are shipped, in PyTorch.
RIGHT = {
    "spikformer": 903,
    "cml_spikingformer": 922,
    "sdt_v1": 907,
    "sew": 917,
    "mlf": 914,
    "danet": 903,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RIGHT)
@torch.no_grad()
def test_a_shipped_network_over_time_is_as_good_as_its_readme_says(name):
    net = build(f"{FASHION / OVER_TIME[name][0]}.py:{name}", {})
    net.load_state_dict(torch.load(FASHION / f"{name}_t4.pt"))
    with np.load(FASHION / "test_1000.npz") as images:
        x, y = (torch.from_numpy(images[key]) for key in "xy")
    mean, std = (net.default_cfg[key][0] for key in ("mean", "std"))
    classes = torch.cat([net(part).argmax(1) for part in ((x / 255 - mean) / std).split(250)])
    assert (classes == y).sum().item() == pytest.approx(RIGHT[name], abs=3)


def test_a_spiking_transformer_is_trained_on_one_timestep_first(data, run):
    few = ("--data", data, "--epochs", "2", "--short-epochs", "1", "--batch", "16")
    said = run(FASHION, "spikformers.py", "--arch", "sdt_v1", *few, "--out", data / "sdt.pt")
    assert "81,082 parameters, T=4" in said
    shipped = torch.load(FASHION / "sdt_v1_t4.pt")
    made = torch.load(data / "sdt.pt")
    assert {k: v.shape for k, v in made.items()} == {k: v.shape for k, v in shipped.items()}


@pytest.mark.parametrize(("name", "weights"), [("mlf", 73_082), ("danet", 80_634)])
def test_a_spiking_resnet_is_trained_likewise(name, weights, data, run):
    few = ("--data", data, "--epochs", "2", "--short-epochs", "1", "--batch", "16")
    said = run(FASHION, "resnets.py", "--arch", name, *few, "--out", data / f"{name}.pt")
    assert f"{weights:,} parameters, T=4" in said
    shipped = torch.load(FASHION / f"{name}_t4.pt")
    made = torch.load(data / f"{name}.pt")
    assert {k: v.shape for k, v in made.items()} == {k: v.shape for k, v in shipped.items()}


def test_a_spiking_transformer_whose_epochs_are_all_short_is_not_trained(data, run):
    few = ("--data", data, "--epochs", "4", "--out", data / "none.pt")
    said = run(FASHION, "spikformers.py", *few, code=2)
    assert "4 of 4 epochs: none would show all 4 timesteps" in said
    assert not (data / "none.pt").exists()


def test_the_pretrained_network_that_is_shipped_is_the_constructors():
    net = build(f"{FASHION / 'pretrain.py'}:spikeformer_mae", {"sparse": True})
    shipped = torch.load(FASHION / "spikeformer_mae.pt")
    net.load_state_dict(shipped)
    assert not any(value.isnan().any() for value in net.state_dict().values())


@pytest.mark.slow
def test_masked_pretraining_compiles_to_the_network_of_plain_convolutions(tmp_path, monkeypatch):
    monkeypatch.chdir(FASHION)
    programs = []
    for sparse in ("true", "false"):
        out = tmp_path / f"{sparse}.snn"
        arch = ("--arch", "pretrain.py:spikeformer_mae", "--arch-args", f'{{"sparse": {sparse}}}')
        arguments = ("spikeformer_mae.pt", *arch, "--name", "mae", "-o", out)
        assert run_cli(tmp_path, "compile", *arguments).code == 0
        programs.append(load(out).program.to_json())
    (one, arrays), (other, others) = programs
    assert one == other
    assert len(one["nodes"]) > 50
    assert arrays.keys() == others.keys()
    assert all(np.array_equal(arrays[key], others[key]) for key in arrays)
