"""What is run of a data set: shards of it, each by itself, with results that can be added up.

A shard's result holds integers and hashes alone, so that it is the same wherever it was computed.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

import snncc
from snncc.backends.base import Activity, Engine
from snncc.backends.engines import ENGINES, make_engine
from snncc.errors import BadInputError
from snncc.runtime.artifact import CompiledModel
from snncc.runtime.coding import Dataset
from snncc.runtime.container import sha256
from snncc.runtime.contract import by_timestep, class_result, class_scores
from snncc.runtime.data_sets import DataSet, content_hash, open_data
from snncc.runtime.masks import MASK
from snncc.runtime.profile.counting import Counted
from snncc.runtime.profile.models import EnergyModel
from snncc.runtime.profile.profile import profile_of
from snncc.runtime.report import decode, encode
from snncc.runtime.result import rates
from snncc.runtime.session import Session

__all__ = ["TOP", "Agreement", "Job", "Population", "Runner", "Shard", "Task"]

Array = npt.NDArray[Any]

#: A class is nearly right if it is among so many of the highest scores.
TOP = 5


@dataclass(frozen=True)
class Job:
    """What is evaluated; everything that a worker needs to know besides the network.

    Attributes:
        artefact: sha256 of the ``.snn`` file.
        data, labels: Paths; labels may lie in the data.
        unlabelled: Labels are left alone, if there are any.
        limit: At most so many samples.
        samples: How many there are, ``limit`` applied.
        stored_shape, dtype: Of each, as stored.
        size: Samples of a shard; the last may have fewer.
        engine: By name.
        batch: Samples simulated together.
        compare: Run engine ``integer``, too, and count what differs.
        energy: Models of energy.
        version: Of snncc.
    """

    artefact: str
    data: str
    labels: str | None
    unlabelled: bool
    limit: int | None
    samples: int
    stored_shape: tuple[int, ...]
    dtype: str
    size: int
    engine: str
    batch: int
    compare: bool
    energy: tuple[EnergyModel, ...]
    version: str

    @property
    def shards(self) -> int:
        """How many."""
        return -(-self.samples // self.size)

    def bounds(self, number: int) -> tuple[int, int]:
        """First sample of a shard, and the one after its last."""
        first = number * self.size
        return first, min(first + self.size, self.samples)

    def require_version(self) -> None:
        """This process has the snncc that the job was made by.

        Raises:
            BadInputError: Another.
        """
        if self.version != snncc.__version__:
            raise BadInputError(
                f"this worker has snncc {snncc.__version__}, the evaluation was begun by "
                f"{self.version}; install the same version everywhere"
            )


@dataclass(frozen=True)
class Task:
    """What a worker is asked for.

    Attributes:
        number: Of the shard.
        only_hash: The samples' hash alone, to see whether they are those of an earlier run.
        part: The samples; None: the worker reads them.
    """

    number: int
    only_hash: bool = False
    part: Dataset | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Population:
    """What one population did in a shard: spikes, and the synaptic operations they caused."""

    spikes: int
    sops: int


@dataclass(frozen=True)
class Agreement:
    """How the engine's results are beside those of ``integer``: samples that differ.

    Attributes:
        classes: In their class.
        readouts: In any number of a result.
    """

    classes: int
    readouts: int


@dataclass(frozen=True)
class Shard:
    """The result of a shard.

    Attributes:
        number: Of the shard.
        samples: How many it has.
        data: ``content_hash`` of its samples and labels.
        readouts: sha256 of the readouts' integers; "" where only ``data`` was asked for.
        classes: Of each sample; None where all results are maps.
        labels: Of each sample; None without labels.
        top: Samples whose label is among the highest scores; None without labels or classes.
        differ: From ``integer``; None: not compared.
        populations: By name, in topological order.
        energy_pj: Model -> pJ that the spiking network took, all samples together.
    """

    number: int
    samples: int
    data: str
    readouts: str = ""
    classes: tuple[int, ...] | None = None
    labels: tuple[int, ...] | None = None
    top: int | None = None
    differ: Agreement | None = None
    populations: Mapping[str, Population] = field(default_factory=dict)
    energy_pj: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dict(encode(self))

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Shard:
        """The shard of ``to_json``.

        Raises:
            BadInputError: A value is missing or of another type.
        """
        return decode(Shard, dict(data))


def _open_job(job: Job, model: CompiledModel) -> DataSet:
    """The data of a job, as they were when it was made.

    Raises:
        BadInputError: They cannot be read, or are others.
    """
    contract = model.input
    data = open_data(job.data, job.labels, contract.sample, job.limit, masks=bool(contract.patches))
    found = (data.total, data.stored_shape, data.dtype.name)
    if found != (job.samples, job.stored_shape, job.dtype):
        data.close()
        raise BadInputError(
            f"{job.data}: has {found[0]} samples {list(found[1])} {found[2]} here, where the "
            f"evaluation was begun {job.samples} samples {list(job.stored_shape)} {job.dtype}"
        )
    if job.unlabelled:
        data.labels = None
    return data


class Runner:
    """Runs shards of a job, also from several threads.

    Args:
        job: What is evaluated.
        model: The network.
    """

    def __init__(self, job: Job, model: CompiledModel) -> None:
        self.job, self.model = job, model
        self.session = Session(model, job.engine, job.batch, **_one_thread(job.engine))
        self._judge: Engine | None = None
        if job.compare and job.engine != "integer":
            self._judge = make_engine("integer", model, **_one_thread("integer"))
        self._data: DataSet | None = None
        self._reading = threading.Lock()

    def run(self, task: Task) -> Shard:
        """The result of a shard.

        Raises:
            BadInputError: Its samples cannot be read, or are not what the network takes.
        """
        part = self._read(task.number) if task.part is None else task.part
        head = Shard(task.number, len(part), content_hash(part))
        return head if task.only_hash else self._run(head, part)

    def _read(self, number: int) -> Dataset:
        with self._reading:  # files are read forward, by one thread at a time
            if self._data is None:
                self._data = _open_job(self.job, self.model)
            return self._data.read(*self.job.bounds(number))

    def _run(self, head: Shard, part: Dataset) -> Shard:
        work = _Work(self.model, self._judge, self.job.energy)
        contract = self.session.contract
        for batch in _batches(part, self.job.batch):
            x, mask = contract.check(batch.x, batch.mask, batch.origin)
            feed = {contract.name: x}
            activity = self.session.trace(feed if mask is None else {**feed, MASK: mask})
            encoded = by_timestep(contract.encode(batch.x, batch.mask), contract.shape)
            work.add(activity, batch, encoded)
        return work.shard(head)

    def close(self) -> None:
        """Let go of the data."""
        if self._data is not None:
            self._data.close()


def _one_thread(engine: str) -> dict[str, int]:
    """The option of an engine that may take several: workers share the processors out."""
    return {"threads": 1} if "threads" in ENGINES[engine].options else {}


def _batches(part: Dataset, size: int) -> Iterator[Dataset]:
    for at in range(0, len(part), size):
        x, y, mask = (None if a is None else a[at : at + size] for a in (part.x, part.y, part.mask))
        assert x is not None
        yield replace(part, x=x, y=y, mask=mask)


class _Work:
    """A shard under way."""

    def __init__(
        self, model: CompiledModel, judge: Engine | None, models: tuple[EnergyModel, ...]
    ) -> None:
        self.model, self.judge, self.models = model, judge, models
        self.counted = Counted(model.program, is_static=not model.input.timesteps)
        self.result = class_result(model.results)
        self.digests = {output.name: hashlib.sha256() for output in model.outputs}
        self.classes: list[int] = []
        self.labels: list[int] | None = []
        self.top = 0
        self.differ = [0, 0]
        self.totals = {n.name: [0, 0] for n in model.program.neurons}

    def add(self, activity: Activity, part: Dataset, x: Array) -> None:
        """Count one batch, whose samples are the source's integers ``x``."""
        for name, values in activity.readouts.items():
            by_sample = np.moveaxis(values, 1, 0)  # so that batches of any size give the same bytes
            self.digests[name].update(np.ascontiguousarray(by_sample, "<i8").data)
        for p in rates(activity, self.model.program).populations:
            self.totals[p.name][0] += p.spikes
            self.totals[p.name][1] += p.sops
        if part.y is None:
            self.labels = None
        elif self.labels is not None:
            self.labels += part.y.tolist()
        self._add_classes(activity.readouts, part.y)
        if self.judge is not None:
            self._compare(self.judge.infer(x, len(part)), activity.readouts, len(part))
        if self.models:
            self.counted.add(activity, x)

    def _add_classes(self, readouts: Mapping[str, Array], y: Array | None) -> None:
        if self.result is None:
            return
        scores = class_scores(self.result, readouts)
        self.classes += scores.argmax(axis=1).tolist()
        if y is not None:
            self.top += _among_the_highest(scores, y)

    def _compare(
        self, expected: Mapping[str, Array], readouts: Mapping[str, Array], samples: int
    ) -> None:
        differs = np.zeros(samples, bool)
        for name, values in expected.items():
            others = np.not_equal(values, readouts[name])
            differs |= np.moveaxis(others, 1, 0).reshape(samples, -1).any(axis=1)
        self.differ[1] += int(differs.sum())
        if self.result is not None:
            ours, theirs = (class_scores(self.result, r) for r in (readouts, expected))
            self.differ[0] += int((ours.argmax(axis=1) != theirs.argmax(axis=1)).sum())

    def shard(self, head: Shard) -> Shard:
        """What was counted."""
        has_classes = self.result is not None
        return replace(
            head,
            readouts=sha256(b"".join(d.digest() for d in self.digests.values())),
            classes=tuple(self.classes) if has_classes else None,
            labels=None if self.labels is None else tuple(self.labels),
            top=self.top if has_classes and self.labels is not None else None,
            differ=Agreement(*self.differ) if self.judge is not None else None,
            populations={name: Population(*total) for name, total in self.totals.items()},
            energy_pj=self._energy(head.samples),
        )

    def _energy(self, samples: int) -> dict[str, float]:
        if not self.models:
            return {}
        found = profile_of(
            self.model.program, self.counted, self.models, hash="", engine="", data="", maps=None
        )
        return {name: energy.snn * samples for name, energy in found.energy.items()}


def _among_the_highest(scores: Array, y: Array) -> int:
    """Samples whose label is among the ``TOP`` highest scores; of equal ones the first counts."""
    own = scores[np.arange(len(y)), y][:, np.newaxis]
    before = np.arange(scores.shape[1]) < y[:, np.newaxis]
    rank = (scores > own).sum(axis=1) + ((scores == own) & before).sum(axis=1)
    return int((rank < TOP).sum())
