"""Gates and sums of spikes on both executors, against the interpreter and the clocked engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interpreter import interpret
from lava_runs import Arrays, differences, emitted, expected, run
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
)
from snncc.program.bounds import bounded

SHAPE = (3, 4, 5)


class Layers:
    """A Program that grows, layer by layer."""

    def __init__(self, T: int) -> None:
        self.rng = np.random.default_rng(11)
        self.T = T
        self.nodes: list[Any] = [Source("x", (2, 4, 5), 7)]

    def sums(self, name: str, *reads: tuple[str, int], out: int = 3) -> None:
        """Convolutions of nodes, given with how much each emits."""
        seen = {node.name: node for node in self.nodes}
        projections = []
        for source, payload in reads:
            into = seen[source].shape[0]
            w = self.rng.integers(-9, 10, (out, into, 3, 3)).astype(np.int8)
            pads = (1, 1, 1, 1)
            projections.append(Projection(source, "conv", (w,), payload, pads=pads))
        bias = self.rng.integers(-9, 40, out)
        made = Accumulator(name, (out, 4, 5), tuple(projections), bias, 0, 0)
        self.nodes.append(bounded(made, seen))

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


@pytest.mark.parametrize("executor", ["direct", "lava"])
@pytest.mark.parametrize(
    "made",
    [gates, lambda: gates(2), binary, sums, lambda: sums(2), binary_sums],
    ids=["gates", "gates, T=2", "binary", "sums", "sums, T=2", "binary sums"],
)
def test_gates_and_sums_are_exact(tmp_path: Path, executor: str, made: Any) -> None:
    program, x = made()
    wanted = defined(program, x)
    last = program.neurons[-1]
    assert len(np.unique(wanted[f"counts/{last.name}"])) == last.D + 1
    directory = emitted(program, x, tmp_path / "net")
    assert wrong(program, x, run(directory, "--executor", executor)) == []


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
    of_sums = [name for name, entry in entries.items() if entry["process"] == "SpikeSum"]
    assert max(plan.emissions[name].burst for name in of_sums) <= program.ticks
    assert entries["two"]["inputs"][0].startswith("n1 + ")
    assert entries["same"]["inputs"] == ["n2", "n2 + 0"]
