"""Attention and relays in a Program: what is valid, and what is said of the rest."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from attention_networks import attention_programs, one_attention
from hypothesis import given, settings
from networks import changed

from snncc.errors import BadInputError
from snncc.program import Program
from snncc.program.attention import cheaper_order, reach_of


@settings(max_examples=40)
@given(attention_programs())
def test_json_and_arrays_give_the_same_program(program: Program) -> None:
    data, arrays = program.to_json()
    again = Program.from_json(json.loads(json.dumps(data)), arrays)
    assert again.to_json()[0] == data
    assert [type(n) for n in again.nodes] == [type(n) for n in program.nodes]


@pytest.mark.parametrize("junk", [None, -1, 10**30, 1.5, True, "z", [], [1], {}], ids=repr)
def test_junk_in_any_field_is_bad_input_or_a_valid_program(junk: Any) -> None:
    data, arrays = one_attention()[0].to_json()
    for node in data["nodes"]:
        if node["type"] in ("relay", "attention"):
            for key, value in list(node.items()):
                node[key] = junk
                with suppress(BadInputError):
                    Program.from_json(data, arrays)
                node[key] = value


def fault_of(name: str, **values: Any) -> str:
    program, _ = one_attention()
    with pytest.raises(BadInputError) as caught:
        changed(program, name, **values).validate()
    return caught.value.faults[0].what


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"order": "vk"}, "unknown order 'vk'; there are kv, qk"),
        ({"heads": 4}, "4 heads do not divide the channels"),
        ({"heads": 0}, "0 heads do not divide the channels"),
        ({"q": "x"}, "reads 'x', which fires no spike train"),
        ({"k": "k:v"}, "reads 'k:v', which fires no spike train"),
        ({"k": "v"}, "q (6, 3, 4), k (10, 3, 4) and v (10, 3, 4) do not go together"),
        ({"shape": (6, 3, 4)}, "q (6, 3, 4), k (6, 3, 4) and v (10, 3, 4) do not give (6, 3, 4)"),
        ({"q": "q"}, "reads 'q' before the other two are complete; relay it"),
        ({"order": "qk"}, "reads 'v' before the other two are complete; relay it"),
        ({"payload": 2303}, "payload 2303 is below 2304"),
        ({"payload": 2**53}, "products may reach 9007199254740992, beyond 2**53"),
        ({"heads": 2.0}, "field 'heads' is not of type int"),
    ],
)
def test_attention_that_cannot_be_is_refused(values: dict[str, Any], what: str) -> None:
    assert fault_of("a", **values) == what


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"source": "q:v"}, "reads 'q:v', which fires no spike train"),
        ({"source": "x"}, "reads 'x', which fires no spike train"),
        ({"shape": (3, 6, 4)}, "reads (6, 3, 4) as (3, 6, 4)"),
        ({"payload": 3}, "payload 3, not 4"),
        ({"payload": 256}, "payload 256, not 4"),
        ({"depth": 1}, "fires too early at depth 1"),
        ({"depth": 99}, "fires too late at depth 99"),
    ],
)
def test_a_relay_that_cannot_be_is_refused(values: dict[str, Any], what: str) -> None:
    assert fault_of("q:again", **values) == what


def test_the_neuron_behind_attention_waits_for_the_relay() -> None:
    assert fault_of("fire", depth=2) == "fires too early at depth 2"


@pytest.mark.parametrize("source", ["a", "q:again"])
def test_no_result_is_read_from_a_train_or_its_products(source: str) -> None:
    shape = one_attention()[0].by_name[source].shape
    what = f"reads '{source}', of which no engine keeps values"
    assert fault_of("y", source=source, shape=shape) == what


def test_a_product_beyond_32_bits_is_refused() -> None:
    matrix, y = reach_of("kv", (1, 200, 200), (1, 200, 200), 1, (255, 255, 255))
    assert (matrix, y) == (40000 * 255**2, 40000 * 255**3)
    matrix, _ = reach_of("qk", (64, 8), (64, 9), 2, (4, 3, 2))
    assert matrix == 32 * 4 * 3


@pytest.mark.parametrize(
    ("q", "k", "v", "heads", "order"),
    [
        ((8, 14, 14), (8, 14, 14), (32, 14, 14), 8, "kv"),  # 196 positions, d = 1, e = 4
        ((64, 2, 2), (64, 2, 2), (64, 2, 2), 1, "qk"),
        ((16, 4, 4), (16, 4, 4), (16, 4, 4), 1, "kv"),  # as many: 16 positions, d = e = 16
        ((17, 4, 4), (17, 4, 4), (17, 4, 4), 1, "qk"),
        ((16, 1), (16, 100), (16, 100), 1, "qk"),  # one query
    ],
)
def test_the_order_is_the_one_with_fewer_multiplications(
    q: Any, k: Any, v: Any, heads: int, order: str
) -> None:
    assert cheaper_order(q, k, v, heads) == order
