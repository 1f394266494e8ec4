"""``snncc run``: classes, accuracy, rates and probes."""

import numpy as np
import pytest
import small_model
from command_line import EXAMPLE

import snncc as package

DATA = f"{EXAMPLE}/test_1000.npz"


def test_run_screen(snncc, cnn, golden):
    done = snncc("run", cnn, "--input", DATA, "--limit", 60, "--batch", 25)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == golden


def test_run_agrees_with_the_session(snncc, cnn):
    done = snncc("run", cnn, "--input", DATA, "--limit", 20, "--engine", "integer", "--json")
    data = np.load(DATA)
    scores = package.Session(cnn, engine="integer").run(None, data["x"][:20])[0]
    assert done.json["predictions"] == scores.argmax(1).tolist()
    assert done.json["accuracy"] == (scores.argmax(1) == data["y"][:20]).mean()


def test_labels_of_their_own_file_overrule(snncc, cnn, tmp_path):
    np.save(tmp_path / "x.npy", np.load(DATA)["x"][:4])
    np.save(tmp_path / "y.npy", np.load(DATA)["y"][:4])
    bare = snncc("run", cnn, "--input", tmp_path / "x.npy")
    assert "accuracy   not measured: no labels" in bare.stdout
    labelled = snncc("run", cnn, "--input", tmp_path / "x.npy", "--labels", tmp_path / "y.npy")
    assert "accuracy   100 % (95 % interval: 51.0 to 100.0 %)" in labelled.stdout


def test_a_channel_axis_that_was_added_is_told(snncc, cnn, tmp_path):
    file, note = tmp_path / "grey.npz", "[N, 28, 28] taken as [N, 1, 28, 28], grey"
    np.savez(file, x=np.load(DATA)["x"][:4, 0])
    grey, whole = ("--input", file, "--limit", 4), ("--input", DATA, "--limit", 4)
    for command in (("run",), ("verify", "--engines", "event"), ("inspect", "bounds")):
        name, *options = command
        told = snncc(name, cnn, *options, *grey)
        assert (told.code, f"data       {note}" in told.stdout.splitlines()) == (0, True)
        assert "data  " not in snncc(name, cnn, *options, *whole).stdout
    assert snncc("run", cnn, *grey, "--json").json["notes"] == [note]
    assert snncc("verify", cnn, "--engines", "event", *grey, "--json").json["notes"] == [note]
    found, plain = (snncc("run", cnn, *data, "--json").json for data in (grey, whole))
    assert found["predictions"] == plain["predictions"]


@pytest.mark.parametrize("engine", ["clocked", "spike-form"])
def test_probes_write_what_the_trace_holds(engine, snncc, cnn, tmp_path):
    out = tmp_path / "out.npz"
    args = ("--limit", 9, "--batch", 1, "--engine", engine, "--probe", "fire5", "--probe", "conv2")
    assert snncc("run", cnn, "--input", DATA, *args, "-o", out).code == 0
    session = package.Session(cnn, engine="clocked")
    x = np.load(DATA)["x"][:9]
    expected = session.trace(x, ["fire5", "conv2"])
    found = np.load(out)
    assert {key.partition(".")[0] for key in found} == {"output", "spikes", "potential"}
    np.testing.assert_array_equal(found["spikes.fire5"], expected.spikes["fire5"])
    ((name, potential),) = expected.potentials.items()
    np.testing.assert_array_equal(found[f"potential.{name}"], potential)
    np.testing.assert_array_equal(found["output.output"], session.run(None, x)[0])


def test_results_are_never_overwritten_by_chance(snncc, cnn, tmp_path):
    out = tmp_path / "out.npz"
    out.write_text("precious")
    done = snncc("run", cnn, "--input", DATA, "--limit", 1, "-o", out)
    assert (done.code, done.stdout, out.read_text()) == (6, "", "precious")
    assert snncc("run", cnn, "--input", DATA, "--limit", 1, "-o", out, "-f").code == 0


def test_an_output_that_is_no_class_score_is_called_so(snncc, weights, tmp_path):
    out, data = tmp_path / "part.snn", tmp_path / "x.npz"
    np.savez(data, x=np.zeros((2, 1, 6, 6), np.uint8), y=np.array([0, 99]))
    arch, given = "--arch=tests/cli_models.py:tiny", ("--calibration", data, "-o", out)
    done = snncc("compile", weights("tiny"), arch, "--until", "fire", *given)
    assert "are not the trained network's, 2 samples" in done.stdout
    done = snncc("run", out, "--input", data)
    assert "4x4x4    not class scores" in done.stdout
    assert "accuracy" not in done.stdout


@pytest.mark.parametrize(("batch", "ticks"), [(1, 8 * 4 + 5 * 4 - 4), (4, 1 * 4 + 5 * 4)])
def test_a_pipeline_finds_the_same_classes_in_fewer_ticks(batch, ticks, snncc, cnn):
    args = ("--input", DATA, "--limit", 8, "--batch", batch, "--json")
    alone, pipelined = (snncc("run", cnn, *args, *more).json for more in ((), ("--pipelined",)))
    assert pipelined["predictions"] == alone["predictions"]
    assert pipelined["rates"] == alone["rates"]
    assert "clock" not in alone
    clock = pipelined["clock"]
    assert (clock["ticks"], clock["interval"], clock["latency"]) == (ticks, 4, 20)
    assert clock["ticks_per_sample"] == ticks * batch / 8


def test_only_clocked_has_a_pipeline(snncc, cnn):
    done = snncc("run", cnn, "--input", DATA, "--engine", "integer", "--pipelined")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == "error: engine 'integer' has no option 'pipelined'\n"


def test_threads_are_a_number_or_auto(snncc, cnn):
    args = ("run", cnn, "--input", DATA, "--limit", 20, "--engine", "event", "--json")
    found = [snncc(*args, "--threads", n).json["predictions"] for n in (1, 3, "auto")]
    assert found[0] == found[1] == found[2]
    for wrong, said in (("many", "'many' is neither a number nor auto"), (0, "0 is not in")):
        done = snncc(*args, "--threads", wrong)
        assert done.code == 2
        assert said in done.json["error"]["message"]


# --- errors name the file -------------------------------------------------------------------------


def test_errors_of_data_name_the_file_and_count_from_its_first_sample(snncc, tmp_path):
    net = small_model.compiled()
    net.manifest["input"] |= {"dtype": "float32"}
    net.save(tmp_path / "f32.snn")
    x = np.zeros((300, 1, 6, 6), np.float32)
    x[290, 0, 1, 2] = np.nan
    np.savez(tmp_path / "nan.npz", x=x)
    np.savez(tmp_path / "u8.npz", x=np.zeros(x.shape, np.uint8))
    for command in ("run {net} --input {x}", "verify {net} --input {x}",
                    "inspect {net} bounds --input {x}"):  # fmt: skip
        args = [part.format(net=tmp_path / "f32.snn", x=tmp_path / "nan.npz")
                for part in command.split()]  # fmt: skip
        done = snncc(*args)
        assert (done.code, done.stdout) == (6, "")
        assert "nan.npz (npz): nan (as float32) at index [290, 0, 1, 2], 1 such" in done.stderr
        done = snncc(*[arg.replace("nan.npz", "u8.npz") for arg in args])
        assert (done.code, done.stdout) == (6, "")
        assert "u8.npz (npz): dtype uint8, the network takes float32" in done.stderr


def test_a_label_that_is_too_large_is_that_of_its_file(snncc, cnn, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 1, 28, 28), np.uint8))
    np.save(tmp_path / "y.npy", np.array([1, 11]))
    done = snncc("run", cnn, "--input", tmp_path / "x.npz", "--labels", tmp_path / "y.npy")
    assert done.code == 6
    assert "y.npy: label 11, but the network has 10 classes" in done.stderr
