"""How many samples engines are compared on, and how long each engine lives."""

import weakref
from dataclasses import replace

import numpy as np
import pytest
import small_model

from snncc.backends.event.engine import EventEngine
from snncc.errors import UsageError, VerificationError
from snncc.program import Accumulator, Program, Projection, Readout, Source
from snncc.runtime import verify as module
from snncc.runtime.verify import affordable_samples, require_agreement, verify


@pytest.fixture(scope="module")
def model():
    return small_model.compiled()


def convolution(side, channels, timesteps=1):
    """A network of one layer: side² · channels² · 9 multiply-adds."""
    weights = (np.zeros((channels, channels, 3, 3), np.int8),)
    shape = (channels, side, side)
    layer = Projection("x", "conv", weights, 255, pads=(1, 1, 1, 1))
    sums = Accumulator("v", shape, (layer,), np.zeros(channels, np.int64), 0, 0)
    nodes = (Source("x", shape, 255), sums, Readout("y", shape, "v", 1.0))
    return Program("net", nodes, timesteps)


@pytest.mark.parametrize(
    ("program", "samples"),
    [
        (convolution(8, 4), 32),
        (convolution(224, 48), 32),  # 1.04 G
        (convolution(224, 96), 8),  # 4.2 G
        (convolution(224, 96, timesteps=2), 4),
        (convolution(224, 400), 1),
    ],
    ids=["tiny", "1 G", "4 G", "4 G twice", "72 G"],
)
def test_large_networks_are_compared_on_fewer_samples(program, samples):
    assert affordable_samples(program) == samples


@pytest.mark.parametrize(("batch", "most"), [(5, 1), (2, 3)], ids=["one batch", "three batches"])
def test_engines_go_one_after_the_other_behind_the_last_samples(model, monkeypatch, batch, most):
    made, alive = weakref.WeakSet(), []

    def make(name, *args, **options):
        engine = make_engine(name, *args, **options)
        if name != "integer":
            made.add(engine)
            alive.append(len(made))
        return engine

    make_engine = module.make_engine
    monkeypatch.setattr(module, "make_engine", make)
    monkeypatch.setattr(module, "batch_of", lambda *_: batch)
    assert verify(model, small_model.samples()).mismatched == 0
    assert (len(alive), max(alive)) == (3, most)


def test_batches_are_compared_as_one(model, monkeypatch):
    x = small_model.samples()
    whole = verify(model, x)
    monkeypatch.setattr(module, "batch_of", lambda *_: 2)
    assert verify(model, x).to_json() == whole.to_json()
    assert whole.coverage.spikes == whole.engines["event"].spikes > 0


def test_progress_counts_samples_of_all_engines(model):
    done = []
    verify(model, small_model.samples(), progress=done.append)
    assert sum(done) == 3 * len(small_model.samples())


def test_an_unknown_engine_is_refused_before_any_runs(model, monkeypatch):
    monkeypatch.setattr(module, "make_engine", None)
    with pytest.raises(UsageError, match="unknown engine 'evnt'"):
        verify(model, small_model.samples(), ["clocked", "evnt"])
    with pytest.raises(UsageError, match="engine 'event' has no option 'speed'"):
        verify(model, small_model.samples(), ["event"], options={"event": {"speed": 2}})


def test_disagreement_is_an_error_that_names_the_population(model):
    nodes = tuple(
        replace(n, levels=n.levels + 500) if n.name == "fire1" else n for n in model.program.nodes
    )
    other = replace(model, program=replace(model.program, nodes=nodes))
    with pytest.raises(VerificationError, match="engines disagree") as caught:
        require_agreement(verify(other, small_model.samples(), ["clocked"]))
    assert caught.value.faults[0].node == "fire1"


def test_trains_that_an_engine_promises_and_does_not_give_differ(model, monkeypatch):
    activity = EventEngine._activity
    monkeypatch.setattr(EventEngine, "_activity", lambda *a: replace(activity(*a), spikes={}))
    found = verify(model, small_model.samples(), ["event"]).engines["event"]
    worst = [(m.name, m.kind, m.note) for m in found.worst.values()]
    assert worst == [("fire1", "spikes", "missing"), ("fire2", "spikes", "missing")]
    assert found.mismatched == sum(m.total for m in found.worst.values()) > 0
