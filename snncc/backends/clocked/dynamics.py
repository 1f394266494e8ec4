"""How populations integrate and fire in the clocked engine, tick by tick."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from snncc.backends.clocked.synapses import Ints
from snncc.errors import SnnccError
from snncc.program import Neuron

__all__ = ["DYNAMICS", "Carried", "Dynamics", "SoftReset", "dynamics_of"]


class Dynamics(Protocol):
    """How a population integrates and fires; it lives for a batch, over all its timesteps."""

    def load(self, potential: Ints) -> None:
        """Takes the complete potential of a timestep, (N, [H, W,] C)."""

    def fire(self, tick: int) -> npt.NDArray[np.bool_]:
        """Who fires in tick 0..D-1 of the window, (N, [H, W,] C)."""


class SoftReset:
    """IF with soft reset and no memory over timesteps: the SFA neuron.

    The membrane potential is counted from the first level. In each tick a neuron fires iff it is
    not negative; firing lowers it by the distance to the next level.
    """

    def __init__(self, neuron: Neuron) -> None:
        self.first = neuron.levels[:, 0]
        self.distances = np.diff(neuron.levels, axis=1).T

    def load(self, potential: Ints) -> None:
        """See Dynamics."""
        self.membrane = potential - self.first

    def fire(self, tick: int) -> npt.NDArray[np.bool_]:
        """See Dynamics."""
        fired: npt.NDArray[np.bool_] = self.membrane >= 0
        if tick < len(self.distances):
            self.membrane -= fired * self.distances[tick]
        return fired


class Carried:
    """A membrane that remembers: decay at the border of timesteps, soft reset within the ticks.

    ``membrane`` is counted from the level that the next spike needs; ``rest`` is what will stay.
    """

    def __init__(self, neuron: Neuron) -> None:
        self.first = neuron.levels[:, 0]
        self.distances = np.diff(neuron.levels, axis=1).T
        numerator, self.shift = neuron.decay
        slow, self.current_shift = neuron.current
        self.numerator, self.current = np.asarray(numerator), np.asarray(slow)
        self.fraction, self.threshold = neuron.fraction, np.asarray(neuron.threshold)
        self.rest: Ints = np.zeros((), dtype=np.int64)
        self.flow: Ints = np.zeros((), dtype=np.int64)

    def load(self, potential: Ints) -> None:
        """See Dynamics."""
        self.rest = self.decayed() + self.driven(potential << self.fraction)
        self.membrane = self.rest - self.first

    def driven(self, drive: Ints) -> Ints:
        """What comes into the membrane: the drive, or the current that it goes into."""
        if self.current.any():
            drive = self.flow = drive + ((self.flow * self.current) >> self.current_shift)
        return drive

    def decayed(self) -> Ints:
        """What is left of the last timestep."""
        left: Ints = (self.rest * self.numerator) >> self.shift  # rounds down, also below zero
        return left

    def fire(self, tick: int) -> npt.NDArray[np.bool_]:
        """See Dynamics."""
        fired: npt.NDArray[np.bool_] = self.membrane >= 0
        if tick < len(self.distances):
            self.membrane -= fired * self.distances[tick]
        self.reset(fired)
        return fired

    def reset(self, fired: npt.NDArray[np.bool_]) -> None:
        """What spikes take off the rest."""
        self.rest -= fired * self.threshold


class HardReset(Carried):
    """A membrane that begins anew after a spike."""

    def reset(self, fired: npt.NDArray[np.bool_]) -> None:
        """See Carried."""
        self.rest[fired] = 0


class DelayedReset(Carried):
    """A membrane whose soft reset comes a timestep late, after the decay; ``owed`` till then."""

    def __init__(self, neuron: Neuron) -> None:
        super().__init__(neuron)
        self.owed: Ints = np.zeros((), dtype=np.int64)

    def decayed(self) -> Ints:
        """See Carried."""
        left = super().decayed() - self.owed
        self.owed = np.zeros((), dtype=np.int64)
        return left

    def reset(self, fired: npt.NDArray[np.bool_]) -> None:
        """See Carried."""
        self.owed = self.owed + fired * self.threshold


class RaisedReset(Carried):
    """A soft reset; what would fire again by itself raises the levels by a threshold first."""

    def load(self, potential: Ints) -> None:
        """See Dynamics."""
        raised = (self.rest >= self.first) * self.threshold
        super().load(potential)
        self.membrane -= raised


#: Neuron dynamics by ``Neuron.carry``: a new kind of neuron is one class and one line here.
DYNAMICS: dict[str, Callable[[Neuron], Dynamics]] = {
    "none": SoftReset,
    "soft": Carried,
    "hard": HardReset,
    "delayed": DelayedReset,
    "raised": RaisedReset,
}


def dynamics_of(neuron: Neuron) -> Dynamics:
    """How a population integrates and fires.

    Raises:
        SnnccError: It carries what this engine does not know.
    """
    if neuron.carry not in DYNAMICS:
        raise SnnccError(f"engine 'clocked' has no neurons that carry '{neuron.carry}'")
    return DYNAMICS[neuron.carry](neuron)
