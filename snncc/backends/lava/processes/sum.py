"""Sums of spikes: what several connections bring in a tick, as one."""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from snncc.backends.lava.processes.base import EmittedProcess

__all__ = ["TrainSum"]


class TrainSum(EmittedProcess):
    """Sends in the same tick the sum of what arrives, as graded spikes; it keeps nothing.

    Args:
        shape: Of what arrives.
        name: Of the process.
    """

    def __init__(self, *, shape: Any, name: str) -> None:
        super().__init__(shape=shape, name=name)
        self.s_in, self.s_out = InPort(shape=shape), OutPort(shape=shape)


@implements(proc=TrainSum, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyTrainSum(PyLoihiProcessModel):
    """See TrainSum."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def run_spk(self) -> None:
        """One tick."""
        self.s_out.send(self.s_in.recv())
