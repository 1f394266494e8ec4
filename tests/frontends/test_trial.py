"""A description is believed once the neuron itself has fired as it says, on all its levels."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from snncc.errors import UnsupportedModelError, UsageError
from snncc.frontends import leaves
from snncc.frontends.described import fired
from snncc.frontends.leaves import (
    IntegerFireSpec,
    StatefulFireSpec,
    StepSpec,
    find_leaves,
    forget,
    recorded,
    register_leaf,
)
from snncc.frontends.pytorch import import_module
from snncc.frontends.trial import require_described
from snncc.frontends.untouched import untouched
from snncc.nn import ILIF, LIF, IntegerFire

T = 4


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaves, "_LEAVES", dict(leaves._LEAVES))


class Neuron(nn.Module):
    """Fires what it is told to."""

    def __init__(self, fire: Callable[..., Any]) -> None:
        super().__init__()
        self.fire = fire

    def forward(self, *args: Any) -> Any:
        return self.fire(*args)


def tried(
    neuron: nn.Module, spec: Any, shape: tuple[int, ...] = (2, 3, 4, 4), calls: int = 1
) -> None:
    """Try a neuron that is described so and called so."""
    if spec is not None:
        register_leaf(type(neuron), lambda m: spec)
    with untouched(neuron):
        found = find_leaves(neuron)
        with recorded(found) as record:
            given: list[Any] = []
            for _ in range(calls):
                out = neuron(torch.zeros(shape), *given)
                given = [out[1]] if isinstance(out, tuple) else []
        record.require_described()
        require_described(found, record.calls)


def refused(neuron: nn.Module, spec: Any, *args: Any) -> str:
    with pytest.raises(UnsupportedModelError, match="do not fire as they were described") as caught:
        tried(neuron, spec, *args)
    (fault,) = caught.value.faults
    assert fault.kind == type(neuron).__name__
    return str(fault)


def half_up(u: torch.Tensor) -> torch.Tensor:
    return torch.floor(u + 0.5)


# -- without a memory --------------------------------------------------------------------------

WRONG = {
    "more levels": (lambda x: x.clamp(0, 8).round(), "a drive of 10 fires 8 in PyTorch and 4 by"),
    "fewer levels": (lambda x: x.clamp(0, 3).round(), "fires 3 in PyTorch and 4 by"),
    "no top": (lambda x: x.clamp(min=0).round(), "a drive of 4000 fires 4000 in PyTorch and 4 by"),
    "no bottom": (
        lambda x: x.clamp(max=4).round(),
        "a drive of -4000 fires -4000 in PyTorch and 0 by",
    ),
    "a bias": (lambda x: (x + 1e-3).clamp(0, 4).round(), "fires 1 in PyTorch and 0 by"),
    "a tiny bias": (lambda x: (x + 1e-7).clamp(0, 4).round(), "fires 1 in PyTorch and 0 by"),
    "another rounding": (lambda x: half_up(x.clamp(0, 4)), "a drive of 0.5 fires 1 in PyTorch"),
    "another norm": (lambda x: x.clamp(0, 4).round() / 2, "fires 2 in PyTorch and 4 by"),
    "nothing": (lambda x: x.clamp(0, 4).round() * float("nan"), "fires nan in PyTorch and 0 by"),
    "another scale": (lambda x: (x / 0.999).clamp(0, 4).round(), "in PyTorch and"),
    "one channel": (
        lambda x: (x + torch.tensor([0, 0, 1e-3]).view(3, 1, 1)).clamp(0, 4).round(),
        "fires 1 in PyTorch and 0 by",
    ),
    "one sort of drive": (lambda x: x.clamp(0, 4).round() + (x == 2.25), "a drive of 2.25 fires"),
    "others' drives": (lambda x: (x - x.mean()).clamp(0, 4).round(), "in PyTorch and"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_description_is_found_on_any_level(what: str) -> None:
    fire, told = WRONG[what]
    assert told in refused(Neuron(fire), IntegerFireSpec(4))


@pytest.mark.parametrize("channel", [0, 217, 299])
def test_each_of_many_channels_meets_all_drives(channel: int) -> None:
    bias = 1e-3 * (torch.arange(300) == channel).view(-1, 1, 1)
    told = refused(
        Neuron(lambda x: (x + bias).clamp(0, 4).round()), IntegerFireSpec(4), (2, 300, 1, 1)
    )
    assert "in PyTorch and" in told


def test_after_what_is_not_sure_nothing_is() -> None:
    """A spike that rounding decides decides what the membrane holds from then on."""
    neuron = StatefulFireSpec(decay=1 / 3, gain=1.0)
    held = torch.linspace(0.1, 0.9, 33)
    drives = torch.stack([held, 1 - held * torch.tensor(1 / 3), torch.full_like(held, 0.25)])
    _, sure = fired(neuron, drives)
    assert not sure[1].all()
    assert (sure[1:] <= sure[:-1]).all()


@pytest.mark.parametrize(
    ("fire", "spec"),
    [
        (lambda x: x + (x.clamp(0, 4).round() - x).detach(), IntegerFireSpec(4)),
        (lambda x: sum((x >= k - 0.5).float() for k in range(1, 5)),
         IntegerFireSpec(4, 1.0, "half-up")),
        (lambda x: (x + 0.5).clamp(0, 255.5).floor() * (1 / 3), IntegerFireSpec(255, 3, "half-up")),
        (lambda x: x.clamp(torch.zeros(3, 1, 1), 4 * torch.ones(3, 1, 1)).round() / 4,
         IntegerFireSpec(4, 4.0)),
        (lambda x: x.view(2, 48).clamp(0, 1).round().view(2, 3, 4, 4), IntegerFireSpec(1)),
    ],
    ids=["straight through", "comparisons", "many levels", "bounds of channels", "a fixed batch"],
)  # fmt: skip
def test_a_right_description_is_believed_however_it_is_written(fire: Any, spec: Any) -> None:
    tried(Neuron(fire), spec)


def test_a_subclass_with_a_forward_of_its_own_is_tried_too() -> None:
    class Capped(IntegerFire):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).clamp(max=3)

    text = refused(Capped(8), None)
    assert "its base class IntegerFire is described as IntegerFireSpec(D=8" in text
    assert (
        "3 in PyTorch and 8 by the description; a description of its own: register_leaf(Capped"
        in text
    )


def test_a_neuron_may_write_into_one_tensor_again_and_again() -> None:
    class Writing(Node):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = super().forward(x)
            if getattr(self, "out", out).shape != x.shape or not hasattr(self, "out"):
                self.out = torch.empty_like(out)
            return self.out.copy_(out)

    tried(Writing(), node_spec(), (2, 5), T)


def test_a_neuron_that_raises_on_other_drives_is_said_to() -> None:
    def fire(x: torch.Tensor) -> torch.Tensor:
        if bool((x > 3).any()):
            raise ValueError("too bright")
        return x.clamp(0, 4).round()

    text = refused(Neuron(fire), IntegerFireSpec(4))
    assert (
        "drives from -4000 to 4000 in its own shape [2, 3, 4, 4] raise ValueError: too br" in text
    )


def test_all_are_named_with_their_modules() -> None:
    register_leaf(Neuron, lambda m: IntegerFireSpec(2))
    net = nn.Sequential(*(Neuron(lambda x, D=D: x.clamp(0, D).round()) for D in (1, 2, 3)))
    with pytest.raises(UnsupportedModelError) as caught:
        import_module(net, (3,))
    assert [f.module for f in caught.value.faults] == ["0", "2"]


def test_the_module_is_as_before() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls, self.drives = 0, []
            self.register_buffer("mean", torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            self.drives.append(float(x.mean()))
            self.mean.add_(x.mean())
            x = x.clamp_(0, 4)
            return x.round_()

    net = nn.Sequential(nn.Linear(3, 3), Counting())
    register_leaf(Counting, lambda m: IntegerFireSpec(4))
    import_module(net, (3,))
    assert (net[1].calls, net[1].drives, net[1].mean.tolist()) == (0, [], [0, 0, 0])
    assert net[1].training


# -- with a memory -----------------------------------------------------------------------------


class Node(nn.Module):
    """Keeps its membrane, as SpikingJelly's nodes: a number at first."""

    def __init__(self, tau: float = 2.0, threshold: float = 1.0, hard: bool = True) -> None:
        super().__init__()
        self.tau, self.threshold, self.hard, self.v = tau, threshold, hard, 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.v + (x - self.v) / self.tau
        fired = (h - self.threshold >= 0).to(h)
        self.v = h * (1 - fired) if self.hard else h - fired * self.threshold
        return fired


def node_spec(tau: float = 2.0, threshold: float = 1.0, hard: bool = True, **more: Any) -> Any:
    reset = "hard" if hard else "soft"
    fields = {"decay": 1 - 1 / tau, "gain": 1 / tau, "threshold": threshold, "reset": reset}
    return StepSpec(StatefulFireSpec(**{**fields, **more}), alone=True, state="v")


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("threshold", [1.0, 0.3, 2.7])
@pytest.mark.parametrize("tau", [1.0, 1.1, 2.0, 3.0, 7.0])
def test_neurons_with_memory_are_believed_in_their_authors_arithmetic(
    tau: float, threshold: float, hard: bool
) -> None:
    given = (tau, threshold, hard)
    tried(Node(*given), node_spec(*given), (2, 5), T)


@pytest.mark.parametrize(
    "neuron",
    [
        LIF(tau=3.0, threshold=0.3, reset="soft", compare=">"),
        LIF(tau=1.7, learn_tau=True),
        ILIF(255, decay=0.3, norm=3.0, rounding="half-up"),
        ILIF(4, reset="hard"),
    ],
    ids=str,
)
def test_our_own_neurons_pass(neuron: nn.Module) -> None:
    tried(neuron, None, (T, 2, 3, 4, 4))


@pytest.mark.parametrize(
    "wrong",
    [
        {"reset": "soft"},
        {"reset": "delayed"},
        {"decay": 0.55},
        {"gain": 0.51},
        {"threshold": 1.001},
        {"rule": ">"},
        {"norm": 2.0},
        {"D": 2, "rule": "half-up"},
    ],
    ids=str,
)
def test_each_field_of_a_neuron_with_memory_is_tried(wrong: dict[str, Any]) -> None:
    assert "in PyTorch and" in refused(Node(), node_spec(**wrong), (2, 5), T)


class Memories(nn.Module):
    """Two memories on one drive, whose spikes are added."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low, high = LIF(threshold=1.0, reset="soft"), LIF(threshold=2.0, reset="soft")
        return low(x) + high(x)


def memories(*thresholds: float) -> StatefulFireSpec:
    return StatefulFireSpec(thresholds=thresholds, reset="soft")


@pytest.mark.parametrize("wrong", [(1.0,), (1.0, 2.0, 4.0), (1.0, 2.25), (2.0, 2.0)], ids=str)
def test_each_memory_of_several_is_tried(wrong: tuple[float, ...]) -> None:
    tried(Memories(), memories(1.0, 2.0), (T, 2, 5))
    assert "in PyTorch and" in refused(Memories(), memories(*wrong), (T, 2, 5))


def test_what_fires_in_a_later_timestep_is_shown_with_its_drives() -> None:
    text = refused(Node(), node_spec(reset="soft"), (2, 5), T)
    told = r"; drives of [\d.-]+, [\d.-]+ in timesteps 0 to 1 fire 1, 0 in PyTorch and 1, 1 by the"
    assert re.search(told, text)


def test_a_membrane_that_is_handed_on_is_tried_too() -> None:
    def step(x: torch.Tensor, v: Any = 0.0) -> Any:
        h = 0.75 * v + x
        fired = (h >= 1).to(h)
        return fired, h - fired

    right = {"decay": 0.75, "gain": 1.0, "reset": "soft"}
    tried(Neuron(step), StepSpec(StatefulFireSpec(**right)), (2, 5), T)
    refused(Neuron(step), StepSpec(StatefulFireSpec(**{**right, "decay": 0.8})), (2, 5), T)


def test_a_neuron_that_takes_one_timestep_is_told_from_one_that_takes_all() -> None:
    spec = StatefulFireSpec(state="v")
    assert "StepSpec(StatefulFireSpec(...), alone=True" in refused(Node(), spec, (2, 5))


# -- membranes between calls -------------------------------------------------------------------


def test_a_membrane_is_again_what_it_began_with() -> None:
    register_leaf(Node, lambda m: node_spec())
    node = Node()
    (leaf,) = find_leaves(node)
    node(torch.ones(2, 3))
    forget([leaf])
    assert isinstance(node.v, float)
    assert node.v == 0


def test_what_a_run_has_left_there_is_no_beginning() -> None:
    register_leaf(Node, lambda m: node_spec())
    node = Node()
    node(torch.ones(64, 3))
    forget(find_leaves(node))
    assert node(torch.ones(2, 3)).tolist() == [[0, 0, 0]] * 2


def test_a_neurons_own_reset_is_what_empties_it() -> None:
    class Resetting(Node):
        def reset(self) -> None:
            self.v, self.resets = 0.0, getattr(self, "resets", 0) + 1

    register_leaf(Resetting, lambda m: node_spec())
    node = Resetting()
    node(torch.ones(64, 3))
    forget(find_leaves(node))
    assert (node.v, node.resets) == (0.0, 1)


def test_a_beginning_that_is_not_empty_is_refused() -> None:
    node = Node()
    node.v = 0.3
    refused(node, node_spec(), (2, 5), T)


# -- what a description may say ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: IntegerFireSpec(0), "D is 0; give an integer from 1 to 255"),
        (lambda: IntegerFireSpec(4.7), "D is 4.7; give an integer"),
        (lambda: IntegerFireSpec(4, 0), "norm is 0; give a number above 0"),
        (lambda: IntegerFireSpec(4, "x"), "norm is 'x'; give a finite number"),
        (lambda: IntegerFireSpec(4, rounding="down"), "give 'half-even' or 'half-up'"),
        (lambda: StatefulFireSpec(rule="ge"), "give '>=', '>', 'half-even' or 'half-up'"),
        (lambda: StatefulFireSpec(reset="subtract"),
         "give 'hard', 'soft', 'delayed', 'raised' or 'none'"),
        (lambda: StatefulFireSpec(D=2, rule=">"), "rule '>' fires one spike, but D is 2"),
        (lambda: StatefulFireSpec(D=2, reset="raised"), "reset 'raised' goes with D=1"),
        (lambda: StatefulFireSpec(gain=0), "gain is 0"),
        (lambda: StatefulFireSpec(decay=float("nan")), "decay is nan; give a finite number"),
        (lambda: StatefulFireSpec(state=None), "give the name of the attribute"),
        (lambda: StatefulFireSpec(thresholds="1, 2"), "give a list of numbers above 0"),
        (lambda: StatefulFireSpec(thresholds=(1, 0)), "thresholds is 0; give a number above 0"),
        (lambda: StepSpec(StatefulFireSpec(thresholds=(1, 2))), "reads all timesteps at once"),
        (lambda: StepSpec(IntegerFireSpec(4)), "IntegerFireSpec; give a StatefulFireSpec"),
        (lambda: StatefulFireSpec(decay=[0.5, "x"]), "give a number, or one for each channel"),
        (lambda: StatefulFireSpec(decay=[[0.5], [0.5, 1]]), "give a number, or one for each"),
        (lambda: StatefulFireSpec(decay=torch.tensor([0.5, float("inf")])), "not finite"),
        (lambda: StatefulFireSpec(gain=torch.tensor([0.5, 0.0])), "gain is 0 for some neurons"),
        (lambda: StatefulFireSpec(threshold=torch.tensor([0.5, -1])), "threshold is -1; give a"),
    ],
)  # fmt: skip
def test_a_field_is_one_of_what_it_may_be(make: Any, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert why in str(caught.value)


def test_numbers_are_read_off_attributes_of_any_kind() -> None:
    spec = StatefulFireSpec(
        torch.tensor(1), nn.Parameter(torch.tensor(0.75)), torch.ones(3, 1, 1), 2
    )
    assert (spec.D, spec.decay, spec.gain, spec.threshold) == (1, 0.75, 1.0, 2.0)
    assert [type(v) for v in (spec.D, spec.decay, spec.gain)] == [int, float, float]
    assert StatefulFireSpec(decay=0.3).decay == 0.3


@pytest.mark.parametrize(
    ("describe", "why"),
    [
        (lambda m: IntegerFireSpec(m.nope), r"\(register_leaf\) raises AttributeError: .*'nope'"),
        (lambda m: None, r"\(register_leaf\) returns None; return an IntegerFireSpec"),
        (lambda m: "x", r"\(register_leaf\) returns 'x'"),
        (lambda m: IntegerFireSpec(0), "D is 0; give an integer"),
    ],
)
def test_a_description_that_is_none_is_refused_by_name(describe: Any, why: str) -> None:
    register_leaf(Neuron, describe)
    with pytest.raises(UnsupportedModelError, match=why) as caught:
        import_module(nn.Sequential(nn.Linear(3, 3), Neuron(torch.relu)), (3,))
    assert [(f.kind, f.module) for f in caught.value.faults] == [("Neuron", "1")]


class Calling(nn.Module):
    """Calls a neuron in some way."""

    def __init__(self, neuron: nn.Module, call: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.fc, self.neuron, self.call = nn.Linear(3, 3), neuron, call

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.call(self.neuron, self.fc(x))


class Leveled(nn.Module):
    def forward(self, x: torch.Tensor, D: int = 4) -> torch.Tensor:
        return x.clamp(0, D).round()


STEP = StepSpec(StatefulFireSpec())


@pytest.mark.parametrize(
    ("neuron", "spec", "call", "why"),
    [
        (Leveled(), IntegerFireSpec(4), lambda n, x: n(x, 3),
         "is called with D=3 besides the drive; describe a class whose forward takes nothing else"),
        (Leveled(), IntegerFireSpec(4), lambda n, x: n(x, D=3), "is called with D=3 besides"),
        (Node(), STEP, lambda n, x: n(x), "returns one tensor, not spikes and membrane; "
         "StepSpec(..., alone=True, state='...')"),
        (Node(), StepSpec(StatefulFireSpec(), alone=True), lambda n, x: n(x),
         "has no attribute 'mem', in which it was said to keep its membrane"),
        (Neuron(lambda x: (x, x)), StepSpec(StatefulFireSpec(), True), lambda n, x: n(x)[0],
         "returns a tuple of 2, not spikes alone; StepSpec(...) without alone"),
        (Neuron(lambda x: (x, x)), IntegerFireSpec(4), lambda n, x: n(x)[0],
         "returns a tuple of 2, not spikes alone"),
    ],
)  # fmt: skip
def test_a_call_that_is_not_as_described_is_said_truthfully(
    neuron: nn.Module, spec: Any, call: Any, why: str
) -> None:
    register_leaf(type(neuron), lambda m: spec)
    with pytest.raises(UnsupportedModelError, match="not called as they were described") as caught:
        import_module(Calling(neuron, call), (3,))
    (fault,) = caught.value.faults
    assert (fault.module, fault.kind) == ("neuron", type(neuron).__name__)
    assert why in str(fault)


@pytest.mark.parametrize("call", [lambda n, x: n(x=x), lambda n, x: n(x, 4)])
def test_a_drive_by_name_and_a_default_are_fine(call: Any) -> None:
    register_leaf(Leveled, lambda m: IntegerFireSpec(4))
    model = import_module(Calling(Leveled(), call), (3,))
    assert "IntegerFire" in [n.op_type for n in model.graph]
