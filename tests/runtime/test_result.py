import copy
from dataclasses import replace
from math import prod

import numpy as np
import pytest
import small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import cases

from snncc.backends.base import Activity
from snncc.backends.clocked.engine import ClockedEngine
from snncc.backends.integer import IntegerEngine
from snncc.program import Neuron, Pool
from snncc.runtime.result import coverage, mismatch, rates, synaptic_operations


@pytest.fixture(scope="module")
def program():
    return small_model.program()


@pytest.fixture(scope="module")
def activity(program):
    probes = [n.name for n in (*program.neurons, *program.accumulators)]
    return ClockedEngine(program).run(small_model.samples(), probes)


# --- rates ----------------------------------------------------------------------------------------


@given(cases())
@settings(max_examples=40, deadline=None)
def test_rates_per_tick_are_the_shares_of_counts_above_the_tick(case):
    program, x = case
    activity = ClockedEngine(program).run(x)
    found = rates(activity, program)
    for p in found.populations:
        counts = activity.counts[p.name]
        for t, row in enumerate(p.nsfr):
            assert row == pytest.approx([np.mean(counts[t] > d) for d in range(p.ticks)])
        assert np.mean([sum(row) for row in p.nsfr]) == pytest.approx(p.mean_count)
        assert p.saturated == pytest.approx(np.mean(counts == p.ticks))
        assert p.silent == sum(not column.any() for column in counts.reshape(-1, p.neurons).T)
    assert found.spikes == sum(int(c.sum()) for c in activity.counts.values())


def test_engines_without_ticks_have_the_same_rates(program, activity):
    plain = IntegerEngine(small_model.graph(small_model.BODY), program).run(small_model.samples())
    assert not plain.tick_spikes
    assert rates(plain, program) == rates(activity, program)


def test_rates_are_plain_data(program, activity):
    data = rates(activity, program).to_json()
    assert data["samples"] == 5
    assert [p["name"] for p in data["populations"]] == ["fire1", "fire2"]
    assert data["sops"] == sum(p["sops"] for p in data["populations"])


# --- synaptic operations --------------------------------------------------------------------------


def crossings(program, activity):
    """SOPs, counted output by output and tick by tick."""
    total = dict.fromkeys(activity.counts, 0)
    trains = {k: v.reshape(-1, *v.shape[3:]).astype(int) for k, v in activity.spikes.items()}
    origin = {name: name for name in trains}
    for node in program.nodes:
        if isinstance(node, Pool) and node.source in trains:
            trains[node.name] = pooled(node, trains[node.source])
            origin[node.name] = origin[node.source]
    for node in program.accumulators:
        for p in node.projections:
            if p.source in trains:
                total[origin[p.source]] += reads(p, trains[p.source], node.shape)
    return total


def padded(values, pads):
    return np.pad(values, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))


def pooled(node, values):
    (kh, kw), (sh, sw) = node.kernel, node.strides
    values, out = padded(values, node.pads), np.zeros((len(values), *node.shape), int)
    for y in range(node.shape[1]):
        for x in range(node.shape[2]):
            window = values[:, :, y * sh : y * sh + kh, x * sw : x * sw + kw]
            out[:, :, y, x] = getattr(window, node.kind)(axis=(2, 3))
    return out


def reads(p, values, shape):
    if p.kind == "identity":
        return int(values.sum())
    if p.kind == "linear":
        return int(values.sum()) * shape[0]
    values, total = padded(values, p.pads), 0
    kh, kw = p.weights[0].shape[2:]
    for y in range(shape[1]):
        for x in range(shape[2]):
            for dy in range(kh):
                for dx in range(kw):
                    row = y * p.strides[0] + dy * p.dilations[0]
                    total += values[:, :, row, x * p.strides[1] + dx * p.dilations[1]].sum()
    return int(total) * (shape[0] // p.groups)


@given(cases())
@settings(max_examples=60, deadline=None)
def test_a_sop_is_one_spike_that_crosses_one_synapse(case):
    program, x = case
    activity = ClockedEngine(program).run(x, [n.name for n in program.neurons])
    assert synaptic_operations(activity, program) == crossings(program, activity)


# --- differences ----------------------------------------------------------------------------------


def test_equal_activities_differ_nowhere(activity):
    found = mismatch(activity, copy.deepcopy(activity))
    assert {m.kind for m in found} == {"counts", "spikes", "potential", "readout"}
    assert not any(m.mismatched for m in found)
    assert [m.total for m in found if m.kind == "counts"] == [540, 720]


@given(data=st.data())
@settings(max_examples=60)
def test_the_first_difference_is_located(activity, data):
    kind = data.draw(st.sampled_from(["counts", "spikes", "potentials", "readouts"]))
    name = data.draw(st.sampled_from(sorted(getattr(activity, kind))))
    got = copy.deepcopy(activity)
    values = getattr(got, kind)[name]
    places = st.tuples(*(st.integers(0, n - 1) for n in values.shape))
    for place in data.draw(st.lists(places, min_size=1, max_size=3, unique=True)):
        values[place] ^= 1
    before = getattr(activity, kind)[name]
    (wrong,) = [m for m in mismatch(activity, got) if m.mismatched]
    has_ticks = kind == "spikes"
    changed = [tuple(int(i) for i in p) for p in np.argwhere(values != before)]
    changed.sort(key=lambda p: (p[2 if has_ticks else 1], p[0], *p[1:]))
    t, *rest = changed[0]
    tick = rest.pop(0) if has_ticks else None
    sample, channel, *position = rest
    assert (wrong.name, wrong.mismatched, wrong.total) == (name, len(changed), before.size)
    first = wrong.first
    assert (first.sample, first.timestep, first.tick) == (sample, t, tick)
    assert (first.channel, first.position) == (channel, tuple(position))
    assert (first.expected, first.got) == (before[changed[0]], values[changed[0]])


def test_what_is_missing_or_of_another_shape_differs_everywhere(activity):
    cut = {"fire2": activity.counts["fire2"][:, :2]}
    found = mismatch(Activity(counts=activity.counts), Activity(counts=cut))
    assert [(m.name, m.mismatched) for m in found] == [("fire1", 540), ("fire2", 720)]
    assert [m.note for m in found] == [
        "missing",
        "shape [1, 2, 16, 3, 3], expected [1, 5, 16, 3, 3]",
    ]
    assert found[0].to_json()["first"] is None


# --- coverage -------------------------------------------------------------------------------------


def test_coverage_says_what_fired_and_how_high(program, activity):
    found = coverage(activity, program)
    assert (found.populations, found.fired, found.silent) == (2, 2, ())
    assert found.levels == {"fire1": (4, 4), "fire2": (4, 4)}
    assert (found.samples, found.spikes) == (5, rates(activity, program).spikes)


def test_silent_populations_are_reported(program):
    def quiet(node):
        if isinstance(node, Neuron) and node.name == "fire2":
            return replace(node, levels=node.levels + 2**40)
        return node

    still = replace(program, nodes=tuple(quiet(n) for n in program.nodes))
    activity = ClockedEngine(still).run(small_model.samples())
    found = coverage(activity, still)
    assert found.silent == ("fire2",)
    assert found.to_json()["fired"] == 1
    assert rates(activity, still).populations[1].silent == prod((16, 3, 3))
