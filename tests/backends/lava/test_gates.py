"""Gates, sums of spikes and maxima of potentials on Lava, against interpreter and clocked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gate_networks import gate_cases
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from interpreter import interpret
from lava_runs import Arrays, differences, emitted, expected, python, results, run, simpler
from networks import changed, half_even_levels

from snncc.backends.lava.limits import unsupported
from snncc.backends.lava.schedule import schedule
from snncc.program import (
    Accumulator,
    Gate,
    Neuron,
    Pool,
    Program,
    Projection,
    Readout,
    Relay,
    Source,
    Sum,
    pooled_size,
)
from snncc.program.bounds import bounded

HERE = Path(__file__).parent
SHAPE = (3, 4, 5)


class Layers:
    """A Program that grows, layer by layer."""

    def __init__(self, T: int, seed: int = 11) -> None:
        self.rng = np.random.default_rng(seed)
        self.T = T
        self.nodes: list[Any] = [Source("x", (2, 4, 5), 7)]

    def sums(self, name: str, *reads: tuple[str, int], less: int = 0) -> None:
        """Convolutions of nodes, given with how much each emits, and a bias."""
        seen = {node.name: node for node in self.nodes}
        projections = []
        for source, payload in reads:
            into = seen[source].shape[0]
            w = self.rng.integers(-9, 10, (3, into, 3, 3)).astype(np.int8)
            pads = (1, 1, 1, 1)
            projections.append(Projection(source, "conv", (w,), payload, pads=pads))
        bias = self.rng.integers(-9, 40, 3) - less
        made = Accumulator(name, SHAPE, tuple(projections), bias, 0, 0)
        self.nodes.append(bounded(made, seen))

    def highest(self, name: str, source: str, shape: tuple[int, ...], *window: Any) -> None:
        """Maxima over windows of potentials."""
        before = next(node for node in self.nodes if node.name == source)
        self.nodes.append(Pool(name, shape, source, "max", *window, before.reach))

    def whole(self, name: str, source: str) -> None:
        """A potential as it is, which is read out, too."""
        before = next(node for node in self.nodes if node.name == source)
        same = Projection(source, "identity", (), before.reach)
        made = Accumulator(name, before.shape, (same,), np.zeros(3, np.int64), 0, 0)
        self.nodes.append(bounded(made, {node.name: node for node in self.nodes}))
        self.nodes.append(Readout(f"{name} y", before.shape, name, 1.0))

    def fires(self, name: str, source: str, depth: int, theta: int, D: int) -> None:
        """Neurons on a potential."""
        shape = next(node.shape for node in self.nodes if node.name == source)
        levels = half_even_levels(theta + 2 * np.arange(shape[0]), D)
        self.nodes.append(Neuron(name, shape, source, levels, depth))

    def channels(self, name: str, source: str, payload: int, depth: int, D: int) -> None:
        """Neurons of one position, which read all there is."""
        before = next(node for node in self.nodes if node.name == source)
        w = self.rng.integers(-3, 4, (3, int(np.prod(before.shape)))).astype(np.int8)
        read = Projection(source, "linear", (w,), payload)
        made = Accumulator(f"{name}:v", (3,), (read,), np.array([2, 4, 6]), 0, 0)
        self.nodes.append(bounded(made, {source: before}))
        self.nodes.append(
            Neuron(name, (3, 1, 1), f"{name}:v", half_even_levels(np.array([9]), D), depth)
        )

    def program(self) -> tuple[Program, np.ndarray]:
        """With samples for it."""
        last = self.nodes[-1]
        nodes = (*self.nodes, Readout("y", last.shape, last.name, 1.0))
        program = Program("gates", nodes, timesteps=self.T, ticks=3)
        program.validate()
        lead = (6,) if self.T == 1 else (self.T, 6)
        return program, self.rng.integers(0, 8, (*lead, 2, 4, 5)).astype(np.uint8)


def gates(T: int = 1) -> tuple[Program, np.ndarray]:
    """Trains of three ticks and of two, one a layer before the other; gates of gates."""
    net = Layers(T)
    net.sums("v1", ("x", 7))
    net.fires("n1", "v1", 0, 31, 3)
    net.sums("v2", ("n1", 3))
    net.fires("n2", "v2", 1, 15, 2)
    net.nodes.append(Relay("n1 again", SHAPE, "n1", 1, 3))
    net.nodes.append(Gate("and", SHAPE, "n1 again", "n2", "and", 6))
    net.nodes.append(Gate("and not", SHAPE, "n1 again", "n2", "and-not", 6))
    net.channels("c", "n1", 3, 1, 2)
    net.nodes.append(Gate("all", SHAPE, "and not", "c", "and-not", 12))
    net.nodes.append(Gate("twice", SHAPE, "and", "and", "and", 36))
    net.nodes.append(Readout("z", SHAPE, "and not", 1.0))
    net.sums("v3", ("and", 6), ("all", 12), ("twice", 36))
    net.fires("n3", "v3", 2, 71, 3)
    return net.program()


def binary() -> tuple[Program, np.ndarray]:
    """An AND and an AND NOT of trains of one tick, read by a relay."""
    net = Layers(1)
    net.sums("v1", ("x", 7), ("x", 7))
    net.fires("n1", "v1", 0, 41, 1)
    net.fires("m1", "v1", 0, 11, 1)
    net.nodes.append(Gate("and", SHAPE, "n1", "m1", "and", 1))
    net.nodes.append(Gate("and not", SHAPE, "m1", "n1", "and-not", 1))
    net.nodes.append(Relay("late", SHAPE, "and not", 1, 1))
    net.sums("v2", ("and", 1), ("late", 1))
    net.fires("n2", "v2", 2, 5, 2)
    return net.program()


def sums(T: int = 1) -> tuple[Program, np.ndarray]:
    """Of spikes of windows 0 and 1, of one train with itself, of sums and of pixels."""
    net = Layers(T)
    net.sums("v1", ("x", 7))
    net.fires("n1", "v1", 0, 31, 3)
    net.sums("v2", ("n1", 3))
    net.fires("n2", "v2", 1, 15, 2)
    net.nodes.append(Sum("two", SHAPE, "n1", "n2", 5))
    net.nodes.append(Sum("same", SHAPE, "n2", "n2", 4))
    net.nodes.append(Sum("all", SHAPE, "two", "same", 9))
    net.nodes.append(Sum("pixels", (2, 4, 5), "x", "x", 14))
    net.nodes.append(Pool("p", SHAPE, "all", "sum", (3, 3), (1, 1), (1, 1, 1, 1), 81))
    net.sums("v3", ("all", 9), ("two", 5), ("p", 81), ("pixels", 14))
    net.fires("n3", "v3", 2, 301, 3)
    return net.program()


def binary_sums() -> tuple[Program, np.ndarray]:
    """Trains of one tick, whose sum is none: 2 is not 1."""
    net = Layers(1)
    net.sums("v1", ("x", 7))
    net.fires("n1", "v1", 0, 41, 1)
    net.fires("m1", "v1", 0, 11, 1)
    net.nodes.append(Sum("two", SHAPE, "n1", "m1", 2))
    net.sums("v2", ("two", 2))
    net.fires("n2", "v2", 1, 9, 2)
    return net.program()


def maxima(T: int = 1) -> tuple[Program, np.ndarray]:
    """Of potentials, most of them negative, and padded; maxima of maxima."""
    net = Layers(T)
    net.sums("v1", ("x", 7), less=90)
    net.highest("p1", "v1", (3, 3, 3), (2, 3), (2, 2), (1, 1, 1, 1))
    net.highest("p2", "p1", (3, 4, 4), (2, 2), (1, 1), (1, 1, 1, 1))
    net.whole("w1", "p1")
    net.whole("w2", "p2")
    net.fires("n2", "w2", 0, 11, 2)
    net.highest("p3", "v1", SHAPE, (3, 3), (1, 1), (1, 1, 1, 1))
    net.whole("w3", "p3")
    net.fires("n3", "w3", 0, 21, 3)
    net.sums("v4", ("n3", 3))
    net.fires("n4", "v4", 1, 15, 3)
    return net.program()


@st.composite
def maximum_cases(draw: st.DrawFn) -> tuple[Program, np.ndarray]:
    """A potential, one or two maxima of it with any padding, and neurons."""
    net = Layers(draw(st.integers(1, 3)), draw(st.integers(0, 2**16)))
    net.sums("v", ("x", 7), less=draw(st.integers(0, 200)))
    last, size, two = "v", SHAPE[1:], st.tuples(st.integers(1, 3), st.integers(1, 3))
    for i in range(draw(st.integers(1, 2))):
        kernel = tuple(map(min, draw(two), size))
        pads = tuple(draw(st.integers(0, k - 1)) for k in (*kernel, *kernel))
        strides = draw(two)
        size = tuple(
            pooled_size(size[k], kernel[k], strides[k], pads[k] + pads[k + 2]) for k in (0, 1)
        )
        net.highest(f"p{i}", last, (3, *size), kernel, strides, pads)
        last = f"p{i}"
    net.whole("w", last)
    net.fires("n", "w", 0, draw(st.integers(5, 60)), draw(st.integers(1, 3)))
    return net.program()


def defined(program: Program, x: np.ndarray) -> Arrays:
    """What the interpreter says of populations and readouts."""
    counts, _, readouts = interpret(program, x)
    return {
        **{f"counts/{name}": values for name, values in counts.items()},
        **{f"readout/{name}": values for name, values in readouts.items()},
    }


def wrong(program: Program, x: np.ndarray, found: Arrays) -> list[str]:
    """What differs from the interpreter, and from the clocked engine tick for tick."""
    clocked = differences(expected(program, x), found)
    return [*clocked, *differences(defined(program, x), found)]


MADE: dict[str, Callable[[], tuple[Program, np.ndarray]]] = {
    "gates": gates,
    "gates, T=2": lambda: gates(2),
    "binary": binary,
    "sums": sums,
    "sums, T=2": lambda: sums(2),
    "binary sums": binary_sums,
    "maxima": maxima,
    "maxima, T=3": lambda: maxima(3),
}


def all_run(cases: dict[str, tuple[Program, np.ndarray]], folder: Path) -> dict[str, list[str]]:
    """What is wrong with each on the direct executor; nothing of those that are exact."""
    for name, (program, x) in cases.items():
        emitted(program, x, folder / name)
    done = python(HERE / "run_all.py", folder, "direct")
    assert done.returncode == 0, done.stderr
    found = {name: wrong(*case, results(folder / name)) for name, case in cases.items()}
    return {name: keys for name, keys in found.items() if keys}


def test_what_meets_is_exact_on_the_direct_executor(tmp_path: Path) -> None:
    cases = {name: made() for name, made in MADE.items()}
    for program, x in cases.values():
        wanted, last = defined(program, x), program.neurons[-1]
        assert len(np.unique(wanted[f"counts/{last.name}"])) == last.D + 1
    assert all_run(cases, tmp_path) == {}


@pytest.mark.parametrize(
    "name",
    [
        "gates, T=2",
        "sums",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("binary", "maxima")),
    ],
)
def test_what_meets_is_exact_on_lavas_runtime(tmp_path: Path, name: str) -> None:
    program, x = MADE[name]()
    directory = emitted(program, x, tmp_path / "net")
    assert wrong(program, x, run(directory, "--executor", "lava")) == []


def test_a_gate_sends_in_each_tick_what_that_adds(tmp_path: Path) -> None:
    """Counts of populations tell sums over a frame alone."""
    directory = emitted(*binary(), tmp_path / "net")
    done = python(HERE / "gate_ticks.py", directory)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["same"] * 40


@pytest.mark.slow  # half a minute, in which Lava looks for the processes
def test_a_chain_of_a_thousand_sums_is_no_recursion(tmp_path: Path) -> None:
    nodes: list[Any] = [Source("x", (2,), 3)]
    for i in range(1100):
        nodes.append(Sum(f"s{i}", (2,), nodes[-1].name, "x", nodes[-1].payload + 3))
    last = nodes[-1]
    same = (Projection(last.name, "identity", (), last.payload),)
    nodes.append(Accumulator("v", (2,), same, np.zeros(2, np.int64), 0, last.payload))
    program = Program("chain", (*nodes, Readout("y", (2,), "v", 1.0)))
    program.validate()
    found = run(emitted(program, np.array([[1, 3]], np.uint8), tmp_path / "net"))
    assert found["readout/y"].tolist() == [[[1101, 3303]]]


def test_most_maxima_that_are_compared_are_negative() -> None:
    wanted = defined(*maxima())
    assert all((wanted[f"readout/w{i} y"] < 0).mean() > 0.2 for i in (1, 2, 3))


@pytest.mark.parametrize("draws", [120, pytest.param(900, marks=pytest.mark.slow)])
def test_random_programs_are_exact(tmp_path: Path, compared: Counter[str], draws: int) -> None:
    drawn: dict[str, tuple[Program, np.ndarray]] = {}

    @settings(max_examples=draws, phases=[Phase.generate])
    @given(case=st.one_of(gate_cases(), gate_cases(), maximum_cases()))
    def draw(case: tuple[Program, np.ndarray]) -> None:
        program = simpler(case[0])
        if parts(program) and not unsupported(program):
            drawn[f"{len(drawn):03d}"] = program, case[1]

    draw()
    assert all_run(drawn, tmp_path) == {}
    assert len(drawn) > 0.2 * draws
    reached = Counter(part for program, _ in drawn.values() for part in parts(program))
    assert reached.keys() == {"and", "and-not", "sum", "max"}
    compared["with gates, sums and maxima on Lava's models"] += len(drawn)


def parts(program: Program) -> set[str]:
    """Which of these there are in it."""
    nodes = program.by_name
    gates = {node.kind for node in program.nodes if isinstance(node, Gate)}
    sums = {"sum" for node in program.nodes if isinstance(node, Sum)}
    pools = [node for node in program.nodes if isinstance(node, Pool) and node.kind == "max"]
    return gates | sums | {"max" for node in pools if isinstance(nodes[node.source], Accumulator)}


def test_trains_meet_in_the_tick_in_which_the_later_one_begins(tmp_path: Path) -> None:
    program, x = gates()
    text = (emitted(program, x, tmp_path / "net") / "README.md").read_text()
    late = next(line for line in text.splitlines() if line.startswith("| `n1 + "))
    assert "| Relay |" in late
    rows = [line for line in text.splitlines() if "SpikeGate" in line]
    assert [row.split(" | ")[5] for row in rows] == [
        "and",
        "and not, up to 2",
        "and not, up to 2",
        "and",
    ]


def test_silence_that_lasts_longer_than_a_frame_is_named() -> None:
    program, _ = gates()
    gate = program.by_name["and not"]
    pool = Pool("p", SHAPE, "n2", "max", (1, 1), (1, 1), (0, 0, 0, 0), 4)
    at = program.nodes.index(gate)
    nodes = (*program.nodes[:at], pool, replace(gate, b="p", payload=12), *program.nodes[at + 1 :])
    (fault,) = unsupported(replace(program, nodes=nodes))
    assert str(fault).startswith("and not (Gate): silence of 'p' for 4 ticks, in windows of 3; ")


def test_products_that_no_word_holds_are_named() -> None:
    program, _ = gates()
    (fault,) = unsupported(changed(program, "twice", payload=2**23))
    assert str(fault).startswith("twice (Gate): a product of spikes may reach 8,388,608")
    program, _ = sums()
    (fault,) = unsupported(changed(program, "two", payload=2**23))
    assert str(fault).startswith("two (Sum): a sum of spikes may reach 8,388,608")


def test_what_a_sum_reads_arrives_within_the_ticks_of_a_frame() -> None:
    program, _ = sums()
    plan = schedule(program)
    entries = {entry["name"]: entry for entry in plan.entries}
    of_sums = [name for name, entry in entries.items() if entry["process"] == "TrainSum"]
    assert max(plan.emissions[name].burst for name in of_sums) <= program.ticks
    assert entries["two"]["inputs"][0].startswith("n1 + ")
    assert entries["same"]["inputs"] == ["n2", "n2 + 0"]
