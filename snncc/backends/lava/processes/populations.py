"""Populations of integer neurons: they integrate for a frame, then fire for a frame.

Of a population ``first`` is the tick in which frame 0 is complete: what arrives in the ``frame``
ticks that end with it is summed, and in that same tick the answer begins. While it answers, the
next frame is summed: two state words, and a new sample every ``frame`` ticks.
"""

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

__all__ = ["Accumulate", "IFMemory", "IFSoftReset"]

#: State words have 24 bits, one of them the sign.
LIMIT = 2**23


class Accumulate(EmittedProcess):
    """Sums what arrives in a frame and sends sum and bias, once, as graded spikes of 24 bits.

    Args:
        shape: Of the population.
        bias: Enters once per frame; broadcastable against ``shape``.
        first: Tick in which frame 0 is complete, and sent.
        frame: Ticks of a frame.
        name: Of the population, for messages.
    """

    tensors: ClassVar[tuple[str, ...]] = ("bias",)

    def __init__(self, *, shape: Any, bias: Any, first: int, frame: int, name: str) -> None:
        super().__init__(shape=shape, first=first, frame=frame, name=name)
        self.a_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)
        self.v = Var(shape=shape, init=0)
        self.bias = Var(shape=shape, init=np.broadcast_to(bias, shape))


class IFSoftReset(EmittedProcess):
    """IF neurons with soft reset, which have no memory from frame to frame.

    A neuron whose potential reaches the first k levels fires in the first k ticks of its answer.
    It fires iff ``m``, counted from the level that its next spike needs, is not negative; a spike
    lowers ``m`` by the distance to the next level. With equal distances that is an IF neuron with
    that threshold; rounding half to even needs distances that alternate by one.

    Args:
        shape: Of the population.
        bias: Enters once per frame; broadcastable against ``shape``.
        levels: (D, C) or (D, 1), never decreasing along D; at most ``frame`` of them.
        first: Tick in which frame 0 is complete, and the first in which it is answered.
        frame: Ticks of a frame.
        name: Of the population, for messages.
    """

    tensors: ClassVar[tuple[str, ...]] = ("bias", "levels")

    def __init__(
        self, *, shape: Any, bias: Any, levels: Any, first: int, frame: int, name: str
    ) -> None:
        super().__init__(shape=shape, first=first, frame=frame, name=name)
        self.a_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)
        self.v = Var(shape=shape, init=0)
        self.m = Var(shape=shape, init=0)
        self.bias = Var(shape=shape, init=np.broadcast_to(bias, shape))
        self.levels = Var(shape=levels.shape, init=levels)


class IFMemory(EmittedProcess):
    """IF neurons whose membrane stays from timestep to timestep; within one they fire as above.

    At the beginning of an answer ``rest = floor(rest * decay) + drive`` and ``m`` is counted from
    there; ``drive`` is ``potential << fraction``, or a current that this goes into:
    ``flow = floor(flow * current) + (potential << fraction)``. ``rest`` is 0 when a sample begins,
    and in a tick with a spike

    * ``soft``: lowered by ``threshold``;
    * ``hard``: set to 0;
    * ``delayed``: left as it is; ``owed``, which the next timestep begins with, grows instead;
    * ``raised``: lowered by ``threshold``; a ``rest`` that reaches the first level lowers the next
      ``m`` by one.

    Args:
        shape: Of the population.
        bias: Enters once per frame; broadcastable against ``shape``.
        levels: (D, C) or (D, 1), in units of the membrane.
        threshold: (C,) or (1,), in units of the membrane.
        reset: ``soft``, ``hard``, ``delayed`` or ``raised``.
        decay: (numerator, shift): numerator / 2**shift, or one numerator of each channel.
        current: The same of the current; (0, 0) without one.
        fraction: Bits of the membrane after the potential's unit.
        timesteps: Frames of a sample.
        first: Tick in which frame 0 is complete, and the first in which it is answered.
        frame: Ticks of a frame.
        name: Of the population, for messages.
    """

    tensors: ClassVar[tuple[str, ...]] = ("bias", "levels", "threshold")

    def __init__(
        self, *, shape: Any, bias: Any, levels: Any, threshold: Any, reset: str, decay: Any,
        current: Any, fraction: int, timesteps: int, first: int, frame: int, name: str,
    ) -> None:  # fmt: skip
        super().__init__(
            shape=shape, reset=reset, decay=decay, current=current, fraction=fraction,
            timesteps=timesteps, first=first, frame=frame, name=name,
        )  # fmt: skip
        self.a_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)
        self.v = Var(shape=shape, init=0)
        self.m = Var(shape=shape, init=0)
        self.rest = Var(shape=shape, init=0)
        self.owed = Var(shape=shape, init=0)
        self.flow = Var(shape=shape, init=0)
        self.bias = Var(shape=shape, init=np.broadcast_to(bias, shape))
        self.levels = Var(shape=levels.shape, init=levels)
        self.threshold = Var(shape=threshold.shape, init=threshold)


# -- models --------------------------------------------------------------------------------


class _Integrator(PyLoihiProcessModel):
    """What all populations do: sum what arrives, and answer when a frame is complete."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    v: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    bias: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.first, self.frame = proc_params["first"], proc_params["frame"]
        self.name = proc_params["name"]

    def run_spk(self) -> None:
        """One tick."""
        self.v += self.a_in.recv()
        self.check(self.v)
        number, tick = divmod(self.time_step - self.first, self.frame)
        if tick == 0:
            self.load(number, self.v + self.bias)
            self.v[:] = 0
        # Before frame 0 is complete there is no potential yet, only a bias.
        sent = self.answer(tick) if number >= 0 else np.zeros_like(self.v)
        self.s_out.send(sent)

    def load(self, number: int, potential: np.ndarray) -> None:
        """Takes the complete potential of frame ``number``."""
        raise NotImplementedError

    def answer(self, tick: int) -> np.ndarray:
        """What is sent in tick 0, 1, ... since the frame was complete."""
        raise NotImplementedError

    def check(self, state: np.ndarray) -> None:
        """State words have 24 bits; they neither wrap nor saturate here.

        Raises:
            OverflowError: They would, naming the population.
        """
        worst = max(int(state.max()), -int(state.min()))
        if worst >= LIMIT:
            raise OverflowError(f"{self.name}: a state of {worst:,} does not fit 24 bits")


@implements(proc=Accumulate, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyAccumulate(_Integrator):
    """See Accumulate."""

    def load(self, number: int, potential: np.ndarray) -> None:
        """See _Integrator."""
        self.check(potential)
        self.complete = potential

    def answer(self, tick: int) -> np.ndarray:
        """See _Integrator."""
        return self.complete if tick == 0 else np.zeros_like(self.complete)


class _Fires(_Integrator):
    """Fires as long as the membrane potential, counted from the next level, is not negative."""

    m: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    levels: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)

    def answer(self, tick: int) -> np.ndarray:
        """See _Integrator."""
        if tick >= len(self.levels):
            return np.zeros_like(self.m)
        fired = self.m >= 0
        if tick + 1 < len(self.levels):
            self.m -= fired * (self.levels[tick + 1] - self.levels[tick])
        self.reset(fired)
        return fired.astype(np.int32)

    def reset(self, fired: np.ndarray) -> None:
        """What spikes change besides."""


@implements(proc=IFSoftReset, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyIFSoftReset(_Fires):
    """See IFSoftReset."""

    def load(self, number: int, potential: np.ndarray) -> None:
        """See _Integrator."""
        self.m[:] = potential - self.levels[0]
        self.check(self.m)


@implements(proc=IFMemory, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyIFMemory(_Fires):
    """See IFMemory."""

    rest: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    owed: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    flow: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    threshold: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        numerator, self.shift = proc_params["decay"]
        slow, self.current_shift = proc_params["current"]
        self.numerator, self.current = np.asarray(numerator), np.asarray(slow)
        self.fraction, self.timesteps = proc_params["fraction"], proc_params["timesteps"]
        self.kind = proc_params["reset"]

    def load(self, number: int, potential: np.ndarray) -> None:
        """See _Integrator."""
        if number % self.timesteps == 0:
            self.rest[:] = self.owed[:] = self.flow[:] = 0
        raised = (self.rest >= self.levels[0]) * self.threshold * (self.kind == "raised")
        # The product needs more than a state word, as in Lava's own LIF; what stays does not.
        left = (self.rest.astype(np.int64) * self.numerator) >> self.shift
        membrane = left - self.owed + self.driven(potential.astype(np.int64) << self.fraction)
        self.check(membrane)
        self.rest[:], self.owed[:] = membrane, 0
        self.m[:] = self.rest - self.levels[0] - raised
        self.check(self.m)

    def driven(self, drive: np.ndarray) -> np.ndarray:
        """What comes into the membrane: the drive, or the current that it goes into."""
        if self.current.any():
            drive = drive + ((self.flow.astype(np.int64) * self.current) >> self.current_shift)
            self.check(drive)
            self.flow[:] = drive
        return drive

    def reset(self, fired: np.ndarray) -> None:
        """See _Fires."""
        if self.kind == "hard":
            self.rest[fired] = 0
        else:
            taken = fired * self.threshold
            is_late = self.kind == "delayed"
            state = self.owed if is_late else self.rest
            state += taken if is_late else -taken
            self.check(state)
