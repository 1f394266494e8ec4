"""The two ends of a network: samples from a file, results to a file.

Arrays pass through .npy files mapped into memory, whose paths the processes are given: reading a
Var of a running process takes Lava tens of microseconds per element.
"""

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

__all__ = ["FrameSource", "ReadOut"]


class FrameSource(EmittedProcess):
    """Sends a timestep of a sample in the first tick of every frame, as graded spikes.

    Args:
        shape: Of a timestep, (W, H, C) or (F,).
        path: .npy file of integers, (N, C, H, W): shown in every timestep, or (T, N, C, H, W).
        timesteps: T.
        frame: Ticks of a frame.
        name: Of the source.
    """

    def __init__(self, *, shape: Any, path: str, timesteps: int, frame: int, name: str) -> None:
        super().__init__(shape=shape, path=path, timesteps=timesteps, frame=frame, name=name)
        self.s_out = OutPort(shape=shape)


class ReadOut(EmittedProcess):
    """Sums what arrives in a frame and writes it down.

    Args:
        shape: Of what arrives, (W, H, C) or (F,).
        first: Tick in which the answer to frame 0 begins to arrive.
        burst: Ticks that it takes.
        frame: Ticks of a frame.
        sums: .npy file (T, N, C, H, W), or another shape with these elements: what arrived in a
            frame is added to it.
        ticks: .npy file (T, burst): spikes per tick are added over all samples; or no name.
        trains: .npy file (T, burst, N, C, H, W): what arrived tick by tick; or no name.
        name: Of the process.
    """

    def __init__(
        self, *, shape: Any, first: int, burst: int, frame: int, sums: str, ticks: str = "",
        trains: str = "", name: str,
    ) -> None:  # fmt: skip
        super().__init__(
            shape=shape, first=first, burst=burst, frame=frame, sums=sums, ticks=ticks,
            trains=trains, name=name,
        )  # fmt: skip
        self.s_in = InPort(shape=shape)


@implements(proc=FrameSource, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyFrameSource(PyLoihiProcessModel):
    """See FrameSource."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.shape, self.frame = proc_params["shape"], proc_params["frame"]
        self.timesteps = proc_params["timesteps"]
        x = np.load(proc_params["path"], mmap_mode="r")
        if x.ndim == len(self.shape) + 1:
            x = np.broadcast_to(x, (self.timesteps, *x.shape))
        self.x = x

    def run_spk(self) -> None:
        """One tick."""
        number, tick = divmod(self.time_step - 1, self.frame)
        sample, t = divmod(number, self.timesteps)
        sent = np.zeros(self.shape, dtype=np.int32)
        if tick == 0 and sample < self.x.shape[1]:
            sent[:] = self.x[t, sample].T
        self.s_out.send(sent)


@implements(proc=ReadOut, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyReadOut(PyLoihiProcessModel):
    """See ReadOut."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.first, self.frame = proc_params["first"], proc_params["frame"]
        self.burst = proc_params["burst"]
        self.sums = _mapped(proc_params["sums"], 2)
        self.ticks = _mapped(proc_params["ticks"], 1)
        self.trains = _mapped(proc_params["trains"], 3)

    def run_spk(self) -> None:
        """One tick."""
        arrived = self.s_in.recv()
        number, tick = divmod(self.time_step - self.first, self.frame)
        sample, t = divmod(number, len(self.sums))
        if tick < self.burst and 0 <= sample < self.sums.shape[1]:
            self.write(t, tick, sample, arrived.T.ravel())

    def write(self, t: int, tick: int, sample: int, arrived: np.ndarray) -> None:
        """Adds what arrived in one tick of a frame to the files."""
        self.sums[t, sample] += arrived.astype(self.sums.dtype)
        if self.ticks is not None:
            self.ticks[t, tick] += np.count_nonzero(arrived)
        if self.trains is not None:
            self.trains[t, tick, sample] = arrived


def _mapped(path: str, lead: int) -> Any:
    """A file to write to, with so many axes before the elements; None without a name."""
    if not path:
        return None
    array = np.load(path, mmap_mode="r+")
    return array.reshape(*array.shape[:lead], -1)
