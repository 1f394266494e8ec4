"""Who runs the shards on this machine: this process, or several of which any may die.

A worker that dies costs the shard that it was at, which another one runs again; one that kills
several workers is given up, since it would kill them all.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from snncc.errors import SnnccError
from snncc.runtime.array_files import reading
from snncc.runtime.artifact import CompiledModel, read_model
from snncc.runtime.evaluation.shards import Job, Runner, Shard, Task
from snncc.system.damage import open_regular

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

__all__ = ["Done", "Here", "Processes", "Workers", "lost", "timed", "without_interrupts"]

#: How many workers may die over a shard.
_ATTEMPTS = 3
#: What makes libraries take one thread each.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_GRACE = 5.0  # seconds that a worker may take to end


@dataclass(frozen=True)
class Done:
    """A shard that is done, and how long it took its worker, in seconds."""

    shard: Shard
    seconds: float


class Workers(Protocol):
    """Whoever runs shards."""

    def run(self, tasks: Iterable[Task]) -> Iterator[Done]:
        """The results of tasks, in the order in which they are done.

        Raises:
            SnnccError: A shard cannot be run; those that were yielded stay done.
        """


def timed(runner: Runner, task: Task) -> Done:
    """Run a task and look at the clock."""
    start = perf_counter()
    shard = runner.run(task)
    return Done(shard, perf_counter() - start)


def lost(job: Job, number: int, how: str) -> SnnccError:
    """What is said of a shard that is given up."""
    first, last = job.bounds(number)
    return SnnccError(
        f"samples {first} to {last - 1} (shard {number}): {_ATTEMPTS} workers died over them, the "
        f"last {how}; if they lack memory, take fewer workers or a smaller batch"
    )


class Here:
    """This process runs one shard after the other."""

    def __init__(self, job: Job, model: CompiledModel) -> None:
        self._runner = Runner(job, model)

    def run(self, tasks: Iterable[Task]) -> Iterator[Done]:
        """See Workers."""
        return (timed(self._runner, task) for task in tasks)

    def close(self) -> None:
        """Let go of the data."""
        self._runner.close()


# -- processes -----------------------------------------------------------------------------


@dataclass
class _Worker:
    """A process, and the end of its pipe that is here.

    Attributes:
        task: What it is at, if anything.
    """

    process: SpawnProcess
    pipe: Connection
    task: Task | None = None


class _Queue:
    """Tasks that wait; they are made when they are taken, as they may hold their samples."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = iter(tasks)
        self._waiting: deque[Task] = deque()
        self._deaths: Counter[int] = Counter()

    def take(self) -> Task | None:
        """The next task; None: there is no more."""
        return self._waiting.popleft() if self._waiting else next(self._tasks, None)

    def again(self, task: Task) -> int:
        """A worker has died over the task, which comes next; how many have."""
        self._waiting.appendleft(task)
        self._deaths[task.number] += 1
        return self._deaths[task.number]


class Processes:
    """Processes of this machine, started anew where one dies.

    Args:
        job: What is evaluated.
        file: The ``.snn`` file, which each reads for itself.
        count: How many.
    """

    def __init__(self, job: Job, file: Path, count: int) -> None:
        self._job, self._file, self._count = job, file, count
        self._workers: list[_Worker] = []

    @property
    def numbers(self) -> list[int]:
        """Of the processes at work."""
        return [worker.process.pid or 0 for worker in self._workers]

    def run(self, tasks: Iterable[Task]) -> Iterator[Done]:
        """See Workers."""
        queue = _Queue(tasks)
        self._hand_out(queue)
        while any(worker.task for worker in self._workers):
            answers = [self._heard(worker, queue) for worker in self._ready()]
            self._hand_out(queue)  # before the answers are stored
            yield from (done for done in answers if done is not None)

    def _hand_out(self, queue: _Queue) -> None:
        """Every worker gets something to do; more are started while there is more to do."""
        idle = [worker for worker in self._workers if worker.task is None]
        while idle or len(self._workers) < self._count:
            if (task := queue.take()) is None:
                return
            worker = idle.pop() if idle else self._start()
            worker.task = task
            with suppress(OSError):  # it has died, which ``_ready`` will see
                worker.pipe.send(task)

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, self._job, self._file), daemon=True)
        with without_interrupts(), _environment(dict.fromkeys(_ONE_THREAD, "1")):
            process.start()
        there.close()
        worker = _Worker(process, here)
        self._workers.append(worker)
        return worker

    def _ready(self) -> list[_Worker]:
        """Workers that have answered or died."""
        pipes = {worker.pipe: worker for worker in self._workers if worker.task is not None}
        return [pipes[pipe] for pipe in wait(list(pipes)) if isinstance(pipe, Connection)]

    def _heard(self, worker: _Worker, queue: _Queue) -> Done | None:
        """What a worker answers; None if it has died."""
        try:
            answer = worker.pipe.recv()
        except (EOFError, OSError):
            self._bury(worker, queue)
            return None
        worker.task = None
        if isinstance(answer, Done):
            return answer
        raise answer

    def _bury(self, worker: _Worker, queue: _Queue) -> None:
        """What a dead worker was at is run again, unless it has killed too many."""
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.join(_GRACE)
        task = worker.task
        assert task is not None
        if queue.again(task) >= _ATTEMPTS:
            raise lost(self._job, task.number, _how(worker.process.exitcode))

    def close(self) -> None:
        """End all of them now; what they were at is lost."""
        for worker in self._workers:
            worker.process.terminate()
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join(_GRACE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"ended by {signal.Signals(-code).name}"
    return f"with exit code {code}"


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Processes that are started inherit that SIGINT does not reach them: it is for us to end them.

    One that comes meanwhile reaches us afterwards.
    """
    resource_tracker.ensure_running()  # which lets signals through when it is started on the way
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables that a child finds, where the user has not set them."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _serve(pipe: Connection, job: Job, file: Path) -> None:
    """A worker's life: it ends when nobody is at the other end of the pipe."""
    runner: Runner | None = None
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        answer: Done | SnnccError
        try:
            runner = runner or Runner(job, _model(job, file))
            answer = timed(runner, task)
        except SnnccError as e:
            answer = e
        except Exception as e:
            answer = SnnccError(f"shard {task.number}: {type(e).__name__}: {e}")
        try:
            pipe.send(answer)
        except OSError:
            return


def _model(job: Job, file: Path) -> CompiledModel:
    job.require_version()
    with reading(file), open_regular(file) as opened:
        return read_model(opened, str(file), job.artefact)
