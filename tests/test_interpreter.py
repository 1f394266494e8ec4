"""The oracle itself: what it does not know it does not pass over."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import small_model
from interpreter import interpret

from snncc.program import Accumulator, Gate, Neuron, Program, Projection, Readout, Relay, Source


@dataclass(frozen=True)
class Echo(Relay):
    """A kind of node that there is not, though it is like one that there is."""


def test_a_kind_without_a_rule_is_an_error() -> None:
    program = small_model.program()
    new = replace(program, nodes=(*program.nodes, Echo("new", (3, 6, 6), "fire1", 1, 4)))
    with pytest.raises(TypeError, match="no rule for nodes of kind 'Echo'"):
        interpret(new, small_model.samples(1))


def test_gates_by_hand() -> None:
    """Counts 0 to 3 of x; of the other train it has one, which is not silent, or silence of 3."""
    x = np.arange(4, dtype=np.uint8).reshape(1, 1, 2, 2)
    one = Projection("x", "identity", (), 3)
    nodes = (
        Source("x", (1, 2, 2), 3),
        Accumulator("v", (1, 2, 2), (one,), np.zeros(1, np.int64), 0, 3),
        Neuron("a", (1, 2, 2), "v", np.array([[1, 2, 3]]), 0),
        Accumulator("w", (1,), (Projection("x", "linear", (np.ones((1, 4), np.int8),), 3),),
                    np.zeros(1, np.int64), 0, 12),
        Neuron("b", (1, 1, 1), "w", np.array([[5, 7, 9]]), 0),
        Gate("and", (1, 2, 2), "a", "b", "and", 9),
        Gate("not", (1, 2, 2), "a", "b", "and-not", 9),
        Gate("but", (1, 2, 2), "b", "a", "and-not", 9),
        *(Readout(f"{name} y", (1, 2, 2), name, 1.0) for name in ("and", "not", "but")),
    )  # fmt: skip
    program = Program("gates", nodes, ticks=3)
    program.validate()
    *_, found = interpret(program, x)
    assert [found[f"{name} y"].ravel().tolist() for name in ("and", "not", "but")] == [
        [0, 1, 2, 3],
        [0, 2, 4, 6],
        [3, 2, 1, 0],
    ]  # of b 6 reaches a single level
