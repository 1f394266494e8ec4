"""Random networks of neurons with memory, as ONNX graphs, and the passes over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from float_networks import Case, Net
from hypothesis import strategies as st

from snncc.ir.ops import DOMAIN
from snncc.passes.quantise_input import QuantiseInput

__all__ = ["RULES", "apart", "carried", "mean_over_time", "repeated", "state_networks"]

#: (D, rule) of the neurons drawn.
RULES = ((1, ">="), (1, ">"), (1, "half-up"), (3, "half-even"), (4, "half-up"))
_DECAYS = (0.0, 0.25, 0.5, 0.75, 1.0, 1 - 1 / 1.75, 0.9)


def repeated(net: Net, T: int, how: str = "stack") -> Net:
    """The current value in all timesteps: [N, ...] -> [T*N, ...]."""
    axis = net.const([0], np.int64)
    net.then("Unsqueeze", axis, module="repeat")
    if how == "stack":
        net.x = net.node("Concat", *[net.x] * T, module="repeat", axis=0)
    else:
        times = net.const([T] + [1] * (1 + len(net.shape)), np.int64)
        net.then("Tile", times, module="repeat")
    return flat(net)


def flat(net: Net) -> Net:
    """[T, N, ...] -> [T*N, ...]."""
    return net.then("Reshape", net.const([-1, *net.shape], np.int64), module="flat")


def apart(net: Net, T: int) -> Net:
    """[T*N, ...] -> [T, N, ...]."""
    return net.then("Reshape", net.const([T, -1, *net.shape], np.int64), module="apart")


def carried(net: Net, T: int, **more: Any) -> Net:
    """A StatefulFire on [T*N, ...]; attributes as given, else those of LIF with tau 2."""
    given = {"D": 1, "decay": 0.5, "gain": 0.5, "threshold": 1.0, "norm": 1.0, "rule": ">=",
             "reset": "hard", **more}  # fmt: skip
    net.then("StatefulFire", domain=DOMAIN, module=net.label("lif"), T=T, **given)
    net.rms = given["D"] / 2 / given["norm"]
    return net


def mean_over_time(net: Net, T: int, op: str = "ReduceMean") -> Net:
    """[T*N, ...] -> [N, ...]."""
    apart(net, T)
    return net.then(op, net.const([0], np.int64), module="over_time", keepdims=0)


@st.composite
def state_networks(draw: st.DrawFn) -> Case:
    """Networks in which LIF, IF, I-LIF and SFA neurons are mixed, with inputs."""
    ties = draw(st.booleans())
    T = draw(st.integers(1, 4))
    spatial = draw(st.integers(0, 3)) > 0
    shape = (draw(st.integers(1, 2)), 5, 5) if spatial else (4,)
    source = QuantiseInput((2.0**-6,) if ties else (1 / 61.0,), (0.0,))
    net = Net(shape, draw(st.integers(0, 2**16)), ties, 128 * source.scale[0])
    early = draw(st.booleans())  # layers ahead of the repetition see one timestep
    if early:
        repeated(net, T, draw(st.sampled_from(["stack", "tile"])))
    _layer(draw, net)
    if not early:
        repeated(net, T, draw(st.sampled_from(["stack", "tile"])))
    _neuron(draw, net, T)
    for _ in range(draw(st.integers(0, 2))):
        _layer(draw, net)
        if draw(st.integers(0, 3)) == 0:
            net.fire(draw(st.integers(1, 4)))
        else:
            _neuron(draw, net, T)
    _head(draw, net, T)
    samples = (2, *shape)
    q = net.rng.integers(0, 256, samples) * (net.rng.random(samples) < 0.8)
    return Case(net, source, q.astype(np.uint8))


def _layer(draw: st.DrawFn, net: Net) -> None:
    if len(net.shape) == 3 and draw(st.integers(0, 4)):
        net.conv(draw(st.integers(1, 3)), 3, draw(st.sampled_from([1, 1, 2])), 1)
    else:
        if len(net.shape) == 3:
            net.flatten()
        net.linear(draw(st.integers(1, 5)))
    if draw(st.integers(0, 2)) == 0:
        net.batch_norm(negative=False)


def _neuron(draw: st.DrawFn, net: Net, T: int) -> None:
    pick = lambda *options: draw(st.sampled_from(options))  # noqa: E731
    D, rule = draw(st.sampled_from(RULES))
    if draw(st.booleans()):
        apart(net, T)
        flat(net)
    carried(
        net, T, D=D, rule=rule, decay=float(np.float32(draw(st.sampled_from(_DECAYS)))),
        gain=pick(1.0, 0.5), threshold=pick(1.0, 0.5) if D == 1 else 1.0,
        norm=pick(1.0, 2.0), reset=pick("hard", "soft"),
    )  # fmt: skip
    if len(net.shape) == 3 and min(net.shape[1:]) > 1 and pick(True, False, False):
        net.pool(pick("MaxPool", "AveragePool"), 2, 1)


def _head(draw: st.DrawFn, net: Net, T: int) -> None:
    kind = draw(st.sampled_from(["mean-first", "mean-last", "each", "spikes", "sum"]))
    if kind == "mean-first":
        mean_over_time(net, T)
    if len(net.shape) == 3:
        net.flatten()
    if kind != "spikes":
        net.linear(draw(st.integers(1, 3)))
    if kind in ("mean-last", "spikes", "sum"):
        mean_over_time(net, T, "ReduceSum" if kind == "sum" else "ReduceMean")
