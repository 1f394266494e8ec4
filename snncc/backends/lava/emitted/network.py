"""The network of graph.json as connected Lava processes."""

from __future__ import annotations

import sys
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
from snncc.backends.lava.processes.base import EmittedProcess, as_tuples, own_processes
from snncc.backends.lava.processes.fast_conv import PyFastConv

__all__ = ["build", "run_config"]

#: Lava's PyConvModelFixed keeps the number in 8 bits with sign.
_STOCK_GROUPS = 127
#: Calls of Python that Lava's compiler may nest, those along a chain of processes not counted.
_OTHER_CALLS = 1000


def build(graph: Graph, x: Path, results: Results, readouts_only: bool = False) -> AbstractProcess:
    """Connects the processes; returns one of them, by which Lava finds all others.

    Args:
        graph: The network.
        x: .npy file of the samples.
        results: Where results go.
        readouts_only: No spike counts: that saves a process per population.

    Raises:
        ValueError: An entry is of a process that there is not.
    """
    made: dict[str, AbstractProcess] = {}
    own, head = own_processes(), graph.description
    whole = {"frame": head["frame"], "timesteps": head["timesteps"], "path": str(x)}
    for entry in graph.entries:
        if readouts_only and entry.get("writes") == "counts":
            continue
        written = results.paths(entry) if "writes" in entry else {}
        process = _process(entry, graph, own, {**whole, **written})
        sources = [made[name] for name in entry.get("inputs", ())]
        for source, port in zip(sources, _ports(process, len(sources)), strict=True):
            _connect(source, port)
        made[entry["name"]] = process
    # Lava finds connected processes by recursion, a call for each of a chain.
    sys.setrecursionlimit(max(sys.getrecursionlimit(), _OTHER_CALLS + len(made)))
    return next(iter(made.values()))


def _process(
    entry: Entry, graph: Graph, own: Mapping[str, type[EmittedProcess]], given: Mapping[str, Any]
) -> AbstractProcess:
    kind = entry["process"]
    if kind in _STOCK:
        return _STOCK[kind](entry, graph.tensors)
    if kind not in own:
        raise ValueError(f"'{entry['name']}': there is no process '{kind}'")
    return own[kind].made({**given, **entry}, graph.tensors)


def run_config(graph: Graph, stock: bool = False) -> Loihi2SimCfg:
    """Fixed-point models on the CPU; convolutions by the fast model, unless ``stock``.

    Raises:
        ValueError: Lava's own model cannot do a convolution.
    """
    for entry in graph.entries:
        if stock and entry.get("groups", 1) > _STOCK_GROUPS:
            raise ValueError(f"'{entry['name']}' has {entry['groups']} groups; Lava's own model "
                             f"counts to {_STOCK_GROUPS}; take ours")  # fmt: skip
    exceptions = {} if stock else {Conv: PyFastConv}
    return Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=exceptions)


def _ports(process: AbstractProcess, count: int) -> list[Any]:
    """Where so many inputs of an entry arrive; Lava's own processes sum them up."""
    if isinstance(process, EmittedProcess):
        return process.ports(count)
    return list(process.in_ports) * count


def _connect(source: AbstractProcess, into: Any) -> None:
    """All processes have one port to send from; shapes change in the order C, H, W."""
    (out,) = source.out_ports
    if out.shape != into.shape:
        out = out.transpose().reshape(into.shape[::-1]).transpose()
    out.connect(into)


# -- Lava's own processes ------------------------------------------------------------------


def _conv(entry: Entry, tensors: Mapping[str, Any]) -> AbstractProcess:
    """Lava's Conv ignores weight exponents: a power of two that weights share is in the weights."""
    weight = tensors[entry["weight"]].astype(np.int32) << entry["shift"]
    geometry = {key: as_tuples(entry[key]) for key in ("stride", "padding", "dilation", "groups")}
    return Conv(
        weight=weight,
        input_shape=tuple(entry["input_shape"]),
        num_message_bits=entry["message_bits"],
        name=entry["name"],
        **geometry,
    )


def _dense(entry: Entry, tensors: Mapping[str, Any]) -> AbstractProcess:
    """Twice the weights and half the sum: exact.

    Of mixed sign Lava makes weights even and cuts them off at -256 and 254.
    """
    return Dense(
        weights=2 * tensors[entry["weight"]].astype(np.int32),
        weight_exp=entry["shift"] - 1,
        sign_mode=SignMode.MIXED,
        num_message_bits=entry["message_bits"],
        name=entry["name"],
    )


#: How those are made that know nothing of entries.
_STOCK: Mapping[str, Callable[[Entry, Mapping[str, Any]], AbstractProcess]] = {
    "Conv": _conv,
    "Dense": _dense,
}
