"""``snncc eval``: whole data sets, kept shard by shard."""

import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing

import numpy as np
import pytest
from command_line import EXAMPLE

DATA = f"{EXAMPLE}/test_1000.npz"
#: What may differ between two runs of one evaluation.
_OF_A_RUN = ("store", "found_in_store", "ran", "seconds", "samples_per_second", "worker_seconds")


def _same(found):
    return {k: v for k, v in found.items() if k not in _OF_A_RUN}


def test_eval_screen(snncc, cnn, tmp_path, golden):
    args = ("eval", cnn, "--data", DATA, "--limit", 60, "--shard", 16, "--store", tmp_path / "s")
    done = snncc(*args)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == golden
    again = snncc(*args)
    assert "resumed    60 of them were done    0 run now" in again.stdout


def test_eval_agrees_with_run(snncc, cnn, tmp_path):
    given = ("--input", DATA, "--limit", 50, "--json")
    ran = snncc("run", cnn, *given, "--engine", "integer").json
    found = snncc("eval", cnn, *given, "--store", tmp_path / "s", "--shard", 13).json
    labels = np.load(DATA)["y"][:50]
    assert found["predictions"] == ran["predictions"]
    assert found["top_1"]["share"] == ran["accuracy"]
    assert found["top_1"]["interval"] == ran["interval"]
    for key in ("spikes_per_sample", "sops_per_sample"):
        assert found[key] == pytest.approx(ran[key])
    pairs = Counter(zip(labels.tolist(), ran["predictions"], strict=True))
    assert found["confusion"] == [[*pair, count] for pair, count in sorted(pairs.items())]
    assert found["integer"] == {"classes_differ": 0, "results_differ": 0}


def test_the_store_is_beside_the_network(snncc, cnn, tmp_path):
    file = tmp_path / "net.snn"
    file.write_bytes(cnn.read_bytes())
    np.savez(tmp_path / "some.data.npz", x=np.load(DATA)["x"][:2], y=np.load(DATA)["y"][:2])
    for engine in ("event", "clocked"):
        done = snncc("eval", file, "--data", tmp_path / "some.data.npz", "--engine", engine)
        assert done.code == 0
        assert (tmp_path / f"net.some.data.{engine}.eval").exists()


def test_data_without_labels(snncc, cnn, tmp_path):
    np.save(tmp_path / "x.npy", np.load(DATA)["x"][:3])
    args = ("eval", cnn, "--data", tmp_path / "x.npy", "--store", tmp_path / "s")
    done = snncc(*args)
    told = "has no labels; give them with --labels DATA, or go without: --unlabelled"
    assert (done.code, done.stderr) == (6, f"error: TMP/x.npy: {told}\n")
    assert not (tmp_path / "s").exists()
    done = snncc(*args, "--unlabelled", "--no-compare")
    assert done.code == 0
    assert "top-1      not measured" in done.stdout
    assert "integer " not in done.stdout
    np.save(tmp_path / "y.npy", np.array([0, 10, 1]))
    done = snncc(*args, "--labels", tmp_path / "y.npy", "-f")
    assert done.stderr == "error: TMP/y.npy: label 10, but the network has 10 classes\n"


def test_classes_of_the_trained_network(snncc, cnn, tmp_path):
    args = ("eval", cnn, "--data", DATA, "--store", tmp_path / "s", "--limit", 20)
    classes = snncc(*args, "--json").json["predictions"]
    np.save(tmp_path / "trained.npy", np.array([*classes[:18], 11, 11, *[0] * 980]))
    given = ("--trained", tmp_path / "trained.npy")
    found = snncc(*args, *given, "--json").json
    assert (found["trained"]["right"], found["ran"]) == (18, 0)
    assert "trained    same class for 18 of 20, 90.0 %" in snncc(*args, *given).stdout
    np.save(tmp_path / "trained.npy", np.array(classes))
    done = snncc(*args, *given)
    told = "TMP/trained.npy: 20 labels for 1000 samples; give one for each"
    assert (done.code, done.stderr) == (6, f"error: {told}\n")


def test_wrong_samples_are_refused_before_any_run(snncc, cnn, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 1, 28, 28)), y=np.zeros(3, int))
    done = snncc("eval", cnn, "--data", tmp_path / "x.npz", "--store", tmp_path / "s")
    assert done.code == 6
    assert "dtype float64, the network takes uint8" in done.stderr
    done = snncc("eval", cnn, "--data", DATA, "--engine", "evnt", "--store", tmp_path / "s")
    assert (done.code, "unknown engine 'evnt'" in done.stderr) == (2, True)
    done = snncc("eval", cnn, "--data", DATA, "--store", tmp_path / "none" / "s")
    assert (done.code, "make it first" in done.stderr) == (6, True)
    assert not (tmp_path / "s").exists()


def test_another_evaluation_is_refused_by_name(snncc, cnn, tmp_path):
    args = ("eval", cnn, "--data", DATA, "--store", tmp_path / "s", "--no-compare")
    assert snncc(*args, "--limit", 5).code == 0
    done = snncc(*args, "--limit", 6)
    assert done.code == 6
    assert "s: is of another evaluation: limit 5 there, 6 here; number of samples" in done.stderr
    assert done.stderr.endswith("Choose another --store or begin anew with -f\n")
    assert snncc(*args, "--limit", 6, "-f").code == 0


# -- killed --------------------------------------------------------------------------------


def _started(*args):
    command = [sys.executable, "-m", "snncc", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _wait_for_shards(store, count, process):
    for _ in range(1200):
        time.sleep(0.05)
        if store.exists() and _shards(store) >= count:
            return
        assert process.poll() is None, process.stderr.read()
    raise AssertionError("nothing is done")


def _shards(store):
    """How many are done; what a killed run was writing is undone on the way."""
    with closing(sqlite3.connect(store)) as file:
        try:
            return file.execute("SELECT count(*) FROM shards").fetchone()[0]
        except sqlite3.OperationalError:  # being written
            return 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_is_ended_goes_on(number, workers, snncc, cnn, tmp_path):
    store = tmp_path / "s"
    given = ("eval", cnn, "--data", DATA, "--shard", 10, "--store", store, "--workers", workers)
    killed = _started(*given)
    _wait_for_shards(store, 3, killed)
    second = _started(*given)
    told = second.communicate()[1]
    assert (second.returncode, f"process {killed.pid} is evaluating into it" in told) == (6, True)
    killed.send_signal(number)
    assert killed.wait(20) == (-9 if number == signal.SIGKILL else 130)
    before = _shards(store)
    assert 3 <= before < 100
    found = snncc(*given, "--json").json
    assert found["found_in_store"] == 10 * before
    assert found["ran"] == 1000 - 10 * before
    whole = snncc("eval", cnn, "--data", DATA, "--store", tmp_path / "other", "--json").json
    for f in (found, whole):
        f.pop("readouts_sha256")  # which is over shards of another size
    assert _same(found) == _same(whole)


#: A command, and the most memory that it had, in kB, as its last line on stderr.
_PEAK = """
import sys
from snncc.__main__ import main
try:
    main()
except SystemExit as e:
    assert not e.code, e.code
status = open("/proc/self/status").read()
print(status.split("VmHWM:")[1].split()[0], file=sys.stderr)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(cnn, tmp_path):
    data = np.load(DATA)
    peaks = {}
    for times in (1, 50):
        file, store = tmp_path / f"{times}.npz", tmp_path / f"{times}.eval"
        np.savez(file, x=np.tile(data["x"], (times, 1, 1, 1)), y=np.tile(data["y"], times))
        args = ["eval", str(cnn), "--data", str(file), "--store", str(store), "--no-compare"]
        command = [sys.executable, "-c", _PEAK, *args]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[times] = int(done.stderr.split()[-1]) / 1000
    assert peaks[50] < peaks[1] + 15, peaks  # of 50,000 pictures, 39 MB
