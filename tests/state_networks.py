"""Random networks of neurons with memory, as ONNX graphs, and the passes over them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from float_networks import Case, Net
from hypothesis import strategies as st
from onnx import TensorProto, helper

from snncc.frontends.loops import STEP
from snncc.ir.ops import DOMAIN
from snncc.passes.integers.quantise_input import QuantiseInput

__all__ = [
    "RULES",
    "apart",
    "carried",
    "flat",
    "head",
    "mean_over_time",
    "repeated",
    "sequence",
    "state_networks",
    "unrolled",
]

#: (D, rule) of the neurons drawn.
RULES = ((1, ">="), (1, ">"), (1, "half-up"), (3, "half-even"), (4, "half-up"), (3, ">="))
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
             "reset": "hard", "current": 0.0, **more}  # fmt: skip
    given |= {name: np.atleast_1d(given[name]).tolist() for name in ("decay", "current")}
    net.then("StatefulFire", domain=DOMAIN, module=net.label("lif"), T=T, **given)
    net.fired[net.x] = net.shape
    net.rms = given["D"] / 2 / given["norm"]
    return net


def sequence(net: Net, T: int) -> Net:
    """The input becomes [N, T, ...]; the current value, all its timesteps, [T*N, ...]."""
    net.timesteps = T
    rank = 2 + len(net.shape)
    return flat(net.then("Transpose", perm=[1, 0, *range(2, rank)], module="turn"))


def unrolled(net: Net, T: int, summed: bool = False) -> Net:
    """All that was built so far, on [T*N, ...], as a loop over T timesteps.

    Each timestep has nodes of its own; neurons hand their membrane from one to the next. What the
    timesteps give is put together as [T*N, ...], or ``summed`` as [N, ...].
    """
    body, membranes = list(net.nodes), {}
    net.nodes.clear()
    steps = []
    for t in range(T):
        names = {"x": _timestep(net, t)}
        for node in body:
            made = _step(net, node, t, membranes) if node.op_type == "StatefulFire" else node
            copy = onnx.NodeProto()
            copy.CopyFrom(made)
            copy.input[:] = [names.get(v, v) for v in made.input]
            copy.output[0] = names[node.output[0]] = f"{node.output[0]}@{t}"
            net.nodes.append(copy)
        steps.append(names[net.x])
    if not summed:
        net.x = net.node("Concat", *steps, module="steps", axis=0)
        return net
    net.x = net.const(np.zeros(net.shape))
    for step in steps:
        net.x = net.node("Add", net.x, step, module="running")
    return net


def _step(net: Net, node: Any, t: int, membranes: dict[str, str]) -> Any:
    """A neuron's call in timestep ``t``."""
    out = node.output[0]
    rest = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name != "T"}
    inputs = [*node.input, *([membranes[out]] if out in membranes else [])]
    membranes[out] = f"{out}/v@{t}"
    shape = ["N", *net.fired[out]]
    for name in (f"{out}@{t}", membranes[out]):
        net.known.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    outputs = [out, membranes[out]]
    return helper.make_node(STEP, inputs, outputs, node.name, domain=DOMAIN, **rest)


def _timestep(net: Net, t: int) -> str:
    """The input of a timestep: of a sequence the frame, else all there is."""
    if not net.timesteps:
        return "x"
    return net.node("Gather", "x", net.const(t, np.int64), module="frame", axis=1)


def mean_over_time(net: Net, T: int, op: str = "ReduceMean") -> Net:
    """[T*N, ...] -> [N, ...]."""
    apart(net, T)
    return net.then(op, net.const([0], np.int64), module="over_time", keepdims=0)


@st.composite
def state_networks(draw: st.DrawFn) -> Case:
    """Networks in which LIF, IF, I-LIF and SFA neurons are mixed, with inputs.

    The input is static or a sequence; timesteps are an axis, or a loop.
    """
    ties = draw(st.booleans())
    T = draw(st.integers(1, 4))
    spatial = draw(st.integers(0, 3)) > 0
    shape = (draw(st.integers(1, 2)), 5, 5) if spatial else (4,)
    source = QuantiseInput((2.0**-6,) if ties else (1 / 61.0,), (0.0,))
    net = Net(shape, draw(st.integers(0, 2**16)), ties, 128 * source.scale[0])
    is_sequence, is_loop = draw(st.booleans()), draw(st.booleans())
    if is_loop:
        net.timesteps = T * is_sequence
        _layers(draw, net, T, is_loop)
        summed = draw(st.booleans())
        unrolled(net, T, summed)
        head(draw, net, T, summed)
    else:
        has_layer = _front(draw, net, T, is_sequence)
        _layers(draw, net, T, is_loop, has_layer)
        head(draw, net, T)
    samples = (2, T, *shape) if is_sequence else (2, *shape)
    q = net.rng.integers(0, 256, samples) * (net.rng.random(samples) < 0.8)
    return Case(net, source, q.astype(np.uint8))


def _front(draw: st.DrawFn, net: Net, T: int, is_sequence: bool) -> bool:
    """Timesteps as an axis, and perhaps a layer before a repetition, which sees one of them."""
    if is_sequence:
        sequence(net, T)
        return False
    has_layer = draw(st.booleans())
    if has_layer:
        _layer(draw, net)
    repeated(net, T, draw(st.sampled_from(["stack", "tile"])))
    return has_layer


def _layers(draw: st.DrawFn, net: Net, T: int, is_loop: bool, has_layer: bool = False) -> None:
    """Layers and neurons; the first neuron, at least, has a memory."""
    for i in range(draw(st.integers(1, 3))):
        if i or not has_layer:
            _layer(draw, net)
        _meeting(draw, net, T, is_loop)
        if i and draw(st.integers(0, 3)) == 0:
            net.fire(draw(st.integers(1, 4)))
        else:
            _neuron(draw, net, T, is_loop)


def _layer(draw: st.DrawFn, net: Net) -> None:
    if len(net.shape) == 3 and draw(st.integers(0, 4)):
        net.conv(draw(st.integers(1, 3)), 3, draw(st.sampled_from([1, 1, 2])), 1)
    else:
        if len(net.shape) == 3:
            net.flatten()
        net.linear(draw(st.integers(1, 5)))
    if draw(st.integers(0, 2)) == 0:
        net.batch_norm(negative=False)


def _neuron(draw: st.DrawFn, net: Net, T: int, is_loop: bool) -> None:
    pick = lambda *options: draw(st.sampled_from(options))  # noqa: E731
    D, rule = draw(st.sampled_from(RULES))
    resets = ["hard", "soft", "delayed", "none", *["raised"] * (D == 1 and rule in (">=", ">"))]
    if not is_loop and draw(st.booleans()):
        apart(net, T)
        flat(net)
    decays = [draw(st.sampled_from(_DECAYS))]
    if pick(True, False, False):
        decays = draw(
            st.lists(st.sampled_from(_DECAYS), min_size=net.shape[0], max_size=net.shape[0])
        )
    carried(
        net, T, D=D, rule=rule, decay=[float(np.float32(decay)) for decay in decays],
        gain=pick(1.0, 0.5), threshold=pick(1.0, 0.5) if D == 1 else 1.0,
        norm=pick(1.0, 2.0), reset=pick(*resets),
        current=float(np.float32(pick(0.0, 0.0, 0.5, 0.75, 0.8))),
    )  # fmt: skip
    if len(net.shape) == 3 and min(net.shape[1:]) > 1 and pick(True, False, False):
        net.pool(pick("MaxPool", "AveragePool"), 2, 1)


def _meeting(draw: st.DrawFn, net: Net, T: int, is_loop: bool) -> None:
    """Spikes of two neurons meet in a sum or a gate, a membrane's maximum comes before one."""
    kinds = ["sum", "gate", "silence", "shortcut", "maximum", "none", "none"]
    kind = draw(st.sampled_from(kinds))
    if kind == "maximum" and len(net.shape) == 3 and min(net.shape[1:]) > 1:
        net.pool("MaxPool", 2, draw(st.integers(1, 2)), draw(st.integers(0, 1)))
        return
    if kind not in ("sum", "gate", "silence", "shortcut"):
        return
    carried(net, T)
    one, shape = net.x, net.shape
    if len(shape) == 3:
        net.conv(shape[0], 3, 1, 1)
    else:
        net.linear(shape[0])
    if kind == "shortcut":
        net.add(one)
        return
    carried(net, T, decay=0.25, gain=1.0, reset="soft")
    net.add(one) if kind == "sum" else net.gate(one, most=float(kind == "silence"))
    _layer(draw, net)


def head(draw: st.DrawFn, net: Net, T: int, summed: bool = False) -> None:
    """A readout of [T*N, ...], or of [N, ...] where timesteps are ``summed``; or none.

    Timesteps are averaged before it, averaged or added up after it, or stay.
    """
    kinds = ["mean-first", "mean-last", "each", "spikes", "sum"]
    kind = "summed" if summed else draw(st.sampled_from(kinds))
    if kind == "mean-first":
        mean_over_time(net, T)
    if len(net.shape) == 3:
        net.flatten()
    if kind != "spikes":
        net.linear(draw(st.integers(1, 3)))
    if kind in ("mean-last", "spikes", "sum"):
        mean_over_time(net, T, "ReduceSum" if kind == "sum" else "ReduceMean")
