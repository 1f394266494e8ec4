"""What lies between populations and keeps no potential: maxima over windows, and waiting."""

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

__all__ = ["MaxPool", "Relay"]

#: Of words of 24 bits; potentials are above it, and every window has one of what arrives.
LEAST = -(2**23)


class MaxPool(EmittedProcess):
    """Maximum over windows of what arrives, sent in the same tick; of binary spikes it is an OR.

    Spikes of a neuron that fires k times come in the first k ticks, so the OR of such trains is
    the train of the largest count. Potentials come in one tick, complete; in all others zeros do,
    whose maximum is zero.

    Args:
        input_shape: (W, H, C).
        shape: Of the maxima.
        kernel: (x, y).
        stride: (x, y).
        padding: (before x, before y, after x, after y), of what is less than all that arrives.
        name: Of the process.
    """

    def __init__(
        self, *, input_shape: Any, shape: Any, kernel: Any, stride: Any, padding: Any, name: str
    ) -> None:
        super().__init__(shape=shape, kernel=kernel, stride=stride, padding=padding, name=name)
        self.s_in = InPort(shape=input_shape)
        self.s_out = OutPort(shape=shape)


class Relay(EmittedProcess):
    """Hands on what arrives some ticks later: a ring of the samples that are under way.

    A residual stream's potential waits here, as one graded value per sample, until the branch
    that is added to it has caught up; spikes wait likewise.

    Args:
        shape: Of what arrives.
        delay: Ticks. Without any, a second way from one process to another: Lava allows only one.
        first: Tick in which the answer to frame 0 begins to arrive.
        burst: Ticks that it takes: 1 for a graded value, D for spikes.
        frame: Ticks of a frame.
        name: Of the process.
    """

    def __init__(
        self, *, shape: Any, delay: int, first: int, burst: int, frame: int, name: str
    ) -> None:
        super().__init__(shape=shape, delay=delay, first=first, burst=burst, frame=frame, name=name)
        self.s_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)


@implements(proc=MaxPool, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyMaxPool(PyLoihiProcessModel):
    """See MaxPool."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.shape, self.kernel = proc_params["shape"], proc_params["kernel"]
        self.stride, self.padding = proc_params["stride"], proc_params["padding"]

    def run_spk(self) -> None:
        """One tick."""
        before_x, before_y, after_x, after_y = self.padding
        sides = (before_x, after_x), (before_y, after_y), (0, 0)
        values = np.pad(self.s_in.recv(), sides, constant_values=LEAST)
        (sx, sy), (w, h, _) = self.stride, self.shape
        highest = np.full(self.shape, LEAST, dtype=np.int32)
        for i, j in np.ndindex(*self.kernel):
            np.maximum(highest, values[i : i + sx * w : sx, j : j + sy * h : sy], out=highest)
        self.s_out.send(highest)


@implements(proc=Relay, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyRelay(PyLoihiProcessModel):
    """See Relay."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.first, self.frame = proc_params["first"], proc_params["frame"]
        self.burst, self.delay = proc_params["burst"], proc_params["delay"]
        samples = self.delay // self.frame + 1
        self.ring = np.zeros((samples, self.burst, *proc_params["shape"]), dtype=np.int32)
        self.nothing = np.zeros(proc_params["shape"], dtype=np.int32)

    def run_spk(self) -> None:
        """One tick."""
        arrived = self.s_in.recv()
        if (place := self.place(self.time_step)) is not None:
            self.ring[place] = arrived
        place = self.place(self.time_step - self.delay)
        self.s_out.send(self.nothing if place is None else self.ring[place])

    def place(self, time_step: int) -> tuple[int, int] | None:
        """Where in the ring that is kept which arrives at that time; None: nothing does."""
        number, tick = divmod(time_step - self.first, self.frame)
        return (number % len(self.ring), tick) if number >= 0 and tick < self.burst else None
