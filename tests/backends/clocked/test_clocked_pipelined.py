"""Samples that follow each other every D ticks give what samples one at a time give."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import interpret
from networks import chain, changed, half_even_levels, programs

from snncc.backends.clocked import engine as clocked
from snncc.backends.clocked.engine import ClockedEngine
from snncc.program import Accumulator, Neuron, Program, Projection, Readout, Source
from snncc.program.bounds import bounded, emitted_payload


def stream(draw_seed: int, program: Program, samples: int, steps: bool) -> np.ndarray:
    rng = np.random.default_rng(draw_seed)
    lead = (program.timesteps,) if steps else ()
    shape = (*lead, samples, *program.source.shape)
    return rng.integers(0, program.source.payload + 1, shape).astype(np.uint8)


def probed(program: Program, x: np.ndarray, pipelined: bool, batch: int) -> Any:
    probes = [node.name for node in (*program.neurons, *program.accumulators)]
    return ClockedEngine(program, pipelined).run(x, probes=probes, batch=batch)


def residual(depths: int, skip: int) -> Program:
    """One stream of potentials that grows by a branch per neuron; each also skips ``skip`` on.

    Every accumulator takes the potential before it and the current of neurons of several depths,
    so that potentials of several samples are under way in it.
    """
    rng = np.random.default_rng(5)
    nodes: list[Any] = [Source("x", (4,), 15)]

    def accumulator(name: str, projections: list[Projection]) -> None:
        bias = rng.integers(-3, 6, 4)
        node = Accumulator(name, (4,), tuple(projections), bias, 0, 0)
        nodes.append(bounded(node, {n.name: n for n in nodes}))

    def linear(node: Any) -> Projection:
        weights = (rng.integers(-4, 6, (4, 4)).astype(np.int8),)
        return Projection(node.name, "linear", weights, emitted_payload(node))

    def identity(node: Any) -> Projection:
        return Projection(node.name, "identity", (), emitted_payload(node))

    accumulator("v0", [linear(nodes[0])])
    fired: list[Neuron] = []
    for i in range(depths):
        stream_before = nodes[-1]
        levels = half_even_levels(np.array([16, 18, 20, 22]) * (i + 1), 3)
        fired.append(Neuron(f"n{i}", (4,), stream_before.name, levels, i))
        nodes.append(fired[-1])
        skipped = [linear(n) for n in (nodes[0], *fired)[-skip - 1 : -1]]
        accumulator(f"v{i + 1}", [identity(stream_before), linear(fired[-1]), *skipped])
    nodes.append(Readout("y", (4,), nodes[-1].name, 1.0))
    program = Program("residual", tuple(nodes), ticks=3)
    program.validate()
    return program


def assert_pipeline_is_exact(program: Program, x: np.ndarray, batch: int) -> None:
    counts, potentials, readouts = interpret(program, x)
    found = probed(program, x, pipelined=True, batch=batch)
    for name, values in {**counts, **potentials, **readouts}.items():
        got = {**found.counts, **found.potentials, **found.readouts}[name]
        np.testing.assert_array_equal(got, values, err_msg=name)
    alone = probed(program, x, pipelined=False, batch=batch)
    for name, trains in alone.spikes.items():
        np.testing.assert_array_equal(found.spikes[name], trains)
        np.testing.assert_array_equal(found.tick_spikes[name], alone.tick_spikes[name])


# -- laws -----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(programs(), st.data())
def test_a_pipeline_gives_what_the_interpreter_gives(program: Program, data: st.DataObject) -> None:
    samples, batch = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 3))
    x = stream(data.draw(st.integers(0, 99)), program, samples, data.draw(st.booleans()))
    assert_pipeline_is_exact(program, x, batch)


@pytest.mark.parametrize("depths", [1, 3, 6])
@pytest.mark.parametrize("skip", [0, 2, 5])
def test_branches_of_several_depths_meet_in_a_pipeline(depths: int, skip: int) -> None:
    program = residual(depths, skip)
    assert_pipeline_is_exact(program, stream(1, program, 9, False), 1)


@settings(max_examples=30, deadline=None)
@given(programs(), st.integers(1, 6), st.integers(1, 3))
def test_a_pipeline_takes_D_ticks_for_each_further_sample(
    program: Program, samples: int, batch: int
) -> None:
    x = stream(0, program, samples, False)
    groups = -(-samples // batch)
    entered = groups * program.timesteps
    one_by_one, pipelined = (probed(program, x, p, batch).ticks for p in (False, True))
    assert pipelined == (entered - 1) * program.ticks + program.latency
    assert one_by_one == entered * program.latency or not program.neurons


# -- faults that must be seen ----------------------------------------------------------------


class Kept(dict[int, Any]):
    """Nothing is given back: the next sample finds it."""

    def pop(self, key: int, default: Any = None) -> Any:
        return self.get(key, default)


def sharing(kind: type[Any]) -> type[Any]:
    """A cell that holds one value for all samples under way."""
    shared: dict[str, Kept] = {}

    class Shared(kind):  # type: ignore[misc]
        def __init__(self, node: Any, scene: Any) -> None:
            super().__init__(node, scene)
            self.held = shared.setdefault(node.name, Kept())

        def emit(self) -> Any:
            found = super().emit().copy()
            self.potential = self.potential.copy()  # whoever comes next adds to it
            return found

    return Shared


@pytest.mark.parametrize("wrong", [Accumulator, Neuron])
def test_sharing_a_potential_between_samples_is_seen(wrong: type[Any]) -> None:
    program = changed(residual(4, 2), "n3", depth=5)  # it waits for two windows
    x = stream(2, program, 6, False)
    with mock.patch.dict(clocked._CELLS, {wrong: sharing(clocked._CELLS[wrong])}):
        alone = probed(program, x[:1], pipelined=True, batch=1)
        np.testing.assert_array_equal(alone.readouts["y"], interpret(program, x[:1])[2]["y"])
    with (
        mock.patch.dict(clocked._CELLS, {wrong: sharing(clocked._CELLS[wrong])}),
        pytest.raises(AssertionError),
    ):
        assert_pipeline_is_exact(program, x, 1)


def test_entering_before_the_neurons_are_free_is_seen() -> None:
    program, x = chain()
    hasty = mock.patch.object(ClockedEngine, "_interval", 1)
    shared = SharedDynamics.patched()
    with hasty, shared, pytest.raises(AssertionError):
        assert_pipeline_is_exact(program, x, 1)


def test_neurons_that_all_samples_share_suffice() -> None:
    """In hardware a population is there once: its membrane serves one sample after the other."""
    for program in (chain()[0], residual(4, 2)):
        with SharedDynamics.patched():
            assert_pipeline_is_exact(program, stream(0, program, 7, False), 1)


class SharedDynamics(clocked._NeuronCell):
    """All samples' neurons have one membrane."""

    _all: dict[str, Any]

    @classmethod
    def patched(cls) -> Any:
        cls._all = {}
        return mock.patch.dict(clocked._CELLS, {Neuron: cls})

    def __init__(self, node: Neuron, scene: Any) -> None:
        super().__init__(node, scene)
        self.dynamics = self._all.setdefault(node.name, self.dynamics)
