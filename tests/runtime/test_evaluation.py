"""Shards of a data set, whoever runs them, and the store that keeps them."""

import os
import re
import signal
import sqlite3
from contextlib import closing
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import small_model
from data_files import npz

import snncc
from snncc.errors import BadInputError, SnnccError
from snncc.runtime.container import sha256
from snncc.runtime.evaluation.evaluate import added_up, run_job
from snncc.runtime.evaluation.shards import Job, Runner, Task
from snncc.runtime.evaluation.store import open_store
from snncc.runtime.evaluation.workers import Here, Processes, _serve
from snncc.runtime.profile.models import models_named
from snncc.runtime.result import rates
from snncc.runtime.session import Session

N = 23
X = np.random.default_rng(3).integers(0, 256, (N, 1, 6, 6), dtype=np.uint8)
Y = np.arange(N) % 5


@pytest.fixture
def data(tmp_path):
    return npz(tmp_path / "x.npz", x=X, y=Y)


@pytest.fixture
def job(saved, data):
    return Job(
        artefact=sha256(saved.read_bytes()),
        data=str(data),
        labels=None,
        unlabelled=False,
        limit=None,
        samples=N,
        stored_shape=(1, 6, 6),
        dtype="uint8",
        size=4,
        engine="event",
        batch=3,
        compare=True,
        energy=(),
        version=snncc.__version__,
    )


def _all(workers, job):
    return {d.shard.number: d.shard for d in workers.run(Task(n) for n in range(job.shards))}


def _scores(model):
    (output,) = model.outputs
    return Session(model, "event").run_integers(X)[output.name][0]


def test_shards_add_up_to_what_the_session_gives(job, model):
    found = added_up(_all(Here(job, model), job))
    session = Session(model, "event")
    scores = _scores(model)
    classes = scores.argmax(axis=1)
    told = rates(session.trace(X), model.program)
    confusion = np.zeros((5, 5), int)
    for label, it in zip(Y, classes, strict=True):
        confusion[label, it] += 1
    assert found.classes.tolist() == classes.tolist()
    assert found.confusion.tolist() == confusion.tolist()
    assert (found.samples, found.right) == (N, (classes == Y).sum())
    assert found.top == N  # of five classes
    assert (found.spikes, found.sops) == (told.spikes, told.sops)
    each = {p.name: (p.spikes, p.sops) for p in told.populations}
    assert {name: (p.spikes, p.sops) for name, p in found.populations.items()} == each
    assert (found.other_class, found.other_readouts) == (0, 0)


@pytest.mark.parametrize("form", ["sequences", "real"])
def test_other_samples_than_pixels(form, job, data):
    model = small_model.compiled(
        timesteps=3 if form == "sequences" else 1,
        sequence=form == "sequences",
        real_input=form == "real",
    )
    x = np.stack([X, X[::-1], X // 2], axis=1) if form == "sequences" else X.astype(np.float32)
    npz(data, x=x, y=Y)
    job = replace(job, stored_shape=x.shape[1:], dtype=x.dtype.name, energy=_models())
    shards = _all(Here(job, model), job)
    assert _all(Here(replace(job, batch=2), model), job) == shards
    found, session = added_up(shards), Session(model, "clocked")
    (output,) = model.outputs
    scores = session.run_integers(x)[output.name].sum(axis=0)
    assert found.classes.tolist() == scores.argmax(axis=1).tolist()
    assert (found.other_class, found.other_readouts) == (0, 0)
    profile = session.profile(x, ("45nm-int8",))
    assert (found.spikes, found.sops) == (profile.spikes * N, profile.total("sops") * N)
    energy = profile.energy["45nm-int8"].snn * N
    assert found.energy_pj["45nm-int8"] == pytest.approx(energy, rel=1e-12)


def _models():
    return models_named(("45nm-int8",))


def test_results_depend_on_no_batch_and_no_engine(job, model):
    shards = _all(Here(job, model), job)
    for other in (replace(job, batch=1), replace(job, batch=64), replace(job, engine="clocked")):
        assert _all(Here(other, model), other) == shards
    whole = replace(job, size=64)
    assert added_up(_all(Here(whole, model), whole)).spikes == added_up(shards).spikes


def test_the_highest_scores_count_ties_as_argmax_does(job, model, monkeypatch):
    monkeypatch.setattr("snncc.runtime.evaluation.shards.TOP", 2)
    found = added_up(_all(Here(job, model), job))
    scores = _scores(model)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :2]
    assert found.top == (order == Y[:, None]).any(axis=1).sum()


def test_energy_is_that_of_a_profile(job, model):
    names = ("45nm-int8+memory", "45nm-fp32", "spikingformer")
    job = replace(job, energy=models_named(names))
    found = added_up(_all(Here(job, model), job))
    profile = Session(model, "event").profile(X, names)
    expected = {name: energy.snn for name, energy in profile.energy.items()}
    each = {name: pj / N for name, pj in found.energy_pj.items()}
    assert each == pytest.approx(expected, rel=1e-12)
    assert min(each.values()) > 0


def test_what_differs_from_integer_is_counted(job, model):
    other = small_model.compiled(seed=5)
    runner = Runner(job, model)
    runner._judge = Runner(job, other)._judge
    shards = {n: runner.run(Task(n)) for n in range(job.shards)}
    ours, theirs = _scores(model), _scores(other)
    found = added_up(shards)
    assert found.other_readouts == (ours != theirs).any(axis=1).sum() > 0
    assert found.other_class == (ours.argmax(1) != theirs.argmax(1)).sum() > 0


def test_without_labels_nothing_is_said_of_them(job, model, data):
    npz(data, x=X)
    shards = _all(Here(job, model), job)
    found = added_up(shards)
    assert (found.labelled, found.right, found.top, found.confusion) == (False, None, None, None)
    npz(data, x=X, y=Y)
    bare = replace(job, unlabelled=True)
    assert _all(Here(bare, model), bare) == shards


# -- processes -----------------------------------------------------------------------------


def test_a_worker_that_dies_costs_its_shard_alone(job, model, saved):
    job = replace(job, compare=False)
    with closing(Processes(job, saved, 2)) as workers:
        results = workers.run(Task(n) for n in range(job.shards))
        done = [next(results)]
        victim = workers.numbers[0]
        assert all(_blocks(number, signal.SIGINT) for number in workers.numbers)
        os.kill(victim, signal.SIGKILL)
        done += results
        assert victim not in workers.numbers
    found = {d.shard.number: d.shard for d in done}
    assert len(done) == job.shards
    assert found == _all(Here(job, model), job)


def _blocks(process, number):
    """Whether a signal for all processes of a terminal does not reach that one."""
    status = Path(f"/proc/{process}/status").read_text()
    return bool(int(re.search(r"SigBlk:\s+(\w+)", status)[1], 16) >> (number - 1) & 1)


class _Mortal(Processes):
    """Workers that die of every shard."""

    started = 0

    def _start(self):
        self.started += 1
        worker = super()._start()
        worker.process.kill()
        return worker


def test_a_shard_that_kills_workers_is_given_up(job, saved):
    with closing(_Mortal(job, saved, 1)) as workers:
        with pytest.raises(SnnccError, match=r"samples 0 to 3 \(shard 0\): 3 workers died.*KILL"):
            _all(workers, job)
        assert workers.started == 3


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": "0.0.1"}, r"this worker has snncc .* was begun by 0\.0\.1"),
        ({"artefact": "0" * 64}, r"small\.snn: is not the file that it was"),
        ({"samples": N + 1}, "has 23 samples .* where the evaluation was begun 24"),
        ({"engine": "lava", "batch": 0}, "batch 0 is not positive"),
    ],
)
def test_workers_say_what_is_wrong(change, told, job, saved):
    here, there = Pipe()
    worker = Thread(target=_serve, args=(there, replace(job, **change), saved))
    worker.start()
    here.send(Task(0))
    answer = here.recv()
    here.close()  # nobody wants more
    worker.join()
    assert isinstance(answer, SnnccError)
    assert re.search(told, str(answer))


# -- the store -----------------------------------------------------------------------------


class _Counting(Here):
    """Notes what it runs."""

    def run(self, tasks):
        self.ran = []
        for task in tasks:
            self.ran.append((task.number, task.only_hash))
            yield from super().run([task])


class _StopError(Exception):
    pass


def _stop_after(count):
    left = iter(range(count - 1))

    def progress(_samples):
        if next(left, None) is None:
            raise _StopError

    return progress


def test_a_run_goes_on_where_it_was(job, model, tmp_path):
    path, workers = tmp_path / "store", _Counting(job, model)
    with pytest.raises(_StopError), open_store(path, job, "small.snn") as store:
        run_job(job, store, workers, _stop_after(2))
    with open_store(path, job, "small.snn") as store:
        assert sorted(store.done) == [0, 1]
        found = run_job(job, store, workers)
        assert workers.ran == [(2, False), (3, False), (4, False), (5, False)]
    expected = added_up(_all(Here(job, model), job))
    assert found.readouts == expected.readouts
    assert found.confusion.tolist() == expected.confusion.tolist()
    assert (found.spikes, found.sops, found.samples) == (expected.spikes, expected.sops, N)
    with open_store(path, job, "small.snn") as store:
        assert run_job(job, store, workers).readouts == expected.readouts
        assert workers.ran == []


def test_other_data_are_refused(job, model, data, tmp_path):
    path = tmp_path / "store"
    with pytest.raises(_StopError), open_store(path, job, "small.snn") as store:
        run_job(job, store, Here(job, model), _stop_after(2))
    for changed in ({"x": np.roll(X, 1), "y": Y}, {"x": X, "y": np.roll(Y, 1)}):
        npz(data, **changed)
        with (
            open_store(path, job, "small.snn") as store,
            pytest.raises(
                BadInputError, match=r"of other data: samples 0 to 3 of .*, or their lab"
            ),
        ):
            run_job(job, store, Here(job, model))


def test_other_evaluations_are_refused_by_what_is_different(job, tmp_path):
    path = tmp_path / "store"
    with open_store(path, job, "small.snn"):
        pass
    for change, told in (
        ({"artefact": "f" * 64}, r"network small.snn \(\w{12}\) there, other.snn \(f{12}\) here"),
        ({"version": "9"}, f"version of snncc {snncc.__version__} there, 9 here"),
        ({"engine": "clocked"}, "engine event there, clocked here"),
        ({"limit": 9, "samples": 9}, "limit None there, 9 here; number of samples 23 there, 9"),
        ({"size": 9}, "size of shards 4 there, 9 here"),
        ({"compare": False}, "comparison with integer True there, False here"),
        (
            {"energy": models_named(("45nm-int8",))},
            r"models of energy none there, 45nm-int8 \(\w{6}\) here",
        ),
    ):
        with (
            pytest.raises(BadInputError, match=f"store: is of another evaluation: {told}"),
            open_store(path, replace(job, **change), "other.snn"),
        ):
            pass
    with open_store(path, replace(job, batch=1, data="/moved"), "renamed.snn") as store:
        assert store.done == {}
    with open_store(path, replace(job, engine="clocked"), "small.snn", anew=True):
        pass


def test_two_runs_on_a_store_refuse_each_other(job, tmp_path):
    path = tmp_path / "store"
    (tmp_path / "link").symlink_to(path)
    with open_store(path, job, "small.snn"):
        for name in ("store", "link"):
            with (
                pytest.raises(BadInputError, match=f"process {os.getpid()} is evaluating into it"),
                open_store(tmp_path / name, job, "small.snn"),
            ):
                pass
    with open_store(path, job, "small.snn"):  # which is free again
        pass
    assert not list(tmp_path.glob(".*lock"))


def test_a_lock_that_a_dead_process_has_left_holds_nobody_up(job, tmp_path):
    (tmp_path / ".store.lock").write_bytes(b"snncc     999999\n")
    with open_store(tmp_path / "store", job, "small.snn"):
        pass


def test_what_is_no_store_is_left_alone(job, tmp_path):
    path = tmp_path / "store"
    path.write_text("a letter\n" * 200)
    theirs = tmp_path / "theirs"
    with closing(sqlite3.connect(theirs)) as other, other:
        other.execute("CREATE TABLE about (name)")
    os.mkfifo(tmp_path / "pipe")
    for name, told in (("store", "not a store"), ("theirs", "not a store"), ("pipe", "is a pipe")):
        before = (tmp_path / name).stat()
        for anew in (False, True):
            with (
                pytest.raises(BadInputError, match=told),
                open_store(tmp_path / name, job, "small.snn", anew=anew),
            ):
                pass
        assert (tmp_path / name).stat().st_mtime == before.st_mtime


@pytest.mark.parametrize(
    "more",
    [
        "CREATE TRIGGER t AFTER INSERT ON shards BEGIN DELETE FROM about; END",
        "CREATE VIEW v AS SELECT * FROM shards",
        "ALTER TABLE shards ADD COLUMN more",
        "PRAGMA application_id = 7",
    ],
)
def test_a_store_with_more_in_it_is_none_of_ours(more, job, tmp_path):
    path = tmp_path / "store"
    with open_store(path, job, "small.snn"):
        pass
    with closing(sqlite3.connect(path)) as other, other:
        other.execute(more)
    with (
        pytest.raises(BadInputError, match="is there and not a store"),
        open_store(path, job, "small.snn"),
    ):
        pass


def test_a_store_that_was_killed_before_it_had_tables_is_begun(job, tmp_path):
    (tmp_path / "store").write_bytes(b"")
    with open_store(tmp_path / "store", job, "small.snn") as store:
        assert store.done == {}


@pytest.mark.parametrize(
    "result", ["{", '{"number": 7, "samples": 4, "data": "", "populations": {}}', '{"number": 0}']
)
def test_rows_that_were_changed_are_damage(result, job, tmp_path):
    path = tmp_path / "store"
    with open_store(path, job, "small.snn"):
        pass
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("INSERT INTO shards VALUES (0, ?, 1.0)", (result,))
    with pytest.raises(BadInputError), open_store(path, job, "small.snn"):
        pass
