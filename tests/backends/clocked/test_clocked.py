from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from interpreter import interpret
from networks import cases, chain, changed

from snncc.backends.base import Activity
from snncc.backends.clocked import engine as clocked
from snncc.backends.clocked import synapses
from snncc.backends.clocked.engine import DYNAMICS, ClockedEngine, SoftReset
from snncc.errors import BadInputError, UsageError
from snncc.program import Accumulator, Neuron, Pool, Program, Projection, Readout, Source

SEQUENTIAL = settings(max_examples=40, deadline=None)


def run(program: Program, x: np.ndarray, **options: Any) -> Activity:
    """The activity with everything probed."""
    probes = [node.name for node in (*program.neurons, *program.accumulators)]
    return ClockedEngine(program).run(x, probes=probes, **options)


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def assert_same_activity(found: Activity, expected: Activity) -> None:
    for part in ("counts", "readouts", "tick_spikes", "spikes", "potentials"):
        assert_same(getattr(found, part), getattr(expected, part))


# -- laws over random networks --------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(cases())
def test_counts_potentials_and_readouts_are_the_interpreters(
    case: tuple[Program, np.ndarray],
) -> None:
    counts, potentials, readouts = interpret(*case)
    activity = run(*case)
    assert_same(activity.counts, counts)
    assert_same(activity.potentials, potentials)
    assert_same(activity.readouts, readouts)


@SEQUENTIAL
@given(cases())
def test_trains_are_thermometers_of_the_counts(case: tuple[Program, np.ndarray]) -> None:
    program, _ = case
    activity = run(*case)
    for neuron in program.neurons:
        tick = np.arange(neuron.D).reshape(-1, 1, *(1,) * len(neuron.shape))
        thermometer = tick < activity.counts[neuron.name][:, np.newaxis]
        np.testing.assert_array_equal(activity.spikes[neuron.name], thermometer)


@SEQUENTIAL
@given(cases())
def test_rates_per_tick_are_sums_of_the_trains(case: tuple[Program, np.ndarray]) -> None:
    activity = run(*case)
    for name, train in activity.spikes.items():
        sums = train.sum(axis=tuple(range(2, train.ndim)), dtype=np.int64)
        np.testing.assert_array_equal(activity.tick_spikes[name], sums)


@SEQUENTIAL
@given(cases())
def test_results_do_not_depend_on_the_batch(case: tuple[Program, np.ndarray]) -> None:
    assert_same_activity(run(*case, batch=1), run(*case, batch=100))


@SEQUENTIAL
@given(cases())
def test_a_sample_shown_T_times_is_a_constant_sequence(case: tuple[Program, np.ndarray]) -> None:
    program, x = case
    sample = x if x.ndim == len(program.source.shape) + 1 else x[0]
    assert_same_activity(run(program, sample), run(program, np.stack([sample] * program.timesteps)))


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        ("_FLOATS", ((np.float64, 2**53),)),
        ("_FLOATS", ((np.float32, 2**9), (np.float64, 2**53))),
        ("_CHUNK_BYTES", 1),
    ],
    ids=["float64 only", "slices apart", "sample by sample"],
)
def test_every_way_to_sum_gives_the_same(constant: str, value: Any) -> None:
    @settings(max_examples=30, deadline=None)
    @given(cases())
    def agrees(case: tuple[Program, np.ndarray]) -> None:
        expected = run(*case)
        with mock.patch.object(synapses, constant, value):
            assert_same_activity(run(*case), expected)

    agrees()


@SEQUENTIAL
@given(cases())
def test_only_binary_spikes_of_one_tick_leave_a_neuron(case: tuple[Program, np.ndarray]) -> None:
    program, x = case
    with emissions() as seen:
        run(program, x)
    for now, emitted in seen:
        for name in emitted.keys() & {neuron.name for neuron in program.neurons}:
            neuron = program.by_name[name]
            assert isinstance(neuron, Neuron)
            assert emitted[name].dtype == np.bool_
            assert 0 <= now - neuron.depth * program.ticks < neuron.D


@SEQUENTIAL
@given(cases())
def test_sources_and_accumulators_emit_once_a_timestep(case: tuple[Program, np.ndarray]) -> None:
    program, x = case
    with emissions() as seen:
        ClockedEngine(program).run(x)
    for node in (program.source, *program.accumulators):
        assert sum(node.name in emitted for _, emitted in seen) == program.timesteps


@contextmanager
def emissions() -> Iterator[list[tuple[int, dict[str, np.ndarray]]]]:
    """All ticks while it is open: the time and what every node emitted."""
    seen: list[tuple[int, dict[str, np.ndarray]]] = []

    def spied(cells: Any, now: int) -> None:
        emitted: dict[str, np.ndarray] = {}
        for name, cell in cells.items():
            values = cell.tick(now, emitted)
            if values is not None:
                emitted[name] = values
        seen.append((now, emitted))

    with mock.patch.object(clocked, "_tick", spied):
        yield seen


# -- by hand --------------------------------------------------------------------------------


def integers(*values: Any) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_two_neurons_by_hand() -> None:
    # v0 = 2 x0 - x1 + 1 = 5, v1 = x0 + 3 x1 = 9; levels 2, 4, 6 -> 2 and 3 spikes
    # head = 10 * 2 - 3 - 7 = 10
    first = Projection("x", "linear", (np.array([[2, -1], [1, 3]], np.int8),), 9)
    head = Projection("n", "linear", (np.array([[10, -1]], np.int8),), 3)
    program = Program(
        "pair",
        (
            Source("x", (2,), 9),
            Accumulator("v", (2,), (first,), integers(1, 0), -9, 36),
            Neuron("n", (2,), "v", integers([2, 4, 6]), 0),
            Accumulator("h", (1,), (head,), integers(-7), -10, 23),
            Readout("y", (1,), "h", 1.0),
        ),
        ticks=3,
    )
    program.validate()
    activity = run(program, np.array([[3, 2]], np.uint8))
    assert activity.potentials["v"].tolist() == [[[5, 9]]]
    assert activity.spikes["n"].tolist() == [[[[1, 1]], [[1, 1]], [[0, 1]]]]
    assert activity.counts["n"].tolist() == [[[2, 3]]]
    assert activity.tick_spikes["n"].tolist() == [[2, 2, 1]]
    assert activity.readouts["y"].tolist() == [[[10]]]


def test_or_of_spikes_and_sum_of_potentials_by_hand() -> None:
    # v = x - 1 = 0 2 / 4 1; levels 1, 2: counts 0 2 / 2 1; OR 2; sum of potentials 7
    pixels = Source("x", (1, 2, 2), 9)
    window = {"kernel": (2, 2), "strides": (2, 2), "pads": (0, 0, 0, 0)}
    program = Program(
        "pools",
        (
            pixels,
            Accumulator(
                "v", (1, 2, 2), (Projection("x", "identity", (), 9),), integers(-1), -10, 8
            ),
            Pool("sum", (1, 1, 1), "v", "sum", payload=40, **window),  # type: ignore[arg-type]
            Neuron("n", (1, 2, 2), "v", integers([1, 2]), 0),
            Pool("or", (1, 1, 1), "n", "max", payload=2, **window),  # type: ignore[arg-type]
            Readout("or_count", (1,), "or", 1.0),
            Readout("potential", (1,), "sum", 1.0),
        ),
        ticks=2,
    )
    program.validate()
    activity = run(program, np.array([[[[1, 3], [5, 2]]]], np.uint8))
    assert activity.counts["n"].tolist() == [[[[[0, 2], [2, 1]]]]]
    assert activity.readouts["or_count"].tolist() == [[[2]]]
    assert activity.readouts["potential"].tolist() == [[[7]]]


class Residue(SoftReset):
    """Keeps the membrane potential over timesteps."""

    def __init__(self, neuron: Neuron) -> None:
        super().__init__(neuron)
        self.membrane = -self.first

    def load(self, potential: np.ndarray) -> None:
        self.membrane = self.membrane + potential


def test_a_new_kind_of_neuron_is_one_line_in_the_table() -> None:
    with mock.patch.dict(DYNAMICS, residue=Residue):
        program = Program(
            "memory",
            (
                Source("x", (1,), 9),
                Accumulator("v", (1,), (Projection("x", "identity"),), integers(0), -9, 9),
                Neuron("n", (1,), "v", integers([5]), 0, carry="residue"),
                Readout("y", (1,), "n", 1.0),
            ),
            timesteps=4,
        )
        activity = ClockedEngine(program).run(np.array([[2]], np.uint8))
    assert activity.counts["n"].ravel().tolist() == [0, 0, 1, 1]  # 2, 4, 6, 8 against 5


# -- input ----------------------------------------------------------------------------------


def test_progress_counts_the_samples_of_every_batch() -> None:
    program, x = chain()
    done: list[int] = []
    ClockedEngine(program).run(x, batch=3, progress=done.append)
    assert done == [3, 3, 2]


def test_an_unknown_probe_lists_what_there_is() -> None:
    program, x = chain()
    named = changed(program, "n2", module="block.act")
    with pytest.raises(UsageError) as error:
        ClockedEngine(named).run(x, probes=["n1", "n9"])
    assert str(error.value) == (
        "clocked: cannot probe 'n9'; there are: v1, v2, v3, n1, n2 (block.act), n3"
    )


def test_a_batch_is_positive() -> None:
    program, x = chain()
    with pytest.raises(UsageError, match="batch 0"):
        ClockedEngine(program).run(x, batch=0)


@pytest.mark.parametrize(
    ("x", "what"),
    [
        (np.zeros((1, 2, 6, 5), np.uint8), r"shape \(1, 2, 6, 5\), not \(N, 2, 6, 6\)"),
        (np.zeros((2, 6, 6), np.uint8), r"shape \(2, 6, 6\), not \(N, 2, 6, 6\)"),
        (np.zeros((0, 2, 6, 6), np.uint8), r"shape \(0, 2, 6, 6\)"),
        (np.zeros((5, 1, 2, 6, 6), np.uint8), "5 timesteps; the network has 1"),
        (np.zeros((1, 2, 6, 6), np.float32), "float32, not integers"),
        (np.full((1, 2, 6, 6), 4, np.uint8), r"values 4\.\.4, not in 0\.\.3"),
        (np.full((1, 2, 6, 6), -1, np.int8), r"values -1\.\.-1, not in 0\.\.3"),
    ],
)
def test_a_wrong_input_is_named(x: np.ndarray, what: str) -> None:
    program, _ = chain()
    with pytest.raises(BadInputError, match=what):
        ClockedEngine(program).run(x)


def test_sums_that_no_float_holds_are_refused() -> None:
    weights = tuple(np.full((1, 1), 127, np.int8) for _ in range(3))
    projection = Projection("x", "linear", weights, 2**62)
    nodes = (
        Source("x", (1,), 2**62),
        Accumulator("v", (1,), (projection,), integers(0), 0, 2**62),
        Readout("y", (1,), "v", 1.0),
    )
    with pytest.raises(BadInputError, match="from 'x'"):
        ClockedEngine(Program("huge", nodes))
