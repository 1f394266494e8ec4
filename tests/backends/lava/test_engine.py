"""The Lava engine: exact on both executors, and what it says when something goes wrong."""

from __future__ import annotations

import gc
import os
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_model
from networks import changed

from snncc.backends.clocked.engine import ClockedEngine
from snncc.backends.engines import ENGINES, make_engine
from snncc.backends.lava import engine
from snncc.backends.lava.engine import MOST_PROCESSES, LavaEngine, refusal
from snncc.backends.lava.worker import Ran
from snncc.errors import BadInputError, SnnccError, TargetError, UsageError
from snncc.program import Accumulator, Neuron, Program, Projection, Readout, Source
from snncc.runtime.session import Session
from snncc.runtime.verify import verify

X = small_model.samples(7)
#: Seconds in which what comes true does, even on a busy machine.
SOON = 100
POPULATIONS = ["fire1", "fire2"]


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    assert one.keys() == other.keys()
    return all(np.array_equal(one[key], other[key]) for key in one)


@pytest.fixture
def no_python(monkeypatch):
    """Nothing is run."""
    monkeypatch.setattr(engine, "find_python", lambda given: "/a/python3.10")


@pytest.mark.parametrize("executor", ["direct", "lava"])
def test_a_run_is_that_of_the_clocked_engine(executor, lava_python):
    program, done = small_model.program(), []
    found = LavaEngine(program, executor, lava_python).run(X, POPULATIONS, progress=done.append)
    expected = ClockedEngine(program).run(X, POPULATIONS)
    for kind in ("counts", "readouts", "tick_spikes", "spikes"):
        assert same(getattr(found, kind), getattr(expected, kind)), kind
    assert done == [7]


def test_readouts_alone_are_the_same_in_many_runs(lava_python, monkeypatch):
    program = small_model.program(timesteps=3)
    x, done = np.stack([X, X[::-1], X]), []
    one = LavaEngine(program, "direct", lava_python)
    monkeypatch.setattr(engine, "_CHUNK", 4 * 3 * 252)  # bytes of 4 samples' counts
    found = one.infer(x, progress=done.append)
    assert done == [4, 3]
    assert same(found, ClockedEngine(program).infer(x))
    assert (one.run_report["samples"], one.run_report["executor"]) == (7, "direct")


def test_sessions_and_verify_take_its_options(lava_python):
    model = small_model.compiled()
    options = {"executor": "direct", "lava_python": lava_python, "timeout": 100}
    session = Session(model, "lava", **options)
    assert np.array_equal(session.run(None, X)[0], Session(model).run(None, X)[0])
    assert session.run_report["processes"] == 11
    verdict = verify(model, X, ["lava"], options={"lava": options}).engines["lava"]
    assert (verdict.populations, verdict.mismatched) == (2, 0)
    assert verdict.to_json()["ran"]["why"] == "given"
    assert Session(model).run_report is None


def test_the_emitted_network_goes_with_the_engine(no_python):
    made = LavaEngine(small_model.program())
    directory = made.directory
    assert (directory / "run.py").exists()
    del made
    gc.collect()
    assert not directory.exists()


def test_a_forked_child_leaves_the_emitted_network_to_its_parent(no_python):
    held = [LavaEngine(small_model.program())]
    directory = held[0].directory
    child = os.fork()
    if child == 0:
        held.clear()
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert (directory / "run.py").exists()


def test_runs_of_several_threads_wait_for_a_processor(no_python, monkeypatch):
    now, most, lock = [0], [0], threading.Lock()

    def run(*_: object) -> Ran:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1
        return Ran({}, {"samples": 7, "ticks": 0, "startup_s": 0, "run_s": 0, "wall_s": 0})

    monkeypatch.setattr(engine, "run", run)
    monkeypatch.setattr(engine, "processors", lambda: 2)
    made = LavaEngine(small_model.program())
    threads = [threading.Thread(target=made.infer, args=(X,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert most == [2]
    assert made.run_report["samples"] == 35


def test_a_session_runs_in_several_threads_and_in_a_child(lava_python):
    session = Session(small_model.compiled(), "lava", executor="direct", lava_python=lava_python)
    inputs = [small_model.samples(n, seed=n) for n in (1, 3)]
    expected = [Session(small_model.compiled()).run(None, x)[0] for x in inputs]
    found: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: session.run(None, inputs[i])[0]}))
        for i in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert all(np.array_equal(found[i], expected[i]) for i in range(2))
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(session.run(None, inputs[0])[0], expected[0]) else 1)
    assert os.waitpid(child, 0)[1] == 0


# -- many processes ------------------------------------------------------------------------


def deep(layers: int) -> Program:
    """A chain of layers, three processes each."""
    nodes, source = [Source("x", (3,), 255)], "x"
    for i in range(layers):
        w = np.eye(3, dtype=np.int8) * (3 if i else 1)
        bias = np.zeros(3, np.int64)
        payload = 4 if i else 255
        one = Projection(source, "linear", (w,), payload)
        nodes.append(Accumulator(f"v{i}", (3,), (one,), bias, 0, 255))
        levels = np.array([[3, 6, 9, 12]]) * (1 if i else 20)
        nodes.append(Neuron(f"n{i}", (3,), f"v{i}", levels, i))
        source = f"n{i}"
    nodes.append(Readout("y", (3,), source, 1.0))
    program = Program("deep", tuple(nodes), ticks=4)
    program.validate()
    return program


def test_above_a_limit_the_direct_executor_is_the_default_and_says_so(lava_python):
    few, many = deep(19), deep(20)
    small = LavaEngine(few, python=lava_python)
    assert (small.processes, small.executor) == (59, "lava")
    large = LavaEngine(many, python=lava_python)
    assert (large.processes, large.executor) == (62, "direct")
    assert large.run_report["why"] == f"default above {MOST_PROCESSES} processes"
    x = np.array([[255, 100, 0], [63, 61, 59]], np.uint8)
    found = large.run(x).readouts["y"]
    assert np.array_equal(found, ClockedEngine(many).run(x).readouts["y"])
    assert LavaEngine(many, "lava", lava_python).run_report["why"] == "given"


# -- what cannot be done -------------------------------------------------------------------


def wide() -> Program:
    program = small_model.program()
    first = program.accumulators[0]
    (p,) = first.projections
    return changed(program, first.name, projections=(replace(p, weights=p.weights * 2),))


def test_a_network_of_many_bits_is_refused_with_its_layers_and_a_way_out():
    model = replace(small_model.compiled(), program=wide())
    with pytest.raises(TargetError) as caught:
        make_engine("lava", model)
    assert caught.value.message.startswith(
        "engine 'lava' takes 8-bit weights and 24-bit potentials, so compile the network again "
        "with target='loihi2'; there are "
    )
    assert "net.conv1" in {fault.module for fault in caught.value.faults}
    with pytest.raises(TargetError) as caught:
        LavaEngine(wide())
    assert caught.value.faults


def test_what_no_bits_help_against_is_said():
    program = small_model.program()
    assert refusal(changed(program, "conv1:v", masked=(2, 2))) == (
        "cannot take net.conv1 (Accumulator): masked patches; compile without patch_mask"
    )
    assert ENGINES["lava"].refusal(program) == ""


def test_what_no_bits_help_against_is_said_ahead_of_bits():
    assert refusal(changed(wide(), "conv2:v", masked=(3, 3))) == (
        "cannot take net.conv2 (Accumulator): masked patches; compile without patch_mask, and "
        "with target='loihi2'"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"executor": "warp"}, "no executor 'warp'; there are direct, lava"),
        ({"timeout": 0}, "a time limit of 0 s is not positive"),
        ({"timeout": float("nan")}, "a time limit of nan s is not positive"),
    ],
)
def test_options_that_make_no_sense(options, words, no_python):
    with pytest.raises(UsageError, match=words):
        LavaEngine(small_model.program(), **options)


def test_wrong_samples_and_probes_are_refused_before_anything_runs(no_python):
    one = LavaEngine(small_model.program())
    with pytest.raises(BadInputError, match="lava: wrong input"):
        one.run(X.astype(np.float32))
    with pytest.raises(UsageError, match="lava: cannot probe 'fire9'"):
        one.run(X, ["fire9"])
    with pytest.raises(UsageError, match="lava: records spikes, not potentials such as 'conv2:v'"):
        one.run(X, ["fire1", "conv2:v"])


# -- what goes wrong on the way ------------------------------------------------------------


def sabotaged(executor: str, python: str, code: str, timeout: float) -> LavaEngine:
    """An engine whose populations do something else in a tick."""
    made = LavaEngine(small_model.program(), executor, python, timeout)
    path = made.directory / "processes" / "populations.py"
    text = path.read_text()
    place = "        self.v += self.a_in.recv()\n"
    assert place in text
    path.write_text(
        text.replace(place, f"        if self.time_step == 9:\n{' ' * 12}{code}\n{place}")
    )
    return made


def shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else set()


def unused(names: set[str]) -> set[str]:
    """Of shared memory, what no process has mapped: others may run Lava, too."""
    mapped = "".join(read("maps"))
    return {name for name in names & shared_memory() if f"/dev/shm/{name}" not in mapped}


@pytest.mark.parametrize("executor", ["direct", "lava"])
def test_a_model_that_raises_ends_the_run_and_is_quoted(executor, lava_python):
    code = 'raise OverflowError("potential of fire2 leaves 24 bits")'
    with pytest.raises(SnnccError) as caught:
        sabotaged(executor, lava_python, code, 100).run(X)
    first = caught.value.message.splitlines()[0]
    start = f"lava, {executor} executor: the run failed (exit code 1): "
    assert first.startswith(f"{start}potential of fire2 leaves 24 bits")


def test_a_run_that_hangs_is_ended_with_all_its_processes(lava_python, monkeypatch):
    before = shared_memory()
    code = "import time; open(__file__ + '.hangs', 'w').close(); time.sleep(300)"
    made = sabotaged("lava", lava_python, code, 0.5)
    wait = subprocess.Popen.wait

    def once_it_hangs(self, timeout=None):
        hangs = made.directory / "processes" / "populations.py.hangs"
        assert soon(hangs.exists)  # time counts from then on: the start may take longer
        return wait(self, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", once_it_hangs)
    with pytest.raises(SnnccError, match=r"lava, lava executor: no result within 0\.5 s"):
        made.run(X)
    assert soon(lambda: not processes_with(str(made.directory)))
    left = shared_memory() - before
    assert soon(lambda: not unused(left))


def soon(holds: Callable[[], bool]) -> bool:
    """Whether it comes true."""
    end = time.monotonic() + SOON
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


def processes_with(text: str) -> list[str]:
    """Command lines of processes that mention it."""
    return [line for line in read("cmdline") if text in line]


def read(name: str) -> list[str]:
    """That file of all processes."""
    found = []
    for entry in Path("/proc").glob(f"[0-9]*/{name}"):
        try:
            found.append(entry.read_bytes().decode(errors="replace"))
        except OSError:  # it has ended meanwhile
            continue
    return found
