"""The same shards on Dask distributed: the pieces here, a real cluster in the slow tests."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_files import npz

import snncc
from snncc.errors import BadInputError, MissingDependencyError, SnnccError, UsageError
from snncc.runtime.container import sha256
from snncc.runtime.evaluation import cluster
from snncc.runtime.evaluation.cluster import Cluster, address_of, connected
from snncc.runtime.evaluation.shards import Job, Task
from snncc.runtime.evaluation.workers import Here

distributed = pytest.importorskip("distributed")

N = 23
X = np.random.default_rng(3).integers(0, 256, (N, 1, 6, 6), dtype=np.uint8)


@pytest.fixture
def job(saved, tmp_path):
    return Job(
        artefact=sha256(saved.read_bytes()),
        data=str(npz(tmp_path / "x.npz", x=X, y=np.arange(N) % 5)),
        labels=None,
        unlabelled=False,
        limit=None,
        samples=N,
        stored_shape=(1, 6, 6),
        dtype="uint8",
        size=4,
        engine="event",
        batch=4,
        compare=False,
        energy=(),
        version=snncc.__version__,
    )


@pytest.fixture(scope="module")
def client():
    """A scheduler and a worker of two threads in this process."""
    options = {"processes": False, "n_workers": 1, "threads_per_worker": 2}
    with distributed.Client(**options, dashboard_address=None) as made:
        yield made


def _all(workers, job):
    return {d.shard.number: d.shard for d in workers.run(Task(n) for n in range(job.shards))}


@pytest.mark.parametrize("text", ["tls://far.away:8786", "tcp://127.0.0.1:8786", "tcp://[::1]:1"])
def test_addresses_that_nobody_else_reads_along(text):
    assert (str(address_of(text)), address_of(text).workers) == (text, 0)
    assert address_of("local:3").workers == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tcp://far.away:8786", "take tls://far.away:8786, or tcp:// of this machine"),
        ("tcp://10.0.0.7:8786", "runs code on its workers and here"),
        ("tcp://0.0.0.0:8786", "take tls://"),
        ("tcp://localhost.far.away:1", "take tls://"),
        ("ucx://127.0.0.1:1", "expected tls://HOST:PORT"),
        ("127.0.0.1:8786", "expected tls://HOST:PORT"),
        ("tcp://127.0.0.1", "expected tls://HOST:PORT"),
        ("tcp://[::1", "expected tls://HOST:PORT"),
        ("local:0", "local:N starts N workers"),
        ("local", "local:N starts N workers"),
    ],
)
def test_other_addresses_are_refused(text, told):
    with pytest.raises(UsageError, match=re.escape(told)):
        address_of(text)


def test_a_cluster_gives_what_one_process_gives(client, job, model, saved):
    here = _all(Here(job, model), job)
    workers = Cluster(client, job, "here")
    workers.send(saved.read_bytes())
    assert [name.startswith("snncc-") for name in cluster._models] == [True]
    assert _all(workers, job) == here
    parts = (Here(job, model)._runner._read(n) for n in range(job.shards))
    sent = replace(job, data="/nowhere.npz")
    tasks = [Task(n, part=part) for n, part in enumerate(parts)]
    workers._job = sent
    assert {d.shard.number: d.shard for d in workers.run(tasks)} == here
    workers.close()
    assert (cluster._models, cluster._runners) == ({}, {})


def test_no_more_is_handed_out_than_is_soon_run(client, job, model, saved):
    workers, taken = Cluster(client, job, "here"), []
    workers.send(saved.read_bytes())
    tasks = (taken.append(n) or Task(n) for n in range(job.shards))
    next(workers.run(tasks))
    assert len(taken) < job.shards
    workers.close()


def test_what_a_worker_refuses_is_told(client, job, saved):
    workers = Cluster(client, replace(job, samples=99), "here")
    workers.send(saved.read_bytes())
    with pytest.raises(BadInputError, match=r"has 23 samples .* was begun 99"):
        list(workers.run([Task(0)]))
    workers.close()
    with pytest.raises(BadInputError, match="has not got the network"):
        list(Cluster(client, job, "here").run([Task(0)]))


def test_a_network_that_is_not_whole_is_refused(client, job, saved):
    with pytest.raises(BadInputError, match="it has been replaced"):
        Cluster(client, job, "here").send(saved.read_bytes()[:-1])


def test_other_versions_are_refused_by_worker(client, job, monkeypatch):
    cluster._require_versions(client, job)
    with pytest.raises(BadInputError, match=r"another snncc than 9\.9: inproc://\S+ 0\.1\.0; inst"):
        cluster._require_versions(client, replace(job, version="9.9"))
    monkeypatch.setattr(cluster.metadata, "version", _not_there)
    with pytest.raises(BadInputError, match=r"inproc://\S+ none; install"):
        cluster._require_versions(client, job)


def _not_there(name):
    raise cluster.metadata.PackageNotFoundError(name)


def test_data_that_workers_lack_are_named(client, job):
    cluster._require_data(client, job)
    with pytest.raises(BadInputError, match=r"/no/x\.npz: is not there on inproc.*give send_data"):
        cluster._require_data(client, replace(job, data="/no/x.npz"))


def test_a_shard_that_kills_workers_is_given_up(client, job, monkeypatch):
    class Worker:
        address = "tcp://127.0.0.1:9"

    def dies(*_):
        raise distributed.KilledWorker("task", Worker(), 3)

    monkeypatch.setattr(cluster, "_run", dies)
    with pytest.raises(
        SnnccError, match=r"samples 4 to 7 \(shard 1\): 3 workers died .* last at tcp://127"
    ):
        list(Cluster(client, job, "here").run([Task(1)]))


def test_a_scheduler_that_does_not_answer(job, saved, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    address = address_of("tcp://127.0.0.1:1")
    told = "scheduler tcp://127.0.0.1:1: does not answer within 0 s; start it there"
    with pytest.raises(BadInputError, match=told), connected(address, job, saved):
        pass


def test_certificates_have_to_be_named(job, saved):
    with (
        pytest.raises(BadInputError, match="no certificates; name ca-file"),
        connected(address_of("tls://127.0.0.1:1"), job, saved),
    ):
        pass


def test_without_the_package_its_name_is_told(job, saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(MissingDependencyError, match=r"pip install 'snncc\[cluster\]'"),
        connected(address_of("local:2"), job, saved),
    ):
        pass


# -- a real one ----------------------------------------------------------------------------


@contextmanager
def _process(*args, until=None):
    """A process of Dask's command line; and what it said of itself."""
    command = [str(Path(sys.executable).with_name("dask")), *args]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as made:
        try:
            found = None
            while until is not None and found is None:
                line = made.stderr.readline()
                assert line, "it has ended"
                found = re.search(until, line)
            yield made, found
        finally:
            made.kill()


@pytest.mark.slow
def test_a_real_cluster_that_loses_a_worker(job, model, saved, tmp_path):
    x = np.tile(X, (200, 1, 1, 1))
    data = npz(tmp_path / "many.npz", x=x, y=np.arange(len(x)) % 5)
    job = replace(job, data=str(data), samples=len(x), compare=True)
    with ExitStack() as stack:
        args = ("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        _, found = stack.enter_context(_process(*args, until=r"Scheduler at:\s+(tcp://\S+)"))
        address = found[1]
        workers = [
            stack.enter_context(_process("worker", address, "--nthreads", "1", "--no-nanny"))[0]
            for _ in range(2)
        ]
        while True:
            with distributed.Client(address) as asked:
                if len(asked.nthreads()) == 2:
                    break
            time.sleep(0.2)
        with connected(address_of(address), job, saved) as ready:
            results = ready.run(Task(n) for n in range(job.shards))
            done = [next(results) for _ in range(job.shards // 4)]
            os.kill(workers[0].pid, signal.SIGKILL)
            done += results
            assert len(ready._client.nthreads()) == 1
    assert len(done) == job.shards
    assert {d.shard.number: d.shard for d in done} == _all(Here(job, model), job)


@pytest.mark.slow
def test_a_cluster_that_is_started_here_is_private(job, model, saved):
    with connected(address_of("local:2"), job, saved) as ready:
        assert _all(ready, job) == _all(Here(job, model), job)
        address = ready._client.scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        stranger = distributed.Security.temporary()
        with pytest.raises(OSError, match="TLS certificate does not match"):
            distributed.Client(address, security=stranger, timeout=2)
