"""The event engine: the same integers as every other form, whatever the kernels and threads."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import small_model
from attention_networks import attention_cases
from float_networks import examples
from gate_networks import gate_cases, parts_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from networks import cases, chain

from snncc.backends.base import Activity
from snncc.backends.clocked.engine import ClockedEngine
from snncc.backends.event import _core
from snncc.backends.event.engine import KERNELS, EventEngine
from snncc.backends.event.layout import layout
from snncc.errors import BadInputError, UsageError
from snncc.program import Accumulator, Neuron, Program, Projection, Source
from snncc.runtime.result import mismatch

ANY = st.one_of(cases(), attention_cases(), gate_cases())
ISAS = _core.isas()


def _probes(program: Program) -> list[str]:
    return [n.name for n in (*program.accumulators, *program.neurons)]


def _differences(program: Program, x: np.ndarray, engine: EventEngine) -> list[str]:
    return _unlike(ClockedEngine(program).run(x, _probes(program)), program, x, engine)


def _unlike(expected: Activity, program: Program, x: np.ndarray, engine: EventEngine) -> list[str]:
    found = engine.run(x, _probes(program), batch=3)
    kinds = ("counts", "readouts", "spikes", "potentials", "tick_spikes")
    return [
        f"{kind} of {name}"
        for kind in kinds
        for name, values in getattr(expected, kind).items()
        if not np.array_equal(values, getattr(found, kind)[name])
    ]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=60)
@given(case=ANY)
def test_it_does_what_the_clocked_engine_does(isa, kernels, case) -> None:
    assert _differences(*case, _on(isa, case[0], kernels)) == []


def _on(isa: str, program: Program, kernels: str, threads: int = 1) -> EventEngine:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNNCC_ISA", isa)
        engine = EventEngine(program, threads, kernels=kernels)
    assert engine.isa == isa
    return engine


@pytest.mark.slow
@settings(max_examples=examples(3000))
@given(case=gate_cases(payloads=True), threads=st.integers(1, 3))
def test_many_gates_sums_maxima_and_payloads_are_those_of_the_clocked_engine(
    compared: Counter[str], tally: Counter[str], case: tuple[Program, np.ndarray], threads: int
) -> None:
    program, x = case
    parts = parts_of(program)
    assume(parts)
    expected = ClockedEngine(program).run(x, _probes(program))
    for isa in ISAS:
        for kernels in KERNELS:
            engine = _on(isa, program, kernels, threads)
            assert _unlike(expected, program, x, engine) == [], (isa, kernels)
    for part in parts:
        compared[f"with {part}, event against clocked"] += 1
    compared["in all, event against clocked"] += 1
    tally["spikes on each instruction set"] += sum(int(v.sum()) for v in expected.counts.values())
    tally["populations"] += len(program.neurons)
    tally["silent populations"] += sum(not v.any() for v in expected.counts.values())


@settings(max_examples=40)
@given(case=ANY, threads=st.integers(2, 4))
def test_threads_change_nothing(case, threads) -> None:
    assert _differences(*case, EventEngine(case[0], threads)) == []


@settings(max_examples=20)
@given(case=ANY)
def test_infer_gives_the_readouts_of_run(case) -> None:
    program, x = case
    engine = EventEngine(program)
    expected = engine.run(x).readouts
    for _ in range(2):  # warm
        found = engine.infer(x)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_a_wrong_weight_is_seen_in_its_population() -> None:
    program, x = small_model.program(), small_model.samples()
    first = program.accumulators[0]
    projection = first.projections[0]
    weights = (projection.weights[0] + np.int8(1), *projection.weights[1:])
    mutant = replace(first, projections=(replace(projection, weights=weights),), high=2**40)
    nodes = tuple(mutant if n is first else n for n in program.nodes)
    mutated = EventEngine(Program(program.name, nodes, program.timesteps, program.ticks)).run(x)
    found = [m for m in mismatch(ClockedEngine(program).run(x), mutated) if m.mismatched]
    assert found[0].name == program.neurons[0].name


@pytest.mark.parametrize("slices", [1, 2, 3])
@pytest.mark.parametrize("value", [-128, -127, 127])
def test_the_farthest_weights_are_not_cut_off(slices: int, value: int) -> None:
    program, x = chain()
    accumulator = program.accumulators[0]
    p = accumulator.projections[0]
    weights = (np.full_like(p.weights[0], value),) * slices
    swap = {accumulator.name: replace(accumulator, projections=(replace(p, weights=weights),))}
    nodes = tuple(swap.get(n.name, n) for n in program.nodes)
    mutant = Program("far", nodes, program.timesteps, program.ticks)
    for kernels in KERNELS:
        assert _differences(mutant, x, EventEngine(mutant, kernels=kernels)) == []


def test_work_says_what_went_by_events() -> None:
    program, x = small_model.program(), small_model.samples()
    shares = {}
    for kernels in ("event", "dense"):
        engine = EventEngine(program, kernels=kernels)
        assert engine.event_share == 0.0
        engine.run(x)
        shares[kernels] = engine.event_share
        assert all(0 <= w.density <= 1 and w.macs > 0 for w in engine.work())
    assert shares == {"event": 1.0, "dense": 0.0}


# -- bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (np.zeros((2, 3, 4, 4), np.uint8), "shape"),
        (np.zeros((1, 1, 6, 6), np.float32), "float32, not integers"),
    ],
)
def test_wrong_samples_are_refused(x: np.ndarray, said: str) -> None:
    engine = EventEngine(small_model.program())
    for call in (engine.run, engine.infer):
        with pytest.raises(BadInputError, match="event: wrong input") as caught:
            call(x)
        assert said in str(caught.value)


def test_values_out_of_range_are_refused_by_the_core_too() -> None:
    program, x = small_model.program(), small_model.samples().astype(np.int16)
    dim = replace(program.source, payload=200)
    narrow = Program("narrow", (dim, *program.nodes[1:]), program.timesteps, program.ticks)
    for network, wrong in ((program, -1), (program, 256), (narrow, 201)):
        x[0, 0, 0, 0] = wrong
        engine = EventEngine(network)
        for call in (engine.run, engine.infer):
            with pytest.raises(BadInputError, match="wrong input"):
                call(x.astype(np.uint8) if 0 <= wrong < 256 else x)


def test_unknown_options_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    program = small_model.program()
    with pytest.raises(UsageError, match="no kernels 'fast'"):
        EventEngine(program, kernels="fast")
    with pytest.raises(UsageError, match="0 threads"):
        EventEngine(program, threads=0)
    monkeypatch.setenv("SNNCC_ISA", "mmx")
    with pytest.raises(UsageError, match="SNNCC_ISA: no instruction set 'mmx'"):
        EventEngine(program)


def test_a_potential_beyond_62_bits_is_refused_by_name() -> None:
    program, _ = chain()
    accumulator = next(n for n in program.nodes if isinstance(n, Accumulator))
    p = accumulator.projections[0]
    heavy = replace(p, weights=p.weights * 3, payload=2**31, shift=20)
    huge = replace(accumulator, projections=(heavy,))
    source = replace(program.source, payload=2**31 - 1)
    swap = {accumulator.name: huge, source.name: source}
    nodes = tuple(swap.get(n.name, n) for n in program.nodes)
    with pytest.raises(BadInputError, match="the potential may exceed 62 bits") as caught:
        EventEngine(Program("huge", nodes, program.timesteps, program.ticks))
    assert accumulator.name in str(caught.value)


def test_maps_larger_than_the_memory_are_refused_before_any_is_taken(monkeypatch) -> None:
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 2**18, "SC_PAGE_SIZE": 4096}.get)
    shape, one = (1, 10_000, 10_000), np.ones((1, 1, 1, 1), dtype=np.int8)
    nodes = (
        Source("x", shape, payload=4),
        Accumulator("a", shape, (Projection("x", "conv", (one,), 4),), np.zeros(1, int), 0, 4),
        Neuron("n", shape, "a", np.array([[1]]), depth=0),
    )
    with pytest.raises(BadInputError, match=r"4 threads 11\.2 GiB; this machine has 1\.0 GiB"):
        EventEngine(Program("large", nodes), threads=4)


@settings(max_examples=200)
@given(data=st.data())
def test_bytes_that_are_no_network_are_refused(data) -> None:
    good = layout(small_model.program())
    bad = good.copy()
    for at in data.draw(st.lists(st.integers(0, len(bad) - 1), min_size=1, max_size=4)):
        bad[at] ^= data.draw(st.integers(1, 255))
    cut = bad[: data.draw(st.integers(0, len(bad)))].copy()
    for candidate in (bad, cut):
        try:
            _core.Network(candidate)
        except ValueError as e:
            index, what = e.args
            assert isinstance(index, int)
            assert what
