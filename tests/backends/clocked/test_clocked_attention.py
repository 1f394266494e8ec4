"""Attention in the clocked engine: the cross terms of its ticks, and the window it waits."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
from attention_networks import attention_cases, one_attention
from float_networks import examples
from hypothesis import given, settings
from interpreter import assert_interpreted, interpret

from snncc.backends.clocked import attention_cells
from snncc.backends.clocked import engine as clocked
from snncc.backends.clocked.attention_cells import AttentionCell, RelayCell
from snncc.backends.clocked.engine import ClockedEngine
from snncc.program import Attention, Program, Relay
from snncc.runtime.result import synaptic_operations

ORDERS = pytest.mark.parametrize("order", ["kv", "qk"])


@settings(max_examples=60)
@given(attention_cases())
def test_random_networks_fire_what_plain_integers_say(case: tuple[Program, np.ndarray]) -> None:
    assert_interpreted(*case)


@settings(max_examples=15)
@given(attention_cases())
def test_pipelined_networks_do_the_same(case: tuple[Program, np.ndarray]) -> None:
    assert_interpreted(*case, pipelined=True)


@pytest.mark.slow
@settings(max_examples=examples(1000))
@given(attention_cases())
def test_many_random_networks_fire_what_plain_integers_say(
    compared: Any, case: tuple[Program, np.ndarray]
) -> None:
    assert_interpreted(*case)
    compared["with attention, clocked against the interpreter"] += 1


@ORDERS
def test_attention_is_the_product_of_the_counts(order: str) -> None:
    program, x = one_attention(order)
    run = ClockedEngine(program).run(x, probes=["a:v"])
    q, k, v = (run.counts[n][0].reshape(len(x), 2, -1, 12).astype(int) for n in "qkv")
    y = np.einsum("bhin,bhim,bhjm->bhjn", q, k, v)
    np.testing.assert_array_equal(run.potentials["a:v"][0].reshape(y.shape), y)
    assert set(np.unique(run.counts["fire"])) == {0, 1, 2, 3, 4}


def test_both_orders_are_the_same_network() -> None:
    (one, x), (two, _) = one_attention("kv"), one_attention("qk")
    first, second = (ClockedEngine(p).run(x).counts["fire"] for p in (one, two))
    np.testing.assert_array_equal(first, second)


def test_attention_weighs_two_windows() -> None:
    program, _ = one_attention()
    assert [n.depth for n in program.neurons] == [0, 1, 1, 1, 3]
    assert (program.windows, program.latency) == (4, 16)


# -- the law has teeth ---------------------------------------------------------------------


def first_difference(program: Program, x: np.ndarray) -> str | None:
    expected, _, _ = interpret(program, x)
    counts = ClockedEngine(program).run(x).counts
    return next((n for n in expected if not np.array_equal(counts[n], expected[n])), None)


class SameTickAlone(attention_cells._Products):
    """Products of the spikes of one tick, no cross terms."""

    def add(self, one: Any, two: Any) -> None:
        self._grow(one, two)


class WithoutWhatWasBefore(attention_cells._Products):
    """One of the two cross terms is left out."""

    def add(self, one: Any, two: Any) -> None:
        before = self.sums[0]
        super().add(one, two)
        if before is not None and two is not None:
            self.matrix = self.matrix - before @ two.swapaxes(2, 3)


class InTheSameWindow(RelayCell):
    """The third train arrives together with the other two."""

    def __init__(self, node: Relay, scene: Any) -> None:
        super().__init__(node, scene)
        self.delay = 0


class TwoTicksEarly(RelayCell):
    """Its first spikes meet products that lack the last tick's."""

    def __init__(self, node: Relay, scene: Any) -> None:
        super().__init__(node, scene)
        self.delay -= 2


class OtherHeads(AttentionCell):
    """Channels of a head lie apart instead of side by side."""

    def _by_head(self, emitted: Any, name: str) -> Any:
        found = super()._by_head(emitted, name)
        if found is None:
            return None
        n, h, d, m = found.shape
        return found.reshape(n, h * d, m).reshape(n, d, h, m).swapaxes(1, 2)


@ORDERS
def test_without_mutation_nothing_differs(order: str) -> None:
    assert first_difference(*one_attention(order)) is None


@ORDERS
@pytest.mark.parametrize("products", [SameTickAlone, WithoutWhatWasBefore])
def test_a_lost_cross_term_is_seen(order: str, products: type[Any]) -> None:
    with mock.patch.object(attention_cells, "_Products", products):
        assert first_difference(*one_attention(order)) == "fire"


@ORDERS
@pytest.mark.parametrize("relay", [InTheSameWindow, TwoTicksEarly])
def test_a_train_that_does_not_wait_is_seen(order: str, relay: type[RelayCell]) -> None:
    with mock.patch.dict(clocked._CELLS, {Relay: relay}):
        assert first_difference(*one_attention(order)) == "fire"


@ORDERS
def test_heads_that_are_laid_out_otherwise_are_seen(order: str) -> None:
    with mock.patch.dict(clocked._CELLS, {Attention: OtherHeads}):
        assert first_difference(*one_attention(order)) == "fire"


# -- what it costs -------------------------------------------------------------------------


@ORDERS
def test_a_spike_is_counted_once_for_every_element_it_adds_to(order: str) -> None:
    program, x = one_attention(order)
    activity = ClockedEngine(program).run(x)
    d, e, positions = 3, 5, 12
    fan_out = {"kv": (e, e, d), "qk": (positions,) * 3}[order]
    found = synaptic_operations(activity, program)
    for name, each in zip("qkv", fan_out, strict=True):
        assert found[name] == each * activity.counts[name].sum(dtype=int)
