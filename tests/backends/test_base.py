"""The loop that all engines share, and that each says truly what it can tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pytest
import small_model
from networks import chain

from snncc.backends.base import (
    Abilities,
    Activity,
    Batch,
    Engine,
    Wanted,
    spikes_by_tick,
    thermometer,
)
from snncc.backends.engines import ENGINES, make_engine
from snncc.errors import BadInputError, UsageError
from snncc.program import Program

PROBES = ["fire1", "conv2:v"]


class Sums(Engine):
    """Gives the sum of each sample in each timestep, and remembers what it was given."""

    name: ClassVar[str] = "sums"
    abilities: ClassVar[Abilities] = Abilities(potentials=False)

    def __init__(self, program: Program, most: int | None = None) -> None:
        self.program, self.most = program, most
        self.given: list[tuple[tuple[int, ...], Wanted]] = []

    def _together(self, batch: int, samples: int, wanted: Wanted) -> int:
        return self.most or super()._together(batch, samples, wanted)

    def _activity(self, batch: Batch, wanted: Wanted) -> Activity:
        self.given.append((batch.x.shape, wanted))
        sums = batch.steps.reshape(batch.timesteps, batch.samples, -1).sum(2, dtype=np.int64)
        return Activity(readouts={"y": sums}, ticks=3)


@pytest.fixture
def engine() -> Sums:
    return Sums(chain()[0])


def test_samples_come_in_batches_and_results_are_joined_in_order(engine: Sums) -> None:
    _, x = chain()
    done: list[int] = []
    activity = engine.run(x, ["n1"], batch=3, progress=done.append)
    assert activity.readouts["y"].tolist() == [x.reshape(8, -1).sum(1, dtype=int).tolist()]
    assert (done, activity.ticks) == ([3, 3, 2], 9)
    assert engine.given[-1] == ((2, 2, 6, 6), Wanted(True, ("n1",)))


def test_sequences_are_cut_along_the_samples() -> None:
    engine = Sums(small_model.program(timesteps=2))
    x = np.stack([small_model.samples(seed=1), small_model.samples(seed=2)])
    sums = engine.infer(x, batch=2)["y"]
    assert sums.tolist() == x.reshape(2, 5, -1).sum(2, dtype=int).tolist()
    assert [shape[:2] for shape, _ in engine.given] == [(2, 2), (2, 2), (2, 1)]
    assert all(not wanted.counts for _, wanted in engine.given)


def test_an_engine_may_take_more_samples_than_it_is_asked_to() -> None:
    program, x = chain()
    engine, done = Sums(program, most=100), []
    engine.run(x, batch=1, progress=done.append)
    assert done == [8]


def test_progress_is_told_before_the_next_batch_begins() -> None:
    program, x = chain()
    seen: list[str] = []

    class Lazy(Sums):
        def _activities(self, batches: list[Batch], wanted: Wanted) -> Iterator[Activity]:
            for batch in batches:
                seen.append("begins")
                yield self._activity(batch, wanted)

    Lazy(program).run(x, batch=4, progress=lambda _: seen.append("done"))
    assert seen == ["begins", "done"] * 2


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_refuses_the_same_calls_in_the_same_words(name: str) -> None:
    engine, x = make_engine(name, small_model.compiled()), small_model.samples()
    for wrong, what in (
        (x[:, 0], "shape (5, 6, 6), not (N, 1, 6, 6) or (1, N, 1, 6, 6)"),
        (x[:0], "shape (0, 1, 6, 6), not"),
        (x.astype(np.float32), "float32, not integers"),
        (x.astype(np.int16) - 256, "not in 0..255"),
    ):
        for call in (engine.run, engine.infer):
            with pytest.raises(BadInputError) as caught:
                call(wrong)
            assert str(caught.value).startswith(f"{name}: wrong input\n  x_q (Source): ")
            assert what in str(caught.value)
    with pytest.raises(UsageError, match=f"{name}: cannot probe 'pool1'; there are: conv1:v"):
        engine.run(x, ["pool1"])
    with pytest.raises(UsageError, match=f"{name}: batch 0 is not positive"):
        engine.run(x, batch=0)


def test_an_engine_without_potentials_refuses_them(engine: Sums) -> None:
    _, x = chain()
    with pytest.raises(UsageError, match="sums: records spikes, not potentials such as 'v2'"):
        engine.run(x, ["n1", "v2"])


@pytest.mark.parametrize("name", ENGINES)
def test_engines_tell_what_they_say_they_can(name: str) -> None:
    engine = make_engine(name, small_model.compiled())
    can = engine.abilities
    probes = PROBES if can.potentials else PROBES[:1]
    got = engine.run(small_model.samples(), probes)
    assert set(got.counts) == {"fire1", "fire2"}
    assert set(got.spikes) == ({"fire1"} if can.trains else set())
    assert set(got.potentials) == ({"conv2:v"} if can.potentials else set())
    assert set(got.tick_spikes) == ({"fire1", "fire2"} if can.tick_spikes else set())
    assert (got.ticks > 0) == can.clock
    assert (engine.event_share is not None) == (name == "event")
    assert (engine.run_report is not None) == (name == "lava")


def test_trains_and_their_sums_are_those_of_the_counts() -> None:
    counts = np.array([[[0, 1, 3]], [[2, 2, 0]]], np.uint8)
    trains = thermometer(counts, 3)
    assert (trains.dtype, trains.shape) == (np.uint8, (2, 3, 1, 3))
    assert trains[0, :, 0].tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 1]]
    assert spikes_by_tick(counts, 3).tolist() == trains.sum(axis=(2, 3)).tolist()
