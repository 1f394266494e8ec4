"""Operations of a compiled network against hooks in PyTorch, and against SpikingJelly's counter.

Both count what the torch modules do with the very activations. Hooks count as NeuroBench's harness
defines it: a copy of the layer with ones for weights (Dense), or ones for weights other than 0
(effective), without its bias, on inputs that are 1 where they are not 0 in an ANN, and on each tick
of a spike train. SpikingJelly counts weight uses of binary inputs.
"""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import snncc
from snncc.backends.base import thermometer
from snncc.nn import IntegerFire

D = 3


class Net(nn.Module):
    """Borders, strides, groups, dilation, a bias, pruned weights, and a pool of spikes."""

    def __init__(self):
        super().__init__()
        self.default_cfg = {"input_size": (1, 12, 12), "mean": (0.0,), "std": (1.0,)}
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.fire1 = IntegerFire(D)
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
        self.fire2 = IntegerFire(D)
        self.pool = nn.MaxPool2d(2, 1)
        self.conv3 = nn.Conv2d(6, 8, 3, padding=2, dilation=2, bias=False)
        self.fire3 = IntegerFire(D)
        self.head = nn.Linear(8 * 5 * 5, 10)

    def forward(self, x):
        x = self.fire1(self.conv1(x))
        x = self.pool(self.fire2(self.conv2(x)))
        return self.head(self.fire3(self.conv3(x)).flatten(1))


LAYERS = ("conv1", "conv2", "conv3", "head")
#: Layer -> population whose spikes it reads, perhaps pooled.
READS = {"conv2": "fire1", "conv3": "fire2", "head": "fire3"}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(3)
    made = Net().eval()
    for name in LAYERS:
        weight = getattr(made, name).weight.data
        weight *= 4
        weight[torch.rand_like(weight) < 0.3] = 0
    return made


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (6, 1, 12, 12), dtype=np.uint8)
    return np.where(rng.random(x.shape) < 0.6, x, 0).astype(np.uint8)


@pytest.fixture(scope="module")
def session(net, images):
    return snncc.Session(snncc.compile(net, calibration=images, weight_bits=24), "event")


@pytest.fixture(scope="module")
def found(session, images):
    """Module -> its work."""
    profile = session.profile(images)
    return {w.module: w for w in profile.projections}


@pytest.fixture(scope="module")
def inputs(net, images):
    """Module -> what it reads in PyTorch."""
    read = {}
    hooks = [
        getattr(net, name).register_forward_pre_hook(
            lambda _module, args, name=name: read.update({name: args[0]})
        )
        for name in LAYERS
    ]
    with torch.no_grad():
        net(torch.from_numpy(images).float() / 255)
    for hook in hooks:
        hook.remove()
    return read


def uses(layer, x, weights):
    """What the layer's copy with these weights and no bias sums up to."""
    twin = copy.deepcopy(layer)
    twin.weight.data, twin.bias = weights.float(), None
    with torch.no_grad():
        return int(twin.double()(x.double()).sum())


def total(work, name, images):
    return round(getattr(work, name) * len(images))


def test_activations_are_those_of_the_torch_network(session, images, inputs):
    counts = session.trace(images).counts
    by_module = {n.module: counts[n.name][0] for n in session.model.program.neurons}
    np.testing.assert_array_equal(by_module["fire1"], inputs["conv2"].numpy())


@pytest.mark.parametrize("name", LAYERS)
def test_work_equals_that_of_hooks(net, images, inputs, found, name):
    layer, x, work = getattr(net, name), inputs[name], found[name]
    ones, there = torch.ones_like(layer.weight), layer.weight != 0
    assert work.dense * len(images) == uses(layer, torch.ones_like(x), ones)
    if name == "conv1":
        assert work.macs == work.dense
        assert total(work, "effective_macs", images) == uses(layer, (x != 0), there)
        return
    assert total(work, "sops", images) == uses(layer, x, ones)  # x is the sum of its ticks
    assert total(work, "acs", images) == uses(layer, x, there)
    assert total(work, "ann_nonzero", images) == uses(layer, x != 0, ones)


@pytest.mark.parametrize("name", READS)
def test_sops_equal_those_of_spikingjelly(net, session, images, inputs, found, name):
    """It counts no bias and nothing in the padding, weights of 0 too: as our SOPs are."""
    counters = pytest.importorskip("spikingjelly.activation_based.op_counter")
    layer, counter = getattr(net, name), counters.SynOpCounter()
    train = thermometer(inputs[name].numpy().astype(np.uint8)[None], D)[0]
    with torch.no_grad(), counters.DispatchCounterMode([counter]):
        for tick in torch.from_numpy(train).float():
            layer(tick)
    assert total(found[name], "sops", images) == counter.get_total()
