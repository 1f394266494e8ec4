"""The network of graph.json as connected Lava processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.conv.process import Conv
from lava.proc.dense.process import Dense
from lava.utils.weightutils import SignMode

from snncc.backends.lava.emitted.files import Entry, Graph, Results
from snncc.backends.lava.processes.attention import SpikeAttention
from snncc.backends.lava.processes.fast_conv import PyFastConv
from snncc.backends.lava.processes.frames import FrameSource, ReadOut
from snncc.backends.lava.processes.populations import Accumulate, IFMemory, IFSoftReset
from snncc.backends.lava.processes.relays import MaxPool, Relay

__all__ = ["build", "run_config"]

#: Lava's PyConvModelFixed keeps the number in 8 bits with sign.
_STOCK_GROUPS = 127


def build(graph: Graph, x: Path, results: Results, readouts_only: bool = False) -> AbstractProcess:
    """Connects the processes; returns one of them, by which Lava finds all others.

    Args:
        graph: The network.
        x: .npy file of the samples.
        results: Where results go.
        readouts_only: No spike counts: that saves a process per population.
    """
    made: dict[str, AbstractProcess] = {}
    for entry in graph.entries:
        if readouts_only and entry.get("writes") == "counts":
            continue
        process = _made(entry, graph, x, results)
        sources = [made[name] for name in entry.get("inputs", ())]
        for source, port in zip(sources, _ports(process, len(sources)), strict=True):
            _connect(source, port)
        made[entry["name"]] = process
    return next(iter(made.values()))


def _made(entry: Entry, graph: Graph, x: Path, results: Results) -> AbstractProcess:
    head, kind = graph.description, entry["process"]
    common = {"name": entry["name"], "frame": head["frame"]}
    if kind == "FrameSource":
        common |= {"path": str(x), "timesteps": head["timesteps"]}
    elif kind == "ReadOut":
        common |= results.paths(entry)
    return _MAKERS[kind](entry, graph.tensors, common)


def run_config(graph: Graph, stock: bool = False) -> Loihi2SimCfg:
    """Fixed-point models on the CPU; convolutions by the fast model, unless ``stock``.

    Raises:
        ValueError: Lava's own model cannot do a convolution.
    """
    for entry in graph.entries:
        if stock and entry.get("groups", 1) > _STOCK_GROUPS:
            raise ValueError(f"'{entry['name']}' has {entry['groups']} groups; Lava's own model "
                             f"counts to {_STOCK_GROUPS}, run without --stock")  # fmt: skip
    exceptions = {} if stock else {Conv: PyFastConv}
    return Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=exceptions)


def _ports(process: AbstractProcess, count: int) -> list[Any]:
    """Where the inputs of an entry arrive: at one port, which sums them up, or each at its own."""
    if isinstance(process, SpikeAttention):
        return [process.one_in, process.two_in, process.last_in]
    return list(process.in_ports) * count


def _connect(source: AbstractProcess, into: Any) -> None:
    """All processes have one port to send from; shapes change in the order C, H, W."""
    (out,) = source.out_ports
    if out.shape != into.shape:
        out = out.transpose().reshape(into.shape[::-1]).transpose()
    out.connect(into)


# -- one entry to one process --------------------------------------------------------------


def _conv(entry: Entry, tensors: Mapping[str, Any], common: Mapping[str, Any]) -> AbstractProcess:
    """Lava's Conv ignores weight exponents: a power of two that weights share is in the weights."""
    weight = tensors[entry["weight"]].astype(np.int32) << entry["shift"]
    geometry = {key: entry[key] for key in ("stride", "padding", "dilation", "groups")}
    return Conv(
        weight=weight,
        input_shape=tuple(entry["input_shape"]),
        num_message_bits=entry["message_bits"],
        name=common["name"],
        **{key: _tuple(value) for key, value in geometry.items()},
    )


def _dense(entry: Entry, tensors: Mapping[str, Any], common: Mapping[str, Any]) -> AbstractProcess:
    """Twice the weights and half the sum: exact.

    Of mixed sign Lava makes weights even and cuts them off at -256 and 254.
    """
    return Dense(
        weights=2 * tensors[entry["weight"]].astype(np.int32),
        weight_exp=entry["shift"] - 1,
        sign_mode=SignMode.MIXED,
        num_message_bits=entry["message_bits"],
        name=common["name"],
    )


def _own(kind: type[AbstractProcess], *keys: str) -> Callable[..., AbstractProcess]:
    """A process of ours: tensors by name, lists as tuples."""

    def make(entry: Entry, tensors: Mapping[str, Any], common: Mapping[str, Any]) -> Any:
        def value(key: str) -> Any:
            given = entry[key]
            if key in ("bias", "levels", "threshold"):
                return tensors[given]
            return _tuple(given)

        return kind(**{key: value(key) for key in keys}, **common)

    return make


def _pool(entry: Entry, tensors: Mapping[str, Any], common: Mapping[str, Any]) -> AbstractProcess:
    keys = ("input_shape", "shape", "kernel", "stride", "padding")
    return MaxPool(**{key: tuple(entry[key]) for key in keys}, name=common["name"])


def _tuple(given: Any) -> Any:
    return tuple(map(_tuple, given)) if isinstance(given, list) else given


_MEMORY = ("threshold", "reset", "decay", "fraction", "timesteps")
#: How a process is made, by the ``process`` of its entry.
_MAKERS: dict[str, Callable[..., AbstractProcess]] = {
    "FrameSource": _own(FrameSource, "shape"),
    "Conv": _conv,
    "Dense": _dense,
    "MaxPool": _pool,
    "Relay": _own(Relay, "shape", "delay", "first", "burst"),
    "Accumulate": _own(Accumulate, "shape", "bias", "first"),
    "IFSoftReset": _own(IFSoftReset, "shape", "bias", "levels", "first"),
    "IFMemory": _own(IFMemory, "shape", "bias", "levels", "first", *_MEMORY),
    "SpikeAttention": _own(SpikeAttention, "shapes", "shape", "heads", "order", "first"),
    "ReadOut": _own(ReadOut, "shape", "first", "burst"),
}
