"""One session for many threads, and in children of its process: runs give what they give alone."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import small_model
from attention_networks import one_attention
from networks import chain, half_even_levels

from snncc.backends.event.engine import EventEngine
from snncc.backends.event.layout import layout
from snncc.ir.fed import FedGraph
from snncc.program import Accumulator, Neuron, Program, Projection, Readout, Source
from snncc.program.bounds import bounded
from snncc.runtime.session import Session

Run = Callable[[], Any]

ENGINES = [
    ("integer", {}),
    ("spike-form", {}),
    ("clocked", {}),
    ("clocked", {"pipelined": True}),
    ("event", {}),
    ("event", {"threads": 2}),
]
NAMES = ["integer", "spike-form", "clocked", "pipelined", "event", "event-2"]
every_engine = pytest.mark.parametrize(("engine", "options"), ENGINES, ids=NAMES)


@contextmanager
def switching_often() -> Iterator[None]:
    """Python changes threads at nearly every step."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def at_once(callers: list[Run]) -> list[BaseException]:
    """What was raised by the callers, each in a thread of its own, beginning together."""
    raised: list[BaseException] = []
    begin = threading.Barrier(len(callers))

    def call(caller: Run) -> None:
        try:
            begin.wait(60)
            caller()
        except BaseException as e:
            raised.append(e)

    threads = [threading.Thread(target=call, args=(caller,), daemon=True) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
        assert not thread.is_alive(), "a run hangs"
    return raised


# -- threads -------------------------------------------------------------------------------


@every_engine
def test_a_session_runs_in_several_threads(engine, options) -> None:
    model = small_model.compiled()
    inputs = [small_model.samples(n, seed=n) for n in (1, 2, 5)]
    alone = Session(model, engine)
    probes: list[list[str]] = [[], ["fire1"], ["conv2:v"], ["fc:v", "fire2"]]
    wanted = [[alone.trace(x, p) for p in probes] for x in inputs]
    expected = [alone.run(None, x)[0] for x in inputs]

    def caller(session: Session, first: int) -> None:
        for i in range(first, first + 4):
            x, p = i % len(inputs), i % len(probes)
            assert np.array_equal(session.run(None, inputs[x])[0], expected[x])
            found, want = session.trace(inputs[x], probes[p]), wanted[x][p]
            for kind in ("counts", "readouts", "spikes", "potentials", "tick_spikes"):
                one, other = getattr(found, kind), getattr(want, kind)
                assert engine == "event" or one.keys() == other.keys()
                assert all(np.array_equal(one[name], other[name]) for name in one), kind

    with switching_often():
        for _ in range(4):  # what is made when it is first wanted is wanted by all of them
            session = Session(model, engine, **options)
            assert at_once([partial(caller, session, k) for k in range(4)]) == []


@pytest.mark.parametrize("engine", ["integer", "spike-form"])
def test_graphs_that_fetch_other_values_do_not_mix(engine, monkeypatch) -> None:
    def slowly(*given: Any) -> FedGraph:
        time.sleep(0.05)
        return FedGraph(*given)

    model, x = small_model.compiled(), small_model.samples()
    probes = [[], ["conv1:v"], ["conv2:v"], ["fc:v"]]
    wanted = [Session(model, engine).trace(x, p).potentials for p in probes]
    session = Session(model, engine)
    monkeypatch.setattr("snncc.backends.integer.FedGraph", slowly)

    def caller(k: int) -> None:
        found = session.trace(x, probes[k]).potentials
        assert found.keys() == wanted[k].keys()
        assert all(np.array_equal(found[name], wanted[k][name]) for name in found)

    assert at_once([partial(caller, k) for k in range(len(probes))]) == []


def wide() -> tuple[Program, np.ndarray]:
    """Layers that are worth sharing out, the first with memory: T = 2."""
    rng = np.random.default_rng(3)
    nodes: list[Any] = [Source("x", (3, 24, 24), 255)]
    carried = {"carry": "soft", "decay": (3, 2), "fraction": 2, "threshold": np.full(32, 4 * 9001)}
    for i, (theta, more) in enumerate(((9001, carried), (301, {}))):
        reads = nodes[-1]
        w = rng.integers(-60, 90, (32, reads.shape[0], 3, 3)).astype(np.int8)
        p = Projection(reads.name, "conv", (w,), 255 if i == 0 else 4, pads=(1, 1, 1, 1))
        made = Accumulator(f"v{i}", (32, 24, 24), (p,), rng.integers(0, 99, 32), 0, 0)
        nodes.append(bounded(made, {reads.name: reads}))
        levels = half_even_levels(np.full(32, theta), 4) * (4 if more else 1)
        nodes.append(Neuron(f"n{i}", (32, 24, 24), f"v{i}", levels, i, **more))
    nodes.append(Readout("y", (32, 24, 24), "n1", 1.0))
    program = Program("wide", tuple(nodes), timesteps=2, ticks=4)
    program.validate()
    return program, rng.integers(0, 256, (8, 3, 24, 24)).astype(np.uint8)


NETWORKS: dict[str, Callable[[], tuple[Program, np.ndarray]]] = {
    "small": lambda: (small_model.program(timesteps=2), small_model.samples(8)),
    "chain": chain,
    "attention": one_attention,
    "wide": wide,
}


def stress(network: str, threads: int, callers: int, runs: int) -> None:
    program, x = NETWORKS[network]()
    sizes = [1, 2, 3, len(x)]  # fewer and more samples than threads
    alone = EventEngine(program)
    expected = [next(iter(alone.infer(x[:n]).values())) for n in sizes]
    engine = EventEngine(program, threads)

    def caller(first: int) -> None:
        for i in range(first, first + runs):
            k = i % len(sizes)
            (found,) = engine.infer(x[: sizes[k]]).values()
            assert np.array_equal(found, expected[k])

    assert at_once([partial(caller, k) for k in range(callers)]) == []
    done = sum(sizes) * callers * runs / len(sizes) * program.timesteps
    first = engine._session().work()[0]
    assert first[0] == done  # no run was lost, none counted twice


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("network", NETWORKS)
def test_event_runs_are_right_under_stress(network, threads) -> None:
    stress(network, threads, callers=8, runs=40)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("network", NETWORKS)
def test_event_runs_are_right_under_long_stress(network, threads) -> None:
    stress(network, threads, callers=8, runs=2000)


@pytest.mark.parametrize("runs", [1, 2])
def test_a_run_waits_where_there_is_no_room_for_it(runs, monkeypatch) -> None:
    monkeypatch.setattr("snncc.backends.event.engine._runs", lambda *_: runs)
    stress("small", threads=1, callers=6, runs=100)


def test_networks_are_laid_out_once_however_many_threads_want_them(monkeypatch) -> None:
    made = []

    def slowly(program: Program, keep: bool) -> Any:
        made.append(threading.get_ident())
        time.sleep(0.05)
        return layout(program, keep)

    engine = EventEngine(small_model.program())
    monkeypatch.setattr("snncc.backends.event.engine.layout", slowly)
    x = small_model.samples()
    assert at_once([lambda: engine.run(x, ["conv2:v"]) for _ in range(4)]) == []
    assert len(made) == 1


# -- forks ---------------------------------------------------------------------------------

fork_alone = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def in_child(action: Run) -> int:
    """Exit code of a forked child that does it: 0; 1 where it raised; or minus the signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(60)  # of a hang
            code = 0 if action() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@fork_alone
@every_engine
def test_a_session_runs_in_a_forked_child(engine, options) -> None:
    x = small_model.samples()
    session = Session(small_model.compiled(), engine, **options)
    expected = session.run(None, x)[0]
    traced = session.trace(x, ["conv2:v"]).potentials["conv2:v"]

    def child() -> bool:
        same = np.array_equal(session.run(None, x)[0], expected)
        potentials = session.trace(x, ["conv2:v"]).potentials["conv2:v"]
        return same and np.array_equal(potentials, traced)

    assert in_child(child) == 0
    assert in_child(lambda: in_child(child) == 0) == 0  # a child's child
    assert np.array_equal(session.run(None, x)[0], expected)


@fork_alone
@every_engine
def test_a_forked_child_may_drop_the_session(engine, options) -> None:
    held = [Session(small_model.compiled(), engine, **options)]
    held[0].run(None, small_model.samples())
    time.sleep(0.2)  # until its threads sleep: deleting them is what hung

    def child() -> bool:
        held.clear()
        gc.collect()
        return True

    assert in_child(child) == 0


@fork_alone
@every_engine
def test_a_fork_in_the_middle_of_runs_does_no_harm(engine, options) -> None:
    """Others hold locks, states and the team when the process forks."""
    x = small_model.samples()
    session = Session(small_model.compiled(), engine, **options)
    expected = session.run(None, x)[0]
    stop = threading.Event()

    def runs() -> None:
        while not stop.is_set():
            assert np.array_equal(session.run(None, x)[0], expected)

    def forks() -> None:
        try:
            for _ in range(5):
                assert in_child(lambda: np.array_equal(session.run(None, x)[0], expected)) == 0
        finally:
            stop.set()

    assert at_once([forks, runs, runs]) == []


_shared: list[Any] = []


def _run_shared(_: int) -> bool:
    session, x, expected = _shared
    return bool(np.array_equal(session.run(None, x)[0], expected))


@fork_alone
@pytest.mark.parametrize("threads", [1, 2])
def test_multiprocessing_with_fork_takes_a_session_along(threads) -> None:
    x = small_model.samples()
    session = Session(small_model.compiled(), "event", threads=threads)
    _shared[:] = [session, x, session.run(None, x)[0]]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(_run_shared, range(6)).get(60) == [True] * 6


@fork_alone
def test_the_core_says_what_to_do_where_nobody_starts_it_anew() -> None:
    program, x = small_model.program(), small_model.samples()
    engine = EventEngine(program, 2)
    core = engine._session()

    def child() -> bool:
        engine._sessions.get = lambda *_: core  # type: ignore[method-assign]
        try:
            engine.infer(x)
        except RuntimeError as e:
            return "start one here" in str(e)
        return False

    assert in_child(child) == 0
