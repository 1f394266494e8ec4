"""Names of what networks return in tuples, lists, dicts and records."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from snncc.frontends.pytorch import export_program, import_module
from snncc.frontends.results import named_results
from snncc.ir.results import results_of
from snncc.nn import IntegerFire

A, B, C = (torch.full((1,), float(i)) for i in range(3))
Pair = namedtuple("Pair", "logits hidden")


@dataclass
class Record:
    """As models of text and pictures return it: what was not asked for is None."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    states: tuple[torch.Tensor, ...] = ()


class Ordered(OrderedDict[str, Any]):
    """A dict whose keys are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(name)
        return self[name]


@pytest.mark.parametrize(
    ("returned", "names"),
    [
        (A, {"output": A}),
        ((A, None), {"output": A}),
        ([A], {"output": A}),
        ({"logits": A, "aux": None}, {"logits": A}),
        ((A, B), {"output0": A, "output1": B}),
        ((A, None, C), {"output0": A, "output2": C}),
        ((A, {"block.0": B, "head": C}), {"output0": A, "output1.block.0": B, "output1.head": C}),
        ({"out": [A, (B, C)], "steps": 4}, {"out.0": A, "out.1.0": B, "out.1.1": C}),
        ({0: A, "0": B}, {"0": A, "0_": B}),
        ({"a/b:c": A, "": B}, {"a_b_c": A, "_": B}),
        (Pair(A, B), {"logits": A, "hidden": B}),
        (Record(logits=A, states=(B, C)), {"logits": A, "states.0": B, "states.1": C}),
        (Ordered(logits=A, hidden=B), {"logits": A, "hidden": B}),
        ((None, 3.5, "text"), {}),
    ],
)
def test_a_result_is_named_by_key_attribute_or_position(returned, names):
    found = named_results(returned)
    assert [*found] == [*names]
    assert all(found[name] is names[name] for name in names)


class Nested(torch.nn.Module):
    """Scores, and what they are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.fire, self.head = torch.nn.Linear(4, 3), IntegerFire(4), torch.nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> Any:
        spikes = self.fire(self.fc(x))
        return {"scores": self.head(spikes), "maps": (None, [spikes, spikes])}


def test_a_saved_program_says_the_names_as_well():
    net, x = Nested().eval(), torch.zeros(2, 4)
    samples = torch.export.Dim("N", min=2)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: samples},))
    names = {"scores": (0,), "maps.1.0": (1,), "maps.1.1": (1,)}
    assert results_of(export_program(program).model) == names
    assert results_of(import_module(net, (4,))) == names
