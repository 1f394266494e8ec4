"""Counts of a profile against naive ones: output by output, tick by tick, sample by sample."""

import json
from math import prod

import numpy as np
import pytest
import small_model
from attention_networks import attention_cases
from gate_networks import gate_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import cases

from snncc.backends.clocked.engine import ClockedEngine
from snncc.program import Accumulator, Pool, Source
from snncc.program.nodes.attention import Attention
from snncc.runtime.artifact import load
from snncc.runtime.bounds import bounds
from snncc.runtime.profile.counting import Counted
from snncc.runtime.profile.models import DEFAULT_MODELS, models_named
from snncc.runtime.profile.profile import profile_of
from snncc.runtime.result import rates, synaptic_operations
from snncc.runtime.session import Session

MODELS = models_named(DEFAULT_MODELS)


def axis_of(program, x):
    return int(x.ndim > len(program.source.shape) + 1)


def profiled(program, x, cuts=()):
    """The profile of samples that are run in parts."""
    axis = axis_of(program, x)
    counted = Counted(program, is_static=not axis)
    for part in np.split(x, cuts, axis=axis):
        counted.add(ClockedEngine(program).run(part), part)
    return profile_of(program, counted, MODELS, hash="", engine="clocked", data="")


# -- naive counts ----------------------------------------------------------------------------------


def emitted(program, x, activity):
    """Node -> what it emits as numbers (T, N, *shape): pixels or spikes; not gates and sums."""
    T, axis = program.timesteps, axis_of(program, x)
    found = {program.source.name: x if axis else np.stack([x] * T)}
    for node in program.nodes:
        if node.name in activity.counts:
            found[node.name] = activity.counts[node.name].astype(np.int64)
        elif isinstance(node, Pool) and node.source in found:
            values = found[node.source]
            flat = node.pooled_maps(values.reshape(-1, *values.shape[2:]))
            found[node.name] = flat.reshape(*values.shape[:2], *node.shape)
    return found


def is_pixel(program, name):
    node = program.by_name[name]
    while isinstance(node, Pool):
        node = program.by_name[node.source]
    return isinstance(node, Source)


def summed(p, values, shape, weights):
    """What a projection with these weights sums up to, over all outputs; values (M, *shape)."""
    if p.kind == "identity":
        return int(values.sum())
    if p.kind == "linear":
        return int((values.reshape(len(values), -1) @ weights.T).sum())
    top, left, bottom, right = p.pads
    values = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    total, (kh, kw) = 0, weights.shape[2:]
    per_group = weights.shape[1]
    for o in range(shape[0]):
        group = o // (shape[0] // p.groups)
        channels = slice(group * per_group, (group + 1) * per_group)
        for dy in range(kh):
            for dx in range(kw):
                rows = np.arange(shape[1]) * p.strides[0] + dy * p.dilations[0]
                columns = np.arange(shape[2]) * p.strides[1] + dx * p.dilations[1]
                read = values[:, channels][:, :, rows][:, :, :, columns]
                total += int((read.sum(axis=(0, 2, 3)) * weights[o, :, dy, dx]).sum())
    return total


def naive(program, x, activity, node, p):
    """(sops, acs, macs, effective_macs, ann_dense, ann_nonzero, adds), of all samples."""
    values = emitted(program, x, activity).get(p.source)
    source = program.by_name[p.source].shape
    T, N = program.timesteps, x.shape[axis_of(program, x)]
    passes = T if axis_of(program, x) else 1
    ones = np.ones_like(p.weights[0], dtype=np.int64) if p.weights else None
    there = (p.total() != 0).astype(np.int64) if p.weights else None
    full = np.ones((1, *source), np.int64)
    dense = summed(p, full, node.shape, ones) if p.weights else 0
    if values is None:  # potentials
        effective = summed(p, full, node.shape, there) if p.weights else 0
        adds = prod(source) * T * N if p.kind == "identity" and is_potential(program, p) else 0
        return 0, 0, dense * T * N, effective * T * N, 0, 0, adds
    flat = values.reshape(T * N, *source).astype(np.int64)
    if is_pixel(program, p.source):
        effective = summed(p, (flat != 0).astype(np.int64), node.shape, there) if p.weights else 0
        return 0, 0, dense * T * N, effective, 0, 0, 0
    seen = values if axis_of(program, x) else values.sum(axis=0, keepdims=True)
    nonzero = (seen.reshape(-1, *source) != 0).astype(np.int64)
    return (
        summed(p, flat, node.shape, ones),
        summed(p, flat, node.shape, there) if p.weights else 0,
        0,
        0,
        dense * passes * N,
        summed(p, nonzero, node.shape, ones) if p.weights else 0,
        0,
    )


def is_potential(program, p):
    return isinstance(program.by_name[p.source], Accumulator)


@given(cases())
@settings(max_examples=30)
def test_work_is_what_a_naive_count_gives(case):
    program, x = case
    activity = ClockedEngine(program).run(x)
    works = iter(profiled(program, x).projections)
    for node in program.accumulators:
        for p in node.projections:
            work, n = next(works), x.shape[axis_of(program, x)]
            found = (work.sops, work.acs, work.macs, work.effective_macs, work.ann_dense,
                     work.ann_nonzero, work.adds)  # fmt: skip
            assert [round(v * n) for v in found] == list(naive(program, x, activity, node, p))
            assert (work.source, work.target, work.kind) == (p.source, node.name, p.kind)


@given(st.one_of(cases(), gate_cases(), attention_cases()))
@settings(max_examples=24)
def test_sops_and_spikes_are_those_of_the_rates(case):
    program, x = case
    activity = ClockedEngine(program).run(x)
    found, expected = profiled(program, x), rates(activity, program)
    sops = synaptic_operations(activity, program)
    for p, r in zip(found.populations, expected.populations, strict=True):
        assert round(p.sops * found.samples) == sops[p.name] == r.sops
        assert round(p.spikes * found.samples) == r.spikes
        assert (p.silent, p.neurons, p.D) == (r.silent, r.neurons, r.ticks)
        np.testing.assert_allclose(p.nsfr, r.nsfr)
        np.testing.assert_allclose([p.mean_count, p.saturated], [r.mean_count, r.saturated])
    assert round(found.total("sops") * found.samples) == expected.sops


@given(st.one_of(cases(), gate_cases(), attention_cases()), st.integers(1, 3))
@settings(max_examples=15)
def test_parts_add_up(case, size):
    program, x = case
    cuts = list(range(size, x.shape[axis_of(program, x)], size))
    assert profiled(program, x, cuts).to_json() == profiled(program, x).to_json()


@given(attention_cases())
@settings(max_examples=12)
def test_attention_is_two_products_of_an_ann(case):
    """Multiply-adds of (k v^T) q or v (k^T q), and those whose streamed factor is not 0."""
    program, x = case
    found = profiled(program, x)
    counts = ClockedEngine(program).run(x).counts
    attentions = [n for n in program.nodes if isinstance(n, Attention)]
    works = [w for w in found.projections if w.kind == "attention"]
    assert len(works) == 3 * len(attentions) > 0
    passes = program.timesteps if axis_of(program, x) else 1
    for i, node in enumerate(attentions):
        q, k, v = (program.by_name[name].shape for name in node.sources)
        d, e = q[0] // node.heads, v[0] // node.heads
        N, M = prod(q[1:]), prod(k[1:])
        products = {"kv": d * e * (M + N), "qk": N * M * (d + e)}[node.order] * node.heads
        three = works[3 * i : 3 * i + 3]
        assert sum(w.ann_dense for w in three) == passes * products
        assert sum(w.padded for w in three) == program.timesteps * products
        each = {"kv": (e, e, 0), "qk": (M, 0, N)}[node.order]
        added = {"kv": (e, e, d), "qk": (M, N, N)}[node.order]  # by one spike
        for work, rows, additions in zip(three, each, added, strict=True):
            if work.source in counts:
                values = counts[work.source]
                assert round(work.sops * found.samples) == int(values.sum()) * additions
                seen = values if passes > 1 else values.sum(axis=0, keepdims=True, dtype=int)
                nonzero = int((seen != 0).sum())
                assert round(work.ann_nonzero * found.samples) == nonzero * rows


@given(cases())
@settings(max_examples=12)
def test_events_are_where_spikes_are(case):
    program, x = case
    activity = ClockedEngine(program).run(x, [n.name for n in program.neurons])
    found = profiled(program, x)
    per_tick = np.zeros((found.clock_ticks, activity.samples), int)
    for neuron in program.neurons:
        train = activity.spikes[neuron.name]  # (T, D, N, *shape)
        for t, d in np.ndindex(train.shape[:2]):
            tick = (neuron.depth + t) * program.ticks + d
            per_tick[tick] += train[t, d].reshape(activity.samples, -1).sum(axis=1, dtype=int)
    assert found.events.peak == per_tick.max()
    np.testing.assert_allclose(found.events.per_tick, per_tick.mean(axis=1))
    neurons = max(sum(prod(n.shape) for n in program.neurons), 1)
    for t, d in np.ndindex(program.timesteps, program.ticks):
        fired = sum(int((c[t] > d).sum()) for c in activity.counts.values())
        assert found.nsfr[t][d] == pytest.approx(fired / (neurons * found.samples))
    assert found.nsfr_clock * neurons * found.clock_ticks == pytest.approx(found.spikes)
    for p in found.populations:
        counts = activity.counts[p.name]
        assert list(p.histogram) == [int((counts == k).sum()) for k in range(p.D + 1)]
        assert p.nonzero == pytest.approx((counts != 0).mean())
        assert p.nsfr_clock == pytest.approx(counts.sum() / counts[0].size / found.clock_ticks)


# -- of a session ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return small_model.compiled().save(tmp_path_factory.mktemp("profile") / "small.snn")


def test_engines_give_one_profile(path):
    x = small_model.samples()
    found = [Session(path, engine).profile(x).to_json() for engine in ("event", "clocked")]
    assert [p.pop("engine") for p in found] == ["event", "clocked"]
    assert found[0] == found[1]
    json.dumps(found[0], allow_nan=False)


def test_sequences_are_frames_of_an_ann(tmp_path):
    made = small_model.compiled(timesteps=3, sequence=True)
    x = np.stack([small_model.samples()] * 3, axis=1)
    found = Session(made, "event", batch=2).profile(x)
    still = Session(small_model.compiled(timesteps=3), "event", batch=2).profile(x[:, 0])
    assert (found.static, still.static) == (False, True)
    assert found.total("sops") == still.total("sops")
    assert found.total("macs") == still.total("macs")
    for frames, image in zip(found.projections, still.projections, strict=True):
        assert frames.ann_dense == 3 * image.ann_dense
        assert frames.ann_macs == 3 * image.ann_macs
    spikes = [w for w in still.projections if w.reads == "spikes"]
    assert {w.activation_bits for w in spikes} == {4}  # 0 to 12
    assert {w.activation_bits for w in found.projections if w.reads == "spikes"} == {3}


def test_a_profile_names_its_artefact(path):
    model, made = load(path), small_model.compiled()
    assert model.sha256 == made.sha256
    assert len(model.sha256) == 64
    assert Session(path).profile(small_model.samples()).hash == model.sha256
    other = small_model.compiled()
    other.manifest["name"] = other.manifest["name"] + "2"
    assert other.sha256 != made.sha256


def test_maps_are_the_counts(path):
    from base64 import b64decode

    x = small_model.samples()
    session = Session(path, batch=2)
    found = session.profile(x, maps=3).to_json()["maps"]["samples"]
    counts = session.trace(x).counts
    assert [sample["index"] for sample in found] == [0, 1, 2]
    for sample in found:
        kept = {"x": x[None], **counts}
        told = {"x": sample["input"], **sample["counts"]}
        for name, data in told.items():
            values = np.frombuffer(b64decode(data["data"]), np.uint8).reshape(data["shape"])
            np.testing.assert_array_equal(values, kept[name][:, sample["index"]])
    assert session.profile(x).to_json()["maps"] is None


def test_bytes_are_those_of_the_proved_bits(path):
    session = Session(path)
    found = session.profile(small_model.samples())
    proved = {bound.accumulator: bound for bound in bounds(session.model.program)}
    for layer in found.layers:
        bound = proved[layer.name]
        elements = prod(session.model.program.by_name[layer.name].shape)
        assert layer.state_bytes == -(-elements * bound.bits // 8)
        moved = (layer.work["sops"] + layer.updates) * 2 * bound.bits / 8
        assert layer.state_touched == pytest.approx(moved)
        operations = layer.work["sops"] + layer.work["macs"]  # a weight is a byte here
        assert layer.weights_touched == pytest.approx(operations)
        assert layer.work["weight_bytes"] == layer.work["weights"]
    of_neurons = [p.state_bits for p in found.populations]
    assert of_neurons == [proved[n.source].bits for n in session.model.program.neurons]
    assert [p.updates for p in found.populations] == [4 * p.neurons for p in found.populations]


def test_memory_does_not_grow_with_the_samples():
    program = small_model.program()
    counted, engine = Counted(program, is_static=True), ClockedEngine(program)
    x = small_model.samples()

    def held():
        arrays = [*counted.nonzero.values(), counted.per_tick]
        arrays += [a for by in counted.spikes.values() for a in by.values()]
        return sum(a.nbytes for a in arrays)

    counted.add(engine.run(x), x)
    before = held()
    for _ in range(5):
        counted.add(engine.run(x), x)
    assert held() == before > 0
    assert counted.samples == 6 * len(x)
    assert prod(program.source.shape) > 0
