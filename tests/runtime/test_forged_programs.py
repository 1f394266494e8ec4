"""Forged files, consistent in all they say: refused, or the same on every engine."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np
import pytest
import small_model
from attention_networks import attention_programs
from float_networks import Case, examples, lowered
from forged_graphs import graph_forgery, saved_members
from forged_programs import Forger, fileable, forgery
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from interpreter import interpret
from networks import programs
from random_networks import networks
from state_networks import state_networks
from test_agreement_attention import attention_cases

from snncc.backends.base import Activity
from snncc.backends.clocked.engine import ClockedEngine
from snncc.backends.engines import make_engine
from snncc.backends.event.engine import KERNELS, EventEngine
from snncc.errors import BadInputError, TargetError
from snncc.program import Program
from snncc.program.check import faults_of
from snncc.runtime.artifact import CompiledModel, load
from snncc.runtime.masks import with_planes

#: Of one forged network the interpreter computes so many values at most.
_NAIVE = 4_000


def activities(model: CompiledModel, x: np.ndarray) -> dict[str, Activity]:
    """What every engine does that does not refuse the network."""
    program = model.program
    makers: dict[str, Callable[[], object]] = {
        "clocked": lambda: ClockedEngine(program),
        "pipelined": lambda: ClockedEngine(program, pipelined=True),
        **{f"event, {k}": lambda k=k: EventEngine(program, kernels=k) for k in KERNELS},
    }
    found = {}
    for name, make in makers.items():
        try:
            found[name] = make().run(x, probes=[a.name for a in program.accumulators])
        except (BadInputError, TargetError):
            continue
    if sum(prod(n.shape) for n in program.nodes) * program.timesteps * len(x) < _NAIVE:
        counts, potentials, readouts = interpret(program, x)
        found["interpreter"] = Activity(counts, readouts, potentials=potentials)
    return found


def differences(found: dict[str, Activity]) -> list[str]:
    """Values on which engines differ, those of the first taken for right."""
    (_, right), *others = found.items()
    return [
        f"{engine}: {kind} of {name}"
        for engine, activity in others
        for kind in ("counts", "potentials", "readouts")
        for name, values in getattr(right, kind).items()
        if not np.array_equal(values, getattr(activity, kind)[name])
    ]


def samples(model: CompiledModel, rng: np.random.Generator) -> np.ndarray:
    """Integers of the source, (N, *shape), or a sequence of them, (T, N, *shape)."""
    contract, T = model.input, model.program.timesteps
    lead = (2,) if contract.patches or rng.random() < 0.7 else (T, 2)
    x = rng.integers(0, contract.top + 1, (*lead, *contract.shape)).astype(np.uint8)
    if not contract.patches:
        return x
    return with_planes(x, rng.integers(0, 2, (2, 1, *contract.patches)).astype(np.uint8))


def is_long(program: Program) -> bool:
    """Whether the clock would tick for minutes."""
    return program.latency * program.timesteps > 3000


def check(program: Program, seed: int, count: int, path: Path, tally: Counter[str]) -> None:
    valid = fileable(program)
    assume(not faults_of(valid))  # what was settled for 255 may reach beyond 62 bits
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        tally["files"] += 1
        try:
            model = load(forgery(valid, rng, path))
        except BadInputError:
            tally["refused"] += 1
            continue
        if is_long(model.program):
            tally["not run"] += 1
            continue
        found = activities(model, samples(model, rng))
        tally["compared"] += len(found) > 1
        assert not found or differences(found) == [], (seed, number)


NETWORKS = st.one_of(programs(), programs(), attention_programs())


@settings(max_examples=8)
@given(NETWORKS, st.integers(0, 2**20))
def test_a_forged_network_is_refused_or_the_same_on_every_engine(
    tmp_path_factory: pytest.TempPathFactory, program: Program, seed: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "forged.snn"
    check(program, seed, 20, path, Counter())


def test_a_forger_settles_no_more_than_it_can_compute() -> None:
    """A border of a million columns is left to the validation, which refuses it at once."""
    forger = Forger(small_model.program(), np.random.default_rng(0))
    (conv, *_) = [
        p for n in forger.data["nodes"] for p in n.get("projections", ()) if p.get("pads")
    ]
    conv["pads"] = [0, 2**20, 0, 2**20]
    tracemalloc.start()
    try:
        forger.settle()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2**22


# -- graphs ---------------------------------------------------------------------------------


def check_graphs(case: Case, seed: int, count: int, path: Path, tally: Counter[str]) -> None:
    members = saved_members(lowered(case, check=False), case, path)
    whole = load(path)
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (2, *whole.program.source.shape)).astype(np.uint8)
    right = all_engines(whole, x)
    assert list(right) == list(_ALL)
    assert differences(right) == []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        tally["graphs forged"] += 1
        found = all_engines(load(graph_forgery(whole, members, rng, path)), x)
        tally["graphs refused"] += len(found) < len(_ALL)
        tally["graphs compared"] += len(found) == len(_ALL)
        assert differences(found) == [], (seed, number)


_ALL = ("clocked", "event", "integer", "spike-form")


def all_engines(model: CompiledModel, x: np.ndarray) -> dict[str, Activity]:
    """What every engine does that does not refuse the file; ``clocked`` is first."""
    found = {}
    for name in _ALL:
        try:
            found[name] = make_engine(name, model).run(x)
        except BadInputError:
            continue
    return found


GRAPHS = st.one_of(networks(), networks(), attention_cases(), state_networks())


@settings(max_examples=3)
@given(GRAPHS, st.integers(0, 2**20))
def test_forged_graphs_are_refused_or_the_same_network(
    tmp_path_factory: pytest.TempPathFactory, case: Case, seed: int
) -> None:
    check_graphs(case, seed, 6, tmp_path_factory.getbasetemp() / "graphs.snn", Counter())


@pytest.mark.slow
@settings(max_examples=examples(100))
@given(GRAPHS, st.integers(0, 2**20))
def test_many_forged_graphs_are_refused_or_the_same_network(
    tmp_path_factory: pytest.TempPathFactory, compared: Counter[str], case: Case, seed: int
) -> None:
    tally: Counter[str] = Counter()
    check_graphs(case, seed, 100, tmp_path_factory.getbasetemp() / "graphs.snn", tally)
    compared.update(tally)


# -- many -----------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=examples(500))
@given(NETWORKS, st.integers(0, 2**20))
def test_many_forged_networks_are_refused_or_the_same_on_every_engine(
    tmp_path_factory: pytest.TempPathFactory,
    compared: Counter[str],
    program: Program,
    seed: int,
) -> None:
    path = tmp_path_factory.getbasetemp() / "forged.snn"
    tally: Counter[str] = Counter()
    check(program, seed, 200, path, tally)
    compared.update({f"forged: {kind}": count for kind, count in tally.items()})
