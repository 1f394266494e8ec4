"""Networks that read sequences, from the command line: data, classes, agreement, errors."""

from functools import cache

import cli_models
import numpy as np
import pytest
import torch
from command_line import MODELS, run_cli
from report_schema import require_valid

import snncc as package

ARCH = f"--arch={MODELS}:film"
T = 3


def films(seed=0, samples=9):
    return np.random.default_rng(seed).integers(0, 256, (samples, T, 1, 6, 6)).astype(np.uint8)


@pytest.fixture
def data(tmp_path):
    """Writes an npz of samples: ``data(x)``."""

    def write(x, **more):
        np.savez(tmp_path / "x.npz", x=x, **more)
        return tmp_path / "x.npz"

    return write


@pytest.fixture(scope="session")
def film(tmp_path_factory, weights):
    """The screen of a compilation and the file, by further options; each is made once."""
    folder = tmp_path_factory.mktemp("films")
    np.savez(folder / "calibration.npz", x=films(1, 16))

    @cache
    def compiled(*more):
        out = folder / f"film{len(more)}.snn"
        given = ("--timesteps", T, "--calibration", folder / "calibration.npz", "-o", out)
        return run_cli(folder, "compile", weights("film"), ARCH, *given, *more), out

    return compiled


def test_a_sequence_is_compiled_verified_and_run(snncc, film, data, golden):
    screen, out = film()
    assert (screen.code, screen.stderr) == (0, "")
    assert screen.stdout == golden
    require_valid(out)
    x = films()
    verified = snncc("verify", out, "--engines", "all", "--input", data(x), "--json")
    assert (verified.code, verified.json["mismatched"]) == (0, 0)
    assert verified.json["samples"] == len(x)
    assert verified.json["coverage"]["fired"] == 2
    (scores,) = package.Session(out).run(None, x)
    ran = snncc("run", out, "--input", data(x, y=scores.argmax(1)), "--json")
    assert ran.json["predictions"] == scores.argmax(1).tolist()
    assert ran.json["accuracy"] == 1.0
    assert len(set(ran.json["predictions"])) > 1


def test_verify_of_the_stored_samples_may_be_limited(snncc, film):
    _, out = film()
    assert package.load(out).reference.x.shape == (8, T, 1, 6, 6)
    done = snncc("verify", out, "--limit", 3, "--json")
    assert (done.code, done.json["samples"], done.json["mismatched"]) == (0, 3, 0)


def test_the_compiled_network_sees_timesteps_in_their_order(film, weights):
    _, out = film()
    net = cli_models.film().eval()
    net.load_state_dict(torch.load(weights("film")))
    x = films()
    with torch.no_grad():
        frames = (torch.tensor(x).float() / 255 - 0.5) / 0.25
        shown = (frames, frames.flip(1))
        forth, back = (net(f.transpose(0, 1)).numpy() for f in shown)
    assert (forth != back).any()
    session = package.Session(out)
    np.testing.assert_allclose(session.run(None, x)[0], forth, atol=1e-6)
    np.testing.assert_allclose(session.run(None, x[:, ::-1].copy())[0], back, atol=1e-6)


def test_networks_with_samples_first_take_the_same_data(film, snncc, data):
    _, out = film()
    expected = package.Session(out).run(None, films())[0]
    more = ("--batch-first", "--arch-args", '{"batch_first": true}')
    screen, out = film(*more)
    assert screen.code == 0
    np.testing.assert_array_equal(package.Session(out).run(None, films())[0], expected)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x.swapaxes(0, 1), "timesteps are first: transpose with x.swapaxes(0, 1)"),
        (lambda x: x[:, 0], "these are static samples, it takes sequences of 3 timesteps"),
        (lambda x: x[:, :2], "these are sequences of 2 timesteps, it takes 3"),
        (lambda x: x[0], "this is a single sample: add a batch axis, x[None]"),
        (lambda x: x[..., :5], "nothing is resized or reshaped silently"),
    ],
)
def test_data_of_another_shape_is_refused_and_told_why(change, said, film, snncc, data):
    _, out = film()
    for command in ("run", "verify"):
        done = snncc(command, out, "--input", data(change(films())))
        assert (done.code, done.stdout) == (6, "")
        assert "the network takes [N, 3, 1, 6, 6]" in done.stderr
        assert said in done.stderr


def test_grey_frames_may_lack_their_channel(film, snncc, data):
    _, out = film()
    args = ("run", out, "--json", "--input")
    with_it, without = (snncc(*args, data(x)).json for x in (films(), films()[:, :, 0]))
    assert with_it["predictions"] == without["predictions"]


def test_sequences_for_a_network_of_single_images_are_refused(snncc, weights, data, tmp_path):
    out = tmp_path / "tiny.snn"
    assert snncc("compile", weights("tiny"), f"--arch={MODELS}:tiny", "-o", out).code == 0
    done = snncc("run", out, "--input", data(films()))
    assert done.code == 6
    assert (
        "these are sequences, it takes one static sample: compile it with --timesteps"
        in done.stderr
    )


@pytest.mark.parametrize("command", ["compile", "check"])
def test_options_of_sequences_have_their_place(command, snncc, weights, tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"")
    done = snncc(command, tmp_path / "net.onnx", "--timesteps", 2, "--batch-first")
    assert done.code == 2
    assert "stands alone; --timesteps, --batch-first belong to checkpoints" in done.stderr
    done = snncc(command, weights("tiny"), f"--arch={MODELS}:tiny", "--batch-first")
    assert done.code == 2
    assert "--batch-first belongs to sequences: give --timesteps, too" in done.stderr


def test_check_says_how_long_sequences_are(snncc, weights):
    done = snncc("check", weights("film"), ARCH, "--timesteps", T)
    assert (done.code, done.stderr) == (0, "")
    assert "3 timesteps of 1x6x6" in done.stdout
