"""Neurons of a network's own code: found by experiment, proved, declared, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import snncc
import snncc.compiler
from snncc.cli.report_lines import all_lines
from snncc.compiler import InputOptions
from snncc.errors import UnsupportedModelError, UsageError, VerificationError
from snncc.frontends import leaves as leaves_module
from snncc.frontends.described import shared_out
from snncc.frontends.descriptions import StatefulFireSpec
from snncc.frontends.prober import NotANeuronError, probe

N, T = 2, 4
X = np.random.default_rng(0).integers(0, 256, (8, 1, 6, 6), dtype=np.uint8)
GIVEN: dict[str, Any] = {"input_shape": (1, 6, 6), "input": InputOptions(mean=(0.0,), std=(1.0,))}


class FilledByIndex(nn.Module):
    """As MS-ResNet's authors write it: mem = mem * decay * (1 - spike) + x, strictly above."""

    def forward(self, x: Tensor, decay: float = 0.25) -> Tensor:
        out = torch.zeros_like(x)
        for t in range(x.shape[0]):
            membrane = membrane * decay * (1 - spike) + x[t] if t else x[t]  # noqa: F821
            spike = (membrane > 0.5).float()
            out[t] = spike
        return out


class SeveralSpikes(nn.Module):
    """As SpikeYOLO's I-LIF: round(clamp(mem, 0, 4)), soft reset, and the decay after it."""

    def forward(self, x: Tensor) -> Tensor:
        out, membrane, spike = torch.zeros_like(x), torch.zeros_like(x[0]), torch.zeros_like(x[0])
        for t in range(x.shape[0]):
            membrane = (membrane - spike) * 0.25 + x[t]
            spike = membrane.clamp(0, 4).round()
            out[t] = spike
        return out


class Trained(nn.Module):
    """A trained time constant, v += (x - v) / tau; timesteps and samples are one axis."""

    T = 4

    def __init__(self, order: str = "T*N", value: float = 1.0) -> None:
        super().__init__()
        self.tau, self.order, self.value = nn.Parameter(torch.tensor(2.0)), order, value

    def forward(self, x: Tensor) -> Tensor:
        if self.order == "T*N":
            steps = x.view(self.T, -1, *x.shape[1:])
        else:
            steps = x.view(-1, self.T, *x.shape[1:]).transpose(0, 1)
        v, out = torch.zeros_like(steps[0]), []
        for u in steps:
            v = v + (u - v) / self.tau
            spike = (v >= 1.0).float()
            v = v - spike
            out.append(spike * self.value)
        return torch.stack(out, 0 if self.order == "T*N" else 1).flatten(0, 1)


class Several(nn.Module):
    """MLF as its authors write it: a memory for each threshold, on one drive, timesteps first."""

    STEPS = T

    def __init__(self, thresholds: tuple[float, ...] = (0.6, 1.6, 2.6), inclusive=False) -> None:
        super().__init__()
        self.thresholds, self.inclusive = thresholds, inclusive

    def _spike(self, membrane: Tensor, threshold: float) -> Tensor:
        is_one = membrane >= threshold if self.inclusive else membrane > threshold
        return is_one.float()

    def forward(self, x: Tensor) -> Tensor:
        size = int(x.shape[0] / self.STEPS)
        membranes = [torch.zeros((size, *x.shape[1:])) for _ in self.thresholds]
        out = torch.zeros(x.shape)
        for t in range(self.STEPS):
            part = slice(t * size, (t + 1) * size)
            for k, threshold in enumerate(self.thresholds):
                fired = self._spike(membranes[k], threshold)
                membranes[k] = 0.25 * membranes[k] * (1 - fired) + x[part]
                out[part] += self._spike(membranes[k], threshold)
        return out


class Lined(nn.Module):
    """On [N, T, ...], with the reset a timestep late."""

    def forward(self, x: Tensor) -> Tensor:
        v, spike, out = torch.zeros_like(x[:, 0]), torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            v = 0.9 * v + x[:, t] - 0.6 * spike
            spike = (v > 0.6).float()
            out.append(spike)
        return torch.stack(out, 1)


class Unround(nn.Module):
    """Numbers of which neither a ratio nor a product is a round one; and a limit, if any."""

    def __init__(self, limits: tuple[float, float] = (-1e9, 1e9)) -> None:
        super().__init__()
        self.limits = limits

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros_like(x[0]), []
        for u in x:
            v = (0.37 * v + 0.63 * u).clamp(*self.limits)
            spike = (v > 0.731).float()
            v = v - 0.731 * spike
            out.append(spike)
        return torch.stack(out)


def test_numbers_that_are_not_round_are_taken_as_measured() -> None:
    found = probe(Unround(), torch.zeros(T, N, 3, 2), N)
    assert found is not None
    assert (found.gain, found.rule, found.reset) == (1.0, ">=", "soft")
    assert found.decay == pytest.approx(0.37, abs=1e-6)
    assert found.threshold == pytest.approx(0.731 / 0.63, rel=1e-6)


@pytest.mark.parametrize("limits", [(-5, 1e9), (-50, 1e9), (-1e9, 8), (-1e9, 80)])
def test_a_limit_of_the_membrane_is_found(limits) -> None:
    with pytest.raises(NotANeuronError, match="drives of"):
        probe(Unround(limits), torch.zeros(T, N, 3, 2), N)


class Resets(nn.Module):
    """Spikes that take nothing, several of them in a timestep, or a Leaky reset at once."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros_like(x[0]), []
        for u in x:
            h = 0.5 * v + u
            if self.kind == "none":
                spikes, v = (h > 1).float(), h
            elif self.kind == "counts":
                spikes = torch.floor(h).clamp(0, 3)
                v = h - spikes
            else:
                spikes = (h - (v > 1).float() > 1).float()
                v = h - spikes
            out.append(spikes)
        return torch.stack(out)


FOUND = {
    "no reset": (Resets("none"), (T, N, 5), {
        "decay": 0.5, "gain": 1.0, "threshold": 1.0, "rule": ">", "reset": "none"}),
    "raised": (Resets("raised"), (T, N, 5), {
        "decay": 0.5, "gain": 1.0, "threshold": 1.0, "rule": ">", "reset": "raised"}),
    "counts": (Resets("counts"), (T, N, 5), {
        "D": 3, "decay": 0.5, "gain": 1.0, "threshold": 1.0, "rule": ">=", "reset": "soft"}),
    "filled by index": (FilledByIndex(), (T, N, 3, 2), {
        "decay": 0.25, "gain": 1.0, "threshold": 0.5, "rule": ">", "reset": "hard"}),
    "several spikes": (SeveralSpikes(), (T, N, 5), {
        "D": 4, "decay": 0.25, "gain": 1.0, "rule": "half-even", "reset": "soft"}),
    "time-major": (Trained(), (T * N, 3, 2), {
        "decay": 0.5, "gain": 1.0, "threshold": 2.0, "reset": "soft", "axes": "T*N", "T": T}),
    "batch-major": (Trained("N*T", 0.5), (T * N, 3, 2), {
        "decay": 0.5, "gain": 1.0, "threshold": 2.0, "reset": "soft", "norm": 2.0,
        "axes": "N*T", "T": T}),
    "several memories": (Several(), (T * N, 3, 2), {
        "decay": 0.25, "gain": 1.0, "thresholds": (0.6, 1.6, 2.6), "rule": ">", "axes": "T*N",
        "T": T}),
    "two memories": (Several((0.75, 1.5), inclusive=True), (T * N, 5), {
        "decay": 0.25, "gain": 1.0, "thresholds": (0.75, 1.5), "axes": "T*N", "T": T}),
    "memories as far apart as levels": (Several((0.5, 1.5), inclusive=True), (T * N, 5), {
        "decay": 0.25, "gain": 1.0, "thresholds": (0.5, 1.5), "axes": "T*N", "T": T}),
    "samples first": (Lined(), (N, T, 3, 2), {
        "decay": 0.9, "gain": 1.0, "threshold": 0.6, "rule": ">", "reset": "delayed",
        "axes": "N,T"}),
}  # fmt: skip


def test_levels_at_whole_numbers_are_thresholds_that_are_counted() -> None:
    spec = StatefulFireSpec(D=4, decay=0.25, gain=1.0, rule=">=", reset="soft")
    assert probe(Floored(), torch.zeros(T, N, 5), N) == spec


@pytest.mark.parametrize("name", FOUND)
def test_experiments_find_what_a_neuron_does(name: str) -> None:
    module, shape, fields = FOUND[name]
    assert probe(module, torch.zeros(shape), N) == StatefulFireSpec(**fields)


class Real(nn.Module):
    """PLIAF: fires what the membrane has above its threshold."""

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros_like(x[0]), []
        for u in x:
            v = v + (u - v) / 2
            out.append(torch.relu(v - 0.3))
        return torch.stack(out)


class Entangled(Several):
    """A spike of any memory empties all of them."""

    def forward(self, x: Tensor) -> Tensor:
        size = int(x.shape[0] / self.STEPS)
        v, out = torch.zeros((size, *x.shape[1:])), torch.zeros(x.shape)
        for t in range(self.STEPS):
            v = 0.25 * v + x[t * size : (t + 1) * size]
            spikes = torch.stack([self._spike(v, threshold) for threshold in self.thresholds])
            out[t * size : (t + 1) * size] = spikes.sum(0)
            v = v * (1 - spikes[0])
        return out


class ResetElsewhere(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros_like(x[0]), []
        for u in x:
            v = v / 2 + u
            spike = (v >= 1).float()
            v = v * (1 - spike) + 0.2 * spike
            out.append(spike)
        return torch.stack(out)


class Floored(nn.Module):
    """Levels begin at whole numbers, or somewhere between."""

    def __init__(self, top: int = 4, more: float = 0.0) -> None:
        super().__init__()
        self.top, self.more = top, more

    def forward(self, x: Tensor) -> Tensor:
        out, membrane, spike = torch.zeros_like(x), torch.zeros_like(x[0]), torch.zeros_like(x[0])
        for t in range(x.shape[0]):
            membrane = (membrane - spike) * 0.25 + x[t]
            spike = out[t] = (membrane.clamp(0, self.top) + self.more).floor()
        return out


class Refractory(FilledByIndex):
    """Silent for two timesteps after a spike: one of two tells nothing of it."""

    def forward(self, x: Tensor) -> Tensor:
        v, rest, out = torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
        for u in x:
            v = v / 2 + u
            spike = ((v >= 1) & (rest != 1)).float()
            rest = torch.where(spike > 0, 2, rest - 1)
            v = v * (1 - spike)
            out.append(spike)
        return torch.stack(out)


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (Real(), "it returns real values"),
        (
            ResetElsewhere(),
            r"which fires, one of 0.9 fires again, and none of 1 \(hard reset\)",
        ),
        (Entangled(), "by the description"),
        (
            Floored(9, 0.25),
            "its first level begins at 0.75, others 1 apart; levels that begin half",
        ),
        (Refractory(), "drives of .* fire .* in PyTorch and .* by the description"),
    ],
)
def test_what_is_no_neuron_of_ours_is_refused_with_what_shows_it(module, why) -> None:
    shape = (T * N, 8) if isinstance(module, Several) else (T, N, 8)
    with pytest.raises(NotANeuronError, match=why):
        probe(module, torch.zeros(shape), N)


class Normed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / x.pow(2).mean(-1, keepdim=True).sqrt().clamp_min(1e-5)


class Rounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0, 4).round()


@pytest.mark.parametrize("module", [Normed(), Rounded(), nn.Identity()])
def test_what_has_no_memory_over_timesteps_is_left_alone(module) -> None:
    assert probe(module, torch.zeros(T, N, 8), N) is None


class Inhibited(FilledByIndex):
    """What all elements read is taken from the drive of each: lateral inhibition."""

    def forward(self, x: Tensor, decay: float = 0.25) -> Tensor:
        return super().forward(x - 0.9 * x.mean(-1, keepdim=True), decay)


class Foreseeing(FilledByIndex):
    """Each timestep reads the drive of the next one, too."""

    def forward(self, x: Tensor, decay: float = 0.25) -> Tensor:
        return super().forward(x - torch.cat([x[1:], torch.zeros_like(x[:1])]), decay)


@pytest.mark.parametrize("module", [Inhibited(), Foreseeing()])
def test_what_depends_on_other_elements_or_on_the_future_is_left_alone(module: nn.Module) -> None:
    assert probe(module, torch.zeros(T, N, 8), N) is None


class Network(nn.Module):
    """``axes``: how its neurons read timesteps."""

    def __init__(self, neuron: Callable[[], nn.Module], axes: str = "T,N") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fire = nn.Conv2d(1, 4, 3, padding=1), neuron()
        self.layer, self.last = nn.Conv2d(4, 4, 3, padding=1), neuron()
        self.fc, self.axes = nn.Linear(144, 3), axes

    def forward(self, x: Tensor) -> Tensor:
        steps = x.unsqueeze(0).repeat(T, 1, 1, 1, 1).flatten(0, 1)
        for layer, neuron in ((self.conv, self.fire), (self.layer, self.last)):
            y = (6 * layer(steps)).unflatten(0, (T, -1))
            y = y.transpose(0, 1) if self.axes.startswith("N") else y
            y = neuron(y.flatten(0, 1) if "*" in self.axes else y)
            y = (
                y.unflatten(0, (-1, T) if self.axes == "N*T" else (T, -1))
                if "*" in self.axes
                else y
            )
            steps = (y.transpose(0, 1) if self.axes.startswith("N") else y).flatten(0, 1)
        return self.fc(steps.flatten(1)).unflatten(0, (T, -1)).mean(0)


@pytest.mark.parametrize(
    ("neuron", "axes"),
    [
        (FilledByIndex, "T,N"),
        (SeveralSpikes, "T,N"),
        (Trained, "T*N"),
        (lambda: Trained("N*T"), "N*T"),
        (Several, "T*N"),
        (Lined, "N,T"),
    ],
)
def test_a_network_with_such_neurons_says_what_to_give_and_compiles_with_it(neuron, axes) -> None:
    net = Network(neuron, axes)
    with pytest.raises(UnsupportedModelError) as caught:
        snncc.compiler.check(net, **GIVEN)
    (fault,) = caught.value.faults
    assert (fault.kind, fault.module) == (type(net.fire).__name__, "fire")
    option = next(piece for piece in fault.todo.pieces if not isinstance(piece, str))
    assert not snncc.compiler.check(net, leaves=option.value, **GIVEN).faults
    report = snncc.compile(net, X, weight_bits=24, leaves="auto", **GIVEN).report
    assert report.import_law.neurons == (6 if neuron is Several else 2)
    assert (report.import_law.changed, report.verify.mismatched) == (0, 0)
    assert not report.silent


class Wrapped(nn.Module):
    """A neuron in a module of its own: one thing."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = FilledByIndex()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Block(nn.Module):
    """A layer and its neuron: two things, of one shape."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.inner = nn.Conv2d(4, 4, 1), FilledByIndex()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(4 * self.conv(x.flatten(0, 1)).unflatten(0, (T, -1)))


@pytest.mark.parametrize(
    ("module", "kind", "path"),
    [(Wrapped, "Wrapped", "fire"), (Block, "FilledByIndex", "fire.inner")],
)
def test_a_neuron_is_the_outermost_module_without_layers(module, kind: str, path: str) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        snncc.compiler.check(Network(module), **GIVEN)
    (fault,) = caught.value.faults
    assert (fault.kind, fault.module) == (kind, path)


def test_neurons_of_one_class_that_are_not_alike_have_no_line_in_common() -> None:
    net = Network(Trained, "T*N")
    with torch.no_grad():
        net.last.tau.fill_(4.0)
    with pytest.raises(UnsupportedModelError) as caught:
        snncc.compiler.check(net, **GIVEN)
    (fault,) = caught.value.faults
    assert "as they are not alike" in str(fault)
    model = snncc.compile(net, X, weight_bits=24, leaves="auto", **GIVEN)
    assert (model.report.import_law.neurons, model.report.import_law.changed) == (2, 0)
    (line,) = [line for line in all_lines(model) if line[0] == "leaves"]
    assert line[1].count('Trained={"decay": 0.') == 2
    assert line[2] == "found by experiment"
    assert snncc.compiler.check(net, leaves="auto", **GIVEN).found_neurons == line[1]


@pytest.mark.parametrize(
    ("leaves", "told"),
    [
        ("any", "is neither"),
        ({"FilledByIndexes": {"decay": 0.25}}, "no module of this class; it has FilledByIndex"),
        ({"FilledByIndex": {"decai": 0.25}}, "a neuron has no decai; give some of D, decay"),
        ({"FilledByIndex": {"rule": ">>"}}, "rule is '>>'"),
        ({"FilledByIndex": {"units": 1}}, "a neuron has no units"),
        ({"FilledByIndex": {"thresholds": []}}, "thresholds are one or more"),
        ({"FilledByIndex": {"threshold": 1, "thresholds": [2]}}, "no threshold beside them"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_named(leaves, told) -> None:
    with pytest.raises(UsageError, match=told):
        snncc.compiler.check(Network(FilledByIndex), leaves=leaves, **GIVEN)


def test_a_declaration_that_does_not_hold_is_refused_with_a_drive() -> None:
    spec = replace(StatefulFireSpec(**FOUND["filled by index"][2]), rule=">=")
    fields = {name: getattr(spec, name) for name in ("decay", "gain", "threshold", "rule")}
    with pytest.raises(UnsupportedModelError) as caught:
        snncc.compiler.check(Network(FilledByIndex), leaves={"FilledByIndex": fields}, **GIVEN)
    assert "a drive of 0.5" in str(caught.value) or "drives of 0.5" in str(caught.value)


def test_memories_on_one_drive_share_its_synapses() -> None:
    net = Network(Several, "T*N")
    program = snncc.compile(net, X, leaves="auto", weight_bits=8, **GIVEN).program
    weights = sum(w.size for a in program.accumulators for p in a.projections for w in p.weights)
    assert weights == sum(p.weight.numel() for p in (net.conv, net.layer, net.fc))


class ByBatches(Network):
    """Its last mean, and the size of a batch, are what MLF's authors write."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.fire(6 * self.conv(x.repeat(T, 1, 1, 1)))
        y = self.fc(self.last(6 * self.layer(y)).flatten(1))
        size = int(y.shape[0] / T)
        out = torch.zeros((size, *y.shape[1:]))
        for t in range(T):
            out += y[t * size : (t + 1) * size, ...]
        out /= T
        return out


def test_sizes_that_the_code_computes_do_not_fix_the_batch() -> None:
    report = snncc.compile(ByBatches(Several, "T*N"), X, leaves="auto", **GIVEN).report
    assert (report.import_law.neurons, report.import_law.changed) == (6, 0)
    assert report.verify.mismatched == 0
    assert not report.silent
    assert "int" not in globals()


class Otherwise(ByBatches):
    """Takes what is no batch of a timestep."""

    def __init__(self, how: str) -> None:
        super().__init__(Several, "T*N")
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(6 * self.layer(self.fire(6 * self.conv(x.repeat(T, 1, 1, 1)))))
        y, size = self.fc(y.flatten(1)), x.shape[0]
        if self.how == "shifted":
            return y[1 : size + 1]
        if self.how == "short":
            return y[size : T * size - 1].unsqueeze(0).mean(0)
        turned = y.unflatten(0, (T, -1)).transpose(0, 1).flatten(0, 1)
        return sum(turned[t * size : (t + 1) * size] for t in range(T)) / T


@pytest.mark.parametrize("how", ["shifted", "short", "samples first"])
def test_slices_that_are_no_batches_of_timesteps_are_refused(how) -> None:
    with pytest.raises(UnsupportedModelError):
        snncc.compiler.check(Otherwise(how), leaves="auto", **GIVEN)


def test_what_memories_are_said_to_fire_must_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = lambda spec, drive, total: [torch.zeros_like(total)] * 3  # noqa: E731
    monkeypatch.setattr(leaves_module, "shared_out", nothing)
    with pytest.raises(VerificationError) as caught:
        snncc.compile(Network(Several, "T*N"), X, leaves="auto", **GIVEN)
    assert "no spikes of its memories add up to those of PyTorch" in str(caught.value)


def test_where_rounding_decides_the_nearest_memory_makes_up_what_was_fired() -> None:
    spec = StatefulFireSpec(decay=0.25, gain=1.0, thresholds=(0.6, 1.6, 2.6), rule=">")
    drives = torch.tensor([[1.6, 1.0, 3.0]])
    fired = torch.tensor([[2.0, 1.0, 3.0]])  # the first by another spelling of its arithmetic
    parts = shared_out(spec, drives, fired)
    assert torch.stack(parts)[:, 0].tolist() == [[1, 1, 1], [1, 0, 1], [0, 0, 1]]
    assert sum(shared_out(spec, drives, fired + 7)).tolist() == [[3, 3, 3]]
