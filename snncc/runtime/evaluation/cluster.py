"""Shards on a cluster of Dask distributed: what runs where is its affair, what comes out is ours.

The network goes to each worker once, as a plugin that workers get whenever they come; samples are
read by the workers, or sent with the shard. A worker that dies costs what it was at. What a shard
gives does not depend on who ran it.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import closing, contextmanager, suppress
from importlib import metadata
from io import BytesIO
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from snncc.errors import BadInputError, MissingDependencyError, Option, UsageError, Words
from snncc.runtime.artifact import CompiledModel, read_model
from snncc.runtime.evaluation.shards import Job, Runner, Task
from snncc.runtime.evaluation.workers import Done, lost, timed, without_interrupts

__all__ = ["Address", "Cluster", "address_of", "connected"]

#: Seconds to wait for a scheduler, and for workers where there are none.
PATIENCE, WORKERS_PATIENCE = 10.0, 60.0
_LOOK = 1.0  # seconds between two looks at the cluster
_AHEAD = 2  # shards that a thread of a worker has been given, at most


class Address:
    """Where a scheduler is: ``local:N``, or the address of one that runs.

    Attributes:
        workers: How many are started here; 0: none, the scheduler has its own.
    """

    def __init__(self, text: str, workers: int = 0) -> None:
        self.text, self.workers = text, workers

    def __str__(self) -> str:
        return self.text


def address_of(text: str) -> Address:
    """The address that a text means.

    Raises:
        UsageError: It is none, or one that others on the network could read and write along.
    """
    kind, _, rest = text.partition(":")
    if kind == "local":
        if not rest.isdecimal() or not 1 <= int(rest) <= 1024:
            raise UsageError(f"scheduler '{text}': local:N starts N workers, 1 to 1024")
        return Address(text, int(rest))
    require_private(text)
    return Address(text)


def require_private(text: str) -> None:
    """Only who has a certificate, or is on this machine, can reach that address.

    Raises:
        UsageError: It is another, or no address.
    """
    try:
        parts = urlsplit(text)
        is_whole = bool(parts.hostname and parts.port)
    except ValueError:
        is_whole = False
    if not is_whole or parts.scheme not in ("tcp", "tls"):
        raise UsageError(
            f"scheduler '{text}': expected tls://HOST:PORT, tcp://HOST:PORT or local:N"
        )
    if parts.scheme == "tcp" and not _is_loopback(parts.hostname or ""):
        raise UsageError(
            f"scheduler '{text}': whoever reaches a scheduler without TLS runs code on its workers "
            f"and here; take tls://{parts.netloc}, or tcp:// of this machine alone"
        )


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


# -- on the workers ------------------------------------------------------------------------

_models: dict[str, CompiledModel] = {}
_runners: dict[tuple[str, Job], Runner] = {}
_making = threading.Lock()


class _Network:
    """A plugin of workers: the network, which each has from its first moment on.

    Attributes:
        name: Of this evaluation.
        data: Of the ``.snn`` file.
    """

    idempotent = False

    def __init__(self, name: str, job: Job, data: bytes) -> None:
        self.name, self.job, self.data = name, job, data

    def setup(self, worker: Any) -> None:
        """Read the network, in a worker that has just got it."""
        self.job.require_version()
        _models[self.name] = read_model(BytesIO(self.data), "the network", self.job.artefact)

    def teardown(self, worker: Any) -> None:
        """Forget it."""
        _models.pop(self.name, None)
        for key in [key for key in _runners if key[0] == self.name]:
            _runners.pop(key).close()


def _run(name: str, job: Job, task: Task) -> Done:
    """A shard, in a worker."""
    job.require_version()
    if name not in _models:
        raise BadInputError("a worker has not got the network; its log says why")
    with _making:
        if (name, job) not in _runners:
            _runners[name, job] = Runner(job, _models[name])
    return timed(_runners[name, job], task)


# -- here ----------------------------------------------------------------------------------


@contextmanager
def connected(
    address: Address, job: Job, file: Path, sends_data: bool = False
) -> Iterator[Cluster]:
    """A cluster that is ready to run shards of a job.

    Args:
        address: Of its scheduler.
        job: What is evaluated.
        file: The ``.snn`` file, which is sent to the workers.
        sends_data: Samples come with the tasks: workers need not have the data.

    Raises:
        BadInputError: The scheduler does not answer, or there are no workers; or they have another
            snncc, or not the data.
        MissingDependencyError: ``distributed`` is not installed.
    """
    with _quiet(), _client(address) as client:
        cluster = Cluster(client, job, str(address))
        _require_workers(client, address)
        _require_versions(client, job)
        if not sends_data:
            _require_data(client, job)
        with closing(cluster):
            cluster.send(file.read_bytes())
            yield cluster


class Cluster:
    """Workers of a Dask scheduler.

    Args:
        client: Connected to it.
        job: What is evaluated.
        address: Of the scheduler, for messages.
    """

    def __init__(self, client: Any, job: Job, address: str) -> None:
        self._client, self._job, self._address = client, job, address
        self._name = f"snncc-{job.artefact[:16]}-{uuid4().hex[:8]}"
        self._waiting: dict[Any, Task] = {}

    def send(self, data: bytes) -> None:
        """Send the network to all workers, those that come later too."""
        from distributed import WorkerPlugin  # without which this module can be imported

        plugin = type("Network", (_Network, WorkerPlugin), {})(self._name, self._job, data)
        self._client.register_plugin(plugin, name=self._name)

    def run(self, tasks: Iterable[Task]) -> Iterator[Done]:
        """See Workers."""
        left = iter(tasks)
        self._hand_out(left)
        while self._waiting:
            done = [self._result(future) for future in self._ready()]
            self._hand_out(left)
            yield from done

    def _hand_out(self, tasks: Iterator[Task]) -> None:
        threads = sum(self._client.nthreads().values())
        while len(self._waiting) < _AHEAD * max(threads, 1):
            if (task := next(tasks, None)) is None:
                return
            key = f"{self._name}-{task.number}-{uuid4().hex[:8]}"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of samples that are sent with a task
                future = self._client.submit(_run, self._name, self._job, task, key=key, pure=False)
            self._waiting[future] = task

    def _ready(self) -> list[Any]:
        """Tasks that are done; workers may come and go meanwhile, but not all be away for long."""
        from distributed import TimeoutError, wait

        alone = monotonic()
        while True:
            with suppress(TimeoutError, CancelledError):
                return list(wait(list(self._waiting), _LOOK, "FIRST_COMPLETED").done)
            if self._client.status != "running" or self._are_cancelled():
                raise BadInputError(
                    f"{self._address}: the scheduler has gone; what is done is kept, start again"
                )
            if self._client.nthreads():
                alone = monotonic()
            elif monotonic() - alone > WORKERS_PATIENCE:
                told = f"no worker is left, and none has come for {WORKERS_PATIENCE:.0f} s"
                raise BadInputError(f"{self._address}: {told}; what is done is kept")

    def _are_cancelled(self) -> bool:
        return any(future.cancelled() for future in self._waiting)

    def _result(self, future: Any) -> Done:
        from distributed import KilledWorker

        task = self._waiting.pop(future)
        try:
            done: Done = future.result()
        except KilledWorker as e:
            raise lost(self._job, task.number, f"at {e.last_worker.address}") from e
        except CancelledError as e:
            raise BadInputError(
                f"{self._address}: shard {task.number} was cancelled; what is done is kept"
            ) from e
        return done

    def close(self) -> None:
        """Cancel what is under way, and let the workers forget the network."""
        with suppress(Exception):  # the scheduler may have gone
            self._client.cancel(list(self._waiting), force=True)
            self._client.unregister_worker_plugin(self._name)


@contextmanager
def _client(address: Address) -> Iterator[Any]:
    try:
        from distributed import Client, LocalCluster
        from distributed.security import Security
    except ImportError as e:
        hint = "pip install 'snncc[cluster]'"
        raise MissingDependencyError(f"scheduler {address}: needs Dask distributed; {hint}") from e
    if not address.workers:
        with closing(_found(Client, Security, address)) as client:
            yield client
        return
    with without_interrupts():  # which the thread that starts workers inherits
        made = LocalCluster(
            n_workers=address.workers,
            threads_per_worker=1,
            host="127.0.0.1",
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            security=Security.temporary(),  # else any user of this machine could have it run code
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        )
    with made as cluster, Client(cluster, timeout=PATIENCE) as client:
        yield client


def _found(client: Any, security: Any, address: Address) -> Any:
    """A client of a scheduler that runs."""
    given = None
    if address.text.startswith("tls"):
        given = security(require_encryption=True)
        files = (given.tls_ca_file, given.tls_client_cert, given.tls_client_key)
        if not all(files):
            raise BadInputError(
                f"scheduler {address}: no certificates; name ca-file, client.cert and client.key "
                "in Dask's configuration, distributed.comm.tls"
            )
    try:
        return client(address.text, security=given, timeout=PATIENCE)
    except OSError as e:
        told = f"scheduler {address}: does not answer within {PATIENCE:.0f} s"
        raise BadInputError(f"{told}; start it there: dask scheduler") from e


def _require_workers(client: Any, address: Address) -> None:
    from distributed import TimeoutError

    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError as e:
        told = f"scheduler {address}: has no workers"
        raise BadInputError(f"{told}; start some: dask worker {address}") from e
    for worker in client.nthreads():
        require_private(worker)


def _require_versions(client: Any, job: Job) -> None:
    """All workers have the snncc of this process; asked in a way that also works without one."""
    found = client.run(metadata.version, "snncc", on_error="return")
    wrong = {worker: version for worker, version in found.items() if version != job.version}
    if wrong:
        raise BadInputError(
            f"workers have another snncc than {job.version}: {_told(wrong)}; install the same "
            "version everywhere"
        )


def _told(versions: Mapping[str, Any]) -> str:
    each = (f"{w} {v if isinstance(v, str) else 'none'}" for w, v in sorted(versions.items()))
    return ", ".join(each)


def _require_data(client: Any, job: Job) -> None:
    for path in filter(None, (job.data, job.labels)):
        found = client.run(os.path.exists, path)
        if lacking := sorted(worker for worker, is_there in found.items() if not is_there):
            raise BadInputError(
                Words(
                    f"{path}: is not there on {', '.join(lacking)}: workers read the data "
                    "themselves; put them there under the same path, or give ",
                    Option("send_data", True),
                )
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """What Dask logs of workers that come and go is no concern of whoever waits for a result."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # its loggers have levels and handlers of their own
    try:
        yield
    finally:
        logging.disable(before)
