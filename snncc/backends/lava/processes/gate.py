"""Gates: the product of two spike trains, number by number and tick by tick."""

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

__all__ = ["SpikeGate"]


class SpikeGate(EmittedProcess):
    """Sends what a tick adds to A * B, where A and B are the spikes of the frame so far.

    Of trains of one tick that is an AND. Of the second train silence may count instead: B is then
    how many of the ticks so far, but of the first ``silent`` alone, brought no spike.

    Args:
        shapes: Of the trains that arrive at ``a_in`` and ``b_in``; where one has a single position
            for each channel, it meets all positions of the other.
        shape: Of the products.
        silent: Most spikes that the second train can have, if its silence counts; else 0.
        first: Tick in which both trains of frame 0 begin.
        frame: Ticks of a frame.
        name: Of the process.
    """

    arrivals: ClassVar[tuple[str, ...]] = ("a_in", "b_in")

    def __init__(
        self, *, shapes: Any, shape: Any, silent: int, first: int, frame: int, name: str
    ) -> None:
        super().__init__(shape=shape, silent=silent, first=first, frame=frame, name=name)
        a, b = shapes
        self.a_in, self.b_in, self.s_out = InPort(shape=a), InPort(shape=b), OutPort(shape=shape)
        self.a, self.b, self.sent = Var(shape=a, init=0), Var(shape=b, init=0), Var(shape, init=0)


@implements(proc=SpikeGate, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySpikeGate(PyLoihiProcessModel):
    """See SpikeGate."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    b_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    a: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    b: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    sent: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.first, self.frame = proc_params["first"], proc_params["frame"]
        self.silent = proc_params["silent"]

    def run_spk(self) -> None:
        """One tick."""
        tick = (self.time_step - self.first) % self.frame
        if tick == 0:
            for state in (self.a, self.b, self.sent):
                state[:] = 0
        self.a += self.a_in.recv()
        self.b += self.b_in.recv()
        other = min(tick + 1, self.silent) - self.b if self.silent else self.b
        product = self.a * other
        self.s_out.send(product - self.sent)
        self.sent[:] = product
