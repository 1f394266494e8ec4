"""Leaky neurons of snnTorch, called once per timestep, are neurons over T: semantics and idioms."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import snntorch
import torch
from hypothesis import given
from hypothesis import strategies as st
from snntorch import surrogate, utils
from torch import nn

import snncc
from snncc.cli.report_lines import _memory
from snncc.compiler import InputOptions
from snncc.errors import UnsupportedModelError
from snncc.frontends.leaves import StepSpec, find_leaves
from snncc.frontends.pytorch import import_module
from snncc.ir.ops import DOMAIN, OPSET, VERSION, function_of
from snncc.ir.oracle import session

T = 3
PIXELS = InputOptions(mean=(0.3,), std=(0.3,))


def leaky(**more: Any) -> Any:
    return snntorch.Leaky(**{"beta": 0.5, "threshold": 0.5, **more})


# -- what a Leaky does -------------------------------------------------------------------------


def by_library(neuron: Any, drive: np.ndarray) -> np.ndarray:
    """Spikes of the library's own loop."""
    states, fired = neuron.reset_mem(), []
    states = states if isinstance(states, tuple) else (states,)
    with torch.no_grad():
        for x in torch.from_numpy(drive):
            spikes, *states = neuron(x, *states)
            fired.append(spikes.numpy())
    return np.stack(fired)


def by_operator(neuron: Any, drive: np.ndarray) -> np.ndarray:
    """Spikes of StatefulFire with the attributes read off the neuron."""
    (leaf,) = find_leaves(neuron)
    assert isinstance(leaf.spec, StepSpec)
    attributes = {"T": len(drive), **leaf.spec.neuron.numbers(drive.shape[2:])}
    node = onnx.helper.make_node("StatefulFire", ["x"], ["y"], domain=DOMAIN, **attributes)
    values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in "xy"]
    versions = (("", OPSET), (DOMAIN, VERSION))
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "one", values[:1], values[1:]),
        opset_imports=[onnx.helper.make_opsetid(*version) for version in versions],
        functions=[function_of("StatefulFire")],
        ir_version=10,
    )  # fmt: skip
    flat = drive.reshape(-1, drive.shape[-1])
    return session(model, threads=1).run(None, {"x": flat})[0].reshape(drive.shape)


@given(
    st.sampled_from([0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0, 1.5]),
    st.sampled_from([0.5, 1.0, 1.3]),
    st.sampled_from(["subtract", "zero"]),
    st.integers(1, 12),
    st.integers(0, 2**16),
)
def test_a_leaky_is_its_operator_at_every_timestep(
    beta: float, threshold: float, reset: str, steps: int, seed: int
) -> None:
    neuron = leaky(beta=beta, threshold=threshold, reset_mechanism=reset)
    quarters = np.random.default_rng(seed).integers(-6, 12, (steps, 2, 40))
    drive = (quarters * np.float32(threshold / 4)).astype(np.float32)  # meets the threshold
    np.testing.assert_array_equal(by_operator(neuron, drive), by_library(neuron, drive))


OTHERS = {
    "at once": lambda **more: leaky(reset_delay=False, **more),
    "none": lambda **more: leaky(reset_mechanism="none", **more),
    "synaptic": lambda **more: snntorch.Synaptic(alpha=0.75, **more),
    "synaptic, at once": lambda **more: snntorch.Synaptic(alpha=0.75, reset_delay=False, **more),
    "synaptic, to 0 at once": lambda **more: snntorch.Synaptic(
        alpha=0.5, reset_delay=False, reset_mechanism="zero", **more
    ),
    "synaptic, none": lambda **more: snntorch.Synaptic(alpha=0.5, reset_mechanism="none", **more),
    "lapicque": lambda beta, threshold: snntorch.Lapicque(R=1, C=2, threshold=threshold),
    "own betas": lambda beta, threshold: leaky(beta=own(beta), threshold=threshold),
    "own alphas": lambda beta, threshold: snntorch.Synaptic(
        alpha=own(0.75), beta=own(beta), threshold=threshold
    ),
}


def own(decay: float) -> torch.Tensor:
    """Of each of 60 neurons one, all of them exact."""
    return decay * torch.arange(60) % 5 / 4


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize(("beta", "threshold"), [(0.5, 0.5), (0.75, 1.0), (1.0, 2.0), (0.0, 0.5)])
def test_neurons_with_other_resets_or_a_current_are_their_operators(kind, beta, threshold):
    quarters = np.random.default_rng(3).integers(-6, 12, (9, 4, 60))
    drive = (quarters * np.float32(threshold / 4)).astype(np.float32)  # often twice the threshold
    neuron = OTHERS[kind](beta=beta, threshold=threshold)
    spikes = by_library(neuron, drive)
    assert 0 < spikes.mean() < 1
    np.testing.assert_array_equal(by_operator(neuron, drive), spikes)


def test_its_reset_comes_a_timestep_late_and_behind_the_decay():
    drive = np.float32([[[2.0]], [[0.0]], [[0.5]], [[0.6]]])  # U = 2, 2/2 - 1, 0 + .5, .25 + .6
    neuron = leaky(threshold=1.0)
    assert by_library(neuron, drive).ravel().tolist() == [1, 0, 0, 0]
    soft = [1, 0, 0, 0]
    assert by_operator(neuron, drive).ravel().tolist() == soft
    (leaf,) = find_leaves(neuron)
    assert leaf.spec.neuron.reset == "delayed"


@pytest.mark.parametrize("delay", [True, False])
def test_a_reset_to_zero_is_hard_late_or_at_once(delay):
    neuron = leaky(reset_mechanism="zero", reset_delay=delay)
    assert find_leaves(neuron)[0].spec.neuron.reset == "hard"
    drive = np.random.default_rng(1).normal(0.3, 0.6, (9, 2, 50)).astype(np.float32)
    np.testing.assert_array_equal(by_operator(neuron, drive), by_library(neuron, drive))


class Inverted(nn.Module):
    """A surrogate whose forward is another step."""

    def forward(self, x):
        return (x >= 0).float()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"threshold": 0.0}, "a threshold above 0"),
        ({"graded_spikes_factor": 2.0}, "graded_spikes_factor=1"),
        ({"state_quant": lambda x: x}, "no state_quant"),
    ],
)
def test_other_leaky_neurons_are_refused_and_why(settings, why):
    net = nn.Sequential(nn.Linear(3, 3), leaky(**settings))
    with pytest.raises(UnsupportedModelError, match=why) as caught:
        find_leaves(net)
    assert caught.value.faults[0].module == "1"


@pytest.mark.parametrize("hidden", [False, True])
def test_a_leaky_that_fires_otherwise_than_its_attributes_say_is_refused(hidden):
    net = Loop("sum", hidden=hidden).eval()
    net.lif2.spike_grad = Inverted()
    with pytest.raises(UnsupportedModelError, match="do not fire as they were described") as caught:
        import_module(net, (1, 6, 6))
    (fault,) = caught.value.faults
    assert (fault.module, fault.kind) == ("lif2", "Leaky")
    assert "a drive of 0.5 in timestep 0 fires 1 in PyTorch and 0 by" in fault.what


def test_all_that_stands_in_the_way_is_said_at_once():
    wrong = {"threshold": 0.0, "inhibition": True}
    net = nn.Sequential(leaky(**wrong), snntorch.Alpha(alpha=0.9, beta=0.5))
    with pytest.raises(UnsupportedModelError) as caught:
        find_leaves(net)
    assert len(caught.value.faults) == 2
    assert "inhibition=False, a threshold above 0" in str(caught.value)
    assert "Alpha does not become spikes: its membrane is the difference" in str(caught.value)


def test_surrogates_whose_forward_is_a_step_are_all_alike():
    for grad in (surrogate.fast_sigmoid(), surrogate.atan(), surrogate.sigmoid()):
        assert find_leaves(leaky(spike_grad=grad))


# -- networks ----------------------------------------------------------------------------------


class Loop(nn.Module):
    """Two layers and a readout of spikes in a loop over timesteps; ``end`` puts them together."""

    def __init__(self, end, reset="subtract", is_sequence=False, hidden=False):
        super().__init__()
        more = {"reset_mechanism": reset, "init_hidden": hidden}
        self.conv1, self.bn1 = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.lif1 = leaky(**more)
        self.conv2, self.lif2 = nn.Conv2d(3, 3, 3, padding=1), leaky(**more)
        self.fc, self.lif3 = nn.Linear(108, 4), leaky(**more)
        self.end, self.is_sequence, self.hidden = end, is_sequence, hidden
        with torch.no_grad():
            for layer in (self.conv1, self.conv2, self.fc):
                layer.weight.mul_(3)

    def forward(self, x):
        state = {}
        if self.hidden:
            utils.reset(self)
        spikes = []
        for t in range(T):
            y = self.call("lif1", self.bn1(self.conv1(x[t] if self.is_sequence else x)), state)
            y = self.call("lif2", self.conv2(y), state)
            spikes.append(self.call("lif3", self.fc(y.flatten(1)), state))
        return ENDS[self.end](spikes)

    def call(self, name, x, state):
        neuron = getattr(self, name)
        if self.hidden:
            return neuron(x)
        spikes, state[name] = neuron(x, state.get(name, neuron.init_leaky()))
        return spikes


def running(spikes):
    total = torch.zeros(spikes[0].shape[0], 4)
    for s in spikes:
        total += s
    return total / len(spikes)


ENDS = {
    "stack": torch.stack,
    "mean": lambda s: torch.stack(s).mean(0),
    "sum": lambda s: torch.stack(s, dim=1).sum(1),
    "running": running,
    "builtin": sum,
}


def compiled(net, x, **more):
    options = {"input_shape": (1, 6, 6), "weight_bits": 24, "input": PIXELS, **more}
    return snncc.compile(net, x, **options)


def eager(net, x):
    with torch.no_grad():
        frames = (torch.tensor(x).float() / 255 - 0.3) / 0.3
        return net(frames.transpose(0, 1) if x.ndim == 5 else frames).numpy()


@pytest.mark.parametrize(
    ("end", "reset", "is_sequence", "hidden"),
    [
        ("stack", "subtract", False, False),
        ("mean", "subtract", True, False),
        ("sum", "subtract", False, True),
        ("running", "subtract", True, False),
        ("builtin", "zero", True, True),
        ("mean", "zero", False, False),
    ],
)
def test_a_loop_becomes_one_population_per_neuron_over_timesteps(end, reset, is_sequence, hidden):
    torch.manual_seed(0)
    net = Loop(end, reset, is_sequence, hidden).eval()
    shape = (6, T, 1, 6, 6) if is_sequence else (6, 1, 6, 6)
    x = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    model = compiled(net, x, timesteps=T if is_sequence else None)
    program, report = model.program, model.report
    assert [n.module for n in program.neurons] == ["lif1", "lif2", "lif3"]
    assert (program.timesteps, report.import_law.neurons) == (T, 3)
    assert (report.verify.mismatched, report.changed) == (0, 0)
    assert not report.verify.coverage.silent
    (found,) = snncc.Session(model).run(None, x)
    expected = eager(net, x)
    assert found.shape == expected.shape
    assert 0 < expected.mean() < T
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_trained_states_of_a_leaky_are_part_of_a_checkpoint(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 3), leaky(learn_beta=True, learn_threshold=True))
    with torch.no_grad():
        net[1].beta.fill_(0.75)
        net[1].threshold.fill_(2.0)
    neuron = find_leaves(net)[0].spec.neuron
    assert (neuron.decay, neuron.threshold) == (0.75, 2.0)


def test_neurons_alike_on_the_same_drive_stay_two_neurons():
    class Twins(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.one, self.two = nn.Linear(36, 4), leaky(), leaky(beta=0.25)

        def forward(self, x):
            total, mem1, mem2 = 0, None, None
            for _ in range(T):
                drive = self.fc(x.flatten(1))
                one, mem1 = self.one(drive, mem1)
                two, mem2 = self.two(drive, mem2)
                total = total + (one + two)
            return total

    x = np.random.default_rng(0).integers(0, 256, (8, 1, 6, 6)).astype(np.uint8)
    model = compiled(Twins().eval(), x)
    assert len(model.program.neurons) == 2
    assert (model.report.changed, model.report.verify.mismatched) == (0, 0)


class Thresholds(nn.Module):
    """A threshold for each channel, and for each neuron."""

    def __init__(self, **more):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 3, 3), nn.Linear(48, 6)
        self.lif1 = leaky(**{**more, "threshold": torch.tensor([0.3, 0.5, 1.7]).view(3, 1, 1)})
        each = torch.linspace(0.2, 0.9, 6)
        self.lif2 = leaky(**{**more, "threshold": each, "learn_threshold": True})

    def forward(self, x):
        mem1, mem2, total = self.lif1.reset_mem(), self.lif2.reset_mem(), 0
        for _ in range(T):
            one, mem1 = self.lif1(2 * self.conv(x), mem1)
            two, mem2 = self.lif2(2 * self.fc(one.flatten(1)), mem2)
            total = total + two
        return total


@pytest.mark.parametrize("more", [{}, pytest.param({"reset_delay": False}, marks=pytest.mark.slow)])
def test_each_neuron_may_have_a_threshold_of_its_own(more):
    torch.manual_seed(1)
    net = Thresholds(**more).eval()
    x = np.random.default_rng(0).integers(0, 256, (24, 1, 6, 6)).astype(np.uint8)
    expected = eager(net, x)
    model = compiled(net, x)
    report = model.report
    assert (report.import_law.neurons, report.import_law.changed, report.changed) == (2, 0, 0)
    assert report.verify.mismatched == 0
    assert not report.verify.coverage.silent
    np.testing.assert_allclose(snncc.Session(model).run(None, x)[0], expected, atol=1e-6)


class Decays(nn.Module):
    """A decay of the membrane and of the current for each channel, and for each neuron.

    Args:
        simple: They are eighths, so that membranes are exact.
        conv: Those of channels.
    """

    def __init__(self, simple, conv=(3, 1, 1)):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 3, 3), nn.Linear(48, 12)
        size = torch.Size(conv).numel()
        betas = torch.arange(size) % 3 / 8 + 0.5 if simple else torch.linspace(0.31, 0.97, size)
        each = torch.arange(12) % 8 / 8 if simple else torch.linspace(0.2, 0.9, 12)
        self.lif1 = leaky(beta=betas.view(conv))
        self.lif2 = snntorch.Synaptic(
            alpha=each.flip(0), beta=each, threshold=torch.linspace(0.3, 0.9, 12), learn_beta=True
        )

    def forward(self, x):
        mem1, total = self.lif1.reset_mem(), 0
        syn2, mem2 = self.lif2.reset_mem()
        for _ in range(T):
            one, mem1 = self.lif1(2 * self.conv(x), mem1)
            two, syn2, mem2 = self.lif2(3 * self.fc(one.flatten(1)), syn2, mem2)
            total = total + two
        return total


@pytest.mark.parametrize("simple", [True, False])
def test_each_neuron_may_have_decays_of_its_own(simple):
    torch.manual_seed(1)
    net = Decays(simple).eval()
    x = np.random.default_rng(0).integers(0, 256, (24, 1, 6, 6)).astype(np.uint8)
    expected = eager(net, x)
    model = compiled(net, x)
    report, (one, two) = model.report, model.program.neurons
    if simple:
        assert (one.decay, one.fraction) == (((4, 5, 6), 3), 3 * (T - 1))
        assert [two.decay[0][:4], two.current[0][-4:]] == [(0, 1, 2, 3), (3, 2, 1, 0)]
    else:
        assert (len(one.decay[0]), len(two.decay[0]), len(two.current[0])) == (3, 12, 12)
        assert one.decay[1] == two.current[1] == 16
    assert (report.import_law.neurons, report.import_law.changed, report.changed) == (2, 0, 0)
    assert report.verify.mismatched == 0
    assert not report.verify.coverage.silent
    np.testing.assert_allclose(snncc.Session(model).run(None, x)[0], expected, atol=1e-6)


@pytest.mark.parametrize("conv", [(4,), (3, 4, 1), (1, 3, 1, 4)])
def test_decays_that_differ_within_a_channel_are_refused(conv):
    net = Decays(simple=True, conv=conv).eval()
    message = r"lif1 .*decay has the shape \[.*4.*\], for \[3, 4, 4\] in a timestep of a sample"
    with pytest.raises(UnsupportedModelError, match=message):
        import_module(net, (1, 6, 6))


def test_thresholds_that_differ_within_a_channel_are_refused():
    net = Thresholds().eval()
    net.lif1.threshold = torch.rand(3, 4, 4) + 0.5
    message = r"lif1 .*threshold has the shape \[3, 4, 4\], for \[3, 4, 4\] in a timestep"
    with pytest.raises(UnsupportedModelError, match=message):
        import_module(net, (1, 6, 6))


def test_a_decay_that_is_another_one_than_described_is_found_out():
    net = Decays(simple=True).eval()
    net.lif1.mem_reset = lambda mem: 0 * mem  # not what it says of itself
    with pytest.raises(UnsupportedModelError, match="do not fire as they were described") as caught:
        import_module(net, (1, 6, 6))
    assert caught.value.faults[0].module == "lif1"


class Mixed(nn.Module):
    """Synaptic neurons, and Leaky ones whose reset comes at once, or never."""

    def __init__(self, hidden):
        super().__init__()
        more = {"init_hidden": hidden, "threshold": 0.5}
        self.conv, self.fc1, self.fc2 = nn.Conv2d(1, 3, 3), nn.Linear(48, 12), nn.Linear(12, 4)
        self.lif1 = leaky(reset_delay=False, init_hidden=hidden)
        self.lif2 = snntorch.Synaptic(alpha=0.75, beta=0.5, **more)
        self.lif3 = leaky(reset_mechanism="none", init_hidden=hidden)
        self.hidden = hidden

    def forward(self, x):
        if self.hidden:
            utils.reset(self)
        mem1, mem3, total = self.lif1.reset_mem(), None, 0
        syn2, mem2 = self.lif2.reset_mem()
        for _ in range(4):
            if self.hidden:
                one = self.lif1(3 * self.conv(x)).flatten(1)
                total = total + self.lif3(3 * self.fc2(self.lif2(3 * self.fc1(one))))
                continue
            one, mem1 = self.lif1(3 * self.conv(x), mem1)
            two, syn2, mem2 = self.lif2(3 * self.fc1(one.flatten(1)), syn2, mem2)
            three, mem3 = self.lif3(3 * self.fc2(two), mem3)
            total = total + three
        return total


@pytest.mark.parametrize("hidden", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_currents_and_other_resets_fire_the_same_on_every_engine(hidden):
    torch.manual_seed(1)
    net = Mixed(hidden).eval()
    x = np.random.default_rng(0).integers(0, 256, (24, 1, 6, 6)).astype(np.uint8)
    expected = eager(net, x)
    model = compiled(net, x)
    report = model.report
    assert [n.carry for n in model.program.neurons] == ["raised", "delayed", "soft"]
    assert [n.current for n in model.program.neurons] == [(0, 0), (3, 2), (0, 0)]
    # (T - 1) decays by 1/2 or 3/4 need so many bits each: nothing is rounded
    assert [n.fraction for n in model.program.neurons] == [3, 6, 3]
    assert [int(n.threshold.max() > 0) for n in model.program.neurons] == [1, 1, 0]
    assert (report.import_law.neurons, report.import_law.changed, report.changed) == (3, 0, 0)
    assert report.verify.mismatched == 0
    assert not report.verify.coverage.silent
    np.testing.assert_allclose(snncc.Session(model).run(None, x)[0], expected, atol=1e-6)


# -- what is refused ---------------------------------------------------------------------------


class Faulty(nn.Module):
    """A loop with something that is no timestep of a neuron."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.fc1, self.fc2 = nn.Linear(36, 5), nn.Linear(5, 5)
        self.lif1, self.lif2 = leaky(), leaky()

    def forward(self, x):
        mem1 = torch.full((x.shape[0], 5), 0.5) if self.kind == "charged" else None
        mem2, out, members = None, torch.zeros(x.shape[0], 5), []
        for t in range(T):
            drive = self.fc1(x.flatten(1))
            if self.kind == "recurrent":
                drive = drive + self.fc2(out)
            if self.kind == "changing":
                drive = drive * (t + 1)
            out, mem1 = self.lif1(drive, mem1)
            members.append(mem1)
            if self.kind != "recurrent":
                out, mem2 = self.lif2(self.fc2(out), mem2)
        ends = {"membrane": members, "last": [out]}
        return torch.stack(ends.get(self.kind, [out] * T)).mean(0)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("charged", r"lif1 .*begins with a membrane that is not empty"),
        ("membrane", r"lif1 .*hands its membrane to more than its next call"),
        ("recurrent", r"lif1 .*reads spikes of an earlier timestep"),
        ("changing", "timestep 1 is not computed as timestep 0 is"),
        ("last", "that of timestep 2 alone"),
    ],
)
def test_what_is_no_neuron_over_time_is_named(kind, why):
    net = Faulty(kind).eval()
    with pytest.raises(UnsupportedModelError, match=why):
        compiled(net, np.zeros((2, 1, 6, 6), np.uint8))


def test_a_network_whose_loop_is_outside_is_told_so():
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), leaky(init_hidden=True))
    with pytest.raises(UnsupportedModelError, match=r"2 .*called in one timestep only") as caught:
        compiled(net.eval(), np.zeros((2, 1, 6, 6), np.uint8))
    assert "whose forward loops over the timesteps" in str(caught.value)


def test_a_loop_is_imported_once():
    model = import_module(Loop("mean").eval(), (1, 6, 6))
    fires = [n for n in model.graph if n.op_type == "StatefulFire"]
    calls = [n.metadata_props["snncc.calls"] for n in fires]  # as the loop makes them
    assert calls == ["0,3,6", "1,4,7", "2,5,8"]
    assert [n.attributes["T"].value for n in fires] == [T] * 3


# -- membranes that no 62 bits hold -----------------------------------------------------------


class Long(nn.Module):
    """One layer over T timesteps."""

    def __init__(self, T, beta):
        super().__init__()
        self.fc, self.lif, self.T = nn.Linear(36, 6), leaky(beta=beta), T

    def forward(self, x):
        membrane, total = self.lif.reset_mem(), 0
        for _ in range(self.T):
            spikes, membrane = self.lif(self.fc(x.flatten(1)), membrane)
            total = total + spikes
        return total / self.T


@pytest.mark.parametrize(
    ("T", "beta", "told"),
    [
        (40, 0.75, "membranes rounded: lif ({} of 78 further bits that are exact)"),
        (3, 0.9, "membranes rounded: lif (a decay to 16 bits, {} further bits)"),
        (3, 0.75, None),
    ],
)
def test_membranes_that_are_rounded_are_said_to_be(T, beta, told):
    torch.manual_seed(0)
    x = np.random.default_rng(0).integers(0, 256, (8, 1, 6, 6)).astype(np.uint8)
    model = compiled(Long(T, beta).eval(), x)
    (neuron,) = model.program.neurons
    (line,) = _memory(model) or [None]
    told = told and told.format(neuron.fraction)
    assert line == (told and ("memory", told, "part of what is measured as weights"))
    assert neuron.fraction < 62 - neuron.decay[1]
    assert model.report.verify.mismatched == 0
    assert not model.report.verify.coverage.silent
    assert model.report.changed is not None  # what rounding changes is counted
