"""``--patch-mask``: compiled networks that take a patch mask, on the screen and in files."""

import numpy as np
import pytest
from command_line import ROOT, run_cli

import snncc as package

ARCH = f"--arch={ROOT / 'tests/cli_models.py'}:sparse"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Makes npz files of samples with whatever mask, or none."""
    folder = tmp_path_factory.mktemp("data")
    x = np.random.default_rng(0).integers(0, 256, (20, 1, 6, 6), dtype=np.uint8)
    half = np.random.default_rng(1).integers(0, 2, (20, 1, 3, 2), dtype=np.uint8)

    def make(name, mask=half):
        path = folder / f"{name}.npz"
        arrays = {"x": x, "y": np.zeros(20, np.int64)} | ({} if mask is None else {"mask": mask})
        np.savez(path, **arrays)
        return path

    return make


@pytest.fixture(scope="module")
def masked(weights, data, tmp_path_factory):
    """A network compiled with a mask: the screen, and its file."""
    folder = tmp_path_factory.mktemp("masked")
    out = folder / "sparse.snn"
    args = ("--patch-mask", "3,2", "--calibration", data("masked"), "-o", out)
    return run_cli(folder, "compile", weights("sparse"), ARCH, *args), out


def test_compile_screen_with_a_mask(masked, golden):
    screen, _ = masked
    assert (screen.code, screen.stderr) == (0, "")
    assert screen.stdout.replace("off by 0.0e+00", "off by TINY") == golden


@pytest.mark.parametrize(
    ("mask", "line"),
    [
        (np.arange(20 * 6).reshape(20, 3, 2) % 2, "mask       3x2 patches, 50.0 % active"),
        (np.ones((20, 3, 2), bool), "mask       3x2 patches, 100 % active"),
        (None, "mask       none in the data: all patches are active"),
    ],
)
def test_run_says_which_masks_there_were(snncc, masked, data, mask, line):
    done = snncc("run", masked[1], "--input", data("given", mask))
    assert done.code == 0
    assert done.stdout.splitlines()[1] == line


def test_run_agrees_with_the_session_in_every_chunk(snncc, masked, data):
    path = data("masked")
    with np.load(path) as file:
        read = dict(file)
    done = snncc("run", masked[1], "--input", path, "--batch", 1, "--json")
    scores = package.Session(masked[1]).run(None, {"x": read["x"], "mask": read["mask"]})[0]
    assert done.json["predictions"] == scores.argmax(1).tolist()
    assert done.json["mask"] == {
        "patches": [3, 2], "in_data": True, "active": float(read["mask"].mean()),
    }  # fmt: skip


def test_verify_under_masks_finds_no_difference(snncc, masked, data):
    done = snncc("verify", masked[1], "--input", data("masked"), "--json")
    assert (done.code, done.json["mismatched"]) == (0, 0)
    assert done.json["mask"]["in_data"]
    bare = snncc("verify", masked[1], "--input", data("none", None))
    assert "mask       none in the data: all patches are active" in bare.stdout
    assert "mask" not in snncc("verify", masked[1]).stdout  # the samples in the file have theirs


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((20, 3, 2), 0.5), "mask: 0.5 at index [0, 0, 0], 120 such values; 1 is an active"),
        (np.ones((20, 1, 2, 3)), "mask: shape [20, 1, 2, 3], the network takes [20, 1, 3, 2] or"),
        (np.ones((10, 1, 3, 2)), "mask of shape [10, 1, 3, 2] for 20 samples; give one mask for"),
        (np.ones(()), "mask of shape [] for 20 samples; give one mask for each"),
    ],
)
@pytest.mark.parametrize("command", ["run", "verify"])
def test_wrong_masks_exit_6(snncc, masked, data, command, mask, message):
    done = snncc(command, masked[1], "--input", data("wrong", mask))
    assert (done.code, done.stdout) == (6, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_lava_refuses_the_mask_ahead_of_the_bits(snncc, masked, data):
    done = snncc("run", masked[1], "--input", data("masked"), "--engine", "lava")
    assert (done.code, done.stdout) == (4, "")
    assert done.stderr.splitlines()[0] == (
        "error: engine 'lava' cannot take conv (Accumulator): masked patches; compile without "
        "--patch-mask, and with --target loihi2; there are integer, spike-form, clocked, event"
    )


def test_a_network_for_whole_images_reads_no_masks(snncc, weights, data, tmp_path):
    out = tmp_path / "whole.snn"
    assert snncc("compile", weights("sparse"), ARCH, "-o", out).code == 0
    path = data("wrong", np.full((3,), 7.0))
    assert "mask" not in snncc("run", out, "--input", path).stdout.replace(str(path), "")


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("--patch-mask", "3"), 2, "'3' is not H,W, the number of patches"),
        (("--patch-mask", "0,2"), 2, "'0,2' is not H,W"),
        (("--patch-mask", "4,2"), 2, "must divide height and width of all that is masked"),
        (
            ("--patch-mask", "3,2", "--input", "f32", "--input-range=-1,1"),
            2,
            "--patch-mask is for raw pixels",
        ),
    ],
)
def test_wrong_options_are_said_at_once(snncc, weights, tmp_path, args, code, message):
    done = snncc("compile", weights("sparse"), ARCH, *args, "-o", tmp_path / "a.snn")
    assert done.code == code
    assert message in done.stderr


def test_a_file_that_stands_alone_takes_no_patch_mask(snncc, tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"")
    done = snncc("compile", tmp_path / "net.onnx", "--patch-mask", "3,2")
    assert done.code == 2
    assert "stands alone; --patch-mask belong to checkpoints" in done.stderr


def test_inspect_and_check_know_the_mask(snncc, masked, weights):
    assert "3x2 patches, a second input" in snncc("inspect", masked[1]).stdout
    data = snncc("inspect", masked[1], "--format", "json").json
    assert data["input"]["patches"] == [3, 2]
    done = snncc("check", weights("sparse"), ARCH, "--patch-mask", "3,2")
    assert (done.code, done.stderr) == (0, "")
