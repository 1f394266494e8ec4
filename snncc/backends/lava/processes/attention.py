"""Spike-driven attention: three spike trains multiplied head by head, tick by tick."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from snncc.backends.lava.processes.base import EmittedProcess

__all__ = ["SpikeAttention"]


class SpikeAttention(EmittedProcess):
    """y[j, n] = sum over i, m of q[i, n] k[i, m] v[j, m], for the spike counts of each head.

    Channels are heads, one after the other; all other axes are positions. Two trains grow a matrix:
    k v^T (``kv``) or q^T k (``qk``). Spikes of one tick meet all that came before them in the
    frame: with sums A and B so far, a and b add a (B + b)^T + A b^T. In tick ``first`` the matrix
    of frame 0 is complete and kept, and the third train begins: what it brings in a tick, times the
    matrix, is sent in that tick as graded spikes, while the next frame's matrix grows.

    Args:
        shapes: Of the trains that arrive at ``one_in``, ``two_in`` and ``last_in``.
        shape: Of the products.
        heads: How many.
        order: ``kv``: k, v, and q last; ``qk``: q, k, and v last.
        first: Tick in which the matrix of frame 0 is complete.
        frame: Ticks of a frame.
        name: Of the process, for messages.
    """

    arrivals: ClassVar[tuple[str, ...]] = ("one_in", "two_in", "last_in")

    def __init__(
        self, *, shapes: Any, shape: Any, heads: int, order: str, first: int, frame: int, name: str
    ) -> None:
        super().__init__(shape=shape, heads=heads, order=order, first=first, frame=frame, name=name)
        one, two, last = shapes
        self.one_in, self.two_in = InPort(shape=one), InPort(shape=two)
        self.last_in, self.s_out = InPort(shape=last), OutPort(shape=shape)
        sums = [(heads, s[-1] // heads, int(np.prod(s[:-1]))) for s in (one, two)]
        axis = 1 if order == "kv" else 2  # the trains share the other one
        matrix = (heads, sums[0][axis], sums[1][axis])
        self.one, self.two = (Var(shape=s, init=0) for s in sums)
        self.matrix, self.complete = Var(shape=matrix, init=0), Var(shape=matrix, init=0)


@implements(proc=SpikeAttention, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySpikeAttention(PyLoihiProcessModel):
    """See SpikeAttention."""

    one_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    two_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    last_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    one: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    two: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    matrix: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    complete: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.shape, self.heads = proc_params["shape"], proc_params["heads"]
        self.columns_first = proc_params["order"] == "kv"
        self.first, self.frame = proc_params["first"], proc_params["frame"]

    def run_spk(self) -> None:
        """One tick."""
        one, two = self.by_head(self.one_in.recv()), self.by_head(self.two_in.recv())
        self.matrix += self.products(one, self.two + two) + self.products(self.one, two)
        self.one += one
        self.two += two
        if (self.time_step - self.first) % self.frame == 0:
            self.complete[:] = self.matrix
            for state in (self.matrix, self.one, self.two):
                state[:] = 0
        last = self.by_head(self.last_in.recv())
        self.s_out.send(self.multiplied(last).reshape(self.shape[::-1]).T)

    def by_head(self, arrived: np.ndarray) -> np.ndarray:
        """(W, H, C) as (heads, channels of a head, positions)."""
        return np.reshape(arrived.T, (self.heads, arrived.shape[-1] // self.heads, -1))

    def products(self, one: np.ndarray, two: np.ndarray) -> np.ndarray:
        """What two factors add to the matrix."""
        if self.columns_first:
            return _exact(one, two.swapaxes(1, 2))
        return _exact(one.swapaxes(1, 2), two)

    def multiplied(self, last: np.ndarray) -> np.ndarray:
        """The third train times the complete matrix, (heads, channels, positions of q)."""
        turned = self.complete.swapaxes(1, 2)
        return _exact(turned, last) if self.columns_first else _exact(last, turned)


def _exact(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Matrix products of integers, none of which reaches 24 bits: float32 holds them all."""
    if not left.any() or not right.any():
        return np.zeros((*left.shape[:-1], right.shape[-1]), dtype=np.int32)
    return (left.astype(np.float32) @ right.astype(np.float32)).astype(np.int32)
