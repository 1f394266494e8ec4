"""Gates, sums of spikes and maxima of potentials: what is valid; what is not, at its node."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gate_networks import gate_programs
from hypothesis import given, settings
from networks import changed, half_even_levels

from snncc.errors import BadInputError
from snncc.program import (
    Accumulator,
    Gate,
    Neuron,
    Pool,
    Program,
    Projection,
    Readout,
    Relay,
    Source,
    Sum,
)

WINDOW = {"kernel": (2, 2), "strides": (2, 2), "pads": (0, 0, 0, 0)}


def meeting() -> Program:
    """Two populations of D = 2 in windows 0 and 1; what they come to, and maxima of a potential."""
    shape, levels = (2, 4, 4), half_even_levels(np.array([3, 5]), 2)
    one, none = np.ones((2, 2, 1, 1), np.int8), np.zeros(2, np.int64)

    def layer(name: str, source: str, payload: int) -> Accumulator:
        p = Projection(source, "conv", (one,), payload)
        return Accumulator(name, shape, (p,), none, 0, 2 * payload)

    nodes: list[Any] = [
        Source("x", shape, 3), layer("v1", "x", 3), Neuron("n1", shape, "v1", levels, 0),
        layer("v2", "n1", 2), Neuron("n2", shape, "v2", levels, 1),
        Relay("late", shape, "n1", 1, 2),
        Gate("g", shape, "late", "n2", "and", 4), Gate("h", shape, "late", "n2", "and-not", 4),
        Sum("s", shape, "n1", "n2", 4), Sum("t", shape, "s", "g", 8),
        Pool("most", (2, 2, 2), "v1", "max", **WINDOW, payload=6),
        Accumulator("m", (2, 2, 2), (Projection("most", "identity", (), 6),), none, -6, 6),
        Readout("y", (2, 2, 2), "m", 1.0),
    ]  # fmt: skip
    return Program("meeting", tuple(nodes), ticks=2)


def put(name: str, **values: Any) -> Callable[[], Program]:
    return lambda: changed(meeting(), name, **values)


CORRUPTIONS: list[tuple[str, Callable[[], Program], str]] = [
    ("g", put("g", a="n1"), "reads trains of windows 0 and 1"),
    ("g", put("g", a="v1"), "reads 'v1', which fires no spike train"),
    ("g", put("g", b="v2"), "reads 'v2', which fires no spike train"),
    ("g", put("g", b="x"), "reads 'x', which fires no spike train"),
    ("g", put("g", b="nowhere"), "reads 'nowhere', which does not come before it"),
    ("g", put("g", b="h"), "reads 'h', which does not come before it"),
    ("h", put("h", b="g"), "reads the silence of 'g', no binary train"),
    ("h", put("h", kind="or"), "unknown gate kind 'or'; there are and, and-not"),
    ("g", put("g", payload=3), "payload 3, not 4, up to 255"),
    ("g", put("g", payload=256), "payload 256, not 4, up to 255"),
    ("g", put("g", shape=(2, 16)), r"do not give \(2, 16\)"),
    ("s", put("s", a="v1"), "reads 'v1', a potential"),
    ("s", put("s", b="y"), "reads 'y', which does not come before it"),
    ("s", put("s", payload=3), "payload 3 is below 4"),
    ("s", put("s", payload=2**62), "payload 4611686018427387904 is below 4"),
    ("s", put("s", shape=(2, 16)), r"reads \(2, 4, 4\) as \(2, 16\)"),
    ("most", put("most", payload=5), "payload 5 is below 6"),
    ("m", put("m", low=-5), r"declared bounds \[-5, 6\] do not hold the proved \[-6, 6\]"),
    ("most", put("most", source="s", payload=9), "max-pool over sums"),
    ("most", put("most", source="g", payload=9), "max-pool over sums"),
    ("y", put("y", source="s", shape=(2, 4, 4)), "reads 's', of which no engine keeps values"),
]


def test_spikes_that_meet_are_valid() -> None:
    meeting().validate()


@pytest.mark.parametrize(("name", "corrupt", "what"), CORRUPTIONS)
def test_a_corruption_is_found_at_its_node(
    name: str, corrupt: Callable[[], Program], what: str
) -> None:
    with pytest.raises(BadInputError) as error:
        corrupt().validate()
    own = [fault.what for fault in error.value.faults if fault.node == name]
    assert len(own) == 1
    assert re.search(what, own[0])


def test_a_sum_of_maxima_of_potentials_is_refused() -> None:
    program = meeting()
    total = Sum("total", (2, 2, 2), "most", "most", 12)
    with pytest.raises(BadInputError, match="reads 'most', a potential"):
        replace(program, nodes=(*program.nodes, total)).validate()


def test_silence_lasts_a_window_at_most() -> None:
    """A payload may be larger than all that comes; silence is counted from it."""
    program = meeting()
    large = Pool("large", (2, 4, 4), "n2", "max", (1, 1), (1, 1), (0, 0, 0, 0), 3)
    nodes = list(program.nodes)
    at = next(i for i, node in enumerate(nodes) if node.name == "h")
    nodes[at] = replace(nodes[at], b="large", payload=6)
    wrong = replace(program, nodes=(*nodes[:at], large, *nodes[at:]))
    with pytest.raises(BadInputError, match="reads the silence of 'large', no binary train"):
        wrong.validate()


def test_maxima_of_potentials_are_padded_with_what_never_wins() -> None:
    pool = Pool("p", (1, 2, 2), "v", "max", (2, 2), (2, 2), (1, 1, 0, 0), 9)
    values = -np.arange(1, 10).reshape(1, 3, 3, 1)
    assert pool.pooled(values)[0, :, :, 0].tolist() == [[-1, -2], [-4, -5]]


@settings(max_examples=40)
@given(gate_programs())
def test_files_hold_them(program: Program) -> None:
    data, arrays = program.to_json()
    again = Program.from_json(data, arrays)
    assert [type(n) for n in again.nodes] == [type(n) for n in program.nodes]
    assert again.to_json()[0] == data
