"""The exactness contract with attention: every form fires the same spikes, and levels are exact."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from attention_nets import attend
from float_networks import Case, Net, case_of, examples, lowered
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from interpreter import interpret
from test_agreement import BITS, Forms

from snncc.backends.clocked.engine import ClockedEngine
from snncc.backends.event.engine import KERNELS, EventEngine
from snncc.errors import UnsupportedModelError
from snncc.ir.graphs import nodes
from snncc.ir.oracle import evaluate
from snncc.passes.integers.quantise_input import QuantiseInput
from snncc.program import Accumulator, Attention, Neuron, Relay


def disagreements(f: Forms) -> list[str]:
    """Populations, potentials and trains on which any two forms differ."""
    nodes_of = [n for n in f.program.nodes if isinstance(n, (Neuron, Accumulator))]
    names = [n.name for n in nodes_of]
    expected = evaluate(f.quantised, f.case.feeds, names)
    potentials = [n.name for n in f.program.accumulators]
    ran = ClockedEngine(f.program).run(f.case.q, probes=names)
    counts, sums, _ = interpret(f.program, f.case.q)
    events = {k: EventEngine(f.program, kernels=k).run(f.case.q, probes=names) for k in KERNELS}
    made = {str(o.name) for n in f.spiking.graph for o in n.outputs}
    trains = [f"{n.name}:spikes" for n in f.program.neurons]
    ticks = evaluate(f.spiking, f.case.feeds, [*(p for p in potentials if p in made), *trains])
    found = []
    for name in names:
        others = {
            "clocked": {**ran.counts, **ran.potentials}[name][0],
            "interpreter": {**counts, **sums}[name][0],
            **{f"event, {k}": {**e.counts, **e.potentials}[name][0] for k, e in events.items()},
        }
        if f"{name}:spikes" in ticks:
            train = ticks[f"{name}:spikes"]
            others["spiking"] = train.sum(0, dtype=np.int64)
            if not np.array_equal(train, ran.spikes[name][0]):
                found.append(f"{name}: trains")
        elif name in ticks:
            others["spiking"] = ticks[name]
        found += [
            f"{name}: {form}"
            for form, values in others.items()
            if not np.array_equal(values, expected[name])
        ]
    return found


@st.composite
def attention_cases(draw: st.DrawFn) -> Case:
    """A stem, attention in a random spelling, norms and rounding at random, perhaps twice."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    ties = draw(st.booleans())
    scale = 2.0**-6 if ties else float(rng.uniform(0.005, 0.02))
    net = Net((2, 5, 5), draw(st.integers(0, 2**16)), ties, rms=128 * scale)
    heads, each = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    rounding = draw(st.sampled_from(["half-even", "half-up"]))
    net.conv(heads * each, stride=draw(st.integers(1, 3)), pads=1, D=4).fire(4, rounding=rounding)
    for _ in range(draw(st.integers(1, 2))):
        D = draw(st.integers(1, 5))
        pick = lambda *options: draw(st.sampled_from(options))  # noqa: E731
        attend(
            net, heads, op=pick("MatMul", "Einsum"), first=pick("qk", "kv"),
            layout=pick("bhnd", "bhdn"), scales=set(pick("", "q", "y", "k first").split()),
            wide=pick(1, 1, 2), factor=0.25 if ties else 0.3, D=D,
            norm=pick(1.0, float(D), 2.0), rounding=rounding, after=pick(1.0, 0.125),
            pooled=pick("", "", "MaxPool") if _leaves_tokens(net.shape, heads) else "",
        )  # fmt: skip
        net.conv(heads * each, 1, D=4).fire(4)
    net.mean().linear(3)
    q = rng.integers(0, 256, (draw(st.integers(1, 2)), 2, 5, 5)).astype(np.uint8)
    return Case(net, QuantiseInput((scale,), (0.0,)), q)


def _leaves_tokens(shape: tuple[int, ...], heads: int) -> bool:
    """Whether pooled keys are more than one token of one channel a head, which is refused."""
    channels, height, width = shape
    return min(height, width) > 3 or (min(height, width) > 1 and channels > heads)


def forms(case: Case, bits: int) -> Forms:
    """All forms; weights of too few bits are not drawn."""
    try:
        return Forms.of(case, bits)
    except UnsupportedModelError as e:
        assume("do not fit" not in str(e))
        raise


@settings(max_examples=15)
@given(attention_cases(), BITS)
def test_all_forms_fire_the_same_spikes(case: Case, bits: int) -> None:
    assert disagreements(forms(case, bits)) == []


@pytest.mark.slow
@settings(max_examples=examples(500))
@given(attention_cases(), BITS)
def test_all_forms_fire_the_same_spikes_on_many_networks(
    compared: Counter[str], case: Case, bits: int
) -> None:
    assert disagreements(forms(case, bits)) == []
    compared["with attention"] += 1


# -- levels --------------------------------------------------------------------------------


def attention_neuron(
    head_dim: int, scale: float, D: int, rounding: str, heads: int = 1
) -> tuple[Forms, Neuron]:
    """A network whose q, k and v have norm D, and whose attention neuron has D levels."""
    net = Net((2, 4, 4), rms=2.0).conv(heads * head_dim, 1, D=D).fire(D)
    attend(net, heads, norm=float(D), D=D, rounding=rounding, after=scale, fire_behind=False)
    net.fire(D, rounding=rounding).conv(2, 1)
    f = Forms.of(case_of(net, scale=2.0**-5, samples=6), 16)
    return f, f.program.neurons[-1]


@pytest.mark.parametrize(
    ("head_dim", "levels"),
    [
        (16, [65, 192, 321, 448]),
        (12, [56, 167, 278, 388]),
        (24, [79, 236, 392, 549]),
        (30, [88, 263, 439, 614]),
        (32, [91, 272, 453, 634]),
        (45, [108, 322, 537, 752]),
    ],
)
def test_levels_of_the_base_networks_are_the_integers_that_reach_them(
    head_dim: int, levels: list[int]
) -> None:
    """Scale 2 d^-1/2 and norms of 4 three times: u = M * scale / 64, rounded half to even."""
    f, neuron = attention_neuron(head_dim, 2 * head_dim**-0.5, 4, "half-even")
    assert neuron.levels.tolist() == [levels]
    assert first_integers(2 * head_dim**-0.5, 4, "half-even", 800) == levels
    assert disagreements(f) == []


@pytest.mark.parametrize(
    ("D", "levels"),
    [
        (4, [256, 768, 1280, 1792]),
        (8, [2048, 6144, 10240, 14336, 18432, 22528, 26624, 30720]),
    ],
)
def test_levels_of_the_large_networks_are_ties_that_round_up(D: int, levels: list[int]) -> None:
    f, neuron = attention_neuron(6, 0.125, D, "half-up", heads=2)
    assert neuron.levels.tolist() == [levels]
    assert first_integers(0.125, D, "half-up", 31000) == levels
    assert disagreements(f) == []


def first_integers(scale: float, D: int, rounding: str, top: int) -> list[int]:
    """The first integer M that reaches each level, in the float32 arithmetic of the network."""
    M = np.arange(top + 1, dtype=np.float32)
    u = np.clip(M / np.float32(D) ** 3 * np.float32(scale), 0, D)
    a = np.rint(u) if rounding == "half-even" else np.floor(u + np.float32(0.5))
    return [int(np.argmax(a >= k)) for k in range(1, D + 1)]


@pytest.mark.parametrize("rounding", ["half-even", "half-up"])
def test_ties_are_met_and_decided_alike(rounding: str) -> None:
    f, neuron = attention_neuron(4, 0.5, 4, rounding)
    potential = evaluate(f.quantised, f.case.feeds, [neuron.source])[neuron.source]
    ties = [32 * (2 * k - 1) * 2 for k in range(1, 5)]  # u = M / 128
    assert np.isin(potential, ties).any()
    assert disagreements(f) == []


# -- windows and bounds --------------------------------------------------------------------


@pytest.fixture(scope="module")
def one() -> Forms:
    net = Net((2, 6, 6), seed=3, rms=2.0).conv(6, stride=2, pads=1).fire(4)
    attend(net, 2, D=4, norm=4.0, after=2.0).conv(4, 1)
    return Forms.of(case_of(net, scale=2.0**-5, samples=8), bits=8)


def test_q_is_relayed_by_one_window(one: Forms) -> None:
    (relay,) = (n for n in one.program.nodes if isinstance(n, Relay))
    (attention,) = (n for n in one.program.nodes if isinstance(n, Attention))
    stem, q, k, v, after = one.program.neurons
    assert (stem.depth, q.depth, k.depth, v.depth, relay.depth, after.depth) == (0, 1, 1, 1, 2, 3)
    assert (relay.source, attention.q, attention.k) == (q.name, relay.name, k.name)
    assert one.program.windows == 4


def test_no_relay_where_q_comes_late_by_itself() -> None:
    net = Net((2, 6, 6), seed=3, rms=2.0).conv(4, stride=2, pads=1).fire(4)
    early, shape = net.x, net.shape
    net.conv(4, 1).fire(4).conv(4, 1).fire(4)
    q = net.node("Reshape", net.x, net.const([0, 4, 9], int))
    kv = net.node("Reshape", early, net.const([0, 4, 9], int))
    context = net.node("MatMul", kv, net.node("Transpose", kv, perm=[0, 2, 1]))
    net.x = net.node("Reshape", net.node("MatMul", context, q), net.const([0, *shape], int))
    f = Forms.of(case_of(net.affine("Mul", 0.05).fire(4).conv(2, 1), scale=2.0**-5), 8)
    assert not [n for n in f.program.nodes if isinstance(n, Relay)]
    assert [n.depth for n in f.program.neurons] == [0, 1, 2, 3]
    assert disagreements(f) == []


def test_the_payload_is_proved(one: Forms) -> None:
    (attention,) = (n for n in one.program.nodes if isinstance(n, Attention))
    assert attention.payload == 3 * 9 * 4**3  # channels of a head, positions, counts


def test_products_beyond_what_is_exact_are_refused() -> None:
    net = Net((1, 190, 190), rms=2.0).conv(2, 1, D=255).fire(255)
    attend(net, 1, D=255, first="kv")
    with pytest.raises(UnsupportedModelError, match="its products may reach"):
        lowered(case_of(net.conv(2, 1), samples=1), 8, check=False)


# -- the law has teeth ---------------------------------------------------------------------


def test_another_order_of_q_and_k_is_seen(one: Forms) -> None:
    (attention,) = (n for n in one.program.nodes if isinstance(n, Attention))
    swapped = replace(attention, k=attention.v, v=attention.k)
    program = replace(
        one.program, nodes=tuple(swapped if n is attention else n for n in one.program.nodes)
    )
    found = disagreements(replace(one, program=program))
    assert found[0].startswith("merge")


def test_a_train_without_its_last_tick_is_seen(one: Forms) -> None:
    spiking = one.spiking.clone()
    (node,) = nodes(spiking, "SpikeAttention")
    q = node.inputs[0]
    assert q is not None
    from snncc.ir.graphs import Edit

    edit = Edit(node, "mutant")
    limits = [edit.const(f"cut{i}", np.array([n])) for i, n in enumerate((0, 3, 0))]
    node.replace_input_with(0, edit.op("Slice", q, *limits, name="cut", dtype=q.dtype))
    found = disagreements(replace(one, spiking=spiking))
    assert any("spiking" in line for line in found)


# -- around attention ----------------------------------------------------------------------


def test_an_embedding_of_positions_joins_the_layer_ahead_of_it() -> None:
    net = Net((2, 6, 6), seed=5, rms=2.0).conv(4, stride=2, pads=1)
    net.then("Reshape", net.const([0, 4, 9], int)).then("Transpose", perm=[0, 2, 1])
    net.then("Add", net.const(net.rng.normal(size=(1, 9, 4))), module="positions")
    net.then("Transpose", perm=[0, 2, 1]).then("Reshape", net.const([0, 4, 3, 3], int))
    net.shape = (4, 3, 3)
    attend(net.fire(4), 2, after=0.125).conv(3, 1)
    f = Forms.of(case_of(net, scale=2.0**-5), 8)
    assert f.program.accumulators[0].bias.shape == (4, 3, 3)
    assert disagreements(f) == []


@pytest.mark.parametrize("first", ["features", "channels"])
def test_tokens_end_in_a_mean_or_in_features(first: str) -> None:
    net = Net((2, 6, 6), seed=6, rms=2.0).conv(6, stride=2, pads=1).fire(4)
    attend(net, 2, after=0.125)
    net.then("Reshape", net.const([0, 6, 9], int))
    if first == "channels":
        net.then("Transpose", perm=[0, 2, 1])
        net.then("ReduceMean", net.const([1], int), keepdims=0)
        net.shape = (6,)
    else:
        net.then("Flatten", axis=1)
        net.shape = (54,)
    f = Forms.of(case_of(net.linear(3), scale=2.0**-5), 8)
    assert disagreements(f) == []
