"""What fits a chip and what it would take of it, by hand and against the laws of counting."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from attention_networks import one_attention
from hypothesis import given
from hypothesis import strategies as st
from small_model import accumulator, program

from snncc.backends.chip import chips
from snncc.backends.chip.chips import CHIPS, chip, demand_json, demands, require_fit
from snncc.backends.engines import ENGINES
from snncc.backends.lava.kinds.base import LAVA, Bits
from snncc.cli.compile import compile_
from snncc.compiler.options import Options, bits_of
from snncc.errors import TargetError, UsageError
from snncc.program import Gate, Neuron, Program, Readout, Source, Sum

LOIHI = chip("loihi2")


def layer(w: np.ndarray, bias: int = 0, **projection: object) -> Program:
    """One linear layer on pixels, and its neurons."""
    n = len(w)
    node = accumulator("v", (n,), "x", "linear", w, np.full(n, bias), 255, "net.fc")
    if projection:
        wide = replace(node.projections[0], **projection)
        node = replace(node, projections=(wide,), low=-(2**50), high=2**50)
    fire = Neuron("fire", (n,), "v", np.ones((1, 4), np.int64), 0)
    nodes = (Source("x", (w.shape[1],), 255), node, fire, Readout("y", (n,), "fire", 1.0))
    return Program("net", nodes, ticks=4)


def test_the_limits_are_those_of_the_file():
    assert CHIPS == ("loihi2",)
    assert (LOIHI.weight_bits, LOIHI.state_bits) == (8, 24)
    assert (LOIHI.cores, LOIHI.neurons_per_core, LOIHI.synapse_bytes_per_core) == (128, 8192, 2**17)
    with pytest.raises(UsageError, match="target='loihi3': no such target; there are loihi2"):
        chip("loihi3")


def test_the_command_line_knows_them():
    (option,) = (p for p in compile_.params if p.name == "target")
    assert tuple(option.type.choices) == CHIPS


def test_the_bits_are_those_that_lava_is_proved_for():
    assert Bits(LOIHI.weight_bits, LOIHI.state_bits) == LAVA
    assert ENGINES["lava"].state_bits == LOIHI.state_bits - 1


@pytest.mark.parametrize(
    ("limits", "weight", "fault"),
    [
        ({}, 127, ""),
        ({"weight_bits": 16, "state_bits": 32}, 127, ""),
        ({"weight_bits": 6}, 31, ""),
        ({"weight_bits": 6}, -32, ""),
        ({"weight_bits": 6}, 32, "net.fc (Accumulator): weights from 'x' reach 32, beyond 6 bits"),
        ({"weight_bits": 6}, -33, "net.fc (Accumulator): weights from 'x' reach 32, beyond 6"),
        ({"state_bits": 13}, 16, ""),
        ({"state_bits": 13}, 17, "net.fc (Accumulator): the potential may reach 4,335, beyond the "
                                 "13 bits of a state word (4,095)"),
    ],
)  # fmt: skip
def test_the_bits_in_the_file_are_those_that_are_required(limits, weight, fault, monkeypatch):
    monkeypatch.setattr(chips, "chip", lambda name: replace(LOIHI, **limits))
    net = layer(np.array([[weight]], np.int8))
    assert demand_json(net, "loihi2")["fits_bits"] is not bool(fault)
    if not fault:
        require_fit(net, "loihi2")
        return
    with pytest.raises(TargetError) as caught:
        require_fit(net, "loihi2")
    assert str(caught.value.faults[0]).startswith(fault)


def test_more_bits_than_lava_has_help_nothing(monkeypatch):
    monkeypatch.setattr(chips, "chip", lambda name: replace(LOIHI, state_bits=32))
    with pytest.raises(TargetError, match="beyond the 24 bits"):
        require_fit(layer(np.array([[1]], np.int8), 2**23), "loihi2")


@pytest.mark.parametrize(("bias", "fits"), [(2**23 - 1 - 255, True), (2**23 - 255, False)])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_border_of_the_state_is_exact(bias, fits, sign):
    net = layer(np.array([[sign]], np.int8), sign * bias)
    if fits:
        require_fit(net, "loihi2")
        return
    with pytest.raises(TargetError, match="does not fit loihi2") as caught:
        require_fit(net, "loihi2")
    assert "8,388,608" in str(caught.value.faults[0])


def test_wide_weights_and_the_potential_are_named_with_their_layer():
    low, high = np.array([[100]], np.int8), np.array([[127]], np.int8)
    net = layer(low, weights=(low, high))
    with pytest.raises(TargetError) as caught:
        require_fit(net, "loihi2")
    assert {fault.where for fault in caught.value.faults} == {"net.fc"}


@pytest.mark.parametrize(
    ("shift", "todo"),
    [
        (12, "fewer weight_bits"),
        (13, "leave out what 'x' adds, or train on: its weights count 2^13 times"),
    ],
)
def test_weights_that_no_bits_make_lighter_are_named(shift, todo):
    net = layer(np.array([[127]], np.int8), shift=shift)
    with pytest.raises(TargetError) as caught:
        require_fit(net, "loihi2")
    assert {fault.todo for fault in caught.value.faults} == {todo}


# -- what it would take --------------------------------------------------------------------


def test_a_small_network_by_hand():
    rows = {row.node: row for row in demands(program(), LOIHI)}
    assert [(r.node, r.neurons, r.synapses, r.weight_bytes) for r in rows.values()] == [
        ("conv1:v", 3 * 36, 3 * 36 * 9, 27),
        ("pool1", 27, 27 * 4, 12),
        ("conv2:v", 144, 144 * 27, 16 * 27),
        ("fc:v", 5, 5 * 144, 5 * 144),
    ]
    assert rows["conv1:v"].module == "net.conv1"
    whole = demand_json(program(), "loihi2")
    assert (whole["cores_shared"], whole["cores_unrolled"], whole["feasible"]) == (4, 4, True)
    assert whole["neurons"] == sum(row.neurons for row in rows.values())


def test_a_second_population_of_a_layer_takes_neurons_of_its_own():
    net = layer(np.ones((3, 2), np.int8))
    twin = replace(net.neurons[0], name="twin")
    both = replace(net, nodes=(*net.nodes[:-1], twin, net.nodes[-1]))
    assert [demands(n, LOIHI)[0].neurons for n in (net, both)] == [3, 6]


def test_gates_and_sums_take_a_neuron_with_two_synapses_for_each_output():
    net = program()
    gate = Gate("gate", (3, 6, 6), "fire1", "fire1", "and", 16)
    added = Sum("sum", (3, 6, 6), "gate", "fire1", 20)
    at = [node.name for node in net.nodes].index("fire1") + 1
    more = replace(net, nodes=(*net.nodes[:at], gate, added, *net.nodes[at:]))
    more.validate()
    rows = [row for row in demands(more, LOIHI) if row.node in ("gate", "sum")]
    found = [(r.neurons, r.synapses, r.weight_bytes, r.cores_shared, r.state_bits) for r in rows]
    assert found == [(108, 216, 6, 1, 6), (108, 216, 6, 1, 6)]
    assert "gate or sum" in demand_json(more, "loihi2")["layout"]


@pytest.mark.parametrize(
    ("order", "neurons", "synapses", "held"),
    [("kv", 120 + 2 * 15, 120 * 3, 2 * 15 * 3), ("qk", 120 + 2 * 144, 120 * 12, 2 * 144 * 3)],
)
def test_an_attentions_matrix_is_counted(order, neurons, synapses, held):
    program, _ = one_attention(order)
    rows = {row.node: row for row in demands(program, LOIHI)}
    found = rows["a"]
    assert (found.neurons, found.synapses, found.weight_bytes) == (neurons, synapses, held)
    assert found.cores_shared == found.cores_unrolled == 1
    relay = next(row for name, row in rows.items() if name.endswith(":again"))
    assert relay.neurons == relay.synapses


def test_a_layer_that_no_core_holds_is_not_feasible():
    wide = layer(np.ones((1, 2**17 + 1), np.int8))
    whole = demand_json(wide, "loihi2")
    assert (whole["cores_shared"], whole["cores_unrolled"]) == (None, None)
    assert not whole["feasible"]


@given(st.integers(1, 300), st.integers(1, 300))
def test_cores_hold_what_they_are_given(outputs, inputs):
    small = replace(LOIHI, neurons_per_core=7, synapse_bytes_per_core=300)
    (row,) = demands(layer(np.ones((outputs, inputs), np.int8)), small)
    each = min(7, 300 // inputs)
    assert row.cores_unrolled == row.cores_shared == ceil(outputs / each)


def test_shared_weights_need_no_more_cores_than_stored_ones():
    rows = demands(program(), replace(LOIHI, neurons_per_core=20, synapse_bytes_per_core=200))
    assert all(row.cores_shared <= row.cores_unrolled for row in rows)
    conv2 = rows[2]  # 9 neurons a channel, 27 bytes each: 2 channels a core, or 7 neurons
    assert (conv2.cores_shared, conv2.cores_unrolled) == (8, 21)


def test_an_attention_takes_neurons_for_its_matrix():
    on = replace(LOIHI, neurons_per_core=7)
    (row,) = [r for r in demands(one_attention()[0], on) if r.node == "a"]
    assert row.neurons == 10 * 12 + 6 * 5  # what it emits, and k v^T of two heads
    assert row.cores_shared == row.cores_unrolled == ceil(150 / 7)


# -- compiling for it ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "given_bits", "bits"),
    [
        (None, None, 16),
        (None, 12, 12),
        ("loihi2", None, 8),
        ("loihi2", 6, 6),
        (None, "auto", "auto"),
    ],
)
def test_a_target_says_how_many_bits_there_are(target, given_bits, bits):
    assert bits_of(Options(target=target, weight_bits=given_bits)) == bits


@pytest.mark.parametrize("bits", [9, 16, "auto"])
def test_more_bits_than_the_target_takes_are_refused(bits):
    with pytest.raises(UsageError, match=f"takes weights of up to 8 bits, not {bits}"):
        bits_of(Options(target="loihi2", weight_bits=bits))
