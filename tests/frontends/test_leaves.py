from __future__ import annotations

import pytest
import torch
from torch import nn
from torch_networks import MultiSpike, Spelled, small

from snncc.frontends import leaves
from snncc.frontends.leaves import (
    IntegerFireSpec,
    find_leaves,
    recorded,
    register_leaf,
    swapped,
)
from snncc.nn import IntegerFire


def test_leaves_are_found_with_their_paths() -> None:
    net = small(IntegerFire(4), IntegerFire(2, 2.0, "half-up"))
    assert [(leaf.path, leaf.spec) for leaf in find_leaves(net)] == [
        ("2", IntegerFireSpec(4)),
        ("5", IntegerFireSpec(2, 2.0, "half-up")),
    ]


def test_a_shared_neuron_is_one_leaf() -> None:
    assert [leaf.path for leaf in find_leaves(small(IntegerFire(4)))] == ["2"]


def test_other_modules_are_no_leaves() -> None:
    assert find_leaves(small(nn.ReLU(), Spelled())) == []


def test_a_subclass_is_a_leaf_too() -> None:
    class Mine(IntegerFire):
        pass

    assert find_leaves(Mine(3))[0].spec == IntegerFireSpec(3)


@pytest.mark.parametrize("by_name", [True, False])
def test_a_class_may_be_registered(by_name: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snncc.frontends.leaves._LEAVES", {})
    name = f"{MultiSpike.__module__}.MultiSpike"
    register_leaf(
        name if by_name else MultiSpike,
        lambda m: IntegerFireSpec(m.levels, m.levels, "half-up"),
    )
    (leaf,) = find_leaves(nn.Sequential(MultiSpike(5)))
    assert (leaf.path, leaf.spec) == ("0", IntegerFireSpec(5, 5, "half-up"))


def test_forward_is_as_before_after_the_export() -> None:
    net = small(IntegerFire(4))
    found, x = find_leaves(net), torch.randn(2, 2, 8, 8)
    before = net(x)
    with swapped(found):
        assert "forward" in found[0].module.__dict__
    assert "forward" not in found[0].module.__dict__
    assert torch.equal(net(x), before)


def test_forward_is_as_before_after_a_failed_export() -> None:
    net = small(IntegerFire(4))
    with pytest.raises(ValueError, match="no"), swapped(find_leaves(net)):
        raise ValueError("no")
    assert "forward" not in net[2].__dict__


def test_calls_are_recorded_in_order() -> None:
    net = small(IntegerFire(4))
    with recorded(find_leaves(net)) as record:
        net(torch.randn(2, 2, 8, 8))
    calls = record.calls
    assert [tuple(c.drive.shape) for c in calls] == [(2, 4, 8, 8), (2, 4, 2, 2)]
    assert all(torch.equal(c.spikes, c.drive.clamp(0, 4).round()) for c in calls)
    net(torch.randn(2, 2, 8, 8))
    assert len(calls) == 2


def test_what_is_recorded_is_not_what_is_made_of_it_later() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fire = IntegerFire(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.fire(x)
            out += 100
            x -= 100
            return out

    net, x = InPlace(), torch.tensor([[0.7, 3.2]])
    with torch.no_grad(), recorded(find_leaves(net)) as record:
        net(x)
    assert torch.equal(record.calls[0].drive, torch.tensor([[0.7, 3.2]]))
    assert record.calls[0].spikes.tolist() == [[1, 3]]


def test_a_neuron_inside_a_leaf_is_no_call_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = IntegerFire(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    monkeypatch.setattr("snncc.frontends.leaves._LEAVES", {**leaves._LEAVES})
    register_leaf(Outer, lambda m: IntegerFireSpec(4))
    net = nn.Sequential(Outer(), IntegerFire(2))
    with torch.no_grad(), recorded(find_leaves(net)) as record:
        net(torch.rand(1, 3))
    assert [call.leaf.path for call in record.calls] == ["0", "1"]
