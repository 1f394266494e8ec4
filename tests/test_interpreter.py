"""The oracle itself: what it does not know it does not pass over."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import small_model
from interpreter import interpret

from snncc.program import Relay


@dataclass(frozen=True)
class Echo(Relay):
    """A kind of node that there is not, though it is like one that there is."""


def test_a_kind_without_a_rule_is_an_error() -> None:
    program = small_model.program()
    new = replace(program, nodes=(*program.nodes, Echo("new", (3, 6, 6), "fire1", 1, 4)))
    with pytest.raises(TypeError, match="no rule for nodes of kind 'Echo'"):
        interpret(new, small_model.samples(1))
