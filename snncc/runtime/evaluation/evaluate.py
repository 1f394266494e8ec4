"""Run a job to its end, from where its store has got to, and add its shards up."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snncc.errors import BadInputError, Option, Words
from snncc.runtime.evaluation.shards import Job, Population, Shard, Task
from snncc.runtime.evaluation.store import Store
from snncc.runtime.evaluation.workers import Workers

__all__ = ["Evaluation", "added_up", "run_job"]

#: Told how many samples have been checked or run.
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Evaluation:
    """What a network made of a data set.

    Attributes:
        samples: How many.
        labelled: Whether they have labels.
        classes: Of each sample; None where all results are maps.
        confusion: Samples by [label, class], int64; None without labels or classes.
        right: Samples whose class is their label.
        top: Samples whose label is among the ``TOP`` highest scores.
        other_class, other_readouts: Samples that differ from ``integer``; None: not compared.
        populations: Spikes and SOPs of all samples.
        energy_pj: Model -> pJ, of all samples.
        readouts: sha256 over the readouts of all samples: equal where every number is.
    """

    samples: int
    labelled: bool
    classes: npt.NDArray[np.int64] | None
    confusion: npt.NDArray[np.int64] | None
    right: int | None
    top: int | None
    other_class: int | None
    other_readouts: int | None
    populations: Mapping[str, Population]
    energy_pj: Mapping[str, float]
    readouts: str

    @property
    def spikes(self) -> int:
        """Of all populations and samples."""
        return sum(p.spikes for p in self.populations.values())

    @property
    def sops(self) -> int:
        """Of all populations and samples."""
        return sum(p.sops for p in self.populations.values())


def run_job(
    job: Job,
    store: Store,
    workers: Workers,
    progress: Progress | None = None,
    read: Callable[[Task], Task] | None = None,
) -> Evaluation:
    """Check that the data are those of what is done already, run the rest, and add all up.

    Args:
        job: What is evaluated.
        store: What is done already, and where the rest goes.
        workers: Who runs it.
        progress: Called with the number of samples of each shard that is done.
        read: Puts the samples into a task, where workers cannot read them.

    Raises:
        BadInputError: The data are others than those of the store; or see ``Workers``.
    """
    prepared = read or (lambda task: task)
    earlier = sorted(store.done)
    for done in workers.run(prepared(Task(number, only_hash=True)) for number in earlier):
        if done.shard.data != store.done[done.shard.number].data:
            raise _other_data(job, store, done.shard.number)
    left = [number for number in range(job.shards) if number not in store.done]
    for done in workers.run(prepared(Task(number)) for number in left):
        store.add(done.shard, done.seconds)
        if progress is not None:
            progress(done.shard.samples)
    return added_up(store.done)


def _other_data(job: Job, store: Store, number: int) -> BadInputError:
    first, last = job.bounds(number)
    told = f"{store.path}: is of other data: samples {first} to {last - 1} of {job.data}, or their "
    return BadInputError(
        Words(
            told,
            "labels, are not those that were run. Choose another ",
            Option("store"),
            " or begin anew with ",
            Option("overwrite", True),
        )
    )


def added_up(done: Mapping[int, Shard]) -> Evaluation:
    """All shards of a data set together, by number."""
    shards = [done[number] for number in sorted(done)]
    classes = _joined([s.classes for s in shards])
    labels = _joined([s.labels for s in shards])
    confusion = _confusion(labels, classes)
    compared = [s.differ for s in shards if s.differ is not None]
    return Evaluation(
        samples=sum(s.samples for s in shards),
        labelled=labels is not None,
        classes=classes,
        confusion=confusion,
        right=None if confusion is None else int(confusion.trace()),
        top=None if confusion is None else sum(s.top or 0 for s in shards),
        other_class=sum(d.classes for d in compared) if compared else None,
        other_readouts=sum(d.readouts for d in compared) if compared else None,
        populations=_populations(shards),
        energy_pj={
            name: math.fsum(s.energy_pj[name] for s in shards) for name in shards[0].energy_pj
        },
        readouts=hashlib.sha256("".join(s.readouts for s in shards).encode()).hexdigest(),
    )


def _joined(parts: list[tuple[int, ...] | None]) -> npt.NDArray[np.int64] | None:
    known = [np.asarray(part, np.int64) for part in parts if part is not None]
    return np.concatenate(known) if known and len(known) == len(parts) else None


def _confusion(
    labels: npt.NDArray[np.int64] | None, classes: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.int64] | None:
    if labels is None or classes is None:
        return None
    size = int(max(labels.max(), classes.max())) + 1
    found = np.zeros((size, size), np.int64)
    np.add.at(found, (labels, classes), 1)
    return found


def _populations(shards: list[Shard]) -> dict[str, Population]:
    return {
        name: Population(
            sum(s.populations[name].spikes for s in shards),
            sum(s.populations[name].sops for s in shards),
        )
        for name in shards[0].populations
    }
