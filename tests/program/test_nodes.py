"""A kind of node answers every question; one that does not is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import small_model

from snncc.backends.base import Activity
from snncc.backends.chip.chips import chip, demands
from snncc.backends.clocked.engine import ClockedEngine
from snncc.backends.event.engine import EventEngine
from snncc.backends.event.layout import layout
from snncc.backends.lava.engine import LavaEngine
from snncc.backends.lava.schedule import schedule
from snncc.errors import BadInputError, SnnccError, TargetError
from snncc.program import (
    Accumulator,
    Gate,
    Node,
    Pool,
    Program,
    Projection,
    Readout,
    Relay,
    Sum,
)
from snncc.program.nodes import KINDS
from snncc.program.nodes.base import Item
from snncc.program.timing import completion_windows, firing_window
from snncc.runtime.result import rates, synaptic_operations

#: What a kind answers, as Node declares it, besides what a default serves for.
QUESTIONS = [
    name
    for name, value in vars(Node).items()
    if not name.startswith("_") and name not in ("name", "emits", "is_potential", "besides")
]


@dataclass(frozen=True)
class Silent(Node):
    """A kind that says what it reads and nothing else."""

    name: str
    shape: tuple[int, ...]
    source: str
    module: str = ""

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)


@dataclass(frozen=True)
class Echo(Relay):
    """A kind that answers everything, but that no engine has heard of."""


def with_silent() -> Program:
    return _with(Silent("new", (3, 6, 6), "fire1"))


def with_echo() -> Program:
    return _with(Echo("new", (3, 6, 6), "fire1", 1, 4))


def _with(node: Node) -> Program:
    program = small_model.program()
    return replace(program, nodes=(*program.nodes, node))


def activity(program: Program) -> Activity:
    counts = {n.name: np.zeros((1, 1, *n.shape), np.uint8) for n in program.neurons}
    return Activity(counts=counts)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.__name__)
def test_every_kind_answers_every_question(kind: type[Node], question: str) -> None:
    assert len(QUESTIONS) == 13
    answered = {
        name for above in kind.mro() if above not in (Node, *Node.mro()) for name in vars(above)
    }
    assert question in answered


def test_every_kind_has_a_name_of_its_own_in_files() -> None:
    assert len(set(KINDS.values())) == len(KINDS)
    assert {name: kind.__name__.lower() for name, kind in KINDS.items()} == {n: n for n in KINDS}


CONSUMERS: dict[str, tuple[Callable[[Program], Any], str]] = {
    "chip": (lambda p: demands(p, chip("loihi2")), "resources of a chip"),
    "result": (lambda p: synaptic_operations(activity(p), p), "synaptic operations"),
    "rates": (lambda p: rates(activity(p), p), "synaptic operations"),
    "synapses": (lambda p: [n.synapses(p.by_name) for n in p.nodes], "synapses"),
    "windows": (lambda p: p.windows, "firing windows"),
    "completion": (completion_windows, "firing windows"),
    "train": (lambda p: firing_window(p.nodes[-1], p.by_name), "firing windows"),
    "json": (Program.to_json, "program"),
}
ENGINES: dict[str, tuple[Callable[[Program], Any], str]] = {
    "clocked": (ClockedEngine, "engine 'clocked'"),
    "event": (EventEngine, "engine 'event'"),
    "layout": (layout, "engine 'event'"),
    "schedule": (schedule, "engine 'lava'"),
    "lava": (LavaEngine, "engine 'lava'"),
}


@pytest.mark.parametrize("name", CONSUMERS)
def test_a_kind_that_does_not_answer_is_refused(name: str) -> None:
    ask, who = CONSUMERS[name]
    with pytest.raises(SnnccError, match="'Silent'") as caught:
        ask(with_silent())
    assert str(caught.value).startswith(who)


@pytest.mark.parametrize("make", [with_silent, with_echo])
@pytest.mark.parametrize("name", ENGINES)
def test_a_kind_that_no_engine_runs_is_refused(name: str, make: Callable[[], Program]) -> None:
    ask, who = ENGINES[name]
    program = make()
    with pytest.raises(SnnccError, match=type(program.nodes[-1]).__name__) as caught:
        ask(program)
    assert str(caught.value).startswith(who)


def test_a_population_of_unknown_membranes_is_not_left_out_of_a_chip() -> None:
    program = _with(Echo("new", (4, 3, 3), "conv2:v", 2, 4))
    with pytest.raises(SnnccError, match="bounds of a membrane: nodes of kind 'Echo'"):
        demands(program, chip("loihi2"))


def test_lava_names_all_the_nodes_that_it_does_not_know() -> None:
    with pytest.raises(TargetError) as caught:
        LavaEngine(with_echo())
    assert [f.node for f in caught.value.faults if f.kind == "Echo"] == ["new"]


@pytest.mark.parametrize("make", [with_silent, with_echo])
def test_an_unknown_kind_is_not_valid(make: Callable[[], Program]) -> None:
    program = make()
    with pytest.raises(BadInputError) as caught:
        program.validate()
    (fault,) = caught.value.faults
    assert (fault.node, fault.kind) == ("new", type(program.nodes[-1]).__name__)
    assert fault.what.startswith("unknown kind of node; there are source, accumulator,")


def test_a_file_with_an_unknown_kind_is_refused_by_name() -> None:
    data, arrays = small_model.program().to_json()
    data["nodes"].append({"type": "echo", "name": "new", "shape": [3, 6, 6], "source": "fire1"})
    with pytest.raises(BadInputError, match="no kind of node is called 'echo'; there are source"):
        Program.from_json(data, arrays)


def test_thousands_of_pools_in_a_row_are_no_recursion() -> None:
    program = small_model.program()
    nodes: list[Node] = list(program.nodes)
    unit = {"kernel": (1, 1), "strides": (1, 1), "pads": (0, 0, 0, 0), "payload": 4}
    for i in range(3000):
        source = "fire1" if i == 0 else f"p{i - 1}"
        nodes.append(Pool(f"p{i}", (3, 6, 6), source, "max", **unit))
    nodes.append(Relay("late", (3, 6, 6), "p2999", 1, 4))
    through = Projection("p2999", "identity", payload=4)
    made = Accumulator("sums", (3, 6, 6), (through,), np.zeros(3, np.int64), 0, 4)
    deep = replace(program, nodes=(*nodes, made))
    deep.validate()
    assert firing_window(deep.by_name["p2999"], deep.by_name) == 0
    assert deep.by_name["p2999"].tick_reach(deep.by_name) == 1
    counts = {n.name: np.ones((1, 1, *n.shape), np.uint8) for n in program.neurons}
    of_fire1 = synaptic_operations(Activity(counts=counts), program)["fire1"]
    assert synaptic_operations(Activity(counts=counts), deep)["fire1"] == of_fire1 + 3 * 6 * 6


def test_thousands_of_gates_and_sums_in_a_row_are_no_recursion() -> None:
    program = small_model.program()
    shape, unit = (3, 6, 6), {"kernel": (1, 1), "strides": (1, 1), "pads": (0, 0, 0, 0)}
    one = replace(program.by_name["fire1"], levels=program.by_name["fire1"].levels[:, :1])
    nodes: list[Node] = [one if n.name == "fire1" else n for n in program.nodes[:3]]
    gate = stream = "fire1"
    for i in range(1500):
        nodes.append(Pool(f"p{i}", shape, gate, "max", **unit, payload=1))
        gate = f"g{i}"
        nodes.append(Gate(gate, shape, f"p{i}", "fire1", "and", 1))
        nodes.append(Sum(f"s{i}", shape, stream, gate, i + 2))
        stream = f"s{i}"
    through = Projection(stream, "identity", payload=1501)
    made = Accumulator("all", shape, (through,), np.zeros(3, np.int64), 0, 1501)
    deep = replace(program, nodes=(*nodes, made, Readout("y", shape, "all", 1.0)))
    deep.validate()
    assert firing_window(deep.by_name[gate], deep.by_name) == 0
    assert made.bounded(deep.by_name).high == 1501
    counts = {"fire1": np.ones((1, 1, *shape), np.uint8)}
    assert synaptic_operations(Activity(counts=counts), deep)["fire1"] == 1501 * 3 * 6 * 6


def test_a_part_of_a_node_is_an_item_too() -> None:
    program = small_model.program()
    parts = [p for a in program.accumulators for p in a.projections]
    assert all(isinstance(part, Item) and part.variant == part.kind for part in parts)


CARRIED: dict[str, Callable[[Program], Any]] = {
    "clocked": lambda p: ClockedEngine(p).run(small_model.samples()),
    "event": EventEngine,
    "lava": LavaEngine,
}


@pytest.mark.parametrize("engine", CARRIED)
def test_a_membrane_that_no_engine_knows_is_refused(engine: str) -> None:
    program = small_model.program()
    nodes = [replace(n, carry="thrice") if n.name == "fire2" else n for n in program.nodes]
    with pytest.raises(SnnccError, match=f"engine '{engine}' .*thrice"):
        CARRIED[engine](replace(program, nodes=tuple(nodes)))


def test_work_beside_synaptic_operations_is_counted_over_all_timesteps() -> None:
    program = small_model.program()
    fire = program.by_name["fire1"]
    potential = program.by_name[fire.source]
    c, h, w = fire.shape
    more = (
        Gate("gate", fire.shape, "fire1", "fire1", "and", fire.reach**2),
        Sum("sum", fire.shape, "fire1", "gate", fire.reach + fire.reach**2),
        Sum("again", fire.shape, "sum", "gate", fire.reach + 2 * fire.reach**2),
        Pool("max", (c, h // 2, w // 2), potential.name, "max", (2, 2), (2, 2), (0,) * 4,
             potential.reach),
        Pool("or", (c, h // 2, w // 2), "fire1", "max", (2, 2), (2, 2), (0,) * 4, fire.reach),
    )  # fmt: skip
    whole = replace(program, nodes=(*program.nodes[:-1], *more, program.nodes[-1]), timesteps=3)
    whole.validate()
    assert whole.besides == {
        "gates": 3 * c * h * w,
        "sums of spikes": 3 * 2 * c * h * w,
        "comparisons of potentials": 3 * c * h * w,
    }


def test_spikes_of_a_sum_are_those_of_its_populations() -> None:
    """A layer's synaptic operations are each population's own, through sums and gates alike."""
    rng = np.random.default_rng(0)
    program = small_model.program()
    fire = program.by_name["fire1"]
    c, h, w = fire.shape
    double = Sum("double", fire.shape, "fire1", "fire1", 2 * fire.reach)
    square = Gate("square", fire.shape, "fire1", "fire1", "and", fire.reach**2)
    counts = {
        n.name: rng.integers(0, 2, (1, 2, *n.shape)).astype(np.uint8) for n in program.neurons
    }
    for node, values in ((double, 2 * counts["fire1"]), (square, counts["fire1"] ** 2)):
        one = Projection(node.name, "linear", (np.ones((5, c * h * w), np.int8),), node.reach)
        made = Accumulator("last", (5,), (one,), np.zeros(5, np.int64), 0, 0).bounded(
            {node.name: node}
        )
        whole = replace(program, nodes=(*program.nodes[:-1], node, made, program.nodes[-1]))
        before = synaptic_operations(Activity(counts=counts), program)
        after = synaptic_operations(Activity(counts=counts), whole)
        assert after["fire1"] - before["fire1"] == 5 * int(values.sum())
